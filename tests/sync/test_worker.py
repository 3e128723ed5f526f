"""The worker's loop alone; the end-to-end tests run it with a real ledger."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from receiver.core.errors import SqlOutdated, SupabaseError, SupabaseRefused, SupabaseUnreachable
from receiver.core.models import Capabilities, Claim, Held, Pair, Progress
from receiver.core.settings import Settings
from receiver.sync import worker as worker_module
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


class Readable:
    """A company whose tables can be read, or not any more."""

    fault: SupabaseError | None = None
    """Why it can not even be asked for nobody."""
    row_fault: SupabaseError | None = None
    """Why one employee can not be read."""

    async def readable(self) -> None:
        if self.fault:
            raise self.fault

    async def terminal(self, _id: UUID) -> Any:
        return None

    async def employees(self, ids: list[UUID]) -> dict[UUID, Any]:
        if self.row_fault:
            raise self.row_fault
        return dict.fromkeys(ids)


async def test_thousands_of_webhooks_do_not_become_as_many_claims() -> None:
    settings = Settings.from_env(ENVIRONMENT)
    ledger = NotedLedger()
    gate = Gate(lanes=1, pause_s=0.0)
    visits: Any = NoVisits()
    nothing: Any = None
    company: Any = Readable()
    worker = Worker(settings, cast("Any", ledger), company, gate, visits, nothing, nothing)
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


PAIR = Pair(employee_id=uuid4(), version=1, attempts=0, held=Held())


class OnePair(NotedLedger):
    """A ledger in which one pair is due again and again."""

    misfit: SupabaseError | None = None
    claimed: tuple[Pair, ...] = (PAIR,)
    verification: Progress | None = None

    async def fits(self) -> None:
        if self.misfit:
            raise self.misfit

    async def claim(self, **_: object) -> Any:
        self.claims += 1
        await asyncio.sleep(0.01)
        return Claim(
            terminal_id=uuid4(),
            fence=1,
            failures=0,
            capabilities=Capabilities(),
            identify=False,
            pairs=self.claimed,
            verification=self.verification,
        )


class EmptyVisit:
    """A visit in which nothing is called."""

    failures = 0
    resting = None
    due_again_s = None
    is_waited_for = False

    def open(self, _terminal: object) -> None:
        pass


class EmptyVisits(NoVisits):
    def begin(self, _claim: Claim, *, asked_at: float) -> Any:
        assert asked_at
        return EmptyVisit()

    async def end(self, visit: Any) -> None:
        pass


class NoPushes:
    async def serve(self, *_: object) -> None:
        pass


@asynccontextmanager
async def a_worker(ledger: OnePair, company: Readable) -> AsyncIterator[Worker]:
    settings = Settings.from_env({**ENVIRONMENT, "POLL_SECONDS": "1"})
    gate = Gate(lanes=1, pause_s=0.0)
    parts: Any = (ledger, company, gate, EmptyVisits(), NoPushes(), None)  # verifies nothing
    worker = Worker(settings, *parts)
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(20):
            yield worker
    finally:
        worker.stop()
        await running


async def until_fault_is(worker: Worker, words: str | None) -> None:
    while worker.fault != words:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_while_the_sql_is_another_version_nothing_is_claimed_and_the_fault_says_so() -> None:
    ledger = OnePair()
    ledger.misfit = SqlOutdated("apply them")
    async with a_worker(ledger, Readable()) as worker:
        await until_fault_is(worker, "apply them")
        assert ledger.claims == 0
        ledger.misfit = None
        await until_fault_is(worker, None)
        assert ledger.claims


async def test_while_hrs_tables_cannot_be_read_nothing_is_claimed_and_the_fault_says_so() -> None:
    ledger, company = OnePair(), Readable()
    company.fault = SupabaseRefused("mend it")
    async with a_worker(ledger, company) as worker:
        await until_fault_is(worker, "mend it")
        assert ledger.claims == 0
        company.fault = None
        await until_fault_is(worker, None)
        assert ledger.claims


async def test_edits_that_no_trigger_hears_are_a_fault_and_the_work_goes_on() -> None:
    ledger = OnePair()
    ledger.deaf = "run the file"
    async with a_worker(ledger, Readable()) as worker:
        await until_fault_is(worker, "run the file")
        claims = ledger.claims
        while ledger.claims < claims + 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert worker.fault == "run the file"


async def test_a_table_that_breaks_later_is_noticed_without_an_edit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "DATABASE_ASKED_S", 0.0)
    ledger, company = NotedLedger(), Readable()
    async with a_worker(cast("OnePair", ledger), company) as worker:
        await until_fault_is(worker, None)
        company.fault = SupabaseRefused("mend it")
        await until_fault_is(worker, "mend it")


async def test_a_fault_of_the_work_stays_although_claims_succeed_until_the_work_did() -> None:
    ledger, company = OnePair(), Readable()
    async with a_worker(ledger, company) as worker:
        await until_fault_is(worker, None)
        company.row_fault = SupabaseRefused("this row")
        await until_fault_is(worker, "this row")
        claims = ledger.claims
        while ledger.claims < claims + 5:
            assert worker.fault == "this row"
            await asyncio.sleep(0.01)
        company.row_fault = None
        await until_fault_is(worker, None)


async def test_a_fault_of_the_work_is_over_where_nothing_is_due_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "SUPABASE_REST_S", 0.1)
    ledger, company = OnePair(), Readable()
    company.row_fault = SupabaseRefused("this row")
    async with a_worker(ledger, company) as worker:
        await until_fault_is(worker, "this row")
        monkeypatch.setattr(ledger, "claim", NotedLedger().claim)
        await until_fault_is(worker, None)


class OnlyPages(OnePair):
    """A ledger in which nothing is wanted and page after page of verifications is due."""

    claimed = ()
    verification: Progress | None = Progress()


class OneFailedPage:
    fault: Exception | None = None
    pages = 0

    async def go_on(self, *_: object) -> None:
        if self.fault:
            raise self.fault
        self.pages += 1


async def test_a_failed_page_of_a_verification_is_over_where_the_next_pages_succeed() -> None:
    """/readyz says 503 for as long as pages are due: 50 terminals x 67 calls, an hour and more."""
    verifications = OneFailedPage()
    settings = Settings.from_env({**ENVIRONMENT, "POLL_SECONDS": "1"})
    gate = Gate(lanes=1, pause_s=0.0)
    parts: Any = (OnlyPages(), Readable(), gate, EmptyVisits(), NoPushes(), verifications)
    worker = Worker(settings, *parts)
    running = asyncio.create_task(worker.run())
    try:
        await until_fault_is(worker, None)
        verifications.fault = SupabaseUnreachable("once")
        await until_fault_is(worker, "once")
        verifications.fault = None
        pages = verifications.pages
        async with asyncio.timeout(60):
            while verifications.pages < pages + 100:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert worker.fault is None
    finally:
        worker.stop()
        await running
