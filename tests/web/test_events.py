"""A verified body becomes an event, or one of two refusals."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.core.errors import BodyNotJson, EventNotOurs
from receiver.web.events import Event, parse_event

EMPLOYEE = uuid.UUID("7b0e4f5a-1c2d-4e3f-8a9b-0c1d2e3f4a5b")
OTHER = uuid.UUID("00000000-0000-4000-8000-000000000001")


def event(**changes: Any) -> dict[str, Any]:
    """Return an event as our triggers send it, with some keys changed; `...` removes one."""
    found = {
        "type": "UPDATE",
        "table": "angajati",
        "schema": "public",
        "record": {"id": str(EMPLOYEE)},
        "old_record": None,
    } | changes
    return {key: value for key, value in found.items() if value is not ...}


def parse(value: object) -> Event:
    return parse_event(json.dumps(value).encode())


FULL_ROW = {
    "id": str(EMPLOYEE),
    "nume": "Țîrlea",
    "prenume": "Ștefan 🙂",
    "cnp": "1900101123456",
    "salariu": 5321.75,
    "status": "activ",
    "creat_la": "2026-01-01T00:00:00+00:00",
    "note": None,
    "etichete": ["a", {"b": [1, 2]}],
}
BIOMETRICS = {"id": str(OTHER), "angajat_id": str(EMPLOYEE), "employee_no": 1001}


@pytest.mark.parametrize(
    ("given_event", "expected"),
    [
        (event(), ("UPDATE", "angajati", EMPLOYEE)),
        (event(type="INSERT"), ("INSERT", "angajati", EMPLOYEE)),
        (event(record=FULL_ROW, old_record=FULL_ROW), ("UPDATE", "angajati", EMPLOYEE)),
        (
            event(type="DELETE", record=None, old_record=FULL_ROW),
            ("DELETE", "angajati", EMPLOYEE),
        ),
        (event(old_record=...), ("UPDATE", "angajati", EMPLOYEE)),
        (event(commit_timestamp="…", errors=None, x=[1]), ("UPDATE", "angajati", EMPLOYEE)),
        (event(record={"id": str(EMPLOYEE).upper()}), ("UPDATE", "angajati", EMPLOYEE)),
        (
            event(table="angajati_biometrie", record=BIOMETRICS),
            ("UPDATE", "angajati_biometrie", EMPLOYEE),
        ),
        (
            event(table="angajati_biometrie", record={"id": str(OTHER), "angajat_id": None}),
            ("UPDATE", "angajati_biometrie", None),
        ),
        (
            event(table="angajati_biometrie", record={"id": str(OTHER)}),
            ("UPDATE", "angajati_biometrie", None),
        ),
        (
            event(type="DELETE", table="angajati_biometrie", record=None, old_record=BIOMETRICS),
            ("DELETE", "angajati_biometrie", EMPLOYEE),
        ),
    ],
)
def test_an_edit_of_our_tables_is_an_event(
    given_event: dict[str, Any], expected: tuple[str, str, uuid.UUID | None]
) -> None:
    found = parse(given_event)
    assert (found.type, found.table, found.employee_id) == expected


@pytest.mark.parametrize(
    "given_event",
    [
        None,
        True,
        0,
        "text",
        [],
        [event()],
        {},
        event(type=...),
        event(type="TRUNCATE"),
        event(type="update"),
        event(type=None),
        event(type=["UPDATE"]),
        event(type={"UPDATE": 1}),
        event(table=...),
        event(table="pontaje"),
        event(table="public.angajati"),
        event(table=None),
        event(table=["angajati"]),
        event(table={}),
        event(schema=...),
        event(schema="auth"),
        event(schema=None),
        event(record=...),
        event(record=None),
        event(record=[]),
        event(record="7b0e4f5a-1c2d-4e3f-8a9b-0c1d2e3f4a5b"),
        event(record={}),
        event(record={"id": None}),
        event(record={"id": 7}),
        event(record={"id": ""}),
        event(record={"id": "7"}),
        event(record={"id": f"{EMPLOYEE}0"}),
        event(record={"id": "\ud800"}),
        event(record={"id": [str(EMPLOYEE)]}),
        event(record={"angajat_id": str(EMPLOYEE)}),
        event(type="DELETE"),
        event(type="INSERT", record=None, old_record={"id": str(EMPLOYEE)}),
        event(table="angajati_biometrie", record={"id": str(OTHER), "angajat_id": "x"}),
        event(table="angajati_biometrie", record={"id": str(OTHER), "angajat_id": False}),
    ],
)
def test_any_other_json_is_not_an_event_of_ours(given_event: object) -> None:
    with pytest.raises(EventNotOurs):
        parse(given_event)


VALID = json.dumps(event()).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        VALID[:-1],
        VALID + VALID,
        b"'" + VALID + b"'",
        b"\x00" + VALID,
        b"\xff\xfe\xfd",
        VALID.replace(b"UPDATE", b"\xc8"),
        '{"a": "ă"}'.encode("iso8859-2"),
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"9" * 100_000,
        b'{"id": ' + b"9" * 5_000 + b"}",
        b"type=UPDATE&table=angajati",
        b"<event/>",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_not_json_is_refused_as_such(body: bytes) -> None:
    with pytest.raises(BodyNotJson):
        parse_event(body)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_does_not_have_are_not_json(constant: str) -> None:
    """RFC 8259 §6: numbers that cannot be spelled in digits are not permitted."""
    with pytest.raises(BodyNotJson):
        parse_event(VALID[:-1] + f', "salariu": {constant}}}'.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_json_in_another_encoding_than_utf_8_is_not_json(encoding: str) -> None:
    """RFC 8259 §8.1: UTF-8, without a byte order mark."""
    with pytest.raises(BodyNotJson):
        parse_event(VALID.decode().encode(encoding))


def test_the_last_of_two_equal_keys_counts_as_in_postgres() -> None:
    twice = VALID.replace(b'"record":', b'"record": {"id": "x"}, "record":', 1)
    assert parse_event(twice).employee_id == EMPLOYEE


def test_no_refusal_repeats_what_was_sent() -> None:
    marker = "Marker7f3a"
    for sent in (
        marker,
        {marker: marker},
        event(type=marker),
        event(table=marker),
        event(schema=marker),
        event(record=marker),
        event(record={"id": marker}),
        event(table="angajati_biometrie", record={"angajat_id": marker}),
    ):
        with pytest.raises(EventNotOurs) as caught:
            parse(sent)
        assert marker not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(BodyNotJson) as not_json:
        parse_event(f'{{"{marker}"'.encode())
    assert marker not in f"{not_json.value!r} {not_json.value.__cause__!r}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NEAR_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["INSERT", "UPDATE", "DELETE"]) | JSON,
        "table": st.sampled_from(["angajati", "angajati_biometrie"]) | JSON,
        "schema": st.just("public") | JSON,
        "record": st.fixed_dictionaries({}, optional={"id": st.uuids().map(str) | JSON}) | JSON,
        "old_record": st.fixed_dictionaries({}, optional={"angajat_id": st.uuids().map(str)})
        | JSON,
    },
)


@settings(deadline=None, max_examples=300)
@given(JSON | NEAR_EVENTS)
def test_any_json_is_an_event_or_refused(value: object) -> None:
    try:
        found = parse(value)
    except (BodyNotJson, EventNotOurs) as refusal:
        assert refusal.status in (400, 422)  # noqa: PT017 - either way is right
    else:
        assert found.table in ("angajati", "angajati_biometrie")
        assert found.employee_id is not None or found.table == "angajati_biometrie"


@settings(deadline=None, max_examples=300)
@given(st.binary() | st.binary().map(lambda junk: VALID[:40] + junk + VALID[40:]))
@example(b"\xef\xbb\xbf{}")
@example(b"\x00\x00\xfe\xff")
def test_any_bytes_are_an_event_or_refused(body: bytes) -> None:
    try:
        found = parse_event(body)
    except (BodyNotJson, EventNotOurs) as refusal:
        assert refusal.status in (400, 422)  # noqa: PT017 - either way is right
    else:
        assert found.type in ("INSERT", "UPDATE", "DELETE")


@settings(deadline=None, max_examples=100)
@given(
    id_=st.uuids(),
    table=st.sampled_from([("angajati", "id"), ("angajati_biometrie", "angajat_id")]),
    kind=st.sampled_from([("INSERT", "record"), ("UPDATE", "record"), ("DELETE", "old_record")]),
    extra=st.dictionaries(st.text(), JSON, max_size=3),
)
def test_every_event_of_ours_names_its_employee_whatever_else_it_carries(
    id_: uuid.UUID, table: tuple[str, str], kind: tuple[str, str], extra: dict[str, Any]
) -> None:
    finite = json.loads(json.dumps(extra), parse_constant=lambda _: None)
    sent = finite | {
        "type": kind[0],
        "table": table[0],
        "schema": "public",
        kind[1]: finite | {table[1]: str(id_)},
    }
    assert parse(sent) == Event(type=kind[0], table=table[0], employee_id=id_)
