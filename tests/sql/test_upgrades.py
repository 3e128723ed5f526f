"""Any earlier version of sql/ in a database becomes today's, and nothing is lost.

The earlier versions are in tests/fixtures/sql, because a clone without history has to test them
too. A file there is what one commit changed in sql/, in the order of the history; the first one
makes all files. They are made by

    git diff --no-color --no-renames --no-prefix -U0 <the commit before> <the commit> -- 'sql/*.sql'

without the lines `diff --git`, `index`, `new file mode` and `deleted file mode`. A version of sql/
that may be installed somewhere needs its file there before sql/ changes again.
"""

import re
from pathlib import Path
from typing import Any

import psycopg
import psycopg.types.json
import pytest
from psycopg.rows import dict_row

from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import (
    MIGRATIONS,
    apply_file,
    apply_migrations,
    create_project,
)
from receiver.supabase import sql_version
from tests.support.projects import Project, Row

HISTORY = Path(__file__).parents[1] / "fixtures" / "sql"
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
URL = "http://127.0.0.1:1/webhooks/supabase"
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
KEYS = {"edits": "id", "pairs": "terminal_id, employee_id", "terminals": "terminal_id"}

CATALOG = r"""
with ours as (
    select oid, proacl, proowner from pg_proc
    where pronamespace = 'hikvision_sync'::regnamespace
       or pronamespace = 'public'::regnamespace and proname like 'hikvision\_sync\_%'
), relations as (
    select * from pg_class where relnamespace = 'hikvision_sync'::regnamespace
), rights as (
    select 'function ' || oid::regprocedure as what, proowner as owner,
           coalesce(proacl, acldefault('f', proowner)) as acl from ours
    union all
    select 'relation ' || oid::regclass, relowner,
           coalesce(relacl, acldefault('r', relowner)) from relations
    union all
    select 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))
    from pg_namespace where nspname = 'hikvision_sync'
)
select 'relation ' || oid::regclass as what, concat_ws(' ', relkind, relpersistence) as how
from relations
union all
select 'column ' || attrelid::regclass || '.' || attname,
       concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity,
                 pg_get_expr(adbin, adrelid))
from pg_attribute join relations on relations.oid = attrelid
left join pg_attrdef on adrelid = attrelid and adnum = attnum
where attnum > 0 and not attisdropped
union all
select 'index ' || indexrelid::regclass, pg_get_indexdef(indexrelid)
from pg_index join relations on relations.oid = indexrelid
union all
select 'constraint ' || conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid)
from pg_constraint where connamespace = 'hikvision_sync'::regnamespace
union all
select 'function ' || oid::regprocedure, pg_get_functiondef(oid) from ours
union all
select 'trigger ' || tgrelid::regclass || ' ' || tgname,
       concat_ws(' ', pg_get_triggerdef(oid), tgenabled)
from pg_trigger where not tgisinternal
union all
select 'rights on ' || what, concat_ws(' ', owner::regrole, (
    select string_agg(concat_ws(' ', grantee::regrole, privilege_type, is_grantable), ', '
                      order by grantee::regrole::text, privilege_type)
    from aclexplode(acl)))
from rights
"""
"""What is installed of ours. A function's definition has its arguments, result, security, settings
and body; columns have no order here, because an upgrade can only append them."""

EVERYTHING = """
select 'schema', nspname::text from pg_namespace where nspname !~ '^pg_'
union all
select 'function', oid::regprocedure::text from pg_proc
where pronamespace::regnamespace::text !~ '^(pg_|information)'
union all
select 'trigger', tgrelid::regclass || ' ' || tgname from pg_trigger where not tgisinternal
union all
select 'relation', oid::regclass::text from pg_class
where relnamespace::regnamespace::text !~ '^(pg_|information)'
order by 1, 2
"""

OURS = """
select oid::regclass::text as what from pg_class
where relnamespace = 'hikvision_sync'::regnamespace and relkind = 'r'
union all
select oid::regprocedure::text from pg_proc
where pronamespace = 'hikvision_sync'::regnamespace or proname like 'hikvision\\_sync\\_%'
"""
RECORD_MANY = "hikvision_sync_record(uuid,bigint,double precision,jsonb)"

Files = dict[str, list[str]]


