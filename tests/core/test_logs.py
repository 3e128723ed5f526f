"""No secret reaches the output, whichever logger writes it and however it is hidden."""

import contextlib
import io
import json
import logging
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.core import logs
from receiver.core.settings import LogFormat

PLANT = "pLaNt7Q"
"""In every secret below; joined at run time, so that no traceback shows it as a line of source."""
LONG = PLANT * 5
NAMES = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "httpx", "httpcore", "hpack")


@dataclass(frozen=True)
class Output:
    """The output of a process that logs, so far."""

    format: LogFormat
    stdout: io.StringIO
    stderr: io.StringIO

    @property
    def text(self) -> str:
        return self.stdout.getvalue() + self.stderr.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.stdout.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines as JSON, each of which must be an object."""
        found = [json.loads(line) for line in self.lines]
        assert all(isinstance(event, dict) for event in found)
        return found


@contextlib.contextmanager
def configured(log_format: LogFormat) -> Iterator[Output]:
    """Configure logging for a moment, and put everything back."""
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in NAMES]
    before = [(lg, lg.handlers[:], lg.level, lg.propagate) for lg in (root, *loggers)]
    structlog_before = structlog.get_config()
    output = Output(log_format, io.StringIO(), io.StringIO())
    with contextlib.redirect_stdout(output.stdout), contextlib.redirect_stderr(output.stderr):
        try:
            logs.configure(log_format)
            yield output
        finally:
            structlog.configure(**structlog_before)
            structlog.contextvars.clear_contextvars()
            for logger, handlers, level, propagate in before:
                logger.handlers[:] = handlers
                logger.setLevel(level)
                logger.propagate = propagate


@pytest.fixture(params=get_args(LogFormat))
def output(request: pytest.FixtureRequest) -> Iterator[Output]:
    """Log in each of the two formats in turn."""
    with configured(request.param) as output:
        yield output


@pytest.fixture
def json_output() -> Iterator[Output]:
    with configured("json") as output:
        yield output


SECRETS = {
    "webhook secret": f"whsec_{LONG}+/==",
    "webhook secret of the dashboard": f"v1,whsec_{LONG}",
    "signature": f"v1,{LONG}=",
    "new API key": f"sb_secret_{LONG}",
    "publishable key": f"sb_publishable_{LONG}",
    "JWT": f"eyJhbGciOi{PLANT}.eyJyb2xl{PLANT}.{PLANT}-_{PLANT}",
    "unsigned JWT": f"eyJhbGciOi{PLANT}.eyJyb2xl{PLANT}.",
    "bearer header": f"Authorization: Bearer {LONG}",
    "bearer header in small letters": f"authorization: bearer {LONG}",
    "basic header": f"Authorization: Basic {LONG}=",
    "digest header": f'Authorization: Digest username="admin", realm="DS", response="{LONG}"',
    "public photo": f"https://abc.supabase.co/storage/v1/object/public/pontaj-photos/{PLANT}.jpg",
    "signed photo": f"http://127.0.0.1:9/storage/v1/object/sign/b/x.jpg?token={PLANT}",
    "photo on a host in capitals": f"HTTPS://ABC.supabase.co/storage/v1/object/public/b/{PLANT}.jpg",
    "login in a URL": f"http://admin:{PLANT}@10.0.0.5/ISAPI",
    "login in a database URL": f"postgresql://postgres.abc:{PLANT}@db.supabase.co:5432/postgres",
    "password alone in a URL": f"redis://:{PLANT}@10.0.0.5:6379",
    "password with a slash in a URL": f"http://admin:{PLANT}/{PLANT}@10.0.0.5/ISAPI",
    "password with an at sign in a URL": f"http://admin:x@{PLANT}@10.0.0.5/ISAPI",
    "short basic header": "Authorization: Basic OnB3",
    "digest header that begins short": f'Authorization: Digest nc=1, response="{LONG}"',
}  # fmt: skip
HIDDEN = [PLANT, "OnB3"]


class Shy:
    """An object whose repr tells too much."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Shy({self.secret})"


