"""One terminal's protocol: against the simulated terminal, and raw servers beside it.

The raw servers speak bytes, so that a fault of HTTP itself can be shown.
"""

import asyncio
import base64
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Self, cast
from uuid import UUID

import httpx
import pytest

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    PhotoNotFetched,
    ReceiverError,
    TerminalBusy,
    TerminalError,
    TerminalTimeout,
    TerminalUnreachable,
)
from receiver.core.models import Terminal
from receiver.sandbox.terminal.simulated import Face, Person, Profile
from receiver.terminals.http_client import http_client
from tests.support.clients import client_for
from tests.support.raw_terminals import (
    DEVICE_XML,
    DIGEST,
    EVERY_FIRMWARE,
    NO,
    PASSWORD,
    SHORT_S,
    Handler,
    Scripted,
    Turns,
    answer,
    challenge,
    client_of,
    listening,
    raw,
    read_request,
    visiting,
)


def user_info(name: str, end: str = "2037-12-31T23:59:59") -> dict[str, object]:
    """The payload of terminals/README.md, Calls, to the letter."""
    return {
        "UserInfo": {
            "employeeNo": NO,
            "name": name,
            "userType": "normal",
            "Valid": {
                "enable": True,
                "beginTime": "2020-01-01T00:00:00",
                "endTime": end,
                "timeType": "local",
            },
            "doorRight": "1",
            "RightPlan": [{"doorNo": 1, "planTemplateNo": "1"}],
            "localUIRight": False,
        }
    }


# Persons


@EVERY_FIRMWARE
async def test_a_new_person_is_recorded_with_the_documented_payload(profile: Profile) -> None:
    async with visiting(profile) as visit:
        assert await visit.client.persons.put(NO, "Popescu Ion") is False
        assert list(visit.terminal.sightings.bodies) == [user_info("Popescu Ion")]
        assert visit.paths() == ["POST Record"]
        person = visit.person()
        assert (person.name, person.enabled) == ("Popescu Ion", True)
        assert person.begin == datetime(2020, 1, 1)  # noqa: DTZ001 - device time
        assert person.end == datetime(2037, 12, 31, 23, 59, 59)  # noqa: DTZ001 - device time
        assert person.right_plan == [{"doorNo": 1, "planTemplateNo": "1"}]
        visit.assert_well_treated()


@EVERY_FIRMWARE
async def test_a_known_person_gets_the_new_name_and_validity_and_keeps_the_face(
    profile: Profile,
) -> None:
    async with visiting(profile) as visit:
        face = Face(url="http://x/1.jpg", sha256="0", size=1)
        visit.terminal.persons[NO] = Person(
            employee_no=NO,
            name="Nume Vechi",
            begin=datetime(2020, 1, 1),  # noqa: DTZ001 - device time
            end=datetime(2020, 1, 2),  # noqa: DTZ001 - device time
            enabled=True,
            user_type="normal",
            face=face,
        )
        assert await visit.client.persons.put(NO, "Brâncoveanu Ștefan-Țuțea") is True
        assert visit.paths() == ["POST Record", "PUT Modify"]
        assert visit.terminal.sightings.bodies[-1] == user_info("Brâncoveanu Ștefan-Țuțea")
        assert visit.person().name == "Brâncoveanu Ștefan-Țuțea"
        assert visit.person().end.year == 2037
        assert visit.person().face == face
        visit.assert_well_treated()


async def test_the_same_person_put_twice_is_known_the_second_time() -> None:
    async with visiting() as visit:
        assert await visit.client.persons.put(NO, "Popescu Ion") is False
        assert await visit.client.persons.put(NO, "Popescu Ion") is True
        assert list(visit.terminal.persons) == [NO]


async def test_a_name_too_long_for_the_firmware_is_cut_between_characters() -> None:
    """32 UTF-8 bytes on HA's and FG's terminals (terminals/README.md), and ș is two of them."""
    async with visiting(Profile(name_bytes=32)) as visit:
        await visit.client.persons.put(NO, "Șerbănescu-Brâncoveanu Ana-Mărioara")
        name = visit.person().name
        assert "Șerbănescu-Brâncoveanu Ana-Mărioara".startswith(name)
        assert 29 <= len(name.encode()) <= 32
        visit.assert_well_treated()


