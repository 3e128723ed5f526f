"""`receiver check` names each fault of `tests.support.faults`, made with the real parts."""

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from receiver.check import report, terminals, webhook_address
from receiver.check.figures import webhooks, work
from receiver.check.finding import Finding
from receiver.check.host import clock
from receiver.core.settings import Settings
from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.loopback import LoopbackServer
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from receiver.supabase import rest
from tests.support.faults import (
    CUT,
    RESET,
    SILENT,
    UNHEARD,
    Line,
    PostOffice,
    WrongClock,
    late,
    port_of,
    put_behind,
    receiver_of,
    status,
)
from tests.support.projects import Project
from tests.support.waiting import ON_TIME_S, eventually

ROOT = Path(__file__).parents[2]
SLOW = Profile(name="slow", delay_s=0.3, face_delay_s=0.6)
OTHER_SECRET = "whsec_" + "QW5vdGhlciBzZWNyZXQgb2Ygbm9ib2R5J3M="


@pytest.fixture
async def world(embedded_postgres: PostgresServer) -> AsyncIterator[World]:
    async with open_world(
        {"poarta": Profile()},
        pause_s=0.0,
        poll_s=1.0,
        postgres=embedded_postgres,
        settings={"DEVICE_TIMEOUT_SECONDS": "0.5", "PORT": "1"},
    ) as world:
        yield world


