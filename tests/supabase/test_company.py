"""The company's tables as models, read through the supabase client from a real Postgres.

respx gives only the answers that a healthy Supabase never gives.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

import httpx
import postgrest._async.request_builder as postgrest_requests
import pytest
import respx

from receiver.core.errors import (
    SqlOutdated,
    SupabaseError,
    SupabaseRefused,
    SupabaseUnreachable,
    TerminalUnusable,
)
from receiver.core.models import Employee, Terminal
from receiver.sandbox.database.postgres import Database
from receiver.sandbox.supabase.server import SupabaseStandIn
from receiver.supabase import rest as supabase_rest
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.supabase.rest import connect, http_client
from tests.support.projects import Project

BUCKET = "/storage/v1/object/public/pontaj-photos/"
EMPLOYEE = {
    "id",
    "nume",
    "prenume",
    "nume_complet",
    "status",
    "employee_no",
    "foto_fata_url",
}
TERMINAL = {"id", "nume", "ip_address", "port", "username", "password_encrypted", "status"}
KEY = "sb_secret_0123456789abcdefghij"
FAKE_URL = "https://abcdefgh.supabase.co"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits 1, 2 and 4 s between its retries."""
    monkeypatch.setattr(postgrest_requests, "get_retry_delay", lambda _attempt: 0)


@asynccontextmanager
async def directory_at(url: str, key: str) -> AsyncIterator[Company]:
    async with http_client() as http:
        yield Company(await connect(url, key, http), url)


@pytest.fixture
def project(migrated_database: Database) -> Iterator[Project]:
    with Project(migrated_database) as project:
        yield project


@pytest.fixture
async def supabase(migrated_database: Database) -> AsyncIterator[SupabaseStandIn]:
    async with SupabaseStandIn(migrated_database) as supabase:
        yield supabase


@pytest.fixture
async def directory(supabase: SupabaseStandIn) -> AsyncIterator[Company]:
    async with directory_at(supabase.url, supabase.secret_key) as directory:
        yield directory


def hire(project: Project, **columns: object) -> UUID:
    """Insert an employee and, where one of its columns is given, a biometric row."""
    biometrics = {k: columns.pop(k) for k in ("employee_no", "foto_fata_url") if k in columns}
    columns = {"nume": "Popescu", "prenume": "Ion", **columns}
    id_ = insert(project, "angajati", **columns)
    if biometrics:
        insert(project, "angajati_biometrie", angajat_id=id_, **biometrics)
    return id_


def install(project: Project, **columns: object) -> UUID:
    row = {"ip_address": "10.0.0.9", "username": "admin", "password_encrypted": "x", **columns}
    return insert(project, "dispozitive_pontaj", **row)


def insert(project: Project, table: str, **columns: object) -> UUID:
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    statement = f"insert into public.{table} ({names}) values ({places}) returning id"
    [row] = project.run(statement, *columns.values())
    return UUID(str(row["id"]))


async def only(directory: Company, id_: UUID) -> Employee:
    [employee] = (await directory.employees([id_])).values()
    assert employee.id == id_
    return employee


# Names and status


