"""When to try again: a pure decision, read from a table, done by others.

Two kinds of pauses. A terminal that cannot be worked with rests as a whole, so that it costs one
attempt per pause however many pairs wait. A pair that alone went wrong waits alone. Both grow with
each failure in a row. A terminal's pause about doubles, so that one that was off for a while is
noticed after about as long again, and never later than five minutes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotKept,
    NotSupported,
    TerminalBusy,
    TerminalRefused,
    TerminalTimeout,
    TerminalUnreachable,
    TerminalUnusable,
)
from receiver.core.models import Outcome

TERMINAL_PAUSES_S = (2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
PAIR_PAUSES_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
LOGIN_REST_S = 31 * 60.0
"""Longer than the 30 minutes for which a terminal counts failed logins (SK)."""
MOST_LOCKED_S = 24 * 3600.0
JITTER = 0.2
"""Pauses vary by this part up or down, so that what failed together does not return together."""

PAIR_BLAMELESS = (TerminalUnreachable, TerminalUnusable, TerminalBusy, LoginRefused)
"""The pair that met one of these keeps its place; any other may be the cause, and goes last."""


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

    `attempts` and `failures` count what went wrong in a row before it, for this pair and for its
    terminal; `random` returns a number from 0 to 1.
    """
    error = outcome.error
    if error is None or isinstance(error, DataRefused):
        return DONE
    pair_s = _jittered(PAIR_PAUSES_S, attempts, random)
    if outcome.status != "fatal":  # the person is there, only the photo is not
        if isinstance(error, NotSupported):
            return DONE
        if isinstance(error, TerminalTimeout):  # it may be at work on the photo still
            return Retry(pair_s=pair_s, terminal_s=_jittered(TERMINAL_PAUSES_S, failures, random))
        return Retry(pair_s=pair_s, terminal_s=None)
    if isinstance(error, (AnswerUnexplained, NotKept, NotSupported, TerminalRefused)):
        failures = min(failures, 1)  # it answers: others need not wait long for this one's fault
    if isinstance(error, LoginRefused):
        terminal_s = login_rest_s(error)
    else:
        terminal_s = _jittered(TERMINAL_PAUSES_S, failures, random)
    return Retry(pair_s=0.0 if isinstance(error, PAIR_BLAMELESS) else pair_s, terminal_s=terminal_s)


def login_rest_s(error: LoginRefused) -> float:
    """Return for how long a terminal that refused the login rests, in seconds."""
    return max(LOGIN_REST_S, min(error.locked_s + 60.0, MOST_LOCKED_S))


def _jittered(pauses: tuple[float, ...], count: int, random: Callable[[], float]) -> float:
    pause = pauses[min(count, len(pauses) - 1)]
    return min(pause * (1 + JITTER * (2 * random() - 1)), pauses[-1])
