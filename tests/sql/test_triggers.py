"""What HR's saves do inside Postgres: on the wheel's Postgres and on Debian's with pgcrypto."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from standardwebhooks import Webhook

from receiver.sandbox.database.postgres import Database
from receiver.sandbox.database.project import MIGRATIONS, apply_file, apply_migrations
from tests.support.projects import Project, wait_until_somebody_waits_for

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
URL = "http://127.0.0.1:1/webhooks/supabase"

HTTP_POST_THAT = (
    "create or replace function net.http_post(url text, body jsonb default '{{}}',"
    " params jsonb default '{{}}', headers jsonb default '{{}}',"
    " timeout_milliseconds integer default 5000)"
    " returns bigint language plpgsql as 'begin {}; return 1; end'"
)

AWKWARD = [
    "Ștefănescu-Țîrlea Ăâî",
    'O\'Neill "Nelu" \\ back',
    "👷🏽‍♂️ Muncitor 🚧",
    None,
    "",
    "x" * 100_000,
    "line\nbreak\ttab",
    '{"json": [1, null]}',
]


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    with Project(each_migrated_database) as project:
        yield project


@pytest.fixture
def signed_project(project: Project) -> Project:
    project.run("select vault.create_secret(%s, 'hikvision_sync_webhook_url')", URL)
    project.run("select vault.create_secret(%s, 'hikvision_sync_webhook_secret')", SECRET)
    return project


def hire(project: Project, **columns: Any) -> str:
    values = {"nume": "Popescu", "prenume": "Ion", **columns}
    statement = sql.SQL("insert into angajati ({}) values ({}) returning id::text").format(
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
    )
    return str(project.run(statement, *values.values())[0]["id"])


@pytest.mark.parametrize("text", AWKWARD, ids=lambda t: repr(t)[:20])
def test_the_oracle_verifies_what_an_edit_sends_byte_for_byte(
    signed_project: Project, text: str | None
) -> None:
    id_ = hire(signed_project, nume=text, cnp="1800101123456", iban="RO49AAAA", salariu=1)
    signed_project.run("update angajati set prenume = %s where id = %s", text or "alt", id_)
    [inserted, updated] = signed_project.queued()
    for request, kind in ((inserted, "INSERT"), (updated, "UPDATE")):
        verified = Webhook(SECRET).verify(request["body"], request["headers"])
        assert verified == {
            "type": kind,
            "table": "angajati",
            "schema": "public",
            "record": {"id": id_},
            "old_record": None,
        }
        assert request["url"] == URL
        assert request["timeout_milliseconds"] == 5000
    assert inserted["headers"]["webhook-id"] != updated["headers"]["webhook-id"]


def test_a_changed_byte_is_noticed_by_the_oracle(signed_project: Project) -> None:
    hire(signed_project)
    [request] = signed_project.queued()
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(request["body"].replace(b"INSERT", b"DELETE"), request["headers"])


def test_no_column_but_ids_leaves_the_database(signed_project: Project) -> None:
    private = ["Secretescu", "1800101123456", "RO49BBBB", "987654.32", "poza"]
    id_ = hire(signed_project, nume=private[0], cnp=private[1], iban=private[2], salariu=private[3])
    signed_project.run(
        "insert into angajati_biometrie (angajat_id, foto_fata_url) values (%s, 'poza.jpg')", id_
    )
    signed_project.run("update angajati_biometrie set foto_fata_url = 'poza2.jpg'")
    requests = signed_project.queued()
    assert len(requests) == 3
    for request in requests:
        body = json.loads(request["body"])
        assert set(body) == {"type", "table", "schema", "record", "old_record"}
        assert set(body["record"]) <= {"id", "angajat_id"}
        assert body["old_record"] is None
        sent = request["body"].decode() + json.dumps(request["headers"])
        assert [word for word in private if word in sent] == []


def test_biometrics_name_their_employee(signed_project: Project) -> None:
    id_ = hire(signed_project)
    row = signed_project.run(
        "insert into angajati_biometrie (angajat_id) values (%s) returning id::text", id_
    )
    body = json.loads(signed_project.queued()[-1]["body"])
    assert body["table"] == "angajati_biometrie"
    assert body["record"] == {"id": row[0]["id"], "angajat_id": id_}


@pytest.mark.parametrize(
    "statement",
    [
        "update angajati set salariu = 5, cnp = '2', iban = 'x'",
        "update angajati set nume = nume, status = status",
        "update angajati_biometrie set hikvision_employee_no = '9'",
        "update angajati_biometrie set foto_fata_url = foto_fata_url",
        "update angajati set nume = 'x' where false",
        "insert into angajati (nume) select 'x' where false",
        "update dispozitive_pontaj set nume = 'Poarta'",
    ],
)
def test_an_edit_that_does_not_matter_marks_and_sends_nothing(
    signed_project: Project, statement: str
) -> None:
    id_ = hire(signed_project)
    signed_project.run("insert into angajati_biometrie (angajat_id) values (%s)", id_)
    signed_project.run("insert into dispozitive_pontaj (ip_address) values ('10.0.0.1')")
    before = len(signed_project.queued()), signed_project.edits()
    signed_project.run(statement)
    assert (len(signed_project.queued()), signed_project.edits()) == before


@pytest.mark.parametrize(
    "statement",
    [
        "update angajati set nume = 'Nou'",
        "update angajati set prenume = null",
        "update angajati set nume_complet = 'Popescu Ion Nou'",
        "update angajati set status = 'concediu'",
        "update angajati_biometrie set employee_no = 4711",
        "update angajati_biometrie set foto_fata_url = 'nou.jpg'",
        "update angajati_biometrie set angajat_id = null",
    ],
)
def test_an_edit_that_matters_marks_its_employee_and_sends_one_webhook(
    signed_project: Project, statement: str
) -> None:
    id_ = hire(signed_project)
    signed_project.run("insert into angajati_biometrie (angajat_id) values (%s)", id_)
    sent, marked = len(signed_project.queued()), signed_project.edits()
    signed_project.run(statement)
    assert len(signed_project.queued()) == sent + 1
    assert signed_project.edits() == [*marked, id_]


def test_biometrics_moved_to_another_employee_mark_both(signed_project: Project) -> None:
    first, second = hire(signed_project), hire(signed_project)
    signed_project.run("insert into angajati_biometrie (angajat_id) values (%s)", first)
    before = signed_project.edits()
    signed_project.run("update angajati_biometrie set angajat_id = %s", second)
    assert sorted(signed_project.edits()[len(before) :]) == sorted([first, second])


def test_a_rolled_back_edit_marks_and_sends_nothing(signed_project: Project) -> None:
    with signed_project.connection.transaction(force_rollback=True):
        hire(signed_project)
    assert signed_project.edits() == []
    assert signed_project.queued() == []


def test_the_timestamp_is_that_of_the_statement_not_of_a_long_transaction(
    signed_project: Project,
) -> None:
    with signed_project.connection.transaction():
        signed_project.run("select pg_sleep(1.1)")
        began = signed_project.run("select floor(extract(epoch from now()))::bigint as at")
        hire(signed_project)
    [request] = signed_project.queued()
    assert int(request["headers"]["webhook-timestamp"]) > began[0]["at"]


@pytest.mark.parametrize(
    "breakage",
    [
        "drop schema net cascade",
        "drop schema vault cascade",
        "drop schema extensions cascade",
        "delete from vault.secrets where name = 'hikvision_sync_webhook_url'",
        "delete from vault.secrets where name = 'hikvision_sync_webhook_secret'",
        (
            "select vault.update_secret(id, 'not a secret') from vault.secrets"
            " where name = 'hikvision_sync_webhook_secret'"
        ),
        (
            "select vault.update_secret(id, 'whsec_AAA') from vault.secrets"
            " where name = 'hikvision_sync_webhook_secret'"
        ),
        (
            "select vault.update_secret(id, 'no url') from vault.secrets"
            " where name = 'hikvision_sync_webhook_url'"
        ),
        "revoke execute on all functions in schema net from public, project_owner",
        "alter table net.http_request_queue add constraint broken check (false)",
        HTTP_POST_THAT.format("assert false"),  # which OTHERS does not catch
    ],
)
def test_hr_can_save_and_the_edit_is_kept_whatever_is_broken(
    signed_project: Project, breakage: str
) -> None:
    with psycopg.connect(signed_project.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute(breakage.encode())
    warnings = signed_project.warnings()
    id_ = hire(signed_project)
    signed_project.run("insert into angajati_biometrie (angajat_id) values (%s)", id_)
    assert signed_project.edits() == [id_, id_]
    if "no url" not in breakage:  # pg_net takes any text as a URL and fails later
        assert len(warnings) == 2
        assert all("The edit is kept" in w for w in warnings)
    assert not any("c2VjcmV0" in w for w in warnings)


@contextmanager
def locked(project: Project, table: str) -> Iterator[None]:
    """Hold a table as VACUUM FULL or TRUNCATE would, until the end of the block."""
    with psycopg.connect(project.database.superuser_dsn) as other:
        other.execute(f"lock table {table} in access exclusive mode".encode())
        yield


@pytest.mark.parametrize(
    "table", ["net.http_request_queue", "vault.secrets", "hikvision_sync.posts"]
)
def test_hr_can_save_while_another_session_holds_what_a_webhook_needs(
    signed_project: Project, table: str
) -> None:
    warnings = signed_project.warnings()
    with locked(signed_project, table), signed_project.connection.transaction():
        signed_project.run("set local statement_timeout = '8s'")  # Supabase's, for HR
        signed_project.run("set local lock_timeout = '9s'")
        id_ = hire(signed_project)
        [setting] = signed_project.run("show lock_timeout")
    assert setting == {"lock_timeout": "9s"}  # HR's own setting stays
    assert signed_project.edits() == [id_]
    assert signed_project.queued() == []
    [warning] = warnings
    assert "55P03" in warning
    assert "The edit is kept" in warning
    hire(signed_project)
    assert len(signed_project.queued()) == 1


def test_a_save_whose_edit_cannot_be_written_down_is_not_kept(signed_project: Project) -> None:
    signed_project.run("set lock_timeout = '50ms'")
    with (
        locked(signed_project, "hikvision_sync.edits"),
        pytest.raises(psycopg.errors.LockNotAvailable),
    ):
        hire(signed_project)
    assert signed_project.run("select id from angajati") == []


def test_hrs_own_statement_timeout_still_ends_a_save(signed_project: Project) -> None:
    with psycopg.connect(signed_project.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute(HTTP_POST_THAT.format("perform pg_sleep(60)").encode())
    signed_project.run("set statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        hire(signed_project)
    assert signed_project.edits() == []


def test_hr_saves_through_an_api_role_that_sees_nothing_of_ours(signed_project: Project) -> None:
    with psycopg.connect(signed_project.database.superuser_dsn, autocommit=True) as connection:
        connection.execute("set role authenticated")
        connection.execute("insert into angajati (nume) values ('Prin API')")
        for ours in ("hikvision_sync.edits", "hikvision_sync.pairs", "hikvision_sync.terminals"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select * from {ours}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "select * from public.hikvision_sync_claim('me', 20, 1, 900, null, null)"
            )
    assert len(signed_project.edits()) == 1


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_only_service_role_may_call_our_functions(signed_project: Project, role: str) -> None:
    functions = signed_project.run(
        "select oid::regprocedure::text as name from pg_proc where proname like 'hikvision%%'"
        " or pronamespace = 'hikvision_sync'::regnamespace"
    )
    assert len(functions) >= 12
    for function in functions:
        may = signed_project.run(
            "select has_function_privilege(%s, %s, 'execute') as may", role, function["name"]
        )
        in_public = not str(function["name"]).startswith("hikvision_sync.")
        reachable = signed_project.run(
            "select has_schema_privilege(%s, 'hikvision_sync', 'usage') as may", role
        )
        assert not may[0]["may"], function["name"]
        assert not reachable[0]["may"]
        service = signed_project.run(
            "select has_function_privilege('service_role', %s, 'execute') as may",
            function["name"],
        )
        assert service[0]["may"] is in_public, function["name"]


def test_only_their_owner_may_execute_the_private_functions(signed_project: Project) -> None:
    rights = signed_project.run(
        "select proname, coalesce(grantee::regrole::text, 'nobody') as who"
        " from pg_proc left join aclexplode(coalesce(proacl, acldefault('f', proowner))) on true"
        " where pronamespace = 'hikvision_sync'::regnamespace"
    )
    assert "grant_to_service_role" in {row["proname"] for row in rights}
    assert {row["who"] for row in rights} == {"project_owner"}


@pytest.mark.parametrize(
    "file", sorted(p.name for p in MIGRATIONS.glob("0*.sql") if p.name != "0001_tables.sql")
)
def test_every_file_that_makes_functions_takes_back_what_supabase_grants(
    project: Project, file: str
) -> None:
    project.run("create function hikvision_sync_late() returns int language sql return 1")
    project.run("create function hikvision_sync.late() returns int language sql return 1")
    may = (
        "select role, has_function_privilege(role, 'hikvision_sync_late()', 'execute') as it,"
        " has_function_privilege(role, 'hikvision_sync.late()', 'execute') as the_private_one"
        " from unnest('{anon,authenticated,service_role}'::text[]) as role order by 1"
    )
    assert {row["it"] for row in project.run(may)} == {True}
    apply_file(project.database.owner_dsn, MIGRATIONS / file)
    assert project.run(may) == [
        {"role": "anon", "it": False, "the_private_one": False},
        {"role": "authenticated", "it": False, "the_private_one": False},
        {"role": "service_role", "it": True, "the_private_one": False},
    ]


def test_every_definer_function_has_an_empty_search_path(signed_project: Project) -> None:
    rows = signed_project.run(
        "select proname, proconfig from pg_proc where proname like 'hikvision%%'"
        " or pronamespace = 'hikvision_sync'::regnamespace"
    )
    assert rows
    assert [r["proname"] for r in rows if 'search_path=""' not in r["proconfig"]] == []


def test_importing_5000_employees_with_20_terminals_costs_little_and_loses_none(
    signed_project: Project, record_property: Any
) -> None:
    """The benchmark prints the figure; this shows only that the set is handled as a set."""
    signed_project.run(
        "insert into dispozitive_pontaj (ip_address) select '10.0.0.' || n"
        " from generate_series(1, 20) n"
    )
    began = time.perf_counter()
    signed_project.run(
        "insert into angajati (nume) select 'n' || n from generate_series(1, 5000) n"
    )
    record_property("import_s", time.perf_counter() - began)
    assert len(set(signed_project.edits())) == 5000
    assert len(signed_project.queued()) == 5000


def test_the_migrations_may_run_twice_and_keep_what_is_waiting(signed_project: Project) -> None:
    id_ = hire(signed_project)
    apply_migrations(signed_project.database)
    assert signed_project.edits() == [id_]
    hire(signed_project)
    assert len(signed_project.queued()) == 2


SAVES = {
    "angajati": "update angajati set nume = 'nou'",
    "angajati_biometrie": "update angajati_biometrie set foto_fata_url = 'nou.jpg'",
    "dispozitive_pontaj": "update dispozitive_pontaj set ip_address = '10.0.0.2'",
}
LOCKING = ["0001_tables.sql", "0003_triggers.sql", "uninstall.sql"]


@pytest.fixture
def staffed_project(project: Project) -> Project:
    """One employee, with biometrics, and one terminal, all of whose edits were taken."""
    project.run("insert into angajati_biometrie (angajat_id) values (%s)", hire(project))
    project.run("insert into dispozitive_pontaj (ip_address) values ('10.0.0.1')")
    project.run("delete from hikvision_sync.edits")
    return project


def apply_until_it_need_not_wait(database: Database, file: str) -> None:
    """Do what the README says: run it again when it gave up."""
    for _ in range(20):
        try:
            return apply_file(database.owner_dsn, MIGRATIONS / file)
        except psycopg.errors.LockNotAvailable:
            continue
    pytest.fail("it always gave up")


@pytest.mark.parametrize("file", LOCKING)
@pytest.mark.parametrize(
    "order",
    [
        ["angajati_biometrie", "angajati"],
        ["dispozitive_pontaj", "angajati_biometrie", "angajati"],
    ],
    ids=len,
)
def test_a_migration_never_deadlocks_with_a_save_whatever_the_order_of_its_tables(
    staffed_project: Project, file: str, order: list[str]
) -> None:
    hr = staffed_project
    with ThreadPoolExecutor(1) as thread:
        with hr.connection.transaction():
            hr.run(SAVES[order[0]])
            applied = thread.submit(apply_until_it_need_not_wait, hr.database, file)
            wait_until_somebody_waits_for(hr)
            for table in order[1:]:
                hr.run(SAVES[table])
        applied.result(30)
    assert hr.run("select nume, foto_fata_url from angajati, angajati_biometrie") == [
        {"nume": "nou", "foto_fata_url": "nou.jpg"}
    ]
    if file != "uninstall.sql":
        assert len(hr.edits()) == 2
    hire(hr)


@pytest.mark.parametrize("file", LOCKING)
def test_a_migration_gives_up_rather_than_keep_hr_waiting_behind_it(
    staffed_project: Project, file: str
) -> None:
    """It waits for a long transaction of one HR session, and the saves of all others for it."""
    hr = staffed_project
    with ThreadPoolExecutor(1) as thread, Project(hr.database) as another:
        another.run("set statement_timeout = '8s'")  # Supabase's, for HR
        with hr.connection.transaction():
            hr.run(SAVES["angajati_biometrie"])
            applied = thread.submit(apply_file, hr.database.owner_dsn, MIGRATIONS / file)
            wait_until_somebody_waits_for(hr)
            another.run("insert into angajati_biometrie (foto_fata_url) values ('alta.jpg')")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                applied.result(30)
    apply_file(hr.database.owner_dsn, MIGRATIONS / file)


def test_the_other_migrations_wait_for_no_save(staffed_project: Project) -> None:
    hr = staffed_project
    others = {p.name for p in MIGRATIONS.glob("*.sql")} - set(LOCKING)
    assert others
    with hr.connection.transaction():
        for save in SAVES.values():
            hr.run(save)
        for file in others:
            apply_file(f"{hr.database.owner_dsn} options='-c lock_timeout=5s'", MIGRATIONS / file)


def test_without_pgcrypto_the_triggers_say_what_to_enable(each_database: Database) -> None:
    with psycopg.connect(each_database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute("alter schema extensions rename to elsewhere")
    with pytest.raises(psycopg.errors.RaiseException, match="enable it there"):
        apply_migrations(each_database)


def test_the_check_says_in_words_what_is_missing(project: Project) -> None:
    faults = {r["name"]: r["fault"] for r in project.run("select * from hikvision_sync_check()")}
    assert "vault.create_secret" in str(faults["webhook_url"])
    assert "receiver secret" in str(faults["webhook_secret"])
    assert "no row with status activ" in str(faults["terminals"])
    assert faults["pg_net"] is None
    assert faults["pgcrypto"] is None
    assert faults["triggers"] is None
    project.run("alter table angajati disable trigger hikvision_sync_updated")
    faults = {r["name"]: r["fault"] for r in project.run("select * from hikvision_sync_check()")}
    mend = "alter table public.angajati enable trigger hikvision_sync_updated"
    assert mend in str(faults["triggers"])


def test_a_deleted_employee_is_written_down_and_sent_as_a_delete(signed_project: Project) -> None:
    id_ = hire(signed_project)
    [row] = signed_project.run(
        "insert into angajati_biometrie (angajat_id) values (%s) returning id::text", id_
    )
    before = len(signed_project.queued())
    signed_project.run("delete from angajati where id = %s", id_)
    assert set(signed_project.edits()) == {id_}
    bodies = [json.loads(request["body"]) for request in signed_project.queued()[before:]]
    assert all(b["type"] == "DELETE" and b["record"] is None for b in bodies)
    assert {b["table"]: b["old_record"] for b in bodies} == {
        "angajati": {"id": id_},
        "angajati_biometrie": {"id": row["id"], "angajat_id": id_},
    }
