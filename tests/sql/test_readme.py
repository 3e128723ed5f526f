"""The commands and statements of sql/README.md run, and find what it says."""

import os
import re
import subprocess

import pytest

from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import MIGRATIONS, create_project
from tests.support.projects import Project

PSQL_DIRECTORY = "/usr/lib/postgresql/15/bin"
README = (MIGRATIONS / "README.md").read_text(encoding="utf-8")
STATEMENTS = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    for statement in block.split(";\n")
    if statement.strip()
]


@pytest.fixture
def busy_database(migrated_database: Database) -> Database:
    """One employee whose push failed on one terminal, which rests for that."""
    with Project(migrated_database) as project:
        project.run("insert into dispozitive_pontaj (ip_address) values ('10.0.0.1')")
        project.run("insert into angajati (nume, prenume) values ('Popescu', 'Ion')")
        [pair] = project.run("select * from hikvision_sync_claim('a', 60, 10, 900, null, null)")
        lease = (pair["terminal_id"], pair["fence"])
        project.run("select hikvision_sync_meet(%s, %s, 60, '{}')", *lease)
        project.run(
            "select hikvision_sync_record(%s, %s, 60, jsonb_build_array(jsonb_build_object("
            "'employee_id', %s::uuid, 'version', %s::bigint, 'status', 'fatal', 'step', 'person',"
            " 'message', 'why', 'retry_seconds', 30)))",
            *(*lease, pair["employee_id"], pair["version"]),
        )
        project.run("select hikvision_sync_release(%s, %s, 0, 1, 60, 'why', false)", *lease)
    return migrated_database


def test_every_statement_of_the_readme_runs_and_finds_a_row(busy_database: Database) -> None:
    assert len(STATEMENTS) >= 9
    with Project(busy_database) as project:
        for statement in STATEMENTS:
            assert project.connection.execute(statement.encode()).rowcount == 1, statement
        assert project.run("select device from hikvision_sync.terminals") == [{"device": None}]
        assert len(project.edits()) == 2
        assert project.run(
            "select decrypted_secret as secret from vault.decrypted_secrets order by name desc"
        ) == [
            {"secret": "https://receiver.example.com/webhooks/supabase"},
            {"secret": "whsec_…"},
        ]


def test_the_readmes_loop_applies_every_file_with_psql(debian_postgres: PostgresServer) -> None:
    [loop] = re.findall(r"```sh\n(for .*?)```", README, re.DOTALL)
    database = create_project(debian_postgres, "t_readmes_loop")
    subprocess.run(
        ["bash", "-euc", loop],
        cwd=MIGRATIONS.parent,
        env={"PATH": f"{PSQL_DIRECTORY}:{os.defpath}", "DATABASE_URL": database.owner_dsn},
        check=True,
        timeout=60,
        capture_output=True,
    )
    with Project(database) as project:
        faults = {
            r["name"]: r["fault"] for r in project.run("select * from hikvision_sync_check()")
        }
    assert faults["triggers"] is None
    database.drop()


def test_the_readme_names_every_file() -> None:
    assert re.findall(r"^\| `(\S+\.sql)` \|", README, re.MULTILINE) == sorted(
        path.name for path in MIGRATIONS.glob("*.sql")
    )
