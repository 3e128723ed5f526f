"""Storms from the internet and from a busy HR department; how a receiver starts and stops.

A storm must cost neither a valid webhook nor memory. Each limit is waited for in events and counts;
those that take seconds are shortened in the receiver by `tests/support/hurt`, never measured here.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from importlib.util import find_spec

import httpx
import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.terminal.simulated import Profile, SimulatedTerminal
from receiver.sandbox.world import World, open_world
from receiver.sync.gate import LEASE_MARGIN_S, LEASE_SPARE_S
from tests.support.faults import (
    FACE_TIMEOUT_S,
    Line,
    eventually_ready,
    port_of,
    receiver_of,
    status,
)
from tests.support.storms import (
    HALF_A_HEAD,
    MUCH_ASKED,
    SLOW,
    all_let_go,
    ask,
    bodies_held_back,
    endless_bodies,
    forgeries,
    import_of_everybody,
    large_bodies,
    little_memory,
    many_connections,
    request,
    silent_clients,
    slow_clients,
    until_cancelled,
    valid_webhook,
    valid_webhooks,
    wires,
)
from tests.support.waiting import ON_TIME_S, eventually

PARSERS = [
    pytest.param({"HURT_WITHOUT": "httptools uvloop"}, id="h11"),
    *([pytest.param({}, id="httptools")] if find_spec("httptools") else []),
]
each_parser = pytest.mark.parametrize("parser", PARSERS)


@pytest.fixture(autouse=True)
def _many_connections() -> Iterator[None]:
    with many_connections():
        yield


@pytest.fixture
async def quiet(embedded_postgres: PostgresServer) -> AsyncIterator[World]:
    """A world without terminals, for storms that only reach the receiver's HTTP side."""
    async with open_world({}, pause_s=0.02, poll_s=3600, postgres=embedded_postgres) as world:
        yield world


# Clients that are as rude as sockets allow


# The head of a request


@each_parser
async def test_a_client_that_sends_no_whole_head_is_let_go(
    quiet: World, parser: dict[str, str]
) -> None:
    limits = {"HURT_PATIENCE_S": "1"} | parser
    async with receiver_of(quiet, environment=limits) as receiver, wires(receiver, 4) as opened:
        silent, half, dripping, second = opened
        half.send(HALF_A_HEAD)
        second.send(valid_webhook(quiet))
        assert await second.status() == 202
        second.send(HALF_A_HEAD)
        dripping.send(HALF_A_HEAD)
        slowly = asyncio.create_task(until_cancelled(dripping, b"x", 0.1))
        assert await all_let_go([silent, half, dripping, second]) == [b""] * 4
        slowly.cancel()
        assert await valid_webhooks(quiet, receiver, 1) == {202: 1}


ENDLESS = {
    "head of many headers": (HALF_A_HEAD + b"iver\r\n", b"x-more: and more\r\n"),
    "head of one header": (HALF_A_HEAD, b"iver"),
    "path": (b"POST /webhooks", b"/supabase"),
    "trailer": (
        request({}, framing="Transfer-Encoding: chunked") + b"1\r\n \r\n0\r\n",
        b"x-more: and more\r\n",
    ),
    "trailer of one header": (
        request({}, framing="Transfer-Encoding: chunked") + b"1\r\n \r\n0\r\nx-more: ",
        b"and more",
    ),
    "extension of a chunk": (
        request({}, framing="Transfer-Encoding: chunked") + b"1;and=",
        b"more",
    ),
}


