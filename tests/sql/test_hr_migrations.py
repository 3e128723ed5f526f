"""What HR's own migrations do while this software is installed, upgraded or taken out."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from receiver.sandbox.database.postgres import Database
from receiver.sandbox.database.project import (
    MIGRATIONS,
    apply_file,
    apply_migrations,
    create_project,
)
from tests.sql.test_harmed_tables import (
    CLAIM,
    FAULT,
    begin,
    checked,
    employees,
    id_of,
)
from tests.sql.test_heirs import intend
from tests.sql.test_upgrades import VERSIONS
from tests.support.projects import Project


@pytest.fixture
def project(migrated_database: Database) -> Iterator[Project]:
    with Project(migrated_database) as project:
        begin(project)
        yield project


@pytest.fixture
def debian(debian_postgres: Any) -> Iterator[Project]:
    """Supabase's own major version, which has ICU."""
    database = create_project(debian_postgres, f"t_{uuid.uuid4().hex}")
    apply_migrations(database)
    with Project(database) as project:
        begin(project)
        yield project
    database.drop()


def old_version(database: Database, tmp_path: Path) -> None:
    for name, lines in VERSIONS[max(VERSIONS)].items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in sorted(tmp_path.glob("0*.sql")):
        apply_file(database.owner_dsn, path)


# An HR save that fails because of us


@pytest.mark.parametrize("why", ["refused", "passed over"])
def test_an_upgrade_whose_first_file_refused_fails_no_save_of_hr(
    database: Database, tmp_path: Path, why: str
) -> None:
    """In Supabase's editor a file that gave up is only a red line."""
    old_version(database, tmp_path)
    with Project(database) as project:
        if why == "refused":
            project.run("alter table angajati_biometrie rename column foto_fata_url to foto")
        for path in sorted(MIGRATIONS.glob("0*.sql")):
            if why == "passed over" and path.name.startswith("0001"):
                continue
            with suppress(psycopg.Error):
                apply_file(database.owner_dsn, path)
        project.run("insert into angajati (nume, prenume) values ('Popescu', 'Ion')")


def test_a_foreign_table_among_the_partitions_does_not_keep_0003_from_being_applied(
    database: Database,
) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as root:
        root.execute(
            "create foreign data wrapper arhiva; create server arhiva foreign data wrapper arhiva"
        )
        root.execute(
            "create foreign table public.arhivati () inherits (public.angajati) server arhiva"
        )
        root.execute("alter foreign table public.arhivati owner to project_owner")
    apply_migrations(database)


def test_uninstalling_does_not_wait_for_a_child_table_for_longer_than_it_says(
    project: Project,
) -> None:
    """ "It gives up after waiting for 2 s, because all later saves wait behind it"."""
    project.run("create table sezonieri () inherits (angajati)")
    apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
    gone = threading.Event()

    def uninstall() -> None:
        with suppress(psycopg.Error):
            apply_file(project.database.owner_dsn, MIGRATIONS / "uninstall.sql")
        gone.set()

    with Project(project.database) as hr:
        hr.run("begin")
        hr.run("insert into sezonieri (nume, prenume) values ('Nou', 'Om')")
        thread = threading.Thread(target=uninstall)
        thread.start()
        gave_up = gone.wait(6)
        hr.run("rollback")
    thread.join()
    assert gave_up


# An edit lost while the check says nothing


def test_a_terminal_that_was_added_while_id_had_another_name_is_filled(project: Project) -> None:
    project.run("alter table dispozitive_pontaj rename column id to cod")
    project.run(
        "insert into dispozitive_pontaj (nume, ip_address, username, password_encrypted)"
        " values ('Depozit', '10.0.0.2', 'admin', 'x')"
    )
    project.run("alter table dispozitive_pontaj rename column cod to id")
    project.run(CLAIM)
    found = project.run(
        "select 1 from hikvision_sync.pairs pair join dispozitive_pontaj device"
        " on device.id = pair.terminal_id where device.nume = 'Depozit'"
        " union all select 1 from hikvision_sync.edits edit join dispozitive_pontaj device"
        " on device.id = edit.terminal_id where device.nume = 'Depozit'"
    )
    assert found


def test_a_terminal_with_a_json_that_is_no_jsonb_is_filled(project: Project) -> None:
    project.run("alter table dispozitive_pontaj add column note json")
    project.run(
        "insert into dispozitive_pontaj (nume, ip_address, username, password_encrypted, note)"
        """ values ('Depozit', '10.0.0.2', 'admin', 'x', '{"a": "\\u0000"}')"""
    )
    project.run(CLAIM)
    project.run(CLAIM)
    found = project.run(
        "select 1 from hikvision_sync.pairs pair join dispozitive_pontaj device"
        " on device.id = pair.terminal_id where device.nume = 'Depozit'"
    )
    assert found


