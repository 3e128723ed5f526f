"""`receiver check`: what is missing or wrong in the environment, the database, at each terminal.

Changes nothing that HR or a terminal holds. A terminal is asked one question, under a lease as
for any call, and none while it rests after a refused login: another could lock its account.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from receiver.check import figures as symptoms
from receiver.check import host as machine
from receiver.check import webhook_address as reach
from receiver.check.database import Diagnosis
from receiver.check.figures import Figures, Finding
from receiver.core.errors import LoginRefused, ReceiverError, SupabaseError, TerminalError
from receiver.core.metrics import Metrics
from receiver.core.models import Rest, Terminal
from receiver.core.settings import Settings
from receiver.on_demand.drift import Drifts
from receiver.services import receiver_name
from receiver.supabase import rest as supabase_rest
from receiver.supabase.company import Directory
from receiver.supabase.ledger import Ledger
from receiver.sync.consequences import TERMINAL_PAUSES_S, login_rest_s
from receiver.sync.gate import Gate
from receiver.sync.push import Pushes
from receiver.sync.visit import Visits
from receiver.terminals import persons as isapi

BUSY_PAUSES_S = (0.0, 0.5, 1.0, 1.5)
"""Before each ask for a terminal that a receiver holds, or whose pause is not over."""
BUSY: Final = "a receiver is working with it"
SLOW_S: Final = 2.0
"""For one question to Supabase, which takes a few hundredths."""


async def findings(settings: Settings, *, people: bool = False) -> AsyncIterator[Finding]:
    """Look at everything in turn; what depends on something broken is left out.

    With `people` each terminal is also asked whom it holds, which takes a call for 30 of them.
    """
    yield Finding(what="environment", fault=None)
    yield machine.disk()
    async with supabase_rest.http_client() as supabase_http, isapi.http_client() as terminals_http:
        client = await supabase_rest.connect(
            settings.supabase_url, settings.service_role_key, supabase_http
        )
        ledger = Ledger(client, f"check:{receiver_name()}", look_s=settings.look_s)
        directory = Directory(client, settings.supabase_url)
        try:
            diagnosis, took_s = await _ask(ledger)
            began = time.monotonic()
            terminals = await directory.active_terminals()
            took_s = min(took_s, time.monotonic() - began)
        except SupabaseError as error:
            yield Finding(what="database", fault=error.message)
            return
        for finding in diagnosis.findings(settings):
            yield finding
        yield _speed(took_s)
        if diagnosis.webhook_origin:
            yield await reach.find(diagnosis.webhook_origin, here=settings.port)
        gate = Gate(lanes=1, pause_s=settings.device_delay_s)
        visits = Visits(settings, ledger, gate, terminals_http, _no_photo, Metrics())
        pushes = Pushes(settings.leaver_policy, ledger, visits)
        drifts = Drifts(settings.leaver_policy, ledger, directory, visits, pushes)
        for id_, terminal in terminals:
            if isinstance(terminal, TerminalError):
                yield Finding(what=f"terminal {id_}", fault=terminal.message)
                continue
            figures = diagnosis.terminals.get(str(id_), {})
            looked = await _look(visits, directory, terminal, figures)
            yield looked
            if people and looked.fault is None:
                async for finding in _people(drifts, terminal):
                    yield finding


async def _ask(ledger: Ledger) -> tuple[Diagnosis, float]:
    """Ask the database how it is, and return how many seconds that took."""
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


async def _no_photo(_url: str) -> bytes:
    raise NotImplementedError("a check pushes nothing")


async def _people(drifts: Drifts, terminal: Terminal) -> AsyncIterator[Finding]:
    """Say who is missing, who differs and in what, and who is unknown."""
    what = f"terminal {terminal.host}"
    feed = await drifts.start(terminal.id)
    async for line in feed.watch():
        if line is None:
            continue
        who = f"{what}: {line.get('employee_no')} {line.get('name') or ''}".rstrip()
        match line["type"]:
            case "unknown":
                yield Finding(what=who, fault=None, note="unknown to HR, and left alone")
            case "missing" | "different" if line["waiting"]:
                yield Finding(what=who, fault=None, note="an edit is still on its way there")
            case "missing":
                yield Finding(what=who, fault="is missing")
            case "different":
                yield Finding(what=who, fault="; ".join(line["differences"]))
            case "end":
                persons = line["summary"]["persons"]
                yield Finding(what=f"{what}: people", fault=line["error"], note=f"{persons} there")


async def _look(
    visits: Visits, directory: Directory, terminal: Terminal, figures: Figures
) -> Finding:
    try:
        return await _ask_terminal(visits, directory, terminal, figures)
    except ReceiverError as error:
        return Finding(what=f"terminal {terminal.host}", fault=error.message)


async def _ask_terminal(
    visits: Visits, directory: Directory, terminal: Terminal, figures: Figures
) -> Finding:
    what = f"terminal {terminal.host}"
    for pause_s in BUSY_PAUSES_S:
        await asyncio.sleep(pause_s)
        asked, visit = await visits.ask(terminal.id)
        if asked.state != "busy":
            break
    if asked.state == "resting":
        rests_s = figures.get("rests_s")
        left = f"another {symptoms.duration(rests_s)}" if rests_s else "now"
        return Finding(what=what, fault=f"Is left alone for {left}: {asked.rest_reason}")
    if visit is None:
        who = "a receiver that died holds it" if figures.get("holder_gone") else BUSY
        return Finding(what=what, fault=None, note=f"not asked: {who}")
    try:
        # Anew: it may have been corrected since, and an old password costs a failed login.
        client = visits.client(await directory.terminal(terminal.id), visit)
        device = await client.device_info()
        note = f"{device.get('model', '?')}, firmware {device.get('firmwareVersion', '?')}"
        return Finding(what=what, fault=None, note=note)
    except TerminalError as error:
        rest_s = login_rest_s(error) if isinstance(error, LoginRefused) else TERMINAL_PAUSES_S[0]
        visit.rest = Rest(seconds=rest_s, reason=error.message, kind=error.kind)
        return Finding(what=what, fault=error.message)
    finally:
        await visits.end(visit)
