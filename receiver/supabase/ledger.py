"""The functions hikvision_sync_* as Python: claim, renew, record, release, version, check.

Concurrency lives in SQL (sql/0002_ledger.sql); this module calls and parses. Every call but claim
may be repeated; the ones of a visit are, when their answer got lost. A lost claim or lease costs
its length.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from supabase import AsyncClient

from receiver.core.errors import LeaseLost, SqlOutdated, SupabaseRefused, SupabaseUnreachable
from receiver.core.models import (
    Capabilities,
    Claim,
    Held,
    LeaseAnswer,
    Leased,
    Outcome,
    Pair,
    Rest,
    Standing,
)
from receiver.supabase import sql_version
from receiver.supabase.rest import Row, T, answer, parsed, rows

REPEAT_PAUSES_S = (0.5, 2.0)
"""Before the second and the third attempt of a call whose answer got lost."""

PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class DatabaseCheck:
    """One row of `hikvision_sync_check`."""

    name: str
    fault: str | None
    detail: str | None


class Ledger:
    """Pairs and leases, in the name of one receiver."""

    def __init__(self, client: AsyncClient, receiver: str, *, look_s: float) -> None:
        """Work in the name of `receiver`; have each terminal identified every `look_s` seconds."""
        self._client = client
        self._receiver = receiver
        self._look_s = look_s

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

    async def claim(self, *, lease_s: float, limit: int) -> Claim | None:
        """Lease the terminal that waited longest for due work; None when nothing is due."""
        found = await self._call(
            "claim",
            p_receiver=self._receiver,
            p_lease_seconds=lease_s,
            p_limit=limit,
            p_look_seconds=self._look_s,
        )
        return _parsed(_claim, found) if found else None

    async def lease(self, terminal_id: UUID, *, lease_s: float) -> LeaseAnswer:
        """Ask for one terminal's lease: it is ours, another receiver's, or the terminal rests."""
        found = await self._repeated_call(
            "lease",
            p_receiver=self._receiver,
            p_terminal_id=str(terminal_id),
            p_lease_seconds=lease_s,
            p_look_seconds=self._look_s,
        )
        return _parsed(_lease_answer, [{**row, "terminal_id": str(terminal_id)} for row in found])

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

    async def due(self, terminal_id: UUID, fence: int, *, limit: int) -> tuple[Pair, ...]:
        """Return pairs that are due on a terminal whose lease is ours already."""
        found = await self._repeated_call(
            "due", p_terminal_id=str(terminal_id), p_fence=fence, p_limit=limit
        )
        return _parsed(_pairs, found)

    async def take(self, terminal_id: UUID, fence: int, employee_id: UUID) -> Pair:
        """Make one pair wanted, whatever was done before, and return it; raise LeaseLost."""
        found = await self._repeated_call(
            "take",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_employee_id=str(employee_id),
        )
        if not found:
            raise LeaseLost
        return _parsed(_pairs, found)[0]

    async def intend(
        self, terminal_id: UUID, fence: int, employee_id: UUID, employee_no: str, *, lease_s: float
    ) -> None:
        """Note a number before the call that puts it on the terminal or changes its face."""
        await self._call_under_lease(
            "intend",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_employee_id=str(employee_id),
            p_employee_no=employee_no,
        )

    async def renew(self, terminal_id: UUID, fence: int, *, lease_s: float) -> None:
        """Keep a lease for at least so many seconds from now; raise LeaseLost."""
        await self._call_under_lease(
            "renew", p_terminal_id=str(terminal_id), p_fence=fence, p_lease_seconds=lease_s
        )

    async def record(  # noqa: PLR0913 - one row
        self,
        terminal_id: UUID,
        fence: int,
        pair: Pair,
        outcome: Outcome,
        *,
        retry_s: float | None,
        lease_s: float,
        late: bool = False,
    ) -> None:
        """Record a pair's outcome and renew the lease; raise LeaseLost where it is lost.

        `late`: what the terminal holds was recorded before, and stays as the ledger has it now.
        """
        await self._call_under_lease(
            "record",
            p_terminal_id=str(terminal_id),
            p_fence=fence,
            p_lease_seconds=lease_s,
            p_employee_id=str(pair.employee_id),
            p_version=pair.version,
            p_status=outcome.status,
            p_step=outcome.step,
            p_message=outcome.message,
            p_employee_no=outcome.held.employee_no,
            p_photo=outcome.held.photo,
            p_retry_seconds=retry_s,
            p_late=late,
        )

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
        return _parsed(_standings, await self._call("status"))

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
        return [_parsed(_check, row) for row in await self._call("check")]

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


def _claim(found: list[Row]) -> Claim:
    pairs = _pairs([row for row in found if row["employee_id"] is not None])
    return Claim(**_lease(found[0]), pairs=pairs)


def _capabilities(device: Any) -> Capabilities | None:
    """Return what was remembered; None, to be asked again, where an older version wrote it."""
    if device is None:
        return None
    try:
        return Capabilities(**{**device, "lacks": tuple(device["lacks"])})
    except (KeyError, TypeError):
        return None


def _pairs(found: list[Row]) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            employee_id=UUID(row["employee_id"]),
            version=int(row["version"]),
            attempts=int(row["attempts"]),
            held=Held(employee_no=row["employee_no"], photo=row["photo"]),
            was_wanted=bool(row.get("was_wanted", True)),
        )
        for row in found
    )


def _lease_answer(found: list[Row]) -> LeaseAnswer:
    state = found[0]["state"]
    return LeaseAnswer(
        state=state,
        rest_reason=found[0]["rest_reason"],
        leased=Leased(**_lease(found[0])) if state == "leased" else None,
    )


def _lease(row: Row) -> dict[str, Any]:
    return {
        "terminal_id": UUID(row["terminal_id"]),
        "fence": int(row["fence"]),
        "failures": int(row["failures"]),
        "capabilities": _capabilities(row["device"]),
        "identify": bool(row["look"]),
    }


def _standings(found: list[Row]) -> tuple[Standing, ...]:
    return tuple(
        Standing(
            terminal_id=UUID(row["terminal_id"]),
            pairs={state: int(row[state]) for state in ("in_step", "wanted", "failed")},
            oldest_wanted_s=float(row["oldest_wanted_s"]),
            rests_for=row["rest_kind"],
        )
        for row in found
    )


def _check(row: Row) -> DatabaseCheck:
    return DatabaseCheck(name=str(row["name"]), fault=row["fault"], detail=row["detail"])