def in_the_event(secret: str) -> None:
    logs.get_logger("receiver").warning(f"Refused {secret} again")


def in_a_value(secret: str) -> None:
    logs.get_logger("receiver").warning("refused", reason=f"because of {secret}")


def in_a_nest(secret: str) -> None:
    nested = {"a": [{"b": (secret, {"c": {secret}})}]}
    logs.get_logger("receiver").warning("refused", reason=nested)


def in_a_key(secret: str) -> None:
    logs.get_logger("receiver").warning("refused", reason={secret: 1})


def in_bytes(secret: str) -> None:
    logs.get_logger("receiver").warning("refused", reason=secret.encode())


def in_an_objects_repr(secret: str) -> None:
    logs.get_logger("receiver").warning("refused", reason=Shy(secret), more=[Shy(secret)])


def in_a_bound_value(secret: str) -> None:
    logs.get_logger("receiver").bind(reason=secret).warning("refused")


def in_the_context(secret: str) -> None:
    structlog.contextvars.bind_contextvars(reason=secret)
    logs.get_logger("receiver").warning("refused")


def in_a_positional_argument(secret: str) -> None:
    logs.get_logger("receiver").warning("refused %s", secret)


def _use(secret: str) -> None:
    raise ValueError(f"cannot use {secret}")


def _use_and_fail(secret: str) -> None:
    try:
        _use(secret)
    except ValueError as cause:
        error = RuntimeError("failed")
        error.add_note(f"while using {secret}")
        raise error from cause


def in_an_exceptions_message(secret: str) -> None:
    try:
        _use(secret)
    except ValueError:
        logs.get_logger("receiver").exception("failed")


def in_the_cause_of_an_exception(secret: str) -> None:
    try:
        _use_and_fail(secret)
    except RuntimeError:
        logs.get_logger("receiver").exception("failed")


def in_a_given_exception(secret: str) -> None:
    logs.get_logger("receiver").error("visit_crashed", exc_info=ValueError(secret))


def in_uvicorns_message(secret: str) -> None:
    logging.getLogger("uvicorn.error").error(f"Refused {secret} again")  # noqa: G004 - on purpose


def in_uvicorns_access_line(secret: str) -> None:
    args = ("127.0.0.1:1", "GET", f"/x?key={secret}", "1.1", 404)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *args)


def in_uvicorns_exception(secret: str) -> None:
    try:
        _use(secret)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")


def in_httpxs_warning(secret: str) -> None:
    logging.getLogger("httpx").warning("HTTP Request: %s", secret)


def in_the_extra_of_a_record(secret: str) -> None:
    logging.getLogger("asyncio").warning("slow", extra={"task": {"deep": [secret]}})


HIDING_PLACES: list[Callable[[str], None]] = [
    in_the_event, in_a_value, in_a_nest, in_a_key, in_bytes, in_an_objects_repr, in_a_bound_value,
    in_the_context, in_a_positional_argument, in_an_exceptions_message,
    in_the_cause_of_an_exception, in_a_given_exception, in_uvicorns_message,
    in_uvicorns_access_line, in_uvicorns_exception, in_httpxs_warning, in_the_extra_of_a_record,
]  # fmt: skip


@pytest.mark.parametrize("kind", SECRETS)
def test_text_that_looks_like_a_secret_is_redacted(kind: str) -> None:
    redacted = logs.redact(f"before {SECRETS[kind]}")
    assert redacted.startswith("before ")
    assert logs.REDACTED in redacted
    assert not any(hidden in redacted for hidden in HIDDEN)


