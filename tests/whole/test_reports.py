"""Status and drift, over real HTTP, against the real receiver and simulated terminals."""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from receiver.sandbox.database.postgres import Database
from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Face, Person, Profile
from receiver.sandbox.world import World
from tests.support.buttons import STREAM, Open, browser, hire_unnoticed
from tests.support.projects import Project

STATUS = "/api/hikvision/status"
MODERN = PROFILES["modern"]
NOBODY = "00000000-0000-4000-8000-000000000000"
WANTED = (
    "select id from hikvision_sync.edits"
    " union all select wanted from hikvision_sync.pairs where wanted > done"
)

Json = dict[str, Any]


async def settled(world: World, within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while await world.execute(WANTED):  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.05)


async def get(world: World, path: str, **query: str) -> Json:
    async with browser(world) as client:
        answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def status_where(world: World, true: Callable[[Json], bool]) -> Json:
    async with asyncio.timeout(30):
        while not true(status := await get(world, STATUS)):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)
    return status


def in_order(world: World, status: Json) -> list[Json]:
    by_id = {device["device_id"]: device for device in status["devices"]}
    return [by_id[site.id] for site in world.sites]


def drift_of(world: World, place: int = 0) -> str:
    return f"/api/hikvision/devices/{world.sites[place].id}/drift"


def stranger(number: str = "77", **changes: Any) -> Person:
    known: Json = {
        "employee_no": number,
        "name": "Vizitator Vechi",
        "begin": datetime(2020, 1, 1),  # noqa: DTZ001 - a terminal's own clock
        "end": datetime(2037, 12, 31, 23, 59, 59),  # noqa: DTZ001
        "enabled": True,
        "user_type": "normal",
        "face": Face(url="http://vechi/poza.jpg", sha256="0", size=1),
    }
    return Person(**(known | changes))


# Status


async def test_status_counts_pairs_and_names_the_failed_ones(opened: Open) -> None:
    world = await opened(MODERN, Profile(name="full", max_persons=1))
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion", photo="ion.jpg")
        await settled(world)
        ana = await hr.hire("Ștefan", "Ana", photo="ana.jpg")
        status = await status_where(
            world,
            lambda status: (
                [(d["in_step"], d["failed"]) for d in in_order(world, status)] == [(2, 0), (1, 1)]
            ),
        )
    modern, full = in_order(world, status)
    assert (modern["in_step"], modern["failed"], modern["reachable"]) == (2, 0, True)
    assert modern["host"] == "127.0.0.1"
    assert modern["firmware"] == MODERN.firmware
    assert (full["in_step"], full["failed"]) == (1, 1)
    [failed] = status["failed"]
    assert (failed["angajat_id"], failed["name"]) == (ana.id, "Ștefan Ana")
    assert failed["device_id"] == world.sites[1].id
    assert (failed["status"], failed["step"]) == ("fatal", "person")
    assert failed["message"] == "Terminal 127.0.0.1 is full (1 persons)."
    assert failed["since"] <= failed["last_attempt_at"] <= failed["next_attempt_at"]
    assert status["next"] is None


async def test_status_says_why_a_terminal_cannot_be_reached_and_calls_none(opened: Open) -> None:
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    await terminal.switch_off()
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion")
        status = await status_where(
            world, lambda status: status["devices"][0]["reachable"] is not None
        )
    [device] = status["devices"]
    assert device["reachable"] is False
    assert "cannot be reached" in device["why_not"]
    assert device["oldest_wanted_at"] is not None
    await terminal.switch_on()
    calls = len(terminal.sightings.calls)
    await get(world, STATUS)
    assert len(terminal.sightings.calls) == calls


async def test_a_terminal_that_is_not_active_any_more_is_forgotten(opened: Open) -> None:
    world = await opened(MODERN, MODERN)
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion")
        await settled(world)
    await world.execute(
        "update dispozitive_pontaj set status = 'inactiv' where id = %s", world.sites[0].id
    )
    status = await get(world, STATUS)
    assert [device["device_id"] for device in status["devices"]] == [world.sites[1].id]
    assert [pair["device_id"] for pair in status["failed"]] == []


