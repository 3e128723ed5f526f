"""The ledger at 5,000 employees and 50 terminals (250,000 pairs), asked directly in Postgres."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import apply_migrations, create_project
from tests.benchmark.table import Row

NAME = "ledger"
BATCH = 30
LEASE_S = 60.0
STEADY_BATCHES = 20

T = TypeVar("T")


class Receiver:
    """The questions of a receiver to the ledger, over one connection of its own."""

    def __init__(self, database: Database, name: str) -> None:
        self._name = name
        self.connection = psycopg.connect(
            database.superuser_dsn, autocommit=True, row_factory=dict_row
        )
        self.connection.execute("set role service_role")

    def call(self, verb: str, *arguments: Any) -> list[dict[str, Any]]:
        """Call one of the ledger's functions."""
        places = ", ".join(["%s"] * len(arguments))
        statement = f"select * from public.hikvision_sync_{verb}({places})"
        return self.connection.execute(statement.encode(), arguments).fetchall()

    def claim(self) -> list[dict[str, Any]]:
        """Claim a batch."""
        return self.call("claim", self._name, LEASE_S, BATCH, 900.0, None, None)

    def record(self, pair: dict[str, Any]) -> None:
        """Record one pair as brought there, under a number of its own."""
        outcome = {
            "employee_id": str(pair["employee_id"]),
            "version": pair["version"],
            "status": "success",
            "step": "done",
            "message": "message",
            "employee_no": str(pair["employee_id"]),
            "photo": "fingerprint",
            "confirmed_ago": 0,
        }
        self.call("record", pair["terminal_id"], pair["fence"], LEASE_S, Jsonb([outcome]))

    def release(self, pair: dict[str, Any]) -> None:
        """Give the terminal back."""
        of_terminal = (pair["terminal_id"], pair["fence"])
        rest = {"seconds": None, "reason": None, "login_refused": False}
        self.call("release", *of_terminal, 0, 0, *rest.values())


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return the times of claims, records and the status."""
    return await asyncio.to_thread(_measure, 500 if quick else 5000, 50, 1.0 if quick else 4.0)


def _measure(employees: int, terminals: int, for_s: float) -> list[Row]:
    with (
        opened_project() as database,
        psycopg.connect(database.superuser_dsn, autocommit=True) as admin,
    ):
        _import(admin, employees, terminals)
        receiver = Receiver(database, "first")
        spreading = []
        while admin.execute("select from hikvision_sync.edits limit 1").fetchall():
            seconds, pairs = timed(receiver.claim)
            spreading.append(seconds * 1000)
            receiver.release(pairs[0])
        admin.execute("vacuum analyze hikvision_sync.pairs")  # as autovacuum does before long
        claiming, recording = _steady(receiver)
        all_pairs = f"{employees * terminals:,} pairs"
        rows = [
            Row(
                "claim while an import is spread: median",
                statistics.median(spreading),
                "ms",
                note=f"{employees:,} edits over {terminals} terminals in {len(spreading)} claims",
            ),
            Row("claim while an import is spread: longest", max(spreading), "ms"),
            Row(f"claim of {BATCH}: median", statistics.median(claiming), "ms", note=all_pairs),
            Row("record: median", statistics.median(recording), "ms"),
        ]
        for connections in (1, 4):
            by = "1 connection" if connections == 1 else f"{connections} connections"
            claims = _claims_per_s(database, connections, for_s, record=False)
            served = _claims_per_s(database, connections, for_s, record=True)
            rows += [
                Row(f"claim and release, {by}", claims, "/s", better="more"),
                Row(f"pairs claimed and recorded, {by}", served * BATCH, "/s", better="more"),
            ]
        status = [timed(lambda: receiver.call("status"))[0] * 1000 for _ in range(3)]
        rows.append(Row("status of all terminals", statistics.median(status), "ms", note=all_pairs))
        receiver.connection.close()
    return rows


@contextmanager
def opened_project() -> Iterator[Database]:
    """Open a database with the company's tables and ours, on a server of its own."""
    with PostgresServer.embedded() as server:
        database = create_project(server, "benchmark")
        apply_migrations(database)
        yield database


def _import(admin: psycopg.Connection[tuple[Any, ...]], employees: int, terminals: int) -> None:
    admin.execute(
        "insert into dispozitive_pontaj (ip_address, username, password_encrypted)"
        " select '10.0.0.' || n, 'admin', 'x' from generate_series(1, %s) n",
        (terminals,),
    )
    admin.execute("delete from hikvision_sync.edits")  # these terminals were filled long ago
    admin.execute(
        "insert into angajati (nume, prenume) select 'Popescu' || n, 'Ion'"
        " from generate_series(1, %s) n",
        (employees,),
    )


def _steady(receiver: Receiver) -> tuple[list[float], list[float]]:
    """Serve some batches; return how many milliseconds each claim and each record took."""
    claiming, recording = [], []
    for _ in range(STEADY_BATCHES):
        seconds, pairs = timed(receiver.claim)
        claiming.append(seconds * 1000)
        recording += [timed(partial(receiver.record, pair))[0] * 1000 for pair in pairs]
        receiver.release(pairs[0])
    return claiming, recording


def _claims_per_s(database: Database, connections: int, for_s: float, *, record: bool) -> float:
    """Let so many receivers claim and give back as fast as they can, with or without recording."""

    def claimed(name: str) -> int:
        receiver, claims = Receiver(database, name), 0
        while time.monotonic() < ends_at:
            pairs = receiver.claim()
            for pair in pairs if record else ():
                receiver.record(pair)
            receiver.release(pairs[0])
            claims += 1
        receiver.connection.close()
        return claims

    with ThreadPoolExecutor(connections) as threads:
        began_at = time.monotonic()
        ends_at = began_at + for_s
        claims = sum(threads.map(claimed, [f"receiver {n}" for n in range(connections)]))
        return claims / (time.monotonic() - began_at)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Do some work; return how many seconds it took, and what came of it."""
    began_at = time.monotonic()
    done = work()
    return time.monotonic() - began_at, done
