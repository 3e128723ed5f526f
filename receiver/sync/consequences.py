"""What follows from each terminal error: one table, read by others; and when to try again.

Two kinds of waits. A terminal that cannot be worked with rests as a whole, so that it costs one
attempt per rest however many pairs wait. A pair that alone went wrong waits alone. Both waits grow
with each failure in a row. A terminal's rest about doubles, so that a terminal that was off for a
while is noticed after about as long again, and never later than five minutes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotKept,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    PhotoUnusable,
    TerminalBusy,
    TerminalError,
    TerminalFull,
    TerminalRefused,
    TerminalTimeout,
    TerminalUnreachable,
    TerminalUnusable,
)
from receiver.core.models import Outcome, Status

TERMINAL_RESTS_S = (2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
PAIR_PAUSES_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
LOGIN_REST_S = 31 * 60.0
"""Longer than the 30 minutes for which a terminal counts failed logins (SK)."""
MAX_LOCKED_S = 24 * 3600.0
JITTER = 0.2
"""Waits vary by this part up or down, so that what failed together does not return together."""

AskedBack = Literal["now", "later", "next visit"]
Rests = Literal["grows", "short", "login"]
Due = Literal["with the terminal", "soon", "grows", "HR's edit"]


@dataclass(frozen=True, kw_only=True)
class Consequence:
    """A row: what one error means where it is met."""

    at_person: Status = "fatal"
    """The pair's status where the error is met at the person."""
    at_photo: Status = "partial"
    """The pair's status where it is met at the photo of a person who is there."""
    asked_back: AskedBack = "now"
    """When the terminal can be read back. Where a search meets an error with `now`, it cannot be
    read back at all, and its word counts."""
    rest: Rests | None = "grows"
    """How long the terminal rests after a fatal outcome, if it does: `grows` from 2 s to 5 min with
    each failure in a row; `short`: 2 or 4 s, because it answers, and others need not wait long for
    one pair; `login`: 31 min, or longer than the account is locked."""
    pair_due: Due = "grows"
    """When the pair is due again after a fatal outcome: `with the terminal`, because the pair is
    not to blame and keeps its place; `soon`: from 2 s to 5 min, because a moment later it may do;
    `grows` from 5 s to 1 h; or at `HR's edit`."""
    photo_rest: Rests | None = None
    """How long the terminal rests after a partial outcome."""
    photo_due: Due = "grows"
    """When the pair is due again after a partial outcome."""


CONSEQUENCES: Final[Mapping[type[TerminalError], Consequence]] = {
    TerminalError: Consequence(at_photo="fatal"),
    TerminalUnusable: Consequence(at_photo="fatal", pair_due="with the terminal"),
    TerminalUnreachable: Consequence(
        at_photo="fatal", asked_back="next visit", pair_due="with the terminal"
    ),
    # It may still be at work on the photo.
    TerminalTimeout: Consequence(asked_back="next visit", photo_rest="grows"),
    TerminalBusy: Consequence(asked_back="later", pair_due="with the terminal", photo_due="soon"),
    LoginRefused: Consequence(
        at_photo="fatal", asked_back="next visit", rest="login", pair_due="with the terminal"
    ),
    TerminalRefused: Consequence(rest="short"),
    TerminalFull: Consequence(rest="short"),
    DataRefused: Consequence(
        at_person="skipped", rest=None, pair_due="HR's edit", photo_due="HR's edit"
    ),
    PhotoUnusable: Consequence(
        at_person="skipped", rest=None, pair_due="HR's edit", photo_due="HR's edit"
    ),
    PersonAbsent: Consequence(),
    PhotoNotFetched: Consequence(),
    NotSupported: Consequence(rest="short", photo_due="HR's edit"),
    NotKept: Consequence(at_photo="fatal", rest="short"),
    AnswerUnexplained: Consequence(at_photo="fatal", rest="short"),
}


def consequence(error: TerminalError) -> Consequence:
    """Return the row of an error."""
    return next(CONSEQUENCES[kind] for kind in type(error).__mro__ if kind in CONSEQUENCES)


def is_unanswering(error: BaseException | None) -> bool:
    """Return whether this error ends all questions to the terminal on a visit."""
    return isinstance(error, TerminalError) and consequence(error).asked_back == "next visit"


@dataclass(frozen=True, kw_only=True)
class Retry:
    """What to do after an outcome."""

    pair_s: float | None
    """Seconds until the pair is due again; None: done until HR edits it."""
    terminal_s: float | None
    """Seconds for which the terminal rests; None: go on with its next pair."""


DONE = Retry(pair_s=None, terminal_s=None)


def decide(outcome: Outcome, *, attempts: int, failures: int, random: Callable[[], float]) -> Retry:
    """Return what to do after an outcome.

    `attempts` and `failures` count the failures in a row before it, of this pair and of its
    terminal; `random` returns a number from 0 to 1.
    """
    error = outcome.error
    if error is None:
        return DONE
    row = consequence(error)
    fatal = outcome.status == "fatal"
    due, rest = (row.pair_due, row.rest) if fatal else (row.photo_due, row.photo_rest)
    if due == "HR's edit":
        return DONE
    if due == "with the terminal":
        pair_s = 0.0
    else:
        pauses = TERMINAL_RESTS_S if due == "soon" else PAIR_PAUSES_S
        pair_s = _jittered(pauses, attempts, random)
    if rest is None:
        return Retry(pair_s=pair_s, terminal_s=None)
    if isinstance(error, LoginRefused) and rest == "login":
        return Retry(pair_s=pair_s, terminal_s=login_rest_s(error))
    count = min(failures, 1) if rest == "short" else failures
    return Retry(pair_s=pair_s, terminal_s=_jittered(TERMINAL_RESTS_S, count, random))


def login_rest_s(error: LoginRefused) -> float:
    """Return how many seconds a terminal that refused the login rests."""
    return max(LOGIN_REST_S, min(error.locked_s + 60.0, MAX_LOCKED_S))


def _jittered(pauses: tuple[float, ...], count: int, random: Callable[[], float]) -> float:
    pause = pauses[min(count, len(pauses) - 1)]
    return min(pause * (1 + JITTER * (2 * random() - 1)), pauses[-1])


_RESTS: Final[Mapping[Rests | None, str]] = {
    None: "none",
    "grows": "2 s to 5 min",
    "short": "2 to 4 s",
    "login": "31 min, or the lock",
}
_DUE: Final[Mapping[Due, str]] = {
    "with the terminal": "with the terminal",
    "soon": "after 2 s to 5 min",
    "grows": "after 5 s to 1 h",
    "HR's edit": "when HR edits",
}


def table() -> list[str]:
    """Return the README's table of consequences, row by row."""
    rows = [
        f"| `{error.__name__}` | {row.at_person} | {row.at_photo} | {row.asked_back} "
        f"| {_RESTS[row.rest]} | {_DUE[row.pair_due]} "
        f"| {_RESTS[row.photo_rest]} | {_DUE[row.photo_due]} |"
        for error, row in CONSEQUENCES.items()
    ]
    heads = ("error", "at the person", "at the photo", "asked back", "terminal rests", "pair due")
    more = ("rests, photo", "due, photo")
    return [f"| {' | '.join((*heads, *more))} |", "|---" * len((*heads, *more)) + "|", *rows]
