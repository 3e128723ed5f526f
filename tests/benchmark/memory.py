"""What the receiver has resident: at rest, and at most under each of `tests.support.storms`."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.world import World, open_world
from tests.benchmark.table import Row
from tests.support import storms

NAME = "memory"
Storm = Callable[[World], Awaitable[None]]
AT_THE_DOOR: Final[tuple[tuple[str, Storm], ...]] = (
    (
        "10,000 forged requests beside 200 true ones",
        storms.forgeries,
    ),
    (
        "500 slow clients that never finish",
        partial(storms.slow_clients, parser={}),
    ),
    (
        "1,500 silent clients",
        partial(storms.silent_clients, begins=b""),
    ),
    (
        "16 bodies that never end",
        partial(storms.endless_bodies, parser={}),
    ),
    (
        "890 bodies of 1 MiB that wait",
        partial(storms.bodies_held_back, parser={}),
    ),
    (
        "24 bodies of 1 MiB at once",
        storms.large_bodies,
    ),
)


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return the memory in MB before any storm, and the most in each of them."""
    rows = []
    with storms.many_connections(), await asyncio.to_thread(PostgresServer.embedded) as postgres:
        for what, storm in AT_THE_DOOR[: 1 if quick else None]:
            async with open_world({}, pause_s=0.02, poll_s=3600, postgres=postgres) as world:
                rows.append(await _most(what, partial(storm, world)))
        if not quick:
            imported = partial(storms.import_of_everybody, postgres)
            rows.append(await _most("5,000 employees imported, 20 terminals", imported))
    at_rest = min(memory.before for memory in storms.WATCHED) / 1e6
    return [Row("at rest", at_rest, "MB"), *rows]


async def _most(what: str, storm: Callable[[], Awaitable[None]]) -> Row:
    before = len(storms.WATCHED)
    await storm()
    return Row(what, max(memory.most for memory in storms.WATCHED[before:]) / 1e6, "MB")
