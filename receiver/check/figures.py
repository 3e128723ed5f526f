"""What the database's figures mean, and what to do about them. Pure: no I/O, no clock.

The words name no person, no secret and no photo; they may name hosts and processes.
"""

import re
from collections import Counter
from itertools import takewhile
from typing import Final

from receiver.check.finding import Figures, Finding
from receiver.core.logs import printable, redact
from receiver.core.receiver_name import machine_and_process

QUEUED_S: Final = 60.0
"""How long pg_net may keep a webhook; its worker wakes every second."""
MIN_IDLE_S: Final = 120.0
"""How long work may wait before that is a fault of the receiver; or twice POLL_SECONDS."""
LATE_S: Final = 900.0
"""How long an edit may wait; the same as in the README's alert."""
LATELY_S: Final = 600.0
"""The time in which the figures' `done_lately` was counted."""

WEBHOOK_ENDS: Final = {
    "unsigned": "refused with 401, the signature does not match: the Vault's "
    "hikvision_sync_webhook_secret is none of the receiver's WEBHOOK_SECRET",
    "late": "refused with 401, over 5 min off: the clock of the receiver is wrong, or they were "
    "delayed on their way",
    "refused": "refused by the receiver with {status}: see webhook_refused in its log",
    "status": "answered {status} by something that is not the receiver: see the reverse proxy and "
    "the Vault's hikvision_sync_webhook_url",
    "timeout": "not answered within 5 s: the receiver hangs, or a firewall swallows them",
    "error": "could not be delivered ({error}): is the receiver running, and reachable from "
    "Supabase at the address in the Vault's hikvision_sync_webhook_url?",
    "lost": "lost by pg_net, which was restarted or crashed",
}
"""How a webhook failed, by the words of hikvision_sync.webhook_ends()."""


def duration(seconds: float) -> str:
    """Return a time in its two largest units: `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds, minutes, hours
        return f"{whole} s"
    minutes = whole // 60
    hours, minutes_left = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    days, hours_left = divmod(hours, 24)
    return f"{days} d {hours_left} h" if days else f"{hours} h {minutes_left} min"


def webhooks(figures: Figures | None, poll_s: float) -> Finding:
    """Say what became of the last webhooks: at fault where the newest of them failed.

    Failures before the last webhook that was accepted are over: named, and not at fault.
    """
    what = "webhooks"
    if figures is None:
        return Finding(what=what, fault=None, note="pg_net's answers cannot be read here")
    queued_s = figures["queued_s"]
    if queued_s is not None and queued_s > QUEUED_S:
        return Finding(
            what=what,
            fault=f"pg_net has kept webhooks for {duration(queued_s)} without sending them: its "
            f"background worker does not run; select net.worker_restart(). {_still(poll_s)}",
        )
    settled = [end for end in figures["ends"] if end not in ("queued", "under way")]
    failed = [end for end in settled if end != "accepted"]
    streak = list(takewhile(lambda end: end != "accepted", settled))
    if not streak:
        note = f"{len(failed)} of the last {len(settled)} failed, none since" if failed else ""
        if not settled:
            note = "none in the last hour"
        return Finding(what=what, fault=None, note=note or f"the last {len(settled)} were accepted")
    parts = [
        f"{count} {_webhook_end(end, figures)}" for end, count in Counter(streak).most_common()
    ]
    return Finding(
        what=what,
        fault=f"of the last {len(settled)}, the newest {len(streak)} failed: "
        f"{_sentence('; '.join(parts))} {_still(poll_s)}",
    )


def _still(poll_s: float) -> str:
    return f"No edit is lost: a receiver that runs finds each within {duration(poll_s)}"


def _webhook_end(end: str, figures: Figures) -> str:
    status = figures["status"]
    if end == "status" and status in (502, 503, 504):
        return f"answered {status} by a proxy: the receiver behind it does not run"
    error = re.sub(r"\w+://\S+", "…", _said(figures["error"]))  # no address's path is shown
    return WEBHOOK_ENDS[end].format(status=status, error=error)


def work(figures: Figures, *, poll_s: float, look_s: float) -> Finding:
    """Say whether a receiver does the work that waits, from the traces that one leaves.

    At fault where work waits and no receiver visited any terminal, both for longer than a receiver
    that runs and polls would let pass.
    """
    look_overdue_s = (figures["looked_s"] or 0.0) - look_s
    waited_s = max(figures["edits_s"] or 0.0, figures["due_s"] or 0.0, look_overdue_s)
    seen_s = figures["seen_s"]
    idle_s = waited_s if seen_s is None else min(waited_s, seen_s)
    seen = "" if seen_s is None else f"a receiver was at work {duration(max(seen_s, 0.0))} ago"
    if idle_s <= max(MIN_IDLE_S, 2 * poll_s):
        return Finding(what="work", fault=None, note=seen)
    edits = figures["edits"]
    return Finding(
        what="work",
        fault=f"no receiver has taken up any work for {duration(idle_s)}: is it running? "
        + (f"{_count(edits, 'edit waits', 'edits wait')}. " if edits else "")
        + "None is lost: it catches up by itself when it is back",
    )


def edits(figures: Figures) -> Finding:
    """Say how one terminal's edits stand."""
    what = f"edits for {printable(str(figures['host'] or '?'))}"
    left_s = figures["lease_left_s"]
    faults = []
    if figures["held_by"] is not None and left_s < 0:
        faults.append(
            f"a receiver died while it had the terminal ({holder(figures)}): it is free again, "
            "and what was under way is done again by the next"
        )
    if figures["failing"]:
        count = _count(figures["failing"], "employee keeps", "employees keep")
        faults.append(f"{count} failing, mostly: {_said(figures['failing_for'])}")
    if (figures["wanted_s"] or 0.0) > LATE_S:
        faults.append(_backlog(figures))
    if faults:
        return Finding(what=what, fault=" And ".join(_sentence(fault) for fault in faults))
    notes = []
    if figures["wanted"]:
        notes.append(_count(figures["wanted"], "waits", "wait"))
    if figures["refused"]:
        count = _count(figures["refused"], "employee is", "employees are")
        notes.append(
            f"{count} not there until HR edits them, mostly: {_said(figures['refused_for'])}"
        )
    return Finding(what=what, fault=None, note="; ".join(notes) or "none waits")


