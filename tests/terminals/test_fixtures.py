"""Whole bodies and what each means: as terminals sent them, whole and as networks break them.

fixtures/isapi/cases.csv is their index. `document` there is what only the call that asked can
judge: an answer that is neither a ResponseStatus nor an error.
"""

from collections import Counter
from pathlib import Path

import pytest

from receiver.core.errors import LoginRefused
from receiver.terminals.answers import FACE_ABSENT, FACE_EXISTS, PERSON_EXISTS, Answer, parse
from tests.support.isapi_fixtures import CASES, FIXTURES, INDEX

ENDPOINTS = {
    "delete_process",
    "device_info",
    "face_data_record",
    "fd_capabilities",
    "fd_modify",
    "fd_search",
    "fd_search_delete",
    "fd_setup",
    "login",
    "user_info_capabilities",
    "user_info_count",
    "user_info_detail_delete",
    "user_info_modify",
    "user_info_record",
    "user_info_search",
    "user_info_setup",
}


def classify(answer: Answer) -> str:
    if answer.ok:
        return "ok"
    if answer.says(PERSON_EXISTS | FACE_EXISTS):
        return "exists"
    if answer.says(FACE_ABSENT):
        return "absent"
    silent = answer.status_code is None and not answer.code
    if silent and answer.fields and answer.http_status == 200:
        return "document"
    return type(answer.error()).__name__


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_a_body_means_what_the_index_says(case: dict[str, str]) -> None:
    body = (FIXTURES / case["file"]).read_bytes()
    try:
        answer = parse(int(case["http_status"]), body)
    except LoginRefused as refused:
        found, message = "LoginRefused", refused.message
    else:
        found, message = classify(answer), answer.error().message
    assert found == case["expected"]
    assert case["message"] in message


def test_the_index_and_the_folder_list_the_same_bodies() -> None:
    files = {str(p.relative_to(FIXTURES)) for p in FIXTURES.rglob("*") if p.is_file()}
    indexed = Counter(case["file"] for case in CASES)
    assert files - {INDEX.name} == set(indexed)
    assert set(indexed.values()) == {1}
    assert len(indexed) >= 60


def test_every_call_of_ours_and_every_kind_of_answer_has_a_body() -> None:
    assert {Path(case["file"]).parts[0] for case in CASES} == ENDPOINTS
    assert {case["expected"] for case in CASES} == {
        "AnswerUnexplained",
        "DataRefused",
        "LoginRefused",
        "NotSupported",
        "PhotoNotFetched",
        "TerminalBusy",
        "TerminalFull",
        "TerminalRefused",
        "absent",
        "document",
        "exists",
        "ok",
    }