@pytest.mark.parametrize(
    ("nume", "prenume", "complet", "shown"),
    [
        ("Popescu", "Ion", None, "Popescu Ion"),
        ("Popescu", "Ion", "Ion Altfel", "Popescu Ion"),
        ("Popescu", None, "Ion Popescu", "Ion Popescu"),
        (None, "Ion", "Ion Popescu", "Ion Popescu"),
        ("Popescu", "   ", "Ion Popescu", "Ion Popescu"),
        ("", "Ion", "Ion Popescu", "Ion Popescu"),
        (None, None, "Ion Popescu", "Ion Popescu"),
        ("Popescu", None, None, "Popescu"),
        (None, "Ion", " ", "Ion"),
        ("Ștefănescu-Brâncoveanu", "Ana-Mărioara", None, "Ștefănescu-Brâncoveanu Ana-Mărioara"),
        ("Țuțea", "Îlă", None, "Țuțea Îlă"),
        ("  Popescu  Vlad ", " Ion   Ana", None, "Popescu Vlad Ion Ana"),
        ("Popescu\t", "Ion\r\nAna", None, "Popescu Ion Ana"),
        ("Pop\x07escu", "Ion\u200b", None, "Pop escu Ion"),
        ("\u00a0", "Ion", "Ion\u00a0Popescu", "Ion Popescu"),
        (None, None, None, "1000"),
        ("\t", " ", "\n", "1000"),
    ],
)
async def test_a_name_is_shown_as_the_company_shows_it(  # noqa: PLR0913, PLR0917 - a table
    project: Project,
    directory: Company,
    nume: str | None,
    prenume: str | None,
    complet: str | None,
    shown: str,
) -> None:
    id_ = hire(project, nume=nume, prenume=prenume, nume_complet=complet, employee_no=1000)
    assert (await only(directory, id_)).name == shown


async def test_only_activ_to_the_letter_is_active(project: Project, directory: Company) -> None:
    words = ["activ", "suspendat", "concediu", "inactiv", "Activ", "ACTIV", " activ", "", None]
    ids = {hire(project, status=word): word for word in words}
    found = await directory.employees(list(ids))
    assert [ids[id_] for id_, employee in found.items() if employee.active] == ["activ"]


async def test_an_id_without_a_row_is_an_inactive_employee_without_a_number(
    project: Project, directory: Company
) -> None:
    there, gone = hire(project, employee_no=1000), uuid4()
    found = await directory.employees([gone, there])
    absent = found[gone]
    assert (absent.id, absent.name, absent.active) == (gone, "", False)
    assert (absent.employee_no, absent.photo_url) == (None, None)
    assert found[there].active


async def test_asking_for_no_employee_sends_no_request(
    supabase: SupabaseStandIn, directory: Company
) -> None:
    assert await directory.employees([]) == {}
    assert not supabase.requests


# Number and photo


async def test_number_and_photo_come_from_the_biometric_row(
    project: Project, directory: Company
) -> None:
    id_ = hire(project, employee_no=1007, foto_fata_url="https://x/1.jpg")
    employee = await only(directory, id_)
    assert (employee.employee_no, employee.photo_url) == ("1007", "https://x/1.jpg")


async def test_an_employee_without_a_biometric_row_has_no_number_and_no_photo(
    project: Project, directory: Company
) -> None:
    employee = await only(directory, hire(project))
    assert (employee.employee_no, employee.photo_url, employee.active) == (None, None, True)


async def test_the_lowest_number_of_several_biometric_rows_counts_in_any_order(
    project: Project, directory: Company
) -> None:
    project.run("alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_key")
    project.run("alter table angajati_biometrie disable trigger angajati_biometrie_numeroteaza")
    one = hire(project)
    for number in (1010, 999, 1002, None):
        insert(
            project,
            "angajati_biometrie",
            angajat_id=one,
            employee_no=number,
            foto_fata_url=f"{number}.jpg",
        )
    other = hire(project)
    insert(project, "angajati_biometrie", angajat_id=other, employee_no=None)
    found = await directory.employees([one, other])
    assert found[one].employee_no == "999"
    assert str(found[one].photo_url).endswith("/999.jpg")
    assert found[other].employee_no is None


@pytest.mark.parametrize(
    ("stored", "tail"),
    [
        ("ion.jpg", f"{BUCKET}ion.jpg"),
        ("/ion.jpg", f"{BUCKET}ion.jpg"),
        (" ion.jpg ", f"{BUCKET}ion.jpg"),
        ("ion popescu.jpg", f"{BUCKET}ion%20popescu.jpg"),
        ("ștefan.jpg", f"{BUCKET}%C8%99tefan.jpg"),
        ("a/b?c=1#d&e.jpg", f"{BUCKET}a/b%3Fc%3D1%23d%26e.jpg"),
        ("100%.jpg", f"{BUCKET}100%25.jpg"),
    ],
)
async def test_a_bare_file_name_lies_in_the_bucket_quoted(
    project: Project, supabase: SupabaseStandIn, directory: Company, stored: str, tail: str
) -> None:
    id_ = hire(project, foto_fata_url=stored)
    assert (await only(directory, id_)).photo_url == supabase.url + tail


