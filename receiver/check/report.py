"""`receiver check`: what is missing or wrong in the environment, the database, at each terminal.

Changes nothing in HR's tables or on a terminal. A terminal is asked one question, under a lease as
for any call, and none while it rests after a refused login: another could lock its account.
"""

import time
from collections.abc import AsyncIterator
from typing import Final

from receiver.check import host, webhook_address
from receiver.check.database import Diagnosis
from receiver.check.finding import Finding
from receiver.check.terminals import identify, no_photo, people_of
from receiver.core.errors import SupabaseError, TerminalError
from receiver.core.metrics import Metrics
from receiver.core.receiver_name import check_name
from receiver.core.settings import Settings
from receiver.on_demand.drift import Drifts
from receiver.supabase import rest
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.sync.gate import Gate
from receiver.sync.visit import Visits
from receiver.terminals.http_client import http_client

SLOW_S: Final = 2.0
"""For one question to Supabase, which takes a few hundredths."""


async def findings(settings: Settings, *, people: bool = False) -> AsyncIterator[Finding]:
    """Check one thing after another; what depends on something broken is left out.

    With `people` each terminal is also asked for the persons it holds, 30 of them in a call.
    """
    yield Finding(what="environment", fault=None)
    yield host.disk()
    async with rest.http_client() as supabase_http, http_client() as terminals_http:
        client = await rest.connect(settings.supabase_url, settings.service_role_key, supabase_http)
        ledger = Ledger(client, check_name(), look_s=settings.look_s)
        company = Company(client, settings.supabase_url)
        try:
            await ledger.fits()
            await company.readable()
            diagnosis, took_s = await _ask(ledger)
            began = time.monotonic()
            terminals = await company.active_terminals()
            took_s = min(took_s, time.monotonic() - began)
        except SupabaseError as error:
            yield Finding(what="database", fault=error.message)
            return
        for finding in diagnosis.findings(settings):
            yield finding
        yield _speed(took_s)
        if diagnosis.webhook_origin:
            yield await webhook_address.find(diagnosis.webhook_origin)
        gate = Gate(lanes=1, pause_s=settings.device_delay_s)
        visits = Visits(settings, ledger, gate, terminals_http, no_photo, Metrics())
        drifts = Drifts(settings.leaver_policy, ledger, company, visits)
        for id_, terminal in terminals:
            if isinstance(terminal, TerminalError):
                yield Finding(what=f"terminal {id_}", fault=terminal.message)
                continue
            figures = diagnosis.terminals.get(str(id_), {})
            identified = await identify(visits, company, terminal, figures)
            yield identified
            if people and identified.fault is None:
                async for finding in people_of(drifts, terminal):
                    yield finding


async def _ask(ledger: Ledger) -> tuple[Diagnosis, float]:
    """Ask the database for its diagnosis; return it with the seconds that it took."""
    asked_at, began = time.time(), time.monotonic()
    checks = await ledger.check()
    took_s = time.monotonic() - began
    return Diagnosis(checks, asked_at=asked_at, answered_at=time.time()), took_s


def _speed(took_s: float) -> Finding:
    fault = (
        f"Supabase is slow, {took_s:.1f} s for one question: edits come late. See the reports in "
        "its dashboard, and the line from here to it"
    )
    return Finding(what="database: speed", fault=fault if took_s > SLOW_S else None)