async def test_failed_pairs_come_in_pages_without_gap_or_double(opened: Open) -> None:
    world = await opened(Profile(name="off"))
    await world.execute(
        "insert into hikvision_sync.pairs (terminal_id, employee_id, wanted, done, status, step,"
        " message, recorded_at) select %s, gen_random_uuid(), 1, 1, 'skipped', 'person', 'm', now()"
        " from generate_series(1, 25)",
        world.sites[0].id,
    )
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = await get(world, STATUS, limit="10", **after)
        seen += [pair["angajat_id"] for pair in page["failed"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert len(seen) == len(set(seen)) == 25
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "201"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"after": "x"}, "after"),
        ({"after": f"{NOBODY}.x"}, "after"),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(
    opened: Open, query: dict[str, str], word: str
) -> None:
    world = await opened(MODERN)
    async with browser(world) as client:
        answer = await client.get(STATUS, params=query)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(word)


@pytest.mark.parametrize("path", [STATUS, f"/api/hikvision/devices/{NOBODY}/drift"])
async def test_no_report_is_given_without_an_access_token(opened: Open, path: str) -> None:
    world = await opened(MODERN)
    async with browser(world) as client:
        del client.headers["Authorization"]
        assert (await client.get(path)).status_code == 401


def test_status_of_5000_employees_on_50_terminals_reads_the_pairs_once(
    migrated_database: Database,
) -> None:
    with Project(migrated_database) as project:
        project.run(
            "insert into dispozitive_pontaj (ip_address)"
            " select '10.0.0.' || n from generate_series(1, 50) n"
        )
        project.run(
            "insert into hikvision_sync.pairs (terminal_id, employee_id, wanted, done, status,"
            " confirmed_at) select d.id, gen_random_uuid(), 1, 1, 'success', now()"
            " from dispozitive_pontaj d cross join generate_series(1, 5000)"
        )
        project.run("analyze hikvision_sync.pairs")
        plan = project.run(
            "explain (analyze, format json) select * from public.hikvision_sync_status()"
        )
        took_ms = plan[0]["QUERY PLAN"][0]["Execution Time"]
        sys.stdout.write(f"status of 250,000 pairs: {took_ms:.0f} ms\n")
        rows = project.run("select * from hikvision_sync_status()")
        assert [row["in_step"] for row in rows] == [5000] * 50


# Drift


