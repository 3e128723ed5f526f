"""HR at work: the requests of the company's React app to Supabase, signed in as a person of HR.

Everything goes through REST and storage as it does for HR, so that triggers, policies and pg_net
do what they do for a real save.
"""

from dataclasses import dataclass
from typing import Any, Self

import httpx

from receiver.sandbox.portraits import portrait
from receiver.sandbox.supabase.server import SupabaseStandIn

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Hired:
    """One employee, as HR's own screen has them."""

    id: str
    biometrics_id: str
    employee_no: int


class Hr:
    """One person of HR with a session: `async with Hr(supabase) as hr: …`."""

    def __init__(self, supabase: SupabaseStandIn) -> None:
        self._supabase = supabase
        self._client = httpx.AsyncClient(
            base_url=supabase.url,
            headers={
                "apikey": supabase.publishable_key,
                "Authorization": f"Bearer {supabase.access_token()}",
                "Prefer": "return=representation",
            },
            trust_env=False,
            timeout=30.0,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def hire(self, nume: str, prenume: str, *, photo: str | None = None) -> Hired:
        """Save a new employee, and then number and photo, as the app's two forms do."""
        employee = await self.insert("angajati", {"nume": nume, "prenume": prenume})
        foto = await self.upload(photo) if photo else None
        row = await self.insert(
            "angajati_biometrie", {"angajat_id": employee["id"], "foto_fata_url": foto}
        )
        return Hired(id=employee["id"], biometrics_id=row["id"], employee_no=row["employee_no"])

    async def rename(self, hired: Hired, nume: str) -> None:
        """Save a new surname."""
        await self.update("angajati", hired.id, {"nume": nume})

    async def set_status(self, hired: Hired, status: str) -> None:
        """Save `activ`, `suspendat`, `concediu` or `inactiv`."""
        await self.update("angajati", hired.id, {"status": status})

    async def new_photo(self, hired: Hired, photo: str) -> None:
        """Upload another photo and save its URL."""
        changes = {"foto_fata_url": await self.upload(photo)}
        await self.update("angajati_biometrie", hired.biometrics_id, changes)

    async def upload(self, name: str) -> str:
        """Put a photo into the company's bucket and return its public URL."""
        response = await self._client.post(
            f"/storage/v1/object/pontaj-photos/{name}",
            content=portrait(name),
            headers={"Content-Type": "image/jpeg", "x-upsert": "true"},
        )
        response.raise_for_status()
        return self._supabase.photo_url(name)

    async def insert(self, table: str, row: Row) -> Row:
        """Insert one row and return it."""
        response = await self._client.post(f"/rest/v1/{table}", json=row)
        return _only_row(response)

    async def update(self, table: str, id_: str, changes: Row) -> Row:
        """Change one row and return it."""
        response = await self._client.patch(
            f"/rest/v1/{table}", params={"id": f"eq.{id_}"}, json=changes
        )
        return _only_row(response)


def _only_row(response: httpx.Response) -> Row:
    response.raise_for_status()
    [row] = response.json()
    return dict(row)
