"""What the receiver has resident: at rest, and at most under each of `tests.whole.test_storms`."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.world import World, open_world
from tests.benchmark.table import Row
from tests.whole import test_storms as storms

NAME = "memory"
Storm = Callable[[World], Awaitable[None]]
AT_THE_DOOR: Final[tuple[tuple[str, Storm], ...]] = (
    (
        "10,000 forged requests beside 200 true ones",
        storms.test_10000_forgeries_beside_200_webhooks,
    ),
    (
        "500 slow clients that never finish",
        partial(storms.test_500_slow_clients_displace_no_webhook_and_are_all_let_go, parser={}),
    ),
    (
        "1,500 silent clients",
        partial(storms.test_more_silent_clients_than_there_may_be_displace_no_webhook, begins=b""),
    ),
    (
        "16 bodies that never end",
        partial(storms.test_a_body_that_never_ends_takes_no_memory_and_is_ended, parser={}),
    ),
    (
        "890 bodies of 1 MiB held back",
        partial(storms.test_hundreds_of_bodies_held_back_at_once_take_little_memory, parser={}),
    ),
    (
        "24 bodies of 1 MiB at once",
        storms.test_large_bodies_take_turns_and_each_gets_its_answer,
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
            imported = partial(
                storms.test_5000_employees_imported_in_one_statement_with_20_terminals, postgres
            )
            rows.append(await _most("5,000 employees imported, 20 terminals", imported))
    at_rest = min(memory.before for memory in storms.WATCHED) / 1e6
    return [Row("at rest", at_rest, "MB"), *rows]


async def _most(what: str, storm: Callable[[], Awaitable[None]]) -> Row:
    before = len(storms.WATCHED)
    await storm()
    return Row(what, max(memory.most for memory in storms.WATCHED[before:]) / 1e6, "MB")
