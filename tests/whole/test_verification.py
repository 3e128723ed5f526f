"""The regular verification of a large terminal: what it costs, and what a kill or an edit does."""

import asyncio
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Person
from receiver.sandbox.world import World
from tests.support.buttons import MODERN, Open
from tests.support.waiting import eventually

PEOPLE = 2000
PAGES = 67
KILLS = 5
PAUSE_S = 0.02


def searches(world: World) -> int:
    calls = world.sites[0].terminal.sightings.calls
    return sum(c.authenticated and c.path.endswith("UserInfo/Search") for c in calls)


async def full(opened: Open) -> World:
    """Open a world with a full terminal whose people the ledger knows, and nobody confirmed yet."""
    world = await opened(MODERN, pause_s=PAUSE_S, poll_s=0.2)
    [site] = world.sites
    for table in ("angajati", "angajati_biometrie"):
        await world.execute(f"alter table {table} disable trigger user")
    await world.execute(
        "insert into angajati (nume, prenume) select 'Om' || n, 'Ion'"
        f" from generate_series(1, {PEOPLE}) n"
    )
    await world.execute(
        "insert into angajati_biometrie (angajat_id, employee_no)"
        " select id, 1000 + substr(nume, 3)::integer from angajati"
    )
    await world.execute(f"select setval('angajati_employee_no_seq', {PEOPLE + 2000})")
    for table in ("angajati", "angajati_biometrie"):
        await world.execute(f"alter table {table} enable trigger user")
    for n in range(1, PEOPLE + 1):
        number = str(1000 + n)
        site.terminal.persons[number] = Person(
            employee_no=number,
            name=f"Om{n} Ion",
            begin=datetime(2020, 1, 1),  # noqa: DTZ001 - device time
            end=datetime(2037, 12, 31, 23, 59, 59),  # noqa: DTZ001 - device time
            enabled=True,
            user_type="normal",
        )
    await world.execute(
        "insert into hikvision_sync.pairs (terminal_id, employee_id, wanted, done, status,"
        " step, employee_no) select %s, a.id, 1, 1, 'success', 'done', b.employee_no"
        " from angajati a join angajati_biometrie b on b.angajat_id = a.id",
        site.id,
    )
    return world


async def begin(world: World) -> None:
    await world.execute("update hikvision_sync.terminals set verify_began_at = null")


async def ended(world: World) -> bool:
    [row] = await world.execute("select verified from hikvision_sync.terminals")
    return row["verified"] is not None


@pytest.mark.timeout(300)
async def test_a_verification_that_is_killed_five_times_ends_and_repeats_a_page_at_most(
    opened: Open,
) -> None:
    world = await full(opened)
    await begin(world)
    for kill in range(KILLS):
        reached = (kill + 1) * PAGES // (KILLS + 1)
        while searches(world) < reached:  # noqa: ASYNC110 - a terminal tells nobody
            await asyncio.sleep(0.005)
        await world.receiver.kill()
        # The lease of the one that died would be waited for; only the pages matter here.
        await world.execute("update hikvision_sync.terminals set leased_until = now()")
        await world.receiver.start()
    await eventually(lambda: ended(world))
    assert PAGES <= searches(world) <= PAGES + KILLS
    [row] = await world.execute("select * from hikvision_sync_status()")
    assert (row["in_step"], row["unknown"], row["wanted"], row["failed"]) == (PEOPLE, 0, 0, 0)
    verified: Any = row["verified"]
    assert (verified["different"], verified["missing"], verified["unknown"]) == (0, 0, 0)
    assert PEOPLE <= verified["persons"] <= PEOPLE + 30 * KILLS
    writes = [
        c
        for c in world.sites[0].terminal.sightings.calls
        if c.authenticated and c.method != "GET" and not c.path.endswith("Search")
    ]
    assert writes == []


async def test_edits_go_between_the_pages_of_a_verification(opened: Open) -> None:
    """That the next claim is the edit's, and not the next page's, is tests/sql/test_ledger.py's."""
    world = await full(opened)
    calls = world.sites[0].terminal.sightings.calls
    await begin(world)
    await eventually(lambda: searches(world) >= 5)
    rows = await world.execute("select id::text, nume from angajati order by nume limit 5")
    async with Hr(world.supabase) as hr:
        for row in rows:
            await hr.update("angajati", str(row["id"]), {"nume": f"{row['nume']}x"})
            await eventually(partial(_is_done, world, str(row["id"])))
    assert not await ended(world)
    await eventually(lambda: ended(world))
    assert sum(c.authenticated and c.path.endswith("Modify") for c in calls) == len(rows)


async def _is_done(world: World, employee_id: str) -> bool:
    rows = await world.execute(
        "select 1 from hikvision_sync.pairs where employee_id = %s and done > 1 and wanted = done",
        employee_id,
    )
    return len(rows) == 1
