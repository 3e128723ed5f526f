"""The OpenAPI document is true: no undocumented status, no other shape, no 5xx but the documented.

schemathesis plays the client, against the real receiver over real HTTP with a terminal behind it.
"""

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from receiver.web import buttons, reports, webhook
from receiver.web.openapi import DOCUMENT

UUID = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def world(embedded_postgres: PostgresServer) -> Iterator[World]:
    """A world in a loop of its own: schemathesis speaks blocking HTTP."""
    built: Future[World] = Future()
    done: asyncio.Event | None = None
    loop = asyncio.new_event_loop()

    async def keep_up() -> None:
        nonlocal done
        done = asyncio.Event()
        async with open_world(
            {"one": Profile()}, pause_s=0.0, poll_s=60, postgres=embedded_postgres
        ) as world:
            await world.receiver.start()
            async with Hr(world.supabase) as hr:
                await hr.hire("Popescu", "Ion", photo="ion.jpg")
            built.set_result(world)
            await done.wait()

    def run() -> None:
        try:
            loop.run_until_complete(keep_up())
        except BaseException as error:
            if not built.done():
                built.set_exception(error)
            raise
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield built.result(60)
    assert done is not None
    loop.call_soon_threadsafe(done.set)
    thread.join(60)


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_documented(case: Any, world: World) -> None:
    # Somebody else each time, or the rate limit would answer for all that is behind it.
    token = world.supabase.access_token(sub=f"user-{id(case)}-{case.path_parameters}"[:200])
    [row] = asyncio.run(world.execute("select id::text from angajati"))
    if isinstance(case.body, dict) and UUID.fullmatch(str(case.body.get("angajat_id"))):
        case.body["angajat_id"] = row["id"]  # a run instead of a 404
    if "device_id" in (case.path_parameters or {}) and len(case.path_parameters["device_id"]) > 1:
        case.path_parameters["device_id"] = world.sites[0].id  # a comparison instead of a 404
    # 503 is documented: where Supabase is not reachable. Here it is, so nothing may fail.
    response = case.call(base_url=world.receiver.url, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code < 500 or case.path == "/readyz"
    case.validate_response(response, excluded_checks=[not_a_server_error])


def test_every_route_is_documented_with_its_methods() -> None:
    source = (Path(__file__).parents[2] / "receiver" / "app.py").read_text(encoding="utf-8")
    routes = {
        (path, method.lower())
        for path, methods in re.findall(r'Route\("([^"]+)", \w+, methods=\[([^]]+)\]', source)
        for method in re.findall(r"[A-Z]+", methods)
    }
    routes.add((webhook.PATH, "post"))
    for route in (*buttons.ROUTES, *reports.ROUTES):
        routes |= {(route.path, m.lower()) for m in (route.methods or ()) if m != "HEAD"}
    documented = {
        (path, method)
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routes == documented
