"""Photos for terminals that cannot fetch them: one at a time, shared, and kept for a moment."""

import asyncio
import contextlib
import ctypes
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from receiver.core.errors import PhotoNotFetched, PhotoUnusable
from receiver.photos.fit import fit

CACHED: Final = 32
CACHED_FOR_S: Final = 10.0
"""Enough for terminals in a row; a photo replaced under its old name must not wait for longer."""

_M_MMAP_THRESHOLD: Final = -3  # glibc's malloc.h


Fault = PhotoUnusable | PhotoNotFetched


@dataclass
class _Flight:
    """A photo on its way, and how many callers wait for it."""

    task: asyncio.Task[bytes | Fault]
    waiting: int = 0


class Album:
    """Has photos fetched, makes them fit, and keeps the last ones for a moment."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._one_at_a_time = asyncio.Semaphore(1)
        """Only one file, of up to 30 MB, and its pixels are in memory at a time."""
        self._flights: dict[str, _Flight] = {}
        self._fitted: dict[str, tuple[float, bytes]] = {}
        _give_memory_back()

    async def jpeg(self, url: str) -> bytes:
        """Return the photo as terminals take it.

        Raises PhotoUnusable where it cannot be used as it is, PhotoNotFetched where it is worth
        asking again. A caller that asks while it is on its way gets the same photo or error.
        """
        if (fitted := self._cached(url)) is not None:
            return fitted
        flight = self._flights.get(url)
        if flight is None:
            flight = _Flight(asyncio.create_task(self._fetch_and_fit(url), name="photo"))
            self._flights[url] = flight
        flight.waiting += 1
        try:
            fitted_or_fault = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:  # it is over, or no caller waits any more
                flight.task.cancel()
                del self._flights[url]
        if isinstance(fitted_or_fault, bytes):
            return fitted_or_fault
        raise type(fitted_or_fault)(fitted_or_fault.message)

    def _cached(self, url: str) -> bytes | None:
        until, fitted = self._fitted.get(url, (0.0, None))
        return fitted if self._monotonic() < until else None

    async def _fetch_and_fit(self, url: str) -> bytes | Fault:
        """Return the fitted photo or the error; raised, the error would keep the file in memory.

        A traceback keeps the variables of all its frames, and a task keeps its traceback.
        """
        async with self._one_at_a_time:
            try:
                fitted = await _fitted_in_a_thread(await self._fetch(url))
            except (PhotoUnusable, PhotoNotFetched) as fault:
                return fault.with_traceback(None)
        self._fitted.pop(url, None)
        self._fitted[url] = (self._monotonic() + CACHED_FOR_S, fitted)
        while len(self._fitted) > CACHED:
            del self._fitted[next(iter(self._fitted))]
        return fitted


async def _fitted_in_a_thread(picture: bytes) -> bytes:
    """Fit a picture; even if cancelled, return only when its memory is free again."""
    fitting = asyncio.create_task(asyncio.to_thread(fit, picture))
    fitting.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio warns
    del picture
    try:
        await asyncio.wait({fitting})  # which leaves it alone when cancelled itself
    finally:
        await asyncio.wait({fitting})  # a thread cannot be stopped
    return fitting.result()


def _give_memory_back() -> None:
    """Have glibc return large blocks to the system as soon as they are freed.

    Otherwise it raises what counts as large, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD), and each
    thread that ever fitted a picture keeps up to 64 MB: 185 MB when idle instead of 77.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # where there is no glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
