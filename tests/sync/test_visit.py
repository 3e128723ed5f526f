"""A visit that ends while Supabase is away: its decisions are not forgotten."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID

import pytest

from receiver.core.errors import LeaseLost, SupabaseError, SupabaseRefused, SupabaseUnreachable
from receiver.core.metrics import Metrics
from receiver.core.models import Leased, Rest
from receiver.core.settings import Settings
from receiver.supabase.ledger import Ledger
from receiver.sync.gate import Gate
from receiver.sync.visit import Visits
from receiver.terminals.http_client import http_client
from tests.support.clients import no_photo
from tests.support.noted_ledger import NotedLedger

SETTINGS = Settings(supabase_url="http://127.0.0.1:1", service_role_key="x", webhook_keys=(b"x",))
REST = Rest(seconds=1860.0, reason="Wrong password.", kind="login")
LEASED = Leased(terminal_id=UUID(int=1), fence=7, failures=0)


@asynccontextmanager
async def visits_noted_by(notes: NotedLedger) -> AsyncIterator[Visits]:
    gate = Gate(lanes=1, pause_s=0.0)
    async with http_client() as http:
        yield Visits(SETTINGS, cast("Ledger", notes), gate, http, no_photo, Metrics())


async def test_a_terminal_that_could_not_be_given_back_is_given_back_once_supabase_is_back() -> (
    None
):
    notes = NotedLedger(fails=SupabaseUnreachable())
    async with visits_noted_by(notes) as visits:
        visit = visits.begin(LEASED, asked_at=time.monotonic())
        visit.resting = REST
        await visits.end(visit)
        with pytest.raises(SupabaseUnreachable):
            await visits.give_back_late()
        notes.fails = None
        await visits.give_back_late()
        await visits.give_back_late()
        assert notes.released == [(7, REST)]


@pytest.mark.parametrize("fault", [LeaseLost(), SupabaseRefused()])
@pytest.mark.parametrize("late", [False, True])
async def test_a_terminal_that_can_never_be_given_back_stops_no_work(
    fault: SupabaseError | LeaseLost,
    late: bool,  # noqa: FBT001 - a case of the table
) -> None:
    notes = NotedLedger(fails=SupabaseUnreachable() if late else fault)
    async with visits_noted_by(notes) as visits:
        await visits.end(visits.begin(LEASED, asked_at=time.monotonic()))
        notes.fails = fault
        await visits.give_back_late()
        notes.fails = None
        await visits.give_back_late()
        assert notes.released == []