async def test_drift_lists_people_who_are_missing_who_differ_and_who_are_unknown(
    opened: Open,
) -> None:
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    async with Hr(world.supabase) as hr:
        staff = [await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg") for n in range(5)]
        await settled(world)
    numbers = [str(one.employee_no) for one in staff]
    del terminal.persons[numbers[0]]
    terminal.persons[numbers[1]].name = "Alt Nume"
    terminal.persons[numbers[2]].face = None
    terminal.persons["77"] = stranger()
    before = dict(terminal.persons)
    drift = await get(world, drift_of(world))
    assert drift["complete"]
    assert drift["error"] is None
    assert drift["summary"] == {"persons": 5, "missing": 1, "different": 2, "unknown": 1}
    assert drift["missing"] == [
        {
            "employee_no": numbers[0],
            "angajat_id": staff[0].id,
            "name": "Muncitor0 Ion",
            "waiting": False,
        }
    ]
    differs = {one["employee_no"]: one["differences"] for one in drift["different"]}
    assert set(differs) == {numbers[1], numbers[2]}
    assert "name" in differs[numbers[1]][0]
    assert "face" in differs[numbers[2]][0]
    assert drift["unknown"] == [{"employee_no": "77", "name": "Vizitator Vechi"}]
    assert terminal.persons == before


async def test_drift_names_the_leaver_who_may_still_pass_and_not_the_one_who_may_not(
    opened: Open,
) -> None:
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    async with Hr(world.supabase) as hr:
        gone, back, deleted = [await hr.hire(f"Muncitor{n}", "Ion") for n in range(3)]
        await settled(world)
        await hr.set_status(gone, "inactiv")
        await hr.set_status(back, "inactiv")
        await settled(world)
        await world.execute("delete from angajati_biometrie where angajat_id = %s", deleted.id)
        await world.execute("delete from angajati where id = %s", deleted.id)
    async with asyncio.timeout(30):  # no webhook here: the deleted one is found by asking
        while await world.execute(WANTED):
            await get(world, STATUS)
            await asyncio.sleep(0.1)
    for number in (str(back.employee_no), str(deleted.employee_no)):
        terminal.persons[number] = stranger(number)
    drift = await get(world, drift_of(world))
    assert {one["employee_no"] for one in drift["different"]} == {
        str(back.employee_no),
        str(deleted.employee_no),
    }
    assert drift["unknown"] == []


async def test_drift_knows_whoever_was_once_put_on_the_hardware(opened: Open) -> None:
    """As after a backup of the terminal's own came back: nobody has these numbers any more."""
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    async with Hr(world.supabase) as hr:
        numbered, deleted = [await hr.hire(f"Muncitor{n}", "Ion") for n in range(2)]
        await settled(world)
    before = dict(terminal.persons)
    await world.execute("update angajati_biometrie set employee_no = 7000 where angajat_id = %s",
                        numbered.id)  # fmt: skip
    await world.execute("delete from angajati_biometrie where angajat_id = %s", deleted.id)
    await world.execute("delete from angajati where id = %s", deleted.id)
    async with asyncio.timeout(30):
        while await world.execute(WANTED):
            await get(world, STATUS)
            await asyncio.sleep(0.1)
    await world.execute("delete from hikvision_sync.pairs where employee_id = %s", deleted.id)
    terminal.persons.update(before)
    drift = await get(world, drift_of(world))
    assert drift["unknown"] == []
    assert {one["employee_no"]: one["name"] for one in drift["different"]} == {
        str(numbered.employee_no): "Muncitor0 Ion",
        str(deleted.employee_no): "",
    }


async def test_a_long_drift_goes_page_by_page_at_the_usual_pace_and_is_streamed(
    opened: Open,
) -> None:
    world = await opened(MODERN, pause_s=0.1)
    [site] = world.sites
    for n in range(100):
        site.terminal.persons[str(9000 + n)] = stranger(str(9000 + n))
    [employee] = await hire_unnoticed(world, 1)
    async with (
        browser(world) as client,
        client.stream("GET", drift_of(world), headers=STREAM) as answer,
    ):
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        lines = [json.loads(text) async for text in answer.aiter_lines()]
    assert [line["persons"] for line in lines if line["type"] == "progress"] == [30, 60, 90, 100]
    assert [line["angajat_id"] for line in lines if line["type"] == "missing"] == [employee]
    assert lines[-1]["summary"] == {"persons": 100, "missing": 1, "different": 0, "unknown": 100}
    searches = [c for c in site.terminal.sightings.calls if c.path.endswith("/Search")]
    assert len([c for c in searches if c.authenticated]) == 4
    assert site.terminal.sightings.calls_too_close == 0
    assert site.terminal.sightings.bodies == type(site.terminal.sightings.bodies)()
    leased = "select * from hikvision_sync.terminals where leased_by is not null"
    assert await world.execute(leased) == []


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        (PROFILES["no_upsert_no_search"], "cannot be asked"),
        (Profile(name="hangs"), "did not answer"),
    ],
)
async def test_a_terminal_that_cannot_be_compared_says_why(
    opened: Open, profile: Profile, word: str
) -> None:
    world = await opened(profile)
    if profile.name == "hangs":
        await world.sites[0].terminal.hang()
    drift = await get(world, drift_of(world))
    assert drift["complete"] is False
    assert word in drift["error"] or "does not support" in drift["error"]
    leased = "select * from hikvision_sync.terminals where leased_by is not null"
    assert await world.execute(leased) == []


async def test_a_wrong_password_costs_a_drift_one_failed_login(opened: Open) -> None:
    world = await opened(MODERN)
    await world.execute("update dispozitive_pontaj set password_encrypted = 'wrong'")
    for _ in range(3):
        drift = await get(world, drift_of(world))
        assert drift["complete"] is False
    assert world.sites[0].terminal.sightings.failed_logins == 1


@pytest.mark.parametrize("device_id", [NOBODY, "x", "1' or 'a'='a"])
async def test_the_drift_of_a_terminal_that_is_not_there_is_404(
    opened: Open, device_id: str
) -> None:
    world = await opened(MODERN)
    async with browser(world) as client:
        answer = await client.get(f"/api/hikvision/devices/{device_id}/drift")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
