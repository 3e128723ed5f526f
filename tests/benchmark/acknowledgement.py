"""How fast a webhook is acknowledged, beside the smallest FastAPI endpoint under the same server.

Both are served by uvicorn on uvloop and httptools: ours with the Procfile's flags, the baseline
with none but those that make it faster. Another process loads them in turn over 32 connections
that are kept alive; the middle one of several rounds counts. Ours has a database with nothing due
behind it, which its worker asks all the while; the baseline has nothing.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from operator import attrgetter

from receiver.sandbox.world import open_world
from receiver.web.server_flags import APP, FLAGS
from tests.benchmark.table import Row
from tests.benchmark.webhook_load import Taken
from tests.benchmark.worlds import PLAIN_FLAGS, ROOT, served

NAME = "acknowledgement"
BASELINE = "tests.benchmark.fastapi_webhook:create_app"
CONNECTIONS = 32


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return the rate and the latencies with one and with two server processes."""
    rows: list[Row] = []
    rounds, requests = (1, 2000) if quick else (5, 10_000)
    async with open_world({}, pause_s=1.0, poll_s=30.0) as world:
        for workers in (1, 2):
            taken: dict[str, list[Taken]] = {APP: [], BASELINE: []}
            for _ in range(rounds):
                for app, found in taken.items():
                    flags = (*(FLAGS if app == APP else PLAIN_FLAGS), "--workers", str(workers))
                    async with served(app, world, *flags) as port:
                        secret = world.environment["WEBHOOK_SECRET"]
                        found.append(await _load(port, requests, secret))
            rows += _rows(f"{workers} process{'es' if workers > 1 else ''}", taken)
    return rows


def _rows(case: str, taken: Mapping[str, list[Taken]]) -> list[Row]:
    def middle(app: str, figure: Callable[[Taken], float]) -> float:
        figures = sorted(map(figure, taken[app]))
        return figures[len(figures) // 2]

    rows = []
    for what, name, scale, unit in (
        ("acknowledged", "per_second", 1, "/s"),
        ("median", "p50_s", 1000, "ms"),
        ("p99", "p99_s", 1000, "ms"),
    ):
        ours, baseline = (middle(app, attrgetter(name)) * scale for app in (APP, BASELINE))
        better = "more" if unit == "/s" else "less"
        rows.append(Row(f"{what}, {case}", ours, unit, baseline, better))  # type: ignore[arg-type]
    return rows


async def _load(port: int, requests: int, secret: str) -> Taken:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmark.webhook_load"),
        *(str(port), str(requests), str(CONNECTIONS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    printed, _ = await process.communicate(secret.encode())
    if process.returncode:
        raise RuntimeError("The load was not taken; see above.")
    return Taken(**json.loads(printed))
