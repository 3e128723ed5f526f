"""The gate, under a clock that moves only when everybody waits."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.core.errors import LeaseLost, Stopping, SupabaseRefused, SupabaseUnreachable
from receiver.sync.gate import LEASE_MARGIN_S, LEASE_SPARE_S, Gate, Lease

ONE, TWO, THREE, FOUR = (UUID(int=n) for n in range(1, 5))
CALL_S = 15.0
TURNS_OF_THE_LOOP = 12
"""More than anything here needs from being woken to waiting again."""


class Time:
    """Virtual time: a sleep ends when the clock gets there, and it gets there when all are idle."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), woken))
        await woken

    async def settle(self) -> None:
        """Let everybody run until they wait for something."""
        for _ in range(TURNS_OF_THE_LOOP):
            await asyncio.sleep(0)

    async def until_done(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        tasks = list(tasks)
        await self.settle()
        while not all(task.done() for task in tasks):
            assert self._sleepers, "somebody waits for what will never come"
            at, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self.now = max(self.now, at)
                woken.set_result(None)
                await self.settle()


@dataclass(frozen=True)
class Call:
    terminal: UUID
    begin: float
    end: float


@dataclass
class World:
    """A gate, its time, and the calls with their times."""

    lanes: int = 1
    pause_s: float = 1.0
    time: Time = field(default_factory=Time)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = Gate(
            lanes=self.lanes, pause_s=self.pause_s, clock=self.time, sleep=self.time.sleep
        )

    def lease(self) -> Lease:
        """Return a lease that outlasts every test."""
        return Lease(never, until=1e9, clock=self.time)

    async def call(
        self, terminal: UUID, lasts_s: float = 0.5, after_s: float = 0.0, lease: Lease | None = None
    ) -> None:
        if after_s:
            await self.time.sleep(after_s)
        async with self.gate.turn(terminal, lease or self.lease(), CALL_S):
            begin = self.time()
            try:
                await self.time.sleep(lasts_s)
            finally:
                self.calls.append(Call(terminal, begin, self.time()))

    def start(self, *calls: Awaitable[None]) -> list[asyncio.Task[None]]:
        return [asyncio.ensure_future(call) for call in calls]

    async def play(self, *calls: Awaitable[None]) -> list[Call]:
        """Make these calls at once and return them in the order in which they began."""
        tasks = self.start(*calls)
        await self.time.until_done(tasks)
        for task in tasks:
            task.result()
        return sorted(self.calls, key=lambda call: call.begin)


async def never(_seconds: float) -> None:
    raise AssertionError("the lease must not be renewed")


def spaced(calls: Iterable[Call], pause_s: float) -> bool:
    """Tell whether each call began the pause after the end of the one before it."""
    ordered = sorted(calls, key=lambda call: call.begin)
    return all(b.begin >= a.end + pause_s for a, b in itertools.pairwise(ordered))


def most_at_once(calls: Iterable[Call]) -> int:
    calls = list(calls)
    return max(sum(1 for c in calls if c.begin <= at.begin < c.end) for at in calls)


@pytest.mark.parametrize("lanes", [1, 2, 5])
async def test_one_terminal_gets_one_call_at_a_time_and_the_pause_between(lanes: int) -> None:
    world = World(lanes=lanes, pause_s=2.0)
    calls = await world.play(*(world.call(ONE, lasts_s=3.0) for _ in range(4)))
    assert [call.begin for call in calls] == [1000, 1005, 1010, 1015]


async def test_one_lane_makes_one_call_at_a_time_over_all_terminals() -> None:
    world = World(lanes=1, pause_s=2.0)
    calls = await world.play(*(world.call(t, lasts_s=3.0) for t in (ONE, TWO, THREE)))
    assert [call.begin for call in calls] == [1000, 1005, 1010]
    assert {call.terminal for call in calls} == {ONE, TWO, THREE}


async def test_as_many_terminals_as_lanes_run_side_by_side_and_no_more() -> None:
    world = World(lanes=3, pause_s=2.0)
    calls = await world.play(*(world.call(t, lasts_s=3.0) for t in (ONE, TWO, THREE, FOUR)))
    assert [call.begin for call in calls] == [1000, 1000, 1000, 1005]


async def test_the_first_call_waits_for_nothing() -> None:
    world = World(pause_s=60.0)
    assert (await world.play(world.call(ONE)))[0].begin == 1000


async def test_a_pause_that_is_over_is_not_waited_for_again() -> None:
    world = World(pause_s=2.0)
    calls = await world.play(world.call(ONE, lasts_s=1.0), world.call(ONE, after_s=50.0))
    assert [call.begin for call in calls] == [1000, 1050]


@settings(deadline=None, max_examples=60)
@given(
    lanes=st.integers(1, 4),
    pause_s=st.sampled_from([0.0, 0.25, 1.0, 4.0]),
    wanted=st.lists(
        st.tuples(
            st.sampled_from([ONE, TWO, THREE, FOUR]),
            st.sampled_from([0.25, 1.0, 7.5]),
            st.sampled_from([0.0, 0.5, 3.0, 20.0]),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_calls_begun_at_any_time_are_made_alone_and_spaced(
    lanes: int, pause_s: float, wanted: list[tuple[UUID, float, float]]
) -> None:
    async def play() -> list[Call]:
        world = World(lanes=lanes, pause_s=pause_s)
        return await world.play(*(world.call(t, lasts, after) for t, lasts, after in wanted))

    calls = asyncio.run(play())
    assert len(calls) == len(wanted)
    assert most_at_once(calls) <= lanes
    for terminal in (ONE, TWO, THREE, FOUR):
        assert spaced([call for call in calls if call.terminal == terminal], pause_s)
    if lanes == 1:
        assert spaced(calls, pause_s)


async def test_a_call_that_fails_still_leaves_the_pause_and_its_error_is_raised() -> None:
    world = World(lanes=1, pause_s=2.0)

    async def fail() -> None:
        async with world.gate.turn(ONE, world.lease(), CALL_S):
            await world.time.sleep(3.0)
            raise ZeroDivisionError

    failed, *others = world.start(fail(), world.call(ONE), world.call(TWO))
    await world.time.until_done([failed, *others])
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert [call.begin for call in world.calls] == [1005, 1007.5]


async def test_a_call_that_is_cancelled_midway_still_leaves_the_pause() -> None:
    world = World(lanes=1, pause_s=2.0)
    (task,) = world.start(world.call(ONE, lasts_s=30.0))
    await world.time.settle()
    world.time.now += 1.0
    task.cancel()
    await world.time.settle()
    calls = await world.play(world.call(ONE), world.call(TWO))
    assert [call.begin for call in calls] == [1000, 1003, 1005.5]


class Renewals:
    """Supabase's side of a lease: the seconds asked for, how long the answer took, or a failure."""

    def __init__(self, time: Time, *takes_s: float, error: Exception | None = None) -> None:
        self.time = time
        self.asked: list[float] = []
        self.until = 0.0
        self._takes_s = iter(takes_s)
        self._error = error

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        asked_at = self.time.now
        self.time.now += next(self._takes_s, 0.0)
        if self._error:
            raise self._error
        self.until = asked_at + seconds


@pytest.mark.parametrize(
    ("left_s", "renewed"),
    [(1000.0, False), (CALL_S + LEASE_MARGIN_S, False), (CALL_S + LEASE_MARGIN_S - 0.5, True),
     (0.0, True), (-60.0, True)],
)  # fmt: skip
async def test_a_lease_is_renewed_only_where_it_does_not_outlast_the_call(
    left_s: float,
    renewed: bool,  # noqa: FBT001
) -> None:
    time = Time()
    renewals = Renewals(time)
    await Lease(renewals, until=time.now + left_s, clock=time).ensure(CALL_S)
    assert renewals.asked == ([CALL_S + LEASE_MARGIN_S + LEASE_SPARE_S] if renewed else [])


async def test_a_renewed_lease_is_not_renewed_again_before_it_must_be() -> None:
    time = Time()
    renewals = Renewals(time)
    lease = Lease(renewals, until=time.now, clock=time)
    await lease.ensure(CALL_S)
    await lease.ensure(CALL_S)
    time.now += LEASE_SPARE_S
    await lease.ensure(CALL_S)
    assert len(renewals.asked) == 1
    time.now += 0.5
    await lease.ensure(CALL_S)
    assert len(renewals.asked) == 2


async def test_a_lease_that_another_call_lengthened_is_not_renewed_and_never_shortened() -> None:
    time = Time()
    lease = Lease(never, until=time.now, clock=time)
    lease.renewed(asked_at=time.now, lease_s=100.0)
    lease.renewed(asked_at=time.now, lease_s=1.0)
    await lease.ensure(CALL_S)


@pytest.mark.parametrize("takes_s", [LEASE_MARGIN_S + 0.5, 25.0, 77.0])
async def test_no_call_begins_under_a_lease_that_was_renewed_too_slowly_to_outlast_it(
    takes_s: float,
) -> None:
    """Renewed in time, answered late: by then less than the length of the call may be left."""
    world = World()
    renewals = Renewals(world.time, takes_s)
    lease = Lease(renewals, until=world.time.now, clock=world.time)
    (task,) = world.start(world.call(ONE, lease=lease))
    await world.time.until_done([task])
    if isinstance(task.exception(), LeaseLost):
        assert world.calls == []
    else:
        assert renewals.until >= world.calls[0].begin + CALL_S


@pytest.mark.parametrize("error", [SupabaseUnreachable(), SupabaseRefused(), LeaseLost()])
async def test_no_call_begins_where_the_lease_cannot_be_renewed(error: Exception) -> None:
    world = World(pause_s=2.0)
    lease = Lease(Renewals(world.time, error=error), until=world.time.now, clock=world.time)
    (task,) = world.start(world.call(ONE, lease=lease))
    await world.time.settle()
    assert task.exception() is error
    calls = await world.play(world.call(ONE), world.call(TWO))
    assert [call.begin for call in calls] == [1000, 1002.5], "no call was made, so no pause is due"


async def test_the_lease_is_renewed_in_the_pause_so_that_the_call_follows_it_at_once() -> None:
    world = World(pause_s=30.0)
    renewals = Renewals(world.time, 4.0)
    lease = Lease(renewals, until=world.time.now + 40.0, clock=world.time)
    first, second = await world.play(
        world.call(ONE, lasts_s=1.0), world.call(ONE, lasts_s=14.0, lease=lease)
    )
    assert second.begin == first.end + 30.0
    assert renewals.asked == [30.0 + CALL_S + LEASE_MARGIN_S + LEASE_SPARE_S]
    assert renewals.until >= second.begin + CALL_S


async def test_the_lease_is_checked_again_after_a_wait_that_took_too_long() -> None:
    """The process may have been stopped during the wait."""
    world = World(pause_s=1.0)
    renewals = Renewals(world.time)
    await world.play(world.call(ONE))
    lease = Lease(renewals, until=world.time.now + 25.0, clock=world.time)
    waiting = world.start(world.call(ONE, lease=lease))
    await world.time.settle()
    assert renewals.asked == []
    world.time.now += 20.0
    await world.time.until_done(waiting)
    assert renewals.asked == [CALL_S + LEASE_MARGIN_S + LEASE_SPARE_S]


async def test_after_close_no_call_begins() -> None:
    world = World()
    world.gate.close()
    (task,) = world.start(world.call(ONE))
    await world.time.settle()
    assert isinstance(task.exception(), Stopping)
    assert world.calls == []


async def test_close_lets_the_call_in_progress_end_and_sends_waiting_calls_away() -> None:
    world = World(lanes=1, pause_s=2.0)
    running, *waiting = world.start(
        world.call(ONE, lasts_s=5.0), world.call(ONE), world.call(ONE), world.call(TWO)
    )
    await world.time.settle()
    world.gate.close()
    await world.time.until_done([running, *waiting])
    assert running.exception() is None
    assert [type(task.exception()) for task in waiting] == [Stopping] * 3
    assert [call.end for call in world.calls] == [1005]
    assert world.time.now == 1005, "nobody waits for a pause before being sent away"


async def test_close_sends_away_at_once_a_call_that_waits_for_the_end_of_a_pause() -> None:
    world = World(lanes=1, pause_s=60.0)
    await world.play(world.call(ONE, lasts_s=1.0))
    same, other = world.start(world.call(ONE), world.call(TWO))
    await world.time.settle()
    world.gate.close()
    await world.time.settle()
    assert [task.done() for task in (same, other)] == [True, True]
    assert [type(task.exception()) for task in (same, other)] == [Stopping, Stopping]


async def test_close_during_the_renewal_of_the_lease_still_stops_the_call() -> None:
    world = World()

    async def renew_and_close(_seconds: float) -> None:
        world.gate.close()

    lease = Lease(renew_and_close, until=world.time.now, clock=world.time)
    (task,) = world.start(world.call(ONE, lease=lease))
    await world.time.settle()
    assert isinstance(task.exception(), Stopping)
    assert world.calls == []


def waits_for_the_lock(world: World) -> Awaitable[None]:
    return world.call(ONE)


def waits_for_the_lane(world: World) -> Awaitable[None]:
    return world.call(TWO)


@pytest.mark.parametrize("waiter", [waits_for_the_lock, waits_for_the_lane])
async def test_a_turn_cancelled_while_it_waits_leaves_the_gate_free(
    waiter: Callable[[World], Awaitable[None]],
) -> None:
    world = World(lanes=1, pause_s=2.0)
    running, waiting = world.start(world.call(ONE, lasts_s=5.0), waiter(world))
    await world.time.settle()
    waiting.cancel()
    await world.time.until_done([running, waiting])
    assert waiting.cancelled()
    calls = await world.play(world.call(ONE), world.call(TWO))
    assert [call.begin for call in calls] == [1000, 1007, 1009.5]


@pytest.mark.parametrize("terminal", [ONE, TWO], ids=["pause of the terminal", "pause of the lane"])
async def test_a_turn_cancelled_in_a_pause_leaves_the_gate_free_and_the_pause_stays(
    terminal: UUID,
) -> None:
    world = World(lanes=1, pause_s=2.0)
    await world.play(world.call(ONE, lasts_s=1.0))
    (waiting,) = world.start(world.call(terminal))
    await world.time.settle()
    waiting.cancel()
    await world.time.settle()
    assert waiting.cancelled()
    calls = await world.play(world.call(ONE), world.call(TWO))
    assert [call.begin for call in calls] == [1000, 1003, 1005.5]


async def test_a_turn_cancelled_during_the_renewal_leaves_the_gate_free() -> None:
    world = World(lanes=1, pause_s=2.0)
    lease = Lease(world.time.sleep, until=world.time.now, clock=world.time)
    (waiting,) = world.start(world.call(ONE, lease=lease))
    await world.time.settle()
    waiting.cancel()
    await world.time.settle()
    assert waiting.cancelled()
    calls = await world.play(world.call(ONE), world.call(TWO))
    assert [call.begin for call in calls] == [1000, 1002.5]