def changed(files: Files, diff: str) -> Files:
    """Apply a diff without context to files of lines; raise where it does not fit.

    A file that loses all its lines is gone.
    """
    files = {name: list(lines) for name, lines in files.items()}
    lines = iter(diff.splitlines())
    name, shift = "", 0
    for line in lines:
        if hunk := HUNK.match(line):
            start, gone, come = (int(number or 1) for number in hunk.groups("1"))
            place = start + shift - (1 if gone else 0)
            old = [next(lines).removeprefix("-") for _ in range(gone)]
            new = [next(lines).removeprefix("+") for _ in range(come)]
            assert files[name][place : place + gone] == old, f"{name}: {line}"
            files[name][place : place + gone] = new
            shift += come - gone
        else:  # `--- ` and `+++ `, in pairs
            old_name, new_name = Path(line[4:]).name, Path(next(lines)[4:]).name
            name, shift = old_name if new_name == "null" else new_name, 0
            files.setdefault(name, [])
    return {name: lines for name, lines in files.items() if lines}


def versions() -> dict[str, Files]:
    """Return the files of every earlier version, the oldest first."""
    found: dict[str, Files] = {}
    files: Files = {}
    for path in sorted(HISTORY.glob("*.diff")):
        files = found[path.stem] = changed(files, path.read_text(encoding="utf-8"))
    return found


VERSIONS = versions()


def catalog(project: Project) -> dict[str, str]:
    return {row["what"]: row["how"] for row in project.run(CATALOG)}


@pytest.fixture(scope="session")
def fresh_catalog(embedded_postgres: PostgresServer) -> dict[str, str]:
    database = create_project(embedded_postgres, "t_fresh_catalog")
    apply_migrations(database)
    with Project(database) as project:
        found = catalog(project)
    database.drop()
    return found


@pytest.fixture(params=VERSIONS)
def old_files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write the files of each earlier version in turn into a folder."""
    for name, lines in VERSIONS[request.param].items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


class Company:
    """An installed database in use: two terminals, three employees, one receiver."""

    def __init__(self, database: Database) -> None:
        self.hr = Project(database)
        self._receiver = psycopg.connect(
            database.superuser_dsn, autocommit=True, row_factory=dict_row
        )
        self._receiver.execute("set role service_role")

    def close(self) -> None:
        self.hr.connection.close()
        self._receiver.close()

    def call(self, verb: str, *arguments: Any) -> list[Row]:
        """Call a function as a receiver does, with as many arguments as it asks for."""
        [required] = self.hr.run(
            "select min(pronargs - pronargdefaults) as n from pg_proc where proname = %s",
            f"hikvision_sync_{verb}",
        )
        given = arguments[: required["n"]]
        places = ", ".join(["%s"] * len(given))
        statement = f"select * from public.hikvision_sync_{verb}({places})"
        return self._receiver.execute(statement.encode(), given).fetchall()

    def claim(self, receiver: str, lease_s: float) -> list[Row]:
        """Claim as every version does."""
        return self.call("claim", receiver, lease_s, 100, 900, None, None)

    def record(self, row: Row) -> None:
        """Record that a pair is on its terminal as number 1000, as every version does."""
        at = (row["terminal_id"], row["fence"], 600)
        pair = {"employee_id": str(row["employee_id"]), "version": row["version"]}
        outcome = {"status": "success", "step": "done", "message": "message"}
        held = {"employee_no": "1000", "photo": "face"}
        if self.hr.run("select to_regprocedure(%s) as it", RECORD_MANY)[0]["it"]:
            written = psycopg.types.json.Jsonb([{**pair, **outcome, **held}])
            found = self.call("record", *at, written)
        else:
            said = {**pair, **outcome, **held}
            found = self.call("record", *at, *said.values(), None)
        assert found == [{"held": True}]

    def begin(self) -> None:
        """Let this version's own triggers and functions write the rows.

        Then the first employee's pair holds a number on the first terminal, the others are wanted
        there, the second terminal is leased, and an edit of the second employee waits.
        """
        self.hr.run("select vault.create_secret(%s, 'hikvision_sync_webhook_url')", URL)
        self.hr.run("select vault.create_secret(%s, 'hikvision_sync_webhook_secret')", SECRET)
        self.hr.run("insert into dispozitive_pontaj (ip_address) values ('10.0.0.1'), ('10.0.0.2')")
        self.hr.run(
            "with hired as (insert into angajati (nume) values ('A'), ('B'), ('C') returning id)"
            " insert into angajati_biometrie (angajat_id) select id from hired"
        )
        self.employees = [row["id"] for row in self.hr.run("select id from angajati order by nume")]
        rows = self.claim("old", 600)
        self.first = rows[0]["terminal_id"]
        [row] = [row for row in rows if row["employee_id"] == self.employees[0]]
        lease = (row["terminal_id"], row["fence"])
        no_rest = (0, 0, None, None, False)
        self.record(row)
        assert self.call("release", *lease, *no_rest) == [{"held": True}]
        [second, *_] = self.claim("old", 600)
        self.lease = (second["terminal_id"], second["fence"])
        self.save("B", self.employees[1])

    def save(self, name: str, employee_id: object) -> None:
        """Save an employee's new name, as HR does."""
        self.hr.run("update angajati set nume = %s || nume where id = %s", name, employee_id)

    def rows(self) -> dict[str, list[Row]]:
        """Return what the ledger holds, as JSON: Python has no time before the year 1."""
        return {
            table: [
                found["row"]
                for found in self.hr.run(
                    f"select to_jsonb({table}) as row from hikvision_sync.{table} order by {key}"
                )
            ]
            for table, key in KEYS.items()
        }


