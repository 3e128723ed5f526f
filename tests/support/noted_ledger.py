"""A ledger that takes notes, and knows the owner of each number."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from receiver.core.errors import LeaseLost, SupabaseError
from receiver.core.models import (
    Capabilities,
    Employee,
    Held,
    LeaseAnswer,
    Leased,
    Outcome,
    Pair,
    Rest,
)


@dataclass(frozen=True, kw_only=True)
class Note:
    """One row that was recorded."""

    employee_id: UUID
    outcome: Outcome
    retry_s: float | None


@dataclass
class NotedLedger:
    """A ledger that takes notes, and knows the owner of each number."""

    owners: dict[str, UUID] = field(default_factory=dict)
    held: dict[UUID, Held] = field(default_factory=dict)
    recorded: list[Note] = field(default_factory=list)
    late: list[bool] = field(default_factory=list)
    learnt: list[Capabilities] = field(default_factory=list)
    released: list[tuple[int, Rest | None]] = field(default_factory=list)
    fails: SupabaseError | LeaseLost | None = None
    """The error with which giving a terminal back fails."""
    claims: int = 0
    """How often it was asked for due work, of which there never is any."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    replaced: bool = False
    lost: bool = False
    edited: tuple[Pair, ...] = ()
    on_due: Callable[[], object] | None = None
    recording: list[UUID] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)

    def of(self, employee: Employee) -> list[Note]:
        return [note for note in self.recorded if note.employee_id == employee.id]

    async def intend(
        self, _t: UUID, _f: int, employee_id: UUID, employee_no: str, *, lease_s: float
    ) -> bool:
        assert lease_s > 0
        if self.lost:
            raise LeaseLost
        owner = self.owners.get(employee_no)
        self.owners[employee_no] = employee_id
        return owner not in (None, employee_id)

    async def record(
        self,
        _t: UUID,
        _f: int,
        pair: Pair,
        outcome: Outcome,
        *,
        retry_s: float | None,
        lease_s: float,
        late: bool = False,
    ) -> None:
        assert lease_s > 0
        if self.lost:
            raise LeaseLost
        self.recording.append(pair.employee_id)
        self.at_once.append(len(self.recording))
        await asyncio.sleep(0)
        self.recording.remove(pair.employee_id)
        self.late.append(late)
        self.recorded.append(Note(employee_id=pair.employee_id, outcome=outcome, retry_s=retry_s))

    async def meet(self, _t: UUID, _f: int, capabilities: Capabilities, *, lease_s: float) -> bool:
        assert lease_s > 0
        self.learnt.append(capabilities)
        return self.replaced

    async def renew(self, _t: UUID, _f: int, *, lease_s: float) -> None:
        assert lease_s > 0

    async def lease(self, terminal_id: UUID, *, lease_s: float) -> LeaseAnswer:
        assert lease_s > 0
        leased = Leased(
            terminal_id=terminal_id,
            fence=1,
            failures=0,
            capabilities=self.capabilities,
            identify=False,
        )
        return LeaseAnswer(state="leased", leased=leased)

    async def take(self, _t: UUID, _f: int, employee_id: UUID) -> Pair:
        return Pair(
            employee_id=employee_id, version=1, attempts=0, held=self.held.get(employee_id, Held())
        )

    async def due(self, _t: UUID, _f: int, *, limit: int) -> tuple[Pair, ...]:
        assert limit > 0
        due, self.edited = self.edited, ()
        if due and self.on_due:
            self.on_due()
        return due

    async def release(self, _t: UUID, fence: int, *, rest: Rest | None, **_: Any) -> None:
        if self.fails:
            raise self.fails
        self.released.append((fence, rest))

    async def fits(self) -> None:
        pass

    async def claim(self, **_: object) -> None:
        self.claims += 1
