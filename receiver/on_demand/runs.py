"""Carries out the buttons' runs: in the plan's order, recorded in the same ledger.

Pages of employees in order, and for each page the terminals in order; under the terminal's lease
and through the gate, as in the worker. The terminal is asked for a page first, and only who differs
is pushed. A run that comes to a terminal also serves HR's edits that are due there, so that a long
run keeps no edit waiting.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

from receiver.core.errors import (
    EmployeeUnknown,
    NoActiveTerminal,
    ReceiverError,
    ReceiverStopping,
    RunGoingOn,
    RunStopped,
    TerminalError,
    TerminalRefused,
    TerminalReplaced,
    TerminalUnusable,
    TooManyRuns,
)
from receiver.core.logs import get_logger
from receiver.core.models import NOTHING_HELD, Employee, Outcome, Terminal
from receiver.on_demand.progress import ActiveTerminal, OnFatal, Result, Run
from receiver.supabase.company import Company
from receiver.sync.push import Push, Pushes, Sync
from receiver.sync.rules import sync, sync_again, sync_photo
from receiver.sync.visit import Visit, Visits, failed

KEPT_S = 3600.0
"""How long a finished run is kept."""
MAX_KEPT = 50
PAGE = 30
"""Employees brought to one terminal before the next one's turn; as many as one search asks for."""
EDITS_PER_VISIT = 10
MAX_REPLACED = 2
MAX_RUNS = 10
"""Runs going on at once; each waits for the same terminals."""

log = get_logger(__name__)


