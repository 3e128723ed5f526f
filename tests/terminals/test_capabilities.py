"""What a terminal declares of itself, in every form that it may choose: pure."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.core.models import Capabilities
from receiver.terminals.answers import parse
from receiver.terminals.capabilities import (
    MAX_TEXT,
    NAMES_BYTES,
    PAGES,
    PERSONS,
    URLS_BYTES,
    declared,
    same_firmware,
)
from tests.support.isapi_fixtures import FIXTURES

Json = dict[str, Any]

DEVICE: Json = {
    "model": "DS-KV6124-E1",
    "serialNumber": "DS-KV6124-E10120230101",
    "firmwareVersion": "V3.9.0",
    "firmwareReleasedDate": "build 240101",
}
PERSONS_XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<UserInfo xmlns="http://www.isapi.org/ver20/XMLSchema">
  <supportFunction opt="post,delete,put,get,setUp"/>
  <UserInfoSearchCond>
    <searchID min="1" max="36"/>
    <maxResults min="1" max="20"/>
    <EmployeeNoList maxSize="10"/>
  </UserInfoSearchCond>
  <employeeNo min="1" max="31"/>
  <name min="0" max="32"/>
  <maxRecordNum>2000</maxRecordNum>
</UserInfo>"""
FACES_XML = b"""<h:FDLibCap xmlns:h="http://www.hikvision.com/ver20/XMLSchema">
  <h:supportFDFunction opt="post,delete,put,get"/>
  <h:faceURLLen max="512"/>
</h:FDLibCap>"""


def fixture(name: str) -> Json:
    return dict(parse(200, (FIXTURES / name).read_bytes()).fields)


def of_persons(**fields: object) -> Capabilities:
    return declared({}, {"UserInfo": fields}, {})


def of_search(**fields: object) -> Capabilities:
    return of_persons(UserInfoSearchCond=fields)


# The forms


@pytest.mark.parametrize(("file", "name_bytes"), [("name_32.json", 32), ("name_128.json", 128)])
def test_recorded_capabilities_are_read(file: str, name_bytes: int) -> None:
    known = declared(DEVICE, fixture(f"user_info_capabilities/{file}"), {})
    assert known == Capabilities(
        serial="DS-KV6124-E10120230101",
        firmware="V3.9.0 build 240101",
        model="DS-KV6124-E1",
        name_bytes=name_bytes,
        most_persons=2000,
        page=30,
        photo_url_bytes=256,
    )


@pytest.mark.parametrize("form", ["flat", "wrapped"])
def test_the_face_library_is_read_flat_and_inside_its_name(form: str) -> None:
    known = declared({}, {}, fixture(f"fd_capabilities/{form}.json"))
    assert known == Capabilities(photo_url_bytes=1024)


def test_capabilities_in_attributes_of_xml_are_read() -> None:
    persons, faces = parse(200, PERSONS_XML).fields, parse(200, FACES_XML).fields
    known = declared({}, persons, faces)
    assert known == Capabilities(
        name_bytes=32,
        most_persons=2000,
        page=10,
        photo_url_bytes=512,
        lacks=("FDLib/FDSetUp",),
    )


def test_a_refusal_declares_nothing() -> None:
    for file in ("user_info_capabilities/not_supported.json", "fd_capabilities/not_supported.xml"):
        assert declared({}, fixture(file), fixture(file)) == Capabilities()


def test_a_terminal_that_declares_nothing_gets_what_any_terminal_takes() -> None:
    assert declared({}, {}, {}) == Capabilities()


# Limits


@pytest.mark.parametrize(
    "value",
    [
        2000,
        "2000",
        " 2000 ",
        {"@max": 2000},
        {"@max": "2000"},
        {"@min": 1, "@max": 2000},
        {"maxSize": 2000},
        {"@maxSize": "2000"},
    ],
)
def test_a_limit_is_read_however_it_is_written(value: object) -> None:
    assert of_persons(maxRecordNum=value).most_persons == 2000


ABSURD: list[Any] = [0, -1, "-5", 10**7, 10**15, "9" * 400, "", " ", "many", "0x20", 1.5, "1e3"]
ABSURD += [True, None, [], [30], {}, {"@max": None}, {"@max": []}, {"@max": {"@max": 30}}, "∞"]


@pytest.mark.parametrize("value", ABSURD, ids=lambda v: str(v)[:20])
def test_an_absurd_limit_counts_as_not_declared(value: object) -> None:
    known = declared(
        {},
        {
            "name": value,
            "maxRecordNum": value,
            "UserInfoSearchCond": {"maxResults": value, "EmployeeNoList": value},
        },
        {"faceURLLen": value},
    )
    assert known == Capabilities()


@pytest.mark.parametrize(
    ("field", "sensible", "attribute"),
    [
        ("name", NAMES_BYTES, "name_bytes"),
        ("maxRecordNum", PERSONS, "most_persons"),
    ],
)
def test_both_ends_of_a_sensible_range_belong_to_it(
    field: str, sensible: range, attribute: str
) -> None:
    for number in (sensible[0], sensible[-1]):
        assert getattr(of_persons(**{field: number}), attribute) == number
    for number in (sensible[0] - 1, sensible[-1] + 1):
        assert getattr(of_persons(**{field: number}), attribute) is None
    for number in (URLS_BYTES[0], URLS_BYTES[-1]):
        assert declared({}, {}, {"faceURLLen": number}).photo_url_bytes == number