class Found:
    """The findings of one check."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = findings

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))

    def fault(self, what: str) -> str:
        """Return the fault of one thing, which must have one."""
        faults = [f.fault for f in self.findings if f.what == what and f.fault]
        assert faults, f"{what} is not at fault:\n{self}"
        return " ".join(faults)

    def note(self, what: str) -> str:
        """Return the note about one thing, which must be well."""
        notes = [f.note for f in self.findings if f.what == what and not f.fault]
        assert notes, f"{what} is not well:\n{self}"
        return " ".join(notes)


async def check(world: World, **changes: str) -> Found:
    settings = Settings.from_env({**world.environment, **changes})
    found = Found([finding async for finding in report.findings(settings)])
    assert "whsec_" not in str(found).replace("whsec_ and", "")
    assert "/storage/" not in str(found)
    assert world.supabase.secret_key not in str(found)
    return found


async def pass_time(world: World, minutes: float) -> None:
    """Make everything that the database has noted so much older."""
    for table, *columns in (
        ("edits", "edited_at"),
        ("posts", "posted_at"),
        ("pairs", "wanted_since", "next_attempt_at", "recorded_at"),
        ("terminals", "leased_at", "leased_until", "free_at", "looked_at", "changed_at"),
    ):
        changes = ", ".join(f"{c} = {c} - interval '{minutes} min'" for c in columns)
        await world.execute(f"update hikvision_sync.{table} set {changes}")


async def set_vault(world: World, name: str, value: str) -> None:
    await world.execute(
        "select vault.update_secret(id, %s) from vault.secrets where name = %s",
        *(value, f"hikvision_sync_{name}"),
    )


def answered(world: World, count: int) -> bool:
    return world.pg_net.delivered + world.pg_net.failed >= count


# Supabase


REST_WORDS = {
    "500": (status(500), ("500", "gateway")),
    "502": (status(502), ("502", "gateway")),
    "520": (status(520), ("520", "gateway")),
    "540": (status(540), ("540", "the project is paused")),
    "401": (status(401), ("401", "SUPABASE_SERVICE_ROLE_KEY")),
    "429": (status(429), ("429", "asked too often")),
    "a page instead of an answer": (status(200), ("no version of the SQL", "a proxy's page")),
    "cut mid-body": (CUT, ("did not arrive", "cut off")),
    "reset": (RESET, ("did not arrive", "reset")),
    "half-open": (UNHEARD, ("did not answer in time", "takes the connection")),
}


async def test_each_trouble_of_supabases_rest_has_words_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "REQUEST_TIMEOUT_S", 0.5)
    said = {}
    async with Line(port_of(world.supabase.url)) as line:
        for name, (fault, words) in REST_WORDS.items():
            line.hurt(fault)
            said[name] = (await check(world, SUPABASE_URL=line.url)).fault("database")
            for word in words:
                assert word in said[name], name
            await line.repair()
        await line.refuse()
        said["refused"] = (await check(world, SUPABASE_URL=line.url)).fault("database")
        assert "cannot be reached: the connection is refused" in said["refused"]
    unknown = await check(world, SUPABASE_URL="http://nobody.invalid")
    said["name"] = unknown.fault("database")
    assert "its name cannot be resolved" in said["name"]
    assert len(set(said.values())) == len(said)


async def test_supabases_rest_that_is_slow_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SLOW_S", 0.5)
    async with Line(port_of(world.supabase.url)) as line:
        line.hurt(late(0.6), times=5)  # as many as are asked before a terminal is
        found = await check(world, SUPABASE_URL=line.url)
    assert "Supabase is slow, 0." in found.fault("database: speed")


async def test_postgres_that_is_stopped_is_reported(stoppable_postgres: PostgresServer) -> None:
    async with open_world(
        {"poarta": Profile()}, pause_s=0, poll_s=1, postgres=stoppable_postgres
    ) as world:
        await asyncio.to_thread(stoppable_postgres.stop)
        try:
            assert "its Postgres does not answer" in (await check(world)).fault("database")
        finally:
            await asyncio.to_thread(stoppable_postgres.start)


@pytest.mark.parametrize(
    ("code", "words"),
    [("53100", "its disk is full"), ("25006", "its disk is full"), ("57014", "overloaded")],
)
async def test_trouble_of_a_database_is_reported_with_its_code(
    world: World, code: str, words: str
) -> None:
    await world.execute(
        "create or replace function public.hikvision_sync_check()"
        " returns table (name text, fault text, detail text) language plpgsql as"
        f" $$ begin raise exception 'something' using errcode = '{code}'; end $$"
    )
    said = (await check(world)).fault("database")
    assert words in said
    assert code in said


async def test_sql_files_of_another_version_are_reported(world: World) -> None:
    await world.execute(
        "create or replace function public.hikvision_sync_check()"
        " returns table (name text, fault text, detail text) language sql as"
        " $$ select 'pg_net', null::text, null::text $$"
    )
    found = await check(world)
    assert "run this version's sql/ files" in found.fault("database: sql")
    assert found.note("terminal 127.0.0.1")


async def test_a_ledger_without_the_table_of_posts_is_reported_as_older(world: World) -> None:
    await world.execute("drop table hikvision_sync.posts")
    found = await check(world)
    assert "run sql/0001_tables.sql again" in found.fault("database: ledger")


async def test_a_ledger_without_a_column_is_reported_as_of_another_version(world: World) -> None:
    await world.execute("alter table hikvision_sync.terminals drop column changed_at")
    await world.execute("alter table hikvision_sync.pairs drop column recorded_at")
    assert "run this version's sql/ files" in (await check(world)).fault("database: sql")


# The clock


@pytest.mark.parametrize(
    ("hours", "words"), [(3, "3 h 0 min ahead of Supabase's"), (-3, "3 h 0 min behind Supabase's")]
)
async def test_a_clock_set_forward_or_back_is_named_with_its_direction(
    world: World, tmp_path: Path, hours: int, words: str
) -> None:
    clock = WrongClock(tmp_path)
    clock.set(hours * 3605)
    said = await said_by_the_command(world, clock.environment)
    [fault] = [line for line in said.splitlines() if line.startswith("✗ clock: ")]
    assert words in fault
    assert "refuses every webhook with 401" in fault
    assert "NTP" in fault


def test_a_clock_is_compared_with_the_middle_of_the_request() -> None:
    assert clock(1000.0, asked_at=960.0, answered_at=1040.0).fault is None
    assert clock(1000.0, asked_at=1000.0, answered_at=1100.0).fault is None
    assert clock(1000.0, asked_at=1059.0, answered_at=1059.5).fault is None
    some = clock(1000.0, asked_at=1090.0, answered_at=1090.5).fault
    assert some
    assert "1 min ahead" in some
    assert "every webhook" not in some


async def said_by_the_command(
    world: World, environment: dict[str, str], *, into: str | None = None
) -> str:
    """Run `receiver check` as a process, and return what it says; into a file it says nothing."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "VIRTUAL_ENV")}
    with open(into or os.devnull, "wb") as full:  # noqa: ASYNC230, PTH123 - a device
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "receiver", "check"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=full if into else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**kept, "PYTHONIOENCODING": "utf-8", **world.environment, **environment},
        )
        out, err = await process.communicate()
    assert process.returncode == 1, err
    assert b"Traceback" not in err
    return (out or err).decode()


# The receiver


