"""The webhook over real HTTP: what is sent, what is answered, and what is never repeated."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import io
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

import receiver.app
import receiver.web.request

PATH = "/webhooks/supabase"
EMPLOYEE = "7b0e4f5a-1c2d-4e3f-8a9b-0c1d2e3f4a5b"
KEY, OLD_KEY, FOREIGN_KEY = (hashlib.sha256(name).digest() for name in (b"new", b"old", b"foreign"))
MARKER = "Marker7f3aQ"
"""Planted in each request that is refused; never in an answer, never in a log."""
ONE_MIB = 1024 * 1024
ACCEPTED = {"accepted": True, "angajat_id": EMPLOYEE}
REFUSALS = {400, 401, 408, 413, 422}
Headers = list[tuple[bytes, bytes]]


def event(**changes: Any) -> dict[str, Any]:
    return {
        "type": "UPDATE",
        "table": "angajati",
        "schema": "public",
        "record": {"id": EMPLOYEE, "prenume": f"Ștefan {MARKER} 🙂"},
        "old_record": None,
    } | changes


BODY = json.dumps(event(), ensure_ascii=False).encode()


def signature(body: bytes, *, key: bytes = KEY, id_: bytes, timestamp: bytes) -> bytes:
    digest = hmac.new(key, id_ + b"." + timestamp + b"." + body, hashlib.sha256).digest()
    return b"v1," + base64.b64encode(digest)


def signed(body: bytes, *, key: bytes = KEY, age_s: int = 0, id_: bytes = b"msg_1") -> Headers:
    """Return the headers of a webhook that was signed so many seconds ago."""
    timestamp = b"%d" % (time.time() - age_s)
    return [
        (b"content-type", b"application/json"),
        (b"webhook-id", id_),
        (b"webhook-timestamp", timestamp),
        (b"webhook-signature", signature(body, key=key, id_=id_, timestamp=timestamp)),
    ]


def without(headers: Headers, name: bytes) -> Headers:
    return [header for header in headers if header[0] != name]


def changed(headers: Headers, name: bytes, change: Callable[[bytes], bytes]) -> Headers:
    return [(key, change(value) if key == name else value) for key, value in headers]


@contextlib.contextmanager
def environment() -> Iterator[io.StringIO]:
    """Set what create_app reads, gather what it logs, and put everything back."""
    root = logging.getLogger()
    names = (
        "uvicorn",
        "uvicorn.error",
        "uvicorn.access",
        "uvicorn.asgi",
        "httpx",
        "httpcore",
        "hpack",
    )
    loggers = [root, *map(logging.getLogger, names)]
    before = [(lg, lg.handlers[:], lg.level, lg.propagate) for lg in loggers]
    structlog_before = structlog.get_config()
    secrets = (f"whsec_{base64.b64encode(key).decode()}" for key in (KEY, OLD_KEY))
    stdout = io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout):
            patch.setenv("SUPABASE_URL", "http://127.0.0.1:9")  # nobody listens
            patch.setenv("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_test")
            patch.setenv("WEBHOOK_SECRET", " ".join(secrets))
            patch.setenv("POLL_SECONDS", "3600")
            yield stdout
    finally:
        structlog.configure(**structlog_before)
        for logger, handlers, level, propagate in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate


@dataclass(frozen=True)
class Service:
    """The app as it runs in production, on a port of its own."""

    port: int
    http: httpx.Client
    _log: io.StringIO

    def post(self, body: bytes | Iterator[bytes], headers: Headers) -> httpx.Response:
        return self.http.post(PATH, content=body, headers=headers)

    @property
    def log(self) -> str:
        return self._log.getvalue()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def head(headers: Headers) -> bytes:
    """Return a request's head as it goes over the wire, for a body of any framing."""
    lines = [b"POST /webhooks/supabase HTTP/1.1", b"host: receiver"]
    return b"\r\n".join([*lines, *(b"%s: %s" % header for header in headers), b"", b""])


