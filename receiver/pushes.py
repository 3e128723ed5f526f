"""Push pairs on a visited terminal: sync, decide about the retry, record, log.

What the worker and the buttons' runs have in common. A visit whose `rest` is set is over.
"""

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from uuid import UUID

from receiver.directory import Directory
from receiver.errors import AnswerUnexplained, LoginRefused, ReceiverError, TerminalUnusable
from receiver.isapi import TerminalClient
from receiver.ledger import Ledger
from receiver.logs import get_logger
from receiver.models import (
    NOTHING_HELD,
    Employee,
    Held,
    LeaverPolicy,
    Outcome,
    Pair,
    Rest,
    Terminal,
)
from receiver.retries import decide
from receiver.sync import Intend, sync, sync_photo
from receiver.visits import Visit, Visits

log = get_logger(__name__)

Sync = Callable[[TerminalClient, Employee, Held, LeaverPolicy, Intend], Awaitable[Outcome]]


class Pushes:
    """Pushes by this receiver's rules for leavers."""

    def __init__(
        self, policy: LeaverPolicy, ledger: Ledger, directory: Directory, visits: Visits
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._directory = directory
        self._visits = visits

    async def serve(self, visit: Visit, terminal: Terminal, pairs: Iterable[Pair]) -> None:
        """Bring wanted pairs there one by one.

        Ends early when one of them gives the terminal a rest, or somebody pressed a button.
        """
        pairs = tuple(pairs)
        if not pairs:
            return
        employees = await self._directory.employees([pair.employee_id for pair in pairs])
        client = self._visits.client(terminal, visit)
        owners: dict[str, UUID] = {}
        for pair in pairs:
            if owners.get(pair.held.employee_no or "", pair.employee_id) != pair.employee_id:
                # Another employee got this number a moment ago: it is no longer this one's to end.
                pair = replace(pair, held=NOTHING_HELD)  # noqa: PLW2901
            outcome = await self.push(visit, client, pair, employees[pair.employee_id])
            if outcome.held.employee_no is not None:
                owners[outcome.held.employee_no] = pair.employee_id
            if visit.rest is not None or self._visits.is_waited_for(visit.terminal_id):
                return

    async def push(
        self,
        visit: Visit,
        client: TerminalClient,
        pair: Pair,
        employee: Employee,
        *,
        how: Sync = sync,
    ) -> Outcome:
        """Push one pair, record what became of it, and note on the visit what it means."""
        answered = client.calls_answered
        try:
            outcome = await how(
                client, employee, pair.held, self._policy, partial(self._intend, visit, employee.id)
            )
        except ReceiverError:
            raise
        except Exception:  # a mistake of ours over one person must not hold up everybody else
            log.exception("push_failed", employee_id=str(employee.id))
            error = AnswerUnexplained("The receiver failed at this employee; see its log.")
            outcome = Outcome(
                status="fatal", step="person", message=error.message, held=pair.held, error=error
            )
        if client.calls_answered > answered and outcome.status != "fatal":
            visit.failures = 0
        retry = decide(
            outcome, attempts=pair.attempts, failures=visit.failures, random=random.random
        )
        if how is sync_photo and retry.pair_s is None and pair.was_wanted:
            retry = replace(retry, pair_s=0.0)  # a part was pushed; the whole is still wanted
        await self._record(visit, pair, outcome, retry.pair_s)
        if retry.pair_s:
            visit.again_s = min(retry.pair_s, visit.again_s or retry.pair_s)
        if retry.terminal_s is not None:
            self.block(visit, outcome, retry.terminal_s)
        return outcome

    async def _intend(self, visit: Visit, employee_id: UUID, employee_no: str) -> bool:
        asked_at, lease_s = time.monotonic(), self._visits.lease_s
        taken_over = await self._ledger.intend(
            visit.terminal_id, visit.fence, employee_id, employee_no, lease_s=lease_s
        )
        visit.lease.renewed(asked_at=asked_at, lease_s=lease_s)
        return taken_over

    def block(self, visit: Visit, outcome: Outcome, rest_s: float) -> None:
        """Have the terminal left alone after this visit."""
        visit.failures += 1
        visit.rest = Rest(
            seconds=rest_s,
            reason=outcome.message,
            login_refused=isinstance(outcome.error, LoginRefused),
        )
        log.warning(
            "terminal_blocked",
            terminal_id=str(visit.terminal_id),
            reason=outcome.message,
            rests_s=round(rest_s, 1),
        )

    def block_unusable(self, visit: Visit, error: TerminalUnusable) -> None:
        """Have a terminal left alone whose row cannot be worked with."""
        outcome = Outcome(
            status="fatal", step="person", message=error.message, held=Held(), error=error
        )
        retry = decide(outcome, attempts=0, failures=visit.failures, random=random.random)
        self.block(visit, outcome, retry.terminal_s or 0.0)

    async def _record(
        self, visit: Visit, pair: Pair, outcome: Outcome, retry_s: float | None
    ) -> None:
        asked_at, lease_s = time.monotonic(), self._visits.lease_s
        await self._ledger.record(
            visit.terminal_id, visit.fence, pair, outcome, retry_s=retry_s, lease_s=lease_s
        )
        visit.lease.renewed(asked_at=asked_at, lease_s=lease_s)
        log.info(
            "pair_synced" if outcome.status == "success" else "pair_not_synced",
            terminal_id=str(visit.terminal_id),
            employee_id=str(pair.employee_id),
            status=outcome.status,
            step=outcome.step,
            reason=outcome.message,
            retry_s=retry_s,
        )
