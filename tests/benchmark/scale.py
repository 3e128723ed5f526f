"""10,000 employees and 50 terminals: all 500,000 pairs wanted, and a run of all of them."""

import asyncio
import gc
import statistics
from collections.abc import AsyncIterable
from functools import partial
from typing import Any
from uuid import UUID

import psutil
import psycopg
from starlette.responses import StreamingResponse

from receiver.core.models import Held, Outcome, Terminal
from receiver.on_demand.progress import Result, Run
from receiver.web.ndjson import lines
from receiver.web.pieces import in_pieces
from tests.benchmark.ledger import BATCH, Receiver, opened_project, timed
from tests.benchmark.table import Row

NAME = "scale"
CLAIMS = 20
EDITS_PER_EMPLOYEE = 20

BUILD = (
    """insert into dispozitive_pontaj (ip_address, username, password_encrypted)
       select '10.0.0.' || n, 'admin', 'x' from generate_series(1, %(terminals)s) n""",
    """insert into angajati (nume, prenume)
       select 'Popescu' || n, 'Ion' from generate_series(1, %(employees)s) n""",
    """insert into angajati_biometrie (angajat_id, employee_no)
       select id, row_number() over () from angajati""",
    """insert into hikvision_sync.terminals (terminal_id, looked_at)
       select id, now() from dispozitive_pontaj""",
    """insert into hikvision_sync.pairs (terminal_id, employee_id, attempts, next_attempt_at,
           status, step, message, recorded_at, employee_no)
       select device.id, biometrics.angajat_id, 3, now() + interval '1 day', 'fatal', 'person',
           'The terminal refused ' || biometrics.employee_no || '.', now(), biometrics.employee_no
       from dispozitive_pontaj device cross join angajati_biometrie biometrics""",
)
"""As if every push had failed three times, each for a reason with its person's number in it."""

DUE = {
    "none due": "false",
    "one due": "(terminal_id, employee_id) = (select terminal_id, employee_id"
    " from hikvision_sync.pairs order by employee_id desc limit 1)",
    "all of one terminal due": "terminal_id = (select id from dispozitive_pontaj limit 1)",
    "all due": "true",
}


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return the times of claim, status and check, and what a run of all pairs costs."""
    employees, terminals = (1000, 10) if quick else (10_000, 50)
    ledger = await asyncio.to_thread(_ledger, employees, terminals)
    return [*ledger, *await _run(employees, terminals)]


def _ledger(employees: int, terminals: int) -> list[Row]:
    rows = []
    with (
        opened_project() as database,
        psycopg.connect(database.superuser_dsn, autocommit=True) as admin,
    ):
        admin.execute("set session_replication_role = replica")  # HR's saves are not measured
        for statement in BUILD:
            named = {"employees": employees, "terminals": terminals}
            admin.execute(statement.encode(), named)
        admin.execute("vacuum analyze")
        receiver = Receiver(database, "first")
        for what, which in DUE.items():
            due = f"update hikvision_sync.pairs set next_attempt_at = now() where {which}"
            admin.execute(due.encode())
            admin.execute("vacuum hikvision_sync.pairs")  # as autovacuum does; it is not analyzed
            took = _claims(receiver)
            figures = statistics.median(took), max(took)
            for figure, word in zip(figures, ("median", "longest"), strict=True):
                note = f"of {CLAIMS} claims of {BATCH}" if what == "none due" else ""
                rows.append(Row(f"claim, {what}: {word}", figure, "ms", note=note))
        admin.execute(
            "insert into hikvision_sync.edits (employee_id)"
            " select id from angajati, generate_series(1, %s)",
            (EDITS_PER_EMPLOYEE,),
        )
        edits = f"{employees * EDITS_PER_EMPLOYEE:,} edits wait"
        for verb in ("status", "check"):
            took = [timed(partial(receiver.call, verb))[0] for _ in range(3)]
            rows.append(Row(f"{verb}: median", statistics.median(took) * 1000, "ms", note=edits))
        receiver.connection.close()
    return rows


def _claims(receiver: Receiver) -> list[float]:
    """Return how many milliseconds each of some claims took; each terminal is given back."""
    took = []
    for _ in range(CLAIMS):
        seconds, pairs = timed(receiver.claim)
        took.append(seconds * 1000)
        for pair in pairs[:1]:
            receiver.release(pair)
    return took


async def _run(employees: int, terminals: int) -> list[Row]:
    """Return what a run keeps, and how long its answers keep other work waiting at most."""
    process = psutil.Process()
    terminal = Terminal(id=UUID(int=1), host="10.0.0.1", port=80, username="a", password="b")
    gc.collect()
    before = process.memory_info().rss
    run = Run(
        employee_ids=[UUID(int=n) for n in range(employees)],
        terminals=[(UUID(int=n), terminal) for n in range(terminals)],
        on_fatal="continue",
        bulk=True,
    )
    for employee_id in run.employee_ids:
        name = f"Popescu{employee_id.int} Ion"
        for terminal_id, _ in run.terminals:
            held = Held(employee_no=str(employee_id.int), photo=f"{name} {terminal_id}")
            outcome = Outcome(status="success", step="done", message="", held=held)
            run.add(
                Result(employee_id=employee_id, name=name, terminal_id=terminal_id, outcome=outcome)
            )
    run.end()
    gc.collect()
    kept = (process.memory_info().rss - before) / 1e6
    rows = [Row("what a run keeps", kept, "MB", note=f"{run.total:,} results")]
    answers = {"its whole answer": in_pieces(run.progress()), "its lines": lines(run.watch(), {})}
    for what, response in answers.items():
        assert isinstance(response, StreamingResponse)
        longest_s, size = await _longest_wait(response.body_iterator)
        rows.append(
            Row(f"{what}: longest step", longest_s * 1000, "ms", note=f"{size / 1e6:.0f} MB")
        )
    return rows


async def _longest_wait(body: AsyncIterable[Any]) -> tuple[float, int]:
    """Read a body as fast as it is made; return for how long other work waited, and its size."""
    clock = asyncio.get_running_loop().time
    longest, size = 0.0, 0

    async def wait() -> None:
        nonlocal longest
        while True:
            began_at = clock()
            await asyncio.sleep(0)
            longest = max(longest, clock() - began_at)

    waiting = asyncio.create_task(wait())
    async for piece in body:
        size += len(piece)
    waiting.cancel()
    return longest, size
