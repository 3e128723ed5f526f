"""Carries out the buttons' runs: in the plan's order, recorded in the same ledger.

Employees in order, and for each the terminals in order; each pair under the terminal's lease and
through the gate, as in the worker. A run that comes to a terminal also serves HR's edits that are
due there, so that a long run keeps no edit waiting.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
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
from receiver.core.models import NOTHING_HELD, Outcome, Terminal
from receiver.on_demand.progress import OnFatal, Result, Run
from receiver.supabase.company import Company
from receiver.sync.push import UNREAD_S, Push, Pushes, Sync
from receiver.sync.rules import sync, sync_again, sync_photo
from receiver.sync.visit import Visit, Visits, failed

KEPT_S = 3600.0
"""How long a finished run is kept."""
MAX_KEPT = 50
EMPLOYEES_AT_ONCE = 50
EDITS_PER_VISIT = 5
MAX_UNREAD_S = UNREAD_S / 2
"""How long a bulk run may leave a push without reading it back."""
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
        unread: dict[UUID, list[Push]] = {}
        for start in range(0, len(run.employee_ids), EMPLOYEES_AT_ONCE):
            ids = run.employee_ids[start : start + EMPLOYEES_AT_ONCE]
            employees = await self._company.employees(ids)  # for the names in the results
            for id_ in ids:
                for terminal_id, terminal in run.terminals:
                    if terminal_id in passed_over:
                        continue
                    if run.stop_asked:
                        raise RunStopped
                    mine = unread.setdefault(terminal_id, []) if run.bulk else None
                    outcome = await self._visit(
                        run, terminal_id, terminal, partial(self._push, run, id_, how, mine)
                    )
                    run.add(
                        Result(
                            employee_id=id_,
                            name=employees[id_].name,
                            terminal_id=terminal_id,
                            outcome=outcome,
                        )
                    )
                    if run.on_fatal == "stop" and run.counts["fatal"]:
                        run.stopped_because = "It stopped at the first fatal result."
                        return
                    if outcome.status == "fatal":
                        passed_over.add(terminal_id)
        for terminal_id, terminal in run.terminals:
            if left := unread.get(terminal_id):
                await self._visit(run, terminal_id, terminal, partial(self._settle, run, left))

    async def _visit(
        self,
        run: Run,
        terminal_id: UUID,
        terminal: Terminal | TerminalUnusable,
        work: Callable[[Visit], Awaitable[Outcome]],
    ) -> Outcome:
        """Do one piece of work on a terminal, under a lease of its own."""
        if isinstance(terminal, TerminalUnusable):
            return failed(terminal, NOTHING_HELD)
        for _ in range(MAX_REPLACED):
            try:
                visit = await self._visits.wait_for(terminal_id, stopped=lambda: run.stop_asked)
            except TerminalError as error:
                return failed(error, NOTHING_HELD)
            try:
                visit.open(await self._company.terminal(terminal_id))
                return await work(visit)
            except TerminalUnusable as error:
                return failed(error, NOTHING_HELD)
            except TerminalReplaced:  # the ledger has dropped what the old one held: once more
                continue
            finally:
                await self._end(visit)
        words = "Another terminal answers there at every call."
        return failed(TerminalRefused(words), NOTHING_HELD)

    async def _push(
        self, run: Run, employee_id: UUID, how: Sync, unread: list[Push] | None, visit: Visit
    ) -> Outcome:
        """Push one pair on a leased terminal, and then the pairs that are due there.

        A bulk run reads its pushes back many at a time: until then they are `unread`.
        """
        pair = await visit.take(employee_id)
        # Read again, and after the take: HR may have edited since, and the worker served it.
        employees = await self._company.employees([employee_id])
        push = await self._pushes.push(visit, pair, employees[employee_id], how=how)
        if unread is None:
            [push] = await self._pushes.settle(visit, [push])
        elif await self._pushes.defer(visit, push):
            unread.append(push)
            old = time.monotonic() - unread[0].pushed_at > MAX_UNREAD_S
            page = visit.client.calls.capabilities.page
            if (old or len(unread) >= page) and visit.resting is None:
                settled = await self._read_back(run, unread, visit)
                push = next((one for one in settled if one.pair is pair), push)
        if visit.resting is None and not visit.is_unanswering:
            due = await visit.due(limit=EDITS_PER_VISIT)
            if due:
                edited = await self._company.employees([pair.employee_id for pair in due])
                await self._pushes.serve(visit, due, edited)
        return push.outcome

    async def _settle(self, run: Run, unread: list[Push], visit: Visit) -> Outcome:
        """Read back what is left when a bulk run has pushed all employees."""
        await self._read_back(run, unread, visit)
        return Outcome(status="success", step="done", message="", held=NOTHING_HELD)

    async def _read_back(self, run: Run, unread: list[Push], visit: Visit) -> list[Push]:
        """Read back what a bulk run pushed on this terminal, and amend what turns out otherwise.

        Not employees whom HR edited since: the edit is pushed and read back by itself, or was.
        """
        employees = await self._company.employees([push.employee.id for push in unread])
        unedited = [push for push in unread if employees[push.employee.id] == push.employee]
        settled = await self._pushes.settle(visit, unedited, late=True)
        for push in settled:
            run.amend(
                Result(
                    employee_id=push.employee.id,
                    name=push.employee.name,
                    terminal_id=visit.terminal_id,
                    outcome=push.outcome,
                )
            )
        unread.clear()
        return settled

    async def _end(self, visit: Visit) -> None:
        await self._visits.end(visit)
        for due_in_s in (visit.resting.seconds if visit.resting else None, visit.due_again_s):
            if due_in_s is not None:
                asyncio.get_running_loop().call_later(due_in_s, self._wake)
