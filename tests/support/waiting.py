"""Waits for changes that send no signal: in terminals, databases, other processes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

ON_TIME_S = 180.0
"""Far longer than anything takes: only a machine with much else to do comes near it."""

T = TypeVar("T")


async def eventually(
    true: Callable[[], object], within_s: float = ON_TIME_S, *, every_s: float = 0.05
) -> None:
    """Wait until this, or the awaitable that it returns, is true; TimeoutError if it is late."""
    async with asyncio.timeout(within_s):
        while True:
            found = true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(every_s)


async def gives(asked: Awaitable[T], expected: T) -> bool:
    """Tell whether this comes to the expected value."""
    return await asked == expected


async def gives_nothing(asked: Awaitable[object]) -> bool:
    """Tell whether this comes to nothing: no rows, an empty list."""
    return not await asked
