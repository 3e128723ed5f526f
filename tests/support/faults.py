"""Harm to a receiver: lines that fail, a post office that loses, wrong clocks, full disks.

And `assert_nothing_lost`, which has to hold after each of them.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

import httpx
from standardwebhooks.webhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox.loopback import LoopbackServer, bound_socket
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.terminal.simulated import SimulatedTerminal
from receiver.sandbox.world import Site, World
from tests.support.waiting import ON_TIME_S, eventually, gives_nothing

HURT = Path(__file__).parent / "hurt"
ROOT = Path(__file__).parents[2]
FACE_TIMEOUT_S = 3.0
"""Instead of 45 s, so that the lease of a receiver that died in a face call is over in 8 s."""
MAX_LEASE_S = 60.0
LARGE_BODY = b"<html><body>" + b"The service is not available. " * 40 + b"</body></html>"

Kind = Literal["pass", "reset", "silent", "unheard", "status", "cut", "late"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that a line does to a request.

    reset: the connection is reset. silent: nothing arrives and nothing comes back, as on a line
    that is half open. unheard: it arrives, and nothing comes back. status: a proxy's error page
    instead of the answer. cut: half of the answer. late: the answer, after so many seconds.
    """

    kind: Kind
    status: int = 0
    seconds: float = 0.0
    arrives: bool = False
    """Whether a request that is answered by an error page was carried out all the same."""


PASS = Fault(kind="pass")
RESET = Fault(kind="reset")
SILENT = Fault(kind="silent")
UNHEARD = Fault(kind="unheard")
CUT = Fault(kind="cut")


def status(code: int, *, arrives: bool = False) -> Fault:
    """Return the fault of a gateway that answers by itself."""
    return Fault(kind="status", status=code, arrives=arrives)


def late(seconds: float) -> Fault:
    """Return the fault of a slow line."""
    return Fault(kind="late", seconds=seconds)


class Line:
    """A proxy on loopback that passes HTTP messages on whole, until it is told to hurt them."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener: socket.socket | None = bound_socket(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._fault, self._only, self._left = PASS, "", 0
        self.hurts = 0
        """How many requests were hurt so far."""

    async def __aenter__(self) -> Self:
        await self.repair()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        if self._listener is not None:
            self._listener.close()

    def hurt(self, fault: Fault, *, only: str = "", times: int = 1_000_000) -> None:
        """Do this to the next requests whose path holds `only`."""
        self._fault, self._only, self._left = fault, only, times

    async def repair(self) -> None:
        """Pass everything on again, and accept connections again."""
        self._fault = PASS
        if self._server is None:
            listener, self._listener = self._listener or bound_socket(self.port), None
            self._server = await asyncio.start_server(self._serve, sock=listener)

    async def refuse(self) -> None:
        """Refuse connections and break those that there are, until `repair`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._listener = bound_socket(self.port)  # bound and not listening: refused
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _fault_for(self, head: bytes) -> Fault:
        path = head.split(b" ", 2)[1].decode("latin-1")
        if self._fault is PASS or self._left <= 0 or self._only not in path:
            return PASS
        self._left -= 1
        self.hurts += 1
        return self._fault

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.create_task(self._pass_on(reader, writer))
        self._connections.add(serving)

        def ended(_: asyncio.Task[None]) -> None:  # also one that was cancelled before it began
            self._connections.discard(serving)
            writer.transport.abort()

        serving.add_done_callback(ended)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head, body = await _message(reader)
                fault = self._fault_for(head)
                answer = b""
                if fault.kind not in ("reset", "silent") and (
                    fault.kind != "status" or fault.arrives
                ):
                    if target is None or target[0].at_eof():
                        if target is not None:
                            target[1].transport.abort()
                        target = await asyncio.open_connection("127.0.0.1", self._target_port)
                    target[1].write(head + body)
                    answer = await _answer(target[0], head)
                if not await _give(fault, answer, reader, writer):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the sides has gone
        finally:
            if target is not None:
                target[1].transport.abort()


