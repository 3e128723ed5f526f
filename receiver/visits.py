"""A visit to one leased terminal: from the lease to a client for it, to giving it back.

What the worker, the buttons' runs and `receiver check` share, so that whoever calls a terminal does
it by the gate, under a lease, and leaves its rest in the ledger.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import httpx

from receiver.errors import LeaseLost, SupabaseError
from receiver.gate import LEASE_MARGIN_S, Gate, Lease
from receiver.isapi import TerminalClient
from receiver.ledger import Ledger
from receiver.logs import get_logger
from receiver.models import Leased, Rest, Terminal
from receiver.settings import Settings

log = get_logger(__name__)


class Visit:
    """One terminal while it is ours: its lease, and how it went so far."""

    def __init__(self, terminal_id: UUID, fence: int, failures: int, lease: Lease) -> None:
        self.terminal_id = terminal_id
        self.fence = fence
        self.failures = failures
        """What went wrong in a row, on this visit and those before it."""
        self.lease = lease
        self.again_s: float | None = None
        """When the first of its pairs that failed is due again, in seconds."""
        self.rest: Rest | None = None
        """Set when the terminal is to be left alone; the visit must end then."""


class Visits:
    """Opens and closes visits; `ledger` leases in this receiver's name."""

    def __init__(
        self, settings: Settings, ledger: Ledger, gate: Gate, terminals_http: httpx.AsyncClient
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._gate = gate
        self._http = terminals_http
        self.lease_s = settings.device_timeout_s + LEASE_MARGIN_S
        """For how long to lease: enough for a call other than a face's."""

        self._waited_for: Counter[UUID] = Counter()

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

    def begin(self, terminal_id: UUID, fence: int, failures: int, *, asked_at: float) -> Visit:
        """Return the visit to a terminal leased for `lease_s` by a request begun at `asked_at`."""
        lease = Lease(
            lambda s: self._ledger.renew(terminal_id, fence, lease_s=s),
            until=asked_at + self.lease_s,
            clock=time.monotonic,
        )
        return Visit(terminal_id, fence, failures, lease)

    async def ask(self, terminal_id: UUID) -> tuple[Leased, Visit | None]:
        """Ask for one terminal: what came of it, and the visit where it is ours now."""
        asked_at = time.monotonic()
        leased = await self._ledger.lease(terminal_id, lease_s=self.lease_s)
        if leased.fence is None:
            return leased, None
        return leased, self.begin(terminal_id, leased.fence, leased.failures, asked_at=asked_at)

    def client(self, terminal: Terminal, visit: Visit) -> TerminalClient:
        """Return a client whose every call passes the gate under the visit's lease."""
        return TerminalClient(
            self._http,
            terminal,
            partial(self._gate.turn, terminal.id, visit.lease),
            timeout_s=self._settings.device_timeout_s,
            face_timeout_s=self._settings.face_timeout_s,
        )

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
            log.warning("release_failed", terminal_id=str(visit.terminal_id), reason=error.message)
