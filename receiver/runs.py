"""The buttons' runs: in the plan's order, watchable, recorded in the same ledger.

Employees in order, and for each the terminals in order; each pair under the terminal's lease and by
the gate, as the worker does it. A run belongs to nobody's connection: who watches may leave. A run
that comes to a terminal also serves what HR edited there meanwhile, so that a long run keeps no
edit waiting.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from receiver.directory import Directory
from receiver.errors import (
    EmployeeUnknown,
    LeaseLost,
    NoActiveTerminal,
    ReceiverError,
    ReceiverStopping,
    RunGoingOn,
    RunStopped,
    SupabaseError,
    TerminalUnusable,
)
from receiver.ledger import Ledger
from receiver.logs import get_logger
from receiver.models import Employee, Held, Outcome, Status, Terminal
from receiver.pushes import Pushes, Sync
from receiver.sync import sync_anew, sync_photo
from receiver.visits import Visit, Visits

OnFatal = Literal["stop", "continue"]
Site = tuple[UUID, Terminal | TerminalUnusable]
Json = dict[str, Any]

KEPT_S = 3600.0
"""How long a finished run can be asked for."""
MOST_KEPT = 50
EMPLOYEES_AT_ONCE = 50
LEASE_PAUSE_S = 0.25
"""Between asks for a terminal that another holds."""
MOST_LEASE_WAIT_S = 300.0
"""Longer than a worker's batch of pairs takes at the default pause."""
EDITS_PER_VISIT = 5
PING_S = 10.0
"""Something goes to a watcher at least so often; proxies give up after some 30 s of silence."""
MOST_RUNS = 10
"""Runs going on at once; each waits for the same terminals."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one pair."""

    employee_id: UUID
    name: str
    terminal_id: UUID
    outcome: Outcome

    def as_json(self) -> Json:
        """Return it as an element of `per_device`."""
        return {
            "device_id": str(self.terminal_id),
            "status": self.outcome.status,
            "step": self.outcome.step,
            "message": self.outcome.message,
        }


