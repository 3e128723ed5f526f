"""Waits for what tells nobody: terminals, databases, other processes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

ON_TIME_S = 180.0
"""Far longer than anything takes: only a machine with much else to do comes near it."""

T = TypeVar("T")


async def eventually(
    true: Callable[[], object], within_s: float = ON_TIME_S, *, every_s: float = 0.05
) -> None:
    """Wait until this, or what it lets us await, is true; TimeoutError where it is not in time."""
    async with asyncio.timeout(within_s):
        while True:
            found = true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(every_s)


async def gives(asked: Awaitable[T], expected: T) -> bool:
    """Tell whether this comes to what is expected."""
    return await asked == expected


async def gives_nothing(asked: Awaitable[object]) -> bool:
    """Tell whether this comes to nothing: no rows, an empty list."""
    return not await asked