@pytest.mark.parametrize("hide", HIDING_PLACES, ids=lambda hide: hide.__name__)
def test_no_secret_is_written_wherever_it_hides(
    hide: Callable[[str], None], output: Output
) -> None:
    hide(SECRETS["new API key"])
    hide(SECRETS["signed photo"])
    assert PLANT not in output.text
    assert len(output.lines) >= 2
    assert logs.REDACTED in output.text


@pytest.mark.parametrize("log_format", get_args(LogFormat))
def test_a_record_that_cannot_be_written_does_not_show_its_arguments_instead(
    log_format: LogFormat,
) -> None:
    with configured(log_format) as output:  # not the fixture: pytest's own handler would raise
        logging.getLogger("hpack").warning("%d bytes", SECRETS["new API key"])
    assert PLANT not in output.text


def test_logging_to_a_full_disk_raises_nothing() -> None:
    words = "from receiver.core import logs; logs.configure('json'); log = logs.get_logger('a')"
    logs_a_lot = f"{words}; [log.info('a_thing_happened', n=n) for n in range(5000)]"
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no path, a device
        code = f"{logs_a_lot}; import os; os._exit(7)"
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full, check=False)
    assert done.returncode == 7


@pytest.mark.parametrize(
    "key",
    ["password", "PASSWORD", "password_encrypted", "passwd", "webhook_secret", "access_token",
     "Authorization", "api_key", "apikey", "SUPABASE_SERVICE_ROLE_KEY", "webhook-signature",
     "Set-Cookie", "photo_url", "faceURL", "foto_fata_url", "body", "payload", "name", "nume",
     "prenume", "nume_complet", "cnp", "CNP", "iban"],
)  # fmt: skip
def test_a_value_under_a_secret_key_is_not_written_whatever_it_is(key: str, output: Output) -> None:
    logs.get_logger("receiver").info("looked", **{key: PLANT})
    logs.get_logger("receiver").info("looked", headers={"deep": [{key: [PLANT, {"x": PLANT}]}]})
    logs.get_logger("receiver").info("looked", headers={"deep": ({key: PLANT.encode()},)})
    logging.getLogger("httpx").warning("looked", extra={"headers": {key: PLANT}})
    assert PLANT not in output.text
    assert len(output.lines) == 4
    assert output.text.count(logs.REDACTED) == 4


@pytest.mark.parametrize(
    "text",
    [
        "The terminal cannot be reached; see that it is switched on and on the network.",
        "Supabase cannot be reached (ConnectError): is SUPABASE_URL right?",
        "Persoana este pe terminal: ăâîșț ĂÂÎȘȚ 🙂",
        "10.0.0.5:80 answered in 12.5 s, 3 of 4",
        "http://10.0.0.5:80/ISAPI/System/deviceInfo?format=json",
        "https://abcdefgh.supabase.co/rest/v1/rpc/hikvision_sync_claim",
        "mail@example.com is 10:30 o'clock",
        '127.0.0.1:5000 - "POST /webhooks/supabase HTTP/1.1" 202',
        "7b0e4f5a-1c2d-4e3f-8a9b-0c1d2e3f4a5b",
        "sha256 9f86d081884c7d659a2feaa0c55ad015",
        "The terminal wants basic authentication, and we speak digest authentication only.",
    ],
)
def test_ordinary_text_survives(text: str, json_output: Output) -> None:
    assert logs.redact(text) == text
    logs.get_logger("receiver").info("said", reason=text, more=[text])
    logging.getLogger("uvicorn.error").info("%s", text)
    ours, theirs = json_output.events
    assert (ours["reason"], ours["more"]) == (text, [text])
    assert theirs["event"] == text


def test_a_json_line_says_what_where_how_bad_and_when(json_output: Output) -> None:
    logs.get_logger("receiver.sync.worker").warning(
        "pair_not_synced", n=3, s=1.5, ok=True, none=None, zero=0, id=uuid.UUID(int=1)
    )
    (event,) = json_output.events
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "pair_not_synced",
        "level": "warning",
        "logger": "receiver.sync.worker",
        "n": 3,
        "s": 1.5,
        "ok": True,
        "none": None,
        "zero": 0,
        "id": str(uuid.UUID(int=1)),
    }


