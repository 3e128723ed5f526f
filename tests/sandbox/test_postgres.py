"""The stand-in for a Supabase project's database, on both Postgres servers."""

import hashlib
import hmac
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from receiver.sandbox.database.postgres import Database, PostgresCommandError, PostgresServer
from receiver.sandbox.database.project import (
    COMPANY_SQL,
    SUPABASE_SQL,
    apply_file,
    apply_migrations,
)


def as_role(database: Database, role: str) -> "psycopg.Connection[tuple[object, ...]]":
    """Connect the way the API does: the authenticator becomes the role."""
    connection = psycopg.connect(database.dsn("authenticator"), autocommit=True)
    connection.execute(f"set role {role}".encode())
    return connection


def test_a_server_keeps_its_data_over_stop_and_start_and_is_deleted_at_the_end() -> None:
    with PostgresServer.embedded() as server:
        database = server.create_database("kept")
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            connection.execute("create table t as select 7 as v")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(database.superuser_dsn)
        server.start()
        with psycopg.connect(database.superuser_dsn) as connection:
            assert connection.execute("select v from t").fetchone() == (7,)
            row = connection.execute("show unix_socket_directories").fetchone()
            assert row is not None
            assert connection.execute("show listen_addresses").fetchone() == ("",)
        assert Path(row[0]).exists()
    assert not Path(row[0]).parent.exists()


def test_committed_rows_are_there_after_a_stop_that_did_not_ask() -> None:
    with PostgresServer.embedded() as server:
        database = server.create_database("kept")
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            connection.execute("create table t (v int)")
            for n in range(200):
                connection.execute("insert into t values (%s)", (n,))
            server.stop("immediate")
        server.start()
        with psycopg.connect(database.superuser_dsn) as connection:
            assert connection.execute("select count(*) from t").fetchone() == (200,)


def test_a_directory_without_binaries_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(PostgresCommandError):
        PostgresServer.from_binaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_sql_of_supabase_and_of_the_company_can_be_applied_twice(
    each_database: Database,
) -> None:
    apply_file(each_database.superuser_dsn, SUPABASE_SQL)
    apply_file(each_database.owner_dsn, COMPANY_SQL)


def test_migrations_are_applied_by_the_owner_in_the_order_of_their_names(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "0002_then.sql").write_text("begin; insert into mine.t values (current_user); end;")
    (tmp_path / "0001_first.sql").write_text(
        "create schema mine; create table mine.t (who text); -- 100%\n"
    )
    (tmp_path / "uninstall.sql").write_text("drop schema mine cascade")
    applied = apply_migrations(database, tmp_path)
    assert [path.name for path in applied] == ["0001_first.sql", "0002_then.sql"]
    with psycopg.connect(database.superuser_dsn) as connection:
        assert connection.execute("select who from mine.t").fetchall() == [("project_owner",)]


def test_a_migration_that_fails_says_which_file_it_was(database: Database, tmp_path: Path) -> None:
    (tmp_path / "0001_wrong.sql").write_text("select * from nowhere")
    with pytest.raises(errors.UndefinedTable) as caught:
        apply_migrations(database, tmp_path)
    assert "while running 0001_wrong.sql" in caught.value.__notes__