@pytest.mark.parametrize(
    ("results", "numbers", "page"),
    [(30, 30, 30), (10, 30, 10), (30, 8, 8), (1, 30, 1), (None, 5, 5), (50, 20, 20), (500, 0, 30)],
)
def test_a_search_asks_for_no_more_than_the_smaller_of_its_two_limits(
    results: int | None, numbers: int, page: int
) -> None:
    limits = {"maxResults": {"@max": results}, "EmployeeNoList": {"maxSize": numbers}}
    assert of_search(**limits).page == page


def test_a_limit_of_another_call_does_not_limit_the_search() -> None:
    assert of_persons(maxResults={"@max": 1}, EmployeeNoList={"maxSize": 1}).page == 30


def test_the_shallowest_of_several_fields_counts() -> None:
    persons = {"UserInfo": {"Extra": {"name": {"@max": 8}}, "name": {"@max": 64}}}
    assert declared({}, persons, {}).name_bytes == 64
    assert declared({}, {"A": {"B": {"C": {"name": {"@max": 64}}}}}, {}).name_bytes == 64


# What the face library lacks


@pytest.mark.parametrize(
    "functions",
    [
        "post,delete,put,get,setUp",
        "POST,SETUP",
        {"@opt": "get,setUp"},
        ["get", "setUp"],
        [1, None, "setup"],
        "",
        None,
        7,
        [],
        {},
        {"@opt": None},
    ],
    ids=str,
)
def test_fd_set_up_is_tried_unless_the_functions_leave_it_out(functions: object) -> None:
    assert declared({}, {}, {"supportFDFunction": functions}).lacks == ()


@pytest.mark.parametrize("functions", ["post,put", {"@opt": "post"}, ["post", "put"]], ids=str)
def test_fd_set_up_is_not_tried_where_the_functions_leave_it_out(functions: object) -> None:
    for faces in ({"supportFDFunction": functions}, {"FDLibCap": {"supportFDFunction": functions}}):
        assert declared({}, {}, faces).lacks == ("FDLib/FDSetUp",)


# Which terminal it is


def test_the_same_terminal_is_recognised() -> None:
    known = declared(DEVICE, fixture("user_info_capabilities/name_32.json"), {})
    assert same_firmware(known, DEVICE)
    assert same_firmware(known, {**DEVICE, "model": "renamed", "deviceName": "Poarta 2"})


@pytest.mark.parametrize("field", ["serialNumber", "firmwareVersion", "firmwareReleasedDate"])
def test_another_serial_number_or_firmware_is_another_terminal(field: str) -> None:
    known = declared(DEVICE, {}, {})
    assert not same_firmware(known, {**DEVICE, field: "other"})


@pytest.mark.parametrize("device", [{}, {"statusCode": 2}, {**DEVICE, "serialNumber": ""}])
def test_an_answer_without_a_serial_number_counts_as_the_same_terminals(device: Json) -> None:
    assert same_firmware(declared(DEVICE, {}, {}), device)


def test_the_name_that_a_terminal_gives_itself_is_kept_short_and_printable() -> None:
    odd = {"serialNumber": "A\x00\u202eB\ud800" + "9" * 500, "model": 7, "firmwareVersion": ["V"]}
    known = declared(odd, {}, {})
    assert known.serial.isprintable()
    assert len(known.serial) <= MAX_TEXT
    assert (known.model, known.firmware) == ("", "")
    assert same_firmware(known, odd)


# Any other document

KEYS = [
    "UserInfo",
    "UserInfoSearchCond",
    "maxResults",
    "EmployeeNoList",
    "maxSize",
    "@max",
    "@opt",
    "name",
    "maxRecordNum",
    "FDLibCap",
    "faceURLLen",
    "supportFDFunction",
    "serialNumber",
    "firmwareVersion",
    "model",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["9" * 50, "-1", "٣", "²", "1_0", "setUp", 10**300]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)
DOCUMENT = st.dictionaries(st.text(max_size=8), JSON, max_size=4) | JSON.filter(
    lambda found: isinstance(found, dict)
)


@settings(deadline=None, max_examples=200)
@given(DOCUMENT, DOCUMENT, DOCUMENT)
@example({"serialNumber": "1"}, {"UserInfoSearchCond": 7}, {"supportFDFunction": {"@opt": 1}})
def test_any_document_is_read_without_an_error(device: Json, persons: Json, faces: Json) -> None:
    known = declared(device, persons, faces)
    assert known.page in PAGES
    assert known.photo_url_bytes in URLS_BYTES
    assert known.name_bytes is None or known.name_bytes in NAMES_BYTES
    assert known.most_persons is None or known.most_persons in PERSONS
    assert same_firmware(known, device)
    assert json.loads(json.dumps(known.lacks)) in ([], ["FDLib/FDSetUp"])


@pytest.mark.parametrize("opening", ['{"a":', "[", '{"UserInfo":[{"a":'])
def test_a_deep_document_is_read_without_an_error(opening: str) -> None:
    for depth in (50, 500, 20_000):
        closing = "".join({"{": "}", "[": "]"}.get(c, "") for c in reversed(opening))
        body = (opening * depth + '"x"' + closing * depth).encode()
        fields = parse(200, body).fields
        assert declared(fields, fields, fields) == Capabilities()


def test_deep_xml_is_read_without_an_error() -> None:
    body = b"<a>" * 5000 + b'<maxRecordNum max="9"/>' + b"</a>" * 5000
    fields = parse(200, body).fields
    assert declared(fields, fields, fields).most_persons in (9, None)