@pytest.mark.parametrize(
    "url",
    [
        "https://abcd.supabase.co/storage/v1/object/public/pontaj-photos/a%20b.jpg",
        "http://10.0.0.2/x.jpg?token=1",
        "HTTPS://X/1.JPG",
    ],
)
async def test_a_full_url_is_kept_to_the_letter(
    project: Project, directory: Company, url: str
) -> None:
    assert (await only(directory, hire(project, foto_fata_url=f" {url}\n"))).photo_url == url


@pytest.mark.parametrize("blank", [None, "", "   ", "\n\t"])
async def test_a_blank_photo_counts_as_none(
    project: Project, directory: Company, blank: str | None
) -> None:
    assert (await only(directory, hire(project, foto_fata_url=blank))).photo_url is None


@pytest.mark.parametrize("stored", ["../../../../rest/v1/angajati", "a/../../b.jpg"])
async def test_a_file_name_does_not_lead_out_of_the_bucket(
    project: Project, supabase: SupabaseStandIn, directory: Company, stored: str
) -> None:
    url = (await only(directory, hire(project, foto_fata_url=stored))).photo_url
    assert url is None or httpx.URL(url).path.startswith(BUCKET)
    assert url is None or "/.." not in url.removeprefix(supabase.url)


# Batches and rights


async def test_many_ids_are_asked_for_in_batches_and_no_row_limit_cuts_an_answer(
    project: Project, supabase: SupabaseStandIn, directory: Company
) -> None:
    """A project sets its maximum of rows; PostgREST cuts an answer without saying so."""
    supabase.rest.max_rows = 5
    rows = project.run(
        "insert into angajati (nume, prenume) select 'N' || i, 'P' from generate_series(1, 1105) i"
        " returning id, nume"
    )
    names = {UUID(str(row["id"])): f"{row['nume']} P" for row in rows}
    found = await directory.employees(list(names))
    assert {id_: employee.name for id_, employee in found.items()} == names
    assert all(employee.active for employee in found.values())
    assert len(supabase.requests) == 2


async def test_everybody_and_the_active_ones_are_paged_through_in_the_order_of_their_ids(
    project: Project, supabase: SupabaseStandIn, directory: Company
) -> None:
    supabase.rest.max_rows = 5
    rows = project.run(
        "insert into angajati (status) select case when i % 3 = 0 then 'inactiv' else 'activ' end"
        " from generate_series(1, 2100) i returning id, status"
    )
    everybody = [employee async for employee in directory.everybody()]
    assert [employee.id for employee in everybody] == sorted(row["id"] for row in rows)
    active = sorted(row["id"] for row in rows if row["status"] == "activ")
    assert [employee.id for employee in everybody if employee.active] == active
    assert await directory.active_employee_ids() == active


async def test_every_active_terminal_is_found_whatever_the_row_limit(
    project: Project, supabase: SupabaseStandIn, directory: Company
) -> None:
    ids = {install(project) for _ in range(6)}
    supabase.rest.max_rows = 5
    assert {id_ for id_, _ in await directory.active_terminals()} == ids


async def test_every_question_is_a_post_which_only_the_primary_answers(
    supabase: SupabaseStandIn, directory: Company
) -> None:
    for ask in ASKS:
        with suppress(TerminalUnusable):
            await ask(directory)
    assert {method for method, _, _ in supabase.requests} == {"POST"}
    assert len(supabase.requests) == len(ASKS)


