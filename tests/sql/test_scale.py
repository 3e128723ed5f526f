"""What the status and the check read at size, in pages of tables and indexes: no clock is asked."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from receiver.sandbox.database.postgres import Database
from tests.support.projects import Project

TERMINALS = 10


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    """Open a project with terminals, and people whose numbers are 1000 and up."""
    with Project(each_migrated_database) as project:
        project.run(
            "insert into dispozitive_pontaj (ip_address)"
            " select '10.0.0.' || n from generate_series(1, %s) n",
            TERMINALS,
        )
        project.run("insert into angajati (nume) select 'A' || n from generate_series(1, 500) n")
        project.run("insert into angajati_biometrie (angajat_id) select id from angajati")
        project.run("delete from hikvision_sync.edits")
        yield project


def pages_read(project: Project, statement: str) -> int:
    """Return how many pages a statement reads, once the session knows the catalog."""
    for _ in range(2):
        [row] = project.run(f"explain (analyze, buffers, format json) {statement}")
    plan = row["QUERY PLAN"][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def pages_of(project: Project, *tables: str) -> int:
    """Return how many pages some tables have."""
    sizes = (project.run("select pg_relation_size(%s) as size", table) for table in tables)
    return sum(int(row["size"]) for [row] in sizes) // 8192


def test_status_reads_waiting_edits_once_and_not_for_each_terminal(project: Project) -> None:
    status = "select * from public.hikvision_sync_status()"
    before = pages_read(project, status)
    project.run(
        "insert into hikvision_sync.edits (employee_id)"
        " select gen_random_uuid() from generate_series(1, 20000)"
    )
    project.run(
        "insert into hikvision_sync.edits (terminal_id) select id from dispozitive_pontaj limit 3"
    )
    edits = pages_of(project, "hikvision_sync.edits")
    assert edits > 100
    assert pages_read(project, status) - before < 2 * edits


def test_check_reads_the_pairs_a_few_times_and_not_for_each_terminal(project: Project) -> None:
    project.run(
        "insert into hikvision_sync.pairs"
        " (terminal_id, employee_id, attempts, status, message, employee_no)"
        " select device.id, employee.id, 3, 'fatal', 'It refused.', null"
        " from dispozitive_pontaj device cross join angajati employee"
    )
    project.run("vacuum analyze")
    tables = pages_of(project, "hikvision_sync.pairs", "public.angajati_biometrie")
    read = pages_read(project, "select * from hikvision_sync.terminal_states()")
    assert read < 6 * tables + 100  # where HR's number of each pair was looked up alone: 15,000


def states(project: Project) -> list[dict[str, Any]]:
    """Return the check's figures of the terminals that have any failing or refused pair."""
    rows = project.run("select name, detail from public.hikvision_sync_check()")
    found = [json.loads(row["detail"]) for row in rows if row["name"].startswith("terminal ")]
    return [state for state in found if state["failing"] or state["refused"]]


def test_check_says_what_most_pairs_of_a_terminal_fail_for_without_a_persons_number(
    project: Project,
) -> None:
    [first, second, *_] = project.run("select id, ip_address from dispozitive_pontaj order by id")

    def pair(  # noqa: PLR0913 - a row
        place: int,
        message: str | None,
        *,
        done: int = 0,
        attempts: int = 3,
        number: str | None = None,
        status: str | None = "fatal",
        terminal: Any = first["id"],
    ) -> None:
        project.run(
            "insert into hikvision_sync.pairs (terminal_id, employee_id, done, attempts,"
            "  employee_no, status, message)"
            " select %s, angajat_id, %s, %s, %s, %s, replace(%s, '#', employee_no::text)"
            " from angajati_biometrie order by employee_no limit 1 offset %s",
            *(terminal, done, attempts, number, status, message, place),
        )

    assert states(project) == []
    pair(0, "Person # refused by 10.0.0.1")
    pair(1, "Person # refused by 10.0.0.1")
    pair(2, "Person 7 refused by 10.0.0.1", number="7")  # the ledger's number goes before HR's
    pair(3, "A: # of 1#1, .#, #.5, #.")
    pair(4, "A: # of 1#1, .#, #.5, #.", attempts=2)  # has not failed often enough
    pair(5, None)
    pair(6, "It did.", status="success")
    pair(7, "Z: refused", done=1, attempts=0)
    pair(8, "B: refused", done=1, attempts=0)
    pair(9, "It did.", done=1, attempts=0, status="success")
    pair(10, "A: # of 1#1, .#, #.5, #.", terminal=second["id"])
    found = states(project)
    keys = ("host", "wanted", "failing", "failing_for", "refused", "refused_for")
    numbered = "A: … of 110101, .1010, 1010.5, …."
    assert [[state[key] for key in keys] for state in found] == [
        [first["ip_address"], 7, 6, "Person … refused by 10.0.0.1", 2, "B: refused"],
        [second["ip_address"], 1, 1, numbered, 0, None],
    ]
    project.run("update dispozitive_pontaj set status = 'inactiv' where id = %s", first["id"])
    assert [state["host"] for state in states(project)] == [second["ip_address"]]