@each_parser
async def test_an_endless_part_around_a_body_ends_the_connection_and_takes_no_memory(
    quiet: World, parser: dict[str, str]
) -> None:
    async with receiver_of(quiet, environment=parser) as receiver:
        for begins, goes_on in ENDLESS.values():
            async with little_memory(receiver), wires(receiver, 20) as opened:
                for wire in opened:
                    wire.send(begins)
                piece = goes_on * (65536 // len(goes_on))
                pushing = [asyncio.create_task(until_cancelled(w, piece, 0)) for w in opened]
                await all_let_go(opened)
                for push in pushing:
                    push.cancel()
        assert await valid_webhooks(quiet, receiver, 1) == {202: 1}


# Start and stop


ALL = "/api/hikvision/sync-all-to-all-devices"
ONE = "/api/hikvision/sync-angajat-all-devices"
FACES_TAKE_LONG = Profile(name="faces take long", delay_s=0.1, face_delay_s=1.0)
LEASED = "select terminal_id from hikvision_sync.terminals where leased_by is not null"


def browser(world: World, receiver: ReceiverProcess, **claims: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=receiver.url,
        headers={"Authorization": f"Bearer {world.supabase.access_token(**claims)}"},
        trust_env=False,
        timeout=ON_TIME_S,
    )


async def test_sigterm_in_the_middle_of_everything_ends_the_receiver_cleanly(
    embedded_postgres: PostgresServer,
) -> None:
    profiles = {"one": FACES_TAKE_LONG, "two": FACES_TAKE_LONG}
    async with AsyncExitStack() as stack:
        opening = open_world(
            profiles, pause_s=0.02, poll_s=0.5, lanes=2, postgres=embedded_postgres
        )
        world = await stack.enter_async_context(opening)
        limits = {"HURT_BODY_TIMEOUT_S": "2", "HURT_PATIENCE_S": "2"}
        receiver = await stack.enter_async_context(receiver_of(world, environment=limits))
        hr = await stack.enter_async_context(Hr(world.supabase))
        terminals = [site.terminal for site in world.sites]
        for n in range(3):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
        client = await stack.enter_async_context(browser(world, receiver))
        watched = await stack.enter_async_context(
            client.stream("POST", ALL, json={}, headers={"Accept": "application/x-ndjson"})
        )
        lines = watched.aiter_lines()
        assert [json.loads(await anext(lines))["type"] for _ in "12"] == ["start", "result"]
        idle = await stack.enter_async_context(wires(receiver, 50))
        for wire in idle:
            wire.send(valid_webhook(world))
        assert [await wire.status() for wire in idle] == [202] * 50
        slow = await stack.enter_async_context(wires(receiver, 3 * len(SLOW)))
        for wire, (begins, _) in zip(slow, [*SLOW.values()] * 3, strict=True):
            wire.send(begins)
        [unreading] = await stack.enter_async_context(wires(receiver, 1, unreading=True))
        asking = asyncio.create_task(until_cancelled(unreading, MUCH_ASKED, 0.1))
        called = [calls(terminal) for terminal in terminals]

        stopping = asyncio.create_task(receiver.stop())
        end = [json.loads(line) async for line in lines][-1]
        assert end["type"] == "end"
        assert await stopping in (0, -signal.SIGTERM)
        assert await world.execute(LEASED) == []
        for before, terminal in zip(called, terminals, strict=True):
            assert calls(terminal) <= before + 1  # the one that was under way
        for said in ("Traceback", "timeout graceful shutdown exceeded"):
            assert said not in receiver.logged()
        await all_let_go([*idle, *slow])
        asking.cancel()

        for terminal in terminals:
            terminal.upgrade(Profile(name="quick"))
        await receiver.start()
        assert await world.agreed(within_s=ON_TIME_S)


def calls(terminal: SimulatedTerminal) -> int:
    return sum(call.authenticated for call in terminal.sightings.calls)


async def test_after_a_kill_9_another_receiver_takes_over_when_the_lease_ends(
    embedded_postgres: PostgresServer,
) -> None:
    settings = {"DEVICE_TIMEOUT_SECONDS": "1"}
    opening = open_world(
        {"one": FACES_TAKE_LONG},
        pause_s=0.02,
        poll_s=0.5,
        settings=settings,
        postgres=embedded_postgres,
    )
    async with opening as world, receiver_of(world) as killed, Hr(world.supabase) as hr:
        [site] = world.sites
        for n in range(2):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
        await eventually(lambda: site.terminal.persons)  # the face is on its way
        await killed.kill()
        [left] = await world.execute(
            "select leased_until <= clock_timestamp() + make_interval(secs => %s) as soon_over"
            " from hikvision_sync.terminals where leased_by is not null",
            FACE_TIMEOUT_S + LEASE_MARGIN_S + LEASE_SPARE_S,
        )
        assert left["soon_over"]
        async with receiver_of(world, port=0) as other:  # webhooks go to the dead one
            assert await world.agreed(within_s=ON_TIME_S)
            await other.stop()
        assert await world.execute(LEASED) == []


async def test_a_receiver_that_starts_with_supabase_down_says_so_and_needs_no_restart(
    embedded_postgres: PostgresServer,
) -> None:
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            open_world({"one": Profile()}, pause_s=0.02, poll_s=0.5, postgres=embedded_postgres)
        )
        hr = await stack.enter_async_context(Hr(world.supabase))
        line = await stack.enter_async_context(Line(port_of(world.supabase.url)))
        ion = await hr.hire("Popescu", "Ion")
        await line.refuse()
        own = {"SUPABASE_JWKS_URL": f"{line.url}/auth/v1/.well-known/jwks.json"}
        receiver = await stack.enter_async_context(receiver_of(world, line=line, environment=own))
        issuer = f"{line.url}/auth/v1"
        client = await stack.enter_async_context(browser(world, receiver, iss=issuer))
        press = partial(client.post, ONE, json={"angajat_id": ion.id})

        await eventually(lambda: "supabase_failed" in receiver.logged())
        not_ready = await client.get("/readyz")
        assert not_ready.status_code == 503
        assert "Supabase" in not_ready.json()["detail"]
        assert await ask(receiver, valid_webhook(world)) == 202  # the worker will look, then
        assert (await press()).status_code == 503

        await line.repair()
        line.hurt(status(502), only="jwks.json")
        await eventually_ready(client, receiver)
        assert await world.agreed(within_s=ON_TIME_S)
        refused = await press()
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"

        await line.repair()
        async with asyncio.timeout(ON_TIME_S):
            while (await press()).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.5)


# The storms of tests/support/storms.py


@each_parser
async def test_500_slow_clients_displace_no_webhook_and_are_all_let_go(
    quiet: World, parser: dict[str, str]
) -> None:
    await slow_clients(quiet, parser)


@pytest.mark.parametrize(
    "begins", [b"", request({}, framing="Content-Length: 9")], ids=["head", "body"]
)
async def test_silent_clients_beyond_the_limit_displace_no_webhook(
    quiet: World, begins: bytes
) -> None:
    await silent_clients(quiet, begins)


@each_parser
async def test_an_endless_body_takes_no_memory_and_is_ended(
    quiet: World, parser: dict[str, str]
) -> None:
    await endless_bodies(quiet, parser)


@each_parser
async def test_hundreds_of_unfinished_bodies_at_once_take_little_memory(
    quiet: World, parser: dict[str, str]
) -> None:
    await bodies_held_back(quiet, parser)


async def test_large_bodies_wait_for_each_other_and_each_gets_its_answer(quiet: World) -> None:
    await large_bodies(quiet)


async def test_10000_forgeries_displace_none_of_200_webhooks(quiet: World) -> None:
    await forgeries(quiet)


async def test_5000_employees_can_be_imported_in_one_statement_with_20_terminals(
    embedded_postgres: PostgresServer,
) -> None:
    await import_of_everybody(embedded_postgres)
