"""Push pairs on a visited terminal: ask, push the differences, ask back, record, log.

The worker and the buttons' runs share it. A pair is recorded only after the terminal was asked
back: where a receiver dies in between, the pair is pushed again. A visit whose `resting` is set is
over.
"""

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from receiver.core.errors import (
    AnswerUnexplained,
    ReceiverError,
    TerminalError,
    TerminalTimeout,
)
from receiver.core.logs import get_logger
from receiver.core.models import (
    Employee,
    Expected,
    Found,
    Held,
    LeaverPolicy,
    Outcome,
    Pair,
    Recorded,
)
from receiver.sync import read_back
from receiver.sync.consequences import consequence, decide, is_unanswering
from receiver.sync.held import ANOTHERS_PHOTO, UNKNOWN_PHOTO, expected_of, photo_fingerprint
from receiver.sync.rules import Intend, sync, sync_photo
from receiver.sync.verdict import (
    already_so,
    corrected,
    differences,
    judged,
    not_yet_gone,
    numbers_to_ask,
    tells,
)
from receiver.sync.visit import Visit, failed
from receiver.terminals.client import TerminalClient

ASKED_FIRST = 2
"""From so many pairs on, one search first costs less than what it saves."""

log = get_logger(__name__)

Sync = Callable[[TerminalClient, Employee, Held, LeaverPolicy, Intend], Awaitable[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Push:
    """One pair that was pushed, or was in step already, and its outcome."""

    pair: Pair
    employee: Employee
    outcome: Outcome
    how: Sync = sync
    confirmed_at: float | None = None
    """When the terminal said that it was in step, on the monotonic clock; None: it was pushed."""


class Watcher(Protocol):
    """Who watches a page of pairs being served; a button's run is one."""

    async def employee(self, id_: UUID) -> Employee:
        """Return an employee as HR has them now."""

    def reached(self, push: Push) -> None:
        """Hear of each pair as it is reached; it may turn out otherwise when it is asked back."""

    async def interrupts(self, in_hand: Sequence[UUID]) -> bool:
        """Return whether to leave the rest; `in_hand` are the employees pushed and not recorded."""


class Pushes:
    """Pushes pairs by this receiver's policy for leavers."""

    def __init__(self, policy: LeaverPolicy) -> None:
        self._policy = policy

    async def serve(
        self,
        visit: Visit,
        pairs: Sequence[Pair],
        employees: Mapping[UUID, Employee],
        *,
        watcher: Watcher | None = None,
    ) -> list[Push]:
        """Push pairs one by one where the terminal differs; with none, only identify the terminal.

        `employees` are those of the pairs, read after the claim. The terminal is asked for all of
        them first where there are several, where one is in doubt, or where somebody watches. Ends
        early at a fatal outcome, a rest or an unanswering terminal, when a button waits for the
        terminal, or when the watcher interrupts. Returns what was settled, in the order of pairs.
        """
        ask_first = (
            watcher is not None or len(pairs) >= ASKED_FIRST or any(pair.in_doubt for pair in pairs)
        )
        numbers = [
            number
            for pair in pairs
            for number in numbers_to_ask(employees[pair.employee_id], pair.held)
        ]
        faces = [
            pair.held.employee_no
            for pair in pairs
            if pair.held.employee_no and _has_its_photo(employees[pair.employee_id], pair.held)
        ]
        try:
            await visit.client.calls.identify()
            asked_at = time.monotonic()
            asked = await read_back.before(visit.client, numbers if ask_first else [], faces)
        except TerminalError as error:
            return await self._could_not_ask(visit, pairs, employees, error)
        pushes: list[Push] = []
        with _told(watcher, pushes):
            owners: dict[str, UUID] = {}
            for pair in pairs:
                pair = replace(pair, held=_without(owners, pair))  # noqa: PLW2901
                employee = employees[pair.employee_id]
                outcome = already_so(employee, pair.held, self._policy, asked)
                if outcome is not None:
                    push = Push(
                        pair=pair, employee=employee, outcome=outcome, confirmed_at=asked_at
                    )
                else:
                    pair = await _wanted(visit, pair)  # noqa: PLW2901
                    if watcher is not None:  # HR may have edited since the page was read
                        employee = await watcher.employee(employee.id)
                    held = corrected(employee, pair.held, asked)
                    push = await self.push(visit, replace(pair, held=held), employee)
                if push.outcome.held.employee_no is not None:
                    owners[push.outcome.held.employee_no] = pair.employee_id
                pushes.append(push)
                if watcher is not None:
                    watcher.reached(push)
                if outcome is None and await _ends(visit, pushes, watcher):
                    break
            return await self.settle(visit, pushes)

    async def push(self, visit: Visit, pair: Pair, employee: Employee, *, how: Sync = sync) -> Push:
        """Push one pair; `settle` it afterwards."""
        answered = visit.client.calls.answered
        number, photo = pair.held.employee_no, UNKNOWN_PHOTO
        if pair.held.photo == ANOTHERS_PHOTO:
            photo = ANOTHERS_PHOTO

        async def intend(employee_no: str) -> str:
            nonlocal number, photo
            photo = await visit.intend(employee.id, employee_no)
            number = employee_no
            return photo

        try:
            # Before a number is noted: it is remembered of the hardware, which may be another.
            await visit.client.calls.identify()
            outcome = await how(visit.client, employee, pair.held, self._policy, intend)
        except TerminalError as refused:
            outcome = failed(refused, pair.held)
        except ReceiverError:
            raise
        except Exception:  # a mistake of ours over one person must not stop everybody else
            log.exception("push_failed", employee_id=str(employee.id))
            error = AnswerUnexplained("The receiver failed at this employee; see its log.")
            held = replace(pair.held, employee_no=number, photo=photo if number else None)
            outcome = failed(error, held)
        if isinstance(outcome.error, TerminalTimeout):
            # It may still be at work; another call would come in the middle.
            visit.is_unanswering = True
        elif visit.client.calls.answered > answered and outcome.status != "fatal":
            visit.failures = 0
        return Push(pair=pair, employee=employee, outcome=outcome, how=how)

    async def settle(self, visit: Visit, pushes: Sequence[Push]) -> list[Push]:
        """Ask back what was pushed, record the outcomes and return the pushes with them."""
        expected = [e for push in pushes for e in push.outcome.expected]
        found: Mapping[str, Found] | None = None
        fatal = [push.outcome for push in pushes if push.outcome.status == "fatal"]
        unanswering = visit.is_unanswering or any(is_unanswering(one.error) for one in fatal)
        unread = unanswering and bool(expected)
        said_at = time.monotonic()
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
        got = {
            e.employee_no: push.employee.id
            for push in pushes
            for e in push.outcome.expected
            if e.may_pass is not False
        }
        settled: list[Push] = []
        recorded: list[Recorded] = []
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
            is_unread = unread and bool(push.outcome.expected)
            # Its word is not enough; or a part was pushed, and the whole is still wanted.
            still_wanted = is_unread or (push.how is sync_photo and push.pair.was_wanted)
            confirmed_at = push.confirmed_at
            if found is not None and mine and outcome.status == "success":
                confirmed_at = said_at if _said(push, mine, found) else None
            retry_s = _retry_s(visit, push.pair, outcome, still_wanted=still_wanted)
            recorded.append(
                Recorded(
                    pair=push.pair, outcome=outcome, retry_s=retry_s, confirmed_at=confirmed_at
                )
            )
        await visit.record(recorded)
        return settled

    async def _could_not_ask(
        self,
        visit: Visit,
        pairs: Sequence[Pair],
        employees: Mapping[UUID, Employee],
        error: TerminalError,
    ) -> list[Push]:
        """Record on the first pair why nothing can be done there now, and leave the terminal."""
        if not pairs:
            visit.blame(error)
            return []
        pair = await _wanted(visit, pairs[0])
        push = Push(
            pair=pair,
            employee=employees[pair.employee_id],
            outcome=failed(error, pair.held),
        )
        return await self.settle(visit, [push])


@contextmanager
def _told(watcher: Watcher | None, pushes: Sequence[Push]) -> Iterator[None]:
    """Tell the watcher of what was pushed and could not be asked back or recorded."""
    try:
        yield
    except ReceiverError as error:
        for push in pushes:
            if watcher is not None and push.confirmed_at is None:
                words = f"It could not be recorded, and is pushed again: {error.message}"
                outcome = Outcome(status="fatal", step="person", message=words, held=push.pair.held)
                watcher.reached(replace(push, outcome=outcome))
        raise


def _said(push: Push, mine: Sequence[Expected], found: Mapping[str, Found]) -> bool:
    """Return whether a terminal that was asked back said all that makes a pair in step."""
    number = push.outcome.held.employee_no
    if push.how is sync_photo and number:  # name and window were not pushed, and not judged
        mine = [expected_of(push.employee, number)]
    return not any(
        differences(e, found.get(e.employee_no)) or not tells(e, found.get(e.employee_no))
        for e in mine
    )


def _without(owners: Mapping[str, UUID], pair: Pair) -> Held:
    """Return what is held but for numbers that others got a moment ago: not theirs to end."""
    held = pair.held
    anothers = {number for number, owner in owners.items() if owner != pair.employee_id}
    if held.employee_no in anothers:
        held = replace(held, employee_no=None, photo=None)
    return replace(held, others=tuple(one for one in held.others if one not in anothers))


async def _ends(visit: Visit, pushes: Sequence[Push], watcher: Watcher | None) -> bool:
    """Return whether nobody else is to be pushed on this visit, after the last of these."""
    if pushes[-1].outcome.status == "fatal" or visit.resting or visit.is_unanswering:
        return True
    if visit.is_waited_for or watcher is None:
        return visit.is_waited_for
    in_hand = [push.employee.id for push in pushes if push.confirmed_at is None]
    return await watcher.interrupts(in_hand)


async def _wanted(visit: Visit, pair: Pair) -> Pair:
    """Have a pair wanted before it is pushed, so that it is finished if this receiver dies.

    In the version after the one that was read: an edit made since then stays wanted.
    """
    if pair.was_wanted:
        return pair
    await visit.take(pair.employee_id)
    return replace(pair, version=pair.version + 1)


def _has_its_photo(employee: Employee, held: Held) -> bool:
    return held.photo is not None and held.photo == photo_fingerprint(employee)


def _retry_s(visit: Visit, pair: Pair, outcome: Outcome, *, still_wanted: bool) -> float | None:
    """Decide what follows from an outcome, and note it on the visit; None: the pair is done."""
    retry = decide(outcome, attempts=pair.attempts, failures=visit.failures, random=random.random)
    if still_wanted and retry.pair_s is None:
        retry = replace(retry, pair_s=0.0)
    if retry.pair_s:
        visit.due_again_s = min(retry.pair_s, visit.due_again_s or retry.pair_s)
    if retry.terminal_s is not None:  # before it is recorded: that may fail, and be forgotten
        visit.rest(outcome, retry.terminal_s)
    return retry.pair_s
