"""pg_net's background worker: sends what `net.http_post` queued, once its transaction committed.

Faithful where it matters (facts of pg_net 0.20.4): a batch is taken by deleting it, goes out all
at once and in no order, is answered or not, and nothing is ever retried. The body leaves as the
bytes that were queued. It loses or duplicates requests on demand; the real one does so too, but not
on demand.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self, TypeAlias

import httpx
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row
from psycopg.types.json import Jsonb

Connection: TypeAlias = AsyncConnection[TupleRow]

BATCH = 200
POLL_S = 1.0
RECONNECT_PAUSE_S = 0.2
MAX_STORED_CONTENT = 1_000_000
USER_AGENT = "pg_net/0.20.4"

# The order in which the rows come back has no meaning, as in pg_net.
TAKE = """
delete from net.http_request_queue
where id in (select id from net.http_request_queue order by id limit %s)
returning id, method, url, body, timeout_milliseconds, coalesce(
    (select json_agg(json_build_array(key, value)) from jsonb_each_text(headers) where value <> ''),
    '[]'
) as headers
"""
STORE = """
insert into net._http_response
    (id, status_code, content_type, headers, content, timed_out, error_msg)
values (%s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True, kw_only=True)
class QueuedRequest:
    """A row of net.http_request_queue; headers that are null or empty are already gone."""

    id: int
    method: str
    url: str
    headers: list[list[str]]
    body: bytes | None
    timeout_milliseconds: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is stored about a request: an HTTP answer, or why there is none."""

    status_code: int | None = None
    content_type: str | None = None
    headers: dict[str, str] | None = None
    content: str | None = None
    timed_out: bool = False
    error_msg: str | None = None


class PgNetWorker:
    """The worker of one database: `async with PgNetWorker(database.superuser_dsn) as worker: …`.

    `delivered` counts the requests that got an answer, whatever its status; `failed` the ones that
    got none; `lost` and `duplicated` the ones that it was told to lose and to send twice.
    """

    def __init__(self, dsn: str, *, poll_s: float = POLL_S) -> None:
        self._dsn = dsn
        self._poll_s = poll_s
        self._task: asyncio.Task[None] | None = None
        self._to_lose = 0
        self._to_duplicate = 0
        self.delivered = 0
        self.failed = 0
        self.lost = 0
        self.duplicated = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start working; what is already queued goes out at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._work_until_stopped())

    async def stop(self) -> None:
        """Stop; a batch that is under way is lost, as when the real worker is killed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def lose_next(self, requests: int = 1) -> None:
        """Drop the next requests without a trace, as a crash of the worker does."""
        self._to_lose += requests

    def duplicate_next(self, requests: int = 1) -> None:
        """Send the next requests twice, as the worker does when storing an answer failed."""
        self._to_duplicate += requests

    async def _work_until_stopped(self) -> None:
        async with _client() as client:
            while True:
                # Postgres stopped or was never there: the worker belongs to it and comes back too.
                with contextlib.suppress(psycopg.Error):
                    await self._work(client)
                await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _work(self, client: httpx.AsyncClient) -> None:
        async with await AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            await connection.execute("listen pg_net")
            while True:
                if not await self._batch(connection, client):
                    async for _ in connection.notifies(timeout=self._poll_s, stop_after=1):
                        pass

    async def _batch(self, connection: Connection, client: httpx.AsyncClient) -> bool:
        """Take a batch, send it and store its answers; return whether there was anything."""
        async with connection.cursor(row_factory=class_row(QueuedRequest)) as cursor:
            await cursor.execute(TAKE, (BATCH,))
            batch = await cursor.fetchall()
        sends = [request for request in batch for _ in range(self._times(request))]
        answers = await asyncio.gather(*(_send(client, request) for request in sends))
        for request, answer in zip(sends, answers, strict=True):
            if answer.error_msg is None:
                self.delivered += 1
            else:
                self.failed += 1
            await connection.execute(STORE, _stored(request, answer))
        return bool(batch)

    def _times(self, _: QueuedRequest) -> int:
        if self._to_lose > 0:
            self._to_lose -= 1
            self.lost += 1
            return 0
        if self._to_duplicate > 0:
            self._to_duplicate -= 1
            self.duplicated += 1
            return 2
        return 1


def _client() -> httpx.AsyncClient:
    """Return a client that sends what libcurl would, and nothing of httpx' own."""
    limits = httpx.Limits(max_connections=BATCH, max_keepalive_connections=0)
    client = httpx.AsyncClient(
        headers={"User-Agent": USER_AGENT}, follow_redirects=True, trust_env=False, limits=limits
    )
    del client.headers["Accept-Encoding"]
    return client


async def _send(client: httpx.AsyncClient, request: QueuedRequest) -> Answer:
    limit_s = request.timeout_milliseconds / 1000
    try:
        async with asyncio.timeout(limit_s):  # of the whole exchange, as libcurl's is
            response = await client.request(
                request.method,
                request.url,
                content=request.body,
                headers=[(name, value) for name, value in request.headers],
                timeout=limit_s,
            )
    except (TimeoutError, httpx.TimeoutException):
        return Answer(
            timed_out=True, error_msg=f"Timeout of {request.timeout_milliseconds} ms reached"
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        return Answer(error_msg=str(exc) or type(exc).__name__)
    return Answer(
        status_code=response.status_code,
        content_type=response.headers.get("content-type"),
        headers=dict(response.headers),
        content=response.text.replace("\0", "")[:MAX_STORED_CONTENT],
    )


def _stored(request: QueuedRequest, answer: Answer) -> tuple[object, ...]:
    return (
        request.id,
        answer.status_code,
        answer.content_type,
        None if answer.headers is None else Jsonb(answer.headers),
        answer.content,
        answer.timed_out,
        answer.error_msg,
    )
