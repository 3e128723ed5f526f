"""Whose face a terminal may have under a number that changed hands."""

from collections.abc import Iterator
from typing import Any

import pytest

from receiver.sandbox.database.postgres import Database
from tests.sql.test_harmed_tables import CLAIM, begin, id_of
from tests.support.projects import Project


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    with Project(each_migrated_database) as project:
        begin(project)
        yield project


def heir(project: Project) -> tuple[Any, str, str]:
    """Ion left 1000, and Ana has it now; she was noted and not let in."""
    ana, ion = id_of(project, "Ana"), id_of(project, "Ion")
    [row] = project.run("select id from dispozitive_pontaj")
    terminal = row["id"]
    intend(project, terminal, ion, "1000")
    project.run("update hikvision_sync.pairs set photo = 'x' where employee_id = %s", ion)
    project.run("update angajati_biometrie set employee_no = null where angajat_id = %s", ion)
    project.run("update angajati_biometrie set employee_no = 1000 where angajat_id = %s", ana)
    assert intend(project, terminal, ana, "1000") == "anothers"
    return terminal, ana, ion


def intend(project: Project, terminal: Any, employee: str, number: str) -> str:
    [said] = project.run(
        "select * from hikvision_sync_intend(%s, (select fence from hikvision_sync.terminals"
        " where terminal_id = %s), 60, %s, %s, 'unknown')",
        terminal, terminal, employee, number,
    )  # fmt: skip
    assert said["held"]
    return str(said["photo"])


def photo_of(project: Project, employee: str) -> str:
    """Return what a receiver is told of the photo."""
    [row] = project.run(
        "select told.photo from hikvision_sync.terminals terminal cross join lateral"
        " hikvision_sync_pairs(terminal.terminal_id, terminal.fence, array[%s::uuid]) told",
        employee,
    )
    return str(row["photo"])


@pytest.mark.parametrize("recorded", [False, True])
def test_a_replaced_photo_does_not_make_it_forgotten_whose_face_is_there(
    project: Project, *, recorded: bool
) -> None:
    """HR puts a better photo under the same name, because the first was refused."""
    terminal, ana, _ = heir(project)
    project.run("select * from hikvision_sync_photos_due(10, 60)")
    project.run("select hikvision_sync_photo_seen(%s, 'x.jpg', '\"1\"', null)", ana)
    project.run("select hikvision_sync_photo_seen(%s, 'x.jpg', '\"2\"', null)", ana)
    if recorded:  # it was seen between intend and record
        project.run(
            "select hikvision_sync_record(%s, (select fence from hikvision_sync.terminals), 60,"
            " jsonb_build_array(jsonb_build_object('employee_id', %s::text, 'version', 1,"
            " 'status', 'partial', 'step', 'photo', 'employee_no', '1000',"
            " 'photo', 'anothers')))",
            terminal, ana,
        )  # fmt: skip
    assert photo_of(project, ana) == "anothers"
    assert intend(project, terminal, ana, "1000") == "anothers"


def test_hardware_that_comes_back_is_remembered_with_the_face_of_another(project: Project) -> None:
    """It was away for repair, and a spare stood there."""
    terminal, ana, _ = heir(project)
    fence = "(select fence from hikvision_sync.terminals)"

    def meet(serial: str) -> None:
        project.run(
            f"select hikvision_sync_meet(%s, {fence}, 60, jsonb_build_object('serial', %s::text))",
            terminal, serial,
        )  # fmt: skip

    meet("A")
    assert photo_of(project, ana) == "anothers"
    meet("B")
    meet("A")
    assert photo_of(project, ana) == "anothers"
    assert intend(project, terminal, ana, "1000") == "anothers"


def test_hardware_that_says_its_serial_late_is_remembered_with_the_face_of_another(
    project: Project,
) -> None:
    """Ion was put on A; then it had a new row, said no serial, and Ana got his number."""
    ana, ion = id_of(project, "Ana"), id_of(project, "Ion")
    [row] = project.run("select id from dispozitive_pontaj")
    terminal = row["id"]
    fence = "(select fence from hikvision_sync.terminals)"
    serial = f'select hikvision_sync_meet(%s, {fence}, 60, \'{{"serial": "A"}}\')'
    project.run(
        "insert into hikvision_sync.numbers (hardware, employee_no, employee_id)"
        " values ('A', '1000', %s)",
        ion,
    )
    assert intend(project, terminal, ana, "1000") == "unknown"
    project.run(serial, terminal)
    assert photo_of(project, ana) == "anothers"


def test_a_terminal_whose_row_was_made_anew_is_remembered_with_the_face_of_another(
    project: Project,
) -> None:
    terminal, ana, _ = heir(project)
    fence = "(select fence from hikvision_sync.terminals where terminal_id = %s)"
    meet = f'select hikvision_sync_meet(%s, {fence}, 60, \'{{"serial": "A"}}\')'
    project.run(meet, terminal, terminal)
    project.run("delete from dispozitive_pontaj")
    project.run(
        "insert into dispozitive_pontaj (nume, ip_address, username, password_encrypted)"
        " values ('Poarta', '10.0.0.1', 'admin', 'x')"
    )
    [claimed] = project.run(CLAIM)[:1]
    anew = claimed["terminal_id"]
    project.run(meet, anew, anew)
    assert intend(project, anew, ana, "1000") == "anothers"


def test_a_number_that_was_taken_away_and_given_back_has_the_face_of_another(
    project: Project,
) -> None:
    """Ana was not let in; HR took 1000 away, and a terminal that cannot remove faces ended it."""
    terminal, ana, _ = heir(project)
    project.run(
        "select hikvision_sync_record(%s, (select fence from hikvision_sync.terminals), 60,"
        " jsonb_build_array(jsonb_build_object('employee_id', %s::text, 'version', 1,"
        " 'status', 'skipped', 'step', 'person')))",
        terminal, ana,
    )  # fmt: skip
    assert intend(project, terminal, ana, "1000") == "anothers"


@pytest.mark.parametrize(
    ("status", "photo", "known"),
    [
        ("success", "fingerprint", "fingerprint"),
        ("success", None, "None"),
        ("partial", None, "anothers"),
        ("partial", "unknown", "anothers"),
        ("fatal", "anothers", "anothers"),
    ],
)
def test_it_is_theirs_once_a_photo_of_theirs_or_none_was_recorded(
    project: Project, status: str, photo: str | None, known: str
) -> None:
    terminal, ana, _ = heir(project)
    project.run(
        "select hikvision_sync_record(%s, (select fence from hikvision_sync.terminals), 60,"
        " jsonb_build_array(jsonb_build_object('employee_id', %s::text, 'version', 1,"
        " 'status', %s::text, 'step', 'photo', 'employee_no', '1000', 'photo', %s::text)))",
        terminal, ana, status, photo,
    )  # fmt: skip
    assert photo_of(project, ana) == known