class Run:
    """One press of a button: its plan, its results so far, its end."""

    def __init__(
        self, *, employee_ids: Sequence[UUID], sites: Sequence[Site], on_fatal: OnFatal, bulk: bool
    ) -> None:
        self.id = str(uuid.uuid4())
        self.employee_ids = tuple(employee_ids)
        self.sites = tuple(sites)
        self.on_fatal = on_fatal
        self.bulk = bulk
        self.results: list[Result] = []
        self.counts: dict[Status, int] = {"success": 0, "partial": 0, "skipped": 0, "fatal": 0}
        self.first_fatal: str | None = None
        self.stopped_because: str | None = None
        """Why it ended before its plan did."""
        self.ended_at: float | None = None
        self.stop_asked = False
        self._changed = asyncio.Event()

    @property
    def total(self) -> int:
        """Return how many pairs the plan has."""
        return len(self.employee_ids) * len(self.sites)

    def add(self, result: Result) -> None:
        """Note the result of one pair, and tell the watchers."""
        self.results.append(result)
        self.counts[result.outcome.status] += 1
        if result.outcome.status == "fatal" and self.first_fatal is None:
            self.first_fatal = f"device {result.terminal_id}: {result.outcome.message}"
        self._tell()

    def end(self) -> None:
        """Note that nothing more will come."""
        self.ended_at = time.monotonic()
        self._tell()

    async def ended(self) -> None:
        """Return when the run has ended."""
        while self.ended_at is None:
            await self._changed.wait()

    async def watch(self) -> AsyncIterator[Json]:
        """Yield `start`, each `result` from the first on, `ping` in silence, and `end`."""
        yield {
            "type": "start",
            "run_id": self.id,
            "total": self.total,
            "employees": len(self.employee_ids),
            "devices": len(self.sites),
        }
        seen = 0
        while True:
            changed = self._changed
            for result in self.results[seen:]:
                seen += 1
                yield {
                    "type": "result",
                    "angajat_id": str(result.employee_id),
                    "name": result.name,
                    **result.as_json(),
                    "done": seen,
                    "total": self.total,
                }
            if self.ended_at is not None and seen == len(self.results):
                break
            try:
                await asyncio.wait_for(changed.wait(), PING_S)
            except TimeoutError:
                yield {"type": "ping", "done": seen, "total": self.total}
        yield {"type": "end", "run_id": self.id, **self._ending()}

    def as_json(self) -> Json:
        """Return the whole result: bulk by employee, otherwise of the one employee."""
        if not self.bulk:
            return {"run_id": self.id, **self._ending(), "per_device": self._per_device()}
        employees: dict[UUID, Json] = {}
        for result in self.results:
            entry = employees.setdefault(
                result.employee_id,
                {"angajat_id": str(result.employee_id), "name": result.name, "per_device": []},
            )
            entry["per_device"].append(result.as_json())
        return {"run_id": self.id, **self._ending(), "results": list(employees.values())}

    def progress(self) -> Json:
        """Return how far it is, and the result once it has ended."""
        state = "running" if self.ended_at is None else "ended"
        head = {"run_id": self.id, "state": state, "done": len(self.results), "total": self.total}
        if self.ended_at is None:
            return {**head, "summary": self._summary()}
        return {**head, "summary": self._summary(), "result": self.as_json()}

    def _per_device(self) -> list[Json]:
        return [result.as_json() for result in self.results]

    def _summary(self) -> Json:
        counts = {str(status): count for status, count in self.counts.items()}
        return {**counts, "first_fatal": self.first_fatal}

    def _ending(self) -> Json:
        return {
            "summary": self._summary(),
            "stopped_because": self.stopped_because,
            "not_reached": self._not_reached(),
        }

    def _not_reached(self) -> list[Json]:
        reached = {(result.employee_id, result.terminal_id) for result in self.results}
        if len(reached) == self.total:
            return []
        missing = (
            (employee_id, [str(t) for t, _ in self.sites if (employee_id, t) not in reached])
            for employee_id in self.employee_ids
        )
        return [
            {"angajat_id": str(e), "device_ids": terminals} for e, terminals in missing if terminals
        ]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


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
            employees = await self._directory.employees(ids)
            for id_ in ids:
                for terminal_id, terminal in run.sites:
                    if terminal_id in failed:
                        continue
                    if run.stop_asked:
                        raise RunStopped
                    outcome = await self._visit(run, terminal_id, terminal, employees[id_], how)
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
        employee: Employee,
        how: Sync,
    ) -> Outcome:
        if isinstance(terminal, TerminalUnusable):
            return _fatal(terminal.message)
        visit = await self._begin(run, terminal_id)
        if isinstance(visit, Outcome):
            return visit
        try:
            pair = await self._ledger.take(terminal_id, visit.fence, employee.id)
            client = self._visits.client(terminal, visit)
            outcome = await self._pushes.push(visit, client, pair, employee, how=how)
            if visit.rest is None:
                due = await self._ledger.due(terminal_id, visit.fence, limit=EDITS_PER_VISIT)
                await self._pushes.serve(visit, terminal, due)
            return outcome
        finally:
            await self._end(visit)

    async def _begin(self, run: Run, terminal_id: UUID) -> Visit | Outcome:
        """Wait until the terminal is free and lease it; an Outcome says why it cannot be had."""
        deadline = time.monotonic() + MOST_LEASE_WAIT_S
        while not run.stop_asked:
            asked_at = time.monotonic()
            leased = await self._ledger.lease(terminal_id, lease_s=self._visits.lease_s)
            if leased.state == "resting":
                return _fatal(f"Left alone for now: {leased.rest_reason}")
            if leased.fence is not None:
                return self._visits.begin(
                    terminal_id, leased.fence, leased.failures, asked_at=asked_at
                )
            if time.monotonic() > deadline:
                return _fatal("The terminal is busy with another receiver; try again later.")
            await asyncio.sleep(LEASE_PAUSE_S)
        raise RunStopped

    async def _end(self, visit: Visit) -> None:
        try:
            await self._visits.end(visit)
        except (SupabaseError, LeaseLost) as error:
            log.warning("release_failed", terminal_id=str(visit.terminal_id), reason=error.message)
        if visit.rest is not None:
            asyncio.get_running_loop().call_later(visit.rest.seconds, self._wake)


def _fatal(message: str) -> Outcome:
    return Outcome(status="fatal", step="person", message=message, held=Held())
