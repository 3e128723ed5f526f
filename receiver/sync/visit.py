"""A visit to one leased terminal: from the lease to a client for it, to giving it back.

The worker, the buttons' runs, drifts and `receiver check` share it, so that each of them calls a
terminal through the gate and under a lease, and leaves its rest in the ledger.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
    TerminalError,
    TerminalRefused,
    TerminalReplaced,
)
from receiver.core.logs import get_logger
from receiver.core.metrics import Metrics
from receiver.core.models import (
    NOTHING_HELD,
    Capabilities,
    Held,
    LeaseAnswer,
    Leased,
    Outcome,
    Owner,
    PageVerdict,
    Pair,
    Progress,
    Recorded,
    Rest,
    Terminal,
)
from receiver.core.settings import Settings
from receiver.supabase.ledger import Ledger
from receiver.sync.consequences import decide, is_unanswering
from receiver.sync.gate import LEASE_MARGIN_S, LEASE_SPARE_S, Gate, Lease
from receiver.sync.held import UNKNOWN_PHOTO
from receiver.terminals.calls import Calls
from receiver.terminals.client import TerminalClient
from receiver.terminals.faces import FetchPhoto

LEASE_PAUSE_S = 0.25
"""Between two requests for a terminal whose lease is another receiver's."""
MAX_LEASE_WAIT_S = 300.0
"""Longer than a worker's batch of pairs takes at the default pause."""
MAX_PHOTO_S = 40.0
"""For one photo and those before it in the queue."""

log = get_logger(__name__)