def test_a_name_in_a_collation_without_case_is_written_down_when_its_case_changes(
    debian: Project,
) -> None:
    debian.run(
        "create collation fara_litere (provider = icu, locale = 'und-u-ks-level2',"
        " deterministic = false)"
    )
    debian.run("alter table angajati alter column nume type text collate fara_litere")
    debian.run("delete from hikvision_sync.edits")
    debian.run("update angajati set nume = 'POPESCU' where prenume = 'Ion'")
    assert debian.edits() == [id_of(debian, "Ion")] or checked(debian, "triggers")


def test_a_photo_in_a_collation_without_case_is_written_down_when_its_case_changes(
    debian: Project,
) -> None:
    debian.run(
        "create collation fara_litere (provider = icu, locale = 'und-u-ks-level2',"
        " deterministic = false)"
    )
    debian.run(
        "alter table angajati_biometrie alter column foto_fata_url type text collate fara_litere"
    )
    debian.run("delete from hikvision_sync.edits")
    debian.run("update angajati_biometrie set foto_fata_url = 'X.jpg' where employee_no = 1000")
    assert debian.edits() == [id_of(debian, "Ion")] or checked(debian, "triggers")


def test_a_rule_that_saves_instead_is_named(project: Project) -> None:
    project.run("create table personal (like angajati)")
    project.run("create rule altundeva as on update to angajati do instead nothing")
    assert checked(project, "triggers") is not None


def test_a_table_of_hr_that_has_no_id_beside_angajat_id_is_not_in_doubt_at_every_save(
    project: Project,
) -> None:
    """0001 takes it and the check says nothing; each save there is an edit of everybody in it."""
    project.run("alter table angajati_biometrie drop column id")
    project.run("delete from hikvision_sync.edits")
    assert project.run(FAULT)[0]["it"] is None
    assert checked(project, "triggers") is None
    project.run("update angajati_biometrie set updated_at = now()")
    assert project.edits() == []


# Somebody becomes a leaver


def test_of_two_rows_with_one_id_the_active_one_counts_beside_one_without_a_status(
    project: Project,
) -> None:
    """No primary key holds across a table and those that inherit from it."""
    project.run("create table sezonieri () inherits (angajati)")
    project.run(
        "insert into sezonieri (id, nume, prenume, status)"
        " select id, nume, prenume, null from only angajati where prenume = 'Ion'"
    )
    assert employees(project)["Ion"]["status"] == "activ"


@pytest.mark.parametrize(
    ("table", "column"),
    [("angajati", "status"), ("angajati_biometrie", "angajat_id"),
     ("angajati_biometrie", "employee_no"), ("angajati_biometrie", "foto_fata_url")],
)  # fmt: skip
def test_the_statement_that_mends_a_dropped_column_makes_nobody_a_leaver(
    project: Project, table: str, column: str
) -> None:
    """The promise: "No statement that it names makes somebody a leaver as it stands"."""
    before = employees(project)
    project.run(f"alter table {table} drop column {column} cascade")
    words = project.run(FAULT)[0]["it"]
    statement = words[words.rindex("(alter table") + 1 : words.rindex(")")]
    assert "add column" in statement
    try:
        project.run(statement)  # word for word
        after = employees(project)
    except psycopg.Error:
        return  # it is no statement any more, or the tables still cannot be read
    said = ("status", "employee_no", "foto_fata_url")
    assert [[one[s] for s in said] for one in after.values()] == [
        [one[s] for s in said] for one in before.values()
    ]


def test_the_statement_that_mends_a_blank_padded_number_keeps_the_number(project: Project) -> None:
    project.run("alter table angajati_biometrie alter column employee_no type text")
    project.run("update angajati_biometrie set employee_no = lpad(employee_no, 8, '0')")
    before = employees(project)["Ion"]["employee_no"]
    assert before == "00001000"
    project.run("alter table angajati_biometrie alter column employee_no type character(10)")
    words = project.run(FAULT)[0]["it"]
    project.run(words[words.index("alter table") :])
    assert employees(project)["Ion"]["employee_no"] == before


# Columns that are somebody else's by now


def test_a_port_that_was_made_anew_and_renamed_later_is_named(project: Project) -> None:
    """As migrations retype a column: a new one, filled; the old one dropped; renamed. Receivers
    claim meanwhile, and nobody restarts one. Else every terminal on 8080 is called on 80."""
    claim = "select * from hikvision_sync_claim('a', 60, 10, 900, 86400, 'expire')"
    project.run(claim)
    project.run(
        "alter table dispozitive_pontaj add column port2 text;"
        " update dispozitive_pontaj set port2 = '8080';"
        " alter table dispozitive_pontaj drop column port;"
        " alter table dispozitive_pontaj rename column port2 to port"
    )
    project.run("update hikvision_sync.receivers set seen_at = seen_at - interval '1 hour'")
    project.run(claim)
    project.run("alter table dispozitive_pontaj rename column port to portul")
    assert project.run(FAULT)[0]["it"] is not None


