"""Carries out the buttons' runs: in the plan's order, recorded in the same ledger.

Employees in order, and for each the terminals in order; each pair under the terminal's lease and by
the gate, as the worker does it. A run that comes to a terminal also serves what HR edited there
meanwhile, so that a long run keeps no edit waiting.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from uuid import UUID

from receiver.directory import Directory
from receiver.errors import (
    EmployeeUnknown,
    NoActiveTerminal,
    ReceiverError,
    ReceiverStopping,
    RunGoingOn,
    RunStopped,
    TerminalUnusable,
)
from receiver.ledger import Ledger
from receiver.logs import get_logger
from receiver.models import Held, Outcome, Terminal
from receiver.pushes import Pushes, Sync
from receiver.run import OnFatal, Result, Run
from receiver.sync import sync_anew, sync_photo
from receiver.visits import Visit, Visits

KEPT_S = 3600.0
"""How long a finished run can be asked for."""
MOST_KEPT = 50
EMPLOYEES_AT_ONCE = 50
LEASE_PAUSE_S = 0.25
"""Between asks for a terminal that another holds."""
MOST_LEASE_WAIT_S = 300.0
"""Longer than a worker's batch of pairs takes at the default pause."""
EDITS_PER_VISIT = 5
MOST_RUNS = 10
"""Runs going on at once; each waits for the same terminals."""

log = get_logger(__name__)


class Runs:
    """Starts runs, keeps the finished ones for an hour, stops them on request."""

    def __init__(
        self,
        ledger: Ledger,
        directory: Directory,
        visits: Visits,
        pushes: Pushes,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._directory = directory
        self._visits = visits
        self._pushes = pushes
        self._wake = wake
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._stopping = False
        self._going: dict[str, asyncio.Task[None]] = {}

    async def start_one(self, employee_id: UUID, on_fatal: OnFatal, *, photo_only: bool) -> Run:
        """Start the run of one employee on all active terminals.

        Raises EmployeeUnknown, NoActiveTerminal or SupabaseError.
        """
        employee = (await self._directory.employees([employee_id]))[employee_id]
        if employee.gone:
            raise EmployeeUnknown
        how = sync_photo if photo_only else sync_anew
        return await self._start([employee_id], on_fatal, bulk=False, how=how)

    async def start_all(self, on_fatal: OnFatal) -> Run:
        """Start the run of all active employees; raises RunGoingOn while another one goes."""
        self._refuse_second_bulk()
        ids = await self._directory.active_employee_ids()
        return await self._start(ids, on_fatal, bulk=True, how=sync_anew)

    def get(self, run_id: str) -> Run | None:
        """Return a run that goes on, or ended less than an hour ago."""
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
        sites = await self._directory.active_terminals()
        if not sites:
            raise NoActiveTerminal
        if bulk:  # again: another press may have come while Supabase was asked
            self._refuse_second_bulk()
        if self._stopping:
            raise ReceiverStopping
        if len(self._going) >= MOST_RUNS:
            raise RunGoingOn("Too many buttons were pressed at once; wait for one to end.")
        run = Run(employee_ids=employee_ids, sites=sites, on_fatal=on_fatal, bulk=bulk)
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
            if old or (run.ended_at is not None and len(self._runs) >= MOST_KEPT):
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
        failed: set[UUID] = set()
        for start in range(0, len(run.employee_ids), EMPLOYEES_AT_ONCE):
            ids = run.employee_ids[start : start + EMPLOYEES_AT_ONCE]
            employees = await self._directory.employees(ids)  # for the names in the results
            for id_ in ids:
                for terminal_id, terminal in run.sites:
                    if terminal_id in failed:
                        continue
                    if run.stop_asked:
                        raise RunStopped
                    outcome = await self._visit(run, terminal_id, terminal, id_, how)
                    run.add(
                        Result(
                            employee_id=id_,
                            name=employees[id_].name,
                            terminal_id=terminal_id,
                            outcome=outcome,
                        )
                    )
                    if outcome.status == "fatal":
                        if run.on_fatal == "stop":
                            run.stopped_because = "It stopped at the first fatal result."
                            return
                        failed.add(terminal_id)

    async def _visit(
        self,
        run: Run,
        terminal_id: UUID,
        terminal: Terminal | TerminalUnusable,
        employee_id: UUID,
        how: Sync,
    ) -> Outcome:
        if isinstance(terminal, TerminalUnusable):
            return _fatal(terminal.message)
        with self._visits.waiting_for(terminal_id):
            visit = await self._begin(run, terminal_id)
        if isinstance(visit, Outcome):
            return visit
        try:
            return await self._push(visit, employee_id, how)
        except TerminalUnusable as error:
            return _fatal(error.message)
        finally:
            await self._end(visit)

    async def _push(self, visit: Visit, employee_id: UUID, how: Sync) -> Outcome:
        """Push one pair on a leased terminal, and then what HR edited there meanwhile."""
        pair = await self._ledger.take(visit.terminal_id, visit.fence, employee_id)
        # Anew, and after the take: HR may have edited since, and the worker served it already.
        employees, terminal = await asyncio.gather(
            self._directory.employees([employee_id]), self._directory.terminal(visit.terminal_id)
        )
        client = self._visits.client(terminal, visit)
        outcome = await self._pushes.push(visit, client, pair, employees[employee_id], how=how)
        if visit.rest is None:
            due = await self._ledger.due(visit.terminal_id, visit.fence, limit=EDITS_PER_VISIT)
            await self._pushes.serve(visit, terminal, due)
        return outcome

    async def _begin(self, run: Run, terminal_id: UUID) -> Visit | Outcome:
        """Wait until the terminal is free and lease it; an Outcome says why it cannot be had."""
        deadline = time.monotonic() + MOST_LEASE_WAIT_S
        while not run.stop_asked:
            leased, visit = await self._visits.ask(terminal_id)
            if visit is not None:
                return visit
            if leased.state == "resting":
                return _fatal(f"Left alone for now: {leased.rest_reason}")
            if time.monotonic() > deadline:
                return _fatal("The terminal is busy with another receiver; try again later.")
            await asyncio.sleep(LEASE_PAUSE_S)
        raise RunStopped

    async def _end(self, visit: Visit) -> None:
        await self._visits.give_back(visit)
        for due_in_s in (visit.rest.seconds if visit.rest else None, visit.again_s):
            if due_in_s is not None:
                asyncio.get_running_loop().call_later(due_in_s, self._wake)


def _fatal(message: str) -> Outcome:
    return Outcome(status="fatal", step="person", message=message, held=Held())
