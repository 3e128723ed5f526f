"""A Supabase project's database as its owner sees it, for tests that speak SQL."""

import time
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from receiver.sandbox.database.postgres import Database

Row = dict[str, Any]


class Project:
    """One autocommitting connection as project_owner, and the questions of tests."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.connection = psycopg.connect(database.owner_dsn, autocommit=True, row_factory=dict_row)
        self._warnings: list[str] = []
        self.connection.add_notice_handler(self._noticed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(self, statement: str | psycopg.sql.Composed, *parameters: Any) -> list[Row]:
        """Run one statement and return its rows, if it has any."""
        query = statement.encode() if isinstance(statement, str) else statement
        cursor = self.connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def warnings(self) -> list[str]:
        """Return the warnings so far; the list goes on growing."""
        return self._warnings

    def queued(self) -> list[Row]:
        """Return the requests that wait for pg_net, as they will be sent, in order."""
        rows = self.run("select * from net.http_request_queue order by id")
        return [{**row, "body": bytes(row["body"])} for row in rows]

    def edits(self) -> list[str]:
        """Return the employees whose edits wait to be spread, in order."""
        rows = self.run(
            "select employee_id::text from hikvision_sync.edits"
            " where employee_id is not null order by id"
        )
        return [row["employee_id"] for row in rows]

    def fills(self) -> list[str]:
        """Return the terminals that wait to be filled with everybody, in order."""
        rows = self.run(
            "select terminal_id::text from hikvision_sync.edits"
            " where employee_id is null order by id"
        )
        return [row["terminal_id"] for row in rows]

    def _noticed(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "")


def wait_until_somebody_waits_for(project: Project) -> None:
    """Return once another session waits for a lock that this project's session holds."""
    with Project(project.database) as onlooker:
        deadline = time.monotonic() + 20
        while not onlooker.run(
            "select pid from pg_locks where not granted and %s = any (pg_blocking_pids(pid))",
            project.connection.info.backend_pid,
        ):
            assert time.monotonic() < deadline, "nobody waits"
