"""One run of a button as it is seen from outside: its plan, its results so far, its end.

Belongs to no connection: any number of watchers may watch it from the beginning, and leave.
"""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from receiver.core.errors import TerminalUnusable
from receiver.core.models import Outcome, Status, Terminal
from receiver.on_demand.feed import Feed, Json

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
    """One press of a button: its plan, its results so far, its end."""

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
        self.results: list[Result] = []
        self._places: dict[tuple[UUID, UUID], int] = {}
        self.counts: dict[Status, int] = {"success": 0, "partial": 0, "skipped": 0, "fatal": 0}
        self.first_fatal: str | None = None
        self.stopped_because: str | None = None
        """Why it ended before its plan did."""
        self.ended_at: float | None = None
        self.stop_asked = False
        self._feed = Feed()

    @property
    def total(self) -> int:
        """Return how many pairs the plan has."""
        return len(self.employee_ids) * len(self.terminals)

    def add(self, result: Result) -> None:
        """Note the result of one pair, and tell the watchers."""
        self._places[result.employee_id, result.terminal_id] = len(self.results)
        self.results.append(result)
        self._count(result)
        self._tell("result", result)

    def settle(self, result: Result) -> None:
        """Note what became of a pair in the end, whether it was told before or not."""
        if (result.employee_id, result.terminal_id) in self._places:
            self.amend(result)
        else:
            self.add(result)

    def amend(self, result: Result) -> None:
        """Replace the result of a pair where it turned out otherwise, and tell the watchers."""
        place = self._places.get((result.employee_id, result.terminal_id))
        if place is None or self.results[place].as_json() == result.as_json():
            return
        self.counts[self.results[place].outcome.status] -= 1
        self.results[place] = result
        self._count(result)
        self._tell("amended", result)

    def _count(self, result: Result) -> None:
        self.counts[result.outcome.status] += 1
        if result.outcome.status == "fatal" and self.first_fatal is None:
            self.first_fatal = f"device {result.terminal_id}: {result.outcome.message}"

    def end(self) -> None:
        """Note that nothing more will come."""
        self.ended_at = time.monotonic()
        self._feed.end()

    async def ended(self) -> None:
        """Return when the run has ended."""
        await self._feed.ended()

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
        async for line in self._feed.watch():
            ping = {"type": "ping", "done": len(self.results), "total": self.total}
            yield ping if line is None else line
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
        """Return how far the run is, and its result once it has ended."""
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
            (employee_id, [str(t) for t, _ in self.terminals if (employee_id, t) not in reached])
            for employee_id in self.employee_ids
        )
        return [
            {"angajat_id": str(e), "device_ids": terminals} for e, terminals in missing if terminals
        ]

    def _tell(self, kind: Literal["result", "amended"], result: Result) -> None:
        self._feed.add(
            {
                "type": kind,
                "angajat_id": str(result.employee_id),
                "name": result.name,
                **result.as_json(),
                "done": len(self.results),
                "total": self.total,
            }
        )
