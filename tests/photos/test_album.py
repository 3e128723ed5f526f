"""Photos: fetched over real sockets from allowed places, and from nowhere else."""

import asyncio
import contextlib
import gzip
import logging
import threading
import time
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO

import httpx
import pytest
import respx
import structlog
from PIL import Image

from receiver.core import logs
from receiver.core.errors import PhotoNotFetched, PhotoUnusable, ReceiverError
from receiver.photos import album, fetch
from receiver.photos.album import Album
from receiver.photos.fetch import PhotoFetcher, http_client
from receiver.sandbox.database.postgres import Database
from receiver.sandbox.supabase.server import SupabaseStandIn
from tests.support.sample_pictures import picture, saved

PHOTO = saved(picture(), "JPEG")
PROJECT = "https://abcd.supabase.co"
KEY = "sb_secret_keep-this-to-yourself"
OBJECT = f"{PROJECT}/storage/v1/object/public/pontaj-photos/1.jpg"
ELSEWHERE = "The photo lies on a host that the receiver may not fetch from (PHOTO_HOSTS)."

MakeAlbum = Callable[..., Album]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with http_client() as client:
        yield client


@pytest.fixture
async def supabase(database: Database) -> AsyncIterator[SupabaseStandIn]:
    async with SupabaseStandIn(database) as supabase:
        supabase.photos["1.jpg"] = PHOTO
        yield supabase