NAMES = ("found", "missing", "read", "new_row", "new_rows", "old_row", "told", "v_ids", "tg_op",
         "text", "Nume", "v_doubt", "edited", "whose", "record", "employee", "biometrics", "device",
         "new_one", "old_one", "user")  # fmt: skip


@pytest.mark.parametrize("type_", ["text", "json", "pereche", "point", "xml", "angajati"])
def test_columns_with_the_names_of_ours_fail_no_save(project: Project, type_: str) -> None:
    project.run("create type pereche as (id text, nume text, angajat_id text)")
    for table in ("angajati_biometrie", "dispozitive_pontaj", "angajati"):
        for name in NAMES:
            if type_ == "angajati" and table == "angajati":
                continue
            project.run(f'alter table {table} add column "{name}" {type_}')
    project.run("delete from hikvision_sync.edits")
    warnings = project.warnings()
    del warnings[:]
    project.run("update angajati set nume = 'Nou' where prenume = 'Ion'")
    project.run("update angajati_biometrie set employee_no = 2000 where employee_no = 1000")
    project.run("update dispozitive_pontaj set port = 81")
    assert project.edits() == [id_of(project, "Ion")] * 2
    assert employees(project)["Ion"]["nume"] == "Nou"
    assert project.run("select hikvision_sync_terminals(null) as it")[0]["it"][0]["port"] == "81"
    assert [w for w in warnings if "no webhook" not in w] == []


def test_a_column_named_as_our_parameters_breaks_no_reading(project: Project) -> None:
    """0007: "a column more or less breaks nothing"."""
    for name in ("p_ids", "p_after", "p_limit"):
        for table in ("angajati", "angajati_biometrie", "dispozitive_pontaj"):
            project.run(f"alter table {table} add column {name} text")
    assert employees(project)["Ion"]["status"] == "activ"
    project.run("select hikvision_sync_everybody(null, 10), hikvision_sync_active(null, 10)")


def test_one_session_saves_on_while_columns_come_and_go(project: Project) -> None:
    project.run("set plan_cache_mode = force_generic_plan")
    ion = id_of(project, "Ion")
    for change in (
        "alter table angajati rename column prenume to p",
        "alter table angajati rename column p to prenume",
        "alter table angajati drop column nume_complet",
        "alter table angajati add column nume_complet jsonb",
        "alter table angajati alter column nume type varchar(99)",
        "alter table angajati alter column status type varchar using status",
        "alter table angajati drop column cnp",
        "alter table angajati_biometrie alter column employee_no type text",
        "alter table angajati_biometrie drop column hikvision_employee_no",
        "alter table angajati_biometrie rename column id to cod",
        "alter table angajati_biometrie rename column cod to id",
        "alter table angajati_biometrie rename column angajat_id to al_cui",
        "alter table angajati_biometrie rename column al_cui to angajat_id",
    ):
        project.run(change)
        for save in (
            "update angajati set nume = nume || 'x' where id = %s",
            "update angajati_biometrie set foto_fata_url = foto_fata_url || 'x' where %s <> ''",
        ):
            project.run("delete from hikvision_sync.edits")
            project.run(save, ion)
            assert ion in project.edits(), (change, save)


# In step without the terminal having said so


def test_a_push_that_was_not_read_back_is_not_in_step_because_an_earlier_one_was(
    project: Project,
) -> None:
    ion = id_of(project, "Ion")
    [row] = project.run("select terminal_id, fence from hikvision_sync.terminals")

    def record(confirmed_ago: float | None) -> None:
        project.run(
            "select hikvision_sync_record(%s, %s, 60, (select jsonb_build_array(jsonb_build_object("
            "'employee_id', employee_id, 'version', wanted, 'status', 'success', 'step', 'done',"
            " 'employee_no', '1000', 'confirmed_ago', %s::float)) from hikvision_sync.pairs"
            " where employee_id = %s))",
            row["terminal_id"], row["fence"], confirmed_ago, ion,
        )  # fmt: skip

    def said() -> tuple[int, int]:
        [status] = project.run("select * from hikvision_sync_status()")
        return status["in_step"], status["unknown"]

    record(1.0)
    assert said() == (1, 0)
    project.run("update angajati set nume = 'Nou' where prenume = 'Ion'")
    project.run("select hikvision_sync.spread_edits()")
    record(None)
    assert said() == (0, 1)


# People who come and go with a whole table


