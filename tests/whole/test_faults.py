"""Each kind of harm that can come to a receiver, done to a real one: nothing is lost."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from tests.support.faults import (
    CUT,
    RESET,
    SILENT,
    UNHEARD,
    Fault,
    FullDisk,
    Line,
    PostOffice,
    WrongClock,
    assert_nothing_lost,
    late,
    port_of,
    put_behind,
    receiver_of,
    status,
)
from tests.support.waiting import ON_TIME_S, eventually

MODERN = Profile(name="modern")
XML = Profile(name="xml", answers="xml", has_fd_setup=False)
SLOW = Profile(name="slow", delay_s=0.2, face_delay_s=0.4)
BLIND = Profile(name="blind", has_set_up=False, has_fd_setup=False, has_search=False)
FACES_TAKE_LONG = Profile(name="faces take long", face_delay_s=1.5)
HOURS_S = 3600


class OpenWorld(Protocol):
    def __call__(self, *profiles: Profile, **options: Any) -> Awaitable[World]: ...


@pytest.fixture
async def world_of(embedded_postgres: PostgresServer) -> AsyncIterator[OpenWorld]:
    """Open a world that ends with the test."""
    async with AsyncExitStack() as stack:

        async def build(*profiles: Profile, **options: Any) -> World:
            named = {f"{i} {profile.name}": profile for i, profile in enumerate(profiles)}
            settings = {"DEVICE_TIMEOUT_SECONDS": "1", **options.pop("settings", {})}
            options = {"pause_s": 0.02, "poll_s": 0.5, "lanes": len(profiles), **options}
            options = {"postgres": embedded_postgres, **options}
            return await stack.enter_async_context(open_world(named, settings=settings, **options))

        yield build


async def hire(hr: Hr, count: int) -> list[Hired]:
    return [await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg") for n in range(count)]


async def work(world: World, hr: Hr, people: list[Hired]) -> None:
    """Edit everybody in one way or another, and hire one more."""
    for n, person in enumerate(people):
        match n % 4:
            case 0:
                await hr.rename(person, f"Redenumit{n}")
            case 1:
                await hr.new_photo(person, f"{n}-nou.jpg")
            case 2:
                await hr.set_status(person, "suspendat")
            case 3:
                await world.execute("delete from angajati where id = %s", person.id)
    await hr.hire("Încă", "Unul", photo="unul.jpg")


async def test_kill_9_at_random_moments_loses_nothing(world_of: OpenWorld) -> None:
    world = await world_of(SLOW, XML, BLIND)
    chance = random.Random(9)
    async with receiver_of(world) as receiver, Hr(world.supabase) as hr:
        people = await hire(hr, 4)
        for round_ in range(5):
            await asyncio.sleep(chance.uniform(0.0, 1.2))
            await receiver.kill()
            await hr.rename(people[round_ % 4], f"Runda{round_}")
            await receiver.start()
        await work(world, hr, people)
        await assert_nothing_lost(world, [receiver])


async def test_a_photo_that_is_taken_back_after_a_receiver_died_in_its_push_is_not_lost(
    world_of: OpenWorld,
) -> None:
    """HR's photo is again the one that the ledger last heard of; the terminal has another."""
    world = await world_of(BLIND)
    terminal = world.sites[0].terminal
    async with (
        Line(port_of(world.supabase.url)) as line,
        receiver_of(world, line=line) as receiver,
        Hr(world.supabase) as hr,
    ):
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        await assert_nothing_lost(world, [receiver])
        line.hurt(SILENT, only="hikvision_sync_record")
        await hr.new_photo(ion, "alta.jpg")
        await eventually(lambda: line.hurts)  # the terminal has it, the ledger does not know
        await receiver.kill()
        face = terminal.persons[str(ion.employee_no)].face
        assert face is not None
        assert face.url.endswith("alta.jpg")
        await hr.new_photo(ion, "ion.jpg")
        await line.repair()
        await receiver.start()
        await assert_nothing_lost(world, [receiver])


async def test_sigterm_at_random_moments_loses_nothing(world_of: OpenWorld) -> None:
    world = await world_of(SLOW, XML)
    chance = random.Random(15)
    async with receiver_of(world) as receiver, Hr(world.supabase) as hr:
        people = await hire(hr, 4)
        for round_ in range(3):
            await asyncio.sleep(chance.uniform(0.0, 1.2))
            assert await receiver.stop() in (0, -signal.SIGTERM)
            leased = await world.execute(
                "select * from hikvision_sync.terminals where leased_by is not null"
            )
            assert leased == []
            await hr.rename(people[round_ % 4], f"Runda{round_}")
            await receiver.start()
        await work(world, hr, people)
        await assert_nothing_lost(world, [receiver])


