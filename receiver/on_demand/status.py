"""How every terminal stands, from the ledger alone: no terminal is called."""

import asyncio
from typing import Final
from uuid import UUID

from receiver.on_demand.feed import Json
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.supabase.rest import Row

MAX_FAILED: Final = 200
"""Failed pairs in one answer; the next page begins after them."""


class StatusReport:
    """What GET /api/hikvision/status answers."""

    def __init__(self, ledger: Ledger, company: Company) -> None:
        self._ledger = ledger
        self._company = company

    async def as_json(self, *, after: tuple[UUID, UUID] | None, limit: int) -> Json:
        """Return all active terminals, and a page of the failed pairs after `after`."""
        terminals, failed = await asyncio.gather(
            self._ledger.status(), self._ledger.failed(after, limit=min(limit, MAX_FAILED))
        )
        ids = list(dict.fromkeys(UUID(row["employee_id"]) for row in failed))
        employees = await self._company.employees(ids)
        last = failed[-1] if len(failed) == limit else None
        return {
            "devices": [_device(row) for row in terminals],
            "failed": [
                _pair(row, employees[UUID(row["employee_id"])].name or None) for row in failed
            ],
            "next": f"{last['terminal_id']}.{last['employee_id']}" if last else None,
        }


def _device(row: Row) -> Json:
    device = row["device"] or {}
    return {
        "device_id": row["terminal_id"],
        "host": row["host"],
        "reachable": row["reachable"],
        "why_not": row["why_not"],
        "rests_until": row["rests_until"],
        "looked_at": row["looked_at"],
        "model": device.get("model") or None,
        "firmware": device.get("firmware") or None,
        "in_step": row["in_step"],
        "wanted": row["wanted"],
        "failed": row["failed"],
        "unknown": row["unknown"],
        "oldest_wanted_at": row["oldest_wanted_at"],
        "confirmed_at": row["confirmed_at"],
        "verified_at": row["verified_at"],
        "verified": row["verified"],
    }


def _pair(row: Row, name: str | None) -> Json:
    return {
        "angajat_id": row["employee_id"],
        "name": name,
        "device_id": row["terminal_id"],
        "status": row["status"],
        "step": row["step"],
        "message": row["message"],
        "since": row["since"],
        "last_attempt_at": row["last_attempt_at"],
        "next_attempt_at": row["next_attempt_at"],
    }
