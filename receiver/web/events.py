"""A verified webhook's body as an event: pure. The payload is a nudge, never the data.

Supabase's shape: {"type", "table", "schema", "record", "old_record"}; unknown keys are ignored and
a full row is accepted, of which only the id is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from receiver.core.errors import BodyNotJson, EventNotOurs
from receiver.web.request import parse_uuid

EMPLOYEE_KEY = {"angajati": "id", "angajati_biometrie": "angajat_id"}
"""Our tables, and the column of each that has the employee's id."""
TYPES = ("INSERT", "UPDATE", "DELETE")


def _refuse_constant(_name: str) -> None:
    raise BodyNotJson  # NaN and Infinity, which Python takes and RFC 8259 does not have


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One edit of HR's."""

    type: str
    table: str
    employee_id: UUID | None
    """None for biometric data that belongs to no employee yet."""


def parse_event(body: bytes) -> Event:
    """Return the event of a webhook's body; raise BodyNotJson or EventNotOurs."""
    try:
        found = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):  # RecursionError: a megabyte of "["
        raise BodyNotJson from None
    if not isinstance(found, Mapping):
        raise EventNotOurs("The body is not a JSON object.")
    kind, table = found.get("type"), found.get("table")
    if kind not in TYPES:
        raise EventNotOurs("The event's type is not INSERT, UPDATE or DELETE.")
    if found.get("schema") != "public" or not isinstance(table, str) or table not in EMPLOYEE_KEY:
        raise EventNotOurs
    row = found.get("old_record" if kind == "DELETE" else "record")
    if not isinstance(row, Mapping):
        raise EventNotOurs("The event carries no row.")
    key = EMPLOYEE_KEY[table]
    if row.get(key) is None and table == "angajati_biometrie":
        return Event(type=kind, table=table, employee_id=None)
    employee_id = parse_uuid(row.get(key))
    if employee_id is None:
        raise EventNotOurs(f"The row's {key} is not a UUID.")
    return Event(type=kind, table=table, employee_id=employee_id)
