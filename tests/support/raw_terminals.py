"""Clients at simulated terminals, and at raw servers that do what a simulated one never does.

The raw servers speak bytes, so that a fault of HTTP itself can be shown."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest

from receiver.core.models import Terminal
from receiver.sandbox.terminal.simulated import Person, Profile, SimulatedTerminal
from receiver.terminals.client import TerminalClient
from receiver.terminals.http_client import http_client
from tests.support.clients import client_for

PASSWORD = "Parola-de-test1"


NO = "1001"


JSON_ANSWERS = Profile(name="json")


XML_ANSWERS = Profile(name="xml", answers="xml")


NO_FD_SETUP = Profile(name="no FDSetUp", has_fd_setup=False)


XML_NO_FD_SETUP = Profile(name="xml, no FDSetUp", answers="xml", has_fd_setup=False)


EVERY_FIRMWARE = pytest.mark.parametrize(
    "profile", [JSON_ANSWERS, XML_ANSWERS, NO_FD_SETUP, XML_NO_FD_SETUP], ids=lambda p: p.name
)


SHORT_S = 0.3


ENOUGH_S = 10.0


DIGEST = 'Digest realm="DS", nonce="n{n}", qop="auth", opaque="o"'


DEVICE_XML = (
    b'<?xml version="1.0"?>\n<DeviceInfo version="2.0" xmlns="http://www.isapi.org/ver20/XMLSchema">'
    b"<model>DS-1</model><serialNumber>S1</serialNumber>"
    b"<firmwareVersion>V1</firmwareVersion></DeviceInfo>"
)


@dataclass
class Turns:
    """A turn that comes at once, and remembers how long calls may take and how many are inside."""

    pause_s: float = 0.0
    asked_s: list[float] = field(default_factory=list)
    inside: int = 0

    @asynccontextmanager
    async def __call__(self, call_s: float) -> AsyncIterator[None]:
        assert self.inside == 0
        self.inside += 1
        self.asked_s.append(call_s)
        try:
            yield
        finally:
            self.inside -= 1
            await asyncio.sleep(self.pause_s)


@dataclass
class Visit:
    """A client at a simulated terminal, with the requests that passed between them."""

    terminal: SimulatedTerminal
    http: httpx.AsyncClient
    client: TerminalClient
    turns: Turns
    authorizations: list[str | None]

    def person(self, employee_no: str = NO) -> Person:
        return self.terminal.persons[employee_no]

    def paths(self) -> list[str]:
        """Return the calls that the terminal let in: method and last part of the path."""
        calls = [c for c in self.terminal.sightings.calls if c.authenticated]
        return [f"{c.method} {c.path.rpartition('/')[2]}" for c in calls]

    def assert_well_treated(self) -> None:
        seen = self.terminal.sightings
        assert seen.unknown_fields == []
        assert seen.failed_logins == 0
        assert seen.overlapping_calls == 0
        assert seen.deletions_of_everybody == 0
        assert self.turns.inside == 0


def client_of(  # noqa: PLR0913 - keyword-only, and most have a default
    http: httpx.AsyncClient,
    *,
    port: int,
    turns: Turns | None = None,
    host: str = "127.0.0.1",
    password: str = PASSWORD,
    timeout_s: float = ENOUGH_S,
    face_timeout_s: float = ENOUGH_S + 1,
    **options: Any,
) -> TerminalClient:
    terminal = Terminal(id=UUID(int=1), host=host, port=port, username="admin", password=password)
    turn = turns or Turns()
    return client_for(
        http, terminal, turn, timeout_s=timeout_s, face_timeout_s=face_timeout_s, **options
    )


@asynccontextmanager
async def visiting(
    profile: Profile = JSON_ANSWERS, *, pause_s: float = 0.0, **options: Any
) -> AsyncIterator[Visit]:
    simulated = SimulatedTerminal(profile=profile, password=PASSWORD)
    async with simulated as terminal, http_client() as http:
        authorizations: list[str | None] = []

        async def note(request: httpx.Request) -> None:
            authorizations.append(request.headers.get("authorization"))

        http.event_hooks = {
            **http.event_hooks,
            "request": [*http.event_hooks["request"], note],
        }
        turns = Turns(pause_s=pause_s)
        client = client_of(http, port=terminal.port, turns=turns, **options)
        yield Visit(terminal, http, client, turns, authorizations)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve a handler of raw connections on a free port; cut those that are left at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with await asyncio.start_server(accept, host, 0) as server:
        yield server.sockets[0].getsockname()[1]
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def challenge(header: str, body: bytes = b"") -> bytes:
    return answer(body, status="401 Unauthorized", headers=f"WWW-Authenticate: {header}\r\n")


@dataclass
class Scripted:
    """A raw terminal that answers its n-th request (from 1) with the bytes of the script."""

    script: Callable[[int, bytes], bytes]
    requests: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.requests.append(request)
            writer.write(self.script(len(self.requests), request))
            await writer.drain()


@asynccontextmanager
async def raw(handler: Handler, **options: Any) -> AsyncIterator[TerminalClient]:
    async with listening(handler) as port, http_client() as http:
        yield client_of(http, port=port, **options)


OK = b'{"statusCode":1,"statusString":"OK","subStatusCode":"ok"}'


@asynccontextmanager
async def scripted(
    answers: dict[bytes, bytes], *, otherwise: bytes = b"", **options: Any
) -> AsyncIterator[tuple[TerminalClient, Scripted]]:
    """Answer a path that ends in a key with its bytes."""

    def script(_: int, request: bytes) -> bytes:
        path = request.split(b" ")[1].partition(b"?")[0]
        found = [sent for end, sent in answers.items() if path.endswith(end)]
        return found[0] if found else otherwise or answer(OK)

    terminal = Scripted(script)
    async with raw(terminal, **options) as client:
        yield client, terminal


def targets(terminal: Scripted) -> list[str]:
    """Return the requests that a raw terminal got: method and path."""
    heads = [request.split(b" ") for request in terminal.requests]
    return [f"{head[0].decode()} {head[1].decode().partition('?')[0]}" for head in heads]


BUSY = b'{"statusCode":2,"statusString":"Device Busy","subStatusCode":"deviceBusy"}'
