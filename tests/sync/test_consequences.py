"""When to try again: every error, every status, every bound."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.core import errors
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
from receiver.core.models import NOTHING_HELD, Outcome, Status
from receiver.sync.consequences import (
    CONSEQUENCES,
    DONE,
    JITTER,
    LOGIN_REST_S,
    MAX_LOCKED_S,
    PAIR_PAUSES_S,
    TERMINAL_RESTS_S,
    Retry,
    consequence,
    decide,
)

PAIR, TERMINAL = PAIR_PAUSES_S[0], TERMINAL_RESTS_S[0]


def outcome(status: Status, error: TerminalError | None) -> Outcome:
    step: Literal["photo", "person"] = "photo" if status == "partial" else "person"
    return Outcome(status=status, step=step, message="…", held=NOTHING_HELD, error=error)


def middle() -> float:
    """Stand in for random: the pause comes out exactly as it is written."""
    return 0.5


def after(
    status: Status,
    error: TerminalError | None,
    *,
    attempts: int = 0,
    failures: int = 0,
    random: Callable[[], float] = middle,
) -> Retry:
    return decide(outcome(status, error), attempts=attempts, failures=failures, random=random)


@pytest.mark.parametrize("status", ["success", "partial", "skipped", "fatal"])
def test_an_outcome_without_an_error_is_done(status: Status) -> None:
    assert after(status, None, attempts=9, failures=9) == DONE


DECISIONS: dict[type[TerminalError], tuple[Retry, Retry]] = {
    # error: (fatal: the terminal cannot be worked with; partial: the photo alone is not there)
    TerminalError: (Retry(pair_s=PAIR, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    TerminalUnusable: (Retry(pair_s=0, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    TerminalUnreachable: (
        Retry(pair_s=0, terminal_s=TERMINAL),
        Retry(pair_s=PAIR, terminal_s=None),
    ),
    TerminalTimeout: (  # it may be at work on the photo still
        Retry(pair_s=PAIR, terminal_s=TERMINAL),
        Retry(pair_s=PAIR, terminal_s=TERMINAL),
    ),
    TerminalBusy: (
        Retry(pair_s=0, terminal_s=TERMINAL),
        Retry(pair_s=TERMINAL_RESTS_S[0], terminal_s=None),
    ),
    LoginRefused: (Retry(pair_s=0, terminal_s=LOGIN_REST_S), Retry(pair_s=PAIR, terminal_s=None)),
    TerminalFull: (Retry(pair_s=PAIR, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    TerminalRefused: (Retry(pair_s=PAIR, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    DataRefused: (DONE, DONE),
    PhotoUnusable: (DONE, DONE),
    NotKept: (Retry(pair_s=PAIR, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    PersonAbsent: (Retry(pair_s=PAIR, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    PhotoNotFetched: (Retry(pair_s=PAIR, terminal_s=TERMINAL), Retry(pair_s=PAIR, terminal_s=None)),
    NotSupported: (Retry(pair_s=PAIR, terminal_s=TERMINAL), DONE),
    AnswerUnexplained: (
        Retry(pair_s=PAIR, terminal_s=TERMINAL),
        Retry(pair_s=PAIR, terminal_s=None),
    ),
}


def test_the_table_of_decisions_leaves_no_terminal_error_out() -> None:
    every = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, TerminalError)
    }
    assert set(DECISIONS) == every


@pytest.mark.parametrize("error", DECISIONS, ids=lambda cls: cls.__name__)
def test_a_terminal_that_cannot_be_worked_with_rests_and_the_blameless_pair_keeps_its_place(
    error: type[TerminalError],
) -> None:
    assert after("fatal", error()) == DECISIONS[error][0]


@pytest.mark.parametrize("error", DECISIONS, ids=lambda cls: cls.__name__)
def test_a_photo_that_is_not_there_makes_its_pair_wait_and_rarely_the_terminal(
    error: type[TerminalError],
) -> None:
    assert after("partial", error()) == DECISIONS[error][1]


def test_data_that_a_terminal_refused_waits_for_hr_however_often_it_failed() -> None:
    assert after("skipped", DataRefused(), attempts=7, failures=7) == DONE


@pytest.mark.parametrize("attempts", range(len(PAIR_PAUSES_S) + 3))
def test_a_pairs_pause_grows_with_its_own_attempts_up_to_the_last(attempts: int) -> None:
    expected = PAIR_PAUSES_S[min(attempts, len(PAIR_PAUSES_S) - 1)]
    for failures in (0, 5, 10_000):
        assert (
            after("partial", PhotoNotFetched(), attempts=attempts, failures=failures).pair_s
            == expected
        )


@pytest.mark.parametrize("attempts", range(len(TERMINAL_RESTS_S) + 3))
def test_a_face_that_a_busy_terminal_did_not_take_is_sent_again_soon(attempts: int) -> None:
    expected = TERMINAL_RESTS_S[min(attempts, len(TERMINAL_RESTS_S) - 1)]
    assert after("partial", TerminalBusy(), attempts=attempts).pair_s == expected


@pytest.mark.parametrize("failures", range(len(TERMINAL_RESTS_S) + 3))
def test_a_terminals_rest_grows_with_its_own_failures_up_to_the_last(failures: int) -> None:
    expected = TERMINAL_RESTS_S[min(failures, len(TERMINAL_RESTS_S) - 1)]
    for attempts in (0, 5, 10_000):
        retry = after("fatal", TerminalUnreachable(), attempts=attempts, failures=failures)
        assert retry.terminal_s == expected


@pytest.mark.parametrize("error", [AnswerUnexplained, NotSupported, TerminalRefused])
def test_a_terminal_that_answers_rests_briefly_so_that_one_pair_does_not_delay_the_others(
    error: type[TerminalError],
) -> None:
    """A full terminal must get to the leaver who frees a place before all new hires have failed."""
    for failures in (1, 5, 10_000):
        assert after("fatal", error(), failures=failures).terminal_s == TERMINAL_RESTS_S[1]


def test_both_schedules_only_grow() -> None:
    for pauses in (TERMINAL_RESTS_S, PAIR_PAUSES_S):
        assert all(one < next_ for one, next_ in pairwise(pauses))
        assert pauses[0] > 0


@settings(deadline=None, max_examples=200)
@given(
    attempts=st.integers(0, len(PAIR_PAUSES_S) - 2),
    failures=st.integers(0, len(TERMINAL_RESTS_S) - 2),
    at=st.floats(0, 1),
)
def test_jitter_moves_a_pause_by_up_to_a_fifth(attempts: int, failures: int, at: float) -> None:
    moved = after(
        "fatal", TerminalTimeout(), attempts=attempts, failures=failures, random=lambda: at
    )
    assert JITTER == 0.2
    assert moved.pair_s == pytest.approx(PAIR_PAUSES_S[attempts] * (0.8 + 0.4 * at))
    assert moved.terminal_s == pytest.approx(TERMINAL_RESTS_S[failures] * (0.8 + 0.4 * at))


def test_pauses_that_began_together_end_apart() -> None:
    pauses = {
        after("fatal", TerminalUnreachable(), random=lambda at=at: at / 10).terminal_s  # type: ignore[misc]
        for at in range(11)
    }
    assert len(pauses) == 11


@settings(deadline=None, max_examples=100)
@given(failures=st.integers(0, 10**6), at=st.floats(0, 1))
def test_a_terminal_that_is_back_is_noticed_after_five_minutes_at_the_latest(
    failures: int, at: float
) -> None:
    rest = after("fatal", TerminalUnreachable(), failures=failures, random=lambda: at).terminal_s
    assert rest is not None
    assert rest <= 5 * 60


@pytest.mark.parametrize(
    ("locked_s", "least_s"),
    [(0, 31 * 60), (60, 31 * 60), (29 * 60, 31 * 60), (30 * 60, 31 * 60), (31 * 60, 31 * 60 + 1),
     (3600, 3601), (23 * 3600, 23 * 3600 + 1)],
)  # fmt: skip
@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_after_a_refused_login_a_terminal_rests_31_minutes_and_longer_than_it_is_locked(
    locked_s: float, least_s: float, at: float
) -> None:
    error = LoginRefused(locked_s=locked_s)
    retry = after("fatal", error, failures=0, random=lambda: at)
    assert retry.terminal_s is not None
    assert retry.terminal_s >= least_s
    assert retry.pair_s == 0


@pytest.mark.parametrize("locked_s", [24 * 3600, 1e9, 999_999_999_999, float("inf")])
def test_a_lock_that_makes_no_sense_is_believed_for_a_day(locked_s: float) -> None:
    assert after("fatal", LoginRefused(locked_s=locked_s)).terminal_s == MAX_LOCKED_S == 86_400


def test_a_negative_lock_shortens_nothing() -> None:
    assert after("fatal", LoginRefused(locked_s=-9e9)).terminal_s == LOGIN_REST_S


def test_an_error_without_a_row_of_its_own_has_that_of_its_kind() -> None:
    class TerminalTooWarm(TerminalRefused):
        """The terminal is too warm."""

    assert consequence(TerminalTooWarm()) == CONSEQUENCES[TerminalRefused]


def test_every_terminal_error_of_today_has_a_row_of_its_own() -> None:
    assert set(CONSEQUENCES) == set(DECISIONS)