async def test_a_name_too_long_for_the_firmware_keeps_nobody_from_leaving() -> None:
    long_name = "Șerbănescu-Brâncoveanu Ana-Mărioara"
    async with visiting(Profile(name_bytes=32)) as visit:
        for _ in range(2):  # new, and known
            await visit.client.persons.put(NO, long_name)
        await visit.client.persons.end(NO, long_name)
        assert not visit.terminal.may_pass(NO, datetime.now(UTC))
        assert long_name.startswith(visit.person().name)


async def test_a_number_the_terminal_does_not_take_is_bad_data() -> None:
    async with visiting() as visit:
        with pytest.raises(DataRefused):
            await visit.client.persons.put("1" * 33, "Popescu Ion")
        assert visit.terminal.persons == {}


@EVERY_FIRMWARE
async def test_an_ended_validity_is_an_elapsed_window_and_nothing_else_changes(
    profile: Profile, photos: Callable[[str], str]
) -> None:
    async with visiting(profile) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        face = visit.person().face
        now = datetime.now().astimezone()
        assert visit.terminal.may_pass(NO, now)
        await visit.client.persons.end(NO, "Popescu Ion")
        sent = cast("dict[str, Any]", visit.terminal.sightings.bodies[-1])["UserInfo"]
        assert sent["Valid"]["enable"] is True  # false would be permanent validity (G1 p.299)
        assert sent["Valid"]["endTime"] < "2020-01-02"
        assert not visit.terminal.may_pass(NO, now)
        assert (visit.person().name, visit.person().face) == ("Popescu Ion", face)
        visit.assert_well_treated()


@EVERY_FIRMWARE
async def test_ending_the_validity_of_an_absent_person_is_no_error_and_adds_nobody(
    profile: Profile,
) -> None:
    async with visiting(profile) as visit:
        await visit.client.persons.end(NO, "Popescu Ion")
        assert visit.terminal.persons == {}
        assert visit.paths() == ["PUT Modify"]


async def test_the_validity_of_a_person_whose_name_is_gone_ends_and_the_name_stays() -> None:
    async with visiting() as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.persons.end(NO, "")
        assert visit.person().name == "Popescu Ion"
        assert not visit.terminal.may_pass(NO, datetime.now().astimezone())


async def test_erasing_is_asked_about_until_it_is_done() -> None:
    async with visiting(Profile(deletion_s=0.1), pause_s=0.05) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.persons.put("1002", "Ionescu Ana")
        await visit.client.persons.erase(NO)
        assert list(visit.terminal.persons) == ["1002"]
        assert visit.paths().count("GET DeleteProcess") > 1
        visit.assert_well_treated()


async def test_erasing_waits_long_enough_for_the_terminal_when_no_pause_is_configured() -> None:
    """DEVICE_DELAY_SECONDS may be 0: the polls must not be used up in a moment."""
    async with visiting(Profile(deletion_s=0.5)) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.persons.erase(NO)
        assert visit.terminal.persons == {}


async def test_a_terminal_whose_erasure_does_not_end_is_busy() -> None:
    async with visiting(Profile(deletion_s=60), pause_s=0.001) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(TerminalBusy):
            await visit.client.persons.erase(NO)


async def test_erasing_an_absent_person_is_no_error() -> None:
    async with visiting(pause_s=0.05) as visit:
        await visit.client.persons.put("1002", "Ionescu Ana")
        await visit.client.persons.erase(NO)
        assert list(visit.terminal.persons) == ["1002"]


async def test_a_failed_erasure_is_an_error() -> None:
    def script(_: int, request: bytes) -> bytes:
        if b"DeleteProcess" in request:
            return answer(b'{"UserInfoDetailDeleteProcess":{"status":"failed"}}')
        return answer(b'{"statusCode":1,"statusString":"OK","subStatusCode":"ok"}')

    terminal = Scripted(script)
    async with raw(terminal) as client:
        with pytest.raises(TerminalError):
            await client.persons.erase(NO)
    assert len(terminal.requests) == 2


