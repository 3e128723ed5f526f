"""HR alters its tables behind the receiver's back: it says what to mend, and ends right."""

import asyncio

import httpx
import pytest

from receiver.sandbox.database.project import MIGRATIONS, apply_file
from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World
from tests.support.buttons import ALL, Open, browser
from tests.support.waiting import ON_TIME_S, eventually, gives_nothing

WANTED = "select * from hikvision_sync.pairs where wanted > done"
SEARCHES = Profile(name="modern")


@pytest.fixture
async def world(opened: Open) -> World:
    return await opened(SEARCHES, poll_s=0.5)


async def readiness(world: World) -> str | None:
    """Return what /readyz says is wrong; None where it is ready."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{world.receiver.url}/readyz")
    assert answer.status_code in (200, 503)
    return str(answer.json()["detail"]) if answer.status_code == 503 else None


async def not_ready(world: World, words: str) -> None:
    async with asyncio.timeout(ON_TIME_S):
        while words not in (await readiness(world) or ""):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def ready_again(world: World) -> None:
    async with asyncio.timeout(ON_TIME_S):
        while await readiness(world):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def two_people(world: World, hr: Hr) -> tuple[Hired, Hired]:
    people = await hr.hire("Popescu", "Ion", photo="ion.jpg"), await hr.hire("Ionescu", "Ana")
    assert await world.agreed(within_s=ON_TIME_S)
    await eventually(lambda: gives_nothing(world.execute(WANTED)))
    return people


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("angajati", "status"),
        ("angajati_biometrie", "angajat_id"),
        ("angajati_biometrie", "foto_fata_url"),
        ("dispozitive_pontaj", "ip_address"),
    ],
)
async def test_a_renamed_column_takes_nobody_away_and_the_edit_arrives_when_it_is_back(
    world: World, table: str, column: str
) -> None:
    async with Hr(world.supabase) as hr:
        ion, ana = await two_people(world, hr)
        held = {site.name: world.standing_on(site.terminal) for site in world.sites}
        await world.execute(f"alter table {table} rename column {column} to altfel")
        await hr.rename(ion, "Popa")
        await world.execute("update angajati_biometrie set updated_at = now()")
        await world.execute("update dispozitive_pontaj set updated_at = now()")
        mend = f"alter table public.{table} rename column altfel to {column}"
        await not_ready(world, mend)
        assert {site.name: world.standing_on(site.terminal) for site in world.sites} == held
        await world.execute(f"alter table {table} rename column altfel to {column}")
        assert await world.agreed(within_s=ON_TIME_S)
        await ready_again(world)
        [site] = world.sites
        assert site.terminal.persons[str(ion.employee_no)].name == "Popa Ion"
        assert str(ana.employee_no) in site.terminal.persons


HARMLESS = (
    "alter table angajati_biometrie add column alt_id uuid references angajati (id)",
    "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey",
    "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_key",
    "alter table angajati drop column nume_complet, add column functie text",
    "alter table dispozitive_pontaj alter column ip_address type varchar(60)",
    "alter table dispozitive_pontaj alter column port type text",
)


async def says(world: World, number: str, name: str) -> None:
    """Wait until every terminal says that this person has this name."""
    await eventually(
        lambda: all(site.terminal.persons[number].name == name for site in world.sites)
    )


async def test_foreign_keys_and_columns_that_come_and_go_stop_nothing(world: World) -> None:
    async with Hr(world.supabase) as hr:
        ion, _ = await two_people(world, hr)
        for n, harm in enumerate(HARMLESS):
            await world.execute(harm)
            await world.execute("update angajati set nume = %s where id = %s", f"P{n}", ion.id)
            await says(world, str(ion.employee_no), f"P{n} Ion")
        assert await readiness(world) is None


@pytest.mark.parametrize("policy", ["expire", "delete"])
async def test_a_read_replica_that_lags_is_not_believed(opened: Open, policy: str) -> None:
    """Supabase's load balancer lets replicas answer what is asked by GET."""
    world = await opened(SEARCHES, poll_s=0.5, settings={"LEAVER_POLICY": policy})
    [terminal] = [site.terminal for site in world.sites]
    async with Hr(world.supabase) as hr:
        ion, ana = await two_people(world, hr)
        await world.supabase.lag()
        await hr.rename(ion, "Popa")
        await hr.set_status(ana, "inactiv")
        newcomer = await hr.hire("Nou", "Angajat", photo="nou.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        assert terminal.persons[str(ion.employee_no)].name == "Popa Ion"
        async with browser(world) as client:  # what a button reads too
            answer = await client.post(ALL, json={})
        assert answer.json()["summary"] == {
            "success": 2, "partial": 0, "skipped": 0, "fatal": 0, "first_fatal": None
        }  # fmt: skip
        assert {one["angajat_id"] for one in answer.json()["results"]} == {ion.id, newcomer.id}
        assert await world.agreed(within_s=ON_TIME_S)


@pytest.mark.parametrize("table", ["angajati", "angajati_biometrie"])
async def test_a_truncate_reaches_the_terminals(world: World, table: str) -> None:
    async with Hr(world.supabase) as hr:
        await two_people(world, hr)
        await world.execute(f"truncate {table} cascade")
        await eventually(lambda: gives_nothing(world.execute("select 1 from hikvision_sync.edits")))
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        assert await world.agreed(within_s=ON_TIME_S)


async def test_on_older_sql_nothing_is_claimed_until_the_files_are_applied(world: World) -> None:
    async with Hr(world.supabase) as hr:
        ion, _ = await two_people(world, hr)
        await world.receiver.stop()
        await world.execute("drop function hikvision_sync_version()")
        await world.receiver.start()
        await not_ready(world, "apply all of the receiver's sql/ files, 0001_tables.sql to 0008")
        await hr.rename(ion, "Popa")
        await asyncio.sleep(1.0)  # two polls
        assert len(await world.execute("select * from hikvision_sync.edits")) == 1
        apply_file(world.database.owner_dsn, MIGRATIONS / "0008_version.sql")
        assert await world.agreed(within_s=ON_TIME_S)
        await ready_again(world)
