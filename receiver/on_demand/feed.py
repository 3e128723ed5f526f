"""What comes bit by bit, for any number of watchers: each sees all of it, from the first on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

Json = dict[str, Any]

PING_S = 10.0
"""A watcher gets something at least so often; proxies give up after some 30 s of silence."""


class Watched:
    """Something that grows, and ends. Belongs to no connection."""

    def __init__(self) -> None:
        self.has_ended = False
        self._changed = asyncio.Event()

    def grown(self) -> None:
        """Tell the watchers that there is more."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """Note that nothing more will come."""
        self.has_ended = True
        self.grown()

    async def ended(self) -> None:
        """Return when nothing more will come."""
        while not self.has_ended:
            await self._changed.wait()

    async def places(self, length: Callable[[], int]) -> AsyncIterator[int | None]:
        """Yield 0, 1, 2, … up to the length there is, and None where it did not grow for PING_S."""
        seen = 0
        while True:
            changed = self._changed
            while seen < length():
                seen += 1
                yield seen - 1
            if self.has_ended:
                return
            try:
                await asyncio.wait_for(changed.wait(), PING_S)
            except TimeoutError:
                yield None


class Feed(Watched):
    """Lines in order, and an end."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Json] = []

    def add(self, line: Json) -> None:
        """Add a line, and tell the watchers."""
        self.lines.append(line)
        self.grown()

    async def watch(self) -> AsyncIterator[Json | None]:
        """Yield every line, and None where there was none for PING_S."""
        async for place in self.places(self.lines.__len__):
            yield None if place is None else self.lines[place]