async def test_every_deletion_names_exactly_one_number_and_none_is_sent_without() -> None:
    """A deletion without a number erases everybody (G1 p.301)."""
    async with visiting(Profile(deletion_s=0), pause_s=0.01) as visit:
        for number in ("1001", "1002", "9"):
            await visit.client.persons.put(number, "Popescu Ion")
        before = len(visit.authorizations)
        with pytest.raises(ValueError, match="number"):
            await visit.client.persons.erase("")
        assert len(visit.authorizations) == before
        for number in ("1001", "9"):
            await visit.client.persons.erase(number)
        deletions = [b for b in visit.terminal.sightings.bodies if "UserInfoDetail" in b]
        assert deletions == [
            {"UserInfoDetail": {"mode": "byEmployeeNo", "EmployeeNoList": [{"employeeNo": n}]}}
            for n in ("1001", "9")
        ]
        assert list(visit.terminal.persons) == ["1002"]
        visit.assert_well_treated()


# Faces


@EVERY_FIRMWARE
async def test_a_first_face_is_recorded_with_the_flat_payload(
    profile: Profile, photos: Callable[[str], str]
) -> None:
    async with visiting(profile) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert visit.terminal.sightings.bodies[-1] == {
            "faceURL": photos("ion.jpg"),
            "faceLibType": "blackFD",
            "FDID": "1",
            "FPID": NO,
        }
        calls = ["PUT FDSetUp"] if profile.has_fd_setup else ["PUT FDSetUp", "POST FaceDataRecord"]
        assert visit.paths() == ["POST Record", *calls]
        face = visit.person().face
        assert face is not None
        assert face.replaced == 0
        visit.assert_well_treated()


@pytest.mark.parametrize("answers", ["json", "xml"])
@pytest.mark.parametrize(
    ("has_fd_setup", "calls"),
    [
        (True, ["PUT FDSetUp"]),
        (False, ["POST FaceDataRecord", "PUT FDModify"]),
    ],
)
async def test_a_second_face_replaces_the_first_by_the_calls_that_the_firmware_has(
    answers: Literal["json", "xml"],
    has_fd_setup: bool,  # noqa: FBT001 - a case of the table
    calls: list[str],
    photos: Callable[[str], str],
) -> None:
    async with visiting(Profile(answers=answers, has_fd_setup=has_fd_setup)) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        await visit.client.faces.put(NO, photos("ion-2.jpg"))
        face = visit.person().face
        assert face is not None
        assert (face.url, face.replaced) == (photos("ion-2.jpg"), 1)
        assert visit.paths()[-len(calls) :] == calls
        visit.assert_well_treated()


async def test_the_error_says_that_the_terminal_could_not_fetch_the_photo_without_its_url() -> None:
    async with visiting(Profile(downloads_photos=False)) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(PhotoNotFetched) as error:
            await visit.client.faces.put(NO, "http://127.0.0.1:1/secret-photo.jpg")
        assert "secret-photo" not in error.value.message


@pytest.mark.parametrize("busy_http", [200, 503])
async def test_a_busy_terminal_is_busy_under_either_http_status(
    busy_http: Literal[200, 503],
) -> None:
    async with visiting(Profile(busy_every=1, busy_http=busy_http)) as visit:
        with pytest.raises(TerminalBusy):
            await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(TerminalBusy):
            await visit.client.persons.end(NO, "Popescu Ion")
        with pytest.raises(TerminalBusy):
            await visit.client.persons.erase(NO)
        assert len(visit.paths()) == 3  # and it is not asked again


# Turns and times


async def test_every_call_waits_for_its_turn_and_asks_for_its_own_time(
    photos: Callable[[str], str],
) -> None:
    async with visiting(timeout_s=7.0, face_timeout_s=45.0) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        await visit.client.calls.device_info()
        assert visit.turns.asked_s == [7.0, 7.0, 7.0, 45.0, 7.0]
        assert visit.client.calls.answered == 5


async def test_no_request_leaves_when_the_turn_is_refused() -> None:
    class Refused(ReceiverError):
        """No turn."""

    @asynccontextmanager
    async def refuse(_: float) -> AsyncIterator[None]:
        raise Refused
        yield

    terminal = Scripted(lambda *_: answer(DEVICE_XML))
    async with listening(terminal) as port, http_client() as http:
        row = Terminal(id=UUID(int=1), host="127.0.0.1", port=port, username="a", password=PASSWORD)
        client = client_for(http, row, refuse)
        with pytest.raises(Refused):
            await client.calls.device_info()
    assert terminal.requests == []


async def test_a_face_may_take_longer_than_any_other_call(photos: Callable[[str], str]) -> None:
    async with visiting(Profile(face_delay_s=0.6), timeout_s=SHORT_S) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert visit.person().face is not None


