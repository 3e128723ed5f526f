"""One run of a button as it is seen from outside: its plan, its results so far, its end.

Belongs to no connection: any number of watchers may watch it from the beginning, and leave. A run
may have half a million pairs, so it keeps them in numbers, and makes what is told of them as it is
read.
"""

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from receiver.core.errors import TerminalUnusable
from receiver.core.models import Outcome, Status, Terminal
from receiver.on_demand.feed import Json, Watched
from receiver.on_demand.outcomes import Outcomes

OnFatal = Literal["stop", "continue"]
ActiveTerminal = tuple[UUID, Terminal | TerminalUnusable]


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
    """One press of a button: its plan, its results so far, its end.

    Where it returns Json, the lists that grow with the plan are iterators: read them once, and
    while the run does not change.
    """

    def __init__(
        self,
        *,
        employee_ids: Sequence[UUID],
        terminals: Sequence[ActiveTerminal],
        on_fatal: OnFatal,
        bulk: bool,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.employee_ids = tuple(employee_ids)
        self.terminals = tuple(terminals)
        self.on_fatal = on_fatal
        self.bulk = bulk
        self.counts: dict[Status, int] = {"success": 0, "partial": 0, "skipped": 0, "fatal": 0}
        self.first_fatal: str | None = None
        self.stopped_because: str | None = None
        """Why it ended before its plan did."""
        self.ended_at: float | None = None
        self.stop_asked = False
        self._employees = {id_: n for n, id_ in enumerate(self.employee_ids)}
        self._terminals = {id_: n for n, (id_, _) in enumerate(self.terminals)}
        self._names: dict[int, str] = {}
        self._outcomes = Outcomes(self.total)
        self._watched = Watched()

    @property
    def total(self) -> int:
        """Return how many pairs the plan has."""
        return len(self.employee_ids) * len(self.terminals)

    @property
    def results(self) -> list[Result]:
        """Return the results so far, in the plan's order, made anew."""
        return [result for n in range(len(self.employee_ids)) for result in self._of(n)]

    def add(self, result: Result) -> None:
        """Note what became of a pair, and tell the watchers unless it was told already."""
        pair = self._pair(result)
        before = self._outcomes.now(pair)
        if before is not None:
            if replace(result, outcome=before).as_json() == result.as_json():
                return
            self.counts[before.status] -= 1
        self._names.setdefault(self._employees[result.employee_id], result.name)
        self._outcomes.tell(pair, result.outcome)
        self.counts[result.outcome.status] += 1
        if result.outcome.status == "fatal" and self.first_fatal is None:
            self.first_fatal = f"device {result.terminal_id}: {result.outcome.message}"
        self._watched.grown()

    def end(self) -> None:
        """Note that nothing more will come."""
        self.ended_at = time.monotonic()
        self._watched.end()

    async def ended(self) -> None:
        """Return when the run has ended."""
        await self._watched.ended()

    async def watch(self) -> AsyncIterator[Json]:
        """Yield `start`, each `result` from the first on, `ping` in silence, and `end`.

        `amended` tells that a result that was yielded before turned out otherwise.
        """
        yield {
            "type": "start",
            "run_id": self.id,
            "total": self.total,
            "employees": len(self.employee_ids),
            "devices": len(self.terminals),
        }
        async for place in self._watched.places(self._outcomes.tellings):
            ping = {"type": "ping", "done": len(self._outcomes), "total": self.total}
            yield ping if place is None else self._line(place)
        yield {"type": "end", "run_id": self.id, **self._ending()}

    def as_json(self) -> Json:
        """Return the whole result: bulk by employee, otherwise of the one employee."""
        head = {"run_id": self.id, **self._ending()}
        if self.bulk:
            return {**head, "results": self._by_employee()}
        return {**head, "per_device": [result.as_json() for result in self.results]}

    def progress(self) -> Json:
        """Return how far the run is, and its result once it has ended."""
        state = "running" if self.ended_at is None else "ended"
        head = {"run_id": self.id, "state": state, "done": len(self._outcomes), "total": self.total}
        if self.ended_at is None:
            return {**head, "summary": self._summary()}
        return {**head, "summary": self._summary(), "result": self.as_json()}

    def _pair(self, result: Result) -> int:
        employee = self._employees[result.employee_id]
        return employee * len(self.terminals) + self._terminals[result.terminal_id]

    def _result(self, pair: int, outcome: Outcome) -> Result:
        employee, terminal = divmod(pair, len(self.terminals))
        return Result(
            employee_id=self.employee_ids[employee],
            name=self._names[employee],
            terminal_id=self.terminals[terminal][0],
            outcome=outcome,
        )

    def _pairs_of(self, employee: int) -> range:
        first = employee * len(self.terminals)
        return range(first, first + len(self.terminals))

    def _of(self, employee: int) -> list[Result]:
        told = self._outcomes.among(self._pairs_of(employee))
        return [self._result(pair, outcome) for pair, outcome in told]

    def _by_employee(self) -> Iterator[Json]:
        for employee, employee_id in enumerate(self.employee_ids):
            if results := self._of(employee):
                yield {
                    "angajat_id": str(employee_id),
                    "name": self._names[employee],
                    "per_device": [result.as_json() for result in results],
                }

    def _summary(self) -> Json:
        counts = {str(status): count for status, count in self.counts.items()}
        return {**counts, "first_fatal": self.first_fatal}

    def _ending(self) -> Json:
        return {
            "summary": self._summary(),
            "stopped_because": self.stopped_because,
            "not_reached": self._not_reached(),
        }

    def _not_reached(self) -> Iterator[Json]:
        if len(self._outcomes) == self.total:
            return
        for employee, employee_id in enumerate(self.employee_ids):
            if pairs := self._outcomes.untold(self._pairs_of(employee)):
                terminals = (self.terminals[pair % len(self.terminals)] for pair in pairs)
                yield {
                    "angajat_id": str(employee_id),
                    "device_ids": [str(terminal_id) for terminal_id, _ in terminals],
                }

    def _line(self, place: int) -> Json:
        telling = self._outcomes.telling(place)
        result = self._result(telling.pair, telling.outcome)
        return {
            "type": "amended" if telling.amends else "result",
            "angajat_id": str(result.employee_id),
            "name": result.name,
            **result.as_json(),
            "done": telling.done,
            "total": self.total,
        }
