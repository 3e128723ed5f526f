"""Asks each terminal which hardware it is, and on request which persons it holds.

Under a lease as for any call, and not while it rests after a refused login: another question could
lock its account.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from receiver.check.figures import duration
from receiver.check.finding import Figures, Finding
from receiver.core.errors import LoginRefused, ReceiverError, TerminalError
from receiver.core.models import Rest, Terminal
from receiver.on_demand.drift import Drifts
from receiver.supabase.company import Company
from receiver.sync.consequences import TERMINAL_RESTS_S, login_rest_s
from receiver.sync.visit import Visits

BUSY_PAUSES_S = (0.0, 0.5, 1.0, 1.5)
"""Before each request for a terminal whose lease is a receiver's, or whose pause is not over."""
BUSY: Final = "a receiver is working with it"


async def no_photo(_url: str) -> bytes:
    """Stand in for the album, which a check does not need: it pushes nothing."""
    raise NotImplementedError("a check pushes nothing")


async def people_of(drifts: Drifts, terminal: Terminal) -> AsyncIterator[Finding]:
    """Yield the persons who are missing, differ (and in what) or are unknown to HR."""
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


async def identify(
    visits: Visits, company: Company, terminal: Terminal, figures: Figures
) -> Finding:
    """Ask a terminal which model and firmware it is, and say what is wrong with it."""
    try:
        return await _ask_terminal(visits, company, terminal, figures)
    except ReceiverError as error:
        return Finding(what=f"terminal {terminal.host}", fault=error.message)


async def _ask_terminal(
    visits: Visits, company: Company, terminal: Terminal, figures: Figures
) -> Finding:
    what = f"terminal {terminal.host}"
    for pause_s in BUSY_PAUSES_S:
        await asyncio.sleep(pause_s)
        answer, visit = await visits.ask(terminal.id)
        if answer.state != "busy":
            break
    if answer.state == "resting":
        rests_s = figures.get("rests_s")
        left = f"another {duration(rests_s)}" if rests_s else "now"
        return Finding(what=what, fault=f"Is left alone for {left}: {answer.rest_reason}")
    if visit is None:
        return Finding(what=what, fault=None, note=f"not asked: {BUSY}")
    try:
        # Read again: it may have been corrected since, and an old password costs a failed login.
        client = visit.open(await company.terminal(terminal.id))
        device = await client.calls.device_info()
        note = f"{device.get('model', '?')}, firmware {device.get('firmwareVersion', '?')}"
        return Finding(what=what, fault=None, note=note)
    except TerminalError as error:
        rest_s = login_rest_s(error) if isinstance(error, LoginRefused) else TERMINAL_RESTS_S[0]
        visit.resting = Rest(seconds=rest_s, reason=error.message, kind=error.kind)
        return Finding(what=what, fault=error.message)
    finally:
        await visit.give_back()