async def test_a_terminal_slower_than_the_timeout_causes_a_timeout() -> None:
    async with visiting(Profile(delay_s=5), timeout_s=SHORT_S) as visit:
        with pytest.raises(TerminalTimeout) as error:
            await visit.client.persons.put(NO, "Popescu Ion")
        assert f"{SHORT_S:g} s" in error.value.message
        assert visit.turns.inside == 0
        assert visit.client.calls.answered == 0


# The login


async def test_device_info_is_read_from_xml_whatever_its_namespace() -> None:
    async with visiting() as visit:
        device = await visit.client.calls.device_info()
    assert device["model"] == "DS-K1T342MFWX-E1"
    assert device["firmwareVersion"] == "V4.39.0"
    prefixed = (
        b'<h:DeviceInfo xmlns:h="urn:h"><h:model>M</h:model>'
        b"<h:serialNumber>S</h:serialNumber></h:DeviceInfo>"
    )
    for body in (prefixed, DEVICE_XML.replace(b"isapi.org", b"std-cgi.com")):
        async with raw(Scripted(lambda *_, body=body: answer(body))) as client:
            assert (await client.calls.device_info())["serialNumber"] in ("S", "S1")


async def test_a_page_without_a_serial_number_is_not_taken_for_a_device_info() -> None:
    async with raw(Scripted(lambda *_: answer(b"<html><body>ok</body></html>"))) as client:
        with pytest.raises(AnswerUnexplained):
            await client.calls.device_info()


