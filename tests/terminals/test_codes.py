"""The table of codes: complete, sorted, without contradictions, and read as it is written."""

from collections import Counter

import pytest

from receiver.core.errors import AnswerUnexplained, PersonAbsent
from receiver.terminals.answers import (
    FACE_ABSENT,
    FACE_EXISTS,
    KINDS,
    NAME_REFUSED,
    PERSON_ABSENT,
    PERSON_EXISTS,
    Answer,
)
from receiver.terminals.codes import Meaning, code_of, meaning_of, rows

ROWS = list(rows())
CODES = [row[0] for row in ROWS]
UNEXPLAINED = {"exists", "ok", "request", "unrelated"}


def in_class(class_: str) -> set[str]:
    return {row[0] for row in ROWS if row[2] == class_}


def answer(code: str, http_status: int = 400) -> Answer:
    return Answer(http_status=http_status, status_code=6, code=code, detail="checkUser", fields={})


def test_the_table_holds_every_code_of_the_workbook_and_two_of_integrations() -> None:
    assert Counter(row[4] for row in ROWS) == {
        "G2 workbook": 2255,
        "CH": 1,
        "not in the workbook": 1,
    }
    assert len(set(CODES)) == len(CODES)


def test_the_table_is_sorted_by_class_and_code() -> None:
    assert sorted(ROWS, key=lambda row: (row[2], row[0].lower(), row[0])) == ROWS


def test_every_class_is_known() -> None:
    assert {row[2] for row in ROWS} == {*KINDS, *UNEXPLAINED}


def test_codes_that_differ_in_case_alone_mean_the_same() -> None:
    for code, _, class_, words, _ in ROWS:
        assert meaning_of(code) == Meaning(class_, words)
        assert meaning_of(code.upper()) == Meaning(class_, words)
    assert meaning_of("") is None
    assert meaning_of("somethingNew") is None


def test_every_number_stands_for_one_code() -> None:
    numbers = [(int(n, 16), row[0]) for row in ROWS for n in row[1].split()]
    assert len({number for number, _ in numbers}) == len(numbers) == 2269
    assert all(code_of(number) == code for number, code in numbers)
    assert code_of(None) == code_of(0) == code_of(-1) == ""


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] != "unrelated"], ids=lambda r: r[0])
def test_a_code_is_told_in_words_and_as_the_error_of_its_class(row: list[str]) -> None:
    code, _, class_, words, _ = row
    error = answer(code).error()
    if words:
        assert type(error) is KINDS[class_]
        assert words[1:] in error.message
        assert words[0] == words[0].lower()
        assert not words.endswith(".")
        assert len(words) < 90
    else:
        assert class_ in {"absent", *UNEXPLAINED}
        assert type(error) is AnswerUnexplained
        assert (
            error.message == f"The terminal answered (HTTP 400, statusCode 6, {code}, checkUser)."
        )


def test_a_code_that_no_call_of_ours_meets_is_told_as_it_came() -> None:
    assert not any(row[3] for row in ROWS if row[2] == "unrelated")
    for code in in_class("unrelated"):
        error = answer(code).error()
        assert type(error) is AnswerUnexplained
        assert code[:100] in error.message


def test_the_branches_are_the_classes_of_their_codes() -> None:
    assert in_class("exists") == PERSON_EXISTS | FACE_EXISTS
    assert in_class("absent") == PERSON_ABSENT | FACE_ABSENT
    assert all(type(answer(code).error()) is PersonAbsent for code in PERSON_ABSENT)
    assert in_class("request") | in_class("data") >= NAME_REFUSED


def test_only_codes_about_the_login_count_as_a_refused_login() -> None:
    """A terminal that refused a login rests for 31 minutes, and everybody waits."""
    assert in_class("login") == {
        "badAuthorization",
        "incorrentUserNameOrPassword",
        "loginPasswordError",
        "MaxPassword attempts",
        "userNameLocked",
    }
