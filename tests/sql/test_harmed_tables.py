"""What HR may do to its tables that no trigger hears or no statement mends, and how it is said."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from receiver.core.errors import SupabaseRefused
from receiver.sandbox.database.postgres import Database
from receiver.sandbox.database.project import MIGRATIONS, apply_file, apply_migrations
from receiver.sandbox.supabase.server import SupabaseStandIn
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.supabase.rest import connect, http_client
from tests.support.projects import Project

CLAIM = "select * from hikvision_sync_claim('a', 60, 10, 900, null, null)"
FAULT = (
    "select hikvision_sync.fault_of('angajati', 'angajati_biometrie', 'dispozitive_pontaj') as it"
)


@pytest.fixture
def project(migrated_database: Database) -> Iterator[Project]:
    with Project(migrated_database) as project:
        begin(project)
        yield project


def begin(project: Project) -> None:
    """One terminal, Ion (1000) and Ana (1001), whose edits were claimed."""
    project.run("drop trigger angajati_biometrie_numeroteaza on angajati_biometrie")  # HR's own
    project.run(
        "insert into dispozitive_pontaj (nume, ip_address, username, password_encrypted)"
        " values ('Poarta', '10.0.0.1', 'admin', 'x')"
    )
    project.run("insert into angajati (nume, prenume) values ('Popescu', 'Ion'), ('Pop', 'Ana')")
    project.run(
        "insert into angajati_biometrie (angajat_id, employee_no, foto_fata_url)"
        " select id, case prenume when 'Ion' then 1000 else 1001 end, 'x.jpg' from angajati"
    )
    assert len(project.run(CLAIM)) == 2
    assert project.edits() == []


def id_of(project: Project, prenume: str) -> str:
    [row] = project.run("select id::text from angajati where prenume = %s", prenume)
    return str(row["id"])


def employees(project: Project) -> dict[str, Any]:
    [row] = project.run(
        "select hikvision_sync_employees(array(select id from angajati order by id)) as said"
    )
    return {one["prenume"]: one for one in row["said"]}


def checked(project: Project, name: str) -> str | None:
    rows = project.run("select * from hikvision_sync_check()")
    fault: str | None = next(row["fault"] for row in rows if row["name"] == name)
    return fault


# What a save costs


def test_a_save_of_everybody_does_not_carry_hrs_wide_columns_about(project: Project) -> None:
    """200 MB of somebody's bytea: 0.01 s without our columns in jsonb, 2.2 s and 1 GB of files."""
    project.run("alter table angajati_biometrie add column sablon bytea")
    project.run("alter table angajati_biometrie alter column sablon set storage external")
    project.run("alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_key")
    project.run(
        "insert into angajati_biometrie (angajat_id, employee_no, sablon)"
        " select %s, n, decode(repeat(md5(n::text), 6400), 'hex') from generate_series(1, 300) n",
        id_of(project, "Ion"),
    )
    began = time.monotonic()
    project.run("update angajati_biometrie set updated_at = now()")
    took_s = time.monotonic() - began
    project.run("alter table angajati_biometrie disable trigger hikvision_sync_updated")
    began = time.monotonic()
    project.run("update angajati_biometrie set updated_at = now()")
    assert took_s < 0.1 + 5 * (time.monotonic() - began)


# A json column that is no jsonb


def test_a_json_that_is_no_jsonb_in_a_column_of_hrs_fails_no_save(project: Project) -> None:
    project.run("alter table angajati add column note json")
    project.run("""update angajati set note = '{"a": "\\u0000"}' where prenume = 'Ana'""")


def test_a_json_that_is_no_jsonb_in_one_row_does_not_keep_all_others_from_being_read(
    project: Project,
) -> None:
    project.run("alter table angajati add column note json")
    project.run("alter table angajati disable trigger user")  # as before our installation
    project.run("""update angajati set note = '{"a": 1e999999}' where prenume = 'Ana'""")
    project.run("alter table angajati enable trigger user")
    assert employees(project)["Ion"]["employee_no"] == "1000"


# The statement that is said to mend it


