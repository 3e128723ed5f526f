"""The three buttons, pressed over real HTTP against the real receiver and simulated terminals."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil
import pytest

from receiver.on_demand.runs import MAX_RUNS, PAGE
from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Face, Person
from tests.support.buttons import (
    ALL,
    MODERN,
    NO_FETCH,
    NOBODY,
    ONE,
    PHOTO,
    SLOW,
    XML,
    Json,
    Open,
    assert_well_treated,
    browser,
    hire_unnoticed,
    press,
    sites_in_order,
    statuses,
    stream,
)
from tests.support.waiting import ON_TIME_S


async def test_one_employee_goes_to_all_terminals_in_order(opened: Open) -> None:
    world = await opened(MODERN, XML)
    [employee] = await hire_unnoticed(world, 1)
    result = await press(world, ONE, {"angajat_id": employee})
    assert result["summary"] == {
        "success": 2,
        "partial": 0,
        "skipped": 0,
        "fatal": 0,
        "first_fatal": None,
    }
    assert [entry["device_id"] for entry in result["per_device"]] == sites_in_order(world)
    assert result["not_reached"] == []
    assert await world.disagreeing() == []
    again = await press(world, ONE, {"angajat_id": employee})  # exists already
    assert statuses(again) == ["success", "success"]
    assert_well_treated(world)


async def test_a_press_pushes_the_photo_whatever_the_ledger_believes(opened: Open) -> None:
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    [employee] = await hire_unnoticed(world, 1)
    for path in (ONE, ONE, PHOTO):
        await press(world, path, {"angajat_id": employee})
    face = terminal.persons["1000"].face
    assert face is not None
    assert face.replaced == 2


async def test_a_press_is_recorded_in_the_ledger(opened: Open) -> None:
    world = await opened(MODERN)
    [employee] = await hire_unnoticed(world, 1)
    await press(world, ONE, {"angajat_id": employee})
    [pair] = await world.execute("select * from hikvision_sync.pairs")
    assert (pair["status"], pair["employee_no"], pair["wanted"]) == ("success", "1000", 1)
    assert pair["done"] == 1


async def test_the_first_fatal_stops_a_run_and_pairs_that_were_not_reached_are_named(
    opened: Open,
) -> None:
    world = await opened(MODERN, XML, MODERN)
    first, second, third = sorted(world.sites, key=lambda site: site.id)
    await second.terminal.switch_off()
    ids = sorted(await hire_unnoticed(world, 2))
    result = await press(world, ALL)
    assert result["summary"]["success"] == 2
    assert result["summary"]["fatal"] == 1
    assert "cannot be reached" in result["summary"]["first_fatal"]
    assert second.id in result["summary"]["first_fatal"]
    assert [reached["angajat_id"] for reached in result["results"]] == ids
    assert all(reached["name"].startswith("Muncitor") for reached in result["results"])
    assert [[entry["status"] for entry in r["per_device"]] for r in result["results"]] == [
        ["success", "fatal"],
        ["success"],
    ]
    assert result["not_reached"] == [
        {"angajat_id": ids[0], "device_ids": [third.id]},
        {"angajat_id": ids[1], "device_ids": [second.id, third.id]},
    ]
    assert len(first.terminal.persons) == 2
    assert third.terminal.persons == {}


async def test_a_run_with_continue_passes_over_a_failed_terminal(opened: Open) -> None:
    world = await opened(MODERN, XML)
    off, on = sorted(world.sites, key=lambda site: site.id)
    await off.terminal.switch_off()
    ids = await hire_unnoticed(world, 3)
    result = await press(world, ALL, {"on_fatal": "continue"})
    assert (result["summary"]["success"], result["summary"]["fatal"]) == (3, 1)
    assert len(on.terminal.persons) == 3
    missed = {entry["angajat_id"]: entry["device_ids"] for entry in result["not_reached"]}
    assert missed == {id_: [off.id] for id_ in sorted(ids)[1:]}


async def test_a_wrong_password_is_fatal_and_costs_one_failed_login_however_often_pressed(
    opened: Open,
) -> None:
    world = await opened(MODERN)
    [site] = world.sites
    await world.execute("update dispozitive_pontaj set password_encrypted = 'gresita'")
    [employee] = await hire_unnoticed(world, 1)
    for _ in range(6):
        result = await press(world, ONE, {"angajat_id": employee})
        assert statuses(result) == ["fatal"]
        assert "password" in result["per_device"][0]["message"]
    assert site.terminal.sightings.failed_logins == 1


async def test_a_terminal_that_does_not_answer_in_time_is_fatal(opened: Open) -> None:
    world = await opened(MODERN, settings={"DEVICE_TIMEOUT_SECONDS": "0.4"})
    await world.sites[0].terminal.hang()
    [employee] = await hire_unnoticed(world, 1)
    result = await press(world, ONE, {"angajat_id": employee})
    assert statuses(result) == ["fatal"]
    assert "did not answer within 0.4 s" in result["per_device"][0]["message"]
    await world.sites[0].terminal.unhang()


async def test_a_photo_that_cannot_be_fetched_leaves_the_person_and_says_so(opened: Open) -> None:
    world = await opened(NO_FETCH)
    [employee] = await hire_unnoticed(world, 1)
    for path in (ONE, PHOTO):
        result = await press(world, path, {"angajat_id": employee})
        assert statuses(result) == ["partial"]
        assert result["per_device"][0]["step"] == "photo"
        assert "could not download the photo" in result["per_device"][0]["message"]
        assert "/storage/" not in json.dumps(result)
    assert "1000" in world.sites[0].terminal.persons


async def test_photo_only_sends_the_photo_and_nothing_else(opened: Open) -> None:
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    terminal.persons["1000"] = Person(
        employee_no="1000",
        name="Nume Vechi",
        begin=datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        end=datetime(2037, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        enabled=True,
        user_type="normal",
        face=Face(url="http://vechi/poza.jpg", sha256="0", size=1),
    )
    [employee] = await hire_unnoticed(world, 1)
    result = await press(world, PHOTO, {"angajat_id": employee})
    assert statuses(result) == ["success"]
    assert terminal.persons["1000"].name == "Nume Vechi"
    face = terminal.persons["1000"].face
    assert face is not None
    assert face.url.endswith("0.jpg")


async def test_photo_only_is_skipped_for_an_absent_person_who_is_synced_whole_next(
    opened: Open,
) -> None:
    world = await opened(MODERN)
    [employee] = await hire_unnoticed(world, 1)
    result = await press(world, PHOTO, {"angajat_id": employee})
    assert statuses(result) == ["skipped"]
    assert "is synced next" in result["per_device"][0]["message"]
    assert await world.agreed(within_s=ON_TIME_S)


async def test_photo_only_is_skipped_without_a_photo(opened: Open) -> None:
    world = await opened(MODERN)
    [employee] = await hire_unnoticed(world, 1, photo=False)
    result = await press(world, PHOTO, {"angajat_id": employee})
    assert statuses(result) == ["skipped"]
    assert "no photo" in result["per_device"][0]["message"]
    assert statuses(await press(world, ONE, {"angajat_id": employee})) == ["success"]


async def test_every_press_is_skipped_without_an_employee_no(opened: Open) -> None:
    world = await opened(MODERN, XML)
    [row] = await world.execute(
        "insert into angajati (nume) values ('Fără număr') returning id::text"
    )
    for path in (ONE, PHOTO):
        result = await press(world, path, {"angajat_id": row["id"]})
        assert statuses(result) == ["skipped", "skipped"]
        assert "employee_no" in result["per_device"][0]["message"]


@pytest.mark.parametrize("path", [ONE, PHOTO])
async def test_a_press_for_an_inactive_employee_takes_the_access_away_and_says_so(
    opened: Open, path: str
) -> None:
    world = await opened(MODERN)
    [terminal] = [site.terminal for site in world.sites]
    [employee] = await hire_unnoticed(world, 1)
    await press(world, ONE, {"angajat_id": employee})
    assert terminal.may_pass("1000", datetime.now(UTC))
    await world.execute("alter table angajati disable trigger user")
    await world.execute("update angajati set status = 'suspendat'")
    result = await press(world, path, {"angajat_id": employee})
    assert statuses(result) == ["success"]
    assert "no longer pass" in result["per_device"][0]["message"]
    assert not terminal.may_pass("1000", datetime.now(UTC))


async def test_a_bulk_run_leaves_out_employees_who_are_not_active(opened: Open) -> None:
    world = await opened(MODERN)
    ids = await hire_unnoticed(world, 3)
    await world.execute("update angajati set status = 'inactiv' where id = %s", ids[0])
    result = await press(world, ALL)
    assert sorted(entry["angajat_id"] for entry in result["results"]) == sorted(ids[1:])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (ONE, {"angajat_id": NOBODY}, 404),
        (PHOTO, {"angajat_id": NOBODY}, 404),
        (ONE, {}, 422),
        (ONE, {"angajat_id": 7}, 422),
        (ONE, {"angajat_id": "x'; drop table angajati; --"}, 422),
        (ALL, {"on_fatal": "maybe"}, 422),
        (ALL, {}, 409),
    ],
)
async def test_a_press_that_cannot_be_run_is_refused_as_a_problem(
    opened: Open, path: str, body: Json, status: int
) -> None:
    world = await opened()  # not one terminal
    async with browser(world) as client:
        answer = await client.post(path, json=body)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        for junk in (b"{", b"\xff", b"[]", b"[" * 100_000):
            assert (await client.post(path, content=junk)).status_code in (400, 422)


async def test_a_press_is_answered_503_while_supabase_is_gone(opened: Open) -> None:
    world = await opened(MODERN)
    async with browser(world) as client:  # the keys to verify tokens with are at hand
        assert (await client.post(ONE, json={"angajat_id": NOBODY})).status_code == 404
        await world.supabase.switch_off()
        for path in (ONE, ALL):
            answer = await client.post(path, json={"angajat_id": NOBODY})
            assert answer.status_code == 503
            assert "Supabase" in answer.json()["detail"]
        await world.supabase.switch_on()


async def test_a_caller_who_is_not_signed_in_gets_a_401_that_says_how(opened: Open) -> None:
    world = await opened(MODERN, settings={"SUPABASE_JWT_SECRET": "x" * 40})
    tokens = {
        "none": None,
        "the public anon key": world.supabase.anon_key,
        "the service_role key": world.supabase.service_role_key,
        "another kind of key": world.supabase.secret_key,
        "an expired token": world.supabase.access_token(exp=1),
        "an anonymous user": world.supabase.access_token(is_anonymous=True),
    }
    async with httpx.AsyncClient(base_url=world.receiver.url, trust_env=False) as client:
        for who, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            for method, path in (
                *(("POST", path) for path in (ONE, ALL, PHOTO)),
                *((method, f"/api/hikvision/runs/{NOBODY}") for method in ("GET", "DELETE")),
            ):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401, who
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["content-type"] == "application/problem+json"
                assert not token or token not in answer.text
    assert world.sites[0].terminal.persons == {}


async def test_only_users_with_a_role_of_the_setting_may_press_where_it_is_set(
    opened: Open,
) -> None:
    world = await opened(MODERN, settings={"SYNC_ALLOWED_ROLES": "hr, admin"})
    [employee] = await hire_unnoticed(world, 1)
    for claims, status in (
        ({}, 403),
        ({"app_metadata": {"role": "gardian"}}, 403),
        ({"user_metadata": {"role": "hr"}}, 403),
        ({"app_metadata": {"role": "hr"}}, 200),
        ({"app_metadata": {"roles": ["x", "admin"]}}, 200),
    ):
        async with browser(world, **claims) as client:
            answer = await client.post(ONE, json={"angajat_id": employee})
            assert answer.status_code == status, claims


async def test_a_token_never_reaches_the_log_and_its_sub_does(opened: Open) -> None:
    world = await opened(MODERN)
    token = world.supabase.access_token(email="ana@example.com")
    async with browser(world, email="ana@example.com") as client:
        await client.post(ONE, json={"angajat_id": NOBODY})
        await client.post(ONE, headers={"Authorization": f"Bearer {token}x"})
    logged = world.receiver.logged()
    sub = json.loads(_segment(token))["sub"]
    assert f'"sub": "{sub}"' in logged
    for part in (token, token.split(".")[2], "ana@example.com"):
        assert part not in logged


def _segment(token: str) -> bytes:
    import base64  # noqa: PLC0415

    claims = token.split(".")[1]
    return base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))


async def test_preflights_pass_from_localhost_and_production_and_from_nowhere_else(
    opened: Open,
) -> None:
    world = await opened(MODERN, settings={"CORS_ALLOWED_ORIGINS": "https://hr.example.ro"})
    ours = ["http://localhost:3000", "http://localhost:5173", "https://hr.example.ro"]
    theirs = ["https://evil.example", "http://localhost:9999", "https://hr.example.ro.evil", "null"]
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
        "Access-Control-Request-Private-Network": "true",
    }
    async with httpx.AsyncClient(base_url=world.receiver.url, trust_env=False) as client:
        for origin in ours:
            answer = await client.options(ALL, headers={"Origin": origin, **asked})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            assert "Authorization" in answer.headers["access-control-allow-headers"]
            refused = await client.post(ALL, headers={"Origin": origin})
            assert refused.status_code == 401  # and a browser may read it:
            assert refused.headers["access-control-allow-origin"] == origin
        for origin in theirs:
            answer = await client.options(ALL, headers={"Origin": origin, **asked})
            assert answer.status_code == 400
            plain = await client.post(ALL, headers={"Origin": origin})
            for headers in (answer.headers, plain.headers):
                assert "access-control-allow-origin" not in headers


async def test_a_setting_shuts_localhost_out(opened: Open) -> None:
    world = await opened(settings={"CORS_ALLOW_LOCALHOST": "false"})
    async with httpx.AsyncClient(base_url=world.receiver.url, trust_env=False) as client:
        answer = await client.post(ALL, headers={"Origin": "http://localhost:3000"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_user_who_presses_too_often_is_told_for_how_long_to_wait(opened: Open) -> None:
    world = await opened(MODERN)
    async with browser(world) as eager, browser(world, sub=NOBODY) as other:
        answers = [await eager.post(ONE, json={}) for _ in range(61)]
        assert [a.status_code for a in answers] == [422] * 60 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
        assert (await other.post(ONE, json={})).status_code == 422
        assert (await eager.get(f"/api/hikvision/runs/{NOBODY}")).status_code == 404


async def test_a_stream_tells_start_each_result_and_end(opened: Open) -> None:
    world = await opened(MODERN, XML)
    ids = sorted(await hire_unnoticed(world, 3))
    async with browser(world) as client:
        lines = [line async for line in stream(client, ALL, {})]
    assert [line["type"] for line in lines] == ["start", *["result"] * 6, "end"]
    assert (lines[0]["total"], lines[0]["employees"], lines[0]["devices"]) == (6, 3, 2)
    order = [(line["angajat_id"], line["device_id"]) for line in lines[1:-1]]
    assert order == [(e, t) for t in sites_in_order(world) for e in ids]  # one page of employees
    assert [line["done"] for line in lines[1:-1]] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["summary"]["success"] == 6


async def test_a_client_that_goes_away_stops_nothing_and_the_run_can_be_asked_for(
    opened: Open,
) -> None:
    world = await opened(SLOW)
    await hire_unnoticed(world, 3)
    async with browser(world) as client:
        async for line in stream(client, ALL, {}):
            run_id = line["run_id"]
            break  # the connection closes here
        progress = (await client.get(f"/api/hikvision/runs/{run_id}")).json()
        assert progress["state"] == "running"
        assert progress["total"] == 3
        while progress["state"] == "running":
            await asyncio.sleep(0.1)
            progress = (await client.get(f"/api/hikvision/runs/{run_id}")).json()
        assert progress["result"]["summary"]["success"] == 3
    assert await world.disagreeing() == []


async def test_a_second_bulk_run_is_refused_with_the_id_of_the_first(opened: Open) -> None:
    world = await opened(SLOW)
    [employee, *_] = await hire_unnoticed(world, 3)
    async with browser(world) as client:
        lines = stream(client, ALL, {})
        run_id = (await anext(lines))["run_id"]
        refused = await client.post(ALL, json={})
        assert refused.status_code == 409
        assert refused.json()["run_id"] == run_id
        single = await client.post(ONE, json={"angajat_id": employee})
        assert statuses(single.json()) == ["success"]
        rest = [line async for line in lines]
        assert rest[-1]["summary"]["success"] == 3
        assert (await client.post(ALL, json={})).status_code == 200
    assert_well_treated(world)


async def test_a_press_beyond_the_limit_of_runs_is_told_to_come_again(opened: Open) -> None:
    world = await opened(MODERN)
    [employee] = await hire_unnoticed(world, 1)
    asked = {"angajat_id": employee}
    await world.execute(  # so that no run ends before its time
        "update hikvision_sync.terminals set leased_by = 'another receiver',"
        " leased_until = clock_timestamp() + interval '1 hour'"
    )
    async with browser(world) as client:
        runs = [stream(client, ONE, asked) for _ in range(MAX_RUNS)]
        for run in runs:
            assert (await anext(run))["type"] == "start"
        for path in (ONE, PHOTO, ALL):
            refused = await client.post(path, json=asked)
            assert refused.status_code == 429  # 409 is for terminals and for bulk runs
            assert int(refused.headers["retry-after"]) > 0
            assert refused.json()["detail"].endswith("wait for one to end.")
            assert "run_id" not in refused.json()
        await world.execute("update hikvision_sync.terminals set leased_by = null")
        for run in runs:
            assert [line async for line in run][-1]["summary"]["success"] == 1
        assert (await client.post(ONE, json=asked)).status_code == 200
    assert_well_treated(world)


async def test_delete_ends_a_run_before_its_next_pair(opened: Open) -> None:
    world = await opened(SLOW)
    await hire_unnoticed(world, 5)
    async with browser(world) as client:
        lines = stream(client, ALL, {})
        run_id = (await anext(lines))["run_id"]
        await anext(lines)
        stopped = await client.delete(f"/api/hikvision/runs/{run_id}")
        assert stopped.status_code == 202
        end = [line async for line in lines][-1]
    assert end["type"] == "end"
    assert end["stopped_because"] == "It was stopped."
    done = end["summary"]["success"]
    assert 1 <= done <= 2
    assert len(end["not_reached"]) == 5 - done


async def test_an_edit_made_during_a_bulk_run_arrives_during_it(opened: Open) -> None:
    world = await opened(SLOW, poll_s=3600)
    [terminal] = [site.terminal for site in world.sites]
    await hire_unnoticed(world, 8)
    async with browser(world) as client, Hr(world.supabase) as hr:
        lines = stream(client, ALL, {})
        await anext(lines)
        await anext(lines)
        hired = await hr.hire("Grăbită", "Ana")
        seen_at = None
        async for line in lines:
            if line["type"] == "result" and str(hired.employee_no) in terminal.persons:
                seen_at = seen_at or line["done"]
    assert seen_at is not None
    assert seen_at < 8
    assert_well_treated(world)


async def test_sigterm_ends_a_run_after_its_call_and_the_worker_brings_the_rest(
    opened: Open,
) -> None:
    world = await opened(SLOW)
    [terminal] = [site.terminal for site in world.sites]
    await hire_unnoticed(world, 4)
    async with browser(world) as client:
        lines = stream(client, ALL, {})
        await anext(lines)
        await anext(lines)
        stopping = asyncio.create_task(world.receiver.stop())
        end = [line async for line in lines][-1]
        assert end["type"] == "end"
        await stopping
    leased = await world.execute(
        "select * from hikvision_sync.terminals where leased_by is not null"
    )
    assert leased == []
    assert 1 <= len(terminal.persons) <= 2
    assert_well_treated(world)


async def test_300_employees_on_4_terminals_stream_in_order_and_in_flat_memory(
    opened: Open, record_property: Any
) -> None:
    world = await opened(*[MODERN] * 4, pause_s=0.0, settings={"DEVICE_LANES": "1"})
    await world.execute("alter table angajati disable trigger user")
    await world.execute("alter table angajati_biometrie disable trigger hikvision_sync_inserted")
    await world.execute(
        "insert into angajati (nume, prenume) select 'Muncitor' || n, 'Ion'"
        " from generate_series(1, 300) n"
    )
    await world.execute(
        "insert into angajati_biometrie (angajat_id) select id from angajati order by id"
    )
    ids = [str(row["id"]) for row in await world.execute("select id from angajati order by id")]
    order = [
        (id_, terminal)
        for start in range(0, len(ids), PAGE)
        for terminal in sites_in_order(world)
        for id_ in ids[start : start + PAGE]
    ]
    process = psutil.Process(world.receiver.pid)
    memory: list[int] = []
    seen = []
    async with browser(world) as client:
        async for line in stream(client, ALL, {}):
            if line["type"] == "result":
                seen.append((line["angajat_id"], line["device_id"]))
                assert line["status"] == "success"
                if line["done"] % 100 == 0:
                    memory.append(process.memory_info().rss)
            last = line
    assert seen == order
    assert last["summary"]["success"] == 1200
    record_property("rss_mib", [round(m / 2**20) for m in memory])
    assert memory[-1] - memory[1] < 16 * 2**20
    assert await world.disagreeing() == []
    assert_well_treated(world)


async def test_an_employee_who_leaves_during_a_bulk_run_is_not_let_in_again_by_it(
    opened: Open,
) -> None:
    """The run must push what HR says when it comes to a person, not when it began."""
    world = await opened(SLOW)
    [terminal] = [site.terminal for site in world.sites]
    ids = sorted(await hire_unnoticed(world, 6))
    rows = await world.execute(
        "select employee_no::text as no from angajati_biometrie where angajat_id = %s", ids[-1]
    )
    number = str(rows[0]["no"])
    await press(world, ALL)
    assert terminal.may_pass(number, datetime.now(UTC))
    for person in terminal.persons.values():  # so that each is pushed again
        person.name = "Altcineva"
    async with browser(world) as client:
        lines = stream(client, ALL, {})
        await anext(lines)
        await anext(lines)
        await world.execute("update angajati set status = 'inactiv' where id = %s", ids[-1])
        seen = [line async for line in lines]
    assert "no longer pass" in [line for line in seen if line["type"] == "result"][-1]["message"]
    assert not terminal.may_pass(number, datetime.now(UTC))


async def test_a_press_does_not_wait_for_the_whole_backlog_of_the_receiver(opened: Open) -> None:
    world = await opened(SLOW, poll_s=1.0)
    async with Hr(world.supabase) as hr:
        people = [await hr.hire(f"Muncitor{n}", "Ion") for n in range(40)]
    waiting = "select count(*) from hikvision_sync.pairs where wanted > done"
    while (await world.execute(waiting))[0]["count"] == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert statuses(await press(world, ONE, {"angajat_id": people[-1].id})) == ["success"]
    left = (await world.execute(waiting))[0]["count"]
    assert isinstance(left, int)
    assert left > 20  # it did not wait for a whole batch to end
    assert_well_treated(world)