class Visit:
    """One terminal while its lease is ours, and what is done under the lease.

    Each call of the ledger names the lease, and lengthens it where it can. Where the lease is
    another receiver's, `due` returns no pairs, and each other call raises LeaseLost.
    """

    def __init__(self, visits: "Visits", leased: Leased, *, asked_at: float) -> None:
        """Begin a visit to a terminal that was leased by a request begun at `asked_at`."""
        self.leased = leased
        self.terminal_id = leased.terminal_id
        self.failures = leased.failures
        """How often in a row something went wrong, on this visit and the ones before it."""
        self.is_unanswering = False
        """Whether the terminal is not to be asked anything more on this visit."""
        self.due_again_s: float | None = None
        """When the first of its pairs that failed is due again, in seconds."""
        self.resting: Rest | None = None
        """Set when the terminal is to be left alone; the visit must end then."""
        self._visits = visits
        self._ledger = visits.ledger
        self.lease = Lease(self._renew, until=asked_at + visits.lease_s, clock=time.monotonic)
        self._client: TerminalClient | None = None

    def open(self, terminal: Terminal) -> TerminalClient:
        """Return the client, whose every call passes the gate under the visit's lease."""
        if self._client is None:
            self._client = self._visits.client(self, terminal)
        return self._client

    @property
    def client(self) -> TerminalClient:
        """Return the client of a visit that was opened."""
        assert self._client is not None, "the visit was not opened"  # noqa: S101 - a mistake of ours
        return self._client

    @property
    def is_waited_for(self) -> bool:
        """Return whether a button of this receiver waits for the terminal."""
        return self._visits.is_waited_for(self.terminal_id)

    async def pairs(self, employee_ids: Sequence[UUID]) -> tuple[Pair, ...]:
        """Return the pairs of these employees here, as they are and in this order."""
        return await self._ledger.pairs(self.terminal_id, self.leased.fence, employee_ids)

    async def take(self, employee_id: UUID) -> Pair:
        """Make one pair wanted, whatever was done before, and return it."""
        with self._lengthening() as lease_s:
            return await self._ledger.take(
                self.terminal_id, self.leased.fence, employee_id, lease_s=lease_s
            )

    async def due(self, *, limit: int, besides: Sequence[UUID] = ()) -> tuple[Pair, ...]:
        """Return pairs that are due here, but those of the employees in `besides`."""
        return await self._ledger.due(
            self.terminal_id, self.leased.fence, limit=limit, besides=besides
        )

    async def intend(self, employee_id: UUID, employee_no: str) -> str:
        """Note a number before the call that puts it on the terminal or changes its face.

        Returns what is known of the face there: UNKNOWN_PHOTO or ANOTHERS_PHOTO.
        """
        with self._lengthening() as lease_s:
            return await self._ledger.intend(
                self.terminal_id,
                self.leased.fence,
                employee_id,
                employee_no=employee_no,
                photo=UNKNOWN_PHOTO,
                lease_s=lease_s,
            )

    async def record(self, recorded: Sequence[Recorded]) -> None:
        """Record outcomes of pairs, in this order."""
        if not recorded:
            return
        with self._lengthening() as lease_s:
            await self._ledger.record(
                self.terminal_id, self.leased.fence, recorded, lease_s=lease_s
            )
        for one in recorded:
            outcome = one.outcome
            log.info(
                "pair_synced" if outcome.status == "success" else "pair_not_synced",
                terminal_id=str(self.terminal_id),
                employee_id=str(one.pair.employee_id),
                status=outcome.status,
                step=outcome.step,
                reason=outcome.message,
                retry_s=one.retry_s,
            )

    async def owners(self, numbers: Sequence[str]) -> tuple[Owner, ...]:
        """Return who may be behind these numbers here."""
        return await self._ledger.owners(self.terminal_id, self.leased.fence, numbers)

    async def verified(
        self,
        verdict: PageVerdict,
        progress: Progress | None,
        *,
        asked_at: float,
        ended: bool,
    ) -> None:
        """Note what a page of a verification showed; see `Ledger.verified`."""
        with self._lengthening() as lease_s:
            await self._ledger.verified(
                self.terminal_id,
                self.leased.fence,
                lease_s=lease_s,
                asked_at=asked_at,
                verdict=verdict,
                progress=progress,
                ended=ended,
            )

    async def remember(self, capabilities: Capabilities) -> None:
        """Have the ledger remember capabilities; raise TerminalReplaced if the hardware is new."""
        with self._lengthening() as lease_s:
            replaced = await self._ledger.meet(
                self.terminal_id, self.leased.fence, capabilities, lease_s=lease_s
            )
        if replaced:
            log.warning("terminal_replaced", terminal_id=str(self.terminal_id))
            raise TerminalReplaced

    def blame(self, error: TerminalError) -> None:
        """Give the terminal a rest for an error that no pair caused."""
        outcome = failed(error, NOTHING_HELD)
        retry = decide(outcome, attempts=0, failures=self.failures, random=random.random)
        self.rest(outcome, retry.terminal_s or 0.0)

    def rest(self, outcome: Outcome, seconds: float) -> None:
        """Give the terminal a rest after this visit."""
        self.failures += 1
        self.is_unanswering = self.is_unanswering or is_unanswering(outcome.error)
        kind = outcome.error.kind if outcome.error else TerminalError.kind
        self.resting = Rest(seconds=seconds, reason=outcome.message, kind=kind)
        log.warning(
            "terminal_blocked",
            terminal_id=str(self.terminal_id),
            reason=outcome.message,
            rests_s=round(seconds, 1),
        )

    async def give_back(self) -> None:
        """Give the terminal back, with the rest that was decided on."""
        await self._ledger.release(
            self.terminal_id,
            self.leased.fence,
            pause_s=self._visits.gate.pause_left_s(self.terminal_id),
            failures=self.failures,
            rest=self.resting,
        )

    async def _renew(self, lease_s: float) -> None:
        await self._ledger.renew(self.terminal_id, self.leased.fence, lease_s=lease_s)

    @contextmanager
    def _lengthening(self) -> Iterator[float]:
        """Note that a call of the ledger lengthened the lease too, to the seconds yielded."""
        asked_at, lease_s = time.monotonic(), self._visits.lease_s
        yield lease_s
        self.lease.renewed(asked_at=asked_at, lease_s=lease_s)