@pytest.mark.parametrize(
    "harm",
    [
        "boolean using status = 'activ'",
        "text[] using array[status]",
        "jsonb using to_jsonb(status)",
    ],
)
def test_the_statement_that_mends_a_retyped_status_makes_nobody_a_leaver(
    project: Project, harm: str
) -> None:
    project.run("alter table angajati alter column status drop default")
    project.run(f"alter table angajati alter column status type {harm}")
    words = project.run(FAULT)[0]["it"]
    statement = words[words.index("alter table") :]
    try:
        project.run(statement)  # word for word
    except psycopg.Error:
        return  # it is no statement any more: nobody runs it without thinking
    assert {one["status"] for one in employees(project).values()} == {"activ"}


def test_the_statements_that_mend_text_ids_mend_them_under_a_foreign_key(project: Project) -> None:
    for table, column in (("angajati", "id"), ("angajati_biometrie", "angajat_id")):
        if column == "id":
            project.run(
                "alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey"
            )
            project.run("alter table angajati alter column id drop default")
        project.run(f"alter table {table} alter column {column} type text")
    project.run(
        "alter table angajati_biometrie add foreign key (angajat_id) references angajati (id)"
    )
    words = project.run(FAULT)[0]["it"]
    for fault in words.split("; "):
        project.run(fault[fault.index("alter table") :])
    assert project.run(FAULT)[0]["it"] is None


@pytest.mark.parametrize("when", ["installed", "before"])
def test_a_view_in_the_place_of_a_table_is_named_and_0003_is_not_said_to_mend_it(
    database: Database, when: str
) -> None:
    if when == "installed":
        apply_migrations(database)
    with Project(database) as project:
        project.run("alter table angajati rename to personal")
        project.run("create view angajati as select * from personal")
        if when == "before":  # README: "are refused before anything is installed"
            with pytest.raises(psycopg.Error):
                apply_migrations(database)
            assert project.run("select to_regnamespace('hikvision_sync') as it")[0]["it"] is None
            return
        assert checked(project, "triggers") == (
            "saves in public.angajati are not heard, because it is no table"
        )
        assert "public.angajati is no table" in project.run(FAULT)[0]["it"]


# Edits that no trigger of the table hears


