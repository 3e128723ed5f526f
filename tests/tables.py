"""The tables that documents take from the code; `python -m tests.tables` renews them."""

import re
from pathlib import Path

from receiver.core import settings
from receiver.sync import consequences

ROOT = Path(__file__).parents[1]
TABLES = {
    "README.md": ("settings", settings.table),
    "receiver/sync/README.md": ("consequences", consequences.table),
}


def renewed(document: str) -> str:
    """Return a document with its table as the code has it, between two marks."""
    name, table = TABLES[document]
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = "\n".join(table())
    new, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\1{lines}\n\2", text, flags=re.DOTALL
    )
    assert count == 1, f"{document} has no place for its table of {name}"
    return new


if __name__ == "__main__":
    for each in TABLES:
        (ROOT / each).write_text(renewed(each), encoding="utf-8")
