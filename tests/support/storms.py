"""Storms at a receiver's door: rude clients, forgeries, an import; and its memory meanwhile.

The tests hold each to its limits, and the benchmark prints their cost."""

import asyncio
import base64
import contextlib
import json
import random
import re
import resource
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import httpx
import psutil

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from receiver.web.request import LARGE_BODIES
from tests.support import faults
from tests.support.faults import (
    receiver_of,
)
from tests.support.waiting import ON_TIME_S, eventually

PATH = "/webhooks/supabase"


MAX_MEMORY = 150e6


FILES = 8192


@contextlib.contextmanager
def many_connections() -> Iterator[None]:
    """Let this process, and the receiver that it starts, have a connection for every client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Memory:
    """The resident memory of a receiver, watched all the time."""

    def __init__(self, receiver: ReceiverProcess) -> None:
        self._process = psutil.Process(receiver.pid)
        self.before = self.most = self._process.memory_info().rss

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, self._process.memory_info().rss)
            await asyncio.sleep(0.02)


WATCHED: list[Memory] = []
"""The memories that were kept under their limit so far; the benchmark prints them."""


@asynccontextmanager
async def little_memory(receiver: ReceiverProcess) -> AsyncIterator[None]:
    """Hold the receiver to its memory from here to the end."""
    memory = Memory(receiver)
    WATCHED.append(memory)
    watching = asyncio.create_task(memory.watch())
    try:
        yield
    finally:
        watching.cancel()
    assert receiver.running
    assert memory.most <= MAX_MEMORY


def request(headers: dict[str, str], body: bytes = b"", *, framing: str | None = None) -> bytes:
    """Return a POST of a webhook as it goes over the wire; `framing` in place of its length."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: receiver", *(f"{k}: {v}" for k, v in headers.items())]
    lines.append(framing if framing is not None else f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def signed(world: World, body: bytes, *, age_s: float = 0) -> dict[str, str]:
    """Return the headers with which the database would send this body."""
    secret, id_ = world.environment["WEBHOOK_SECRET"], f"msg_{uuid.uuid4().hex}"
    headers = faults.signed(secret, body, id_=id_, at=time.time() - age_s)
    return {"Content-Type": "application/json", **headers}


def event() -> bytes:
    row = {"id": str(uuid.uuid4())}
    return json.dumps(
        {"type": "UPDATE", "schema": "public", "table": "angajati", "record": row}
    ).encode()


def valid_webhook(world: World) -> bytes:
    body = event()
    return request(signed(world, body), body)


class Wire:
    """One connection to a receiver, with nothing between the test and the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, receiver: ReceiverProcess, *, unreading: bool = False) -> Self:
        """Connect; an `unreading` one leaves answers unread, and has next to no room for them."""
        connection = socket.socket()
        connection.settimeout(0)
        if unreading:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", receiver.port))
        wire = cls(*await asyncio.open_connection(sock=connection))
        if unreading:
            wire._writer.transport.pause_reading()  # type: ignore[attr-defined]
        return wire

    def send(self, data: bytes) -> None:
        """Send without waiting for anybody to read it."""
        self._writer.write(data)

    async def push(self, data: bytes) -> None:
        """Send as fast as the other side reads."""
        self._writer.write(data)
        await self._writer.drain()

    async def status(self) -> int:
        """Read one answer to its end."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        [length] = [x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")]
        await self._reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split(b" ", 2)[1])

    async def let_go(self) -> bytes:
        """Return when the receiver has ended the connection, with the bytes that it sent before."""
        said = b""
        with contextlib.suppress(OSError):
            while data := await self._reader.read(65536):
                said += data
        return said

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def wires(
    receiver: ReceiverProcess, count: int, *, unreading: bool = False
) -> AsyncIterator[list[Wire]]:
    """Open so many connections."""
    opened: list[Wire] = []
    try:
        for _ in range(count):
            opened.append(await Wire.open(receiver, unreading=unreading))  # noqa: PERF401 - some are to be closed
        yield opened
    finally:
        for wire in opened:
            wire.close()


