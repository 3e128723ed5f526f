"""The receiver's counters and gauges for Prometheus; knows neither the ledger nor HTTP.

Names no employee, host or URL: a terminal is its id, a reason one of few words. /metrics is open:
however often it is asked, it asks the ledger and makes a text at most once in five seconds.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from receiver.core.errors import SupabaseError
from receiver.core.logs import get_logger
from receiver.core.models import Standing

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
KEPT_S: Final = 5.0
"""How long one text serves all scrapes."""
MAX_ASK_S: Final = 3.0
"""For the ledger; Prometheus gives up after 10 s, and the process has figures of its own."""
CALL_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0)
"""A terminal answers in tenths of a second, gets 15 s, and 45 s for a face."""
WEBHOOK_STATUSES: Final = (202, 400, 401, 408, 413, 422, 500)
"""Shown as 0 from the start, so that the first of each is an increase."""

log = get_logger(__name__)


class Metrics:
    """The figures of one process, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # doubles every counter
        self.registry: Final = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._webhooks = Counter(
            "hikvision_webhooks_total",
            "Webhooks, by the HTTP status they were answered with.",
            ["status"],
            registry=self.registry,
        )
        for status in WEBHOOK_STATUSES:
            self._webhooks.labels(status)
        self._calls = Histogram(
            "hikvision_device_call_duration_seconds",
            "Calls to terminals without the wait for their turn, by what came of them.",
            ["outcome"],
            buckets=CALL_BUCKETS_S,
            registry=self.registry,
        )
        self._lease_losses = Counter(
            "hikvision_lease_losses_total",
            "Visits at whose end the terminal was another receiver's.",
            registry=self.registry,
        )
        self._ledger_up = Gauge(
            "hikvision_ledger_up",
            "1 where the ledger answered; where not, there are no figures of it.",
            registry=self.registry,
        )
        self._pairs = Gauge(
            "hikvision_pairs",
            "Employees on an active terminal, by state.",
            ["device_id", "state"],
            registry=self.registry,
        )
        self._oldest_wanted = Gauge(
            "hikvision_oldest_wanted_age_seconds",
            "For how long the oldest edit has waited to be on an active terminal.",
            ["device_id"],
            registry=self.registry,
        )
        self._oldest_confirmed = Gauge(
            "hikvision_oldest_confirmation_age_seconds",
            "How long ago an active terminal had last confirmed everybody whom it ever did.",
            ["device_id"],
            registry=self.registry,
        )
        self._resting = Gauge(
            "hikvision_terminal_resting",
            "1 for an active terminal that was left alone and has not worked since.",
            ["device_id", "why"],
            registry=self.registry,
        )

    def answered(self, status: int) -> None:
        """Count a webhook by the HTTP status of its answer."""
        self._webhooks.labels(int(status)).inc()

    def called(self, outcome: str, took_s: float) -> None:
        """Count a call to a terminal: `ok` or its error's kind."""
        self._calls.labels(outcome).observe(took_s)

    def lease_lost(self) -> None:
        """Count a visit whose terminal another receiver took."""
        self._lease_losses.inc()

    def stand(self, standings: Sequence[Standing] | None) -> None:
        """Show how the active terminals stand now; None where the ledger did not say."""
        self._ledger_up.set(standings is not None)
        for gauge in (self._pairs, self._oldest_wanted, self._oldest_confirmed, self._resting):
            gauge.clear()  # a terminal that is not active any more, a reason that is gone
        for one in standings or ():
            for state, count in one.pairs.items():
                self._pairs.labels(one.terminal_id, state).set(count)
            self._oldest_wanted.labels(one.terminal_id).set(one.oldest_wanted_s)
            if one.confirmed_s is not None:
                self._oldest_confirmed.labels(one.terminal_id).set(one.confirmed_s)
            if one.rests_for is not None:
                self._resting.labels(one.terminal_id, one.rests_for).set(1)


class Scrapes:
    """Answers scrapes; all within `KEPT_S` get one text, from one question to the ledger."""

    def __init__(
        self,
        metrics: Metrics,
        ask: Callable[[], Awaitable[Sequence[Standing]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._ask = ask
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._text = b""
        self._kept_until = -1.0

    async def text(self) -> bytes:
        """Return all figures in Prometheus' text format, also while the ledger cannot be asked."""
        async with self._one_at_a_time:
            if self._clock() >= self._kept_until:
                self._metrics.stand(await self._standings())
                self._text = generate_latest(self._metrics.registry)
                self._kept_until = self._clock() + KEPT_S
            return self._text

    async def _standings(self) -> Sequence[Standing] | None:
        try:
            async with asyncio.timeout(MAX_ASK_S):
                return await self._ask()
        except (TimeoutError, SupabaseError) as error:
            log.warning("ledger_not_scraped", reason=str(error) or "It did not answer in time.")
            return None