async def test_a_receiver_that_was_killed_is_named_by_all_that_it_leaves_undone(
    world: World,
) -> None:
    async with receiver_of(world) as receiver, Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion", photo="ion.jpg")
        await eventually(lambda: answered(world, 2))
        assert await world.agreed(within_s=ON_TIME_S)
        well = await check(world)
        assert well.note("receiver at 127.0.0.1") == "ready"
        assert well.note("webhooks") == "the last 2 were accepted"
        assert "a receiver was at work" in well.note("work")
        assert well.note("clock") == ""

        await receiver.kill()
        await hr.hire("Rusu", "Dan")
        await eventually(lambda: answered(world, 4))
        await pass_time(world, 12)
        for _ in range(2):  # traces of a check are not taken for a receiver's
            dead = await check(world)
            assert "the connection is refused" in dead.fault("receiver at 127.0.0.1")
            assert "Is it running?" in dead.fault("receiver at 127.0.0.1")
            assert "of the last 4, the newest 2 failed: 2 could not be" in dead.fault("webhooks")
            assert "hikvision_sync_webhook_url? No edit is lost" in dead.fault("webhooks")
            assert "no receiver has taken up any work for 12 min" in dead.fault("work")
            assert "2 edits wait" in dead.fault("work")

        await receiver.start()
        assert await world.agreed(within_s=ON_TIME_S)
        await hr.hire("Popa", "Ana")
        await eventually(lambda: answered(world, 6))
        back = await check(world)
        assert back.note("webhooks") == "2 of the last 6 failed, none since"
        assert back.note("work")
        assert back.note("receiver at 127.0.0.1") == "ready"


async def test_a_receiver_that_hangs_is_distinguished_from_one_that_does_not_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_address, "TIMEOUT_S", 0.5)
    async with receiver_of(world) as receiver, Hr(world.supabase) as hr:
        receiver.freeze()
        await hr.insert("angajati", {"nume": "Popescu", "prenume": "Ion"})
        await eventually(lambda: answered(world, 1))
        found = await check(world)
        receiver.thaw()
    assert "does not answer from here: it takes the connection" in found.fault(
        "receiver at 127.0.0.1"
    )
    assert "1 not answered within 5 s: the receiver hangs" in found.fault("webhooks")


async def test_a_receiver_that_runs_and_cannot_work_says_why_itself(world: World) -> None:
    async with (
        Line(port_of(world.supabase.url)) as line,
        receiver_of(world, line=line),
    ):
        line.hurt(status(401))
        await eventually(lambda: line.hurts > 1)
        found = await check(world)
    fault = found.fault("receiver at 127.0.0.1")
    assert "runs, and cannot do its work: Supabase refused the request (401: Trouble)" in fault


async def test_a_lease_of_a_receiver_that_died_is_named(
    embedded_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminals, "BUSY_PAUSES_S", (0.0,))
    async with open_world(
        {"slow": SLOW}, pause_s=0.02, poll_s=0.5, postgres=embedded_postgres
    ) as world:
        async with receiver_of(world) as receiver, Hr(world.supabase) as hr:
            await hr.hire("Popescu", "Ion", photo="ion.jpg")
            terminal = world.sites[0].terminal
            await eventually(lambda: terminal.sightings.calls)
            await receiver.kill()
            await asyncio.sleep(SLOW.face_delay_s)  # the terminal ends the call that was cut off
            await pass_time(world, 2)
            over = (await check(world)).fault("edits for 127.0.0.1")
            assert "it is free again, and what was under way is done again" in over
            words = f"a receiver died while it had the terminal (process {receiver.pid} on "
            assert words + socket.gethostname() in over
        assert "died" not in (await check(world)).note("edits for 127.0.0.1")


async def test_a_receiver_that_is_gone_is_missed_though_nobody_edits_anything(
    world: World,
) -> None:
    site = world.sites[0]
    await world.execute("delete from hikvision_sync.edits")
    await world.execute(
        "insert into hikvision_sync.terminals (terminal_id, last_held_by, free_at, looked_at)"
        " values (%s, 'srv:1:a', clock_timestamp(), clock_timestamp())",
        site.id,
    )
    await pass_time(world, 16)
    assert (await work_of(world)).note("work") == "a receiver was at work 16 min ago"
    await pass_time(world, 16)
    assert "no receiver has taken up any work for 17 min" in (await work_of(world)).fault("work")
    await world.execute(
        "update hikvision_sync.terminals set rests_until = now() + interval '9 min'"
    )
    assert (await work_of(world)).note("work") == "a receiver was at work 32 min ago"


