"""From HR's save to every terminal holding it; half of the edits are photos, half are renames."""

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.terminal.simulated import SimulatedTerminal
from receiver.sandbox.world import World
from tests.benchmark.table import Row
from tests.benchmark.worlds import BOTH, Who, quiet, served_world

NAME = "edit_to_terminal"
PEOPLE = 5
LOOK_S = 0.001
ON_TIME_S = 30.0
BETWEEN_S = 0.15
"""Between two edits, for what either does after it: each is a single one."""

ENOUGH_FOR_P99 = 100

RENAME = "update public.angajati set nume = %s where id = %s"
NEW_PHOTO = "update public.angajati_biometrie set foto_fata_url = %s where angajat_id = %s"


@dataclass(frozen=True)
class Scene:
    """How many terminals are served, as many side by side, and how far apart calls must be."""

    terminals: int
    pause_s: float
    share: float = 1.0
    """Of all edits: those that wait for pauses take long."""

    @property
    def words(self) -> str:
        on = "1 terminal" if self.terminals == 1 else f"{self.terminals} terminals and lanes"
        return f"{on}, pause {self.pause_s:g} s"


SCENES = (Scene(1, 0.0), Scene(4, 0.0), Scene(4, 0.2, share=0.2))


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return median and worst cases, each edit made when nothing of the one before is left."""
    rows = []
    with await asyncio.to_thread(PostgresServer.embedded) as postgres:
        for scene in SCENES:
            edits = 6 if quick else round(100 * scene.share)
            took = {who: await _all_took(who, postgres, scene, edits) for who in BOTH}
            figures: dict[str, Callable[[Sequence[float]], float]] = {
                "median": statistics.median,
                "p99": _p99,
                "worst": max,
            }
            rows += [
                Row(
                    f"{scene.words}: {what}",
                    of(took["ours"]) * 1000,
                    "ms",
                    of(took["baseline"]) * 1000,
                    note=f"{edits} edits",
                )
                for what, of in figures.items()
                if what != "p99" or edits >= ENOUGH_FOR_P99
            ]
    return rows


def _p99(took: Sequence[float]) -> float:
    return sorted(took)[math.ceil(len(took) * 0.99) - 1]


async def _all_took(
    who: Who, postgres: PostgresServer, scene: Scene, edits: int
) -> Sequence[float]:
    """Make single edits one after another; return how many seconds each took to be everywhere."""
    async with (
        served_world(
            who, postgres, terminals=scene.terminals, lanes=scene.terminals, pause_s=scene.pause_s
        ) as world,
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
                await (quiet(world) if scene.pause_s else asyncio.sleep(BETWEEN_S))
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
        while not all(_holds(s.terminal, hired, value) for s in world.sites):  # noqa: ASYNC110 - HTTP terminals tell nobody
            await asyncio.sleep(LOOK_S)
    return time.monotonic() - began_at


def _holds(terminal: SimulatedTerminal, hired: Hired, value: str) -> bool:
    person = terminal.persons[str(hired.employee_no)]
    return person.name == f"{value} Ion" or (person.face is not None and person.face.url == value)