def verification(figures: Figures, *, verify_s: float) -> Finding:
    """Say when one terminal was last asked for everybody, and what that found.

    At fault where that is later than it should be, by more than the work before it explains.
    """
    what = f"people on {printable(str(figures['host'] or '?'))}"
    began_s, found = figures["began_s"], figures["verified"]
    if began_s is not None and began_s > 2 * max(verify_s, LATE_S):
        return Finding(
            what=what,
            fault=f"it was asked for everybody {duration(began_s)} ago, and should be every "
            f"{duration(verify_s)}: other work comes first, or it cannot be reached",
        )
    if figures["going_on"]:
        return Finding(what=what, fault=None, note="it is being asked for everybody")
    if found is None:
        words = "it was not asked for everybody yet"
        if figures["confirmed_s"] is None:
            words += ", or cannot be asked: what is done there is believed, and nobody is confirmed"
        return Finding(what=what, fault=None, note=words)
    put_right = found["different"] + found["missing"]
    words = (
        f"asked for everybody {duration(figures['verified_s'])} ago: {found['persons']:,} there, "
        f"{put_right or 'none'} put right, {found['unknown'] or 'none'} unknown to HR"
    )
    confirmed_s = figures["confirmed_s"]
    if confirmed_s is not None:
        words += f"; all were confirmed within {duration(max(confirmed_s, 0.0))}"
    return Finding(what=what, fault=None, note=words)


def _backlog(figures: Figures) -> str:
    count = _count(figures["wanted"], "edit waits", "edits wait")
    words = f"{count}, the oldest for {duration(figures['wanted_s'])}"
    lately = f"in the last {duration(LATELY_S)}"
    if not figures["done_lately"]:
        words += f"; none was done {lately}"
    else:
        left_s = figures["wanted"] / figures["done_lately"] * LATELY_S
        words += (
            f"; {figures['done_lately']} were done {lately}, and the rest takes about "
            f"{duration(left_s)} at this pace"
        )
    if figures["rests_s"]:
        words += (
            f". After {figures['failures']} failures in a row the next attempt is in "
            f"{duration(figures['rests_s'])}: {_said(figures['rest_reason'])}"
        )
    return words


def holder(figures: Figures) -> str:
    """Name the receiver that leased a terminal, by machine and process, and for how long."""
    machine, process = machine_and_process(figures["held_by"])
    return f"process {process} on {printable(machine)}, for {duration(max(figures['held_s'], 0.0))}"


def _count(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _sentence(words: str) -> str:
    return words if words.endswith((".", "?")) else f"{words}."


def _said(words: object) -> str:
    return redact(printable(str(words or "no reason is known")))[:300].rstrip(".")