@pytest.fixture
def photos_of(http: httpx.AsyncClient) -> MakeAlbum:
    def make(
        url: str = PROJECT,
        *hosts: str,
        key: str = KEY,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Album:
        fetcher = PhotoFetcher(
            http, supabase_url=url, service_role_key=key, allowed_hosts=frozenset(hosts)
        )
        return Album(fetcher.fetch, monotonic=monotonic)

    return make


class Host:
    """A web server that does what a test says, and remembers the requests it got."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.asked = asyncio.Event()
        self.serving = 0
        self.port = 0

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    @property
    def paths(self) -> list[str]:
        return [request.split(" ")[1] for request in self.requests]


Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def host(answer: Answer) -> AsyncIterator[Host]:
    """Serve by a function of the path that writes the answer, byte for byte."""
    served = Host()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.serving += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            served.requests.append(head)
            served.asked.set()
            await answer(head.split(" ")[1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            served.serving -= 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        await server.wait_closed()


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, *headers, "Connection: close", "", ""]).encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def always(answer: bytes) -> Answer:
    async def write(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return write


async def refused(
    asked: Album, url: str, kind: type[ReceiverError] = PhotoUnusable
) -> ReceiverError:
    """Return the error, after checking that it says neither where the photo is nor the key."""
    with pytest.raises(kind) as caught:
        await asked.jpeg(url)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not url or url not in text
    assert KEY not in text
    return caught.value


def fits(jpeg: bytes) -> bool:
    with Image.open(BytesIO(jpeg), formats=("JPEG",)) as image:
        return max(image.size) == 600


# The project's own storage


async def test_a_public_photo_is_fetched_without_the_key(
    supabase: SupabaseStandIn, photos_of: MakeAlbum
) -> None:
    asked = photos_of(supabase.url, key=supabase.service_role_key)
    assert fits(await asked.jpeg(supabase.photo_url("1.jpg")))
    assert [request[2] for request in supabase.requests] == [200]


@pytest.mark.parametrize("kind", ["legacy", "secret"])
async def test_a_photo_in_a_private_bucket_is_fetched_with_either_kind_of_key(
    supabase: SupabaseStandIn, photos_of: MakeAlbum, kind: str
) -> None:
    supabase.storage.public = False
    key = supabase.service_role_key if kind == "legacy" else supabase.secret_key
    asked = photos_of(supabase.url, key=key)
    assert fits(await asked.jpeg(supabase.photo_url("1.jpg") + "?t=7"))
    assert list(supabase.requests) == [
        ("GET", "/storage/v1/object/public/pontaj-photos/1.jpg?t=7", 400),
        ("GET", "/storage/v1/object/pontaj-photos/1.jpg?t=7", 200),
    ]


async def test_a_name_with_blanks_and_diacritics_is_found_in_a_private_bucket(
    supabase: SupabaseStandIn, photos_of: MakeAlbum
) -> None:
    supabase.storage.public = False
    supabase.photos["poze/Ștefan 100%.jpg"] = PHOTO
    asked = photos_of(supabase.url, key=supabase.secret_key)
    assert fits(await asked.jpeg(supabase.photo_url("poze/%C8%98tefan%20100%25.jpg")))


async def test_a_photo_that_is_not_there_may_be_fetched_later(
    supabase: SupabaseStandIn, photos_of: MakeAlbum
) -> None:
    asked = photos_of(supabase.url, key=supabase.secret_key)
    url = supabase.photo_url("2.jpg")
    fault = await refused(asked, url, PhotoNotFetched)
    assert fault.message == "The photo cannot be fetched: storage answered HTTP 400."
    supabase.photos["2.jpg"] = PHOTO
    assert fits(await asked.jpeg(url))


async def test_a_photo_is_not_fetched_with_a_wrong_key(
    supabase: SupabaseStandIn, photos_of: MakeAlbum
) -> None:
    supabase.storage.public = False
    asked = photos_of(supabase.url, key=KEY)
    await refused(asked, supabase.photo_url("1.jpg"), PhotoNotFetched)


async def test_a_file_that_is_not_a_picture_is_refused_in_words(
    supabase: SupabaseStandIn, photos_of: MakeAlbum
) -> None:
    supabase.photos["page.jpg"] = b"<!doctype html><title>Sign in</title>"
    asked = photos_of(supabase.url, key=supabase.secret_key)
    fault = await refused(asked, supabase.photo_url("page.jpg"))
    assert fault.message == "The photo is not a picture: it is a web page."


async def test_storage_that_is_off_is_asked_again_later(
    supabase: SupabaseStandIn, photos_of: MakeAlbum
) -> None:
    await supabase.switch_off()
    asked = photos_of(supabase.url, key=KEY)
    fault = await refused(asked, supabase.photo_url("1.jpg"), PhotoNotFetched)
    assert fault.message == "The photo cannot be fetched: the connection failed (ConnectError)."


async def test_a_signed_url_is_fetched_as_it_is(
    respx_mock: respx.MockRouter, photos_of: MakeAlbum
) -> None:
    url = f"{PROJECT}/storage/v1/object/sign/pontaj-photos/1.jpg?token=eyJhbGciOi.e30.x"
    route = respx_mock.get(url).respond(400)
    await refused(photos_of(), url, PhotoNotFetched)
    [call] = route.calls
    assert "apikey" not in call.request.headers
    assert "Authorization" not in call.request.headers


# Allowed URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/storage/v1/object/public/pontaj-photos/1.jpg",
        "http://abcd.supabase.co/storage/v1/object/public/pontaj-photos/1.jpg",
        "https://abcd.supabase.co:8443/storage/v1/object/public/pontaj-photos/1.jpg",
        "https://abcd.supabase.co./storage/v1/object/public/pontaj-photos/1.jpg",
        "https://abcd.supabase.co.evil.example/storage/v1/object/1.jpg",
        "https://abcd.supabase.co/rest/v1/angajati?select=cnp",
        "https://abcd.supabase.co/storage/v1/../../rest/v1/angajati",
        "https://abcd.supabase.co/storage/v1/%2e%2e/%2E%2e/rest/v1/angajati",
        "https://abcd.supabase.co/storage/v1/object/public/..%2f..%2f..%2frest/v1/angajati",
        "https://abcd.supabase.co/storage/v1/object/public/%252e%252e/%252e%252e/x",
        "https://abcd.supabase.co/storage/v1/object/public/..%5c..%5crest",
        "https://abcd.supabase.co/storage/v1",
        "https://abcd.supabase.co//storage/v1/object/public/pontaj-photos/1.jpg",
        "http://127.0.0.1/1.jpg",
        "http://[::1]/1.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "https://cdn.example.com:8443/1.jpg",
        "https://xcdn.example.com/1.jpg",
        "http://10.0.0.7/1.jpg",
    ],
)
async def test_other_hosts_and_paths_are_not_asked(
    respx_mock: respx.MockRouter, photos_of: MakeAlbum, url: str
) -> None:
    fault = await refused(photos_of(PROJECT, "cdn.example.com", "10.0.0.7:8080"), url)
    assert fault.message == ELSEWHERE
    assert not respx_mock.calls


@pytest.mark.parametrize(
    "url",
    [
        "",
        "1.jpg",
        "//abcd.supabase.co/storage/v1/object/1.jpg",
        "file:///etc/passwd",
        "ftp://abcd.supabase.co/storage/v1/object/1.jpg",
        "data:image/png;base64,AAAA",
        "https://user:secret@abcd.supabase.co/storage/v1/object/1.jpg",
        "https://user@cdn.example.com/1.jpg",
        "https://abcd.supabase.co:port/storage/v1/object/1.jpg",
        "https://abcd.supabase.co/storage/v1/object/\n1.jpg",
        "https://[::1/1.jpg",
        "https://\ud800.example/1.jpg",
        "https://" + "a" * 300 + "\u0219.example/1.jpg",
        "https://abcd.supabase.co/storage/v1/object/" + "%25" * 30_000,
    ],
    ids=lambda url: ascii(url[:50]),
)
async def test_a_text_that_is_no_plain_url_is_not_asked_for(
    respx_mock: respx.MockRouter, photos_of: MakeAlbum, url: str
) -> None:
    fault = await refused(photos_of(PROJECT, "cdn.example.com"), url)
    assert fault.message == "The photo's URL is not a plain http(s) URL."
    assert not respx_mock.calls


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("cdn.example.com", "https://cdn.example.com/1.jpg"),
        ("cdn.example.com", "http://CDN.Example.com:80/1.jpg?w=600"),
        ("CDN.example.com:443", "https://cdn.example.com/1.jpg"),
        ("cdn.example.com:8443", "https://cdn.example.com:8443/../1.jpg"),
        ("[::1]:8080", "http://[::1]:8080/1.jpg"),
        ("xn--poz-cpa.example", "https://poză.example/1.jpg"),
    ],
)
async def test_allowed_hosts_are_asked_and_never_get_the_key(
    respx_mock: respx.MockRouter, photos_of: MakeAlbum, allowed: str, url: str
) -> None:
    answers = respx_mock.get(url__regex=".*").respond(200, content=PHOTO)
    assert fits(await photos_of(PROJECT, allowed).jpeg(url))
    [call] = answers.calls
    assert KEY not in str(call.request.headers.raw)


async def test_an_allowed_host_is_asked_once_whatever_it_answers(
    respx_mock: respx.MockRouter, photos_of: MakeAlbum
) -> None:
    url = "https://cdn.example.com/storage/v1/object/public/pontaj-photos/1.jpg"
    route = respx_mock.get(url).respond(404)
    fault = await refused(photos_of(PROJECT, "cdn.example.com"), url, PhotoNotFetched)
    assert fault.message == "The photo cannot be fetched: its host answered HTTP 404."
    assert route.call_count == 1


# Redirects


async def test_up_to_three_redirects_to_allowed_hosts_are_followed(
    photos_of: MakeAlbum,
) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        left = int(path.removeprefix("/"))
        writer.write(redirect(f"{left - 1}", 307) if left else ok(PHOTO))

    async with host(answer) as there:
        assert fits(await photos_of(PROJECT, there.name).jpeg(f"{there.url}/3"))
        assert there.paths == ["/3", "/2", "/1", "/0"]
        fault = await refused(photos_of(PROJECT, there.name), f"{there.url}/4")
    assert fault.message == "The photo's URL redirects too often."
    assert there.paths[4:] == ["/4", "/3", "/2", "/1"]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("http://169.254.169.254/latest", ELSEWHERE),
        ("//evil.example/1.jpg", ELSEWHERE),
        ("http://localhost:1/1.jpg", ELSEWHERE),
        ("file:///etc/passwd", "not a plain http(s) URL"),
        ("http://user:pw@127.0.0.1/", "not a plain http(s) URL"),
    ],
)
async def test_a_redirect_elsewhere_is_not_followed(
    photos_of: MakeAlbum, to: str, said: str
) -> None:
    async with host(always(redirect(to))) as there:
        fault = await refused(photos_of(PROJECT, there.name), f"{there.url}/1.jpg")
    assert said in fault.message
    assert to not in fault.message


async def test_the_key_does_not_go_with_a_redirect(photos_of: MakeAlbum) -> None:
    async with host(always(ok(PHOTO))) as cdn:

        async def storage(path: str, writer: asyncio.StreamWriter) -> None:
            public = path.startswith("/storage/v1/object/public/")
            head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            writer.write(head if public else redirect(f"{cdn.url}/1.jpg"))

        async with host(storage) as there:
            asked = photos_of(there.url, cdn.name)
            assert fits(await asked.jpeg(f"{there.url}/storage/v1/object/public/p/1.jpg"))
    assert [KEY in request for request in there.requests] == [False, True]
    assert there.paths[1] == "/storage/v1/object/p/1.jpg"
    [request] = cdn.requests
    assert KEY not in request
    assert "authorization" not in request.lower()


# Sizes, times and odd answers


async def test_an_answer_that_says_it_is_too_large_is_not_read(photos_of: MakeAlbum) -> None:
    async with host(always(ok(b"", length=30_000_001))) as there:
        fault = await refused(photos_of(PROJECT, there.name), f"{there.url}/1.jpg")
    assert fault.message == "The photo is larger than 30 MB."


async def test_an_endless_body_is_cut_at_30_mb(photos_of: MakeAlbum) -> None:
    sent = 0

    async def endless(_: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"100000\r\n" + bytes(0x100000) + b"\r\n")
            await writer.drain()
            sent += 0x100000

    async with host(endless) as there:
        fault = await refused(photos_of(PROJECT, there.name), f"{there.url}/1.jpg")
    assert fault.message == "The photo is larger than 30 MB."
    assert sent < 45_000_000


async def test_a_compressed_answer_is_not_unpacked(photos_of: MakeAlbum) -> None:
    packed = ok(gzip.compress(bytes(10**6)), "Content-Encoding: gzip")
    async with host(always(packed)) as there:
        fault = await refused(photos_of(PROJECT, there.name), f"{there.url}/1.jpg")
        assert "accept-encoding: identity\r\n" in there.requests[0].lower()
    assert "compressed" in fault.message


async def test_a_slow_body_has_20_seconds_in_all(
    photos_of: MakeAlbum, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch.TOTAL_TIMEOUT_S == 20
    monkeypatch.setattr(fetch, "TOTAL_TIMEOUT_S", 0.3)

    async def slow(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"", length=1000))
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with host(slow) as there:
        fault = await refused(photos_of(PROJECT, there.name), f"{there.url}/", PhotoNotFetched)
    assert fault.message == "The photo cannot be fetched: it did not arrive in time."


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        ok(PHOTO, length=len(PHOTO) + 1),
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        redirect("http://127.0.0.1:port/"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda answer: ascii(answer[:24]),
)
async def test_odd_answers_are_photos_that_are_not_fetched(
    photos_of: MakeAlbum, answer: bytes
) -> None:
    async with host(always(answer)) as there:
        await refused(photos_of(PROJECT, there.name), f"{there.url}/1.jpg", PhotoNotFetched)


def exceptions_of_httpx() -> list[type[Exception]]:
    found = [cls for cls in vars(httpx).values() if isinstance(cls, type)]
    return [cls for cls in found if issubclass(cls, Exception)]


@pytest.mark.parametrize("kind", exceptions_of_httpx(), ids=lambda kind: kind.__name__)
async def test_no_exception_of_httpx_comes_through(
    http: httpx.AsyncClient,
    photos_of: MakeAlbum,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
) -> None:
    async def fail(request: httpx.Request, **_: object) -> httpx.Response:
        fault = kind.__new__(kind)
        fault.args = (str(request.url), KEY)
        raise fault

    monkeypatch.setattr(http, "send", fail)
    await refused(photos_of(), OBJECT, PhotoNotFetched)


async def test_no_log_line_holds_the_url_or_the_key(
    photos_of: MakeAlbum, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure("json")
    root.setLevel(logging.DEBUG)
    try:
        async with host(always(ok(b"no picture"))) as there:
            asked = photos_of(there.url)
            url = f"{there.url}/storage/v1/object/public/p/ion-popescu.jpg"
            for _ in range(2):
                try:
                    await asked.jpeg(url)
                except PhotoUnusable:
                    logs.get_logger("test").exception("photo_not_sent")
                await asyncio.sleep(0)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        for name in ("httpx", "httpcore", "hpack"):
            logging.getLogger(name).setLevel(logging.NOTSET)
        structlog.reset_defaults()
    written = capsys.readouterr().out
    assert "photo_not_sent" in written
    assert "ion-popescu" not in written
    assert KEY not in written


# One fetch for all


async def test_twenty_terminals_share_one_fetch(photos_of: MakeAlbum) -> None:
    async with host(always(ok(PHOTO))) as there:
        asked = photos_of(PROJECT, there.name)
        fitted = await asyncio.gather(*(asked.jpeg(f"{there.url}/1.jpg") for _ in range(20)))
    assert len({id(jpeg) for jpeg in fitted}) == 1
    assert len(there.requests) == 1


async def test_terminals_that_wait_share_the_failure_and_the_next_one_tries_again(
    photos_of: MakeAlbum,
) -> None:
    async with host(always(ok(b""))) as there:
        asked = photos_of(PROJECT, there.name)
        waiting = [asked.jpeg(f"{there.url}/1.jpg") for _ in range(20)]
        faults = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(fault) for fault in faults} == {"The photo is an empty file."}
        assert len(there.requests) == 1
        await refused(asked, f"{there.url}/1.jpg")
        assert len(there.requests) == 2


async def test_a_photo_is_kept_for_10_seconds_and_32_of_them(photos_of: MakeAlbum) -> None:
    now = 0.0
    async with host(always(ok(PHOTO))) as there:
        asked = photos_of(PROJECT, there.name, monotonic=lambda: now)
        for second in (0.0, 9.9, 10.0, 11.0):
            now = second
            await asked.jpeg(f"{there.url}/0")
        assert there.paths == ["/0", "/0"]
        for n in range(1, 33):
            await asked.jpeg(f"{there.url}/{n}")
        there.requests.clear()
        await asked.jpeg(f"{there.url}/1")
        assert there.paths == []
        await asked.jpeg(f"{there.url}/0")
        assert there.paths == ["/0"]


async def test_one_file_at_a_time_is_fetched_and_fitted(
    photos_of: MakeAlbum, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most = 0, 0
    counting = threading.Lock()

    def count(step: int) -> None:
        nonlocal busy, most
        with counting:
            busy += step
            most = max(most, busy)

    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        count(1)
        await asyncio.sleep(0.02)
        count(-1)
        writer.write(ok(PHOTO))

    def fit(_: bytes) -> bytes:
        count(1)
        threading.Event().wait(0.02)
        count(-1)
        return b"fitted"

    monkeypatch.setattr(album, "fit", fit)
    async with host(answer) as there:
        asked = photos_of(PROJECT, there.name)
        await asyncio.gather(*(asked.jpeg(f"{there.url}/{n}") for n in range(5)))
    assert most == 1
    assert len(there.requests) == 5


async def test_a_terminal_that_gives_up_takes_the_photo_from_no_other(
    photos_of: MakeAlbum,
) -> None:
    go_on = asyncio.Event()

    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(ok(PHOTO))

    async with host(answer) as there:
        asked = photos_of(PROJECT, there.name)
        waiting = [asyncio.create_task(asked.jpeg(f"{there.url}/1.jpg")) for _ in range(2)]
        await there.asked.wait()
        waiting[0].cancel()
        await asyncio.wait({waiting[0]})
        go_on.set()
        assert fits(await waiting[1])
    assert len(there.requests) == 1


async def test_a_photo_that_everybody_gave_up_is_not_fetched_further(photos_of: MakeAlbum) -> None:
    cut = asyncio.Event()

    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"", length=1000))
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def noticing(path: str, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(path, writer)
        finally:
            cut.set()

    async with host(noticing) as there:
        asked = photos_of(PROJECT, there.name)
        waiting = asyncio.create_task(asked.jpeg(f"{there.url}/1.jpg"))
        await there.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(5):
            await cut.wait()


async def test_a_picture_given_up_while_it_is_fitted_is_not_joined_by_the_next(
    photos_of: MakeAlbum, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    busy: list[bool] = []

    def fit(_: bytes) -> bytes:
        busy.append(began.is_set() and not go_on.is_set())
        began.set()
        go_on.wait(5)
        raise PhotoUnusable

    monkeypatch.setattr(album, "fit", fit)
    async with host(always(ok(PHOTO))) as there:
        asked = photos_of(PROJECT, there.name)
        first = asyncio.create_task(asked.jpeg(f"{there.url}/1.jpg"))
        await asyncio.to_thread(began.wait, 5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(asked.jpeg(f"{there.url}/1.jpg"))
        await asyncio.sleep(0.1)
        go_on.set()
        with pytest.raises(PhotoUnusable):
            await second
    assert busy == [False, False]


async def test_cookies_are_not_kept(http: httpx.AsyncClient, photos_of: MakeAlbum) -> None:
    async with host(always(ok(PHOTO, "Set-Cookie: session=1; Path=/"))) as there:
        await photos_of(PROJECT, there.name).jpeg(f"{there.url}/1.jpg")
    assert not http.cookies.jar


async def test_an_error_that_is_kept_keeps_no_picture(photos_of: MakeAlbum) -> None:
    """A caller may keep the error of a photo; the file must be gone."""

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        body = b"x" * 5_000_000
        writer.write(ok(body, length=len(body) + (path == "/cut")))

    async with host(answer) as there:
        asked = photos_of(PROJECT, there.name)
        paths = ("unknown", "cut", "other")
        tracemalloc.start()
        waiting = [asked.jpeg(f"{there.url}/{path}") for path in paths]
        faults = await asyncio.gather(*waiting, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                # This also counts bytes that the host has not sent yet, and bytes that a thread
                # which is done with them has not let go.
                while there.serving or tracemalloc.get_traced_memory()[0] > 1_000_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        remaining, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert [type(fault) for fault in faults] == [PhotoUnusable, PhotoNotFetched, PhotoUnusable]
    assert remaining < 1_000_000
