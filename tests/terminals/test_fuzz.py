"""Nothing that a terminal may send raises, or reaches a person as more than one harmless line."""

import json
import re
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.core.errors import LoginRefused, TerminalError
from receiver.terminals.answers import parse
from receiver.terminals.codes import rows
from tests.support.isapi_fixtures import CASES, FIXTURES

BODIES = {case["file"]: (FIXTURES / case["file"]).read_bytes() for case in CASES}
STATUSES = st.sampled_from([200, 400, 401, 403, 404, 405, 500, 502]) | st.integers(-1, 10**6)
URL = re.compile(r"(:|%3a)(\\?/|%2f){2}", re.IGNORECASE)


def understood(http_status: int, body: bytes) -> TerminalError:
    """Return what the answer means; fail if it may harm its reader."""
    try:
        error = parse(http_status, body).error()
    except LoginRefused as refused:
        assert http_status == 401
        error = refused
    assert isinstance(error, TerminalError)
    assert error.message.isprintable()  # no control characters, no halves of surrogate pairs
    assert not URL.search(error.message)
    assert 10 < len(error.message) < 300
    return error


@settings(deadline=None, max_examples=1000)
@given(
    STATUSES, st.binary(max_size=400), st.sampled_from([b"", b"<", b"{", b'{"statusCode":', b"["])
)
def test_any_bytes_become_an_error_that_harms_no_reader(
    http_status: int, body: bytes, start: bytes
) -> None:
    understood(http_status, start + body)


CHANGES = st.lists(st.sampled_from(["cut", "drop", "flip", "repeat", "insert"]), max_size=4)


@st.composite
def mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """A body as a bad cable, a bad firmware or a bad neighbour would change it."""
    changed = bytearray(body)
    for change in draw(CHANGES):
        a, b = sorted(draw(st.tuples(*[st.integers(0, max(len(changed), 1))] * 2)))
        match change:
            case "cut":
                del changed[a:]
            case "drop":
                del changed[a:b]
            case "flip":
                for at in draw(st.lists(st.integers(0, len(changed)), max_size=8)):
                    changed[at : at + 1] = bytes(
                        byte ^ (1 << draw(st.integers(0, 7))) for byte in changed[at : at + 1]
                    )
            case "repeat":
                changed[a:a] = changed[a:b]
            case _:
                changed[a:a] = draw(st.binary(max_size=20) | st.sampled_from([*BODIES.values()]))
    return bytes(changed)


@pytest.mark.parametrize("file", BODIES)
def test_any_broken_body_becomes_an_error_that_harms_no_reader(file: str) -> None:
    @settings(deadline=None, max_examples=30, database=None)
    @given(STATUSES, mutated(BODIES[file]))
    def test(http_status: int, body: bytes) -> None:
        understood(http_status, body)

    test()


PHOTO = "https://abcd.supabase.co/storage/v1/object/sign/pontaj-photos/7.jpg?token=eyJh.eyJi.c"
SAID = st.lists(
    st.text(max_size=30)
    | st.sampled_from([PHOTO, quote(PHOTO, safe=""), PHOTO.replace("/", "\\/"), "rtsp://a:b@c"])
    | st.sampled_from(["\x00", "\x1b[31m", "\r\n", "\u202e", "\ud800", "x" * 5000, ":", "//", " "])
).map("".join)
CODES = st.sampled_from([row[0] for row in rows()]) | SAID


@settings(deadline=None, max_examples=1000)
@given(STATUSES, st.integers(0, 8) | st.integers(), CODES, SAID, st.integers() | CODES)
@example(400, 6, "badJsonContent", PHOTO, 0)
@example(400, 6, PHOTO, PHOTO, PHOTO)
def test_no_answer_shows_a_person_a_url_or_more_than_a_line(
    http_status: int, status_code: int, code: str, said: str, error_code: object
) -> None:
    status = {
        "statusCode": status_code,
        "statusString": said,
        "subStatusCode": code,
        "errorCode": error_code,
        "errorMsg": said,
    }
    error = understood(http_status, json.dumps(status).encode())
    assert "eyJ" not in error.message


def test_a_very_long_message_is_shortened_quickly() -> None:
    for word in ("x" * 200_000, ":" * 200_000, ":/" * 100_000, "%3a" * 60_000):
        understood(400, json.dumps({"subStatusCode": word, "errorMsg": word}).encode())
