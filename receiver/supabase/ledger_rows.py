"""What the functions of the ledger answer, as models, and an outcome as they take it: pure.

A row of another shape raises KeyError, TypeError or ValueError.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from receiver.core.models import (
    Capabilities,
    Claim,
    Held,
    LeaseAnswer,
    Leased,
    Owner,
    Pair,
    Progress,
    Recorded,
    Standing,
)
from receiver.supabase.rest import Row

STATES = ("in_step", "wanted", "failed", "unknown")
"""Each pair of an active terminal is in one of them."""


@dataclass(frozen=True, kw_only=True)
class DatabaseCheck:
    """One row of `hikvision_sync_check`."""

    name: str
    fault: str | None
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class SeenPhoto:
    """A photo as HR names it, and what storage last said of it."""

    employee_id: UUID
    reference: str = field(repr=False)
    etag: str | None
    """None where storage was not asked yet, or said none."""


def claim(found: list[Row]) -> Claim:
    """Return a claim from its rows: one for each pair, or a single one without an employee."""
    due = pairs([row for row in found if row["employee_id"] is not None])
    return Claim(**_lease(found[0]), pairs=due, verification=_progress(found[0]["verification"]))


def _progress(state: Any) -> Progress | None:
    """Return how far a verification has come; from the beginning where another version wrote it."""
    try:
        return None if state is None else Progress(**state)
    except TypeError:
        return Progress()


def outcome(recorded: Recorded, *, now: float) -> dict[str, Any]:
    """Return what became of a pair as the ledger takes it; `now` is on the monotonic clock."""
    confirmed_at = recorded.confirmed_at
    return {
        "employee_id": str(recorded.pair.employee_id),
        "version": recorded.pair.version,
        "status": recorded.outcome.status,
        "step": recorded.outcome.step,
        "message": recorded.outcome.message,
        "employee_no": recorded.outcome.held.employee_no,
        "photo": recorded.outcome.held.photo,
        "others": list(recorded.outcome.held.others),
        "retry_seconds": recorded.retry_s,
        "confirmed_ago": None if confirmed_at is None else max(now - confirmed_at, 0.0),
    }


def _capabilities(device: Any) -> Capabilities | None:
    """Return what was remembered; None, to be asked again, where an older version wrote it."""
    if device is None:
        return None
    try:
        return Capabilities(**{**device, "lacks": tuple(device["lacks"])})
    except (KeyError, TypeError):
        return None


def pairs(found: list[Row]) -> tuple[Pair, ...]:
    """Return the pairs of a claim, of a visit, or of a page."""
    return tuple(
        Pair(
            employee_id=UUID(row["employee_id"]),
            version=int(row["version"]),
            attempts=int(row["attempts"]),
            held=_held(row),
            was_wanted=bool(row.get("was_wanted", True)),
            in_doubt=bool(row["in_doubt"]),
        )
        for row in found
    )


def _held(row: Row) -> Held:
    return Held(employee_no=row["employee_no"], photo=row["photo"], others=tuple(row["others"]))


def owners(found: list[Row]) -> tuple[Owner, ...]:
    """Return who may be behind some numbers."""
    return tuple(
        Owner(
            number=str(row["number"]),
            employee_id=UUID(row["employee_id"]),
            version=int(row["version"]),
            wanted=bool(row["wanted"]),
            status=row["status"],
            held=_held(row),
        )
        for row in found
    )


def lease_answer(found: list[Row]) -> LeaseAnswer:
    """Return whether a terminal was leased, and the lease."""
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


def standings(found: list[Row]) -> tuple[Standing, ...]:
    """Return how each terminal stands, as the figures need it."""
    return tuple(
        Standing(
            terminal_id=UUID(row["terminal_id"]),
            pairs={state: int(row[state]) for state in STATES},
            oldest_wanted_s=float(row["oldest_wanted_s"]),
            confirmed_s=row["confirmed_s"],
            rests_for=row["rest_kind"],
        )
        for row in found
    )


def seen_photo(row: Row) -> SeenPhoto:
    """Return a photo that is due, and what storage said of it before."""
    return SeenPhoto(
        employee_id=UUID(row["employee_id"]), reference=str(row["reference"]), etag=row["etag"]
    )


def check(row: Row) -> DatabaseCheck:
    """Return one thing that the database checked of itself."""
    return DatabaseCheck(name=str(row["name"]), fault=row["fault"], detail=row["detail"])
