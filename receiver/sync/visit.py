"""A visit to one leased terminal: from the lease to a client for it, to giving it back.

What the worker, the buttons' runs and `receiver check` share, so that whoever calls a terminal does
it by the gate, under a lease, and leaves its rest in the ledger.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from uuid import UUID

import httpx

from receiver.core.errors import (
    LeaseLost,
    PhotoNotFetched,
    RunStopped,
    SupabaseError,
    SupabaseRefused,
    SupabaseUnreachable,
    TerminalBusy,
    TerminalRefused,
    TerminalReplaced,
)
from receiver.core.logs import get_logger
from receiver.core.metrics import Metrics
from receiver.core.models import Asked, Capabilities, Leased, Rest, Terminal
from receiver.core.settings import Settings
from receiver.supabase.ledger import Ledger
from receiver.sync.gate import LEASE_MARGIN_S, LEASE_SPARE_S, Gate, Lease
from receiver.terminals.persons import Photo, TerminalClient

LEASE_PAUSE_S = 0.25
"""Between asks for a terminal that another holds."""
MOST_LEASE_WAIT_S = 300.0
"""Longer than a worker's batch of pairs takes at the default pause."""
MOST_PHOTO_S = 40.0
"""For one photo and those before it in the queue."""

log = get_logger(__name__)


class Visit:
    """One terminal while it is ours: its lease, and how it went so far."""

    def __init__(self, leased: Leased, lease: Lease) -> None:
        self.terminal_id = leased.terminal_id
        self.fence = leased.fence
        self.failures = leased.failures
        """What went wrong in a row, on this visit and those before it."""
        self.lease = lease
        self.known = leased.known
        """What the ledger remembers of the terminal."""
        self.look = leased.look
        """Whether it is to be asked first which hardware it is."""
        self.client: TerminalClient | None = None
        self.deaf = False
        """Whether it is of no use to ask it anything more."""
        self.again_s: float | None = None
        """When the first of its pairs that failed is due again, in seconds."""
        self.rest: Rest | None = None
        """Set when the terminal is to be left alone; the visit must end then."""


class Visits:
    """Opens and closes visits; `ledger` leases in this receiver's name."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        settings: Settings,
        ledger: Ledger,
        gate: Gate,
        terminals_http: httpx.AsyncClient,
        photo: Photo,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._gate = gate
        self._http = terminals_http
        self._photo = photo
        self._metrics = metrics
        self.lease_s = settings.device_timeout_s + LEASE_MARGIN_S + LEASE_SPARE_S
        """For how long to lease: enough for some calls other than a face's."""

        self._waited_for: Counter[UUID] = Counter()
        self._kept: dict[UUID, Visit] = {}

    @contextmanager
    def waiting_for(self, terminal_id: UUID) -> Iterator[None]:
        """Ask whoever of this receiver visits the terminal to leave after the pair in hand."""
        self._waited_for[terminal_id] += 1
        try:
            yield
        finally:
            self._waited_for[terminal_id] -= 1

    def is_waited_for(self, terminal_id: UUID) -> bool:
        """Tell whether somebody of this receiver waits for the terminal."""
        return self._waited_for[terminal_id] > 0

    def begin(self, leased: Leased, *, asked_at: float) -> Visit:
        """Return the visit to a terminal leased for `lease_s` by a request begun at `asked_at`."""
        lease = Lease(
            lambda s: self._ledger.renew(leased.terminal_id, leased.fence, lease_s=s),
            until=asked_at + self.lease_s,
            clock=time.monotonic,
        )
        return Visit(leased, lease)

    async def ask(self, terminal_id: UUID) -> tuple[Asked, Visit | None]:
        """Ask for one terminal: what came of it, and the visit where it is ours now."""
        asked_at = time.monotonic()
        asked = await self._ledger.lease(terminal_id, lease_s=self.lease_s)
        return asked, self.begin(asked.leased, asked_at=asked_at) if asked.leased else None

    async def wait_for(self, terminal_id: UUID, *, stopped: Callable[[], bool]) -> Visit:
        """Wait until the terminal is free, and lease it.

        Raises TerminalError where it cannot be had, RunStopped once `stopped`.
        """
        deadline = time.monotonic() + MOST_LEASE_WAIT_S
        with self.waiting_for(terminal_id):
            while not stopped():
                asked, visit = await self.ask(terminal_id)
                if visit is not None:
                    return visit
                if asked.state == "resting":
                    raise TerminalRefused(f"Left alone for now: {asked.rest_reason}")
                if time.monotonic() > deadline:
                    raise TerminalBusy(
                        "The terminal is busy with another receiver; try again later."
                    )
                await asyncio.sleep(LEASE_PAUSE_S)
        raise RunStopped

    def client(self, terminal: Terminal, visit: Visit) -> TerminalClient:
        """Return the visit's client, whose every call passes the gate under the visit's lease."""
        if visit.client is None:
            visit.client = TerminalClient(
                self._http,
                terminal,
                partial(self._gate.turn, terminal.id, visit.lease),
                timeout_s=self._settings.device_timeout_s,
                face_timeout_s=self._settings.face_timeout_s,
                photo=partial(self._fetch, visit),
                remember=partial(self._remember, visit),
                called=self._metrics.called,
                known=visit.known,
                look=visit.look,
                after_trouble=visit.failures > 0,
            )
        return visit.client

    async def _fetch(self, visit: Visit, url: str) -> bytes:
        """Fetch a photo while the terminal waits, which must stay ours for as long."""
        await visit.lease.ensure(MOST_PHOTO_S)
        try:
            async with asyncio.timeout(MOST_PHOTO_S):
                return await self._photo(url)
        except TimeoutError:
            raise PhotoNotFetched("The photo did not arrive in time.") from None

    async def _remember(self, visit: Visit, known: Capabilities) -> None:
        """Have the ledger remember what a terminal takes; raise TerminalReplaced if it is new."""
        asked_at = time.monotonic()
        replaced = await self._ledger.meet(
            visit.terminal_id, visit.fence, known, lease_s=self.lease_s
        )
        visit.lease.renewed(asked_at=asked_at, lease_s=self.lease_s)
        if replaced:
            log.warning("terminal_replaced", terminal_id=str(visit.terminal_id))
            raise TerminalReplaced

    async def end(self, visit: Visit) -> None:
        """Give the terminal back; raises LeaseLost where another has it already."""
        await self._ledger.release(
            visit.terminal_id,
            visit.fence,
            pause_s=self._gate.pause_left_s(visit.terminal_id),
            failures=visit.failures,
            rest=visit.rest,
        )

    async def give_back(self, visit: Visit) -> None:
        """End a visit whatever Supabase says; a terminal not given back is free by its lease."""
        try:
            await self.end(visit)
        except (SupabaseError, LeaseLost) as error:
            if isinstance(error, LeaseLost):
                self._metrics.lease_lost()
            elif isinstance(error, SupabaseUnreachable):
                self._kept[visit.terminal_id] = visit
            log.warning("release_failed", terminal_id=str(visit.terminal_id), reason=error.message)

    async def give_back_kept(self) -> None:
        """Give back what could not be while Supabase was away; raises SupabaseError if it still is.

        Sooner than the leases run out, and with the rests that were decided on.
        """
        for visit in list(self._kept.values()):
            with suppress(LeaseLost, SupabaseRefused):  # leased again since, or never to be given
                await self.end(visit)
            self._kept.pop(visit.terminal_id, None)
