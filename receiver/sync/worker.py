"""claim → sync → record, for as long as the process lives.

Wakes when it is told to (a webhook, the end of a terminal's rest) and asks by itself every
`poll_s` seconds, so that a lost webhook costs time and never an edit. Serves as many terminals side
by side as the gate has lanes, each for one batch, so that a long backlog on one does not starve
another. A terminal that fails is left, and rests; its pairs stay wanted in the ledger.
"""

import asyncio
import math
import time
from contextlib import suppress

from receiver.core.errors import (
    LeaseLost,
    Stopping,
    SupabaseError,
    TerminalError,
    TerminalReplaced,
    TerminalUnusable,
)
from receiver.core.logs import get_logger
from receiver.core.models import Claim, Progress, Rest
from receiver.core.settings import Settings
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.sync.gate import Gate
from receiver.sync.push import Pushes
from receiver.sync.verification import Verifications
from receiver.sync.visit import Visit, Visits

BATCH = 30
"""Pairs of one terminal served in a row before another is served; as many as a search takes."""

BREATH_S, MAX_BREATH_S = 0.02, 0.5
"""Between a claim that found nothing due and the next, however many wakes come, and so much longer
with each in a row: webhooks by the thousand must not become as many questions to Supabase."""

SUPABASE_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""After failed claims in a row; a wake does not cut them short."""

SUPABASE_REST_S = 10.0
"""For a terminal whose employees cannot be read: its next visit would fail at once too."""

DATABASE_ASKED_S = 30.0
"""How often the database is asked whether the work could be done: whether its SQL is ours, and
whether HR's tables can be read."""

MAKE_WAY_S = 0.5
"""How long a terminal is left to the button that waits for it, which asks every 0.25 s."""

VISIT_FAILED = Rest(
    seconds=60.0, reason="The receiver failed at this terminal; see its log.", kind="receiver"
)

log = get_logger(__name__)