@pytest.fixture
def company(database: Database, old_files: Path) -> Any:
    apply_migrations(database, old_files)
    company = Company(database)
    company.begin()
    yield company
    company.close()


def test_an_upgrade_makes_a_database_as_a_fresh_one(
    company: Company, fresh_catalog: dict[str, str]
) -> None:
    for _ in range(2):
        apply_migrations(company.hr.database)
        assert catalog(company.hr) == fresh_catalog


def test_an_upgrade_loses_no_row_and_what_was_wanted_can_be_claimed(company: Company) -> None:
    before = company.rows()
    assert {table: len(rows) for table, rows in before.items()} == {
        "edits": 1,
        "pairs": 6,
        "terminals": 2,
    }
    for _ in range(2):
        apply_migrations(company.hr.database)
    for table, rows in company.rows().items():
        assert [
            {column: row[column] for column in old}
            for row, old in zip(rows, before[table], strict=True)
        ] == before[table]
    [held, wanted, also_wanted] = company.employees
    rows = company.claim("new", 60)
    assert {row["terminal_id"] for row in rows} == {company.first}
    assert {row["employee_id"]: row["version"] for row in rows} == {wanted: 2, also_wanted: 1}
    assert company.claim("new", 60) == []  # the other one is still leased
    assert company.call("renew", *company.lease, 60) == [{"held": True}]
    numbers = company.call("held", company.first, None, 100)
    assert {row["employee_id"]: row["employee_no"] for row in numbers} == {
        held: "1000",
        wanted: None,
        also_wanted: None,
    }


def test_hr_can_save_between_any_two_files_of_an_upgrade_and_is_heard(company: Company) -> None:
    warnings = company.hr.warnings()
    for path in sorted(MIGRATIONS.glob("0*.sql")):
        apply_file(company.hr.database.owner_dsn, path)
        edits, sent = len(company.hr.edits()), len(company.hr.queued())
        company.save(path.name, company.employees[0])
        assert len(company.hr.edits()) == edits + 1, path.name
        assert len(company.hr.queued()) == sent + 1, path.name
    assert warnings == []
    [row] = [row for row in company.claim("new", 60) if row["employee_id"] == company.employees[0]]
    assert (row["employee_no"], row["photo"]) == ("1000", "face")
    assert row["version"] > 1


def test_uninstall_takes_out_an_earlier_version_too(database: Database, old_files: Path) -> None:
    with Project(database) as project:
        before = project.run(EVERYTHING)
        apply_migrations(database, old_files)
        assert project.run(EVERYTHING) != before
        for _ in range(2):
            apply_file(database.owner_dsn, MIGRATIONS / "uninstall.sql")
            assert project.run(EVERYTHING) == before
        project.run("insert into angajati (nume) values ('after')")


def test_uninstall_leaves_nothing_behind_and_may_run_twice(each_database: Database) -> None:
    with Project(each_database) as project:
        before = project.run(EVERYTHING)
        apply_migrations(each_database)
        project.run("insert into angajati (nume) values ('before')")
        assert project.run(EVERYTHING) != before
        for _ in range(2):
            apply_file(each_database.owner_dsn, MIGRATIONS / "uninstall.sql")
            assert project.run(EVERYTHING) == before
        project.run("insert into angajati (nume) values ('after')")


