"""The worker's loop alone; the end-to-end tests run it with a real ledger."""

import asyncio
import time
from typing import Any, cast

from receiver.core.settings import Settings
from receiver.sync.gate import Gate
from receiver.sync.worker import BREATH_S, Worker
from tests.support.noted_ledger import NotedLedger

ENVIRONMENT = {
    "SUPABASE_URL": "http://127.0.0.1:9",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_test",
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
}


class NoVisits:
    """The visits of a receiver that has nothing to give back."""

    lease_s = 1.0

    async def give_back_late(self) -> None:
        pass


async def test_thousands_of_webhooks_do_not_become_as_many_claims() -> None:
    settings = Settings.from_env(ENVIRONMENT)
    ledger = NotedLedger()
    gate = Gate(lanes=1, pause_s=0.0)
    visits: Any = NoVisits()
    nothing: Any = None
    worker = Worker(settings, cast("Any", ledger), nothing, gate, visits, nothing, nothing)
    begun = time.monotonic()
    running = asyncio.create_task(worker.run())
    for _ in range(3000):
        worker.wake()
        await asyncio.sleep(0)
    asked_before = ledger.claims
    slept_s = BREATH_S * asked_before * (asked_before - 1) / 2  # longer each time
    assert asked_before
    assert slept_s <= time.monotonic() - begun
    while ledger.claims == asked_before:  # the last wake is not forgotten  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    worker.stop()
    await running