async def test_no_private_column_is_returned(project: Project) -> None:
    id_ = hire(project, cnp="1800101123456", iban="RO49AAAA", salariu=9000, employee_no=1000)
    install(project)
    [people] = project.run("select hikvision_sync_employees(%s)::text as said", [id_])
    [everybody] = project.run("select hikvision_sync_everybody(null, 10)::text as said")
    assert people == everybody
    assert set(json.loads(people["said"])[0]) == EMPLOYEE
    [terminals] = project.run("select hikvision_sync_terminals(null) as said")
    assert set(terminals["said"][0]) == TERMINAL
    for private in ("1800101123456", "RO49AAAA", "9000"):
        assert private not in people["said"]


# Terminals


@pytest.mark.parametrize(("stored", "port"), [(None, 80), (0, 80), (80, 80), (8080, 8080), (1, 1)])
async def test_a_port_of_null_or_0_is_80(
    project: Project, directory: Company, stored: int | None, port: int
) -> None:
    id_ = install(project, port=stored)
    expected = Terminal(id=id_, host="10.0.0.9", port=port, username="admin", password="x")
    assert await directory.terminal(id_) == expected
    assert await directory.active_terminals() == [(id_, expected)]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.9", " 10.0.0.9 ", "poarta-1.santier.lan", "fe80::1", "::1", "terminal", "2001:db8::9"],
)
async def test_addresses_and_host_names_are_hosts(
    project: Project, directory: Company, host: str
) -> None:
    id_ = install(project, ip_address=host)
    assert (await directory.terminal(id_)).host == host.strip()


NO_HOSTS = [
    None,
    "",
    "  ",
    "1.2.3.4/x",
    "1.2.3.4:80",
    "http://1.2.3.4",
    "a@b",
    "a b",
    "1.2.3.4 5.6.7.8",
    "a\nb",
    "a#b",
    "a?b",
    "a%2f",
    "[::1]",
    "::1]",
    "-a",
    "a_b/",
    "ț.ro",
    "x" * 254,
    "fe80::1%/x",
    "fe80::1%]@evil.example",
    "fe80::1%a b",
    "a..b",
]


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_an_address_that_is_no_host_is_named_and_not_called(
    project: Project, directory: Company, host: str | None
) -> None:
    await assert_unusable(directory, install(project, ip_address=host), "ip_address")


@pytest.mark.parametrize("port", [-1, 65536, 2147483647])
async def test_an_impossible_port_is_named(project: Project, directory: Company, port: int) -> None:
    await assert_unusable(directory, install(project, port=port), "port")


@pytest.mark.parametrize("blank", [None, "", "   "])
@pytest.mark.parametrize("column", ["username", "password_encrypted"])
async def test_a_blank_login_is_named_and_not_tried(
    project: Project, directory: Company, column: str, blank: str | None
) -> None:
    """Trying it would be a failed login, and the fifth locks the account."""
    await assert_unusable(directory, install(project, **{column: blank}), column)


async def assert_unusable(directory: Company, id_: UUID, column: str) -> None:
    with pytest.raises(TerminalUnusable, match=column):
        await directory.terminal(id_)
    [(found, fault)] = await directory.active_terminals()
    assert found == id_
    assert isinstance(fault, TerminalUnusable)
    assert column in fault.message


async def test_one_bad_row_does_not_hide_the_other_terminals(
    project: Project, directory: Company
) -> None:
    bad, good = install(project, ip_address="a b"), install(project)
    found = dict(await directory.active_terminals())
    assert isinstance(found[bad], TerminalUnusable)
    assert isinstance(found[good], Terminal)


@pytest.mark.parametrize("status", ["inactiv", "eroare", "Activ", None])
async def test_a_terminal_that_is_not_active_is_not_used(
    project: Project, directory: Company, status: str | None
) -> None:
    id_ = install(project, status=status)
    assert await directory.active_terminals() == []
    with pytest.raises(TerminalUnusable, match="active"):
        await directory.terminal(id_)