async def work_of(world: World) -> Found:
    """Ask the database alone: a whole check also identifies the terminal."""
    [row] = await world.execute("select hikvision_sync.work() as figures")
    return Found([work(row["figures"], poll_s=30, look_s=900)])  # type: ignore[arg-type]


# Webhooks


async def test_webhooks_refused_by_the_hundred_are_named_until_one_is_accepted(
    world: World,
) -> None:
    secret = world.environment["WEBHOOK_SECRET"]
    async with receiver_of(world):
        await set_vault(world, "webhook_secret", OTHER_SECRET)
        await world.execute(
            "insert into angajati (nume) select 'A' || n from generate_series(1, 120) n"
        )
        await eventually(lambda: answered(world, 120))
        fault = (await check(world)).fault("webhooks")
        assert "of the last 40, the newest 40 failed: 40 refused with 401, the signature" in fault
        assert "hikvision_sync_webhook_secret" in fault
        assert "WEBHOOK_SECRET" in fault
        await set_vault(world, "webhook_secret", secret)
        await world.execute("update angajati set nume = 'B' where nume = 'A1'")
        await eventually(lambda: answered(world, 121))
        assert (await check(world)).note("webhooks") == "39 of the last 40 failed, none since"


async def test_webhooks_past_the_tolerance_are_distinguished_from_those_with_another_secret(
    world: World, tmp_path: Path
) -> None:
    clock = WrongClock(tmp_path)
    clock.set(3600)
    async with receiver_of(world, environment=clock.environment), Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion")
        await eventually(lambda: answered(world, 2))
        fault = (await check(world)).fault("webhooks")
    assert "2 refused with 401, over 5 min off: the clock of the receiver is wrong" in fault


async def test_webhooks_that_pg_net_lost_or_keeps_are_named(world: World) -> None:
    async with Hr(world.supabase) as hr:
        world.pg_net.lose_next(2)
        await hr.hire("Popescu", "Ion")
        await eventually(lambda: world.pg_net.lost == 2)
        assert (await check(world)).note("webhooks") == "none in the last hour"  # a minute's grace
        await pass_time(world, 2)
        assert "2 lost by pg_net" in (await check(world)).fault("webhooks")
        await world.pg_net.stop()
        await hr.hire("Rusu", "Dan")
        await pass_time(world, 7)
        fault = (await check(world)).fault("webhooks")
        assert "pg_net has kept webhooks for 7 min" in fault
        assert "select net.worker_restart()" in fault


async def test_doubled_webhooks_and_requests_of_others_are_no_fault(world: World) -> None:
    async with receiver_of(world), Hr(world.supabase) as hr:
        world.pg_net.duplicate_next(2)
        await hr.hire("Popescu", "Ion")
        await world.execute(
            "select net.http_post('http://127.0.0.1:1/altul') from generate_series(1, 9)"
        )
        await eventually(lambda: answered(world, 13))
        assert world.pg_net.failed == 9
        assert (await check(world)).note("webhooks") == "the last 2 were accepted"


async def test_webhooks_that_reach_something_else_are_named(world: World) -> None:
    async with PostOffice() as office, Hr(world.supabase) as hr:
        await office.redirect(world)
        await hr.hire("Popescu", "Ion")
        await eventually(lambda: answered(world, 2))
        found = await check(world)
    assert "answered 202 by something that is not the receiver" in found.fault("webhooks")
    assert "something else answers there (HTTP 404)" in found.fault("receiver at 127.0.0.1")


async def test_a_proxy_whose_receiver_is_gone_is_named(world: World) -> None:
    async with Line(world.receiver.port) as line, Hr(world.supabase) as hr:
        await set_vault(world, "webhook_url", f"{line.url}/webhooks/supabase")
        line.hurt(status(502))
        await hr.hire("Popescu", "Ion")
        await eventually(lambda: answered(world, 2))
        found = await check(world)
    assert "answered 502 by a proxy: the receiver behind it" in found.fault("webhooks")
    assert "a proxy answers 502 in its place" in found.fault("receiver at 127.0.0.1")


async def test_pg_nets_tables_that_cannot_be_read_are_no_fault(world: World) -> None:
    with psycopg.connect(world.database.superuser_dsn, autocommit=True) as connection:
        connection.execute("alter table net._http_response rename to answers")
    assert (await check(world)).note("webhooks") == "pg_net's answers cannot be read here"


