"""`receiver sandbox`: the embedded world, kept up for a developer of the React app."""

import asyncio
import signal
import socket

from receiver.sandbox.demo import NAMES, PROFILES
from receiver.sandbox.hr import Hr
from receiver.sandbox.world import World, open_world

SUPABASE_PORT = 54321
RECEIVER_PORT = 8000
EMAIL, USER_PASSWORD = "hr@example.com", "parola-hr"


def keep_up() -> int:
    """Keep the world up until Ctrl-C or SIGTERM; return 0, or 1 where it cannot come up."""
    for port in (SUPABASE_PORT, RECEIVER_PORT):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(f"Port {port} is taken: stop what listens there (another sandbox?).")
                return 1
    return asyncio.run(_keep_up())


async def _keep_up() -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    print("Starting the world …", flush=True)
    async with open_world(
        PROFILES,
        pause_s=1.0,
        poll_s=30.0,
        supabase_port=SUPABASE_PORT,
        receiver_port=RECEIVER_PORT,
        settings={"LOG_FORMAT": "console"},
    ) as world:
        world.supabase.add_user(EMAIL, USER_PASSWORD)
        await world.receiver.start()
        async with Hr(world.supabase) as hr:
            for i, name in enumerate(NAMES):
                await hr.hire(*name, photo=f"{i}.jpg")
        _introduce(world)
        await stop.wait()
        print("Stopping …", flush=True)
    return 0


def _introduce(world: World) -> None:
    print(f"Supabase   {world.supabase.url}")
    print(f"  anon key {world.supabase.publishable_key}")
    print(f"  sign in  {EMAIL} / {USER_PASSWORD}")
    print(f"Receiver   {world.receiver.url}   log: {world.receiver.log}")
    for site in world.sites:
        terminal = site.terminal
        print(f"Terminal   http://{terminal.host}:{terminal.port}   {site.name}   {site.id}")
    print(f"Postgres   {world.database.owner_dsn}")
    print("Edits through Supabase reach the terminals; Ctrl-C ends it all.", flush=True)