async def test_a_terminal_that_is_gone_is_unusable(directory: Company) -> None:
    with pytest.raises(TerminalUnusable, match="active"):
        await directory.terminal(uuid4())


async def test_no_password_is_in_the_repr_of_a_terminal(
    project: Project, directory: Company
) -> None:
    id_ = install(project, username="hikuser", password_encrypted="Parola-12345")
    shown = repr(await directory.terminal(id_))
    assert "Parola-12345" not in shown
    assert "hikuser" not in shown


# Keys, and a Supabase that cannot be worked with

Ask = Callable[[Company], Awaitable[object]]
ASKS: Sequence[Ask] = (
    lambda directory: directory.employees([uuid4()]),
    lambda directory: directory.terminal(uuid4()),
    lambda directory: directory.active_terminals(),
)
EVERY_ASK = pytest.mark.parametrize("ask", ASKS, ids=["employees", "terminal", "active_terminals"])


@pytest.mark.parametrize("kind", ["service_role_key", "secret_key"])
async def test_both_kinds_of_service_key_open_the_tables(
    project: Project, supabase: SupabaseStandIn, kind: str
) -> None:
    id_ = hire(project, employee_no=1000)
    async with directory_at(supabase.url, getattr(supabase, kind)) as directory:
        assert (await only(directory, id_)).employee_no == "1000"


@pytest.mark.parametrize("kind", ["service_role_key", "secret_key"])
async def test_both_kinds_of_service_key_open_the_functions(
    migrated_database: Database, kind: str
) -> None:
    async with SupabaseStandIn(migrated_database) as supabase, http_client() as http:
        client = await connect(supabase.url, getattr(supabase, kind), http)
        assert {check.name for check in await Ledger(client, "t", look_s=900).check()} >= {
            "pg_net",
            "triggers",
        }


async def test_a_wrong_key_is_refused_with_the_variable_to_put_right(
    supabase: SupabaseStandIn,
) -> None:
    async with directory_at(supabase.url, KEY) as directory:
        with pytest.raises(SupabaseRefused, match="SUPABASE_SERVICE_ROLE_KEY") as error:
            await directory.active_terminals()
    assert KEY not in error.value.message


async def test_a_legacy_key_of_another_project_is_refused_with_the_variable_to_put_right(
    supabase: SupabaseStandIn,
) -> None:
    head, _, _ = supabase.service_role_key.rpartition(".")
    key = f"{head}.AAAA"
    async with directory_at(supabase.url, key) as directory:
        with pytest.raises(SupabaseRefused, match="SUPABASE_SERVICE_ROLE_KEY") as error:
            await directory.active_terminals()
    assert key not in error.value.message


async def test_the_error_about_missing_functions_points_to_the_migrations(
    database: Database,
) -> None:
    async with SupabaseStandIn(database) as supabase, http_client() as http:
        client = await connect(supabase.url, supabase.secret_key, http)
        with pytest.raises(SupabaseRefused, match="sql/"):
            await Ledger(client, "t", look_s=900).claim(lease_s=1, limit=1)


async def test_sql_without_a_version_or_of_another_is_named_with_the_files_to_apply(
    project: Project, supabase: SupabaseStandIn
) -> None:
    async with http_client() as http:
        ledger = Ledger(await connect(supabase.url, supabase.secret_key, http), "t", look_s=900)
        await ledger.fits()
        project.run("drop function hikvision_sync_version()")
        with pytest.raises(SqlOutdated, match=r"older than that: apply all .* 0001_tables\.sql to"):
            await ledger.fits()
        project.run(
            "create function hikvision_sync_version() returns integer language sql"
            " as 'select 99999'"
        )
        with pytest.raises(SqlOutdated, match=r"version 99999: apply all .* 0001_tables\.sql to"):
            await ledger.fits()