class Visits:
    """Opens visits in this receiver's name, and ends them."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        settings: Settings,
        ledger: Ledger,
        gate: Gate,
        terminals_http: httpx.AsyncClient,
        fetch_photo: FetchPhoto,
        metrics: Metrics,
    ) -> None:
        self.ledger = ledger
        self.gate = gate
        self.lease_s = settings.device_timeout_s + LEASE_MARGIN_S + LEASE_SPARE_S
        """How long to lease: enough for some calls other than face calls."""
        self._settings = settings
        self._http = terminals_http
        self._fetch_photo = fetch_photo
        self._metrics = metrics
        self._waited_for: Counter[UUID] = Counter()
        self._not_given_back: dict[UUID, Visit] = {}

    @contextmanager
    def waiting_for(self, terminal_id: UUID) -> Iterator[None]:
        """Ask the visit of this receiver to the terminal, if any, to end after the pair in hand."""
        self._waited_for[terminal_id] += 1
        try:
            yield
        finally:
            self._waited_for[terminal_id] -= 1

    def is_waited_for(self, terminal_id: UUID) -> bool:
        """Return whether a button of this receiver waits for the terminal."""
        return self._waited_for[terminal_id] > 0

    def begin(self, leased: Leased, *, asked_at: float) -> Visit:
        """Return the visit to a terminal leased for `lease_s` by a request begun at `asked_at`."""
        return Visit(self, leased, asked_at=asked_at)

    async def ask(self, terminal_id: UUID) -> tuple[LeaseAnswer, Visit | None]:
        """Ask for one terminal's lease; return the answer, and a visit where it is ours now."""
        asked_at = time.monotonic()
        answer = await self.ledger.lease(terminal_id, lease_s=self.lease_s)
        return answer, self.begin(answer.leased, asked_at=asked_at) if answer.leased else None

    async def wait_for(self, terminal_id: UUID, *, stopped: Callable[[], bool]) -> Visit:
        """Wait until the terminal is free, and lease it.

        Raises TerminalError where it cannot be leased, RunStopped once `stopped`.
        """
        deadline = time.monotonic() + MAX_LEASE_WAIT_S
        with self.waiting_for(terminal_id):
            while not stopped():
                answer, visit = await self.ask(terminal_id)
                if visit is not None:
                    return visit
                if answer.state == "resting":
                    raise TerminalRefused(f"Left alone for now: {answer.rest_reason}")
                if time.monotonic() > deadline:
                    raise TerminalBusy(
                        "The terminal is busy with another receiver; try again later."
                    )
                await asyncio.sleep(LEASE_PAUSE_S)
        raise RunStopped

    def client(self, visit: Visit, terminal: Terminal) -> TerminalClient:
        """Return a client for a visit; `Visit.open` keeps it."""
        calls = Calls(
            self._http,
            terminal,
            partial(self.gate.turn, terminal.id, visit.lease),
            timeout_s=self._settings.device_timeout_s,
            face_timeout_s=self._settings.face_timeout_s,
            remember=visit.remember,
            called=self._metrics.called,
            capabilities=visit.leased.capabilities,
            identify=visit.leased.identify,
            after_trouble=visit.failures > 0,
        )
        return TerminalClient(calls, partial(self._fetch_photo_for, visit))

    async def end(self, visit: Visit) -> None:
        """End a visit; where Supabase fails, the terminal is free when its lease ends."""
        try:
            await visit.give_back()
        except (SupabaseError, LeaseLost) as error:
            if isinstance(error, LeaseLost):
                self._metrics.lease_lost()
            elif isinstance(error, SupabaseUnreachable):
                self._not_given_back[visit.terminal_id] = visit
            log.warning("release_failed", terminal_id=str(visit.terminal_id), reason=error.message)

    async def give_back_late(self) -> None:
        """Give back what could not be while Supabase was away; raise SupabaseError if it still is.

        That is sooner than the leases end, and with the rests that were decided on.
        """
        for visit in list(self._not_given_back.values()):
            with suppress(LeaseLost, SupabaseRefused):  # leased again since, or refused for good
                await visit.give_back()
            self._not_given_back.pop(visit.terminal_id, None)

    async def _fetch_photo_for(self, visit: Visit, url: str) -> bytes:
        """Fetch a photo while the terminal waits; the lease must stay ours for as long."""
        await visit.lease.ensure(MAX_PHOTO_S)
        try:
            async with asyncio.timeout(MAX_PHOTO_S):
                return await self._fetch_photo(url)
        except TimeoutError:
            raise PhotoNotFetched("The photo did not arrive in time.") from None


def failed(error: TerminalError, held: Held) -> Outcome:
    """Return the outcome of an error at which nothing of a pair was done."""
    return Outcome(status="fatal", step="person", message=error.message, held=held, error=error)