async def test_the_address_of_webhooks_is_never_shown_whole(world: World) -> None:
    port = world.receiver.port
    await set_vault(
        world, "webhook_url", f"http://ana:Parola-mea-1@127.0.0.1:{port}/webhooks/supabase"
    )
    async with receiver_of(world):
        found = await check(world)
    assert found.note("receiver at 127.0.0.1") == "ready"
    assert "Parola" not in str(found)
    assert "ana:" not in str(found)


def test_pg_nets_words_for_an_error_are_told_without_an_address() -> None:
    error = "Could not resolve https://receiver.example/webhooks/supabase?key=1 in time"
    figures = {"ends": ["error"], "status": None, "error": error, "queued_s": None}
    fault = webhooks(figures, poll_s=30).fault
    assert fault
    assert "(Could not resolve … in time)" in fault


async def moved(_: Request) -> Response:
    return RedirectResponse("https://elsewhere.example/readyz")


async def forbidden(_: Request) -> Response:
    return PlainTextResponse("no", 403)


async def not_allowed(_: Request) -> Response:
    return PlainTextResponse("{}", 405, media_type="application/problem+json")


async def endless(_: Request) -> Response:
    return PlainTextResponse("[" * 1_000_000)


@pytest.mark.parametrize(
    ("readyz", "webhooks", "words"),
    [
        (moved, forbidden, "is redirected (307): pg_net would follow without the body"),
        (forbidden, forbidden, "something else answers there (HTTP 403)"),
        (endless, forbidden, "something else answers there (HTTP 200)"),
        (forbidden, not_allowed, "takes webhooks; /readyz is not open"),
    ],
)
async def test_a_server_that_answers_in_the_receivers_place_is_named(
    readyz: Any, webhooks: Any, words: str
) -> None:
    routes = [Route("/readyz", readyz), Route("/webhooks/supabase", webhooks)]
    async with LoopbackServer(Starlette(routes=routes)) as server:
        found = await webhook_address.find(server.url)
    assert words in (found.fault or found.note)
    assert "elsewhere" not in str(found)


# Terminals


TERMINAL_WORDS = {
    "cut": (CUT, "cut the connection before its answer was complete"),
    "reset": (RESET, "reset the connection"),
    "late": (late(0.8), "did not answer within 0.5 s"),
    "half-open": (SILENT, "did not answer within 0.5 s"),
    "a proxy's 502": (status(502), "in trouble (HTTP 502)"),
}


async def test_each_trouble_on_a_terminals_line_is_named(world: World) -> None:
    async with Line(world.sites[0].terminal.port) as line:
        await put_behind(line, world, world.sites[0])
        for name, (fault, words) in TERMINAL_WORDS.items():
            line.hurt(fault)
            assert words in (await check(world)).fault("terminal 127.0.0.1"), name
        await line.refuse()
        assert "cannot be reached" in (await check(world)).fault("terminal 127.0.0.1")
        await line.repair()
        assert (await check(world)).note("terminal 127.0.0.1")


async def test_a_terminal_that_rests_after_a_refused_login_says_for_how_long(
    world: World,
) -> None:
    await world.execute("update dispozitive_pontaj set password_encrypted = 'Alta-parola-9'")
    assert "user name or password" in (await check(world)).fault("terminal 127.0.0.1")
    fault = (await check(world)).fault("terminal 127.0.0.1")
    assert fault.startswith("Is left alone for another 3")
    assert "user name or password" in fault


async def test_a_backlog_and_pairs_that_keep_failing_are_named_and_no_person_is(
    world: World,
) -> None:
    site = world.sites[0]
    await world.execute("insert into angajati (nume) select 'A' || n from generate_series(1, 10) n")
    await world.execute("insert into angajati_biometrie (angajat_id) select id from angajati")
    await world.execute(
        "insert into hikvision_sync.pairs (terminal_id, employee_id, wanted, wanted_since,"
        "  attempts, status, step, message, recorded_at)"
        " select %s, b.angajat_id, 1, clock_timestamp() - interval '47 min', n.attempts, n.status,"
        "  'photo', n.message || b.employee_no || ': no face found.', clock_timestamp()"
        " from (select *, row_number() over () as n from angajati_biometrie) b"
        " cross join lateral (select case when b.n <= 4 then 3 else 0 end,"
        "  case when b.n <= 4 then 'partial' end, case when b.n <= 4 then 'Photo of ' end"
        " ) n(attempts, status, message)",
        site.id,
    )
    fault = (await check(world)).fault("edits for 127.0.0.1")
    assert "4 employees keep failing, mostly: Photo of …: no face found." in fault
    assert "10 edits wait, the oldest for 47 min; none was done in the last 10 min" in fault
    await world.execute(
        "update hikvision_sync.pairs set done = wanted where status is null or employee_id ="
        " (select employee_id from hikvision_sync.pairs where status is not null limit 1)"
    )
    fault = (await check(world)).fault("edits for 127.0.0.1")
    assert "3 edits wait" in fault
    assert "7 were done in the last 10 min, and the rest takes about 4 min" in fault
    await world.execute("update hikvision_sync.pairs set done = wanted")
    note = (await check(world)).note("edits for 127.0.0.1")
    assert note.startswith("4 employees are not there until HR edits them, mostly: Photo of …:")


