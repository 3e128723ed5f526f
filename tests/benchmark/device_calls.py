"""Calls to a terminal for each pair that is brought there, on current firmware."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.world import World
from tests.benchmark.table import Row
from tests.benchmark.worlds import BOTH, Who, calls, quiet, resync_all, served_world

NAME = "device_calls"
QUICK_PEOPLE = 1


@dataclass(frozen=True)
class Counted:
    """The cost of one scenario, per pair."""

    calls: float
    round_trips: float


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return calls, and round trips with the challenges before them, per pair."""
    people = QUICK_PEOPLE if quick else 30
    with await asyncio.to_thread(PostgresServer.embedded) as postgres:
        found = {who: await _counted(who, postgres, people) for who in BOTH}
    rows = []
    for what, ours in found["ours"].items():
        theirs = found["baseline"][what]
        rows += [
            Row(f"{what}: calls", ours.calls, "per pair", theirs.calls),
            Row(f"{what}: round trips", ours.round_trips, "per pair", theirs.round_trips),
        ]
    return rows


async def _counted(who: Who, postgres: PostgresServer, people: int) -> dict[str, Counted]:
    async with served_world(who, postgres, terminals=1) as world, Hr(world.supabase) as hr:
        await hr.hire("Întâi", "Ana", photo="warm.jpg")  # the terminal is known from now on
        await quiet(world)
        hired: list[Hired] = []

        async def hire(n: int) -> None:
            hired.append(await hr.hire(f"Popescu{n}", "Ion", photo=f"{n}.jpg"))

        async def rename(n: int) -> None:
            await hr.rename(hired[n], f"Ionescu{n}")

        async def new_photo(n: int) -> None:
            await hr.new_photo(hired[n], f"{n}-new.jpg")

        found = {}
        edits: dict[str, Callable[[int], Awaitable[None]]] = {
            "new person with photo": hire,
            "rename": rename,
            "new photo": new_photo,
        }
        for what, edit in edits.items():
            before = len(calls(world))
            for n in range(people):
                await edit(n)
                await quiet(world)
            found[what] = _since(world, before, people)
        before = len(calls(world))
        await resync_all(world)
        found[f"resync of {people + 1} unchanged"] = _since(world, before, people + 1)
        return found


def _since(world: World, before: int, pairs: int) -> Counted:
    seen = calls(world)[before:]
    authenticated = sum(call.authenticated for call in seen)
    return Counted(calls=authenticated / pairs, round_trips=len(seen) / pairs)