async def test_a_frozen_receiver_that_goes_on_after_another_took_over_loses_nothing(
    world_of: OpenWorld,
) -> None:
    world = await world_of(SLOW, XML)
    async with receiver_of(world) as frozen, Hr(world.supabase) as hr:
        people = await hire(hr, 4)
        await asyncio.sleep(0.7)
        frozen.freeze()
        async with receiver_of(world, port=0) as other:  # webhooks go to the frozen one
            await work(world, hr, people)
            await assert_nothing_lost(world, [other])
            frozen.thaw()
            await hr.hire("Al", "Doilea", photo="doi.jpg")
            await assert_nothing_lost(world, [other, frozen])


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_postgres_that_is_stopped_and_started_loses_nothing(
    stoppable_postgres: PostgresServer, world_of: OpenWorld, mode: Any
) -> None:
    world = await world_of(SLOW, XML, postgres=stoppable_postgres)
    async with receiver_of(world) as receiver, Hr(world.supabase) as hr:
        people = await hire(hr, 4)
        for _ in range(2):
            await asyncio.sleep(0.4)
            await asyncio.to_thread(stoppable_postgres.stop, mode)
            await asyncio.sleep(0.4)
            await asyncio.to_thread(stoppable_postgres.start)
        await work(world, hr, people)
        await assert_nothing_lost(world, [receiver])


REST_FAULTS = {
    "slow": late(2.0),
    "slower than it is waited for": late(12.0),
    "reset": RESET,
    "cut mid-body": CUT,
    "half-open": UNHEARD,
    **{str(code): status(code) for code in (401, 500, 502, 503, 520)},
    "500 though done": status(500, arrives=True),
    "401 though done": status(401, arrives=True),
}


@pytest.mark.parametrize("fault", REST_FAULTS.values(), ids=REST_FAULTS.keys())
async def test_trouble_of_supabases_rest_loses_nothing(world_of: OpenWorld, fault: Fault) -> None:
    world = await world_of(SLOW, XML)
    async with (
        Line(port_of(world.supabase.url)) as line,
        receiver_of(world, line=line) as receiver,
        Hr(world.supabase) as hr,
    ):
        people = await hire(hr, 4)
        await asyncio.sleep(0.5)
        line.hurt(fault)
        await work(world, hr, people)
        await eventually(lambda: line.hurts > 1)
        await asyncio.sleep(1.0)
        await line.repair()
        await assert_nothing_lost(world, [receiver])


async def test_refused_connections_to_supabases_rest_lose_nothing(world_of: OpenWorld) -> None:
    world = await world_of(SLOW, XML)
    async with (
        Line(port_of(world.supabase.url)) as line,
        receiver_of(world, line=line) as receiver,
        Hr(world.supabase) as hr,
    ):
        people = await hire(hr, 4)
        await asyncio.sleep(0.5)
        await line.refuse()
        await work(world, hr, people)
        await asyncio.sleep(1.0)
        await line.repair()
        await assert_nothing_lost(world, [receiver])


@pytest.mark.parametrize("verb", ["claim", "intend", "meet", "record", "release", "renew"])
@pytest.mark.parametrize("fault", [CUT, status(502, arrives=True)], ids=["cut", "502 though done"])
async def test_a_lost_answer_of_a_function_of_the_ledger_loses_nothing(
    world_of: OpenWorld, verb: str, fault: Fault
) -> None:
    world = await world_of(XML, BLIND)
    async with Line(port_of(world.supabase.url)) as line, Hr(world.supabase) as hr:
        people = await hire(hr, 2)
        line.hurt(fault, only=f"hikvision_sync_{verb}", times=3)
        # A face call of 30 s needs a longer lease than a visit begins with: it is renewed.
        environment = {"LOOK_SECONDS": "2", "HURT_FACE_TIMEOUT_S": "30"}
        async with receiver_of(world, line=line, environment=environment) as receiver:
            await asyncio.sleep(1.0)
            await work(world, hr, people)
            await assert_nothing_lost(world, [receiver])
        assert line.hurts == 3


TERMINAL_FAULTS = {
    "cut mid-answer": CUT,
    "answers after the timeout": late(1.4),
    "resets": RESET,
    "half-open": SILENT,
    "half-open after it was done": UNHEARD,
    "a proxy's 502": status(502),
    "500 though done": status(500, arrives=True),
}


@pytest.mark.parametrize("fault", TERMINAL_FAULTS.values(), ids=TERMINAL_FAULTS.keys())
async def test_trouble_on_a_terminals_line_loses_nothing(world_of: OpenWorld, fault: Fault) -> None:
    world = await world_of(MODERN, XML)
    async with Line(world.sites[0].terminal.port) as line, Hr(world.supabase) as hr:
        await put_behind(line, world, world.sites[0])
        async with receiver_of(world) as receiver:
            people = await hire(hr, 4)
            await asyncio.sleep(0.5)
            line.hurt(fault)
            await work(world, hr, people)
            assert await world.agreed(but=[world.sites[0]], within_s=ON_TIME_S)
            await eventually(lambda: line.hurts > 1)
            await line.repair()
            await assert_nothing_lost(world, [receiver])