async def ask(receiver: ReceiverProcess, sent: bytes) -> int:
    """Send one request on a connection of its own and return the status of its answer."""
    wire = await Wire.open(receiver)
    try:
        wire.send(sent)
        async with asyncio.timeout(ON_TIME_S):
            return await wire.status()
    finally:
        wire.close()


async def valid_webhooks(world: World, receiver: ReceiverProcess, count: int) -> Counter[int]:
    """Send valid webhooks one by one, each as pg_net does, and count the answers by status."""
    return Counter([await ask(receiver, valid_webhook(world)) for _ in range(count)])


async def all_let_go(opened: Sequence[Wire]) -> list[bytes]:
    async with asyncio.timeout(ON_TIME_S):
        return list(await asyncio.gather(*(wire.let_go() for wire in opened)))


async def until_cancelled(wire: Wire, piece: bytes, pause_s: float) -> None:
    with contextlib.suppress(OSError):
        while True:
            await wire.push(piece)
            await asyncio.sleep(pause_s)


HALF_A_HEAD = b"POST /webhooks/supabase HTTP/1.1\r\nHost: rece"


SLOW = {
    "silent": (b"", b""),
    "half a head": (HALF_A_HEAD, b""),
    "a head that drips": (HALF_A_HEAD, b"x"),
    "half a body": (request({}, framing="Content-Length: 100") + b"x" * 50, b""),
    "a body that drips": (request({}, framing="Content-Length: 100000") + b"x" * 50, b"x"),
    "a chunk that drips": (request({}, framing="Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    "all of a large body but its end": (
        request({}, framing=f"Content-Length: {2**20}") + b"x" * (2**20 - 1),
        b"",
    ),
    "questions without end": (b"GET /healthz HTTP/1.1\r\nHost: r\r\n\r\n" * 5000, b""),
}


MUCH_ASKED = b"GET /openapi.json HTTP/1.1\r\nHost: r\r\n\r\n"


async def slow_clients(quiet: World, parser: dict[str, str]) -> None:
    limits = {"HURT_PATIENCE_S": "8", "HURT_BODY_TIMEOUT_S": "8"} | parser
    async with (
        receiver_of(quiet, environment=limits) as receiver,
        little_memory(receiver),
        wires(receiver, 450) as opened,
        wires(receiver, 50, unreading=True) as unreading,
    ):
        dripping = [
            asyncio.create_task(until_cancelled(wire, MUCH_ASKED, 0.1)) for wire in unreading
        ]
        kinds = [list(SLOW.values())[n % len(SLOW)] for n in range(len(opened))]
        for wire, (begins, drip) in zip(opened, kinds, strict=True):
            wire.send(begins)
            if drip:
                dripping.append(asyncio.create_task(until_cancelled(wire, drip, 0.5)))
        assert await valid_webhooks(quiet, receiver, 50) == {202: 50}
        await all_gone(receiver)
        for drips in dripping:
            drips.cancel()
        assert await valid_webhooks(quiet, receiver, 50) == {202: 50}
        assert "Traceback" not in receiver.logged()


async def all_gone(receiver: ReceiverProcess) -> None:
    """Wait until the receiver has no client any more, whatever the clients know of it."""
    process = psutil.Process(receiver.pid)

    def clients() -> int:
        return sum(
            c.status == psutil.CONN_ESTABLISHED and c.laddr.port == receiver.port
            for c in process.net_connections("tcp")
        )

    await eventually(lambda: clients() == 0)


async def silent_clients(quiet: World, begins: bytes) -> None:
    """Open more than there may be: the oldest go before the time that each is given is over."""
    async with receiver_of(quiet) as receiver, little_memory(receiver):
        async with wires(receiver, 1) as [kept]:
            kept.send(valid_webhook(quiet))
            assert await kept.status() == 202
            async with wires(receiver, 1500) as opened:
                for wire in opened:
                    wire.send(begins)
                assert await valid_webhooks(quiet, receiver, 100) == {202: 100}
        assert "connections_made_way" in receiver.logged()
        assert "Exceeded concurrency limit" not in receiver.logged()


async def endless_bodies(quiet: World, parser: dict[str, str]) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    endless = request({}, framing="Transfer-Encoding: chunked")
    huge = request({}, framing=f"Content-Length: {10**15}")
    async with (
        receiver_of(quiet, environment=parser) as receiver,
        little_memory(receiver),
        wires(receiver, 16) as opened,
    ):
        pushing = []
        for n, wire in enumerate(opened):
            wire.send(endless if n % 2 else huge)
            pushing.append(asyncio.create_task(until_cancelled(wire, chunk, 0)))
        assert await valid_webhooks(quiet, receiver, 50) == {202: 50}
        await all_gone(receiver)
        for push in pushing:
            push.cancel()
        assert "Traceback" not in receiver.logged()


async def bodies_held_back(quiet: World, parser: dict[str, str]) -> None:
    """Open as many as there may be connections: of each body, no more is read than is needed."""
    begun = request({}, framing=f"Content-Length: {2**20}") + b"x" * 2**18
    async with (
        receiver_of(quiet, environment=parser) as receiver,
        little_memory(receiver),
        wires(receiver, 890) as opened,
    ):
        for wire in opened:
            wire.send(begun)
        assert await valid_webhooks(quiet, receiver, 50) == {202: 50}
        await all_gone(receiver)
        assert await valid_webhooks(quiet, receiver, 50) == {202: 50}


async def large_bodies(quiet: World) -> None:
    """Send more at once than are read at a time, all as large as may be; small ones pass by."""
    count = 3 * LARGE_BODIES
    large = event().ljust(2**20)
    async with (
        receiver_of(quiet) as receiver,
        little_memory(receiver),
        wires(receiver, count) as opened,
    ):
        for wire in opened:
            wire.send(request(signed(quiet, large), large)[:-1])
        assert await valid_webhooks(quiet, receiver, 10) == {202: 10}
        for wire in opened:
            wire.send(large[-1:])
        assert [await wire.status() for wire in opened] == [202] * count


FORGERIES = 10_000


VALID_AMONG_THEM = 200


MAX_LOG_BYTES = 300
"""Of a refused request: one line with the reason, and nothing that it sent."""


def forgery(world: World, n: int) -> tuple[bytes, int]:
    """Return one of many kinds, and the documented answer to it."""
    body = event()
    if n % 250 == 0:
        body = random.Random(n).randbytes(2**20)
        return request(signed(world, b"another body"), body), 401
    match n % 5:
        case 0:
            headers = signed(world, body)
            headers["webhook-signature"] = "v1," + base64.b64encode(b"x" * 32).decode()
            return request(headers, body), 401
        case 1:
            return request({"X-Marker": MARKER}, body), 401
        case 2:
            return request(signed(world, body, age_s=301 + n), body), 401
        case 3:
            return request(signed(world, body), body.replace(b"UPDATE", b"DELETE")), 401
        case _:
            garbage = MARKER.encode() * (n % 7)
            return request(signed(world, garbage), garbage), 400


MARKER = "Marker7f3aQ"


async def forgeries(quiet: World) -> None:
    async with receiver_of(quiet) as receiver, little_memory(receiver):
        log_before = len(receiver.logged())
        numbers = iter(range(FORGERIES))
        wrong: list[tuple[int, int, int]] = []

        async def forge(*, keep_alive: bool) -> None:
            wire = await Wire.open(receiver)
            for n in numbers:
                sent, documented = forgery(quiet, n)
                wire.send(sent)
                status = await wire.status()
                if status != documented:
                    wrong.append((n, status, documented))
                if not keep_alive:
                    wire.close()
                    wire = await Wire.open(receiver)
            wire.close()

        async with asyncio.TaskGroup() as clients:
            for n in range(64):
                clients.create_task(forge(keep_alive=n % 4 > 0))
            answered = await valid_webhooks(quiet, receiver, VALID_AMONG_THEM)
        assert answered == {202: VALID_AMONG_THEM}
        assert wrong == []
        log = receiver.logged()[log_before:]
        lines = Counter(json.loads(line)["event"] for line in log.splitlines())
        assert 100 <= lines["webhook_refused"] < FORGERIES / 4  # ten a second, and not the disk
        assert 100 <= lines["webhook_accepted"] <= VALID_AMONG_THEM
        assert len(log) < MAX_LOG_BYTES * lines.total()
        counted = await webhooks_counted(receiver)
        assert counted["202"] == VALID_AMONG_THEM
        assert counted["400"] + counted["401"] == FORGERIES
        assert MARKER not in log
        assert "Traceback" not in log


async def webhooks_counted(receiver: ReceiverProcess) -> Counter[str]:
    """Return how many webhooks got which status, as Prometheus is told."""
    async with httpx.AsyncClient(trust_env=False) as client:
        figures = (await client.get(f"{receiver.url}/metrics")).text
    found = re.findall(r'^hikvision_webhooks_total{status="(\d+)"} (\S+)$', figures, re.MULTILINE)
    return Counter({status: int(float(count)) for status, count in found})


EMPLOYEES, TERMINALS = 5000, 20


IMPORT = f"""
with hired as (
    insert into angajati (nume, prenume)
    select 'Import' || n, 'Ion' from generate_series(1, {EMPLOYEES}) n returning id
)
insert into angajati_biometrie (angajat_id) select id from hired
"""


OF_BIOMETRICS = "trigger hikvision_sync_inserted"


ANSWERS = "select status_code, timed_out, count(*) from net._http_response group by 1, 2"


PAIRS = """
select count(*) as pairs, count(*) filter (where wanted > done) as wanted,
       count(*) filter (where wanted = done and status = 'success') as brought,
       count(*) filter (where wanted > done and status = 'success') as again,
       (select count(*) from hikvision_sync.edits where employee_id is not null) as edits
from hikvision_sync.pairs
"""


BROUGHT = """
select p.terminal_id::text, p.employee_no
from hikvision_sync.pairs p where p.done > 0 and p.status = 'success'
"""


OTHERS_LATER = """
update hikvision_sync.pairs set next_attempt_at = clock_timestamp() + interval '1 hour'
where employee_id <> %s
"""


async def import_of_everybody(
    embedded_postgres: PostgresServer,
) -> None:
    profiles = {f"{n}": Profile(name="quick") for n in range(TERMINALS)}
    async with (
        open_world(profiles, pause_s=0.0, poll_s=0.5, lanes=4, postgres=embedded_postgres) as world,
        receiver_of(world) as receiver,
        little_memory(receiver),
        Hr(world.supabase) as hr,
    ):
        on_terminals = {site.id: site.terminal.persons for site in world.sites}
        # One webhook for each of them is storm enough for the sandbox, which is one process.
        await world.execute(f"alter table angajati_biometrie disable {OF_BIOMETRICS}")
        await world.execute(IMPORT)
        await world.execute(f"alter table angajati_biometrie enable {OF_BIOMETRICS}")

        await eventually(lambda: any(on_terminals.values()))
        assert world.pg_net.delivered < EMPLOYEES  # in the middle of the storm
        number = next(number for persons in on_terminals.values() for number in persons)
        [ion] = await world.execute(
            "select angajat_id::text as id from angajati_biometrie where employee_no = %s", number
        )
        await hr.update("angajati", str(ion["id"]), {"nume": "Redenumit"})
        called = sum(len(site.terminal.sightings.calls) for site in world.sites)
        await eventually(lambda: world.pg_net.delivered + world.pg_net.failed > EMPLOYEES)
        answers = await world.execute(ANSWERS)
        assert {answer["status_code"] for answer in answers} <= {202, None}
        assert all(a["timed_out"] for a in answers if a["status_code"] is None)
        async with asyncio.timeout(ON_TIME_S):
            while (pairs := (await world.execute(PAIRS))[0])["edits"]:  # noqa: ASYNC110
                await asyncio.sleep(1.0)
        assert pairs["pairs"] == EMPLOYEES * TERMINALS
        assert pairs["wanted"] == EMPLOYEES * TERMINALS - int(str(pairs["brought"]))
        assert pairs["brought"] or pairs["again"]
        for pair in await world.execute(BROUGHT):
            assert pair["employee_no"] in on_terminals[str(pair["terminal_id"])]
        assert sum(len(site.terminal.sightings.calls) for site in world.sites) > called
        print(f"{TERMINALS} terminals, {answers}, {pairs}")

        await world.execute(OTHERS_LATER, ion["id"])
        await eventually(
            lambda: all(
                number in persons and persons[number].name == "Redenumit Ion"
                for persons in on_terminals.values()
            )
        )