def test_the_owner_is_no_superuser_and_owns_only_what_is_its_own(each_database: Database) -> None:
    with psycopg.connect(each_database.owner_dsn, autocommit=True) as owner:
        assert owner.execute(
            "select rolsuper from pg_roles where rolname = current_user"
        ).fetchone() == (False,)
        owner.execute("create schema ours")
        owner.execute("create table public.ours (id int)")
        for forbidden in (
            "create table extensions.t (id int)",
            "create table vault.t (id int)",
            "create table net.t (id int)",
            "insert into vault.secrets (secret) values ('s')",
            "update vault.secrets set secret = 's'",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                owner.execute(forbidden.encode())
        # Everyone may read and write pg_net's queue, and the owner cannot change that.
        owner.execute("revoke all on net.http_request_queue from public")
    with as_role(each_database, "anon") as anon:
        anon.execute("select * from net.http_request_queue")


def test_default_rights_open_objects_of_the_owner_in_public_to_every_api_role(
    each_database: Database,
) -> None:
    with psycopg.connect(each_database.owner_dsn, autocommit=True) as owner:
        owner.execute("create function public.f() returns int language sql as 'select 1'")
        # The trap: PUBLIC is not where these rights come from.
        owner.execute("revoke all on function public.f() from public")
    for role in ("anon", "authenticated", "service_role"):
        with as_role(each_database, role) as connection:
            assert connection.execute("select public.f()").fetchone() == (1,)


def test_policies_let_hr_in_and_keep_anonymous_callers_out(each_database: Database) -> None:
    with as_role(each_database, "authenticated") as hr:
        hr.execute("insert into public.angajati (nume) values ('Țîrlea')")
        assert hr.execute("select nume from public.angajati").fetchall() == [("Țîrlea",)]
    with as_role(each_database, "service_role") as service:
        assert service.execute("select nume from public.angajati").fetchall() == [("Țîrlea",)]
    with as_role(each_database, "anon") as anon:
        assert anon.execute("select * from public.angajati").fetchall() == []
        with pytest.raises(errors.InsufficientPrivilege):
            anon.execute("insert into public.angajati (nume) values ('x')")


def test_employee_numbers_are_given_from_1000_up_unless_the_row_has_one(
    each_database: Database,
) -> None:
    with psycopg.connect(each_database.owner_dsn, autocommit=True) as owner:
        insert = "insert into public.angajati_biometrie (employee_no) values (%s)"
        for number in (None, 7, None):
            owner.execute(insert, (number,))
        numbers = owner.execute(
            "select employee_no from public.angajati_biometrie order by 1"
        ).fetchall()
    assert numbers == [(7,), (1000,), (1001,)]


@pytest.mark.parametrize("key_length", [0, 1, 31, 32, 63, 64, 65, 200])
def test_hmac_is_that_of_rfc_2104(each_database: Database, key_length: int) -> None:
    key = bytes(range(256))[:key_length]
    data = 'id.1700000000.{"nume": "Șerban"}'.encode()
    with psycopg.connect(each_database.owner_dsn) as owner:
        row = owner.execute(
            "select extensions.hmac(%s::bytea, %s::bytea, 'sha256')", (data, key)
        ).fetchone()
    assert row == (hmac.digest(key, data, hashlib.sha256),)


def test_a_secret_goes_into_the_vault_by_its_function_and_comes_out_by_the_view(
    each_database: Database,
) -> None:
    with psycopg.connect(each_database.owner_dsn) as owner:
        row = owner.execute("select vault.create_secret('whsec_x', 'hook', 'why')").fetchone()
        assert row is not None
        owner.execute("select vault.update_secret(%s, new_secret => 'whsec_y')", row)
        assert owner.execute(
            "select name, description, decrypted_secret from vault.decrypted_secrets"
        ).fetchall() == [("hook", "why", "whsec_y")]
        with pytest.raises(errors.UniqueViolation):
            owner.execute("select vault.create_secret('again', 'hook')")
    with as_role(each_database, "authenticated") as hr, pytest.raises(errors.InsufficientPrivilege):
        hr.execute("select * from vault.decrypted_secrets")


def test_http_post_queues_the_bytes_of_the_jsonb_and_the_encoded_parameters(
    each_database: Database,
) -> None:
    with psycopg.connect(each_database.owner_dsn) as owner:
        owner.execute(
            """select net.http_post(
                url := 'http://h/p?a=1', body := '{"z":1, "a":"ș"}',
                params := '{"q": "ă b&c"}', headers := '{"X-One": "1"}',
                timeout_milliseconds := 900)"""
        )
        row = owner.execute(
            "select method, url, headers, body, timeout_milliseconds from net.http_request_queue"
        ).fetchone()
    assert row == (
        "POST",
        "http://h/p?a=1&q=%C4%83%20b%26c",
        {"X-One": "1", "Content-Type": "application/json"},
        '{"a": "ș", "z": 1}'.encode(),
        900,
    )


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", ""])
def test_http_post_raises_on_any_other_content_type(
    each_database: Database, content_type: str
) -> None:
    with (
        psycopg.connect(each_database.owner_dsn) as owner,
        pytest.raises(errors.RaiseException, match="Content-Type header must be"),
    ):
        owner.execute(
            "select net.http_post('h', headers := jsonb_build_object('content-type', %s::text))",
            (content_type,),
        )
