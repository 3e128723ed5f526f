"""What `receiver check` works with: one finding, and the database's figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked."""

    what: str
    fault: str | None
    """What is wrong and what to do; None where nothing is wrong."""
    note: str = ""

    def __str__(self) -> str:
        """Return the line that `receiver check` prints."""
        words = self.fault or self.note
        return f"{'✗' if self.fault else '✓'} {self.what}{f': {words}' if words else ''}"