HIDDEN = {
    "inherited": (
        "create table sezonieri () inherits (angajati)",
        "insert into sezonieri (nume, prenume) values ('Nou', 'Om')",
    ),
    "partition": (
        """alter table angajati rename to vechi;
        create table angajati (like vechi including defaults) partition by list (status);
        alter table angajati attach partition vechi default""",
        "update vechi set nume = 'Nou'",
    ),
    "replica trigger": (
        "alter table angajati enable replica trigger hikvision_sync_updated",
        "update angajati set nume = 'Nou'",
    ),
    "virtual column": (
        """alter table angajati add column activ boolean default true, drop column status;
        alter table angajati add column status text
        generated always as (case when activ then 'activ' else 'inactiv' end) virtual""",
        "update angajati set activ = false",
    ),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_an_edit_is_written_down_or_the_check_says_why_it_is_not(
    project: Project, how: str
) -> None:
    harm, save = HIDDEN[how]
    project.run(harm)
    if how == "partition":  # as the check says
        project.run("drop trigger hikvision_sync_updated on vechi")
        apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
    project.run(save)
    fault = checked(project, "triggers")
    if how == "inherited":
        assert "sezonieri are not heard" in str(fault)
        apply_file(project.database.owner_dsn, MIGRATIONS / "0003_triggers.sql")
        assert checked(project, "triggers") is None
        project.run("truncate sezonieri")  # under its own triggers now
    if how == "replica trigger":
        assert "enable trigger hikvision_sync_updated" in str(fault)
    elif how == "virtual column":
        assert "angajati.status are not heard, because it is a virtual column" in str(fault)
    if how != "replica trigger":
        assert project.edits()


def test_an_employee_whose_id_was_changed_is_gone_under_the_old_one(project: Project) -> None:
    """The promise: "every employee who is new or gone"."""
    project.run("alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_fkey")
    old = id_of(project, "Ion")
    project.run("update angajati set id = gen_random_uuid() where prenume = 'Ion'")
    assert set(project.edits()) == {old, id_of(project, "Ion")}


def test_who_lost_a_biometric_row_that_got_another_id_too_is_written_down(project: Project) -> None:
    """The promise: "A row that moved from one employee to another writes down both"."""
    project.run("insert into angajati (nume, prenume) values ('Nou', 'Om')")
    project.run("delete from hikvision_sync.edits")
    ion, om = id_of(project, "Ion"), id_of(project, "Om")
    project.run(
        "update angajati_biometrie set id = gen_random_uuid(), angajat_id = %s"
        " where employee_no = 1000",
        om,
    )
    assert set(project.edits()) == {ion, om}


# Nobody becomes a leaver, or loses the number, by mistake


def test_an_enum_without_activ_is_named_and_makes_nobody_a_leaver(project: Project) -> None:
    project.run("create type stare as enum ('activ', 'inactiv')")
    project.run("alter table angajati alter column status drop default")
    project.run("alter table angajati alter column status type stare using status::stare")
    project.run("delete from hikvision_sync.edits")
    project.run("alter type stare rename value 'activ' to 'activa'")  # fires no trigger
    assert "public.angajati.status is public.stare, which has no value activ" in str(
        project.run(FAULT)[0]["it"]
    )
    with pytest.raises(psycopg.Error, match="has no value activ"):
        employees(project)
    project.run("alter type stare rename value 'activa' to 'activ'")
    assert {one["status"] for one in employees(project).values()} == {"activ"}


def test_of_two_rows_with_one_id_it_does_not_depend_on_the_last_save_which_one_counts(
    project: Project,
) -> None:
    project.run("alter table angajati drop constraint angajati_pkey cascade")
    project.run(
        "insert into angajati (id, nume, prenume, status)"
        " select id, nume, prenume, 'inactiv' from angajati where prenume = 'Ion'"
    )
    said = set()
    for salary in (1, 2, 3):
        project.run("update angajati set salariu = %s where status = 'activ'", salary)
        said.add((employees(project)["Ion"]["status"], project.run(FAULT)[0]["it"]))
        project.run("update angajati set salariu = %s where status = 'inactiv'", salary)
        said.add((employees(project)["Ion"]["status"], project.run(FAULT)[0]["it"]))
    assert len(said) == 1


def test_an_empty_number_does_not_go_before_a_number(project: Project) -> None:
    project.run("alter table angajati_biometrie alter column employee_no type text")
    project.run("alter table angajati_biometrie drop constraint angajati_biometrie_angajat_id_key")
    project.run(
        "insert into angajati_biometrie (angajat_id, employee_no) values (%s, '')",
        id_of(project, "Ion"),
    )
    assert employees(project)["Ion"]["employee_no"] == "1000"


def test_a_domain_over_a_domain_of_integers_is_an_integer(project: Project) -> None:
    project.run("create domain numar as integer")
    project.run("create domain marca as numar check (value > 0)")
    project.run("alter table angajati_biometrie alter column employee_no type marca")
    assert project.run(FAULT)[0]["it"] is None


# No doubt where there is none


def test_who_has_only_nume_complet_is_not_edited_by_every_save(project: Project) -> None:
    """0001 and the reader take such tables; each salary is an edit of everybody all the same."""
    project.run("update angajati set nume_complet = nume || ' ' || prenume")
    project.run("alter table angajati drop column nume, drop column prenume")
    project.run("delete from hikvision_sync.edits")
    assert project.run(FAULT)[0]["it"] is None
    warnings = project.warnings()
    project.run("update angajati set salariu = 1")
    assert [w for w in warnings if "no column" in w] == []
    assert project.edits() == []


# Versions, files in part, uninstalling


def test_the_database_says_its_version_only_where_all_other_files_were_applied(
    database: Database,
) -> None:
    """0008's words. In Supabase's editor a file that gave up is only a red line."""
    for path in sorted(MIGRATIONS.glob("0*.sql")):
        if not path.name.startswith("0003"):
            try:
                apply_file(database.owner_dsn, path)
            except psycopg.Error:
                break
    with Project(database) as project:
        rows = project.run("select to_regprocedure('public.hikvision_sync_version()') as it")
        assert rows[0]["it"] is None


def test_installed_again_this_software_ends_whoever_left_meanwhile_without_a_serial(
    project: Project,
) -> None:
    """uninstall.sql's notice. A verification comes 18 to 24 h later, where search is known."""
    [pair] = project.run("select * from hikvision_sync.pairs where employee_id = %s",
                         id_of(project, "Ion"))  # fmt: skip
    project.run("select hikvision_sync_intend(%s, 1, 60, %s, '1000', 'unknown')",
                pair["terminal_id"], pair["employee_id"])  # fmt: skip
    apply_file(project.database.owner_dsn, MIGRATIONS / "uninstall.sql")
    project.run("delete from angajati where prenume = 'Ion'")
    apply_migrations(project.database)
    assert len(project.run("select * from hikvision_sync.numbers")) == 1
    project.run("select hikvision_sync_want(null)")  # README, step 5
    found = project.run(CLAIM)
    project.run(
        "select hikvision_sync_meet(%s, %s, 60, '{\"serial\": \"\"}')",
        found[0]["terminal_id"], found[0]["fence"],
    )  # fmt: skip
    wanted = project.run("select employee_id from hikvision_sync.pairs where wanted > done")
    assert pair["employee_id"] in [one["employee_id"] for one in wanted]


# HR's other transactions


def test_a_save_in_repeatable_read_does_not_fail_because_a_receiver_renewed_a_lease(
    project: Project,
) -> None:
    with Project(project.database) as hr:
        hr.run("begin isolation level repeatable read")
        hr.run("select 1 from dispozitive_pontaj")
        project.run("select hikvision_sync_renew(terminal_id, fence, 600)"
                    " from hikvision_sync.terminals")  # fmt: skip
        hr.run("update dispozitive_pontaj set port = 8080")
        hr.run("commit")


# What the receiver says


async def test_it_is_said_where_no_trigger_hears_hr(project: Project) -> None:
    """HR copied its table and put the copy in its place, as migration tools do."""
    project.run(
        "create table nou (like angajati including all); insert into nou select * from angajati;"
        " drop table angajati cascade; alter table nou rename to angajati"
    )
    project.run("update angajati set status = 'inactiv'")
    assert project.edits() == []
    async with SupabaseStandIn(project.database) as supabase, http_client() as http:
        client = await connect(supabase.url, supabase.secret_key, http)
        await Company(client, supabase.url).readable()
        said = await Ledger(client, "a", look_s=900).unheard()
    assert "run sql/0003_triggers.sql" in str(said)


async def test_a_missing_right_to_call_our_functions_is_not_blamed_on_the_key(
    project: Project,
) -> None:
    project.run("revoke execute on all functions in schema public from service_role")
    async with SupabaseStandIn(project.database) as supabase, http_client() as http:
        client = await connect(supabase.url, supabase.secret_key, http)
        with pytest.raises(SupabaseRefused, match="apply all files of sql/ again"):
            await Ledger(client, "a", look_s=900).fits()


# Optional columns that count where they are


def test_a_lost_nume_complet_is_named_where_it_is_the_only_name(project: Project) -> None:
    """Else everybody is renamed to their number, by the next edit or verification."""
    project.run("update angajati set nume_complet = nume || ' ' || prenume, nume = null")
    project.run("alter table angajati rename column nume_complet to nume_intreg")
    assert "nume_complet" in (project.run(FAULT)[0]["it"] or "nothing is wrong")


def test_an_edit_of_nume_complet_is_not_lost_while_it_has_another_name(project: Project) -> None:
    project.run("update angajati set nume_complet = nume, nume = null")
    project.run("alter table angajati rename column nume_complet to nume_intreg")
    project.run("delete from hikvision_sync.edits")
    project.run("update angajati set nume_intreg = 'Nou' where prenume = 'Ion'")
    project.run("alter table angajati rename column nume_intreg to nume_complet")
    assert project.edits() == [id_of(project, "Ion")]


def test_a_lost_port_is_named_where_terminals_had_one(project: Project) -> None:
    """Else every terminal on 8080 is called on 80, with its password, whatever answers there."""
    project.run("update dispozitive_pontaj set port = 8080")
    project.run("alter table dispozitive_pontaj rename column port to portul")
    mend = "alter table public.dispozitive_pontaj rename column portul to port"
    with pytest.raises(psycopg.Error, match=mend):
        project.run("select hikvision_sync_terminals(null) as it")
    project.run(mend)
    said = project.run("select hikvision_sync_terminals(null) as it")[0]["it"]
    assert said[0]["port"] == "8080"


def test_a_column_that_was_renamed_on_purpose_counts_no_more_once_0001_was_run_again(
    project: Project,
) -> None:
    project.run("alter table dispozitive_pontaj rename column port to portul")
    assert "run sql/0001_tables.sql again" in project.run(FAULT)[0]["it"]
    apply_file(project.database.owner_dsn, MIGRATIONS / "0001_tables.sql")
    assert project.run(FAULT)[0]["it"] is None
