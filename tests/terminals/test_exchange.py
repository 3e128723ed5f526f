"""Logins and connections as HTTP lets terminals have them: over real HTTP, in raw bytes."""

import asyncio
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from receiver.core.errors import AnswerUnexplained, TerminalUnreachable
from receiver.core.models import Terminal
from receiver.terminals.http_client import MAX_IDLE_S, http_client
from tests.support.clients import client_for
from tests.support.raw_terminals import (
    DEVICE_XML,
    DIGEST,
    PASSWORD,
    Scripted,
    Turns,
    answer,
    challenge,
    client_of,
    listening,
    raw,
    read_request,
)

# Logins

GIVEN = re.compile(rb'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))(?:, |$)')


def let_in(request: bytes, realm: bytes, username: bytes = b"admin") -> bool:
    """Verify a login as a server does that unquotes the values before it hashes them."""
    line = re.search(rb"(?i)\r\nauthorization: Digest (.*)\r\n", request)
    if not line:
        return False
    assert GIVEN.sub(b"", line[1]) == b""
    said = {one[0]: re.sub(rb"\\(.)", rb"\1", one[1]) or one[2] for one in GIVEN.findall(line[1])}
    name = {b"MD5": "md5", b"SHA-256": "sha256"}[said[b"algorithm"]]

    def hashed(*parts: bytes) -> bytes:
        return hashlib.new(name, b":".join(parts)).hexdigest().encode()

    method, target, _ = request.split(b" ", 2)
    secret = hashed(username, realm, PASSWORD.encode())
    count = [said[b"nc"], said[b"cnonce"], said[b"qop"]]
    expected = hashed(secret, b"n1", *count, hashed(method, target))
    return (said[b"realm"], said[b"username"], said[b"uri"], said[b"response"]) == (
        realm,
        username,
        target,
        expected,
    )


def guarded(*challenges: bytes, realm: bytes = b"DS", username: bytes = b"admin") -> Scripted:
    lines = b"".join(b"WWW-Authenticate: " + value + b"\r\n" for value in challenges)

    def script(_: int, request: bytes) -> bytes:
        if let_in(request, realm, username):
            return answer(DEVICE_XML)
        return b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n" + lines + b"\r\n"

    return Scripted(script)


PLAIN = b'Digest realm="DS", nonce="n1", qop="auth"'
ODD_CHALLENGES = {
    "after Basic in one line": guarded(b'Basic realm="x", ' + PLAIN),
    "an algorithm that we do not have first": guarded(
        PLAIN + b", algorithm=SHA-512-256", PLAIN + b", algorithm=MD5"
    ),
    "two that we have": guarded(PLAIN + b", algorithm=SHA-256", PLAIN),
    "names in another case": guarded(b'Digest Realm="DS", Nonce="n1", QOP="auth"'),
    "blanks around the equals sign": guarded(b'Digest realm = "DS", nonce = "n1", qop = "auth"'),
    "empty elements": guarded(b'Digest realm="DS",, nonce="n1", , qop="auth",'),
    "a qop in another case": guarded(PLAIN.replace(b'"auth"', b'"AUTH"')),
    "a parameter without a value": guarded(PLAIN + b", stale"),
    "a parameter with an empty value": guarded(PLAIN + b", opaque="),
    "a realm in UTF-8": guarded(
        PLAIN.replace(b"DS", "Șantier Est".encode()), realm="Șantier Est".encode()
    ),
    "a realm in latin-1": guarded(PLAIN.replace(b"DS", b"F\xe2nt\xe2na"), realm=b"F\xe2nt\xe2na"),
    "a realm with quotes": guarded(
        PLAIN.replace(b"DS", rb"Poarta \"Nord\""), realm=b'Poarta "Nord"'
    ),
}


@pytest.mark.parametrize("terminal", ODD_CHALLENGES.values(), ids=ODD_CHALLENGES)
async def test_a_login_succeeds_at_once_however_it_is_asked_for(terminal: Scripted) -> None:
    async with raw(terminal) as client:
        assert (await client.calls.device_info())["serialNumber"] == "S1"
    assert len(terminal.requests) == 2


