"""`receiver check`: what is missing or wrong in the environment, the database, at each terminal.

Changes nothing that HR or a terminal holds. A terminal is asked one question, under a lease as
for any call, and none while it rests after a refused login: another could lock its account.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from receiver import isapi, signatures, supabase_rest
from receiver.directory import Directory
from receiver.drift import Drifts
from receiver.errors import LoginRefused, ReceiverError, SupabaseError, TerminalError
from receiver.gate import Gate
from receiver.ledger import DatabaseCheck, Ledger
from receiver.metrics import Metrics
from receiver.models import Rest, Terminal
from receiver.pushes import Pushes
from receiver.retries import TERMINAL_PAUSES_S, login_rest_s
from receiver.services import receiver_name
from receiver.settings import Settings
from receiver.visits import Visits

BUSY_PAUSES_S = (0.0, 0.5, 1.0, 1.5)
"""Before each ask for a terminal that a receiver holds, or whose pause is not over."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    fault: str | None
    """What is wrong and what to do; None where it is well."""
    note: str = ""


async def findings(settings: Settings, *, people: bool = False) -> AsyncIterator[Finding]:
    """Look at everything in turn; what depends on something broken is left out.

    With `people` each terminal is also asked whom it holds, which takes a call for 30 of them.
    """
    yield Finding(what="environment", fault=None)
    async with supabase_rest.http_client() as supabase_http, isapi.http_client() as terminals_http:
        client = await supabase_rest.connect(
            settings.supabase_url, settings.service_role_key, supabase_http
        )
        ledger = Ledger(client, f"check:{receiver_name()}", look_s=settings.look_s)
        try:
            for check in await ledger.check():
                yield _database_finding(check, settings)
            directory = Directory(client, settings.supabase_url)
            terminals = await directory.active_terminals()
        except SupabaseError as error:
            yield Finding(what="database", fault=error.message)
            return
        gate = Gate(lanes=1, pause_s=settings.device_delay_s)
        visits = Visits(settings, ledger, gate, terminals_http, _no_photo, Metrics())
        pushes = Pushes(settings.leaver_policy, ledger, directory, visits)
        drifts = Drifts(settings.leaver_policy, ledger, directory, visits, pushes)
        for id_, terminal in terminals:
            if isinstance(terminal, TerminalError):
                yield Finding(what=f"terminal {id_}", fault=terminal.message)
                continue
            try:
                looked = await _look(visits, directory, terminal)
            except ReceiverError as error:
                looked = Finding(what=f"terminal {terminal.host}", fault=error.message)
            yield looked
            if people and looked.fault is None:
                async for finding in _people(drifts, terminal):
                    yield finding


async def _no_photo(_url: str) -> bytes:
    raise NotImplementedError("a check pushes nothing")


def _database_finding(check: DatabaseCheck, settings: Settings) -> Finding:
    fault, note = check.fault, ""
    if check.name == "webhook_secret" and fault is None:
        given = (check.detail or "").removeprefix("v1,").encode()
        ours = [signatures.sign(k, b"receiver-check", b"0", b"{}") for k in settings.webhook_keys]
        if given not in ours:  # no secret to time: the database signed this for us to see
            fault = (
                "the Vault secret hikvision_sync_webhook_secret is none of WEBHOOK_SECRET: "
                "every webhook is refused with 401"
            )
    if check.name == "terminals" and check.detail:
        note = f"{check.detail} active"
    return Finding(what=f"database: {check.name}", fault=fault, note=note)


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


async def _look(visits: Visits, directory: Directory, terminal: Terminal) -> Finding:
    what = f"terminal {terminal.host}"
    for pause_s in BUSY_PAUSES_S:
        await asyncio.sleep(pause_s)
        asked, visit = await visits.ask(terminal.id)
        if asked.state != "busy":
            break
    if asked.state == "resting":
        return Finding(what=what, fault=f"Is left alone for now: {asked.rest_reason}")
    if visit is None:
        return Finding(what=what, fault=None, note="not asked: a receiver is working with it")
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
