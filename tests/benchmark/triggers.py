"""What the triggers cost HR's statements, with 50 terminals and both Vault secrets.

In Debian's Postgres 15 where it is installed: it has the real pgcrypto, whose stand-in in the wheel
takes longer to sign a webhook. pg_net's queue is the sandbox's.
"""

import asyncio
import statistics
import time
from pathlib import Path

import psycopg

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.database.project import apply_migrations, create_project
from tests.benchmark.table import Row

NAME = "triggers"
DEBIAN_BINARIES = Path("/usr/lib/postgresql/15/bin")
TERMINALS = 50
REPEATS = 3
TABLES = ("angajati", "angajati_biometrie")
OURS = ("hikvision_sync_inserted", "hikvision_sync_updated", "hikvision_sync_deleted")

IMPORT = "insert into angajati (nume, prenume) select 'n' || n, 'Ion' from generate_series(1, %s) n"
STATEMENTS = {
    "import of employees": IMPORT,
    "import of numbers and photos": (
        "insert into angajati_biometrie (angajat_id, foto_fata_url)"
        " select id, id || '.jpg' from angajati"
    ),
    "rename of everybody": "update angajati set nume = nume || 'x'",
    "save that changes nothing of ours": "update angajati set salariu = coalesce(salariu, 0) + 1",
}
ONE = "update angajati set nume = nume || 'x' where id = (select min(id::text)::uuid from angajati)"

Connection = psycopg.Connection[tuple[object, ...]]


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return the cost of whole-table statements per row, and of a single save."""
    return await asyncio.to_thread(_measure, 500 if quick else 5000)


def _measure(employees: int) -> list[Row]:
    debian = DEBIAN_BINARIES.is_dir()
    with (
        PostgresServer.from_binaries(DEBIAN_BINARIES) if debian else PostgresServer.embedded()
    ) as server:
        database = create_project(server, "benchmark")
        apply_migrations(database)
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            _prepare(connection)
            found = {ours: _took(connection, employees, ours=ours) for ours in (True, False)}
    rows = []
    for what, took_s in found[True].items():
        without_s = found[False][what]
        count = 1 if what == "single save" else employees
        rows.append(
            Row(
                what if count == 1 else f"{what}, {count:,} in a statement",
                took_s * 1000,
                "ms",
                without_s * 1000,
                note=f"{(took_s - without_s) / count * 1e6:.0f} µs a row are ours",
            )
        )
    return rows


def _prepare(connection: Connection) -> None:
    connection.execute(
        "insert into dispozitive_pontaj (ip_address, username, password_encrypted)"
        " select '10.0.0.' || n, 'admin', 'x' from generate_series(1, %s) n",
        (TERMINALS,),
    )
    for name, value in (
        ("hikvision_sync_webhook_url", "http://127.0.0.1:9/webhooks/supabase"),
        ("hikvision_sync_webhook_secret", "whsec_c2VjcmV0IG9mIHRoZSBiZW5jaG1hcms="),
    ):
        connection.execute("select vault.create_secret(%s, %s)", (value, name))


def _took(connection: Connection, employees: int, *, ours: bool) -> dict[str, float]:
    """Return how many seconds each statement took, with our triggers or without: medians."""
    for table in TABLES:
        for trigger in OURS:
            switch = "enable" if ours else "disable"
            connection.execute(f"alter table {table} {switch} trigger {trigger}".encode())
    took: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        connection.execute(
            "truncate angajati, angajati_biometrie, hikvision_sync.edits, net.http_request_queue"
        )
        for what, statement in STATEMENTS.items():
            count = (employees,) if statement is IMPORT else None
            took.setdefault(what, []).append(_timed(connection, statement, count))
        took.setdefault("single save", []).append(
            statistics.median(_timed(connection, ONE) for _ in range(REPEATS))
        )
    return {what: statistics.median(seconds) for what, seconds in took.items()}


def _timed(
    connection: Connection, statement: str, parameters: tuple[int, ...] | None = None
) -> float:
    began_at = time.monotonic()
    connection.execute(statement.encode(), parameters)
    return time.monotonic() - began_at
