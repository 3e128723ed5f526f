"""`receiver check` and `receiver secret` as an operator runs them: processes of their own.

The world around them is real; each fault is made in it and has to be named.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.core.signatures import parse_secret
from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.loopback import LoopbackServer
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import PASSWORD, Site, World, open_world
from receiver.supabase.sql_version import SQL_VERSION

ROOT = Path(__file__).parents[2]
PROFILES = {"poarta": Profile(name="modern"), "depozit": Profile(name="xml", answers="xml")}
WRONG = "Parola-gresita-99"


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def faults(self) -> list[str]:
        return [line for line in self.lines if line.startswith("✗")]

    @property
    def well(self) -> list[str]:
        return [line for line in self.lines if line.startswith("✓")]


async def command(*arguments: str, environment: Mapping[str, str] | None = None) -> Said:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "VIRTUAL_ENV")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "receiver",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**kept, "PYTHONIOENCODING": "utf-8", **(environment or {})},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Said(code=process.returncode, out=out.decode(), err=err.decode())


async def check(world: World, **changes: str | None) -> Said:
    """Run `receiver check`; whatever is wrong, it says no secret and no traceback."""
    environment = {**world.environment, **changes}
    said = await command(
        "check", environment={k: v for k, v in environment.items() if v is not None}
    )
    assert_tells_no_secret(world, said, [v for v in changes.values() if v])
    return said


def assert_tells_no_secret(world: World, said: Said, values: list[str]) -> None:
    supabase = world.supabase
    secrets = [
        supabase.secret_key,
        supabase.service_role_key,
        supabase.anon_key,
        supabase.jwt_secret,
        world.environment["WEBHOOK_SECRET"],
        PASSWORD,
        WRONG,
        *(value for value in values if len(value) > 12 and "://" not in value),
    ]
    for secret in secrets:
        assert secret not in said.out + said.err
    assert "whsec_" not in said.out.replace("whsec_ and", "").replace("whsec_…", "")
    assert "Traceback" not in said.out + said.err
    assert said.err == ""


@pytest.fixture
async def world(embedded_postgres: PostgresServer) -> AsyncIterator[World]:
    async with a_world(embedded_postgres) as world:
        yield world


@asynccontextmanager
async def a_world(server: PostgresServer, pause_s: float = 0.0) -> AsyncIterator[World]:
    ready = Starlette(routes=[Route("/readyz", says_ready)])
    async with (
        open_world(PROFILES, pause_s=pause_s, poll_s=1.0, postgres=server) as world,
        LoopbackServer(ready, port=world.receiver.port),
    ):
        yield world


async def says_ready(_: Request) -> Response:
    """Stand in for the receiver, whose worker would call the terminals too."""
    return JSONResponse({"status": "ready"})


async def change_row(world: World, site: Site, column: str, value: object) -> None:
    statement = f"update dispozitive_pontaj set {column} = %s where id = %s"
    await world.execute(statement, value, site.id)


def assert_only_fault(said: Said, *words: str) -> None:
    assert said.code == 1
    [fault] = said.faults
    for word in words:
        assert word in fault
    assert said.lines[-1] == "1 problem"


# All well


async def test_where_all_is_well_every_line_says_so_and_the_exit_code_is_0(world: World) -> None:
    said = await check(world)
    assert said.faults == []
    assert said.lines == [*said.well, "No problems found"]
    assert said.code == 0
    for part in ("environment", "pg_net", "pgcrypto", "webhook_url", "webhook_secret", "triggers"):
        assert any(part in line for line in said.well), part
    assert any("terminals: 2 active" in line for line in said.well)
    devices = [line for line in said.well if line.startswith("✓ terminal ")]
    assert len(devices) == 2
    assert all("DS-K1T342MFWX-E1, firmware V4.39.0" in line for line in devices)


async def test_a_verification_is_told_with_what_it_found_and_missed_when_it_is_late(
    world: World,
) -> None:
    await check(world)  # the terminals are in the ledger from now on
    await world.execute(
        "update hikvision_sync.terminals set verified_at = now() - interval '2 hours',"
        " verify_began_at = now() - interval '2 hours', verified ="
        """ '{"persons": 1234, "different": 2, "missing": 1, "unknown": 7}'"""
    )
    said = await check(world)
    assert said.code == 0
    [line, _] = [line for line in said.well if line.startswith("✓ people on ")]
    assert "2 h 0 min ago: 1,234 there, 3 put right, 7 unknown to HR" in line
    said = await check(world, VERIFY_HOURS="0.5")
    assert len(said.faults) == 2
    assert "was asked for everybody 2 h 0 min ago, and should be every 30 min" in said.faults[0]


async def test_receivers_with_different_policies_for_leavers_are_named(world: World) -> None:
    await world.execute(
        "insert into hikvision_sync.receivers (receiver, policy) values ('a', 'expire'),"
        " ('b', 'delete')"
    )
    assert_only_fault(await check(world), "leaver_policy", "(delete, expire)", "restart them")


async def test_a_legacy_key_passes_the_check(world: World) -> None:
    said = await check(world, SUPABASE_SERVICE_ROLE_KEY=world.supabase.service_role_key)
    assert said.code == 0


async def test_a_check_asks_each_terminal_one_question_and_leaves_people_and_leases_alone(
    world: World,
) -> None:
    await check(world)
    for site in world.sites:
        calls = [c for c in site.terminal.sightings.calls if c.authenticated]
        assert [(c.method, c.path) for c in calls] == [("GET", "/ISAPI/System/deviceInfo")]
        assert not site.terminal.sightings.bodies
        assert site.terminal.sightings.failed_logins == 0
    leased = "select * from hikvision_sync.terminals where leased_by is not null"
    assert await world.execute(leased) == []
    assert (
        await world.execute("select * from hikvision_sync.terminals where rests_until > now()")
        == []
    )
    edits = await world.execute("select * from hikvision_sync.edits where employee_id is not null")
    assert edits == []
    assert await world.execute("select * from hikvision_sync.pairs") == []


async def test_any_of_several_webhook_secrets_may_be_the_vaults(world: World) -> None:
    new = (await command("secret")).out.strip()
    both = f"{new} {world.environment['WEBHOOK_SECRET']}"
    assert (await check(world, WEBHOOK_SECRET=both)).code == 0


# The environment


@pytest.mark.parametrize("name", ["SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "WEBHOOK_SECRET"])
async def test_a_missing_variable_is_named_and_supabase_is_not_asked(
    world: World, name: str
) -> None:
    said = await check(world, **{name: None})
    assert said.code == 1
    assert said.lines[0] == "✗ environment"
    assert f"  {name}: is missing" in said.lines
    assert not world.supabase.requests


async def test_every_variable_at_fault_is_named_at_once_and_none_with_its_value() -> None:
    environment = {"WEBHOOK_SECRET": "whsec_AAAA", "POLL_SECONDS": "oft-und-gern"}
    said = await command("check", environment=environment)
    assert said.code == 1
    for name in ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "WEBHOOK_SECRET", "POLL_SECONDS"):
        assert f"  {name}: " in said.out
    assert "AAAA" not in said.out + said.err
    assert "oft-und-gern" not in said.out + said.err


# Supabase and its database


async def test_supabase_that_is_off_is_reported_and_no_terminal_is_asked(world: World) -> None:
    await world.supabase.switch_off()
    said = await check(world)
    assert_only_fault(said, "database", "cannot be reached", "SUPABASE_URL")
    assert not any("terminal" in line for line in said.lines)


@pytest.mark.parametrize("kind", ["secret", "legacy"])
async def test_a_wrong_key_is_reported(world: World, kind: str) -> None:
    key = {
        "secret": "sb_secret_0123456789abcdefghijklmn",
        "legacy": world.supabase.service_role_key.rpartition(".")[0] + "." + "A" * 43,
    }[kind]
    said = await check(world, SUPABASE_SERVICE_ROLE_KEY=key)
    assert_only_fault(said, "database", "SUPABASE_SERVICE_ROLE_KEY")


@pytest.mark.parametrize("kind", ["anon_key", "publishable_key"])
async def test_the_key_for_browsers_is_not_the_service_key(world: World, kind: str) -> None:
    said = await check(world, SUPABASE_SERVICE_ROLE_KEY=getattr(world.supabase, kind))
    assert_only_fault(said, "database", "SUPABASE_SERVICE_ROLE_KEY")


async def test_missing_migrations_are_reported(world: World) -> None:
    await world.execute((ROOT / "sql" / "uninstall.sql").read_text(encoding="utf-8"))
    assert_only_fault(await check(world), "sql/")


async def test_a_missing_last_migration_is_reported(world: World) -> None:
    await world.execute("drop function public.hikvision_sync_check()")
    assert_only_fault(await check(world), "sql/")


async def test_sql_older_than_the_receivers_is_reported_with_the_files_to_apply(
    world: World,
) -> None:
    await world.execute("drop function public.hikvision_sync_version()")
    assert_only_fault(
        await check(world), "older than that", "0001_tables.sql to 0008_version.sql, in the order"
    )


async def test_sql_of_another_version_is_reported(world: World) -> None:
    await world.execute(
        "create or replace function public.hikvision_sync_version() returns integer"
        " language sql as 'select 1000'"
    )
    assert_only_fault(await check(world), f"needs version {SQL_VERSION} of the SQL", "version 1000")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("angajati", "status"),
        ("angajati_biometrie", "angajat_id"),
        ("angajati_biometrie", "foto_fata_url"),
        ("dispozitive_pontaj", "ip_address"),
    ],
)
async def test_a_renamed_column_is_reported_with_the_statement_that_mends_it(
    world: World, table: str, column: str
) -> None:
    await world.execute(f"alter table {table} rename column {column} to altfel")
    words = f"alter table public.{table} rename column altfel to {column}"
    assert_only_fault(await check(world), "HR's tables cannot be read", words)
    await world.execute(f"alter table {table} rename column altfel to {column}")
    assert (await check(world)).code == 0


async def test_row_security_that_hides_rows_from_our_functions_is_reported(world: World) -> None:
    await world.execute("alter table angajati force row level security")
    assert (await check(world)).code == 0
    with psycopg.connect(world.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute("alter role project_owner nobypassrls")
        try:
            assert_only_fault(await check(world), "alter role project_owner bypassrls")
        finally:
            superuser.execute("alter role project_owner bypassrls")


@pytest.mark.parametrize(
    "harm",
    [
        "alter table angajati_biometrie add column alt_id uuid references angajati (id)",
        "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey",
        "alter table dispozitive_pontaj drop column port, add column zona text",
        "alter table dispozitive_pontaj alter column ip_address type varchar(60)",
    ],
)
async def test_what_breaks_nothing_is_no_fault(world: World, harm: str) -> None:
    await world.execute("update dispozitive_pontaj set status = 'inactiv'")
    await world.execute(harm)
    assert_only_fault(await check(world), "no row with status activ")


@pytest.mark.parametrize("name", ["webhook_url", "webhook_secret"])
async def test_a_missing_vault_secret_is_reported(world: World, name: str) -> None:
    await world.execute("delete from vault.secrets where name = %s", f"hikvision_sync_{name}")
    said = await check(world)
    assert_only_fault(said, f"database: {name}", f"hikvision_sync_{name}", "missing")
    assert any(line.startswith("✓ terminal ") for line in said.lines)


async def set_vault(world: World, name: str, value: str) -> None:
    statement = "select vault.update_secret(id, %s) from vault.secrets where name = %s"
    await world.execute(statement, value, f"hikvision_sync_{name}")


async def test_a_vault_secret_other_than_the_receivers_is_reported(world: World) -> None:
    await set_vault(world, "webhook_secret", (await command("secret")).out.strip())
    assert_only_fault(
        await check(world), "database: webhook_secret", "WEBHOOK_SECRET", "hikvision_sync_webhook"
    )


@pytest.mark.parametrize("value", ["v1,whsec_AAAA", "parola", "whsec_A A", "whsec_AAAAA"])
async def test_a_malformed_vault_secret_is_reported(world: World, value: str) -> None:
    await set_vault(world, "webhook_secret", value)
    assert_only_fault(await check(world), "database: webhook_secret")


async def test_a_webhook_url_that_leads_elsewhere_is_reported(world: World) -> None:
    await set_vault(world, "webhook_url", "https://receiver.example/webhooks/supabase/")
    assert_only_fault(await check(world), "database: webhook_url", "/webhooks/supabase")


@pytest.mark.parametrize(
    ("table", "trigger"),
    [
        ("angajati", "hikvision_sync_inserted"),
        ("angajati_biometrie", "hikvision_sync_updated"),
        ("dispozitive_pontaj", "hikvision_sync_changed"),
    ],
)
async def test_a_disabled_trigger_is_reported(world: World, table: str, trigger: str) -> None:
    await world.execute(f"alter table public.{table} disable trigger {trigger}")
    assert_only_fault(await check(world), "database: triggers", f"enable trigger {trigger}")


async def test_a_copy_of_our_tables_elsewhere_does_not_hide_a_disabled_trigger(
    world: World,
) -> None:
    """Triggers of the same names in another schema are not ours: a staging schema has its own."""
    await world.execute("create schema staging")
    await world.execute("create table staging.angajati (like public.angajati)")
    await world.execute(
        "create function staging.nothing() returns trigger language plpgsql as"
        " 'begin return null; end'"
    )
    await world.execute(
        "create trigger hikvision_sync_inserted after insert on staging.angajati"
        " for each statement execute function staging.nothing()"
    )
    await world.execute("alter table public.angajati disable trigger hikvision_sync_inserted")
    assert_only_fault(await check(world), "database: triggers")


async def test_a_company_without_an_active_terminal_is_reported(world: World) -> None:
    await world.execute("update dispozitive_pontaj set status = 'inactiv'")
    said = await check(world)
    assert_only_fault(said, "database: terminals", "dispozitive_pontaj", "activ")
    assert not any(site.terminal.sightings.calls for site in world.sites)


# Terminals


async def test_a_terminal_that_is_off_is_reported_and_the_other_is_asked(world: World) -> None:
    off, _ = world.sites
    await off.terminal.switch_off()
    said = await check(world)
    assert_only_fault(said, "terminal 127.0.0.1", "cannot be reached")
    assert len([line for line in said.well if "firmware" in line]) == 1


async def test_a_terminal_that_is_silent_is_reported(world: World) -> None:
    silent, _ = world.sites
    await silent.terminal.hang()
    said = await check(world, DEVICE_TIMEOUT_SECONDS="0.5")
    assert_only_fault(said, "terminal 127.0.0.1", "within 0.5 s")


async def test_a_wrong_password_is_reported_and_tried_once_however_often_one_checks(
    world: World,
) -> None:
    wrong, other = world.sites
    await change_row(world, wrong, "password_encrypted", WRONG)
    for _ in range(3):
        said = await check(world)
        assert_only_fault(said, "terminal 127.0.0.1", "user name or password")
    assert wrong.terminal.sightings.failed_logins == 1
    assert other.terminal.sightings.failed_logins == 0
    await change_row(world, wrong, "password_encrypted", PASSWORD)
    assert (await check(world)).code == 0
    assert wrong.terminal.sightings.failed_logins == 1


async def test_a_terminal_that_is_off_is_never_called_well_by_a_second_check(
    embedded_postgres: PostgresServer,
) -> None:
    """Right after the first check the pause is not over, but no receiver works with it."""
    async with a_world(embedded_postgres, pause_s=30.0) as world:
        await world.execute(
            "update dispozitive_pontaj set status = 'inactiv' where nume = 'depozit'"
        )
        await world.sites[0].terminal.switch_off()
        assert (await check(world)).code == 1
        said = await check(world)
        assert not any("a receiver is working with it now" in line for line in said.lines)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ip_address", "10.0.0.9/x"),
        ("ip_address", None),
        ("port", 70000),
        ("username", ""),
        ("password_encrypted", None),
    ],
)
async def test_a_row_that_cannot_be_worked_with_is_named_by_its_id_and_column(
    world: World, column: str, value: object
) -> None:
    bad, _ = world.sites
    await change_row(world, bad, column, value)
    assert_only_fault(await check(world), f"terminal {bad.id}", column)
    assert not bad.terminal.sightings.calls


async def test_several_faults_are_all_named(world: World) -> None:
    off, bad = world.sites
    await off.terminal.switch_off()
    await change_row(world, bad, "ip_address", "a b")
    await world.execute("delete from vault.secrets where name = 'hikvision_sync_webhook_url'")
    await world.execute("alter table public.angajati disable trigger hikvision_sync_updated")
    said = await check(world)
    assert said.code == 1
    assert len(said.faults) == 4
    assert said.lines[-1] == "4 problems"


# The other commands


async def test_a_printed_secret_is_one_that_the_receiver_takes_and_never_the_same_twice() -> None:
    printed = await asyncio.gather(*(command("secret") for _ in range(3)))
    for said in printed:
        assert (said.code, said.err) == (0, "")
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]+={0,2}\n", said.out)
        assert len(parse_secret(said.out.strip())) == 32
    assert len({said.out for said in printed}) == len(printed)


async def test_the_version_is_printed_with_that_of_the_sql_which_it_needs() -> None:
    said = await command("--version")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"receiver {version('hikvision-receiver')}, SQL version {SQL_VERSION}\n"


@pytest.mark.parametrize("arguments", [(), ("chek",), ("--check",), ("check", "now")])
async def test_no_command_or_an_unknown_one_is_answered_with_the_usage(
    arguments: tuple[str, ...],
) -> None:
    said = await command(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("usage: receiver")


async def test_help_names_every_command() -> None:
    said = await command("--help")
    assert said.code == 0
    for name in ("serve", "demo", "sandbox", "check", "secret"):
        assert f"\n    {name} " in said.out