def test_uninstall_keeps_which_numbers_are_on_which_hardware_for_the_next_installation(
    migrated_database: Database,
) -> None:
    company = Company(migrated_database)
    company.begin()
    known = company.hr.run("select * from hikvision_sync.numbers")
    assert [row["employee_no"] for row in known] == ["1000"]
    for _ in range(2):
        apply_file(migrated_database.owner_dsn, MIGRATIONS / "uninstall.sql")
        assert company.hr.run("select * from hikvision_sync.numbers") == known
        assert company.hr.run(OURS) == [{"what": "hikvision_sync.numbers"}]
    company.hr.run("delete from angajati where id = %s", company.employees[0])
    apply_migrations(migrated_database)
    company.hr.run("delete from hikvision_sync.edits")
    company.hr.run("update dispozitive_pontaj set status = 'activ'")
    terminal = known[0]["hardware"]  # it never said its serial
    company.hr.run("insert into hikvision_sync.terminals (terminal_id) values (%s)", terminal)
    device = psycopg.types.json.Jsonb({"serial": "A1"})
    company.hr.run("update hikvision_sync.terminals set fence = 1, leased_by = 'a'")
    assert company.call("meet", terminal, 1, 60, device) == [{"held": True, "replaced": True}]
    [pair] = company.hr.run("select * from hikvision_sync.pairs")
    assert (pair["employee_no"], pair["leaves"], pair["wanted"] > pair["done"]) == (
        *("1000", True, True),
    )
    company.close()


@pytest.mark.parametrize("old_files", [max(VERSIONS)], indirect=True)
def test_uninstall_keeps_what_the_newest_earlier_version_knew(company: Company) -> None:
    apply_file(company.hr.database.owner_dsn, MIGRATIONS / "uninstall.sql")
    [known] = company.hr.run("select * from hikvision_sync.numbers")
    assert (known["employee_no"], known["employee_id"]) == ("1000", company.employees[0])


def test_applying_todays_files_again_changes_nothing(each_migrated_database: Database) -> None:
    company = Company(each_migrated_database)
    company.begin()
    before = catalog(company.hr), company.rows()
    apply_migrations(each_migrated_database)
    assert (catalog(company.hr), company.rows()) == before
    company.close()


@pytest.mark.parametrize("old_files", [max(VERSIONS)], indirect=True)
def test_the_newest_earlier_version_can_be_applied_again_and_upgraded_again(
    migrated_database: Database, old_files: Path, fresh_catalog: dict[str, str]
) -> None:
    company = Company(migrated_database)
    company.begin()
    before = company.rows()
    apply_migrations(migrated_database, old_files)
    assert company.rows() == before
    apply_migrations(migrated_database)
    assert (catalog(company.hr), company.rows()) == (fresh_catalog, before)
    company.close()


def version_in(files: Files) -> int:
    """Return the number in 0008_version.sql; 0 for files that had no version yet."""
    lines = files.get("0008_version.sql", ["    select 0"])
    [number] = [line.removeprefix("    select ") for line in lines if line.startswith("    select")]
    return int(number)


def test_the_version_grows_with_every_change_after_the_newest_earlier_state() -> None:
    """SQL that differs under the same number would pass for what the receiver needs."""
    today = {
        path.name: path.read_text(encoding="utf-8").splitlines()
        for path in MIGRATIONS.glob("*.sql")
    }
    newest = VERSIONS[max(VERSIONS)]
    if today != newest:
        assert version_in(today) > version_in(newest)
    assert version_in(today) == sql_version.SQL_VERSION


def test_the_receiver_names_the_first_and_the_last_file_to_apply(database: Database) -> None:
    names = [path.name for path in apply_migrations(database)]
    assert (names[0], names[-1]) == sql_version.SQL_FILES
    with Project(database) as project:
        [row] = project.run("select hikvision_sync_version() as version")
    assert row["version"] == sql_version.SQL_VERSION


def test_the_history_is_complete() -> None:
    assert len(VERSIONS) >= 26
    assert set(VERSIONS["01_ee5af20"]) == {
        "0001_ledger.sql",
        "0002_triggers.sql",
        "0003_check.sql",
        "uninstall.sql",
    }