# This machine


class Usage:
    total, used, free = 10 * 1024**3, 10 * 1024**3 - 4096, 4096


async def test_a_full_disk_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check(world)).note("disk") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    assert "is full: 0 MB are left for " in (await check(world)).fault("disk")


async def test_a_check_that_cannot_write_its_findings_fails_and_says_so(world: World) -> None:
    said = await said_by_the_command(world, {}, into="/dev/full")
    assert said == "✗ The findings cannot be written: No space left on device\n"


# The SQL


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    with Project(each_migrated_database) as project:
        yield project


def test_each_end_of_a_webhook_is_read_from_the_notes_of_pg_net(project: Project) -> None:
    for name, value in (
        ("url", "https://ana:parola@receiver.example:8443/webhooks/supabase"),
        ("secret", OTHER_SECRET),
    ):
        project.run("select vault.create_secret(%s, %s)", value, f"hikvision_sync_webhook_{name}")
    for n in range(8):
        project.run("insert into angajati (nume) values (%s)", f"A{n}")
    ids = [row["id"] for row in project.queued()]
    posts = project.run("select unnest(request_ids) as id from hikvision_sync.posts order by 1")
    assert [row["id"] for row in posts] == ids
    problem = "application/problem+json"
    late = '{"detail":"The webhook-timestamp is over 5 minutes off: check both clocks"}'
    with psycopg.connect(project.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute("delete from net.http_request_queue where id <> %s", (ids[6],))
        for id_, code, kind, content, timed_out, error in (
            (ids[0], 202, "application/json", '{"accepted":true}', False, None),
            (ids[1], 401, problem, late, False, None),
            (ids[2], 401, problem, "{}", False, None),
            (ids[3], 404, "text/html", "", False, None),
            (ids[4], None, None, None, True, "Timeout of 5000 ms reached"),
            (ids[5], None, None, None, False, "Could not connect to server"),
            (ids[7] + 1, 401, problem, "{}", False, None),  # another's
        ):
            superuser.execute(
                "insert into net._http_response"
                " (id, status_code, content_type, content, timed_out, error_msg)"
                " values (%s, %s, %s, %s, %s, %s)",
                (id_, code, kind, content, timed_out, error),
            )
    [found] = project.run("select hikvision_sync.webhook_ends() as found")
    ends = ["accepted", "late", "unsigned", "status", "timeout", "error", "queued", "under way"]
    assert found["found"]["ends"] == ends[::-1]
    assert found["found"]["status"] == 404
    assert found["found"]["error"] == "Could not connect to server"
    details = {r["name"]: r["detail"] for r in project.run("select * from hikvision_sync_check()")}
    assert details["webhook_url"] == "https://receiver.example:8443"
    assert abs(float(details["clock"]) - time.time()) < 3600


def test_posts_that_pg_net_has_forgotten_are_taken_out_with_the_next_edits(
    project: Project,
) -> None:
    project.run(
        "insert into hikvision_sync.posts (request_ids, posted_at)"
        " values ('{1}', now() - interval '7 h'), ('{2}', now() - interval '5 h')"
    )
    project.run("insert into angajati (nume) values ('A')")
    project.run("select * from hikvision_sync_claim('r', 20, 10, 900, null, null)")
    left = project.run("select request_ids from hikvision_sync.posts order by posted_at")
    assert left[0] == {"request_ids": [2]}


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_no_api_role_may_ask_for_the_figures_directly(project: Project, role: str) -> None:
    project.run(f"set role {role}")
    for function in ("webhook_ends", "work", "terminal_states"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            project.run(f"select hikvision_sync.{function}()")
    project.run("reset role")