def test_people_who_come_with_a_table_are_wanted_once_done_as_the_check_says(
    project: Project,
) -> None:
    project.run("create table sezonieri (like angajati including all)")
    project.run("insert into sezonieri (nume, prenume) values ('Nou', 'Om')")
    project.run("alter table sezonieri inherit angajati")
    fault = str(checked(project, "triggers"))
    assert "sezonieri are not heard" in fault
    apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
    project.run(fault[fault.index("select * from hikvision_sync_want") :])
    assert len(project.edits()) == 3
    assert checked(project, "triggers") is None


def test_a_childs_owner_who_is_another_does_not_keep_hr_unheard(project: Project) -> None:
    """0003 makes triggers on every child; on one of another role's it fails, and stops."""
    with psycopg.connect(project.database.superuser_dsn, autocommit=True) as root:
        root.execute("create table public.importati () inherits (public.angajati)")
    project.run("drop trigger hikvision_sync_updated on angajati_biometrie")
    with suppress(psycopg.Error):
        apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
    project.run("update angajati_biometrie set employee_no = 2000 where employee_no = 1000")
    assert project.edits()


def test_another_sessions_temporary_child_does_not_keep_0003_from_being_applied(
    project: Project,
) -> None:
    with Project(project.database) as hr:
        hr.run("create temporary table schita () inherits (angajati)")
        apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
        assert checked(project, "triggers") is None


@pytest.mark.parametrize("call", ["verified", "meet"])
def test_a_verification_or_a_look_does_not_deadlock_with_a_migration_of_hr(
    project: Project, call: str
) -> None:
    """As `record` does."""
    [row] = project.run("select terminal_id, fence from hikvision_sync.terminals")
    intend(project, row["terminal_id"], id_of(project, "Ion"), "1000")
    statement = {
        "verified": "select hikvision_sync_verified(%s, %s, 60, 0, '[]', '[]', null, '{}')",
        "meet": 'select hikvision_sync_meet(%s, %s, 60, \'{"serial": "A"}\')',
    }[call]

    def calls() -> None:
        with Project(project.database) as receiver, suppress(psycopg.Error):
            receiver.run("set statement_timeout = '8s'")  # as PostgREST's
            receiver.run(statement, row["terminal_id"], row["fence"])

    with Project(project.database) as hr:
        hr.run("begin")
        hr.run("alter table angajati add column note text")
        thread = threading.Thread(target=calls)
        thread.start()
        time.sleep(1.5)
        try:
            hr.run("update dispozitive_pontaj set port = 8080")
            hr.run("commit")
        finally:
            hr.run("rollback")
            thread.join()


# HR's migration and a failure that is recorded


@pytest.mark.parametrize("first", ["angajati"])
def test_a_failure_that_is_recorded_does_not_deadlock_with_a_migration_of_hr(
    project: Project, first: str
) -> None:
    """`record` holds the terminal's row when it asks for HR's tables, to take a fingerprint."""
    ion = id_of(project, "Ion")
    [row] = project.run("select terminal_id, fence from hikvision_sync.terminals")

    def record() -> None:
        with Project(project.database) as receiver, suppress(psycopg.Error):
            receiver.run("set statement_timeout = '8s'")  # as PostgREST's
            receiver.run(
                "select hikvision_sync_record(%s, %s, 60, jsonb_build_array(jsonb_build_object("
                "'employee_id', %s::text, 'version', 1, 'status', 'partial', 'step', 'photo',"
                " 'employee_no', '1000')))",
                row["terminal_id"], row["fence"], ion,
            )  # fmt: skip

    statements = {
        "angajati": "alter table angajati add column note text",
        "dispozitive_pontaj": "update dispozitive_pontaj set port = 8080",
    }
    with Project(project.database) as hr:
        hr.run("begin")
        hr.run(statements.pop(first))
        thread = threading.Thread(target=record)
        thread.start()
        time.sleep(1.5)
        began = time.monotonic()
        try:
            hr.run(statements.popitem()[1])
            hr.run("commit")
        finally:
            hr.run("rollback")
            thread.join()
        assert time.monotonic() - began < 2


def test_a_partition_made_by_a_job_does_not_make_the_receiver_unready(project: Project) -> None:
    """pg_partman makes one a month. Saves through the table itself are heard."""
    project.run(
        "alter table angajati_biometrie rename to vechi;"
        " create table angajati_biometrie (like vechi including defaults)"
        " partition by range (updated_at);"
        " alter table angajati_biometrie attach partition vechi default"
    )
    apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
    assert checked(project, "triggers") is None
    project.run("delete from hikvision_sync.edits")
    project.run(
        "create table luna partition of angajati_biometrie"
        " for values from ('2035-01-01') to ('2035-02-01')"
    )
    project.run("insert into angajati_biometrie (angajat_id, employee_no, updated_at)"
                " values (%s, 5, '2035-01-02')", id_of(project, "Ion"))  # fmt: skip
    assert project.edits() == [id_of(project, "Ion")]
    assert checked(project, "triggers") is None
