"""Logins as HTTP lets terminals ask for them: over real HTTP, in raw bytes."""

import hashlib
import re
from uuid import UUID

import pytest

from receiver import isapi
from receiver.errors import AnswerUnexplained
from receiver.models import Terminal
from tests.clients import client_for
from tests.test_isapi import (
    DEVICE_XML,
    DIGEST,
    PASSWORD,
    Scripted,
    Turns,
    answer,
    challenge,
    listening,
    raw,
)

# Logins

GIVEN = re.compile(rb'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))(?:, |$)')


def let_in(request: bytes, realm: bytes, username: bytes = b"admin") -> bool:
    """Verify a login as a server does that hashes what was meant by what is quoted."""
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
        assert (await client.device_info())["serialNumber"] == "S1"
    assert len(terminal.requests) == 2


@pytest.mark.parametrize("username", ["ștefan", 'a"b\\'])
async def test_a_user_name_is_read_as_it_stands_in_the_row(username: str) -> None:
    terminal = guarded(PLAIN, username=username.encode())
    async with listening(terminal) as port, isapi.http_client() as http:
        row = Terminal(
            id=UUID(int=1), host="127.0.0.1", port=port, username=username, password=PASSWORD
        )
        await client_for(http, row, Turns()).device_info()
    assert len(terminal.requests) == 2


@pytest.mark.parametrize("header", [f"{DIGEST}, algorithm=SHA-512-256", 'Digest realm="x"'])
async def test_a_digest_that_we_cannot_give_is_not_called_another_login(header: str) -> None:
    terminal = Scripted(lambda *_: challenge(header))
    async with raw(terminal) as client:
        with pytest.raises(AnswerUnexplained, match="asks for a kind of digest login"):
            await client.device_info()
    assert len(terminal.requests) == 1