def closed_by_the_server(connection: socket.socket) -> bool:
    """Keep sending a body byte by byte; tell whether the server ends that."""
    for _ in range(80):
        try:
            connection.sendall(b"1\r\n \r\n")
            if select.select([connection], [], [], 0.025)[0] and not connection.recv(65536):
                return True
        except OSError:
            return True
    return False


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with environment() as stdout, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(receiver.app.create_app(), log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
                for _ in range(400):
                    if server.started:
                        break
                    time.sleep(0.025)
                assert server.started
                yield Service(port, http, stdout)
        finally:
            server.should_exit = True
            thread.join(timeout=20)
    assert not thread.is_alive(), "the receiver did not stop"


def assert_refused(response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["detail"]
    assert MARKER not in f"{response.text} {response.headers}"


# Accepted requests


@pytest.mark.parametrize("key", [KEY, OLD_KEY], ids=["new", "old"])
def test_a_webhook_signed_with_either_secret_is_accepted(service: Service, key: bytes) -> None:
    response = service.post(BODY, signed(BODY, key=key))
    assert response.status_code == 202
    assert response.headers["content-type"] == "application/json"
    assert response.json() == ACCEPTED


def test_a_webhook_that_is_repeated_is_accepted_again(service: Service) -> None:
    headers = signed(BODY)
    assert [service.post(BODY, headers).json() for _ in range(3)] == [ACCEPTED] * 3


@pytest.mark.parametrize("separator", [b" ", b", "])
def test_one_right_signature_of_several_in_a_header_is_enough(
    service: Service, separator: bytes
) -> None:
    wrong = signed(BODY, key=FOREIGN_KEY)[-1][1]
    headers = changed(signed(BODY), b"webhook-signature", lambda right: wrong + separator + right)
    assert service.post(BODY, headers).status_code == 202


def test_the_signature_header_may_be_there_twice(service: Service) -> None:
    wrong = (b"webhook-signature", signed(BODY, key=FOREIGN_KEY)[-1][1])
    assert service.post(BODY, [wrong, *signed(BODY)]).status_code == 202
    assert service.post(BODY, [*signed(BODY), wrong]).status_code == 202


def test_a_body_in_chunks_is_the_same_body(service: Service) -> None:
    response = service.post((BODY[i : i + 1] for i in range(len(BODY))), signed(BODY))
    assert response.json() == ACCEPTED


def test_a_body_of_exactly_1_mib_is_taken_and_one_byte_more_is_not(service: Service) -> None:
    room = ONE_MIB - len(json.dumps(event(x="")).encode())
    body = json.dumps(event(x="x" * room)).encode()
    assert len(body) == ONE_MIB
    assert service.post(body, signed(body)).status_code == 202
    assert_refused(service.post(body + b" ", signed(body + b" ")), 413)


def test_biometric_data_that_belong_to_no_employee_are_accepted_without_one(
    service: Service,
) -> None:
    body = json.dumps(event(table="angajati_biometrie", record={"id": EMPLOYEE})).encode()
    response = service.post(body, signed(body))
    assert (response.status_code, response.json()) == (202, {"accepted": True, "angajat_id": None})


def test_the_last_of_two_equal_keys_counts(service: Service) -> None:
    body = BODY.replace(b'"record":', b'"record": 7, "record":', 1)
    assert service.post(body, signed(body)).json() == ACCEPTED


def test_an_accepted_webhook_leaves_the_id_in_the_log_and_nothing_else_of_the_row(
    service: Service,
) -> None:
    before = len(service.log)
    service.post(BODY, signed(BODY))
    events = [json.loads(line) for line in service.log[before:].splitlines()]
    (accepted,) = (e for e in events if e["event"] == "webhook_accepted")
    assert accepted["employee_id"] == EMPLOYEE
    assert MARKER not in service.log


# Refused requests

Sent = tuple[bytes, Headers]


def body_of(value: object) -> Sent:
    body = json.dumps(value).encode()
    return body, signed(body)


def raw(body: bytes) -> Sent:
    return body, signed(body)


REFUSED: dict[str, tuple[int, Callable[[], Sent]]] = {
    # 401
    "forged": (401, lambda: (BODY, signed(BODY, key=FOREIGN_KEY))),
    "body changed": (401, lambda: (BODY + b" ", signed(BODY))),
    "body emptied": (401, lambda: (b"", signed(BODY))),
    "stale": (401, lambda: (BODY, signed(BODY, age_s=330))),
    "future": (401, lambda: (BODY, signed(BODY, age_s=-330))),
    "unsigned": (401, lambda: (BODY, [])),
    "unsigned and empty": (401, lambda: (b"", [])),
    "without id": (401, lambda: (BODY, without(signed(BODY), b"webhook-id"))),
    "without timestamp": (401, lambda: (BODY, without(signed(BODY), b"webhook-timestamp"))),
    "without signature": (401, lambda: (BODY, without(signed(BODY), b"webhook-signature"))),
    "id twice": (401, lambda: (BODY, [*signed(BODY), (b"webhook-id", b"msg_1")])),
    "timestamp twice": (401, lambda: (BODY, [*signed(BODY), (b"Webhook-Timestamp", b"1")])),
    "two wrong signatures": (
        401,
        lambda: (
            BODY,
            [*signed(BODY, key=FOREIGN_KEY), (b"webhook-signature", b"v1," + MARKER.encode())],
        ),
    ),
    "marked id": (401, lambda: (BODY, signed(BODY, key=FOREIGN_KEY, id_=MARKER.encode()))),
    "malformed id": (401, lambda: (BODY, signed(BODY, id_=MARKER.encode() + b".1"))),
    "id outside ASCII": (401, lambda: (BODY, signed(BODY, id_=b"\xff" + MARKER.encode()))),
    "marked timestamp": (
        401,
        lambda: (BODY, changed(signed(BODY), b"webhook-timestamp", lambda _: MARKER.encode())),
    ),
    "signature outside ASCII": (
        401,
        lambda: (BODY, changed(signed(BODY), b"webhook-signature", lambda _: b"v1,\xc3\xa9\xff")),
    ),
    "other version": (
        401,
        lambda: (BODY, changed(signed(BODY), b"webhook-signature", lambda s: b"v2" + s[2:])),
    ),
    # 400
    "not JSON": (400, lambda: raw(MARKER.encode())),
    "empty": (400, lambda: raw(b"")),
    "JSON cut short": (400, lambda: raw(BODY[:-1])),
    "not UTF-8": (400, lambda: raw(BODY.replace("Ș".encode(), b"\xaa"))),
    "UTF-16": (400, lambda: raw(BODY.decode().encode("utf-16"))),
    "deep nesting": (400, lambda: raw(b"[" * 900_000)),
    "deep objects": (400, lambda: raw(b'{"a":' * 150_000)),
    "NaN": (400, lambda: raw(BODY[:-1] + b', "x": NaN}')),
    "huge integer": (400, lambda: raw(b'{"id": ' + b"9" * 100_000 + b"}")),
    # 422
    "array": (422, lambda: body_of([event()])),
    "null": (422, lambda: body_of(None)),
    "no event": (422, lambda: body_of({MARKER: MARKER})),
    "other type": (422, lambda: body_of(event(type=MARKER))),
    "other table": (422, lambda: body_of(event(table=MARKER))),
    "other schema": (422, lambda: body_of(event(schema=MARKER))),
    "no row": (422, lambda: body_of(event(record=MARKER))),
    "no UUID": (422, lambda: body_of(event(record={"id": MARKER}))),
    "lone surrogate": (422, lambda: body_of(event(record={"id": "\ud800"}))),
    "large float": (422, lambda: raw(b'{"type": 1e999}')),
    # 413
    "10 MB": (413, lambda: raw(b" " * 10_000_000)),
    "10 MB unsigned": (413, lambda: (MARKER.encode() * 1_000_000, [])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_a_problem_that_repeats_nothing_of_the_request(
    service: Service, case: str
) -> None:
    status, make = REFUSED[case]
    body, headers = make()
    before = len(service.log)
    marked = [*headers, (b"user-agent", MARKER.encode()), (b"x-request-id", MARKER.encode())]
    assert_refused(service.post(body, marked), status)
    logged = [json.loads(line) for line in service.log[before:].splitlines()]
    (refused,) = (e for e in logged if e["event"] == "webhook_refused")
    assert refused["status"] == status
    assert MARKER not in service.log


@pytest.mark.parametrize("size", [10_000_000, 2 * ONE_MIB])
def test_a_chunked_body_that_is_too_large_gets_its_answer(service: Service, size: int) -> None:
    chunks = (b"x" * 50_000 for _ in range(size // 50_000))
    response = service.post(chunks, [(b"x-marker", MARKER.encode())])
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert_refused(response, 413)


def test_a_body_that_ends_early_is_refused_and_wakes_no_worker(service: Service) -> None:
    before = len(service.log)
    headers = [*signed(BODY), (b"content-length", b"%d" % (len(BODY) + 1))]
    with service.connect() as connection:
        connection.sendall(head(headers) + BODY)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    for _ in range(400):
        if "webhook_refused" in service.log[before:]:
            break
        time.sleep(0.025)
    logged = service.log[before:]
    assert "The body ended early." in logged
    assert "webhook_accepted" not in logged
    assert "Traceback" not in logged
    assert service.post(BODY, signed(BODY)).status_code == 202


def test_waiting_for_a_body_that_never_comes_has_a_limit(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.web.request, "BODY_TIMEOUT_S", 0.2)
    headers = [*signed(BODY), (b"content-length", b"%d" % (len(BODY) + 1))]
    with service.connect() as connection:
        connection.sendall(head(headers) + BODY)
        answered = b""
        while b"}" not in answered:
            answered += connection.recv(65536)
    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answered
    assert MARKER.encode() not in answered


def test_waiting_for_a_body_that_comes_byte_by_byte_and_never_ends_has_a_limit(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.web.request, "BODY_TIMEOUT_S", 0.2)
    with service.connect() as connection:
        connection.sendall(head([*signed(BODY), (b"transfer-encoding", b"chunked")]))
        for _ in range(400):
            connection.sendall(b"1\r\n \r\n")
            if select.select([connection], [], [], 0.025)[0]:
                break
        answered = connection.recv(65536)
    assert answered.startswith(b"HTTP/1.1 408 ")


def test_after_a_408_the_connection_is_closed_however_much_more_is_sent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.web.request, "BODY_TIMEOUT_S", 0.1)
    with service.connect() as connection:
        connection.sendall(head([(b"transfer-encoding", b"chunked")]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert closed_by_the_server(connection)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_405_and_says_which_is_right(service: Service, method: str) -> None:
    response = service.http.request(method, PATH, headers={"x-marker": MARKER})
    assert response.headers["allow"] == "POST"
    assert response.status_code == 405
    if method != "HEAD":
        assert_refused(response, 405)


@pytest.mark.parametrize(
    "path",
    ["/", f"{PATH}/", f"/{PATH}", f"{PATH}/x", "/webhooks", "/Webhooks/Supabase", "/healthz/",
     "/readyz/", "/docs", "/favicon.ico", "/%2e%2e/etc/passwd", "/webhooks%2Fsupabase/x",
     "/%ff%00"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404_and_never_a_redirect(
    service: Service, method: str, path: str
) -> None:
    response = service.http.request(
        method, httpx.URL(service.http.base_url, raw_path=path.encode()), headers=signed(b"")
    )
    assert "location" not in response.headers
    assert_refused(response, 404)


# Health


def test_healthz_says_that_the_process_is_alive(service: Service) -> None:
    response = service.http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_readyz_says_that_supabase_cannot_be_reached(service: Service) -> None:
    for _ in range(400):
        response = service.http.get("/readyz")
        if "Supabase" in response.json()["detail"]:
            break
        time.sleep(0.025)
    assert_refused(response, 503)
    assert "Supabase cannot be reached" in response.json()["detail"]
    assert "sb_secret" not in response.text


# Any other request


@dataclass(frozen=True)
class InProcess:
    """Another app of the same kind, asked without a socket; it raises what it does not catch."""

    app: Starlette
    runner: asyncio.Runner

    def post(self, body: bytes, headers: Headers) -> httpx.Response:
        return self.runner.run(self._post(body, headers))

    async def _post(self, body: bytes, headers: Headers) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as http:
            return await http.post(PATH, content=body, headers=headers)


@pytest.fixture(scope="module")
def in_process() -> Iterator[InProcess]:
    with environment(), asyncio.Runner() as runner:
        app = receiver.app.create_app()
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        yield InProcess(app, runner)
        runner.run(lifespan.__aexit__(None, None, None))


BYTES = st.binary(max_size=200)
VALUES = BYTES.map(lambda value: value.translate(None, b"\r\n\0"))
NAMES = st.sampled_from(
    b"webhook-id webhook-timestamp webhook-signature Webhook-Id content-type content-encoding "
    b"expect x-forwarded-for authorization cookie accept host".split()
) | st.from_regex(rb"[a-z][a-z0-9-]{0,20}", fullmatch=True).filter(
    lambda name: name not in (b"content-length", b"transfer-encoding")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CHANGES = st.dictionaries(
    st.sampled_from(["type", "table", "schema", "record", "old_record"]),
    JSON | st.sampled_from(["INSERT", "DELETE", "angajati_biometrie", "public"]),
    max_size=3,
)
BODIES = (
    BYTES
    | JSON.map(lambda value: json.dumps(value).encode())
    | CHANGES.map(lambda changes: json.dumps(event(**changes)).encode())
)


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """A request of any kind: from nonsense to a valid one with something about it changed."""
    body = draw(BODIES)
    headers = draw(st.sampled_from([[], signed(body)]), label="signed")
    headers = list(headers)
    for index in draw(st.sets(st.integers(0, 3), max_size=2), label="changed"):
        if index < len(headers):
            headers[index] = (headers[index][0], draw(VALUES))
    left_out = draw(st.integers(0, 12), label="left out")
    headers = headers[:left_out] + headers[left_out + 1 :]
    headers += draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    body = draw(st.just(b"") | BYTES, label="put before the body") + body
    return body, headers


@settings(deadline=None, max_examples=400)
@given(requests())
@example((BODY, [*signed(BODY), (b"content-encoding", b"gzip")]))
@example((b"\xff", signed(b"\xff")))
@example((b"", [(b"webhook-id", b""), (b"webhook-id", b"")]))
def test_any_request_gets_one_of_the_documented_answers(
    in_process: InProcess, request_: Sent
) -> None:
    response = in_process.post(*request_)
    if response.status_code == 202:
        assert set(response.json()) == {"accepted", "angajat_id"}
    else:
        assert response.status_code in REFUSALS
        assert_refused(response, response.status_code)


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, len(BODY) - 1), flip=st.integers(1, 255))
def test_a_signed_body_with_any_one_byte_changed_is_a_forgery(
    in_process: InProcess, at: int, flip: int
) -> None:
    body = bytearray(BODY)
    body[at] ^= flip
    assert_refused(in_process.post(bytes(body), signed(BODY)), 401)


@settings(deadline=None, max_examples=100)
@given(body=BODIES, headers=st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_no_request_without_a_signature_is_let_in(
    in_process: InProcess, body: bytes, headers: Headers
) -> None:
    assert_refused(in_process.post(body, headers), 401)
