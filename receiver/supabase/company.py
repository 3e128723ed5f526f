"""The company's tables as models. The only module that knows their Romanian names.

Reads what the terminals need and nothing else: the tables also hold private columns (CNP, IBAN,
salary), and no query of ours may name them or use a star.
"""

import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from supabase import AsyncClient

from receiver.core.errors import SupabaseUnreachable, TerminalUnusable
from receiver.core.logs import printable
from receiver.core.models import Employee, Terminal
from receiver.supabase.rest import Row, T, parsed, rows

EMPLOYEE_COLUMNS = (
    "id,nume,prenume,nume_complet,status,angajati_biometrie(employee_no,foto_fata_url)"
)
TERMINAL_COLUMNS = "id,ip_address,port,username,password_encrypted,status"
ACTIVE = "activ"
PHOTO_BUCKET = "pontaj-photos"
IDS_PER_REQUEST = 100
"""Ids in one `in.(…)`: about 4 kB of URL, far below what proxies take, and below the 1,000 rows at
which PostgREST cuts an answer without saying so."""

PAGE = 1000

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_MAX_PORT = 65535


class Company:
    """Employees and terminals; each call reads them again."""

    def __init__(self, client: AsyncClient, supabase_url: str) -> None:
        self._client = client
        self._supabase_url = supabase_url

    async def employees(self, ids: Sequence[UUID]) -> dict[UUID, Employee]:
        """Return the employees as HR has them now; a deleted employee counts as inactive."""
        found = {id_: Employee.of_nobody(id_) for id_ in ids}
        for start in range(0, len(ids), IDS_PER_REQUEST):
            wanted = [str(id_) for id_ in ids[start : start + IDS_PER_REQUEST]]
            # Missing employees are asked for again until an answer is empty: a project's row
            # limit cuts answers without saying so, and an employee taken for deleted loses access.
            while wanted:
                query = self._client.table("angajati").select(EMPLOYEE_COLUMNS).in_("id", wanted)
                employees = [_parsed(self._employee, row) for row in await rows(query)]
                if not employees:
                    break
                found |= {employee.id: employee for employee in employees}
                there = {str(employee.id) for employee in employees}
                wanted = [id_ for id_ in wanted if id_ not in there]
        return found

    async def active_employee_ids(self) -> list[UUID]:
        """Return the ids of all active employees, in order.

        By keyset until a page is empty: PostgREST may return shorter pages than it was asked for.
        """
        ids: list[UUID] = []
        while True:
            query = self._client.table("angajati").select("id").eq("status", ACTIVE)
            if ids:
                query = query.gt("id", str(ids[-1]))
            page = await rows(query.order("id").limit(PAGE))
            if not page:
                return ids
            ids += [UUID(row["id"]) for row in page]

    async def everybody(self) -> AsyncIterator[Employee]:
        """Yield every employee that HR has, active or not, in the order of their ids."""
        last: UUID | None = None
        while True:
            query = self._client.table("angajati").select(EMPLOYEE_COLUMNS)
            page = await rows(
                (query.gt("id", str(last)) if last else query).order("id").limit(PAGE)
            )
            if not page:
                return
            for row in page:
                employee = _parsed(self._employee, row)
                last = employee.id
                yield employee

    async def terminal(self, id_: UUID) -> Terminal:
        """Return a terminal; raise TerminalUnusable if it is not active or its row is wrong."""
        query = self._client.table("dispozitive_pontaj").select(TERMINAL_COLUMNS)
        for row in await rows(query.eq("id", str(id_))):
            if row.get("status") == ACTIVE:
                return _terminal(row)
        raise TerminalUnusable("The terminal is no longer active in dispozitive_pontaj.")

    async def active_terminals(self) -> list[tuple[UUID, Terminal | TerminalUnusable]]:
        """Return every active terminal by id, or what is wrong with its row."""
        found: list[tuple[UUID, Terminal | TerminalUnusable]] = []
        while True:  # page by page: a project's row limit cuts answers without saying so
            query = self._client.table("dispozitive_pontaj").select(TERMINAL_COLUMNS)
            query = query.eq("status", ACTIVE).order("id")
            page = await rows(query.gt("id", str(found[-1][0])) if found else query)
            if not page:
                return found
            for row in page:
                id_ = _parsed(_id, row)
                try:
                    found.append((id_, _terminal(row)))
                except TerminalUnusable as fault:
                    found.append((id_, fault))

    def _employee(self, row: Row) -> Employee:
        biometrics = _one(row.get("angajati_biometrie"))
        number = biometrics.get("employee_no")
        employee_no = None if number is None else str(number)
        return Employee(
            id=UUID(row["id"]),
            name=_name(row) or employee_no or "",
            active=row.get("status") == ACTIVE,
            employee_no=employee_no,
            photo_url=self.photo_url(biometrics.get("foto_fata_url")),
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


def _one(embedded: object) -> Mapping[str, Any]:
    """Return the row of an embedded table.

    PostgREST embeds an object where the foreign key is unique and an array where it is not. Of
    several rows the one with the lowest number counts, so that the choice does not change.
    """
    if isinstance(embedded, Mapping):
        return embedded
    if not isinstance(embedded, list):
        return {}
    candidates = [row for row in embedded if isinstance(row, Mapping)]
    numbered = [row for row in candidates if row.get("employee_no") is not None]
    if numbered:
        return min(
            numbered, key=lambda row: (len(str(row["employee_no"])), str(row["employee_no"]))
        )
    return candidates[0] if candidates else {}


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
    port = row.get("port") or 80
    username = str(row.get("username") or "")
    password = str(row.get("password_encrypted") or "")
    if not _is_host(host):
        raise TerminalUnusable("The terminal's ip_address is not an IP address or host name.")
    if not isinstance(port, int) or not 0 < port <= _MAX_PORT:
        raise TerminalUnusable("The terminal's port is not a number from 1 to 65535.")
    if not username.strip() or not password.strip():
        raise TerminalUnusable("The terminal's username or password_encrypted is empty.")
    return Terminal(id=UUID(row["id"]), host=host, port=port, username=username, password=password)


def _is_host(text: str) -> bool:
    if "%" in text and not re.fullmatch(r"[^%]+%[A-Za-z0-9._-]+", text):
        return False  # ipaddress takes any zone of IPv6
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOSTNAME.fullmatch(text) is not None
    return True