def test_each_json_line_is_one_event_even_with_line_breaks_and_tracebacks(
    json_output: Output,
) -> None:
    log = logs.get_logger("receiver")
    log.info("one\ntwo\r\nthree\u2028four")
    in_an_exceptions_message("nothing secret")
    in_uvicorns_exception("nothing secret")
    lines = json_output.stdout.getvalue().split("\n")[:-1]
    assert [json.loads(line)["event"] for line in lines] == [
        "one\ntwo\r\nthree\u2028four",
        "failed",
        "Exception in ASGI application",
    ]
    assert "ValueError: cannot use nothing secret" in json.loads(lines[1])["exception"]


@pytest.mark.parametrize(
    "value", [{uuid.UUID(int=1): 1}, {(1, 2): 1}, {b"a": 1}, {None: 1, 2: 3}, {1: {2: {3, 4}}}]
)
def test_a_mapping_with_keys_other_than_text_is_written_too(
    value: object, json_output: Output
) -> None:
    logs.get_logger("receiver").info("counted", found=value)
    assert [event["event"] for event in json_output.events] == ["counted"]
    assert json_output.stderr.getvalue() == ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(event=st.text(st.characters(exclude_categories=["Cs"])), value=VALUES)
def test_any_event_is_one_json_line(event: str, value: object) -> None:
    with configured("json") as output:
        logs.get_logger("receiver").info(event, found=value)
        logging.getLogger("uvicorn.error").info("%s %s", event, value)
    lines = output.stdout.getvalue().split("\n")
    assert len([json.loads(line) for line in lines[:-1]]) == 2
    assert output.stderr.getvalue() == ""


@pytest.mark.parametrize("text", ["http://", "eyJ", "https://a/storage", "://a:", "Bearer x "])
def test_a_text_made_to_be_slow_is_redacted_in_linear_time(
    text: str,
) -> None:
    """Anybody can have a path of 60 kB logged, which must not stop the event loop.

    A megabyte takes a moment; in quadratic time it would take hours.
    """
    code = f"from receiver.core.logs import redact; redact({text!r} * {1_000_000 // len(text)})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_requests_that_httpx_logs_are_not_written(output: Output) -> None:
    for name in ("httpx", "httpcore", "httpcore.http11", "hpack.hpack"):
        logging.getLogger(name).info("HTTP Request: GET https://10.0.0.5/")
    assert output.text == ""


def test_uvicorns_own_handlers_do_not_write_beside_ours() -> None:
    beside = io.StringIO()
    loggers = [logging.getLogger(name) for name in NAMES[:3]]
    for logger in loggers:
        logger.addHandler(logging.StreamHandler(beside))
    try:
        with configured("json") as output:
            for logger in loggers:
                logger.warning("Started")
        assert beside.getvalue() == ""
        assert [event["logger"] for event in output.events] == list(NAMES[:3])
    finally:
        for logger in loggers:
            logger.handlers.clear()


def test_lines_that_anybody_can_cause_are_few_and_say_how_many_were_left_out(
    json_output: Output,
) -> None:
    at = 0.0
    log = logs.get_logger("receiver").bind()
    trickle = logs.Trickle(log.warning, at_once=3, per_s=2.0, now=lambda: at)
    for n in range(1000):
        trickle("webhook_refused", n=n)
    assert [event["n"] for event in json_output.events] == [0, 1, 2]
    at = 0.6
    for n in range(1000):
        trickle("webhook_refused", n=n)
    assert len(json_output.events) == 4
    assert json_output.events[-1]["left_out"] == 997
    at = 1000.0
    for n in range(1000):
        trickle("webhook_refused", n=n)
    assert [event.get("left_out") for event in json_output.events[4:]] == [999, None, None]
