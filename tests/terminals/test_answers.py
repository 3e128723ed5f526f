"""What a terminal's answer means: terminals/README.md, Answers and codes, and anything else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    TerminalBusy,
    TerminalError,
    TerminalFull,
    TerminalRefused,
)
from receiver.core.models import Terminal
from receiver.terminals.answers import FACE_EXISTS, PERSON_ABSENT, PERSON_EXISTS, Answer, parse
from receiver.terminals.client import TerminalClient
from receiver.terminals.http_client import http_client
from tests.support.clients import client_for

# A message in a charset that is not UTF-8.
LATIN = '{"statusCode":6,"subStatusCode":"deviceBusy","errorMsg":"é"}'.encode("latin-1")
OK = b'{"statusCode":1,"statusString":"OK","subStatusCode":"ok"}'
NAMESPACES = (
    "",
    ' xmlns="http://www.isapi.org/ver20/XMLSchema"',
    ' xmlns="http://www.std-cgi.com/x"',
)


def as_json(code: str, status_code: int = 6, error_msg: str = "") -> bytes:
    answer = {"statusCode": status_code, "statusString": "…", "subStatusCode": code}
    return json.dumps(answer | ({"errorMsg": error_msg} if error_msg else {})).encode()


def as_wrapped_json(code: str, status_code: int = 6) -> bytes:
    return json.dumps({"ResponseStatus": json.loads(as_json(code, status_code))}).encode()


def as_xml(code: str, status_code: int = 6, namespace: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ResponseStatus version="2.0"{namespace}>'
        f"<requestURL>/ISAPI/x</requestURL><statusCode>{status_code}</statusCode>"
        f"<statusString>Invalid Content</statusString><subStatusCode>{code}</subStatusCode>"
        "</ResponseStatus>"
    ).encode()


def as_prefixed_xml(code: str, status_code: int = 6) -> bytes:
    return (
        f'<h:ResponseStatus xmlns:h="urn:h"><h:statusCode>{status_code}</h:statusCode>'
        f"<h:subStatusCode> {code} </h:subStatusCode></h:ResponseStatus>"
    ).encode()


def spellings(code: str, status_code: int = 6) -> list[bytes]:
    return [
        as_json(code, status_code),
        as_wrapped_json(code, status_code),
        b" \r\n" + as_json(code, status_code) + b"\r\n",
        as_prefixed_xml(code, status_code),
        *(as_xml(code, status_code, namespace) for namespace in NAMESPACES),
    ]


CLASSES: dict[type[TerminalError], str] = {
    TerminalBusy: "deviceBusy noMemory serviceUnavailable upgrading faceDataModeling "
    "facelibDataProcessing loginNumExceedLimit",
    DataRefused: "illegalEmployeeNo SubpicAnalysisModelingError PicAnalysisNoTargetError "
    "multipleFaceObjectError pictureFaceDetectZero picSizeExceedError picFormatError "
    "faceLowQulity pupilDistanceTooSmall faceDataLenShort endtimeEarlierThanBegintime "
    "PicFeaturePoints",
    TerminalFull: "deviceUserFull deviceFaceFull diskFull",
    TerminalRefused: "faceLibraryIDError lowPrivilege notActivated libraryNotExist",
    NotSupported: "notSupport methodNotAllowed",
    LoginRefused: "badAuthorization userNameLocked",
    PersonAbsent: "employeeNoNotExist deviceUserNotExist",
    PhotoNotFetched: "urlDownloadFail",
    AnswerUnexplained: "badJsonFormat badJsonContent badParameters MessageParametersLack "
    "deleteNoExistFace somethingNew",
}
TABLE = [(code, kind) for kind, codes in CLASSES.items() for code in codes.split()]


@pytest.mark.parametrize(("code", "kind"), TABLE, ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("http_status", [200, 400, 403])
def test_a_code_means_the_same_in_json_and_xml_and_under_any_http_status(
    code: str, kind: type[TerminalError], http_status: int
) -> None:
    for body in spellings(code):
        answer = parse(http_status, body)
        assert (answer.code, answer.ok) == (code, False)
        assert type(answer.error()) is kind


CHARSETS = ("utf-8", "latin-1", "iso-8859-2", "gb2312", "GBK", "no-such", "utf-16")


@pytest.mark.parametrize(
    "body",
    [
        LATIN,
        as_xml("deviceBusy").replace(b"Invalid", b"\xc9\xb1\xff"),
        *(as_xml("deviceBusy").replace(b"UTF-8", charset.encode()) for charset in CHARSETS),
        as_xml("deviceBusy").replace(b"UTF-8", b"GB2312").replace(b"Invalid", b"\xc9\xe8"),
    ],
)
def test_a_message_in_a_wrong_charset_does_not_spoil_the_code_beside_it(body: bytes) -> None:
    assert type(parse(400, body).error()) is TerminalBusy


@pytest.mark.parametrize("code", ["DEVICEBUSY", "devicebusy", "DeviceBusy"])
def test_the_case_of_a_code_does_not_matter(code: str) -> None:
    assert type(parse(200, as_json(code, 2)).error()) is TerminalBusy


@pytest.mark.parametrize(
    ("codes", "spelled"),
    [
        (PERSON_EXISTS, "employeeNoAlreadyExist"),
        (PERSON_EXISTS, "deviceUserAlreadyExist"),
        (PERSON_ABSENT, "employeeNoNotExist"),
        (PERSON_ABSENT, "deviceUserNotExist"),
        (FACE_EXISTS, "deviceUserAlreadyExistFace"),
        (FACE_EXISTS, "DEVICEUSERALREADYEXISTFACE"),
    ],
)
@pytest.mark.parametrize("http_status", [200, 400, 403])
def test_a_code_that_decides_a_branch_is_recognised_and_is_not_ok(
    codes: frozenset[str], spelled: str, http_status: int
) -> None:
    for body in spellings(spelled):
        answer = parse(http_status, body)
        assert not answer.ok
        assert [s for s in (PERSON_EXISTS, PERSON_ABSENT, FACE_EXISTS) if answer.says(s)] == [codes]


@pytest.mark.parametrize("body", [OK, *spellings("ok", 1), as_xml("ok", 0), b'{"statusCode": "1"}'])
def test_status_code_1_is_ok_and_in_xml_0_too(body: bytes) -> None:
    assert parse(200, body).ok


@pytest.mark.parametrize("status_code", [2, 3, 4, 5, 6, 7, -1, 10])
def test_http_200_with_another_status_code_is_not_ok(status_code: int) -> None:
    for body in spellings("", status_code):
        answer = parse(200, body)
        assert not answer.ok
        assert answer.status_code == status_code


@pytest.mark.parametrize("http_status", [400, 403, 404, 500, 503])
def test_ok_under_an_http_error_is_not_ok(http_status: int) -> None:
    assert not parse(http_status, OK).ok


HTML = b"<html><head><title>Oops</title></head><body><p>Down<br>for repair</body></html>"
XHTML = b"<html><head><title>Oops</title></head><body><p>Down</p></body></html>"


@pytest.mark.parametrize("body", [b"", b" \n", HTML, XHTML, OK[:-9], as_xml("x")[:-9], b"\0"])
@pytest.mark.parametrize(
    ("http_status", "kind"),
    [
        (200, AnswerUnexplained),
        (204, AnswerUnexplained),
        (302, AnswerUnexplained),
        (400, AnswerUnexplained),
        (403, AnswerUnexplained),
        (404, NotSupported),
        (405, NotSupported),
        (500, TerminalBusy),
        (502, TerminalBusy),
        (503, TerminalBusy),
        (599, TerminalBusy),
    ],
)
def test_the_http_status_decides_where_the_body_says_nothing(
    body: bytes, http_status: int, kind: type[TerminalError]
) -> None:
    answer = parse(http_status, body)
    assert not answer.ok
    assert type(answer.error()) is kind


@pytest.mark.parametrize(
    ("http_status", "body", "kind"),
    [
        (403, as_xml("notSupport", 4), NotSupported),
        (404, as_json("deviceUserFull", 3), TerminalFull),
        (500, as_json("picFormatError"), DataRefused),
        (503, as_xml("notActivated", 4), TerminalRefused),
        (200, as_json("", 2), TerminalBusy),
        (400, as_xml("", 2), TerminalBusy),
        (200, as_json("", 3), AnswerUnexplained),
        (200, as_json("", 7), TerminalRefused),
        (500, as_xml("new", 7), TerminalRefused),
        (200, as_json("new", 3), AnswerUnexplained),
        (200, b'{"UserInfoSearch":{"responseStatusStrg":"NO MATCH"}}', AnswerUnexplained),
        (200, b"[1, 2]", AnswerUnexplained),
        (200, b'"deviceBusy"', AnswerUnexplained),
        (200, b'{"statusCode": [2], "subStatusCode": {"a": 1}}', AnswerUnexplained),
        (200, b'{"statusCode": true, "subStatusCode": 7, "errorMsg": null}', AnswerUnexplained),
        (200, b'{"statusCode": 1e400}', AnswerUnexplained),
        (200, b'{"statusCode": NaN}', AnswerUnexplained),
        (200, b'{"ResponseStatus": []}', AnswerUnexplained),
        (200, b"[" * 200_000, AnswerUnexplained),
        (200, b"<a>" * 50_000, AnswerUnexplained),
        (200, b"<a>" * 50_000 + b"</a>" * 50_000, AnswerUnexplained),
        (200, b'<?xml version="1.0" encoding="GB2312"?><a>\xb0\xa1</a>', AnswerUnexplained),
        (200, b'<?xml version="1.0" encoding="no-such"?><a/>', AnswerUnexplained),
        (200, b"<a>\xff</a>", AnswerUnexplained),
    ],
    ids=lambda x: repr(x[:40]) if isinstance(x, bytes) else None,
)
def test_the_body_is_believed_before_the_http_status_and_nonsense_is_unexplained(
    http_status: int, body: bytes, kind: type[TerminalError]
) -> None:
    answer = parse(http_status, body)
    assert not answer.ok
    assert type(answer.error()) is kind


USER_CHECK = (
    "<userCheck{ns}><statusValue>401</statusValue><statusString>Unauthorized</statusString>"
    "<isDefaultPassword>false</isDefaultPassword><lockStatus>{lock}</lockStatus>"
    "<unlockTime>{unlock}</unlockTime><retryLoginTime>4</retryLoginTime></userCheck>"
)
RESPONSE_STATUS = (
    "<ResponseStatus{ns}><statusCode>4</statusCode><subStatusCode>badAuthorization</subStatusCode>"
    "<lockStatus>{lock}</lockStatus><retryTimes>0</retryTimes><resLockTime>{unlock}</resLockTime>"
    "</ResponseStatus>"
)


@pytest.mark.parametrize("template", [USER_CHECK, RESPONSE_STATUS])
@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize(
    ("lock", "unlock", "locked_s"),
    [("unlock", "0", 0), ("unlock", "1800", 0), ("lock", "1800", 1800), ("locked", "1747", 1747),
     ("Locked", " 60 ", 60), ("locked", "", 0), ("locked", "soon", 0)],
)  # fmt: skip
def test_a_401_in_xml_says_for_how_long_the_account_is_locked(
    template: str, namespace: str, lock: str, unlock: str, locked_s: float
) -> None:
    with pytest.raises(LoginRefused) as caught:
        parse(401, template.format(ns=namespace, lock=lock, unlock=unlock).encode())
    assert caught.value.locked_s == locked_s
    assert ("locked" in caught.value.message) is (lock != "unlock")


@pytest.mark.parametrize(
    ("body", "locked_s"),
    [
        (b"", 0),
        (HTML, 0),
        (OK, 0),
        (as_json("notSupport"), 0),
        (b'{"userCheck":{"lockStatus":"lock","unlockTime":1747,"retryLoginTime":0}}', 1747),
        (b'{"userCheck":{"lockStatus":"unlock","unlockTime":0,"retryLoginTime":4}}', 0),
        (b'{"ResponseStatus":{"lockStatus":"locked","resLockTime":"90"}}', 90),
        (b'{"lockStatus":"locked","resLockTime":90}', 90),
        (b'{"lockStatus":["locked"],"resLockTime":90}', 0),
    ],
)
def test_any_401_is_a_refused_login_whatever_its_body_says(body: bytes, locked_s: float) -> None:
    with pytest.raises(LoginRefused) as caught:
        parse(401, body)
    assert caught.value.locked_s == locked_s


def test_a_locked_account_is_understood_without_a_401() -> None:
    body = b'{"statusCode":4,"subStatusCode":"userNameLocked","lockStatus":"lock","unlockTime":7}'
    error = parse(403, body).error()
    assert isinstance(error, LoginRefused)
    assert error.locked_s == 7


def numbered(error_code: object, code: str | None = None) -> bytes:
    status = {"statusCode": 6, "errorCode": error_code, "errorMsg": "checkUser"}
    return json.dumps(status | ({} if code is None else {"subStatusCode": code})).encode()


@pytest.mark.parametrize("error_code", [0x60006020, str(0x60006020), f" {0x60006020} "])
@pytest.mark.parametrize("code", [None, "", " "])
def test_an_error_number_stands_for_a_missing_code(error_code: object, code: str | None) -> None:
    answer = parse(400, numbered(error_code, code))
    assert answer.says(PERSON_EXISTS)
    assert "employeeNoAlreadyExist" in answer.error().message


@pytest.mark.parametrize("error_code", [0, 1, -1, 0x6000FFFF, 10**30, "", "0x60006020", None, True])
def test_an_unknown_error_number_changes_nothing(error_code: object) -> None:
    answer = parse(400, numbered(error_code, "badParameters"))
    assert answer.code == "badParameters"
    assert type(answer.error()) is AnswerUnexplained


def test_an_error_number_outweighs_a_vague_code_but_not_a_clear_one() -> None:
    full = 0x60007000
    answer = parse(400, numbered(full, "badParameters"))
    assert answer.code == "badParameters"
    assert answer.error().message == "The terminal is full of persons (checkUser)."
    assert type(parse(400, numbered(full, "new")).error()) is TerminalFull
    assert type(parse(400, numbered(full, "deviceBusy")).error()) is TerminalBusy


PUZZLING = (
    "'s answer cannot be understood; see that its address in dispozitive_pontaj is right, "
    "then restart it"
)


@pytest.mark.parametrize(
    ("http_status", "body", "message"),
    [
        (200, as_json("deviceUserFull", 6, "checkUser"), "Gate 2 is full of persons (checkUser)."),
        (200, as_json("lowPrivilege", 4), "Gate 2's user may not manage persons."),
        (200, as_json("userNameLocked", 4), "Gate 2 has locked the account."),
        (400, as_json("pictureFaceDetectZero"), "No face found in the photo."),
        (404, b"", "Gate 2 does not support this."),
        (503, b"", "Gate 2 is in trouble (HTTP 503)."),
        (200, as_json("", 7), "Gate 2 must be restarted first (HTTP 200, statusCode 7)."),
        (200, b"{}", f"Gate 2{PUZZLING} (HTTP 200)."),
    ],
)
def test_a_message_that_begins_with_the_terminal_calls_it_by_its_name(
    http_status: int, body: bytes, message: str
) -> None:
    answer = parse(http_status, body)
    assert answer.error("gate 2").message == message
    assert answer.error().message == message.replace("Gate 2", "The terminal")


@pytest.mark.parametrize(
    ("http_status", "body", "said"),
    [
        (200, b"", "HTTP 200"),
        (200, HTML, "HTTP 200"),
        (204, b"", "HTTP 204"),
        (302, b"", "HTTP 302"),
        (400, b"", "HTTP 400"),
        (403, HTML, "HTTP 403"),
        (200, b'{"UserInfoSearch":[]}', "HTTP 200"),
        (200, OK, "HTTP 200, statusCode 1, ok"),  # to a question
        (400, OK, "HTTP 400, statusCode 1, ok"),
    ],
)
def test_an_answer_that_is_neither_ok_nor_a_refusal_is_a_fault_and_says_what_to_do(
    http_status: int, body: bytes, said: str
) -> None:
    error = parse(http_status, body).error()
    assert type(error) is AnswerUnexplained
    assert error.message == f"The terminal{PUZZLING} ({said})."


@pytest.mark.parametrize("status_code", [3, 4, 5, 6, 99])
@pytest.mark.parametrize("code", ["", "new", "badParameters"])
def test_an_unexplained_refusal_is_passed_on_as_it_came(status_code: int, code: str) -> None:
    """The terminal itself refuses, so the message sends nobody to check its address."""
    said = f"HTTP 400, statusCode {status_code}" + (f", {code}" if code else "")
    error = parse(400, as_json(code, status_code)).error()
    assert error.message == f"The terminal answered ({said})."


def test_the_terminals_words_about_a_field_are_told_on_one_short_line() -> None:
    error = parse(
        400, as_json("badJsonContent", 6, "beginTime\nand\x1b[31m endTime " + "x" * 999)
    ).error()
    assert error.message.startswith(
        "The terminal answered (HTTP 400, statusCode 6, badJsonContent, beginTime and [31m endTime"
    )
    assert error.message.isprintable()
    assert len(error.message) < 200


PHOTO = "https://abcd.supabase.co/storage/v1/object/sign/pontaj-photos/7.jpg?token=eyJh.eyJi.c"


@pytest.mark.parametrize("code", ["badJsonContent", "urlDownloadFail", "picFormatError", PHOTO])
@pytest.mark.parametrize("url", [PHOTO, "http://10.0.0.9/faces/popescu.jpg"])
def test_no_message_repeats_the_url_of_a_photo_that_the_terminal_sent_back(
    code: str, url: str
) -> None:
    """The messages go to the log, to the ledger and to the browser (errors: first docstring)."""
    error = parse(400, as_json(code, 6, f"faceURL {url}")).error()
    assert "://" not in error.message
    assert ".jpg" not in error.message


ENTITY_BOMB = (
    b'<!DOCTYPE b [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>'
    b"<ResponseStatus><statusCode>1</statusCode><subStatusCode>&c;</subStatusCode></ResponseStatus>"
)


def test_an_xml_bomb_is_refused_unopened() -> None:
    answer = parse(200, ENTITY_BOMB)
    assert answer.fields == {}
    assert not answer.ok
    assert type(answer.error()) is AnswerUnexplained


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE r [<!ENTITY x SYSTEM "{}">]>',
        '<!DOCTYPE r [<!ENTITY % x SYSTEM "{}"> %x;]>',
        '<!DOCTYPE r SYSTEM "{}">',
        '<!DOCTYPE r PUBLIC "p" "{}">',
        "<!DOCTYPE r>",
    ],
)
def test_an_xml_that_declares_a_document_type_is_refused(declaration: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    body = f"{declaration.format(secret.as_uri())}<r><statusCode>1</statusCode></r>"
    assert parse(200, body.encode()).fields == {}


def test_the_first_of_several_fields_of_one_name_counts() -> None:
    assert parse(200, b"<r><statusCode>1</statusCode><statusCode>6</statusCode></r>").ok


STATUSES = st.integers(100, 599) | st.sampled_from([200, 400, 401, 403, 404, 500])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.sampled_from(
    [
        "statusCode",
        "subStatusCode",
        "errorMsg",
        "lockStatus",
        "unlockTime",
        "resLockTime",
        "ResponseStatus",
        "userCheck",
    ]
)
VALUES = SCALARS | st.sampled_from(["lock", "locked", "deviceBusy", "9" * 5000, "1_0", "٣", 1, 2])
NEAR_ANSWERS = st.recursive(
    st.dictionaries(KEYS, VALUES), lambda inner: st.dictionaries(KEYS, VALUES | inner)
)
NEAR_XML = st.dictionaries(
    KEYS, st.text(st.characters(exclude_characters="<&", exclude_categories=["Cs", "Cc"]))
).map(lambda d: f"<r>{''.join(f'<{k}>{v}</{k}>' for k, v in d.items())}</r>".encode())


@settings(deadline=None, max_examples=500)
@given(
    STATUSES,
    st.binary()
    | st.binary().map(lambda b: b"<" + b)
    | NEAR_ANSWERS.map(lambda a: json.dumps(a).encode())
    | NEAR_XML,
)
@example(200, b"\xef\xbb\xbf<a/>")
@example(200, b"\xff\xfe<\x00a\x00/\x00>\x00")
@example(401, b'{"lockStatus": "locked", "unlockTime": "-1"}')
def test_any_response_of_a_terminal_is_an_answer_or_a_refused_login(
    http_status: int, body: bytes
) -> None:
    try:
        answer = parse(http_status, body)
    except LoginRefused:
        assert http_status == 401
        return
    assert http_status != 401
    assert isinstance(answer, Answer)
    error = answer.error()
    assert isinstance(error, TerminalError)
    assert error.message.isprintable()
    assert len(error.message) < 400


@asynccontextmanager
async def challenging(challenge: str, username: str = "admin") -> AsyncIterator[TerminalClient]:
    """A terminal that answers everything with this challenge."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\n"
        writer.write(head.encode("latin-1") + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def at_once(_seconds: float) -> AsyncIterator[None]:
        yield

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, http_client() as http:
        port = server.sockets[0].getsockname()[1]
        terminal = Terminal(
            id=UUID(int=1), host="127.0.0.1", port=port, username=username, password="parolă"
        )
        yield client_for(http, terminal, at_once)


@pytest.mark.parametrize(
    "challenge",
    [
        'Digest realm="DS", nonce="n", qop="auth"',
        'Digest realm="DS", nonce="n"',
        'Basic realm="DS"',
        "Digest",
        'Digest realm="DS"',
        'Digest realm="DS", nonce="n", qop="auth-int"',
        'Digest realm="DS", nonce="n", qop="token"',
        'Digest realm="DS", nonce="n", qop="auth", algorithm=SHA3-FOO',
        'Digest realm="DS", nonce="n", stale',
        'Digest realm="DS",, nonce="n"',
        'Digest realm="Ușă"'.encode().decode("latin-1") + ', nonce="n", qop="auth"',
        'Digest realm="é", nonce="ÿ", qop="auth"',
    ],
)
async def test_an_odd_challenge_of_a_terminal_causes_an_error_of_ours(
    challenge: str,
) -> None:
    async with challenging(challenge) as client:
        with pytest.raises((LoginRefused, AnswerUnexplained)):
            await client.calls.device_info()


async def test_a_user_name_with_diacritics_is_tried_like_any_other() -> None:
    async with challenging('Digest realm="DS", nonce="n", qop="auth"', "ștefan") as client:
        with pytest.raises(LoginRefused):
            await client.calls.device_info()