async def test_every_request_starts_without_credentials_and_no_nonce_is_used_twice() -> None:
    """Over a series of calls on kept-alive connections; a reused nonce is a failed login (SK)."""
    async with visiting() as visit:
        for n in range(60):
            await visit.client.persons.put(str(n % 20), f"Muncitor {n}")
        await visit.client.calls.device_info()
        assert visit.terminal.sightings.failed_logins == 0
        assert visit.authorizations[::2] == [None] * (len(visit.authorizations) // 2)
        answers_to = visit.authorizations[1::2]
        assert len(answers_to) == 101
        nonces = [re.search(r'nonce="(\w+)"', str(a)) for a in answers_to]
        assert len({n[1] for n in nonces if n}) == len(answers_to)
        assert all("nc=00000001" in str(a) for a in answers_to)


async def test_a_wrong_password_costs_exactly_one_failed_login_per_call() -> None:
    async with visiting(password="gresita") as visit:
        with pytest.raises(LoginRefused) as error:
            await visit.client.persons.put(NO, "Popescu Ion")
        assert visit.terminal.sightings.failed_logins == 1
        assert visit.client.calls.answered == 0
        assert error.value.locked_s == 0
        assert "gresita" not in error.value.message


async def test_a_locked_account_says_for_how_long() -> None:
    async with visiting(Profile(lockout_failures=1, lockout_s=900)) as visit:
        wrong = client_of(visit.http, port=visit.terminal.port, password="gresita")
        with pytest.raises(LoginRefused):
            await wrong.calls.device_info()
        with pytest.raises(LoginRefused, match="locked") as error:
            await visit.client.calls.device_info()
        assert 0 < error.value.locked_s <= 900


async def test_a_terminal_that_says_the_account_is_locked_is_not_sent_the_password() -> None:
    """The first 401 says so already; another attempt is another failed login."""
    async with visiting(Profile(lockout_failures=1, lockout_s=900)) as visit:
        wrong = client_of(visit.http, port=visit.terminal.port, password="gresita")
        with pytest.raises(LoginRefused):
            await wrong.calls.device_info()
        with pytest.raises(LoginRefused):
            await visit.client.calls.device_info()
        assert visit.terminal.sightings.failed_logins == 1


def with_stale(when: Callable[[int], bool], spelling: str) -> Scripted:
    """Answer credentials with a stale 401 when told to, with a device otherwise."""

    def script(n: int, request: bytes) -> bytes:
        if b"\r\nauthorization:" not in request.lower():
            return challenge(DIGEST.format(n=n))
        if when(n):
            return challenge(f"{DIGEST.format(n=n)}, {spelling}")
        return answer(DEVICE_XML)

    return Scripted(script)


@pytest.mark.parametrize("spelling", ["stale=true", "stale=TRUE", 'stale="true"', 'Stale="TRUE"'])
async def test_a_stale_nonce_is_retried_once_with_a_challenge_of_its_own(spelling: str) -> None:
    terminal = with_stale(lambda n: n == 2, spelling)
    async with raw(terminal) as client:
        assert (await client.calls.device_info())["serialNumber"] == "S1"
    assert [b"uthorization: " in r for r in terminal.requests] == [False, True, False, True]
    assert b'nonce="n1"' in terminal.requests[1]
    assert b'nonce="n3"' in terminal.requests[3]


async def test_a_nonce_that_is_always_stale_is_not_retried_endlessly() -> None:
    terminal = with_stale(lambda _: True, "stale=true")
    async with raw(terminal) as client:
        with pytest.raises(LoginRefused):
            await client.calls.device_info()
    assert len(terminal.requests) == 4


async def test_a_refusal_that_is_not_stale_is_not_retried() -> None:
    terminal = with_stale(lambda _: True, 'stale="FALSE"')
    async with raw(terminal) as client:
        with pytest.raises(LoginRefused):
            await client.calls.device_info()
    assert len(terminal.requests) == 2


@pytest.mark.parametrize(
    "header", ['Basic realm="DS"', 'Basic realm="DS", charset="UTF-8"', "Bearer", "NTLM"]
)
async def test_a_challenge_other_than_digest_gets_no_password(header: str) -> None:
    terminal = Scripted(lambda *_: challenge(header))
    async with raw(terminal) as client:
        with pytest.raises(TerminalError):
            await client.calls.device_info()
    [request] = terminal.requests
    assert b"authorization" not in request.lower()
    assert PASSWORD.encode() not in request
    assert base64.b64encode(f"admin:{PASSWORD}".encode()) not in request


@pytest.mark.parametrize("header", ['Basic realm="DS"', "NTLM"])
async def test_a_password_that_was_never_sent_is_not_called_wrong(header: str) -> None:
    """A camera's web page behind the address, a captive portal: the row's password is not tried."""
    async with raw(Scripted(lambda *_: challenge(header))) as client:
        with pytest.raises(AnswerUnexplained):
            await client.calls.device_info()


async def test_the_password_never_crosses_the_wire_in_clear() -> None:
    terminal = with_stale(lambda _: False, "")
    async with raw(terminal) as client:
        await client.calls.device_info()
    assert len(terminal.requests) == 2
    assert PASSWORD.encode() not in b"".join(terminal.requests)


async def test_a_digest_of_auth_int_only_is_an_error_of_ours() -> None:
    async with raw(Scripted(lambda *_: challenge(DIGEST.replace('"auth"', '"auth-int"')))) as c:
        with pytest.raises(AnswerUnexplained, match="digest login"):
            await c.calls.device_info()


@pytest.mark.parametrize(
    "header",
    [
        'Digest realm="DS", nonce="n", qop="auth", algorithm=SHA3-FOO',
        'Digest realm="DS", nonce="n", stale',
    ],
)
async def test_a_digest_that_cannot_be_worked_with_is_an_error_of_ours(header: str) -> None:
    async with raw(Scripted(lambda *_: challenge(header))) as client:
        with pytest.raises(TerminalError):
            await client.calls.device_info()


@pytest.mark.parametrize(
    ("username", "password"), [("ștefan", "x"), ("admin", "parolă"), ("a\n", "x")]
)
async def test_an_odd_login_in_the_row_causes_an_error_of_ours(
    username: str, password: str
) -> None:
    terminal = Scripted(lambda n, _: challenge(DIGEST.format(n=n)))
    async with listening(terminal) as port, http_client() as http:
        row = Terminal(
            id=UUID(int=1), host="127.0.0.1", port=port, username=username, password=password
        )
        client = client_for(http, row, Turns())
        with pytest.raises(TerminalError):
            await client.calls.device_info()


async def test_a_cookie_of_one_answer_is_not_sent_with_the_next_call() -> None:
    """A session of the terminal's own would be a login that nobody asked for."""

    def script(n: int, request: bytes) -> bytes:
        if b"\r\nauthorization:" not in request.lower():
            return challenge(DIGEST.format(n=n))
        return answer(DEVICE_XML, headers="Set-Cookie: WebSession=abc; path=/\r\n")

    terminal = Scripted(script)
    async with raw(terminal) as client:
        await client.calls.device_info()
        await client.calls.device_info()
    assert not any(b"\r\ncookie:" in request.lower() for request in terminal.requests)


# The network


async def test_a_refused_connection_is_unreachable() -> None:
    async with visiting() as visit:
        await visit.terminal.switch_off()
        with pytest.raises(TerminalUnreachable):
            await visit.client.calls.device_info()
        await visit.terminal.switch_on()
        await visit.client.calls.device_info()


async def test_a_terminal_that_hangs_causes_a_timeout() -> None:
    async with visiting(timeout_s=SHORT_S) as visit:
        await visit.terminal.hang()
        with pytest.raises(TerminalTimeout):
            await visit.client.calls.device_info()


async def test_a_server_that_accepts_and_never_answers_causes_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw(silent, timeout_s=SHORT_S) as client:
        with pytest.raises(TerminalTimeout):
            await client.calls.device_info()


@contextmanager
def never_accepting() -> Iterator[int]:
    """A port whose queue is full: what is sent to it gets no reply, as from a terminal that is off.

    Skips where the kernel answers all the same.
    """
    with socket.socket() as listener, PendingConnections() as pending:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            pending.connect(listener.getsockname())
        with socket.socket() as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(listener.getsockname())
            except TimeoutError:
                yield listener.getsockname()[1]
                return
        pytest.skip("this kernel completes connections that nobody accepts")


class PendingConnections:
    """Non-blocking sockets whose connections nobody has accepted yet."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def connect(self, address: tuple[str, int]) -> None:
        one = socket.socket()
        self._sockets.append(one)
        one.setblocking(False)  # noqa: FBT003 - the socket's own signature
        one.connect_ex(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()


async def test_a_terminal_that_is_off_is_unreachable_and_no_timeout_of_the_pair() -> None:
    """TerminalTimeout means connected (errors.py), and sends the pair to the back of the line."""
    with never_accepting() as port:
        async with http_client() as http:
            client = client_of(http, port=port, timeout_s=SHORT_S)
            with pytest.raises(TerminalUnreachable):
                await client.calls.device_info()


def cutting(sent: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handler


def resetting(sent: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await writer.drain()
        raw_socket = writer.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    return handler


PARTS = [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n<Devi"]


@pytest.mark.parametrize("sent", PARTS, ids=["nothing", "half a line", "half a body"])
@pytest.mark.parametrize("how", [cutting, resetting])
async def test_an_answer_that_is_cut_off_is_unreachable(
    how: Callable[[bytes], Handler], sent: bytes
) -> None:
    async with raw(how(sent)) as client:
        with pytest.raises(TerminalUnreachable):
            await client.calls.device_info()
        assert client.calls.answered == 0


@pytest.mark.parametrize(
    "status", ["200 OK", f"401 Unauthorized\r\nWWW-Authenticate: {DIGEST}"], ids=["200", "401"]
)
async def test_an_endless_answer_is_given_up_before_it_fills_the_memory(status: str) -> None:
    """Also a challenge, which anybody at that address may send."""
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    most_sent = 16 * 1024 * 1024
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while sent < most_sent:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        await reader.read()

    async with raw(endless, timeout_s=2) as client:
        with pytest.raises(AnswerUnexplained, match="no end"):
            await client.calls.device_info()
    assert 0 < sent < most_sent


async def test_an_answer_byte_by_byte_does_not_outlast_the_timeout() -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw(dripping, timeout_s=SHORT_S) as client:
        with pytest.raises(TerminalTimeout):
            await client.calls.device_info()


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Oops", "302 Found"])
async def test_a_web_page_is_never_a_success(status: str) -> None:
    page = b"<!DOCTYPE html><html><head><title>Router</title></head><body><br></body></html>"
    async with raw(Scripted(lambda *_: answer(page, status=status))) as client:
        with pytest.raises(TerminalError) as error:
            await client.persons.put(NO, "Popescu Ion")
        assert "Router" not in error.value.message


async def test_an_answer_that_is_not_http_is_an_error_of_ours() -> None:
    async with raw(cutting(b"SSH-2.0-OpenSSH_9.6\r\n")) as client:
        with pytest.raises(TerminalError):
            await client.calls.device_info()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    elsewhere = Scripted(lambda *_: answer(DEVICE_XML))
    async with listening(elsewhere) as port:
        location = f"Location: http://127.0.0.1:{port}/\r\n"
        terminal = Scripted(lambda *_: answer(b"", status=status, headers=location))
        async with raw(terminal) as client:
            with pytest.raises(AnswerUnexplained):
                await client.calls.device_info()
    assert len(terminal.requests) == 1
    assert elsewhere.requests == []


async def test_the_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Scripted(lambda *_: answer(DEVICE_XML))
    async with listening(proxy) as port:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with visiting() as visit:
            assert (await visit.client.calls.device_info())["model"] == "DS-K1T342MFWX-E1"
    assert proxy.requests == []


async def test_a_terminal_with_an_ipv6_address_is_reached() -> None:
    terminal = Scripted(lambda *_: answer(DEVICE_XML))
    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(listening(terminal, "::1"))
        except OSError:
            pytest.skip("this machine has no IPv6")
        http = await stack.enter_async_context(http_client())
        await client_of(http, host="::1", port=port).calls.device_info()
    assert f"host: [::1]:{port}".encode() in terminal.requests[0].lower()


@pytest.mark.parametrize("port", [0, None, "80/x"])
async def test_an_impossible_port_reaches_no_terminal(port: Any) -> None:
    async with http_client() as http:
        with pytest.raises(TerminalError):
            await client_of(http, port=port).calls.device_info()


@pytest.mark.parametrize("host", ["", "a b", "no-such-host.invalid", "x" * 300, "1.2.3.4.5", "ț"])
async def test_an_impossible_host_reaches_no_terminal(host: str) -> None:
    async with http_client() as http:
        with pytest.raises(TerminalError):
            await client_of(http, host=host, port=80, timeout_s=2).calls.device_info()


# The mapping of httpx's exceptions


def public_exceptions() -> list[type[Exception]]:
    """Return every exception class that httpx publishes."""
    public = (getattr(httpx, name) for name in httpx.__all__)
    return [x for x in public if isinstance(x, type) and issubclass(x, Exception)]


def example_of(kind: type[Exception]) -> Exception:
    request = httpx.Request("GET", "http://terminal/")
    if issubclass(kind, httpx.HTTPStatusError):
        return kind("boom", request=request, response=httpx.Response(500, request=request))
    if issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError:
        return cast("Callable[[], Exception]", kind)()
    return kind("boom")


class Failing(httpx.AsyncBaseTransport):
    """Fails with one exception, before the answer or in the middle of its body."""

    def __init__(self, error: Exception, *, in_the_body: bool) -> None:
        self._error = error
        self._in_the_body = in_the_body

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        if self._in_the_body:
            return httpx.Response(200, stream=Breaking(self._error))
        raise self._error


class Breaking(httpx.AsyncByteStream):
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"<"
        raise self._error


def test_the_tree_of_httpx_is_walked_whole() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    ours = {k for k in below(httpx.HTTPError) | below(httpx.StreamError) if "httpx" in k.__module__}
    assert ours | {httpx.InvalidURL, httpx.CookieConflict} == set(public_exceptions())


@pytest.mark.parametrize("in_the_body", [False, True], ids=["before", "in the body"])
@pytest.mark.parametrize("kind", public_exceptions(), ids=lambda k: k.__name__)
async def test_every_exception_of_httpx_becomes_one_of_our_errors(
    kind: type[Exception],
    in_the_body: bool,  # noqa: FBT001 - a case of the table
) -> None:
    transport = Failing(example_of(kind), in_the_body=in_the_body)
    async with httpx.AsyncClient(transport=transport) as http:
        turns = Turns()
        with pytest.raises(TerminalError) as error:
            await client_of(http, port=80, turns=turns).calls.device_info()
    assert type(error.value) is expected_of(kind)
    assert error.value.__cause__ is not None
    assert "boom" not in error.value.message
    assert turns.inside == 0


def expected_of(kind: type[Exception]) -> type[TerminalError]:
    if issubclass(kind, httpx.ConnectError | httpx.ConnectTimeout):
        return TerminalUnreachable
    if issubclass(kind, httpx.TimeoutException):
        return TerminalTimeout
    if issubclass(kind, httpx.NetworkError | httpx.RemoteProtocolError):
        return TerminalUnreachable
    return AnswerUnexplained
