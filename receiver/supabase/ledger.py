"""The functions hikvision_sync_* as Python: claim, renew, record, release, version, check.

Concurrency lives in SQL (sql/0002_ledger.sql); `ledger_rows` parses. Every call but claim
may be repeated; the ones of a visit are, when their answer got lost. A lost claim or lease costs
its length.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from supabase import AsyncClient

from receiver.core.errors import LeaseLost, SqlOutdated, SupabaseRefused, SupabaseUnreachable
from receiver.core.models import (
    Capabilities,
    Claim,
    LeaseAnswer,
    LeaverPolicy,
    Owner,
    PageVerdict,
    Pair,
    Progress,
    Recorded,
    Rest,
    Standing,
)
from receiver.supabase import ledger_rows, sql_version
from receiver.supabase.ledger_rows import DatabaseCheck, SeenPhoto
from receiver.supabase.rest import Row, T, answer, parsed, rows

REPEAT_PAUSES_S = (0.5, 2.0)
"""Before the second and the third attempt of a call whose answer got lost."""

PAGE = 1000


class Ledger:
    """Pairs and leases, in the name of one receiver."""

    def __init__(
        self,
        client: AsyncClient,
        receiver: str,
        *,
        look_s: float,
        verify_s: float | None = None,
        policy: LeaverPolicy | None = None,
    ) -> None:
        """Work in the name of `receiver`, which treats leavers by `policy`.

        Have each terminal identified every `look_s` seconds, and asked for everybody at least every
        `verify_s`; None: never.
        """
        self._client = client
        self._receiver = receiver
        self._look_s = look_s
        self._verify_s = verify_s
        self._policy = policy

    async def fits(self) -> None:
        """Raise SqlOutdated where the database has another version of sql/ than ours.

        Raises SupabaseUnreachable and SupabaseRefused as every call does.
        """
        try:
            found = await answer(self._client.rpc("hikvision_sync_version", {}))
        except SqlOutdated:
            found = None
        if found is not None and not isinstance(found, int):
            raise SupabaseUnreachable("Supabase answered no version of the SQL (a proxy's page?).")
        if found != sql_version.SQL_VERSION:
            raise SqlOutdated(sql_version.not_ours(found))

    async def unheard(self) -> str | None:
        """Return why edits that HR makes in its tables are not heard, in words; None: they are."""
        words = await answer(self._client.rpc("hikvision_sync_unheard", {"p_all": False}))
        return None if words is None else str(words)

    async def claim(self, *, lease_s: float, limit: int) -> Claim | None:
        """Lease the terminal that waited longest for due work; None when nothing is due."""
        found = await self._call(
            "claim",
            p_receiver=self._receiver,
            p_lease_seconds=lease_s,
            p_limit=limit,
            p_look_seconds=self._look_s,
            p_verify_seconds=self._verify_s,
            p_policy=self._policy,
        )
        return _parsed(ledger_rows.claim, found) if found else None

    async def lease(self, terminal_id: UUID, *, lease_s: float) -> LeaseAnswer:
        """Ask for one terminal's lease: it is ours, another receiver's, or the terminal rests."""
        found = await self._repeated_call(
            "lease",
            p_receiver=self._receiver,
            p_terminal_id=str(terminal_id),
            p_lease_seconds=lease_s,
            p_look_seconds=self._look_s,
        )
        return _parsed(
            ledger_rows.lease_answer, [{**row, "terminal_id": str(terminal_id)} for row in found]
        )

    async def meet(
        self, terminal_id: UUID, fence: int, capabilities: Capabilities, *, lease_s: float
    ) -> bool:
        """Remember a leased terminal's capabilities; return whether it is other hardware now."""
        found = await self._call_under_lease(
            "meet",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_device=asdict(capabilities),
        )
        return bool(found[0].get("replaced"))

    async def due(
        self, terminal_id: UUID, fence: int, *, limit: int, besides: Sequence[UUID] = ()
    ) -> tuple[Pair, ...]:
        """Return pairs that are due on a terminal whose lease is ours already.

        Not those of the employees in `besides`, who are in hand.
        """
        found = await self._repeated_call(
            "due",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_limit=limit,
            p_besides=[str(id_) for id_ in besides],
        )
        return _parsed(ledger_rows.pairs, found)

    async def pairs(
        self, terminal_id: UUID, fence: int, employee_ids: Sequence[UUID]
    ) -> tuple[Pair, ...]:
        """Return the pairs of these employees as they are, in this order.

        One that was never wanted has version 0, and has to be taken before it is recorded.
        """
        found = await self._repeated_call(
            "pairs",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_employee_ids=[str(id_) for id_ in employee_ids],
        )
        known = {pair.employee_id: pair for pair in _parsed(ledger_rows.pairs, found)}
        return tuple(known.get(id_) or Pair.of_nothing(id_) for id_ in employee_ids)

    async def take(
        self, terminal_id: UUID, fence: int, employee_id: UUID, *, lease_s: float
    ) -> Pair:
        """Make one pair wanted, whatever was done before, and return it; raise LeaseLost."""
        found = await self._repeated_call(
            "take",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_employee_id=str(employee_id),
        )
        if not found:
            raise LeaseLost
        return _parsed(ledger_rows.pairs, found)[0]

    async def intend(  # noqa: PLR0913 - keyword-only but for the first three
        self,
        terminal_id: UUID,
        fence: int,
        employee_id: UUID,
        *,
        employee_no: str,
        photo: str,
        lease_s: float,
    ) -> str:
        """Note a number before the call that puts it on the terminal or changes its face.

        `photo` is what is known of the face there from now on. Returns that, or the word for one
        that is another person's.
        """
        found = await self._call_under_lease(
            "intend",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_employee_id=str(employee_id),
            p_employee_no=employee_no,
            p_photo=photo,
        )
        return _parsed(lambda rows: str(rows[0]["photo"]), found)

    async def renew(self, terminal_id: UUID, fence: int, *, lease_s: float) -> None:
        """Keep a lease for at least so many seconds from now; raise LeaseLost."""
        await self._call_under_lease(
            "renew", p_terminal_id=str(terminal_id), p_fence=fence, p_lease_seconds=lease_s
        )

    async def record(
        self, terminal_id: UUID, fence: int, recorded: Sequence[Recorded], *, lease_s: float
    ) -> None:
        """Record outcomes, in order, and renew the lease; raise LeaseLost where it is lost."""
        await self._call_under_lease(
            "record",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_outcomes=[ledger_rows.outcome(one, now=time.monotonic()) for one in recorded],
        )

    async def owners(
        self, terminal_id: UUID, fence: int, numbers: Sequence[str]
    ) -> tuple[Owner, ...]:
        """Return who may be behind these numbers on a leased terminal; none: nobody is known."""
        found = await self._repeated_call(
            "owners",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_employee_nos=list(numbers),
        )
        return _parsed(ledger_rows.owners, found)

    async def verified(  # noqa: PLR0913 - what a page showed
        self,
        terminal_id: UUID,
        fence: int,
        *,
        lease_s: float,
        asked_at: float,
        verdict: PageVerdict,
        progress: Progress | None,
        ended: bool,
    ) -> None:
        """Note what a page showed that was asked for at `asked_at`, on the monotonic clock.

        `ended`: it was the last one. No `progress`: the terminal cannot be asked whom it holds.
        Raises LeaseLost where the lease is lost.
        """
        figures = progress and {
            "persons": progress.persons,
            "different": progress.different,
            "unknown": progress.unknown,
            "unsure": progress.unsure,
        }
        await self._call_under_lease(
            "verified",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_ago=time.monotonic() - asked_at,
            p_confirmed=[
                {"employee_id": str(one.employee_id), "version": one.version}
                for one in verdict.confirmed
            ],
            p_different=[
                {
                    "employee_id": str(one.employee_id),
                    "number": one.number,
                    "leaves": one.leaves,
                }
                for one in verdict.different
            ],
            p_state=asdict(progress) if progress and not ended else None,
            p_found=figures,
        )

    async def photos_due(self, *, limit: int) -> list[SeenPhoto]:
        """Return photos that storage was not asked about for as long as between verifications."""
        if self._verify_s is None:
            return []
        found = await self._call("photos_due", p_limit=limit, p_every_seconds=self._verify_s)
        return [_parsed(ledger_rows.seen_photo, row) for row in found]

    async def photo_seen(self, photo: SeenPhoto, etag: str, changed_at: datetime | None) -> bool:
        """Note a photo's ETag; return whether it is another, and its employee wanted for that.

        `changed_at` is when storage says that it was last changed; None: it does not say.
        """
        found = await self._repeated_call(
            "photo_seen",
            p_employee_id=str(photo.employee_id),
            p_reference=photo.reference,
            p_etag=etag,
            p_changed_at=changed_at and changed_at.isoformat(),
        )
        return bool(found and found[0]["changed"])

    async def release(
        self,
        terminal_id: UUID,
        fence: int,
        *,
        pause_s: float,
        failures: int,
        rest: Rest | None,
    ) -> None:
        """Give a terminal back, after a failure with a rest; raise LeaseLost where it is lost."""
        await self._call_under_lease(
            "release",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_pause_seconds=pause_s,
            p_failures=failures,
            p_rest_seconds=rest.seconds if rest else None,
            p_reason=rest.reason if rest else None,
            p_login_refused=rest.login_refused if rest else False,
            p_kind=rest.kind if rest else None,
        )

    async def status(self) -> list[Row]:
        """Return one row per active terminal: whether it works, and its pairs by state."""
        return await self._call("status")

    async def standings(self) -> tuple[Standing, ...]:
        """Return the figures of `status`."""
        return _parsed(ledger_rows.standings, await self._call("status"))

    async def failed(self, after: tuple[UUID, UUID] | None, *, limit: int) -> list[Row]:
        """Return failed pairs after this terminal and employee, in that order."""
        terminal_id, employee_id = after or (None, None)
        return await self._call(
            "failed",
            p_terminal_id=terminal_id and str(terminal_id),
            p_employee_id=employee_id and str(employee_id),
            p_limit=limit,
        )

    async def numbers(self, terminal_id: UUID) -> dict[UUID, tuple[str | None, bool]]:
        """Return every employee's number on a terminal, and whether their pair is wanted."""
        found: dict[UUID, tuple[str | None, bool]] = {}
        after: str | None = None
        while page := await self._call(
            "held", p_terminal_id=str(terminal_id), p_employee_id=after, p_limit=PAGE
        ):
            for row in page:
                found[UUID(row["employee_id"])] = row["employee_no"], bool(row["wanted"])
            after = page[-1]["employee_id"]
        return found

    async def check(self) -> list[DatabaseCheck]:
        """Return what the database says of its own set-up."""
        return [_parsed(ledger_rows.check, row) for row in await self._call("check")]

    async def _call_under_lease(self, verb: str, **arguments: Any) -> list[Row]:
        found = await self._repeated_call(verb, **arguments)
        if not found or found[0].get("held") is not True:
            raise LeaseLost
        return found

    async def _repeated_call(self, verb: str, **arguments: Any) -> list[Row]:
        for pause_s in REPEAT_PAUSES_S:
            try:
                return await self._call(verb, **arguments)
            except SupabaseUnreachable:
                await asyncio.sleep(pause_s)
        return await self._call(verb, **arguments)

    async def _call(self, verb: str, **arguments: Any) -> list[Row]:
        return await rows(self._client.rpc(f"hikvision_sync_{verb}", arguments))


def _parsed(parse: Callable[[Any], T], found: object) -> T:
    words = "The ledger's functions answer in another shape: apply this version's sql/ files."
    return parsed(parse, found, SupabaseRefused, words)
