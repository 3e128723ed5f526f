"""From HR's save to every terminal holding it, without pauses between calls; photos and renames."""

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Sequence

import psycopg

from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.postgres import PostgresServer
from receiver.sandbox.terminal import SimulatedTerminal
from receiver.sandbox.world import World
from tests.benchmark.table import Row
from tests.benchmark.worlds import BOTH, Who, quiet, served_world, terminals_of

NAME = "edit_to_terminal"
PEOPLE = 5
LOOK_S = 0.001
ON_TIME_S = 30.0
BETWEEN_S = 0.15
"""Between two edits, for what either does after it: each is a single one."""

RENAME = "update public.angajati set nume = %s where id = %s"
NEW_PHOTO = "update public.angajati_biometrie set foto_fata_url = %s where angajat_id = %s"


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return medians and worst cases with one terminal, and with four side by side."""
    edits = 10 if quick else 100
    rows = []
    with await asyncio.to_thread(PostgresServer.embedded) as postgres:
        for terminals in (1, 4):
            took = {who: await _all_took(who, postgres, terminals, edits) for who in BOTH}
            for what, of in (("median", statistics.median), ("99 of 100", _p99), ("worst", max)):
                figure: Callable[[Sequence[float]], float] = of
                on = "1 terminal" if terminals == 1 else f"{terminals} terminals, as many lanes"
                rows.append(
                    Row(
                        what=f"{on}: {what}",
                        ours=figure(took["ours"]) * 1000,
                        unit="ms",
                        baseline=figure(took["baseline"]) * 1000,
                        note=f"{edits} single edits" if what == "median" else "",
                    )
                )
    return rows


def _p99(took: Sequence[float]) -> float:
    return sorted(took)[math.ceil(len(took) * 0.99) - 1]


async def _all_took(
    who: Who, postgres: PostgresServer, terminals: int, edits: int
) -> Sequence[float]:
    """Make single edits one after another; return how many seconds each took to be everywhere."""
    async with (
        served_world(who, postgres, terminals=terminals, lanes=terminals) as world,
        Hr(world.supabase) as hr,
    ):
        people = [
            await hr.hire(f"Popescu{n}", "Ion", photo=f"first-{n}.jpg") for n in range(PEOPLE)
        ]
        photos = [await hr.upload(f"edit-{n}.jpg") for n in range(edits)]
        await quiet(world)
        took = []
        async with await psycopg.AsyncConnection.connect(
            world.database.owner_dsn, autocommit=True
        ) as connection:
            for n, photo in enumerate(photos):
                took.append(await _took(world, connection, people[n % PEOPLE], n, photo))
                await asyncio.sleep(BETWEEN_S)
    return took


async def _took(
    world: World,
    connection: psycopg.AsyncConnection[tuple[object, ...]],
    hired: Hired,
    n: int,
    photo: str,
) -> float:
    """Save one edit; return how many seconds later the last terminal held it."""
    statement, value = (RENAME, f"Ionescu{n}") if n % 2 else (NEW_PHOTO, photo)
    began_at = time.monotonic()
    await connection.execute(statement.encode(), (value, hired.id))
    async with asyncio.timeout(ON_TIME_S):
        while not all(_holds(t, hired, value) for t in terminals_of(world)):  # noqa: ASYNC110 - HTTP terminals tell nobody
            await asyncio.sleep(LOOK_S)
    return time.monotonic() - began_at


def _holds(terminal: SimulatedTerminal, hired: Hired, value: str) -> bool:
    person = terminal.persons[str(hired.employee_no)]
    return person.name == f"{value} Ion" or (person.face is not None and person.face.url == value)
