"""The worker's loop alone; what it does with a real ledger is in the end-to-end tests."""

import asyncio
import time
from typing import Any, cast

from receiver.core.settings import Settings
from receiver.sync.gate import Gate
from receiver.sync.worker import BREATH_S, Worker

ENVIRONMENT = {
    "SUPABASE_URL": "http://127.0.0.1:9",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_test",
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
}


class NothingDue:
    """A ledger, and the visits of a receiver, where nothing is ever due; counts the asks."""

    lease_s = 1.0

    def __init__(self) -> None:
        self.asked = 0

    async def claim(self, **_: object) -> None:
        self.asked += 1

    async def give_back_late(self) -> None:
        pass


async def test_webhooks_by_the_thousand_do_not_become_as_many_questions() -> None:
    settings = Settings.from_env(ENVIRONMENT)
    nothing: Any = NothingDue()
    gate = Gate(lanes=1, pause_s=0.0)
    worker = Worker(settings, nothing, cast("Any", None), gate, nothing, cast("Any", None))
    begun = time.monotonic()
    running = asyncio.create_task(worker.run())
    for _ in range(3000):
        worker.wake()
        await asyncio.sleep(0)
    asked_before = nothing.asked
    slept_s = BREATH_S * asked_before * (asked_before - 1) / 2  # longer each time
    assert asked_before
    assert slept_s <= time.monotonic() - begun
    while nothing.asked == asked_before:  # the last wake is not forgotten  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    worker.stop()
    await running
