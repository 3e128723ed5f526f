"""Presses the buttons of a receiver in a whole world, as a browser would."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx

from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World
from tests.support.waiting import ON_TIME_S

Json = dict[str, Any]

ONE = "/api/hikvision/sync-angajat-all-devices"


ALL = "/api/hikvision/sync-all-to-all-devices"


PHOTO = "/api/hikvision/sync-angajat-photo-only"


STREAM = {"Accept": "application/x-ndjson"}


NOBODY = "00000000-0000-4000-8000-000000000000"


MODERN = Profile(name="modern")


XML = Profile(name="xml", answers="xml", has_fd_setup=False)


NO_FETCH = Profile(name="no fetch", downloads_photos=False, takes_uploads=False)


SLOW = Profile(name="slow", delay_s=0.3)


class Open(Protocol):
    """Opens a world whose receiver runs and never polls by itself."""

    def __call__(self, *profiles: Profile, **options: Any) -> Awaitable[World]: ...


async def worker_at_rest(world: World) -> None:
    """Wait until the receiver's first claims have taken the new terminals' fills: it asks no more.

    Later it would find the people of a test in them, and push people whom a button is to push.
    """
    async with asyncio.timeout(ON_TIME_S):
        while await world.execute("select 1 from hikvision_sync.edits"):  # noqa: ASYNC110 - a table tells nobody
            await asyncio.sleep(0.02)


@asynccontextmanager
async def browser(world: World, **claims: Any) -> AsyncIterator[httpx.AsyncClient]:
    token = world.supabase.access_token(**claims)
    async with httpx.AsyncClient(
        base_url=world.receiver.url,
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=ON_TIME_S,
    ) as client:
        yield client


async def press(world: World, path: str, body: Json | None = None) -> Json:
    async with browser(world) as client:
        answer = await client.post(path, json=body or {})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def stream(client: httpx.AsyncClient, path: str, body: Json) -> AsyncIterator[Json]:
    async with client.stream("POST", path, json=body, headers=STREAM) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert answer.headers["x-run-id"]
        async for line in answer.aiter_lines():
            yield json.loads(line)


def sites_in_order(world: World) -> list[str]:
    return sorted(site.id for site in world.sites)


def statuses(result: Json) -> list[str]:
    return [entry["status"] for entry in result["per_device"]]


def assert_well_treated(world: World) -> None:
    for site in world.sites:
        seen = site.terminal.sightings
        assert (seen.overlapping_calls, seen.calls_too_close, seen.failed_logins) == (0, 0, 0)
        assert seen.unknown_fields == []


async def hire_unnoticed(world: World, count: int, *, photo: bool = True) -> list[str]:
    """Hire employees of whom the worker does not know: only a button pushes them."""
    await world.execute("select setval('angajati_employee_no_seq', 5000)")
    for table in ("angajati", "angajati_biometrie"):
        await world.execute(f"alter table {table} disable trigger user")
    ids = []
    async with Hr(world.supabase) as hr:
        for n in range(count):
            foto = await hr.upload(f"{n}.jpg") if photo else None
            row = await hr.insert("angajati", {"nume": f"Muncitor{n}", "prenume": "Ion"})
            await hr.insert(
                "angajati_biometrie",
                {"angajat_id": row["id"], "employee_no": 1000 + n, "foto_fata_url": foto},
            )
            ids.append(row["id"])
    for table in ("angajati", "angajati_biometrie"):
        await world.execute(f"alter table {table} enable trigger user")
    return ids
