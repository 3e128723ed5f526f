"""The company's tables as models. The only module that knows their Romanian names.

Reads through functions of ours (sql/0007_company.sql) that return what the terminals need and
nothing else: the tables also hold private columns (CNP, IBAN, salary).
"""

import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from supabase import AsyncClient

from receiver.core.errors import SupabaseUnreachable, TerminalUnusable
from receiver.core.logs import printable
from receiver.core.models import Employee, Terminal
from receiver.supabase.rest import Row, T, parsed, rows

ACTIVE = "activ"
PHOTO_BUCKET = "pontaj-photos"
PAGE = 1000
"""Employees in one question and its answer, of about 0.3 MB."""

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_MAX_PORT = 65535
HTTP_PORT = 80


class Company:
    """Employees and terminals; each call reads them again."""

    def __init__(self, client: AsyncClient, supabase_url: str) -> None:
        self._client = client
        self._supabase_url = supabase_url

    async def readable(self) -> None:
        """Read as the work does, of nobody; raise SupabaseError where it could not be done."""
        await self._call("employees", p_ids=[])
        await self._call("terminals", p_ids=[])

    async def employees(self, ids: Sequence[UUID]) -> dict[UUID, Employee]:
        """Return the employees as HR has them now; a deleted employee counts as inactive."""
        found = {id_: Employee.of_nobody(id_) for id_ in ids}
        for start in range(0, len(ids), PAGE):
            wanted = [str(id_) for id_ in ids[start : start + PAGE]]
            for row in await self._call("employees", p_ids=wanted):
                employee = _parsed(self._employee, row)
                found[employee.id] = employee
        return found

    async def active_employee_ids(self) -> list[UUID]:
        """Return the ids of all active employees, in order."""
        ids: list[UUID] = []
        while page := await self._page("active", ids[-1] if ids else None):
            ids += [_parsed(_id, row) for row in page]
        return ids

    async def everybody(self) -> AsyncIterator[Employee]:
        """Yield every employee that HR has, active or not, in the order of their ids."""
        last: UUID | None = None
        while page := await self._page("everybody", last):
            for row in page:
                employee = _parsed(self._employee, row)
                last = employee.id
                yield employee

    async def terminal(self, id_: UUID) -> Terminal:
        """Return a terminal; raise TerminalUnusable if it is not active or its row is wrong."""
        for row in await self._call("terminals", p_ids=[str(id_)]):
            if row.get("status") == ACTIVE:
                return _terminal(row)
        raise TerminalUnusable("The terminal is no longer active in dispozitive_pontaj.")

    async def active_terminals(self) -> list[tuple[UUID, Terminal | TerminalUnusable]]:
        """Return every active terminal by id, or what is wrong with its row."""
        found: list[tuple[UUID, Terminal | TerminalUnusable]] = []
        for row in await self._call("terminals", p_ids=None):
            id_ = _parsed(_id, row)
            try:
                found.append((id_, _terminal(row)))
            except TerminalUnusable as fault:
                found.append((id_, fault))
        return found

    async def _page(self, verb: str, after: UUID | None) -> list[Row]:
        return await self._call(verb, p_after=after and str(after), p_limit=PAGE)

    async def _call(self, verb: str, **arguments: Any) -> list[Row]:
        return await rows(self._client.rpc(f"hikvision_sync_{verb}", arguments))

    def _employee(self, row: Row) -> Employee:
        employee_no = row["employee_no"]
        return Employee(
            id=UUID(row["id"]),
            name=_name(row) or employee_no or "",
            active=row["status"] == ACTIVE,
            employee_no=employee_no,
            photo_url=self.photo_url(row["foto_fata_url"]),
        )

    def photo_url(self, value: object) -> str | None:
        """Return the full URL of a photo; a bare file name lies in the company's bucket."""
        text = str(value or "").strip()
        if not text or re.match(r"(?i)https?://", text):
            return text or None
        if ".." in text.split("/"):  # it would lead out of the bucket
            return None
        path = quote(text.lstrip("/"))
        return f"{self._supabase_url}/storage/v1/object/public/{PHOTO_BUCKET}/{path}"


def _parsed(parse: Callable[[Row], T], row: Row) -> T:
    return parsed(parse, row, SupabaseUnreachable, "Supabase answered rows of another shape.")


def _id(row: Row) -> UUID:
    return UUID(row["id"])


def _name(row: Row) -> str:
    """Return an employee's name: `nume prenume`, or `nume_complet` where one is blank."""
    parts = [_tidy(row.get("nume")), _tidy(row.get("prenume"))]
    return " ".join(parts) if all(parts) else _tidy(row.get("nume_complet")) or _join(parts)


def _tidy(value: object) -> str:
    """Return text without control characters and without double or outer blanks."""
    return printable(str(value or ""))


def _join(parts: Iterable[str]) -> str:
    return " ".join(part for part in parts if part)


def _terminal(row: Row) -> Terminal:
    host = str(row.get("ip_address") or "").strip()
    port = str(row.get("port") or "0").strip()
    username = str(row.get("username") or "")
    password = str(row.get("password_encrypted") or "")
    if not _is_host(host):
        raise TerminalUnusable("The terminal's ip_address is not an IP address or host name.")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _MAX_PORT:
        raise TerminalUnusable("The terminal's port is not a number from 1 to 65535.")
    if not username.strip() or not password.strip():
        raise TerminalUnusable("The terminal's username or password_encrypted is empty.")
    return Terminal(
        id=UUID(row["id"]),
        host=host,
        port=int(port) or HTTP_PORT,
        username=username,
        password=password,
    )


def _is_host(text: str) -> bool:
    if "%" in text and not re.fullmatch(r"[^%]+%[A-Za-z0-9._-]+", text):
        return False  # ipaddress takes any zone of IPv6
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOSTNAME.fullmatch(text) is not None
    return True
