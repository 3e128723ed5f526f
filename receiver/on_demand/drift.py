"""What a terminal holds against what HR says, asked of the terminal now; changes nothing there.

Page by page, through the gate at the usual pace, under one lease: no receiver pushes meanwhile, so
that what is read fits together. Edits of HR wait until it is done, and are marked as waiting.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from receiver.core.errors import ReceiverError, TerminalError
from receiver.core.logs import get_logger
from receiver.core.models import Employee, Expected, Found, LeaverPolicy, Terminal
from receiver.on_demand.feed import Feed, Json
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.sync.consequences import is_unanswering
from receiver.sync.held import expected_of
from receiver.sync.verdict import differences
from receiver.sync.visit import Visit, Visits

log = get_logger(__name__)


class Drifts:
    """Starts drifts; each goes on to its end, watched or not."""

    def __init__(
        self,
        policy: LeaverPolicy,
        ledger: Ledger,
        company: Company,
        visits: Visits,
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._company = company
        self._visits = visits
        self._going: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self, terminal_id: UUID) -> Feed:
        """Begin to compare one terminal; raise TerminalUnusable where its row cannot be used."""
        terminal = await self._company.terminal(terminal_id)
        feed = Feed()
        task = asyncio.create_task(self._carry_out(terminal, feed))
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return feed

    def stop_all(self) -> None:
        """Have every drift end after its call in flight."""
        self._stopping = True

    async def ended(self) -> None:
        """Return when no drift goes on."""
        await asyncio.gather(*self._going, return_exceptions=True)

    async def _carry_out(self, terminal: Terminal, feed: Feed) -> None:
        comparison = Comparison(self._policy, feed)
        error: str | None = None
        try:
            await self._page_through(terminal.id, comparison)
            comparison.miss()
        except ReceiverError as exc:
            error = exc.message
        except Exception:
            log.exception("drift_failed", terminal_id=str(terminal.id))
            error = "The receiver failed; see its log."
        finally:
            end = {"type": "end", "device_id": str(terminal.id), "complete": error is None}
            feed.add({**end, "error": error, "summary": comparison.counts})
            feed.end()

    async def _page_through(self, terminal_id: UUID, comparison: "Comparison") -> None:
        visit = await self._visits.wait_for(terminal_id, stopped=lambda: self._stopping)
        try:
            # Everything is read again, now that no other receiver changes what is there: HR may
            # have edited while this waited, the terminal's address and password too.
            terminal = await self._company.terminal(terminal_id)
            await visit.due(limit=1)  # spreads edits that wait
            await self._read_hr(terminal_id, comparison)
            comparison.begin(terminal_id)
            async for page in visit.open(terminal).persons.everybody():
                await self._remember(visit, comparison.strangers(page), comparison)
                comparison.see(page)
        except TerminalError as error:
            if is_unanswering(error):
                visit.blame(error)
            raise
        finally:
            await self._visits.end(visit)

    async def _remember(
        self, visit: Visit, numbers: Sequence[str], comparison: "Comparison"
    ) -> None:
        """Add who was once put on this hardware under a number, though nobody has it now."""
        for owner in await visit.owners(numbers) if numbers else ():
            employee = comparison.employees.get(owner.employee_id)
            comparison.ours[owner.number] = employee or Employee.of_nobody(owner.employee_id)

    async def _read_hr(self, terminal_id: UUID, comparison: "Comparison") -> None:
        numbers = await self._ledger.numbers(terminal_id)
        for employee_id, (number, waits) in numbers.items():
            if number is not None:
                comparison.ours[number] = Employee.of_nobody(employee_id)
            if waits:
                comparison.waiting.add(employee_id)
        async for employee in self._company.everybody():
            comparison.employees[employee.id] = employee
            for number in (employee.employee_no, numbers.get(employee.id, (None, False))[0]):
                if number is not None:
                    comparison.ours[number] = employee
            if employee.active and employee.employee_no is not None:
                comparison.wanted[employee.employee_no] = employee


class Comparison:
    """One terminal's persons against HR's, told to a feed as they come."""

    def __init__(self, policy: LeaverPolicy, feed: Feed) -> None:
        self._policy = policy
        self._feed = feed
        self.employees: dict[UUID, Employee] = {}
        """All whom HR has."""
        self.wanted: dict[str, Employee] = {}
        """The employees who should be there, by number."""
        self.ours: dict[str, Employee] = {}
        """The employees whom HR or the ledger has, active or not, by number."""
        self.waiting: set[UUID] = set()
        """The employees whose edits are still to be brought there."""
        self.counts = {"persons": 0, "missing": 0, "different": 0, "unknown": 0}
        self._seen: set[str] = set()

    def begin(self, terminal_id: UUID) -> None:
        """Say how many employees should be there."""
        start = {"type": "start", "device_id": str(terminal_id), "employees": len(self.wanted)}
        self._feed.add(start)

    def strangers(self, page: Sequence[Found]) -> list[str]:
        """Return the numbers of those of a page whom neither HR nor the ledger has."""
        numbers = (there.employee_no for there in page)
        return [number for number in numbers if not self._knows(number)]

    def see(self, page: Sequence[Found]) -> None:
        """Compare some of the persons whom the terminal holds."""
        for there in page:
            number = there.employee_no
            if number in self._seen:
                continue
            self._seen.add(number)
            self.counts["persons"] += 1
            if not self._knows(number):
                self._tell("unknown", number, name=there.name)
            elif differs := self._differs(there):
                self._tell("different", number, differences=differs)
        self._feed.add({"type": "progress", "persons": self.counts["persons"]})

    def miss(self) -> None:
        """Name the employees who should be there and were not seen."""
        for number in self.wanted:
            if number not in self._seen:
                self._tell("missing", number)

    def _knows(self, number: str) -> bool:
        return number in self.wanted or number in self.ours

    def _differs(self, there: Found) -> list[str]:
        employee = self.wanted.get(there.employee_no)
        if employee is not None:
            return differences(expected_of(employee, there.employee_no), there)
        if self._policy == "keep":
            return []
        if self._policy == "delete":
            return [f"person {there.employee_no} is still there"]
        return differences(Expected(employee_no=there.employee_no, may_pass=False), there)

    def _tell(self, kind: str, number: str, **said: object) -> None:
        self.counts[kind] += 1
        line: Json = {"type": kind, "employee_no": number}
        owner = self.wanted.get(number) or self.ours.get(number)
        if owner is not None:
            waiting = owner.id in self.waiting
            line |= {"angajat_id": str(owner.id), "name": owner.name, "waiting": waiting}
        self._feed.add({**line, **said})