@pytest.mark.parametrize("body", [b'"1"', b"[]", b'{"Secret": 1}', b"<html>Secret", b"1.5", b""])
async def test_an_answer_that_is_no_version_is_supabases_trouble_and_no_other_version(
    body: bytes,
) -> None:
    with respx.mock(base_url=FAKE_URL) as router:
        router.route().mock(return_value=httpx.Response(200, content=body))
        async with http_client() as http:
            ledger = Ledger(await connect(FAKE_URL, KEY, http), "t", look_s=900)
            with pytest.raises(SupabaseUnreachable) as error:
                await ledger.fits()
    assert "Secret" not in error.value.message


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("angajati", "id"),
        ("angajati", "status"),
        ("angajati_biometrie", "angajat_id"),
        ("angajati_biometrie", "employee_no"),
        ("angajati_biometrie", "foto_fata_url"),
        ("dispozitive_pontaj", "ip_address"),
    ],
)
async def test_a_missing_column_is_a_fault_in_words_and_nobody_is_a_leaver(
    project: Project, directory: Company, table: str, column: str
) -> None:
    id_, terminal_id = hire(project, employee_no=1000), install(project)
    project.run(f"alter table {table} rename column {column} to altfel")
    words = f"HR's tables cannot be read: public.{table} has no column {column}: rename it back"
    asks: list[Ask] = [lambda directory: directory.readable()]
    if table == "dispozitive_pontaj":
        asks += [lambda directory: directory.terminal(terminal_id), ASKS[2]]
    else:
        asks += [lambda directory: directory.employees([id_])]
    for ask in asks:
        with pytest.raises(SupabaseRefused, match=words) as error:
            await ask(directory)
        assert "Postgres log" not in error.value.message
    project.run(f"alter table {table} rename column altfel to {column}")
    await directory.readable()
    assert (await only(directory, id_)).active


@pytest.mark.parametrize(
    "harm",
    [
        "alter table angajati_biometrie add column alt_id uuid references angajati (id)",
        "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey",
        "alter table angajati drop column nume_complet, add column functie text",
    ],
)
async def test_other_foreign_keys_and_columns_change_nothing(
    project: Project, directory: Company, harm: str
) -> None:
    id_ = hire(project, employee_no=1000, foto_fata_url="https://x/1.jpg")
    before = await only(directory, id_)
    assert before.photo_url
    project.run(harm)
    assert await only(directory, id_) == before


async def test_tables_that_are_missing_are_refused(project: Project, directory: Company) -> None:
    project.run("drop table public.dispozitive_pontaj")
    with pytest.raises(SupabaseRefused, match=r"there is no table public\.dispozitive_pontaj"):
        await directory.active_terminals()


async def test_the_anon_key_finds_no_function_that_it_may_call(
    migrated_database: Database,
) -> None:
    """Row-level security hides every row from this key: every employee would look deleted."""
    async with SupabaseStandIn(migrated_database) as supabase, http_client() as http:
        client = await connect(supabase.url, supabase.publishable_key, http)
        with pytest.raises(SupabaseRefused, match="SUPABASE_SERVICE_ROLE_KEY"):
            await Ledger(client, "t", look_s=900).claim(lease_s=1, limit=1)


@EVERY_ASK
async def test_supabase_is_unreachable_while_it_is_off_and_works_again_afterwards(
    supabase: SupabaseStandIn, directory: Company, ask: Ask
) -> None:
    await supabase.switch_off()
    with pytest.raises(SupabaseUnreachable, match="SUPABASE_URL"):
        await ask(directory)
    await supabase.switch_on()
    assert await directory.active_terminals() == []


async def test_supabase_whose_postgres_is_gone_is_unreachable(
    supabase: SupabaseStandIn, directory: Company, migrated_database: Database
) -> None:
    migrated_database.drop()
    with pytest.raises(SupabaseUnreachable):
        await directory.active_terminals()
    assert supabase.requests


