"""Push pairs on a visited terminal: sync, read back, decide about the retry, record, log.

The worker and the buttons' runs share it. A pair whose push must be read back is recorded as done
only after that: where a receiver dies in between, the pair is pushed again. A visit whose `resting`
is set is over.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from receiver.core.errors import (
    AnswerUnexplained,
    ReceiverError,
    TerminalError,
    TerminalTimeout,
)
from receiver.core.logs import get_logger
from receiver.core.models import (
    NOTHING_HELD,
    Employee,
    Found,
    Held,
    LeaverPolicy,
    Outcome,
    Pair,
)
from receiver.sync import read_back
from receiver.sync.consequences import consequence, decide, is_unanswering
from receiver.sync.rules import UNKNOWN_PHOTO, Intend, sync, sync_photo
from receiver.sync.verdict import already_so, judged, not_yet_gone, number_to_ask
from receiver.sync.visit import Visit, failed
from receiver.terminals.client import TerminalClient

UNREAD_S = 900.0
"""After so long the worker pushes a pair again that a long run has not read back."""
LATE_RECORDS_AT_ONCE = 5
"""One by one, a page of thirty would keep the terminal for thirty round trips to Supabase."""
log = get_logger(__name__)

Sync = Callable[[TerminalClient, Employee, Held, LeaverPolicy, Intend], Awaitable[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Push:
    """One pair that was pushed, and its outcome."""

    pair: Pair
    employee: Employee
    outcome: Outcome
    how: Sync = sync
    pushed_at: float = field(default_factory=time.monotonic)


class Pushes:
    """Pushes pairs by this receiver's policy for leavers."""

    def __init__(self, policy: LeaverPolicy) -> None:
        self._policy = policy

    async def serve(
        self, visit: Visit, pairs: Sequence[Pair], employees: Mapping[UUID, Employee]
    ) -> None:
        """Push wanted pairs one by one; with none, only identify the terminal.

        `employees` are those of the pairs, read after the claim. Ends early at a fatal outcome, a
        rest or an unanswering terminal, or when a button waits for the terminal.
        """
        try:
            await visit.client.calls.identify()
            could_be = (
                number_to_ask(employees[pair.employee_id], pair.held, self._policy)
                for pair in pairs
            )
            asked = await read_back.before(visit.client, [number for number in could_be if number])
        except TerminalError as error:
            await _could_not_ask(visit, pairs, error)
            return
        pushes: list[Push] = []
        owners: dict[str, UUID] = {}
        for pair in pairs:
            if owners.get(pair.held.employee_no or "", pair.employee_id) != pair.employee_id:
                # Another employee got this number a moment ago: it is no longer this one's to end.
                pair = replace(pair, held=NOTHING_HELD)  # noqa: PLW2901
            employee = employees[pair.employee_id]
            outcome = already_so(employee, pair.held, self._policy, asked)
            if outcome is None:
                push = await self.push(visit, pair, employee)
            else:
                push = Push(pair=pair, employee=employee, outcome=outcome)
            if push.outcome.held.employee_no is not None:
                owners[push.outcome.held.employee_no] = pair.employee_id
            if push.outcome.expected:
                pushes.append(push)
            else:
                await _conclude(visit, pair, push.outcome)
            ends = push.outcome.status == "fatal" or visit.resting or visit.is_unanswering
            if ends or visit.is_waited_for:
                break
        await self.settle(visit, pushes)

    async def push(self, visit: Visit, pair: Pair, employee: Employee, *, how: Sync = sync) -> Push:
        """Push one pair; `settle` it afterwards."""
        answered = visit.client.calls.answered
        number = pair.held.employee_no

        async def intend(employee_no: str) -> None:
            nonlocal number
            await visit.intend(employee.id, employee_no)
            number = employee_no

        try:
            outcome = await how(visit.client, employee, pair.held, self._policy, intend)
        except ReceiverError:
            raise
        except Exception:  # a mistake of ours over one person must not stop everybody else
            log.exception("push_failed", employee_id=str(employee.id))
            error = AnswerUnexplained("The receiver failed at this employee; see its log.")
            held = Held(employee_no=number, photo=UNKNOWN_PHOTO) if number else NOTHING_HELD
            outcome = failed(error, held)
        if isinstance(outcome.error, TerminalTimeout):
            # It may still be at work; another call would come in the middle.
            visit.is_unanswering = True
        elif visit.client.calls.answered > answered and outcome.status != "fatal":
            visit.failures = 0
        return Push(pair=pair, employee=employee, outcome=outcome, how=how)

    async def settle(
        self, visit: Visit, pushes: Sequence[Push], *, late: bool = False
    ) -> list[Push]:
        """Read back what was pushed, record the outcomes and return the pushes with them.

        `late`: what it holds was recorded by `defer`, and may be another's by now.
        """
        expected = [e for push in pushes for e in push.outcome.expected]
        found: Mapping[str, Found] | None = None
        fatal = [push.outcome for push in pushes if push.outcome.status == "fatal"]
        unanswering = visit.is_unanswering or any(is_unanswering(one.error) for one in fatal)
        unread = unanswering and bool(expected)
        if expected and not unread:
            try:
                found = await read_back.after(visit.client, expected)
            except TerminalError as error:
                unread = consequence(error).asked_back != "now"
                if unread:
                    visit.blame(error)
                else:  # it cannot be asked: its word is taken
                    id_ = str(visit.terminal_id)
                    log.info("not_read_back", terminal_id=id_, reason=error.message)
        # A number that one employee gave up and another got in the same visit is the other's now.
        got = {push.outcome.held.employee_no: push.employee.id for push in pushes}
        settled = []
        for push in pushes:
            mine = tuple(
                e
                for e in push.outcome.expected
                if e.may_pass is not False
                or got.get(e.employee_no, push.employee.id) == push.employee.id
            )
            outcome = replace(push.outcome, expected=mine)
            if found is not None:
                outcome = judged(outcome, found)
            elif unread:
                outcome = not_yet_gone(outcome)
            settled.append(replace(push, outcome=outcome))
        # In order, because the last of two with one number has it; late, that is recorded already.
        at_once = LATE_RECORDS_AT_ONCE if late else 1
        for start in range(0, len(settled), at_once):
            await _all_of(
                _conclude(
                    visit,
                    push.pair,
                    push.outcome,
                    # Its word is not enough; or a part was pushed, and the whole is still wanted.
                    still_wanted=unread or (push.how is sync_photo and push.pair.was_wanted),
                    late=late,
                )
                for push in settled[start : start + at_once]
            )
        return settled

    async def defer(self, visit: Visit, push: Push) -> bool:
        """Record a push to be settled later; return False where nothing is left to settle."""
        # A person who must not pass is read back at once: later their number may be another's.
        ending = any(expected.may_pass is False for expected in push.outcome.expected)
        if not push.outcome.expected or push.outcome.error is not None or ending:
            await self.settle(visit, [push])
            return False
        await visit.record(push.pair, push.outcome, retry_s=UNREAD_S)
        return True


