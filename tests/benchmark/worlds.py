"""The same world for both that are measured: the receiver, or the literal plan in its place."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.terminal.simulated import Call, Profile
from receiver.sandbox.world import World, open_world
from tests.support.buttons import worker_at_rest
from tests.support.faults import Line, late, port_of

Who = Literal["ours", "baseline"]
BOTH: tuple[Who, ...] = ("ours", "baseline")

ROOT = Path(__file__).parents[2]
LITERAL_PLAN = "tests.benchmark.literal_plan:create_app"
PLAIN_FLAGS = ("--factory", "--no-access-log", "--no-server-header")
START_S = 30.0
END_S = 5.0
SETTLED_S = 60.0
QUIET_S = 0.4
RESYNC_ALL = "/api/hikvision/sync-all-to-all-devices"


@asynccontextmanager
async def served_world(  # noqa: PLR0913 - keyword-only, and most have a default
    who: Who,
    postgres: PostgresServer,
    *,
    terminals: int,
    pause_s: float = 0.0,
    lanes: int = 1,
    supabase_s: float = 0.0,
) -> AsyncIterator[World]:
    """Open a world with current terminals that one of the two serves.

    Each of Supabase's answers reaches it `supabase_s` late.
    """
    profiles = {f"Poarta {place}": Profile() for place in range(terminals)}
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            open_world(
                profiles,
                pause_s=pause_s,
                poll_s=30.0,
                lanes=lanes,
                postgres=postgres,
            )
        )
        if supabase_s:
            line = await stack.enter_async_context(Line(port_of(world.supabase.url)))
            line.hurt(late(supabase_s))
            world.environment["SUPABASE_URL"] = line.url
            world.environment["PHOTO_HOSTS"] = world.supabase.url.removeprefix("http://")
            world.receiver = ReceiverProcess(world.environment, port=world.receiver.port)
            stack.push_async_callback(world.receiver.close)
        if who == "ours":
            await world.receiver.start()
            await worker_at_rest(world)  # the new terminals are identified and filled
            await quiet(world)
        else:
            await stack.enter_async_context(served(LITERAL_PLAN, world, *PLAIN_FLAGS))
        yield world


@asynccontextmanager
async def served(app: str, world: World, *flags: str) -> AsyncIterator[int]:
    """Serve an app's factory by uvicorn in a process of its own, where the receiver would be.

    Yields the port once it answers, whatever it says.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    port = world.receiver.port
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", app, *flags, "--log-level", "warning"),
            *("--host", "127.0.0.1", "--port", str(port)),
            stdout=log,
            env={**kept, **world.environment, "NO_PROXY": "*"},
            cwd=ROOT,
        )
        try:
            await _answers(process, world.receiver.url)
            yield port
        finally:
            await _end(process)


async def _answers(process: asyncio.subprocess.Process, url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(START_S):
        while process.returncode is None:
            try:
                await client.get(f"{url}/healthz")
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
            else:
                return
    raise RuntimeError("The server did not start; it said why above.")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()  # it may have workers of its own to end
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def calls(world: World) -> list[Call]:
    """Return the calls that all terminals of a world have got so far, in its order."""
    found = [call for site in world.sites for call in site.terminal.sightings.calls]
    return sorted(found, key=lambda call: call.started)


async def quiet(world: World) -> None:
    """Wait until every terminal holds what HR says, and nobody calls one any more."""
    async with asyncio.timeout(SETTLED_S):
        seen, since = -1, 0.0
        clock = asyncio.get_running_loop().time
        while seen != (now := len(calls(world))) or clock() - since < QUIET_S:
            if seen != now:
                seen, since = now, clock()
            await asyncio.sleep(0.05)
            if await world.disagreeing():
                seen = -1


async def resync_all(world: World) -> None:
    """Press the button and wait for its end; raise where anything failed."""
    # The issuer is the address that the receiver has for Supabase, which may be a line to it.
    token = world.supabase.access_token(iss=f"{world.environment['SUPABASE_URL']}/auth/v1")
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:  # noqa: S113 - it is long
        answer = await client.post(
            f"{world.receiver.url}{RESYNC_ALL}",
            json={},
            headers={"Authorization": f"Bearer {token}"},
        )
    answer.raise_for_status()
    failed = {
        name: count
        for name, count in answer.json().get("summary", {}).items()
        if name != "success" and count
    }
    if failed:
        raise RuntimeError(f"A bulk run of the benchmark did not go well: {failed}")