async def _give(
    fault: Fault, answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Give the client what the fault leaves of the answer; False if the connection ends."""
    match fault.kind:
        case "reset":
            opened = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        case "silent" | "unheard":
            while await reader.read(65536):  # until the client gives up
                pass
            return False
        case "status":
            answer = (
                f"HTTP/1.1 {fault.status} Trouble\r\nContent-Type: text/html\r\n"
                f"Content-Length: {len(LARGE_BODY)}\r\nConnection: close\r\n\r\n"
            ).encode() + LARGE_BODY
        case "cut":
            head_ends = answer.index(b"\r\n\r\n") + 4
            answer = answer[: head_ends + (len(answer) - head_ends) // 2]
        case "late":
            await asyncio.sleep(fault.seconds)
    writer.write(answer)
    await writer.drain()
    if fault.kind in ("status", "cut"):
        writer.close()
        await writer.wait_closed()
        return False
    return True


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(_length(head))


async def _answer(reader: asyncio.StreamReader, request: bytes) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if request.startswith(b"HEAD "):
        return head
    if b"transfer-encoding: chunked" not in head.lower():
        return head + await reader.readexactly(_length(head))
    chunks: list[bytes] = []
    while not chunks or chunks[-1] != b"0\r\n\r\n":
        size = await reader.readuntil(b"\r\n")
        chunks.append(size + await reader.readexactly(int(size, 16) + 2))
    return head + b"".join(chunks)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def signed(secret: str, body: bytes, *, id_: str, at: float) -> dict[str, str]:
    """Return the headers of a webhook signed by the reference package, `at` seconds since 1970."""
    when = datetime.fromtimestamp(int(at), UTC)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": Webhook(secret).sign(id_, when, body.decode()),
    }


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One webhook as pg_net handed it in."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def aged(self, seconds: float, secret: str) -> "Letter":
        """Return the letter as if it had been signed and sent so many seconds ago."""
        id_ = self.headers["webhook-id"]
        changed = signed(secret, self.body, id_=id_, at=time.time() - seconds)
        return Letter(headers={**self.headers, **changed}, body=self.body)


class PostOffice:
    """Takes in every webhook, and delivers those that it is told to, when and as often it is."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        routes = [Route("/webhooks/supabase", self._take_in, methods=["POST"])]
        self._server = LoopbackServer(Starlette(routes=routes))

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def redirect(self, world: World) -> None:
        """Have all webhooks of a world handed in here."""
        await world.execute(
            "select vault.update_secret(id, %s) from vault.secrets"
            " where name = 'hikvision_sync_webhook_url'",
            f"{self._server.url}/webhooks/supabase",
        )

    async def deliver(self, letters: Iterable[Letter], receiver: ReceiverProcess) -> list[int]:
        """Post letters one by one; return the statuses of the answers."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return [
                (
                    await client.post(
                        f"{receiver.url}/webhooks/supabase",
                        content=letter.body,
                        headers=dict(letter.headers),
                    )
                ).status_code
                for letter in letters
            ]

    async def _take_in(self, request: Request) -> Response:
        kept = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")
        headers = {name: request.headers[name] for name in kept}
        self.letters.append(Letter(headers=headers, body=await request.body()))
        return Response(status_code=202)


class WrongClock:
    """The wall clock of one receiver, which its `environment` makes it read."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)

    def set(self, seconds: float) -> None:
        """Be wrong by so many seconds from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds), encoding="ascii")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which to start the receiver."""
        return {**_HURT_PATH, "HURT_CLOCK": str(self._file)}


_HURT_PATH = {"PYTHONPATH": f"{HURT}:{ROOT}"}
HURRIED = {**_HURT_PATH, "HURT_FACE_TIMEOUT_S": str(FACE_TIMEOUT_S)}
"""The environment of a receiver whose face calls may take less long."""


class FullDisk(ReceiverProcess):
    """A receiver that can write no log."""

    def __init__(self, environment: Mapping[str, str], *, port: int = 0) -> None:
        super().__init__(environment, port=port)
        self.log = Path("/dev/full")

    def logged(self) -> str:
        """Return nothing: reading /dev/full never ends."""
        return ""


def port_of(url: str) -> int:
    """Return the port that a URL names."""
    return int(url.rpartition(":")[2])


async def put_behind(line: Line, world: World, site: Site) -> None:
    """Have the receivers reach a terminal by this line."""
    await world.execute("update dispozitive_pontaj set port = %s where id = %s", line.port, site.id)


@asynccontextmanager
async def receiver_of(
    world: World,
    *,
    kind: type[ReceiverProcess] = ReceiverProcess,
    line: Line | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ReceiverProcess]:
    """Run a receiver on the world, with another environment or by a line to Supabase.

    It stands where `world.receiver` would, so that webhooks find it, unless it is given a port.
    """
    settings = {**world.environment, **HURRIED, **(environment or {})}
    if line is not None:
        settings["SUPABASE_URL"] = line.url
        settings["PHOTO_HOSTS"] = world.supabase.url.removeprefix("http://")
    process = kind(settings, port=world.receiver.port if port is None else port)
    try:
        await process.start()
        yield process
    finally:
        await process.close()


WANTED = (
    "select id::text from hikvision_sync.edits"
    " union all select terminal_id || ' ' || employee_id || ' ' || coalesce(message, '')"
    " from hikvision_sync.pairs where wanted > done"
)
LEASED = (
    "select leased_by from hikvision_sync.terminals"
    " where leased_by is not null and leased_until > clock_timestamp()"
)


async def converge(world: World, *, within_s: float) -> None:
    """Wait until nothing is wanted any more, and let time pass quickly meanwhile.

    Pairs that wait for an attempt are due at once, so that a test does not take minutes. Nothing
    is made wanted by it: what was lost stays lost.
    """
    deadline = time.monotonic() + within_s
    while await world.execute(WANTED) and time.monotonic() < deadline:
        await asyncio.sleep(1.0)
        await world.execute(
            "update hikvision_sync.pairs set next_attempt_at = clock_timestamp()"
            " where wanted > done and next_attempt_at > clock_timestamp()"
        )
        await world.execute(
            "update hikvision_sync.terminals set rests_until = null"
            " where rests_until > clock_timestamp() and not login_refused"
        )


async def assert_nothing_lost(
    world: World, receivers: Sequence[ReceiverProcess], *, within_s: float = ON_TIME_S
) -> None:
    """Every edit is on every terminal, each was treated well, and the receivers are alive."""
    await converge(world, within_s=within_s)
    left = await world.execute(WANTED)
    assert not left, left
    lost = [(site.name, one) for site in world.sites for one in await differences(world, site)]
    assert not lost, lost
    await eventually(lambda: gives_nothing(world.execute(LEASED)), within_s=MAX_LEASE_S)
    assert_well_treated([site.terminal for site in world.sites])
    async with httpx.AsyncClient(trust_env=False) as client:
        for receiver in receivers:
            assert receiver.running
            assert (await client.get(f"{receiver.url}/healthz")).status_code == 200
            await eventually_ready(client, receiver)


def assert_well_treated(terminals: Iterable[SimulatedTerminal]) -> None:
    """No terminal saw overlapping calls, a failed login or a deletion of others."""
    for terminal in terminals:
        seen = terminal.sightings
        assert seen.overlapping_calls == 0
        assert seen.failed_logins == 0
        assert seen.deletions_not_of_one == 0
        assert seen.unknown_fields == []


async def differences(world: World, site: Site) -> list[str]:
    """Return the people in whom a terminal and HR differ."""
    wanted, held = await world.wanted(), world.standing_on(site.terminal)
    return [
        f"{number}: HR {wanted.get(number)}, terminal {held.get(number)}"
        for number in sorted(wanted.keys() | held.keys())
        if wanted.get(number) != held.get(number)
    ]


async def eventually_ready(client: httpx.AsyncClient, receiver: ReceiverProcess) -> None:
    """Wait until a receiver says that it can do its work."""
    async with asyncio.timeout(ON_TIME_S):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{receiver.url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