async def _could_not_ask(visit: Visit, pairs: Sequence[Pair], error: TerminalError) -> None:
    """Record on the first pair why nothing can be done there now, and leave the terminal."""
    if pairs:
        await _conclude(visit, pairs[0], failed(error, pairs[0].held))
    else:
        visit.blame(error)


async def _conclude(
    visit: Visit, pair: Pair, outcome: Outcome, *, still_wanted: bool = False, late: bool = False
) -> None:
    """Decide what follows from an outcome, note it on the visit, and record it."""
    retry = decide(outcome, attempts=pair.attempts, failures=visit.failures, random=random.random)
    if still_wanted and retry.pair_s is None:
        retry = replace(retry, pair_s=0.0)
    if retry.pair_s:
        visit.due_again_s = min(retry.pair_s, visit.due_again_s or retry.pair_s)
    if retry.terminal_s is not None:  # before it is recorded: that may fail, and be forgotten
        visit.rest(outcome, retry.terminal_s)
    await visit.record(pair, outcome, retry_s=retry.pair_s, late=late)


async def _all_of(ends: Iterable[Awaitable[None]]) -> None:
    """Await all at once, each to its end; then raise the first of their errors, if any."""
    for end in await asyncio.gather(*ends, return_exceptions=True):
        if end is not None:
            raise end