@pytest.mark.parametrize("username", ["ștefan", 'a"b\\'])
async def test_a_user_name_is_read_as_it_stands_in_the_row(username: str) -> None:
    terminal = guarded(PLAIN, username=username.encode())
    async with listening(terminal) as port, http_client() as http:
        row = Terminal(
            id=UUID(int=1), host="127.0.0.1", port=port, username=username, password=PASSWORD
        )
        await client_for(http, row, Turns()).calls.device_info()
    assert len(terminal.requests) == 2


@pytest.mark.parametrize("header", [f"{DIGEST}, algorithm=SHA-512-256", 'Digest realm="x"'])
async def test_a_digest_that_we_cannot_give_is_not_called_another_login(header: str) -> None:
    terminal = Scripted(lambda *_: challenge(header))
    async with raw(terminal) as client:
        with pytest.raises(AnswerUnexplained, match="asks for a kind of digest login"):
            await client.calls.device_info()
    assert len(terminal.requests) == 1


# Connections


@dataclass
class Door:
    """A raw terminal that guards its answers, and ends each connection in its own way."""

    idle_s: float
    """After how long without a request it hangs up; it never says so beforehand."""
    one_answer: bool = False
    """Whether it reads no more once it has answered."""
    served: list[int] = field(default_factory=list)
    """How many requests each connection brought."""
    given: Counter[bytes] = field(default_factory=Counter)
    """How many requests with a login there were of each path."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served.append(0)
        number = len(self.served) - 1
        while True:
            try:
                async with asyncio.timeout(self.idle_s if self.served[number] else None):
                    if self.one_answer and self.served[number]:
                        await asyncio.Event().wait()
                    request = await read_request(reader)
            except TimeoutError:
                writer.close()
                await writer.wait_closed()
                return
            self.served[number] += 1
            is_given = b"\r\nauthorization:" in request.lower()
            self.given[request.split(b" ")[1]] += is_given
            writer.write(answer(DEVICE_XML) if is_given else challenge(DIGEST.format(n=1)))
            await writer.drain()


@pytest.mark.parametrize("close_s", [0, 0.001, 0.005, 0.05])
async def test_a_terminal_that_hangs_up_after_each_answer_costs_one_call_at_most(
    close_s: float,
) -> None:
    door = Door(idle_s=close_s, one_answer=True)
    failures = []
    async with listening(door) as port, http_client() as http:
        for n in range(10):
            try:
                # A client of its own for each visit: what was learnt outlives them.
                await client_of(http, port=port).calls.device_info()
            except TerminalUnreachable:
                failures.append(n)
    assert len(failures) <= 1
    assert set(door.served) == {1}
    assert door.given.total() == 10 - len(failures)


async def test_the_habit_of_one_terminal_is_not_expected_of_another() -> None:
    rude, polite = Door(idle_s=0.3, one_answer=True), Door(idle_s=60)
    async with listening(rude) as port, listening(polite) as other, http_client() as http:
        with pytest.raises(TerminalUnreachable):
            await client_of(http, port=port).calls.device_info()
        await client_of(http, port=port).calls.device_info()
        await client_of(http, port=other).calls.device_info()
    assert polite.served == [2]


async def test_a_challenge_and_its_answer_share_a_connection() -> None:
    door = Door(idle_s=60)
    async with raw(door) as client:
        for _ in range(3):
            await client.calls.device_info()
    assert door.served == [6]


async def test_a_connection_is_not_used_again_after_the_pause_between_calls() -> None:
    door = Door(idle_s=60)
    async with raw(door) as client:
        for _ in range(2):
            await client.calls.device_info()
            await asyncio.sleep(MAX_IDLE_S + 0.1)
    assert door.served == [2, 2]
    assert MAX_IDLE_S < 1  # DEVICE_DELAY_SECONDS unless told otherwise


async def test_a_terminal_that_breaks_off_a_new_connection_is_not_given_more_of_them() -> None:
    """A power cut says nothing about how a terminal ends its connections."""
    door = Door(idle_s=60)
    cuts = 1

    async def cut_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        if cuts:
            cuts -= 1
            await read_request(reader)
            return
        await door(reader, writer)

    async with raw(cut_once) as client:
        with pytest.raises(TerminalUnreachable):
            await client.calls.device_info()
        await client.calls.device_info()
    assert door.served == [2]