@pytest.mark.parametrize("path", ["UserInfo/Record", "UserInfo/Search", "UserInfo/Modify", "FDLib"])
@pytest.mark.parametrize("fault", [CUT, UNHEARD], ids=["cut", "unheard"])
async def test_a_lost_answer_to_a_call_loses_no_edit(
    world_of: OpenWorld, path: str, fault: Fault
) -> None:
    world = await world_of(XML, BLIND)
    async with AsyncExitStack() as stack:
        hr = await stack.enter_async_context(Hr(world.supabase))
        lines = [await stack.enter_async_context(Line(s.terminal.port)) for s in world.sites]
        for line, site in zip(lines, world.sites, strict=True):
            await put_behind(line, world, site)
            line.hurt(fault, only=path, times=3)
        receiver = await stack.enter_async_context(receiver_of(world))
        people = await hire(hr, 3)
        await asyncio.sleep(1.0)
        await work(world, hr, people)
        await assert_nothing_lost(world, [receiver])
        assert any(line.hurts for line in lines)


async def test_a_terminal_that_works_on_after_it_was_given_up_gets_no_overlapping_call(
    world_of: OpenWorld,
) -> None:
    """The terminal is slow, not the line: the next call must not come before it is done."""
    world = await world_of(FACES_TAKE_LONG)
    async with (
        receiver_of(world, environment={"HURT_FACE_TIMEOUT_S": "1"}) as receiver,
        Hr(world.supabase) as hr,
    ):
        await hire(hr, 3)
        await eventually(lambda: len(world.sites[0].terminal.persons) == 3)
        assert world.sites[0].terminal.sightings.overlapping_calls == 0
        world.sites[0].terminal.upgrade(MODERN)
        await asyncio.sleep(FACES_TAKE_LONG.face_delay_s)  # rests are cut short from here on
        await assert_nothing_lost(world, [receiver])


async def test_lost_doubled_and_reordered_webhooks_lose_no_edit(world_of: OpenWorld) -> None:
    world = await world_of(MODERN, XML)
    async with PostOffice() as office, receiver_of(world) as receiver, Hr(world.supabase) as hr:
        await office.redirect(world)
        people = await hire(hr, 4)
        await work(world, hr, people)
        await eventually(lambda: len(office.letters) >= 14)
        await assert_nothing_lost(world, [receiver])
        answered = await office.deliver([*reversed(office.letters), *office.letters], receiver)
        assert set(answered) == {202}
        await assert_nothing_lost(world, [receiver])


async def test_webhooks_delayed_past_the_tolerance_are_refused_and_lose_no_edit(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML)
    secret = world.environment["WEBHOOK_SECRET"]
    async with PostOffice() as office, receiver_of(world) as receiver, Hr(world.supabase) as hr:
        await office.redirect(world)
        await hire(hr, 2)
        await eventually(lambda: len(office.letters) == 4)
        old = [letter.aged(301 + 300 * n, secret) for n, letter in enumerate(office.letters)]
        assert await office.deliver(old, receiver) == [401] * 4
        young = [letter.aged(290, secret) for letter in office.letters]
        assert await office.deliver(young, receiver) == [202] * 4
        await assert_nothing_lost(world, [receiver])


@pytest.mark.parametrize("hours", [3, -3])
async def test_setting_the_receivers_clock_while_it_runs_loses_nothing(
    world_of: OpenWorld, tmp_path: Path, hours: int
) -> None:
    world = await world_of(SLOW, XML)
    clock = WrongClock(tmp_path)
    async with (
        receiver_of(world, environment=clock.environment) as receiver,
        Hr(world.supabase) as hr,
    ):
        people = await hire(hr, 4)
        await asyncio.sleep(0.4)
        clock.set(hours * HOURS_S)
        await work(world, hr, people)
        await assert_nothing_lost(world, [receiver])
        assert "webhook_refused" in receiver.logged()  # it really went by the wrong time
        clock.set(0)
        await hr.hire("Din", "Nou", photo="nou.jpg")
        await assert_nothing_lost(world, [receiver])


async def test_a_full_disk_for_logs_loses_nothing(world_of: OpenWorld) -> None:
    world = await world_of(SLOW, XML)
    async with receiver_of(world, kind=FullDisk) as receiver, Hr(world.supabase) as hr:
        people = await hire(hr, 4)
        await work(world, hr, people)
        await eventually(lambda: world.pg_net.delivered >= 8)
        await assert_nothing_lost(world, [receiver])
        statuses = await world.execute("select distinct status_code from net._http_response")
        assert statuses == [{"status_code": 202}]
        memory = psutil.Process(receiver.pid).memory_info().rss
        assert memory < 300e6
        assert await receiver.stop() is not None
    assert (
        await world.execute("select 1 from hikvision_sync.terminals where leased_by is not null")
        == []
    )
