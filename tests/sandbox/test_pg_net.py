"""pg_net's stand-in: what leaves the database, when, and as which bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from receiver.sandbox.database.pg_net import PgNetWorker
from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import create_project
from receiver.sandbox.loopback import LoopbackServer

PATIENCE_S = 15


@dataclass
class Inbox:
    """A receiver that keeps the requests that reached it."""

    url: str = ""
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        headers = {name.decode(): value.decode() for name, value in request.headers.raw}
        self.received.append((request.url.path, headers, await request.body()))
        return Response('{"accepted": true}', status_code=202, media_type="application/json")

    async def fail(self, _: Request) -> Response:
        return Response("no\0", status_code=500)

    async def redirect(self, _: Request) -> Response:
        return RedirectResponse("/hook", status_code=307)

    async def hang(self, _: Request) -> Response:
        await asyncio.sleep(PATIENCE_S)
        return Response()


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox = Inbox()
    routes = [
        Route("/hook", inbox.take, methods=["POST"]),
        Route("/fail", inbox.fail, methods=["POST"]),
        Route("/moved", inbox.redirect, methods=["POST"]),
        Route("/hang", inbox.hang, methods=["POST"]),
    ]
    async with LoopbackServer(Starlette(routes=routes)) as server:
        inbox.url = server.url
        yield inbox


@pytest.fixture
async def worker(database: Database) -> AsyncIterator[PgNetWorker]:
    async with PgNetWorker(database.superuser_dsn) as worker:
        yield worker


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what it waits for sets no event
            await asyncio.sleep(0.005)


def post(dsn: str, url: str, body: str = "{}", headers: str = "{}", timeout: int = 5000) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select net.http_post(%s, body := %s, headers := %s, timeout_milliseconds := %s)",
            (url, body, headers, timeout),
        )


def responses(database: Database) -> list[tuple[object, ...]]:
    with psycopg.connect(database.superuser_dsn) as connection:
        return connection.execute(
            "select status_code, content, timed_out, error_msg is not null "
            "from net._http_response order by id"
        ).fetchall()


async def test_a_request_leaves_at_commit_and_never_after_a_rollback(
    database: Database, worker: PgNetWorker, inbox: Inbox
) -> None:
    url = f"{inbox.url}/hook"
    with psycopg.connect(database.owner_dsn) as undone:
        undone.execute("""select net.http_post(%s, body := '{"undone": true}')""", (url,))
        undone.rollback()
    with psycopg.connect(database.owner_dsn) as open_:
        open_.execute("""select net.http_post(%s, body := '{"first": true}')""", (url,))
        # Another transaction goes by while this one is open, so that the worker has surely looked.
        post(database.owner_dsn, url, '{"second": true}')
        await until(lambda: worker.delivered == 1)
        assert [json.loads(body) for _, _, body in inbox.received] == [{"second": True}]
        open_.commit()
    await until(lambda: worker.delivered == 2)
    assert [json.loads(body) for _, _, body in inbox.received] == [
        {"second": True},
        {"first": True},
    ]
    assert responses(database) == [(202, '{"accepted": true}', False, False)] * 2


async def test_the_wire_carries_the_exact_bytes_and_pg_nets_own_headers(
    database: Database, worker: PgNetWorker, inbox: Inbox
) -> None:
    with psycopg.connect(database.owner_dsn, autocommit=True) as owner:
        signed = owner.execute(
            """with event as (select '{"z": 1.50, "a": "Ștefan 😀 \\"x\\""}'::jsonb as body)
            select net.http_post(%s, body := body,
                headers := '{"Webhook-Id": "evt_1", "X-Empty": "", "X-Null": null}'),
                convert_to(body::text, 'UTF8') from event""",
            (f"{inbox.url}/hook",),
        ).fetchone()
    await until(lambda: worker.delivered == 1)
    _, headers, body = inbox.received[0]
    assert signed is not None
    assert body == signed[1] == '{"a": "Ștefan 😀 \\"x\\"", "z": 1.50}'.encode()
    host = inbox.url.removeprefix("http://")
    assert headers.pop("content-length") == str(len(body))
    headers.pop("connection", None)
    assert headers == {
        "host": host,
        "user-agent": "pg_net/0.20.4",
        "accept": "*/*",
        "content-type": "application/json",
        "webhook-id": "evt_1",
    }


async def test_header_names_keep_their_case_on_the_wire(
    database: Database, worker: PgNetWorker
) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        post(database.owner_dsn, f"http://127.0.0.1:{port}/", headers='{"wEbHook-ID": "1"}')
        await until(lambda: worker.delivered == 1)
    assert b"\r\nwEbHook-ID: 1\r\n" in heads[0]
    assert b"\r\nContent-Type: application/json\r\n" in heads[0]


async def test_nothing_is_retried_whatever_went_wrong(
    database: Database, worker: PgNetWorker, inbox: Inbox
) -> None:
    gone = LoopbackServer(Starlette())
    await gone.stop()
    post(database.owner_dsn, f"{inbox.url}/fail")
    await until(lambda: worker.delivered == 1)
    post(database.owner_dsn, f"{inbox.url}/hang", timeout=50)
    await until(lambda: worker.failed == 1)
    post(database.owner_dsn, gone.url)
    await until(lambda: worker.failed == 2)
    post(database.owner_dsn, "not a url")
    await until(lambda: worker.failed == 3)
    post(database.owner_dsn, f"{inbox.url}/hook")
    await until(lambda: len(inbox.received) == 1)
    await until(lambda: len(responses(database)) == 5)
    assert responses(database) == [
        (500, "no", False, False),
        (None, None, True, True),
        (None, None, False, True),
        (None, None, False, True),
        (202, '{"accepted": true}', False, False),
    ]
    assert (worker.delivered, worker.failed) == (2, 3)


async def test_a_redirect_is_followed_and_looks_delivered(
    database: Database, worker: PgNetWorker, inbox: Inbox
) -> None:
    post(database.owner_dsn, f"{inbox.url}/moved", '{"a": 1}')
    await until(lambda: worker.delivered == 1)
    assert [(path, body) for path, _, body in inbox.received] == [("/hook", b'{"a": 1}')]


async def test_requests_are_lost_and_duplicated_on_demand(
    database: Database, worker: PgNetWorker, inbox: Inbox
) -> None:
    worker.lose_next()
    post(database.owner_dsn, f"{inbox.url}/hook", '{"n": 1}')
    await until(lambda: worker.lost == 1)
    worker.duplicate_next()
    post(database.owner_dsn, f"{inbox.url}/hook", '{"n": 2}')
    post(database.owner_dsn, f"{inbox.url}/hook", '{"n": 3}')
    await until(lambda: worker.delivered == 3)
    assert sorted(body for _, _, body in inbox.received) == [b'{"n": 2}', b'{"n": 2}', b'{"n": 3}']
    assert worker.duplicated == 1
    assert len(responses(database)) == 3


async def test_more_requests_than_a_batch_holds_are_all_sent(
    database: Database, worker: PgNetWorker, inbox: Inbox
) -> None:
    with psycopg.connect(database.owner_dsn, autocommit=True) as owner:
        owner.execute(
            "select net.http_post(%s, body := to_jsonb(n)) from generate_series(1, 250) as n",
            (f"{inbox.url}/hook",),
        )
    await until(lambda: worker.delivered == 250)
    assert {int(body) for _, _, body in inbox.received} == set(range(1, 251))


async def test_the_worker_comes_back_with_postgres(
    stoppable_postgres: PostgresServer, inbox: Inbox
) -> None:
    database = create_project(stoppable_postgres, "pg_net_outage")
    async with PgNetWorker(database.superuser_dsn) as worker:
        post(database.owner_dsn, f"{inbox.url}/hook")
        await until(lambda: worker.delivered == 1)
        await asyncio.to_thread(stoppable_postgres.stop)
        await asyncio.to_thread(stoppable_postgres.start)
        post(database.owner_dsn, f"{inbox.url}/hook")
        await until(lambda: worker.delivered == 2)
