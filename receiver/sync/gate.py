"""The gate to the terminals: one call at a time to each, spaced, and only under a lease.

Every call of this process to a terminal passes here. A lane is a sequence of calls with the pause
between them; one lane is the plan's "one call at a time over all terminals".
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from receiver.core.errors import LeaseLost, Stopping

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

LEASE_MARGIN_S = 5.0
"""How long a lease outlasts the call made under it: the answer's way back, slow clocks."""
LEASE_SPARE_S = 3.0
"""What a renewal asks for beyond that, so that not each call renews. A terminal whose receiver died
waits so much longer."""


class Lease:
    """The lease of one terminal, as this receiver sees it.

    Promise: the lease outlasts each call that is made under it, so that no other receiver follows
    one that died in the middle of a call before the terminal is done. Only this process's own
    monotonic clock is read, from before each renewal was asked for.
    """

    def __init__(
        self, renew: Callable[[float], Awaitable[None]], *, until: float, clock: Clock
    ) -> None:
        self._renew = renew
        self._until = until
        self._clock = clock

    def renewed(self, *, asked_at: float, lease_s: float) -> None:
        """Note that the lease was lengthened by a call made at `asked_at`."""
        self._until = max(self._until, asked_at + lease_s)

    async def ensure(self, call_s: float) -> None:
        """Renew the lease unless it outlasts a call of so many seconds.

        Raises LeaseLost, or SupabaseError where it could not be renewed.
        """
        asked_at = self._clock()
        needed_s = call_s + LEASE_MARGIN_S
        if self._until - asked_at >= needed_s:
            return
        lease_s = needed_s + LEASE_SPARE_S
        await self._renew(lease_s)
        self.renewed(asked_at=asked_at, lease_s=lease_s)
        if self._until - self._clock() < call_s:
            raise LeaseLost("The lease was renewed too slowly to make a call under it.")


class _Entrance:
    """One terminal's entrance: taken by the call in progress, closed for the pause after it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.free_at = 0.0


class Gate:
    """Lanes and entrances; `pause_s` lies between two calls of a lane and of a terminal."""

    def __init__(
        self,
        *,
        lanes: int,
        pause_s: float,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._sleep = sleep
        self._lanes: asyncio.Queue[float] = asyncio.Queue(maxsize=lanes)
        for _ in range(lanes):
            self._lanes.put_nowait(0.0)
        self._entrances: dict[UUID, _Entrance] = {}  # as many as the company has terminals
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Begin no further call: one in progress ends by itself, waiting ones raise Stopping."""
        self._closed.set()

    def pause_left_s(self, terminal_id: UUID) -> float:
        """Return how many seconds no call to this terminal may begin."""
        entrance = self._entrances.get(terminal_id)
        return max(0.0, entrance.free_at - self._clock()) if entrance else 0.0

    @asynccontextmanager
    async def turn(self, terminal_id: UUID, lease: Lease, call_s: float) -> AsyncIterator[None]:
        """Wait for this terminal's turn, for a lane and for the lease to outlast `call_s`.

        Raises Stopping, LeaseLost or SupabaseError instead of letting a call begin.
        """
        entrance = self._entrances.setdefault(terminal_id, _Entrance())
        async with entrance.lock:
            # In the pause, so that no wait for Supabase follows it; and before it has a lane, so
            # that no other terminal waits for Supabase either.
            await lease.ensure(self.pause_left_s(terminal_id) + call_s)
            await self._wait_until(entrance.free_at)
            lane_free_at = await self._lanes.get()
            called = False
            try:
                await self._wait_until(lane_free_at)
                await lease.ensure(call_s)  # again: the wait for a lane may be long
                if self._closed.is_set():
                    raise Stopping
                called = True
                yield
            finally:
                if called:
                    lane_free_at = entrance.free_at = self._clock() + self._pause_s
                self._lanes.put_nowait(lane_free_at)

    async def _wait_until(self, moment: float) -> None:
        while not self._closed.is_set() and (wait_s := moment - self._clock()) > 0:
            waits = [
                asyncio.ensure_future(self._sleep(wait_s)),
                asyncio.ensure_future(self._closed.wait()),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
