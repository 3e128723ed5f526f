"""What HR may do to its tables: reads go on or say what to mend, and no save ever fails."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from receiver.sandbox.database.postgres import Database
from receiver.sandbox.database.project import MIGRATIONS, apply_file, apply_migrations
from tests.support.projects import Project, Row

FUNCTIONS = {
    "employees": "select hikvision_sync_employees(array(select id from angajati)) as said",
    "everybody": "select hikvision_sync_everybody(null, 100) as said",
    "active": "select hikvision_sync_active(null, 100) as said",
    "terminals": "select hikvision_sync_terminals(null) as said",
}
OF_EMPLOYEES = ("employees", "everybody")
TABLES = ("angajati", "angajati_biometrie", "dispozitive_pontaj")


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    """One employee with a number and a photo, one terminal, and a pair of them that is done."""
    with Project(each_migrated_database) as project:
        project.run(
            "insert into dispozitive_pontaj (nume, ip_address, username, password_encrypted)"
            " values ('Poarta', '10.0.0.1', 'admin', 'x')"
        )
        project.run("insert into angajati (nume, prenume) values ('Popescu', 'Ion')")
        project.run(
            "insert into angajati_biometrie (angajat_id, foto_fata_url) select id, 'ion.jpg'"
            " from angajati"
        )
        [pair] = project.run("select * from hikvision_sync_claim('a', 60, 10, 900, null, null)")
        project.run(
            "select hikvision_sync_record(%s, %s, 60, jsonb_build_array(jsonb_build_object("
            "'employee_id', %s::uuid, 'version', %s::bigint, 'status', 'success', 'step', 'done',"
            " 'message', '', 'employee_no', '1000', 'photo', 'x')))",
            *(pair[name] for name in ("terminal_id", "fence", "employee_id", "version")),
        )
        project.run("select hikvision_sync_release(%s, %s, 0, 0, null, null, false)",
                    pair["terminal_id"], pair["fence"])  # fmt: skip
        assert project.edits() == []
        yield project


def said(project: Project, function: str) -> Any:
    [row] = project.run(FUNCTIONS[function])
    return row["said"]


def fault(project: Project, function: str) -> str:
    with pytest.raises(psycopg.Error) as error:
        said(project, function)
    assert error.value.sqlstate == "HR001", error.value
    return str(error.value.diag.message_primary)


def employee_id(project: Project) -> str:
    [row] = project.run("select employee_id::text from hikvision_sync.pairs")
    return str(row["employee_id"])


# Reads that go on


@pytest.mark.parametrize(
    "harm",
    [
        "alter table angajati_biometrie add column verificat_de uuid references angajati (id)",
        "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey",
        "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_key",
        "alter table angajati add column parola text default 'secret'",
        "alter table angajati drop column nume_complet",
        "alter table angajati drop column cnp cascade",
        "alter table angajati_biometrie drop column hikvision_employee_no",
        "alter table angajati_biometrie drop column id",
        "alter table angajati_biometrie alter column employee_no type bigint",
        "alter table angajati_biometrie alter column employee_no type text",
        "alter table angajati alter column status type varchar(20)",
        "alter table dispozitive_pontaj alter column ip_address type varchar(60)",
        "alter table dispozitive_pontaj alter column ip_address type inet using ip_address::inet",
        "alter table dispozitive_pontaj alter column port type text",
        "alter table dispozitive_pontaj drop column port",
        "alter table dispozitive_pontaj drop column nume",
    ],
)
def test_reads_and_saves_go_on_as_if_nothing_was(project: Project, harm: str) -> None:
    before: dict[str, list[Row]] = {name: said(project, name) for name in FUNCTIONS}
    [employee] = before["employees"]
    [terminal] = before["terminals"]
    assert (employee["employee_no"], employee["foto_fata_url"]) == ("1000", "ion.jpg")
    assert (terminal["ip_address"], terminal["nume"]) == ("10.0.0.1", "Poarta")
    project.run(harm)
    if harm.endswith("drop column nume"):
        terminal["nume"] = None
    assert {name: said(project, name) for name in FUNCTIONS} == before
    warnings = project.warnings()
    project.run("update angajati set nume = 'Ionescu'")
    project.run("update angajati_biometrie set foto_fata_url = 'nou.jpg'")
    assert set(project.edits()) == {employee_id(project)}
    assert [w for w in warnings if "webhook" not in w] == []
    [pair] = project.run("select * from hikvision_sync_claim('a', 60, 10, 900, null, null)")
    assert str(pair["employee_id"]) == employee_id(project)
    assert project.run("select * from hikvision_sync_status()")[0]["host"] == "10.0.0.1"


def test_a_name_is_read_from_what_is_left_of_it(project: Project) -> None:
    project.run("update angajati set nume_complet = 'Popescu Ion'")
    project.run("alter table angajati drop column nume, drop column prenume")
    [employee] = said(project, "employees")
    assert (employee["nume"], employee["prenume"]) == (None, None)
    assert employee["nume_complet"] == "Popescu Ion"


# Reads that say what to mend, and never that everybody left


COLUMNS = [
    ("angajati", "id", OF_EMPLOYEES),
    ("angajati", "status", (*OF_EMPLOYEES, "active")),
    ("angajati_biometrie", "angajat_id", OF_EMPLOYEES),
    ("angajati_biometrie", "employee_no", OF_EMPLOYEES),
    ("angajati_biometrie", "foto_fata_url", OF_EMPLOYEES),
    ("dispozitive_pontaj", "id", ("terminals",)),
    ("dispozitive_pontaj", "ip_address", ("terminals",)),
    ("dispozitive_pontaj", "username", ("terminals",)),
    ("dispozitive_pontaj", "password_encrypted", ("terminals",)),
    ("dispozitive_pontaj", "status", ("terminals",)),
]


@pytest.mark.parametrize("how", ["rename", "drop"])
@pytest.mark.parametrize(
    ("table", "column", "functions"), COLUMNS, ids=[f"{t}.{c}" for t, c, _ in COLUMNS]
)
def test_a_column_that_is_gone_is_named_with_the_statement_that_mends_it(
    project: Project, table: str, column: str, functions: tuple[str, ...], how: str
) -> None:
    before = {name: said(project, name) for name in functions if name != "employees"}
    if how == "rename":
        project.run(f"alter table {table} rename column {column} to altfel")
    else:
        project.run(f"alter table {table} drop column {column} cascade")
    for name in functions:
        if name != "employees" or column != "id":  # the test itself could not name the ids
            words = fault(project, name)
            now = "altfel" if how == "rename" else "<its new name>"
            assert f"public.{table} has no column {column}" in words
            assert f"alter table public.{table} rename column {now} to {column}" in words
            if how == "drop":
                assert f"alter table public.{table} add column {column} " in words
    if how == "rename":
        project.run(f"alter table {table} rename column altfel to {column}")
        assert {name: said(project, name) for name in before} == before


def test_names_that_are_gone_altogether_are_a_fault(project: Project) -> None:
    project.run("alter table angajati drop column nume_complet, drop column prenume")
    assert "no column prenume" in fault(project, "employees")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_gone_or_renamed_is_named(project: Project, table: str) -> None:
    project.run(f"alter table {table} rename to altfel")
    name = "terminals" if table == "dispozitive_pontaj" else "everybody"
    words = fault(project, name)
    assert f"there is no table public.{table}" in words
    assert f"rename to {table}" in words
    project.run(f"alter table altfel rename to {table}")
    assert len(said(project, name)) == 1


TYPES = [
    ("angajati", "id", "text", "uuid"),
    ("angajati", "status", "boolean using true", "text"),
    ("angajati", "status", "character(10)", "text"),
    ("angajati_biometrie", "angajat_id", "text", "uuid"),
    ("angajati_biometrie", "employee_no", "numeric(10,2)", "integer or text"),
    ("angajati_biometrie", "foto_fata_url", "bytea using null", "text"),
    ("dispozitive_pontaj", "id", "text", "uuid"),
    ("dispozitive_pontaj", "status", "integer using 1", "text"),
]


def alter(project: Project, table: str, column: str, type_: str) -> None:
    project.run("alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey")
    project.run(f"alter table {table} alter column {column} drop default")
    project.run(f"alter table {table} alter column {column} type {type_}")


@pytest.mark.parametrize(("table", "column", "type_", "needed"), TYPES)
def test_a_type_that_cannot_be_worked_with_is_named_and_saves_go_on(
    project: Project, table: str, column: str, type_: str, needed: str
) -> None:
    alter(project, table, column, type_)
    words = fault(project, "terminals" if table == "dispozitive_pontaj" else "everybody")
    found = "character(10)" if type_ == "character(10)" else type_.split(" ", maxsplit=1)[0]
    assert f"public.{table}.{column} is {found} and must be {needed}" in words
    assert f"alter table public.{table} alter column {column} type " in words
    save_everything(project)


def save_everything(project: Project) -> None:
    """Save as HR does, in each table and in each way."""
    for table in TABLES:
        project.run(f"update {table} set updated_at = now()")
        project.run(f"create temporary table saved as select * from {table}")
        project.run(f"truncate {table} cascade")
        project.run(f"insert into {table} select * from saved")
        project.run(f"delete from {table}")
        project.run(f"insert into {table} select * from saved")
        project.run("drop table saved")


@pytest.mark.parametrize("table", TABLES)
def test_row_security_that_would_hide_rows_is_an_error_and_never_an_empty_table(
    project: Project, table: str
) -> None:
    name = "terminals" if table == "dispozitive_pontaj" else "everybody"
    with psycopg.connect(project.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute(f"alter table {table} force row level security".encode())
        assert len(said(project, name)) == 1  # its owner bypasses that
        superuser.execute("alter role project_owner nobypassrls")
        try:
            words = fault(project, name)
            assert f"public.{table}" in words
            assert "alter role project_owner bypassrls" in words
            assert f"alter table public.{table} no force row level security" in words
            for ledger in (
                "select * from hikvision_sync_claim('a', 60, 10, 900, null, null)",
                "select * from hikvision_sync_status()",
                "select * from hikvision_sync_check()",
            ):
                if table == "dispozitive_pontaj":
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        project.run(ledger)
            if table == "angajati":
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    project.run("select * from hikvision_sync_want(null)")
            for verification in (
                "select hikvision_sync.passing()",
                "select hikvision_sync_photos_due(10, 60)",
                "select hikvision_sync.forget_rows()",
                (
                    "select hikvision_sync.end_verification(terminal_id, now(), '{}')"
                    " from hikvision_sync.terminals"
                ),
            ):
                if table == "angajati":  # whoever is hidden must not become a leaver or forgotten
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        project.run(verification)
            project.run(f"alter table {table} no force row level security")
            assert len(said(project, name)) == 1
        finally:
            superuser.execute("alter role project_owner bypassrls")


def test_a_table_that_may_not_be_read_is_named(project: Project) -> None:
    with psycopg.connect(project.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute("alter table dispozitive_pontaj owner to postgres")
        superuser.execute(
            "revoke all on dispozitive_pontaj from project_owner, service_role, authenticated, anon"
        )
    assert "grant select on public.dispozitive_pontaj to project_owner" in fault(
        project, "terminals"
    )


# Saves that go on


RENAMES = [
    ("angajati", "nume"),
    ("angajati", "prenume"),
    ("angajati", "status"),
    ("angajati", "id"),
    ("angajati_biometrie", "angajat_id"),
    ("angajati_biometrie", "employee_no"),
    ("angajati_biometrie", "foto_fata_url"),
]


@pytest.mark.parametrize(
    ("table", "column", "how"),
    [
        (table, column, how)
        for table, column in RENAMES
        for how in ("rename", "drop")
        if how == "rename" or column not in {"nume", "prenume"}  # nume_complet says it too
    ],
)
def test_a_save_after_a_column_is_gone_succeeds_and_is_written_down_in_doubt(
    project: Project, table: str, column: str, how: str
) -> None:
    project.run("drop trigger angajati_biometrie_numeroteaza on angajati_biometrie")  # HR's own
    if how == "rename":
        project.run(f"alter table {table} rename column {column} to altfel")
    else:
        project.run(f"alter table {table} drop column {column} cascade")
    warnings = project.warnings()
    project.run(f"update {table} set updated_at = now()")
    assert project.edits() == [employee_id(project)]
    [warning] = [w for w in warnings if "webhook" not in w]
    now = "altfel" if how == "rename" else "<its new name>"
    assert f"public.{table} has no column {column} any more" in warning
    assert f"alter table public.{table} rename column {now} to {column}" in warning
    project.run(f"delete from {table}")
    assert set(project.edits()) == {employee_id(project)}
    project.run(f"insert into {table} (updated_at) values (now())")


def test_repeated_doubt_does_not_write_down_everybody_again_and_again(project: Project) -> None:
    project.run("alter table angajati_biometrie rename column angajat_id to al_cui")
    for _ in range(3):
        project.run("update angajati_biometrie set foto_fata_url = foto_fata_url || 'x'")
    assert project.edits() == [employee_id(project)]


def test_an_employee_hired_while_ids_are_text_is_written_down(project: Project) -> None:
    alter(project, "angajati", "id", "text")
    project.run("insert into angajati (id) values ('a')")
    assert project.edits() == [employee_id(project)]  # it could be anybody
    new = "11111111-1111-4111-8111-111111111111"
    project.run("insert into angajati (id) values (%s), ('b')", new)
    assert set(project.edits()) == {employee_id(project), new}


@pytest.mark.parametrize("table", ["angajati", "angajati_biometrie"])
def test_a_truncate_writes_down_everybody_of_whom_the_ledger_has_a_pair(
    project: Project, table: str
) -> None:
    project.run("select vault.create_secret('http://x/webhooks/supabase',"
                " 'hikvision_sync_webhook_url')")  # fmt: skip
    project.run("select vault.create_secret('whsec_c2VjcmV0', 'hikvision_sync_webhook_secret')")
    project.run(f"truncate {table} cascade")
    assert set(project.edits()) == {employee_id(project)}
    assert len(project.queued()) == (2 if table == "angajati" else 1)
    [pair] = project.run("select * from hikvision_sync_claim('a', 60, 10, 900, null, null)")
    assert str(pair["employee_id"]) == employee_id(project)


@pytest.mark.parametrize("number", ["a(b", ""])
def test_a_number_that_is_a_text_does_not_break_the_check(project: Project, number: str) -> None:
    project.run("alter table angajati_biometrie alter column employee_no type text")
    project.run("update angajati_biometrie set employee_no = %s", number)
    project.run("update hikvision_sync.pairs set status = 'skipped', employee_no = null,"
                " message = 'a(b is no number'")  # fmt: skip
    [row] = project.run("select state from hikvision_sync.terminal_states()")
    words = "a(b" if number == "" else "…"
    assert row["state"]["refused_for"] == f"{words} is no number"


def test_a_truncate_of_what_no_terminal_knows_writes_down_nothing(
    migrated_database: Database,
) -> None:
    with Project(migrated_database) as project:
        project.run("insert into angajati (nume) values ('x')")
        before = project.edits()
        project.run("truncate angajati cascade")
        assert project.edits() == before


@pytest.mark.parametrize(
    "harm",
    [
        "alter column ip_address type varchar(60)",
        "alter column ip_address type inet using ip_address::inet",
        "alter column port type bigint",
        "alter column status type varchar(20)",
        "drop column port",
        "drop column username",
        "rename column ip_address to adresa",
        "rename column password_encrypted to parola",
        "rename column status to stare",
        "rename column id to cod",
    ],
)
def test_the_table_of_terminals_can_be_altered_and_saved_in_any_way(
    project: Project, harm: str
) -> None:
    project.run(f"alter table dispozitive_pontaj {harm}")
    project.run("update dispozitive_pontaj set nume = 'alt nume'")
    project.run("insert into dispozitive_pontaj (nume) values ('nou')")
    project.run("delete from dispozitive_pontaj")


TOUCHED = "select changed_at is not null as touched from hikvision_sync.terminals"


def test_a_terminals_save_counts_as_a_change_only_where_something_that_counts_changed(
    project: Project,
) -> None:
    def touched_by(statement: str) -> bool:
        project.run("update hikvision_sync.terminals set changed_at = null")
        project.run(statement)
        [row] = project.run(TOUCHED)
        return bool(row["touched"])

    update = "update dispozitive_pontaj set "
    assert not touched_by(update + "nume = 'y', ip_address = ip_address, updated_at = now()")
    assert touched_by(update + "port = 8080")
    assert touched_by(update + "password_encrypted = 'y'")
    project.run("alter table dispozitive_pontaj drop column port")
    assert not touched_by(update + "nume = 'z'")  # a missing port is 80
    project.run("alter table dispozitive_pontaj rename column username to utilizator")
    assert touched_by(update + "nume = 'w'")  # it may be the login that changed
    assert project.fills() == []


def test_a_terminal_whose_status_is_gone_is_filled_in_doubt(project: Project) -> None:
    project.run("alter table dispozitive_pontaj rename column status to stare")
    project.run("update dispozitive_pontaj set stare = 'activ'")
    [row] = project.run("select terminal_id::text as id from hikvision_sync.terminals")
    assert project.fills() == [row["id"]]


# What is refused before anything is installed


def installed(project: Project) -> int:
    [row] = project.run(
        "select (select count(*) from pg_namespace where nspname = 'hikvision_sync')"
        " + (select count(*) from pg_proc where proname like 'hikvision%%')"
        " + (select count(*) from pg_trigger where tgname like 'hikvision%%') as n"
    )
    return int(row["n"])


@pytest.mark.parametrize(("table", "column", "type_", "needed"), TYPES)
def test_tables_with_other_types_are_refused_and_nothing_is_installed(
    database: Database, table: str, column: str, type_: str, needed: str
) -> None:
    with Project(database) as project:
        alter(project, table, column, type_)
        words = f"public.{table}.{column} is .* and must be {needed}: alter table .*run this file"
        with pytest.raises(psycopg.Error, match=words):
            apply_migrations(database)
        assert installed(project) == 0


@pytest.mark.parametrize("table", TABLES)
def test_missing_tables_and_columns_are_refused_and_nothing_is_installed(
    database: Database, table: str
) -> None:
    with Project(database) as project:
        project.run(f"drop table {table} cascade")
        with pytest.raises(psycopg.Error, match=f"there is no table public.{table}"):
            apply_migrations(database)
        project.run(f"create table {table} (x text)")
        with pytest.raises(psycopg.Error, match=f"public.{table} has no column"):
            apply_migrations(database)
        assert installed(project) == 0


def test_what_is_installed_stays_where_its_tables_are_refused_now(project: Project) -> None:
    before = installed(project)
    project.run("alter table angajati rename column status to stare")
    with pytest.raises(psycopg.Error, match="rename column <its new name> to status"):
        apply_file(project.database.owner_dsn, MIGRATIONS / "0001_tables.sql")
    assert installed(project) == before
    project.run("alter table angajati rename column stare to status")
    apply_migrations(project.database)


@pytest.mark.parametrize(
    ("table", "columns"),
    [("angajati", "nume"), ("angajati_biometrie", "foto_fata_url")],
)
def test_a_save_of_everybody_after_a_save_of_one_in_the_same_session_takes_no_long(
    each_migrated_database: Database, table: str, columns: str
) -> None:
    """plpgsql keeps the plan of the first save: a nested loop over two rows of jsonb."""
    with Project(each_migrated_database) as project:
        project.run("insert into angajati (nume) select 'A' || n from generate_series(1, 4000) n")
        project.run("insert into angajati_biometrie (angajat_id) select id from angajati")
        project.run(
            f"update {table} set {columns} = 'B' where ctid in (select ctid from {table} limit 1)"
        )
        project.run("set statement_timeout = '8s'")  # Supabase's; a nested loop would take 36 s
        project.run(f"update {table} set updated_at = now()")
