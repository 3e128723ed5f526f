"""A bulk run's time over its floor: the pauses between its calls, which nothing can beat."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise

from receiver.sandbox.postgres import PostgresServer
from receiver.sandbox.world import World
from tests.benchmark.table import Row
from tests.benchmark.worlds import BOTH, Who, calls, employ_unnoticed, resync_all, served_world

NAME = "bulk"
PAUSE_S = 0.2
TERMINALS = 2


@dataclass(frozen=True, kw_only=True)
class BulkRun:
    """One bulk run: what it took, and what it had to take."""

    took_s: float
    calls: int
    answering_s: float
    """The terminals' own time, in all their answers."""
    late_s: float
    """By which calls began later than their pause was over."""

    @property
    def floor_s(self) -> float:
        return (self.calls - 1) * PAUSE_S

    @property
    def over_floor(self) -> float:
        """How far it is over the floor, in percent."""
        return (self.took_s / self.floor_s - 1) * 100

    @property
    def words(self) -> str:
        return (
            f"{self.calls} calls, floor {self.floor_s:.1f} s; of the rest terminals"
            f" {self.answering_s:.1f} s, begun late {self.late_s:.1f} s"
        )


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return a first bulk run, which brings everybody, and a second, which finds them there."""
    people = 20 if quick else 60
    with await asyncio.to_thread(PostgresServer.embedded) as postgres:
        found = {who: await _runs(who, postgres, people) for who in BOTH}
    rows = []
    for what, ours, theirs in zip(
        ("first", "second"), found["ours"], found["baseline"], strict=True
    ):
        size = f"{what} run, {people} on {TERMINALS} terminals"
        rows += [
            Row(f"{size}: over its floor", ours.over_floor, "%", theirs.over_floor),
            Row(f"{size}: all of it", ours.took_s, "s", theirs.took_s, note=ours.words),
        ]
    return rows


async def _runs(who: Who, postgres: PostgresServer, people: int) -> list[BulkRun]:
    async with served_world(who, postgres, terminals=TERMINALS, pause_s=PAUSE_S) as world:
        await employ_unnoticed(world, people)
        return [await _run(world), await _run(world)]


async def _run(world: World) -> BulkRun:
    before = len(calls(world))
    await asyncio.sleep(2 * PAUSE_S)  # no pause of before is left
    began_at = time.monotonic()
    await resync_all(world)
    took_s = time.monotonic() - began_at
    if world.disagreeing():
        raise RuntimeError("A bulk run of the benchmark left a terminal behind.")
    seen = calls(world)[before:]
    # A call is its challenge and then itself: it begins with the first, and ends with the second.
    late_s = sum(
        then.started - one.ended - PAUSE_S for one, then in pairwise(seen) if one.authenticated
    )
    return BulkRun(
        took_s=took_s,
        calls=sum(call.authenticated for call in seen),
        answering_s=sum(call.ended - call.started for call in seen),
        late_s=late_s,
    )