class Worker:
    """The one loop of a receiver; `run` until `stop`."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        settings: Settings,
        ledger: Ledger,
        company: Company,
        gate: Gate,
        visits: Visits,
        pushes: Pushes,
        verifications: Verifications,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._company = company
        self._gate = gate
        self._visits = visits
        self._pushes = pushes
        self._verifications = verifications
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._free_lanes = asyncio.Semaphore(settings.device_lanes)
        self._visiting: set[asyncio.Task[None]] = set()
        self._failed_claims = 0
        self._database_asked_at = -math.inf
        self._claim_fault: str | None = "The database has not been asked yet."
        self._unheard: str | None = None
        self._visit_fault: str | None = None
        self._visit_failed_at = -math.inf

    @property
    def fault(self) -> str | None:
        """Return why the worker cannot do its work; None when it can.

        A failed visit's fault stays until a visit did its work, although claims succeed meanwhile.
        Where some of HR's edits are not heard, it works all the same: a verification finds them.
        """
        return self._claim_fault or self._visit_fault or self._unheard

    def wake(self) -> None:
        """Have the ledger asked soon; any number of wakes before that count as one."""
        self._awake.set()

    async def run(self) -> None:
        """Serve terminals until `stop` was called and the last call has ended."""
        nothing_due = 0
        while not self._stopping.is_set():
            self._awake.clear()
            try:
                await self._ask_database()
                nothing_due = 0 if await self._serve_all_due() else nothing_due + 1
                self._note_supabase(None)
                if nothing_due:
                    self._forget_visit_fault()
            except SupabaseError as error:
                self._note_supabase(error)
                await self._pause_after_failure()
                continue
            except Exception:  # the loop must outlive a mistake of ours: edits wait behind it
                self._claim_fault = "The worker met an unexpected error; see the log."
                log.exception("worker_failed")
                await self._pause_after_failure()
                continue
            await asyncio.sleep(min(BREATH_S * nothing_due, MAX_BREATH_S))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), self._settings.poll_s)
        await asyncio.gather(*self._visiting)

    def stop(self) -> None:
        """Begin no further call and lease no further terminal; `run` returns soon."""
        self._stopping.set()
        self._gate.close()
        self._awake.set()

    async def _ask_database(self) -> None:
        """Raise SupabaseError where the database's SQL is not ours, or HR's tables unreadable."""
        if time.monotonic() - self._database_asked_at < DATABASE_ASKED_S:
            return
        await self._ledger.fits()
        await self._company.readable()
        self._unheard = await self._ledger.unheard()
        self._database_asked_at = time.monotonic()

    async def _serve_all_due(self) -> int:
        """Begin a visit for each terminal that is due, and return how many there were."""
        await self._visits.give_back_late()
        begun = 0
        while not self._stopping.is_set():
            await self._free_lanes.acquire()
            try:
                asked_at = time.monotonic()
                claim = await self._claim()
            except BaseException:
                self._free_lanes.release()
                raise
            if claim is None:
                self._free_lanes.release()
                return begun
            self._note_supabase(None)
            begun += 1
            visit = asyncio.create_task(self._visit(claim, asked_at))
            self._visiting.add(visit)
            visit.add_done_callback(self._visit_ended)
        return begun

    async def _claim(self) -> Claim | None:
        if self._stopping.is_set():
            return None
        return await self._ledger.claim(lease_s=self._visits.lease_s, limit=BATCH)

    def _visit_ended(self, visit: asyncio.Task[None]) -> None:
        self._visiting.discard(visit)
        self._free_lanes.release()

    async def _visit(self, claim: Claim, asked_at: float) -> None:
        """Serve one leased terminal and give it back."""
        visit = self._visits.begin(claim, asked_at=asked_at)
        try:
            await self._serve(visit, claim)
        except Stopping:
            log.info("visit_stopped", terminal_id=str(claim.terminal_id))
        except TerminalReplaced:
            visit.failures = 0  # and every employee is due there, from now on
        except LeaseLost as error:
            log.warning("lease_lost", terminal_id=str(claim.terminal_id), reason=error.message)
        except SupabaseError as error:
            self._note_visit_failed(error)
            visit.resting = visit.resting or Rest(
                seconds=SUPABASE_REST_S, reason=error.message, kind="supabase"
            )
        except Exception:  # a mistake of ours must not keep the lease, nor be made again at once
            log.exception("visit_failed", terminal_id=str(claim.terminal_id))
            visit.failures += 1
            visit.resting = visit.resting or VISIT_FAILED
        await self._end(visit)

    async def _serve(self, visit: Visit, claim: Claim) -> None:
        try:
            terminal, employees = await asyncio.gather(
                self._company.terminal(claim.terminal_id),
                self._company.employees([pair.employee_id for pair in claim.pairs]),
            )
        except TerminalUnusable as error:
            visit.blame(error)
        else:
            visit.open(terminal)
            await self._pushes.serve(visit, claim.pairs, employees)
            if claim.verification is not None and visit.resting is None:
                await self._verify(visit, claim.verification)
            if claim.pairs or claim.verification is not None:
                self._visit_fault = None

    async def _verify(self, visit: Visit, progress: Progress) -> None:
        try:
            await self._verifications.go_on(visit, progress)
        except TerminalError as error:
            visit.blame(error)

    async def _end(self, visit: Visit) -> None:
        await self._visits.end(visit)
        # It may have more due pairs: beyond the batch, edited meanwhile, or failed and due
        # again after its rest.
        due_in_s = max(
            self._settings.device_delay_s, visit.resting.seconds if visit.resting else 0.0
        )
        loop = asyncio.get_running_loop()
        loop.call_later(due_in_s, self.wake)
        if visit.due_again_s is not None:
            loop.call_later(max(due_in_s, visit.due_again_s), self.wake)
        if visit.is_waited_for:
            await asyncio.sleep(MAKE_WAY_S)

    def _note_supabase(self, error: SupabaseError | None) -> None:
        if error is None:
            if self._failed_claims:
                log.info("supabase_back")
            self._failed_claims = 0
            self._claim_fault = None
        else:
            self._failed_claims += 1
            self._claim_fault = error.message
            self._database_asked_at = -math.inf
            log.warning("supabase_failed", reason=error.message, in_a_row=self._failed_claims)

    def _note_visit_failed(self, error: SupabaseError) -> None:
        self._visit_fault = error.message
        self._visit_failed_at = time.monotonic()
        self._database_asked_at = -math.inf
        log.warning("supabase_failed", reason=error.message)

    def _forget_visit_fault(self) -> None:
        """Nothing is due: what failed would be again by now, had it not been done elsewhere."""
        if not self._visiting and time.monotonic() - self._visit_failed_at > 2 * SUPABASE_REST_S:
            self._visit_fault = None

    async def _pause_after_failure(self) -> None:
        pauses = SUPABASE_PAUSES_S
        pause_s = min(
            pauses[min(max(self._failed_claims, 1), len(pauses)) - 1], self._settings.poll_s
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause_s)