@pytest.mark.parametrize("limit", ["REQUEST_TIMEOUT_S", "TOTAL_TIMEOUT_S"])
async def test_supabase_that_never_answers_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(supabase_rest, limit, 0.2)
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with directory_at(url, KEY) as directory:
            with pytest.raises(SupabaseUnreachable, match="time"):
                await directory.active_terminals()
        await asyncio.sleep(0.05)  # for the server to see the end


async def refused_with(response: httpx.Response, ask: Ask) -> SupabaseError:
    with respx.mock(base_url=FAKE_URL) as router:
        router.route().mock(return_value=response)
        async with directory_at(FAKE_URL, KEY) as directory:
            with pytest.raises(SupabaseError) as error:
                await ask(directory)
    assert KEY not in error.value.message
    assert "Secret" not in error.value.message
    assert "<" not in error.value.message
    return error.value


HTML = "<!DOCTYPE html><html><title>Secret page</title></html>"


@EVERY_ASK
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 522, 530])
async def test_a_proxys_error_page_is_a_supabase_that_cannot_be_reached(
    ask: Ask, status: int
) -> None:
    error = await refused_with(httpx.Response(status, html=HTML), ask)
    assert type(error) is SupabaseUnreachable
    assert str(status) in error.message


@EVERY_ASK
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_without_json_is_a_refusal_and_not_worth_asking_again(
    ask: Ask, status: int
) -> None:
    error = await refused_with(httpx.Response(status, html=HTML), ask)
    assert type(error) is SupabaseRefused
    assert "SUPABASE_SERVICE_ROLE_KEY" in error.message


BROKEN = {
    "empty": b"",
    "blank": b" \n",
    "html": HTML.encode(),
    "cut": b'[{"id": "00000000-0000-0000-0000-0000000',
    "an object": b'{"Secret": 1}',
    "null": b"null",
    "a number": b"1",
    "rows that are none": b"[1, 2]",
    "not utf-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@EVERY_ASK
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_a_success_that_holds_no_rows_is_an_error_and_never_an_empty_table(
    ask: Ask, body: bytes
) -> None:
    """An empty table would make every employee a leaver, whose access is ended or erased."""
    headers = {"content-type": "application/json"}
    await refused_with(httpx.Response(200, content=body, headers=headers), ask)


@pytest.mark.parametrize("ask", [ASKS[0], ASKS[2]], ids=["employees", "active_terminals"])
@pytest.mark.parametrize("row", ["{}", '{"Secret": 1}', '{"id": "Secret", "status": "activ"}'])
async def test_rows_of_another_shape_are_an_error_of_ours(ask: Ask, row: str) -> None:
    headers = {"content-type": "application/json"}
    await refused_with(httpx.Response(200, content=f"[{row}]".encode(), headers=headers), ask)


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":500,"message":"x"}',
        b'{"code":"57014","message":"canceling statement due to statement timeout"}',
        b'{"code":"PGRST003","message":"Timed out acquiring connection from connection pool."}',
        b'{"code":"40P01","message":"deadlock detected"}',
        b"[]",
        b"null",
        b"",
    ],
)
async def test_trouble_that_passes_is_worth_asking_again(body: bytes) -> None:
    error = await refused_with(httpx.Response(500, content=body), ASKS[2])
    assert type(error) is SupabaseUnreachable


@pytest.mark.parametrize("raised", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout])
async def test_a_broken_connection_is_unreachable(raised: type[httpx.TransportError]) -> None:
    with respx.mock(base_url=FAKE_URL) as router:
        router.route().mock(side_effect=raised("Secret"))
        async with directory_at(FAKE_URL, KEY) as directory:
            with pytest.raises(SupabaseUnreachable) as error:
                await directory.active_terminals()
    assert "Secret" not in error.value.message


async def test_a_message_from_supabase_is_redacted_and_cut_short() -> None:
    said = f"Secret? no: {KEY} " + "x" * 5000
    body = {"code": "XX000", "message": said.replace("Secret", "What")}
    error = await refused_with(httpx.Response(400, json=body), ASKS[2])
    assert len(error.message) < 400
