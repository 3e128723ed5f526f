"""Lines for any number of watchers, as they come: each sees all of them, from the first on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

Json = dict[str, Any]

PING_S = 10.0
"""A watcher gets something at least so often; proxies give up after some 30 s of silence."""


class Feed:
    """Lines in order, and an end. Belongs to no connection."""

    def __init__(self) -> None:
        self.lines: list[Json] = []
        self.has_ended = False
        self._changed = asyncio.Event()

    def add(self, line: Json) -> None:
        """Add a line, and tell the watchers."""
        self.lines.append(line)
        self._tell()

    def end(self) -> None:
        """Note that nothing more will come."""
        self.has_ended = True
        self._tell()

    async def ended(self) -> None:
        """Return when nothing more will come."""
        while not self.has_ended:
            await self._changed.wait()

    async def watch(self) -> AsyncIterator[Json | None]:
        """Yield every line, and None where there was none for PING_S."""
        seen = 0
        while True:
            changed = self._changed
            while seen < len(self.lines):
                seen += 1
                yield self.lines[seen - 1]
            if self.has_ended:
                return
            try:
                await asyncio.wait_for(changed.wait(), PING_S)
            except TimeoutError:
                yield None

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
