"""A bulk run's time over its floor: the pauses between its calls, which nothing can beat."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.world import World
from tests.benchmark.table import Row
from tests.benchmark.worlds import BOTH, Who, calls, resync_all, served_world
from tests.support.buttons import hire_unnoticed

NAME = "bulk"
TERMINALS = 2
QUICK_PEOPLE = 10


@dataclass(frozen=True, kw_only=True)
class Where:
    """How far apart calls must be, and how far away Supabase is."""

    people: int
    pause_s: float
    supabase_s: float = 0.0
    """How much longer each answer of Supabase's takes than on loopback."""

    @property
    def words(self) -> str:
        away = f", Supabase {self.supabase_s * 1000:.0f} ms away" if self.supabase_s else ""
        return f"pause {self.pause_s:g} s{away}"


WHERE = (
    Where(people=60, pause_s=0.2),
    Where(people=10, pause_s=1.0, supabase_s=0.04),
)
"""A short pause, which little can be hidden in; and the default one, with the cloud's distance."""


@dataclass(frozen=True, kw_only=True)
class BulkRun:
    """One bulk run: the time that it took, and the least that it could take."""

    took_s: float
    pause_s: float
    calls: int
    answering_s: float
    """The terminals' own time, in all their answers."""
    late_s: float
    """By which calls began later than their pause was over."""

    @property
    def floor_s(self) -> float:
        return (self.calls - 1) * self.pause_s

    @property
    def over_floor(self) -> float:
        """How much of our own time is on top of pauses and terminals, in percent of the floor."""
        return (self.took_s - self.floor_s - self.answering_s) / self.floor_s * 100

    @property
    def words(self) -> str:
        return (
            f"{self.calls} calls: floor {self.floor_s:.1f} s, the terminals' own time"
            f" {self.answering_s:.1f} s, begun after the pause {self.late_s:.1f} s"
        )


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return a first bulk run, which brings everybody, and a second, which finds them there."""
    rows = []
    with await asyncio.to_thread(PostgresServer.embedded) as postgres:
        for where in WHERE:
            if quick and where.supabase_s:
                continue
            people = QUICK_PEOPLE if quick else where.people
            found = {who: await _runs(who, postgres, people, where) for who in BOTH}
            for what, ours, theirs in zip(
                ("first", "second"), found["ours"], found["baseline"], strict=True
            ):
                size = f"{what} run, {people} on {TERMINALS} terminals, {where.words}"
                if what == "first":  # the second has a few calls, and no floor to speak of
                    rows.append(
                        Row(f"{size}: over its floor", ours.over_floor, "%", theirs.over_floor)
                    )
                rows.append(
                    Row(f"{size}: all of it", ours.took_s, "s", theirs.took_s, note=ours.words)
                )
    return rows


async def _runs(who: Who, postgres: PostgresServer, people: int, where: Where) -> list[BulkRun]:
    async with served_world(
        who, postgres, terminals=TERMINALS, pause_s=where.pause_s, supabase_s=where.supabase_s
    ) as world:
        await hire_unnoticed(world, people)
        return [await _run(world, where.pause_s), await _run(world, where.pause_s)]


async def _run(world: World, pause_s: float) -> BulkRun:
    before = len(calls(world))
    await asyncio.sleep(2 * pause_s)  # no pause of before is left
    began_at = time.monotonic()
    await resync_all(world)
    took_s = time.monotonic() - began_at
    if await world.disagreeing():
        raise RuntimeError("A bulk run of the benchmark left a terminal behind.")
    seen = calls(world)[before:]
    # A call is its challenge and then itself: it begins with the first, and ends with the second.
    late_s = sum(
        then.started - one.ended - pause_s for one, then in pairwise(seen) if one.authenticated
    )
    return BulkRun(
        took_s=took_s,
        pause_s=pause_s,
        calls=sum(call.authenticated for call in seen),
        answering_s=sum(call.ended - call.started for call in seen),
        late_s=late_s,
    )