class Runs:
    """Starts runs, keeps the last finished ones for an hour, stops them on request."""

    def __init__(
        self,
        company: Company,
        visits: Visits,
        pushes: Pushes,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._company = company
        self._visits = visits
        self._pushes = pushes
        self._wake = wake
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._stopping = False
        self._going: dict[str, asyncio.Task[None]] = {}

    async def start_one(self, employee_id: UUID, on_fatal: OnFatal, *, photo_only: bool) -> Run:
        """Start the run of one employee on all active terminals.

        Raises EmployeeUnknown, NoActiveTerminal, TooManyRuns or SupabaseError.
        """
        employee = (await self._company.employees([employee_id]))[employee_id]
        if employee.gone:
            raise EmployeeUnknown
        how = sync_photo if photo_only else sync_again
        return await self._start([employee_id], on_fatal, bulk=False, how=how)

    async def start_all(self, on_fatal: OnFatal) -> Run:
        """Start the run of all active employees; raise RunGoingOn while another one goes on."""
        self._refuse_second_bulk()
        ids = await self._company.active_employee_ids()
        return await self._start(ids, on_fatal, bulk=True, how=sync)

    def get(self, run_id: str) -> Run | None:
        """Return a run that goes on or is kept."""
        self._forget_old()
        return self._runs.get(run_id)

    def stop(self, run: Run) -> None:
        """Have a run end before its next pair."""
        run.stop_asked = True

    def stop_all(self) -> None:
        """Have every run end after its call in flight, and start no other."""
        self._stopping = True
        for run_id in self._going:
            self._runs[run_id].stop_asked = True

    async def ended(self) -> None:
        """Return when no run goes on."""
        await asyncio.gather(*self._going.values(), return_exceptions=True)

    async def _start(
        self, employee_ids: Sequence[UUID], on_fatal: OnFatal, *, bulk: bool, how: Sync
    ) -> Run:
        terminals = await self._company.active_terminals()
        if not terminals:
            raise NoActiveTerminal
        if bulk:  # again: another press may have come while Supabase was asked
            self._refuse_second_bulk()
        if self._stopping:
            raise ReceiverStopping
        if len(self._going) >= MAX_RUNS:
            raise TooManyRuns
        run = Run(employee_ids=employee_ids, terminals=terminals, on_fatal=on_fatal, bulk=bulk)
        self._forget_old()
        self._runs[run.id] = run
        task = asyncio.create_task(self._carry_out(run, how))
        self._going[run.id] = task
        task.add_done_callback(lambda _: self._going.pop(run.id))
        log.info("run_started", run_id=run.id, pairs=run.total, bulk=bulk)
        return run

    def _refuse_second_bulk(self) -> None:
        for run_id in self._going:
            if self._runs[run_id].bulk:
                raise RunGoingOn(run_id=run_id)

    def _forget_old(self) -> None:
        now = time.monotonic()
        for run in list(self._runs.values()):
            old = run.ended_at is not None and now - run.ended_at > KEPT_S
            if old or (run.ended_at is not None and len(self._runs) >= MAX_KEPT):
                del self._runs[run.id]

    async def _carry_out(self, run: Run, how: Sync) -> None:
        try:
            await self._visit_all(run, how)
        except ReceiverError as error:  # Supabase gone, or the receiver is stopping
            run.stopped_because = error.message
        except Exception:
            run.stopped_because = "The receiver failed; see its log."
            log.exception("run_failed", run_id=run.id)
        finally:
            run.end()
            self._wake()  # for what it left wanted
            log.info("run_ended", run_id=run.id, reason=run.stopped_because, pairs=run.counts)

    async def _visit_all(self, run: Run, how: Sync) -> None:
        passed_over: set[UUID] = set()
        for start in range(0, len(run.employee_ids), PAGE):
            ids = run.employee_ids[start : start + PAGE]
            employees = await self._company.employees(ids)
            names = {id_: employee.name for id_, employee in employees.items()}  # for the results
            for at in run.terminals:
                if at[0] in passed_over:
                    continue
                all_reached = await self._bring(run, at, ids, names, how)
                if run.on_fatal == "stop" and run.counts["fatal"]:
                    run.stopped_because = "It stopped at the first fatal result."
                    return
                if not all_reached:
                    passed_over.add(at[0])

    async def _bring(
        self,
        run: Run,
        at: ActiveTerminal,
        ids: Sequence[UUID],
        names: Mapping[UUID, str],
        how: Sync,
    ) -> bool:
        """Bring these employees to one terminal; return whether that never ended in a fatal result.

        Each visit is given back where somebody else waits for the terminal; then another goes on.
        """
        terminal_id, terminal = at
        left = list(ids)
        while left:
            if run.stop_asked:
                raise RunStopped
            work = (
                partial(self._push_page, run, left, names)
                if run.bulk
                else partial(self._push_one, run, left, names, how)
            )
            outcomes = await self._visit(run, terminal_id, terminal, work)
            _tell(run, terminal_id, names, left, outcomes)
            if any(outcome.status == "fatal" for outcome in outcomes):
                return False
            left = left[len(outcomes) :]
        return True

    async def _visit(
        self,
        run: Run,
        terminal_id: UUID,
        terminal: Terminal | TerminalUnusable,
        work: Callable[[Visit], Awaitable[list[Outcome]]],
    ) -> list[Outcome]:
        """Do one piece of work on a terminal, under a lease of its own."""
        if isinstance(terminal, TerminalUnusable):
            return [failed(terminal, NOTHING_HELD)]
        for _ in range(MAX_REPLACED):
            try:
                visit = await self._visits.wait_for(terminal_id, stopped=lambda: run.stop_asked)
            except TerminalError as error:
                return [failed(error, NOTHING_HELD)]
            try:
                visit.open(await self._company.terminal(terminal_id))
                return await work(visit)
            except TerminalUnusable as error:
                return [failed(error, NOTHING_HELD)]
            except TerminalReplaced:  # the ledger has dropped what the old one held: once more
                continue
            finally:
                await self._end(visit)
        words = "Another terminal answers there at every call."
        return [failed(TerminalRefused(words), NOTHING_HELD)]

    async def _push_one(
        self, run: Run, ids: Sequence[UUID], names: Mapping[UUID, str], how: Sync, visit: Visit
    ) -> list[Outcome]:
        """Push one pair on a leased terminal, and then the pairs that are due there."""
        [employee_id] = ids
        pair = await visit.take(employee_id)
        # Read again, and after the take: HR may have edited since, and the worker served it.
        employees = await self._company.employees([employee_id])
        push = await self._pushes.push(visit, pair, employees[employee_id], how=how)
        [push] = await self._pushes.settle(visit, [push])
        _tell(run, visit.terminal_id, names, ids, [push.outcome])  # the rest may fail
        await self._serve_due(visit)
        return [push.outcome]

    async def _push_page(
        self, run: Run, ids: Sequence[UUID], names: Mapping[UUID, str], visit: Visit
    ) -> list[Outcome]:
        """Push those of a page who differ on a leased terminal, and then the pairs due there.

        Returns as many outcomes as were reached before the run was told to stop, or an edit became
        due.
        """
        pairs = await visit.pairs(ids)
        employees = await self._company.employees(ids)  # after the pairs, as in `_push_one`
        watcher = _PageWatcher(run, visit, self._company, names)
        pushes = await self._pushes.serve(visit, pairs, employees, watcher=watcher)
        outcomes = [push.outcome for push in pushes]
        _tell(run, visit.terminal_id, names, ids, outcomes)  # the rest may fail
        await self._serve_due(visit)
        return outcomes

    async def _serve_due(self, visit: Visit) -> None:
        if visit.resting is None and not visit.is_unanswering:
            due = await visit.due(limit=EDITS_PER_VISIT)
            if due:
                edited = await self._company.employees([pair.employee_id for pair in due])
                await self._pushes.serve(visit, due, edited)

    async def _end(self, visit: Visit) -> None:
        await self._visits.end(visit)
        for due_in_s in (visit.resting.seconds if visit.resting else None, visit.due_again_s):
            if due_in_s is not None:
                asyncio.get_running_loop().call_later(due_in_s, self._wake)


def _tell(
    run: Run,
    terminal_id: UUID,
    names: Mapping[UUID, str],
    ids: Sequence[UUID],
    outcomes: Sequence[Outcome],
) -> None:
    """Tell a run what became of the first of these employees on a terminal."""
    for id_, outcome in zip(ids, outcomes, strict=False):
        run.add(Result(employee_id=id_, name=names[id_], terminal_id=terminal_id, outcome=outcome))


class _PageWatcher:
    """Tells a run of each pair of a page on one terminal, and interrupts it for HR's edits."""

    def __init__(self, run: Run, visit: Visit, company: Company, names: Mapping[UUID, str]) -> None:
        self._run = run
        self._visit = visit
        self._company = company
        self._names = names

    async def employee(self, id_: UUID) -> Employee:
        return (await self._company.employees([id_]))[id_]

    def reached(self, push: Push) -> None:
        at = self._visit.terminal_id
        _tell(self._run, at, self._names, [push.employee.id], [push.outcome])

    async def interrupts(self, in_hand: Sequence[UUID]) -> bool:
        return self._run.stop_asked or bool(await self._visit.due(limit=1, besides=in_hand))
