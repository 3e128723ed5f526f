"""A ledger that takes notes, and knows the owner of each number."""

import asyncio
from collections.abc import Callable, Sequence
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
    Recorded,
    Rest,
)
from receiver.sync.held import ANOTHERS_PHOTO


@dataclass(frozen=True, kw_only=True)
class Note:
    """One row that was recorded."""

    employee_id: UUID
    outcome: Outcome
    retry_s: float | None
    confirmed: bool
    """Whether the terminal itself said so."""


@dataclass
class NotedLedger:
    """A ledger that takes notes, and knows the owner of each number."""

    owners: dict[str, UUID] = field(default_factory=dict)
    anothers: set[str] = field(default_factory=set)
    """Numbers under which the face of a former owner may be."""
    held: dict[UUID, Held] = field(default_factory=dict)
    recorded: list[Note] = field(default_factory=list)
    learnt: list[Capabilities] = field(default_factory=list)
    released: list[tuple[int, Rest | None]] = field(default_factory=list)
    fails: SupabaseError | LeaseLost | None = None
    """The error with which giving a terminal back fails."""
    claims: int = 0
    """How often it was asked for due work, of which there never is any."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    replaced: bool = False
    deaf: str | None = None
    """Why HR's edits are not heard."""
    lost: bool = False
    edited: tuple[Pair, ...] = ()
    on_due: Callable[[], object] | None = None
    taken: list[UUID] = field(default_factory=list)
    """Whose pairs a button wanted."""

    def of(self, employee: Employee) -> list[Note]:
        return [note for note in self.recorded if note.employee_id == employee.id]

    async def intend(
        self,
        _t: UUID,
        _f: int,
        employee_id: UUID,
        *,
        employee_no: str,
        photo: str,
        lease_s: float,
    ) -> str:
        assert lease_s > 0
        if self.lost:
            raise LeaseLost
        if self.owners.get(employee_no) not in (None, employee_id):
            self.anothers.add(employee_no)
        self.owners[employee_no] = employee_id
        return ANOTHERS_PHOTO if employee_no in self.anothers else photo

    async def record(
        self, _t: UUID, _f: int, recorded: Sequence[Recorded], *, lease_s: float
    ) -> None:
        assert lease_s > 0
        if self.lost:
            raise LeaseLost
        await asyncio.sleep(0)
        for one in recorded:
            note = Note(
                employee_id=one.pair.employee_id,
                outcome=one.outcome,
                retry_s=one.retry_s,
                confirmed=one.confirmed_at is not None,
            )
            self.recorded.append(note)

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

    async def pairs(self, _t: UUID, _f: int, employee_ids: Sequence[UUID]) -> tuple[Pair, ...]:
        return tuple(
            Pair(
                employee_id=id_,
                version=1,
                attempts=0,
                held=self.held.get(id_, Held()),
                was_wanted=False,
            )
            for id_ in employee_ids
        )

    async def take(self, _t: UUID, _f: int, employee_id: UUID, *, lease_s: float) -> Pair:
        assert lease_s > 0
        self.taken.append(employee_id)
        return Pair(
            employee_id=employee_id, version=1, attempts=0, held=self.held.get(employee_id, Held())
        )

    async def due(
        self, _t: UUID, _f: int, *, limit: int, besides: Sequence[UUID] = ()
    ) -> tuple[Pair, ...]:
        assert limit > 0
        due = tuple(pair for pair in self.edited if pair.employee_id not in besides)
        if due and not besides:
            self.edited = ()
            if self.on_due:
                self.on_due()
        return due

    async def release(self, _t: UUID, fence: int, *, rest: Rest | None, **_: Any) -> None:
        if self.fails:
            raise self.fails
        self.released.append((fence, rest))

    async def fits(self) -> None:
        pass

    async def unheard(self) -> str | None:
        return self.deaf

    async def claim(self, **_: object) -> None:
        self.claims += 1
