"""The simulated terminal, asked over real HTTP: it is only worth something if it is strict."""

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal

import httpx
import pytest

from receiver.sandbox.terminal.memory import Sightings
from receiver.sandbox.terminal.simulated import Profile
from tests.support.terminals import (
    CAPABILITIES,
    COUNT,
    DELETE,
    DELETE_PROCESS,
    DEVICE_INFO,
    FACE_DELETE,
    FACE_MODIFY,
    FACE_RECORD,
    FACE_SEARCH,
    FACE_SET_UP,
    JPEG,
    MODIFY,
    NAMESPACE,
    OK,
    PASSWORD,
    RECORD,
    SEARCH,
    SET_UP,
    Client,
    Clock,
    PhotoServer,
    assert_refused,
    deletion,
    digest,
    face,
    person,
    photo_server,
    search,
    switched_on,
    valid,
)


@pytest.fixture(scope="session")
def trust() -> Any:
    """Loading certificates for each client would be most of the time these tests take."""
    return httpx.create_ssl_context(trust_env=False)


@pytest.fixture
async def client(trust: Any) -> AsyncIterator[Client]:
    async with switched_on(trust) as client:
        yield client


@pytest.fixture
async def photos() -> AsyncIterator[PhotoServer]:
    async with photo_server() as server:
        yield server


# --- digest ---------------------------------------------------------------------------------------


async def test_a_request_without_credentials_is_challenged_and_counts_as_nothing(
    client: Client,
) -> None:
    for _ in range(6):
        answer = await client.http.get(client.url(COUNT))
    challenge = answer.headers["www-authenticate"]
    assert answer.status_code == 401
    assert challenge.startswith("Digest ")
    assert 'qop="auth"' in challenge
    assert "<retryLoginTime>5</retryLoginTime>" in answer.text
    assert client.terminal.sightings.failed_logins == 0


async def test_right_credentials_are_let_in(client: Client) -> None:
    answer = await client.ask("GET", COUNT)
    assert answer.json() == {"UserInfoCount": {"userNumber": 0, "bindFaceUserNumber": 0}}
    assert [call.authenticated for call in client.terminal.sightings.calls] == [False, True]


async def test_a_hand_made_digest_is_let_in(client: Client) -> None:
    assert (await client.ask_with(await client.challenge())).status_code == 200


async def test_every_challenge_carries_another_nonce(client: Client) -> None:
    assert (await client.challenge())["nonce"] != (await client.challenge())["nonce"]


@pytest.mark.parametrize("nc", ["00000001", "00000002"])
async def test_a_nonce_is_good_only_once(client: Client, nc: str) -> None:
    challenge = await client.challenge()
    assert (await client.ask_with(challenge)).status_code == 200
    again = await client.ask_with(challenge, nc=nc, cnonce="other")
    assert again.status_code == 401
    assert "www-authenticate" not in again.headers
    assert client.terminal.sightings.failed_logins == 1


async def test_httpx_reusing_its_last_challenge_looks_like_a_wrong_password(client: Client) -> None:
    auth = httpx.DigestAuth("admin", PASSWORD)
    answers = [await client.http.get(client.url(COUNT), auth=auth) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert client.terminal.sightings.failed_logins == 1


async def test_a_nonce_expires(trust: Any) -> None:
    clock = Clock()
    async with switched_on(trust, clock=clock) as client:
        in_time, too_late = await client.challenge(), await client.challenge()
        clock.now += 30
        assert (await client.ask_with(in_time)).status_code == 200
        clock.now += 0.5
        refused = await client.ask_with(too_late)
        assert refused.status_code == 401
        assert "www-authenticate" not in refused.headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "f" * 32},
        {"nc": "00000002"},
        {"nc": "1"},
        {"cnonce": ""},
        {"uri": "/ISAPI/AccessControl/UserInfo/Count"},
        {"username": "Admin"},
        {"realm": "elsewhere"},
        {"opaque": "0"},
        {"qop": "auth-int"},
        {"algorithm": "SHA-256"},
        {"response": "0" * 32},
        {"password": "parola"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_digest_that_is_wrong_in_one_place_is_a_failed_login(
    client: Client, wrong: dict[str, str]
) -> None:
    answer = await client.ask_with(await client.challenge(), **wrong)
    assert answer.status_code == 401
    assert client.terminal.sightings.failed_logins == 1
    assert "<retryLoginTime>4</retryLoginTime>" in answer.text


async def test_the_uri_must_be_the_target_even_when_the_hash_is_right(client: Client) -> None:
    authorization = digest(await client.challenge())
    elsewhere = authorization.replace(f'uri="{COUNT}"', f'uri="{CAPABILITIES}"')
    assert elsewhere != authorization
    answer = await client.http.get(client.url(COUNT), headers={"Authorization": elsewhere})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "header", ["Basic YWRtaW46eA==", "Digest", "Digest nonsense", 'Digest a="']
)
async def test_malformed_credentials_are_a_failed_login(client: Client, header: str) -> None:
    answer = await client.http.get(client.url(COUNT), headers={"Authorization": header})
    assert answer.status_code == 401
    assert client.terminal.sightings.failed_logins == 1


async def test_the_fifth_failure_in_a_row_locks_the_account_even_for_the_right_password(
    trust: Any,
) -> None:
    clock = Clock()
    async with switched_on(trust, clock=clock) as client:
        for _ in range(4):
            answer = await client.ask("GET", COUNT, password="parola")
            assert "<lockStatus>unlock</lockStatus>" in answer.text
        answer = await client.ask("GET", COUNT, password="parola")
        assert "<lockStatus>lock</lockStatus>" in answer.text
        answer = await client.ask("GET", COUNT)
        assert answer.status_code == 401
        assert "<unlockTime>1800</unlockTime>" in answer.text
        clock.now += 1800
        assert (await client.ask("GET", COUNT)).status_code == 200
        assert client.terminal.sightings.failed_logins == 6


async def test_a_success_forgives_the_failures_before_it(client: Client) -> None:
    for password in ["parola"] * 4 + [PASSWORD] + ["parola"] * 4 + [PASSWORD]:
        answer = await client.ask("GET", COUNT, password=password)
    assert answer.status_code == 200


# --- paths and bodies -----------------------------------------------------------------------------


async def test_an_unknown_path_is_404_with_a_page(client: Client) -> None:
    answer = await client.ask("GET", "/ISAPI/Nothing?format=json")
    assert (answer.status_code, answer.headers["content-type"][:9]) == (404, "text/html")
    assert client.terminal.sightings.calls[-1].sub_status is None


async def test_a_wrong_method_is_405(client: Client) -> None:
    assert_refused(await client.ask("PUT", RECORD, person()), "methodNotAllowed", http=405)


async def test_format_json_must_be_asked_for(client: Client) -> None:
    assert_refused(await client.ask("POST", RECORD.partition("?")[0], person()), "badURLFormat")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_refused(client: Client, body: bytes) -> None:
    answer = await client.http.post(
        client.url(RECORD), content=body, auth=httpx.DigestAuth("admin", PASSWORD)
    )
    assert_refused(answer, "badJsonFormat")


async def test_device_info_is_xml_even_when_json_is_asked_for(client: Client) -> None:
    answer = await client.ask("GET", f"{DEVICE_INFO}?format=json")
    root = ET.fromstring(answer.text)  # noqa: S314 - our own terminal's answer
    assert root.tag == f"{NAMESPACE}DeviceInfo"
    assert root.findtext(f"{NAMESPACE}model") == "DS-K1T342MFWX-E1"


async def test_an_xml_firmware_answers_status_as_xml_and_documents_as_json(trust: Any) -> None:
    async with switched_on(trust, Profile(answers="xml")) as client:
        added = await client.ask("POST", RECORD, person())
        again = await client.ask("POST", RECORD, person())
        assert (added.status_code, again.status_code) == (200, 400)
        for answer, code, sub_status in [
            (added, "1", "ok"),
            (again, "6", "employeeNoAlreadyExist"),
        ]:
            root = ET.fromstring(answer.text)  # noqa: S314 - our own terminal's answer
            assert root.tag == f"{NAMESPACE}ResponseStatus"
            assert root.findtext(f"{NAMESPACE}statusCode") == code
            assert root.findtext(f"{NAMESPACE}subStatusCode") == sub_status
        count = (await client.ask("GET", COUNT)).json()
        assert count["UserInfoCount"]["userNumber"] == 1


@pytest.mark.parametrize("busy_http", [503, 200])
async def test_each_nth_write_finds_the_terminal_busy_and_changes_nothing(
    trust: Any, busy_http: Literal[200, 503]
) -> None:
    async with switched_on(trust, Profile(busy_every=2, busy_http=busy_http)) as client:
        await client.add("1001")
        await client.ask("GET", COUNT)
        busy = await client.ask("POST", RECORD, person("1002"))
        assert assert_refused(busy, "deviceBusy", http=busy_http)["statusCode"] == 2
        await client.add("1003")
        assert list(client.terminal.persons) == ["1001", "1003"]


# --- persons --------------------------------------------------------------------------------------


async def test_a_recorded_person_is_held(client: Client) -> None:
    await client.add(name="Țuțea-Ștefănescu Ană")
    kept = client.terminal.persons["1001"]
    assert client.terminal.holds() == {"1001": ("Țuțea-Ștefănescu Ană", None)}
    assert (kept.begin, kept.end) == (datetime(2020, 1, 1), datetime(2037, 12, 31, 23, 59, 59))  # noqa: DTZ001
    assert (kept.enabled, kept.user_type, kept.door_right) == (True, "normal", "1")
    assert kept.right_plan == [{"doorNo": 1, "planTemplateNo": "1"}]
    assert client.terminal.sightings.unknown_fields == []
    assert list(client.terminal.sightings.bodies) == [person(name="Țuțea-Ștefănescu Ană")]
    assert client.terminal.sightings.calls[-1].employee_no == "1001"


async def test_record_refuses_a_person_who_is_there(client: Client) -> None:
    await client.add()
    status = assert_refused(
        await client.ask("POST", RECORD, person(name="X")), "employeeNoAlreadyExist"
    )
    assert status == {
        "statusCode": 6,
        "statusString": "Invalid Content",
        "subStatusCode": "employeeNoAlreadyExist",
        "errorCode": 1610637344,
        "errorMsg": "checkUser",
    }
    assert client.terminal.holds() == {"1001": ("Popescu Ion", None)}


async def test_modify_edits_a_person_who_is_there_and_adds_one_only_when_told_to(
    client: Client,
) -> None:
    assert_refused(await client.ask("PUT", MODIFY, person()), "employeeNoNotExist")
    assert (await client.ask("PUT", MODIFY, person(addUser=True))).json() == OK
    renamed = {"UserInfo": {"employeeNo": "1001", "name": "Popescu Ioan"}}
    assert (await client.ask("PUT", MODIFY, renamed)).json() == OK
    assert client.terminal.holds() == {"1001": ("Popescu Ioan", None)}
    assert client.terminal.persons["1001"].door_right == "1"


async def test_set_up_adds_and_edits_and_keeps_the_face(
    client: Client, photos: PhotoServer
) -> None:
    assert (await client.ask("PUT", SET_UP, person())).json() == OK
    await client.ask("PUT", FACE_SET_UP, face(photos.url()))
    assert (await client.ask("PUT", SET_UP, person(name="Popescu Ioan"))).json() == OK
    assert client.terminal.holds() == {"1001": ("Popescu Ioan", photos.url())}


async def test_modify_with_the_result_of_a_search_is_answered_ok_and_not_applied(
    client: Client,
) -> None:
    await client.add()
    found = (await client.ask("POST", SEARCH, search())).json()
    user_info = found["UserInfoSearch"]["UserInfo"][0] | {"name": "Popescu Ioan"}
    assert (await client.ask("PUT", MODIFY, {"UserInfo": user_info})).json() == OK
    assert client.terminal.holds() == {"1001": ("Popescu Ion", None)}
    assert "UserInfo.numOfFace" in client.terminal.sightings.unknown_fields


@pytest.mark.parametrize(
    ("fields", "sub_status", "error_msg"),
    [
        ({"employeeNo": 1001}, "badJsonContent", "employeeNo"),
        ({"employeeNo": ...}, "MessageParametersLack", "employeeNo"),
        ({"employeeNo": ""}, "illegalEmployeeNo", "employeeNo"),
        ({"employeeNo": "1" * 33}, "illegalEmployeeNo", "employeeNo"),
        ({"name": ...}, "MessageParametersLack", "name"),
        ({"name": None}, "badJsonContent", "name"),
        ({"name": "ș" * 64 + "a"}, "badParameters", "name"),
        ({"name": "\ud800"}, "badJsonContent", "name"),
        ({"userType": ...}, "MessageParametersLack", "userType"),
        ({"userType": "Normal"}, "badParameters", "userType"),
        ({"doorRight": 1}, "badJsonContent", "doorRight"),
        ({"doorRight": "1;2"}, "badJsonContent", "doorRight"),
        ({"RightPlan": {"doorNo": 1}}, "badJsonContent", "RightPlan"),
        ({"RightPlan": [1]}, "badJsonContent", "RightPlan"),
        ({"RightPlan": [{"planTemplateNo": "1"}]}, "MessageParametersLack", "doorNo"),
        ({"RightPlan": [{"doorNo": "1"}]}, "badJsonContent", "doorNo"),
        (
            {"RightPlan": [{"doorNo": 1, "planTemplateNo": 1}]},
            "badJsonContent",
            "planTemplateNo",
        ),
        ({"localUIRight": "false"}, "badJsonContent", "localUIRight"),
        ({"Valid": ...}, "MessageParametersLack", "Valid"),
        ({"Valid": "always"}, "badJsonContent", "Valid"),
        ({"Valid": valid(enable="true")}, "badJsonContent", "enable"),
        ({"Valid": valid("2020-01-01")}, "badJsonContent", "beginTime"),
        ({"Valid": valid("2020-13-01T00:00:00")}, "badJsonContent", "beginTime"),
        ({"Valid": valid(end="2030-01-01T00:00:00Z")}, "badJsonContent", "endTime"),
        ({"Valid": valid("1969-12-31T23:59:59")}, "badJsonContent", "beginTime and endTime"),
        ({"Valid": valid(end="2038-01-01T00:00:00")}, "badJsonContent", "beginTime and endTime"),
        (
            {"Valid": valid("2030-01-01T00:00:00", "2030-01-01T00:00:00")},
            "endtimeEarlierThanBegintime",
            "endtimeEarlierThanBegintime",
        ),
    ],
    ids=str,
)
async def test_a_person_who_is_not_as_documented_is_refused(
    client: Client, fields: dict[str, object], sub_status: str, error_msg: str
) -> None:
    # httpx spells non-ASCII as itself, and half a surrogate pair can only be escaped
    answer = await client.http.post(
        client.url(RECORD),
        content=json.dumps(person(**fields)),
        auth=httpx.DigestAuth("admin", PASSWORD),
    )
    assert assert_refused(answer, sub_status)["errorMsg"] == error_msg
    assert client.terminal.persons == {}


async def test_unknown_fields_are_noticed_and_not_refused(client: Client) -> None:
    await client.add(
        RightPlan=[{"doorNo": 1, "plamTemplateNo": "1"}], Valid=valid() | {"begin": 1}, colour="red"
    )
    assert client.terminal.sightings.unknown_fields == [
        "UserInfo.colour",
        "UserInfo.Valid.begin",
        "UserInfo.RightPlan.plamTemplateNo",
    ]
    assert client.terminal.persons["1001"].right_plan == [{"doorNo": 1}]


async def test_a_firmware_with_short_names_says_so_and_refuses_longer_ones(trust: Any) -> None:
    async with switched_on(trust, Profile(name_bytes=32, max_persons=7)) as client:
        capabilities = (await client.ask("GET", CAPABILITIES)).json()["UserInfo"]
        assert capabilities["name"] == {"@min": 0, "@max": 32}
        assert capabilities["maxRecordNum"] == 7
        await client.add(name="ș" * 16)
        longer = await client.ask("PUT", SET_UP, person(name="ș" * 16 + "a"))
        assert_refused(longer, "badParameters")
        assert client.terminal.holds() == {"1001": ("ș" * 16, None)}


async def test_a_full_terminal_takes_no_more_persons_but_still_edits(trust: Any) -> None:
    async with switched_on(trust, Profile(max_persons=1)) as client:
        await client.add("1001")
        assert_refused(await client.ask("PUT", SET_UP, person("1002")), "deviceUserFull")
        assert (await client.ask("PUT", SET_UP, person("1001", name="X"))).json() == OK


async def test_search_pages_through_everybody(client: Client) -> None:
    for number in ("1001", "1002", "1003"):
        await client.add(number)
    first = (await client.ask("POST", SEARCH, search(0, 2))).json()["UserInfoSearch"]
    last = (await client.ask("POST", SEARCH, search(2, 2))).json()["UserInfoSearch"]
    beyond = (await client.ask("POST", SEARCH, search(3, 2))).json()["UserInfoSearch"]
    assert [p["employeeNo"] for p in first["UserInfo"] + last["UserInfo"]] == [
        "1001",
        "1002",
        "1003",
    ]
    assert (first["responseStatusStrg"], first["numOfMatches"], first["totalMatches"]) == (
        "MORE",
        2,
        3,
    )
    assert (last["responseStatusStrg"], last["numOfMatches"]) == ("OK", 1)
    assert beyond["responseStatusStrg"] == "NO MATCH"
    assert client.terminal.sightings.bodies.maxlen == 1000


async def test_search_finds_the_person_as_recorded_with_the_face(
    client: Client, photos: PhotoServer
) -> None:
    await client.add("1001")
    await client.add("1002")
    await client.ask("POST", FACE_RECORD, face(photos.url(), "1002"))
    answer = await client.ask("POST", SEARCH, search(0, 30, "1002"))
    (found,) = answer.json()["UserInfoSearch"]["UserInfo"]
    assert found["numOfFace"] == 1
    assert found["faceURL"].startswith(client.url("/"))
    assert person("1002")["UserInfo"].items() <= found.items()


async def test_no_match_has_no_user_info_key(client: Client) -> None:
    answer = await client.ask("POST", SEARCH, search(0, 30, "1001"))
    assert answer.json() == {
        "UserInfoSearch": {
            "searchID": "x",
            "responseStatusStrg": "NO MATCH",
            "numOfMatches": 0,
            "totalMatches": 0,
        }
    }


@pytest.mark.parametrize(("position", "size"), [(0, 31), (0, 0), (-1, 30)])
async def test_search_refuses_a_page_it_cannot_give(
    client: Client, position: int, size: int
) -> None:
    assert_refused(await client.ask("POST", SEARCH, search(position, size)), "badParameters")


async def test_search_refuses_numbers_for_employee_numbers(client: Client) -> None:
    body = search()
    body["UserInfoSearchCond"]["EmployeeNoList"] = [{"employeeNo": 1001}]
    assert_refused(await client.ask("POST", SEARCH, body), "badJsonContent")


async def test_valid_disabled_is_permanent_validity(client: Client) -> None:
    elapsed = valid("2020-01-01T00:00:00", "2021-01-01T00:00:00")
    await client.add("1001", Valid=elapsed)
    await client.add("1002", Valid=elapsed | {"enable": False})
    inside, after = datetime(2020, 6, 1), datetime(2025, 6, 1)  # noqa: DTZ001 - the device's clock
    assert client.terminal.may_pass("1001", inside)
    assert not client.terminal.may_pass("1001", after)
    assert not client.terminal.may_pass("1001", after.astimezone())
    assert client.terminal.may_pass("1002", after)
    assert not client.terminal.may_pass("1003", inside)


async def until_deleted(client: Client) -> str:
    while True:
        answer = (await client.ask("GET", DELETE_PROCESS)).json()
        status: str = answer["UserInfoDetailDeleteProcess"]["status"]
        if status != "processing":
            return status
        await asyncio.sleep(0.01)


async def test_deleting_takes_a_while_and_takes_the_face_too(
    trust: Any, photos: PhotoServer
) -> None:
    async with switched_on(trust, Profile(deletion_s=0.3)) as client:
        await client.add("1001")
        await client.add("1002")
        await client.ask("POST", FACE_RECORD, face(photos.url()))
        assert (await client.ask("PUT", DELETE, deletion("1001", "9999"))).json() == OK
        assert "1001" in client.terminal.persons
        assert_refused(await client.ask("PUT", DELETE, deletion("1002")), "deviceBusy", http=503)
        assert await until_deleted(client) == "success"
        assert list(client.terminal.persons) == ["1002"]
        assert client.terminal.sightings.deletions_of_everybody == 0
        await client.add("1001")
        assert client.terminal.persons["1001"].face is None


@pytest.mark.parametrize("rest", [{}, {"EmployeeNoList": []}])
async def test_a_delete_without_a_list_deletes_everybody(
    client: Client, rest: dict[str, object]
) -> None:
    await client.add("1001")
    await client.add("1002")
    body = {"UserInfoDetail": {"mode": "byEmployeeNo"} | rest}
    assert (await client.ask("PUT", DELETE, body)).json() == OK
    assert await until_deleted(client) == "success"
    assert client.terminal.persons == {}
    assert client.terminal.sightings.deletions_of_everybody == 1


@pytest.mark.parametrize(
    ("body", "sub_status"),
    [
        ({"UserInfoDetail": {"EmployeeNoList": []}}, "MessageParametersLack"),
        ({"UserInfoDetail": {"mode": "byName"}}, "badParameters"),
        (
            {"UserInfoDetail": {"mode": "byEmployeeNo", "EmployeeNoList": [{"employeeNo": 1}]}},
            "badJsonContent",
        ),
        ({}, "MessageParametersLack"),
    ],
)
async def test_a_malformed_delete_deletes_nobody(
    client: Client, body: dict[str, object], sub_status: str
) -> None:
    await client.add()
    assert_refused(await client.ask("PUT", DELETE, body), sub_status)
    assert await until_deleted(client) == "success"
    assert "1001" in client.terminal.persons


# --- faces ----------------------------------------------------------------------------------------


async def test_the_terminal_fetches_the_photo_itself(client: Client, photos: PhotoServer) -> None:
    await client.add()
    assert (await client.ask("POST", FACE_RECORD, face(photos.url()))).json() == OK
    kept = client.terminal.persons["1001"].face
    assert kept is not None
    assert (kept.url, kept.size, kept.replaced) == (photos.url(), len(JPEG), 0)
    assert kept.sha256 == hashlib.sha256(JPEG).hexdigest()
    assert (await client.ask("GET", COUNT)).json()["UserInfoCount"]["bindFaceUserNumber"] == 1


async def test_face_data_record_only_adds(client: Client, photos: PhotoServer) -> None:
    await client.add()
    await client.ask("POST", FACE_RECORD, face(photos.url()))
    again = await client.ask("POST", FACE_RECORD, face(photos.url("/ion-2.png")))
    assert assert_refused(again, "deviceUserAlreadyExistFace")["errorCode"] == 0x60007004
    assert client.terminal.holds() == {"1001": ("Popescu Ion", photos.url())}


async def test_fd_set_up_adds_and_overwrites(client: Client, photos: PhotoServer) -> None:
    await client.add()
    for path in ("/ion.jpg", "/ion-2.png"):
        assert (await client.ask("PUT", FACE_SET_UP, face(photos.url(path)))).json() == OK
    kept = client.terminal.persons["1001"].face
    assert kept is not None
    assert (kept.url, kept.replaced) == (photos.url("/ion-2.png"), 1)


async def test_fd_modify_only_overwrites(client: Client, photos: PhotoServer) -> None:
    await client.add()
    new = face(photos.url("/ion-2.png"))
    assert_refused(await client.ask("PUT", FACE_MODIFY, new), "deleteNoExistFace")
    await client.ask("POST", FACE_RECORD, face(photos.url()))
    assert (await client.ask("PUT", FACE_MODIFY, new)).json() == OK
    assert client.terminal.holds() == {"1001": ("Popescu Ion", photos.url("/ion-2.png"))}


async def test_a_firmware_without_fd_set_up_does_not_know_the_path(
    trust: Any, photos: PhotoServer
) -> None:
    async with switched_on(trust, Profile(has_fd_setup=False)) as client:
        await client.add()
        answer = await client.ask("PUT", FACE_SET_UP, face(photos.url()))
        assert answer.status_code == 404


async def test_a_face_needs_its_person_first(client: Client, photos: PhotoServer) -> None:
    for method, target in [
        ("POST", FACE_RECORD),
        ("PUT", FACE_SET_UP),
        ("PUT", FACE_MODIFY),
    ]:
        answer = await client.ask(method, target, face(photos.url()))
        assert_refused(answer, "deviceUserNotExist")
    assert photos.asked == []


async def test_a_wrapped_face_data_record_is_rejected(client: Client, photos: PhotoServer) -> None:
    await client.add()
    answer = await client.ask("POST", FACE_RECORD, {"FaceDataRecord": face(photos.url())})
    assert assert_refused(answer, "badJsonContent")["errorMsg"] == "faceLibType"


@pytest.mark.parametrize(
    ("fields", "sub_status", "error_msg"),
    [
        ({"FPID": 1001}, "badJsonContent", "FPID"),
        ({"FPID": ...}, "MessageParametersLack", "FPID"),
        ({"FPID": ""}, "illegalEmployeeNo", "FPID"),
        ({"FPID": "1" * 64}, "illegalEmployeeNo", "FPID"),
        ({"FDID": 1}, "badJsonContent", "FDID"),
        ({"FDID": "2"}, "faceLibraryIDError", "FDID"),
        ({"faceLibType": "whiteFD"}, "badParameters", "faceLibType"),
        ({"faceLibType": ...}, "MessageParametersLack", "faceLibType"),
        ({"faceURL": ...}, "MessageParametersLack", "faceURL"),
        ({"faceURL": "http://127.0.0.1/" + "a" * 240}, "badJsonContent", "faceURL"),
        ({"faceURL": "ftp://127.0.0.1/ion.jpg"}, "urlDownloadFail", "faceURL"),
        ({"faceURL": "http://["}, "urlDownloadFail", "faceURL"),
    ],
    ids=str,
)
async def test_a_face_that_is_not_as_documented_is_refused(
    client: Client, fields: dict[str, Any], sub_status: str, error_msg: str
) -> None:
    await client.add()
    body = face("http://127.0.0.1:9/ion.jpg") | fields
    body = {key: value for key, value in body.items() if value is not ...}
    answer = await client.ask("PUT", FACE_SET_UP, body)
    assert assert_refused(answer, sub_status)["errorMsg"] == error_msg
    assert client.terminal.persons["1001"].face is None


@pytest.mark.parametrize(
    ("path", "picture", "sub_status"),
    [
        ("/absent.jpg", None, "urlDownloadFail"),
        ("/moved.jpg", None, "urlDownloadFail"),
        ("/page.jpg", b"<html>" + bytes(2000), "picFormatError"),
        ("/huge.jpg", JPEG + bytes(200 * 1024), "picSizeExceedError"),
        ("/endless.jpg", JPEG + bytes(10 * 1024 * 1024), "urlDownloadFail"),
        ("/tiny.jpg", JPEG[:299], "faceDataLenShort"),
    ],
)
async def test_a_useless_photo_is_refused_and_the_old_one_stays(
    client: Client, photos: PhotoServer, path: str, picture: bytes | None, sub_status: str
) -> None:
    if picture is not None:
        photos.pictures[path] = picture
    await client.add()
    await client.ask("PUT", FACE_SET_UP, face(photos.url()))
    answer = await client.ask("PUT", FACE_SET_UP, face(photos.url(path)))
    assert_refused(answer, sub_status)
    assert client.terminal.holds() == {"1001": ("Popescu Ion", photos.url())}


async def test_a_photo_server_that_is_off_is_a_failed_download(client: Client) -> None:
    await client.add()
    answer = await client.ask("PUT", FACE_SET_UP, face("http://127.0.0.1:9/ion.jpg"))
    assert assert_refused(answer, "urlDownloadFail")["errorCode"] == 0x6000006E


async def test_a_terminal_that_cannot_reach_photos_does_not_try(
    trust: Any, photos: PhotoServer
) -> None:
    async with switched_on(trust, Profile(downloads_photos=False)) as client:
        await client.add()
        answer = await client.ask("PUT", FACE_SET_UP, face(photos.url()))
        assert_refused(answer, "urlDownloadFail")
        assert photos.asked == []


async def test_fd_search_finds_the_face_of_one_person(client: Client, photos: PhotoServer) -> None:
    await client.add("1001")
    await client.add("1002")
    await client.ask("PUT", FACE_SET_UP, face(photos.url()))
    cond = {"searchResultPosition": 0, "maxResults": 1, "faceLibType": "blackFD", "FDID": "1"}
    there = (await client.ask("POST", FACE_SEARCH, cond | {"FPID": "1001"})).json()
    absent = (await client.ask("POST", FACE_SEARCH, cond | {"FPID": "1002"})).json()
    assert there == OK | {
        "responseStatusStrg": "OK",
        "numOfMatches": 1,
        "totalMatches": 1,
        "MatchList": [{"FPID": "1001", "faceURL": photos.url()}],
    }
    assert absent == OK | {
        "responseStatusStrg": "NO MATCH",
        "numOfMatches": 0,
        "totalMatches": 0,
    }


async def test_a_face_is_deleted_and_the_person_stays(client: Client, photos: PhotoServer) -> None:
    await client.add()
    await client.ask("PUT", FACE_SET_UP, face(photos.url()))
    body = {"FPID": [{"value": "1001"}]}
    assert (await client.ask("PUT", FACE_DELETE, body)).json() == OK
    assert client.terminal.holds() == {"1001": ("Popescu Ion", None)}
    assert_refused(await client.ask("PUT", FACE_DELETE, body), "deleteNoExistFace")
    assert_refused(await client.ask("PUT", FACE_DELETE, {"FPID": []}), "MessageParametersLack")
    elsewhere = FACE_DELETE.replace("FDID=1", "FDID=2")
    assert_refused(await client.ask("PUT", elsewhere, body), "faceLibraryIDError")


# --- what it notices ------------------------------------------------------------------------------


async def test_calls_one_after_another_do_not_overlap(client: Client) -> None:
    for _ in range(5):
        await client.ask("GET", COUNT)
    sightings = client.terminal.sightings
    assert (sightings.overlapping_calls, sightings.calls_too_close) == (0, 0)


async def test_calls_at_the_same_time_are_noticed(trust: Any) -> None:
    async with switched_on(trust, Profile(delay_s=0.05)) as client:
        await asyncio.gather(client.ask("GET", COUNT), client.ask("GET", COUNT))
        assert client.terminal.sightings.overlapping_calls == 1


async def test_a_call_runs_to_its_end_when_its_client_has_gone_and_overlaps_the_next(
    trust: Any,
) -> None:
    async with switched_on(trust, Profile(delay_s=0.15)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.http.post(
                client.url(RECORD),
                json=person(),
                auth=httpx.DigestAuth("admin", PASSWORD),
                timeout=0.05,
            )
        assert client.terminal.persons == {}
        answer = await client.ask("GET", COUNT)
        assert answer.json()["UserInfoCount"]["userNumber"] == 1
        assert client.terminal.sightings.overlapping_calls == 1


async def test_a_pause_that_is_too_short_is_noticed(trust: Any) -> None:
    async with switched_on(trust, min_pause_s=0.2) as client:
        await client.ask("GET", COUNT)
        await client.ask("GET", COUNT)
        assert client.terminal.sightings.calls_too_close == 1
        await asyncio.sleep(0.2)
        await client.ask("GET", COUNT)
        assert client.terminal.sightings.calls_too_close == 1


def test_a_pause_begins_when_the_client_may_know_the_answer_or_else_at_the_end() -> None:
    sightings = Sightings(min_pause_s=1.0)
    sightings.authenticated_call_begins(0.0)
    sightings.authenticated_call_answered(2.0)
    sightings.authenticated_call_ends(2.6)  # the terminal was delayed after it had sent the answer
    sightings.authenticated_call_begins(3.0)
    assert sightings.calls_too_close == 0
    sightings.authenticated_call_ends(3.5)  # cut off, without an answer
    sightings.authenticated_call_begins(4.0)
    assert sightings.calls_too_close == 1


async def test_a_face_takes_longer_than_a_person(trust: Any, photos: PhotoServer) -> None:
    async with switched_on(trust, Profile(face_delay_s=0.05)) as client:
        await client.add()
        await client.ask("PUT", FACE_SET_UP, face(photos.url()))
        calls = [call for call in client.terminal.sightings.calls if call.authenticated]
        assert [call.ended - call.started >= 0.05 for call in calls] == [False, True]


# --- power ----------------------------------------------------------------------------------------


async def test_a_terminal_that_is_off_refuses_connections_and_remembers(client: Client) -> None:
    await client.add()
    port = client.terminal.port
    await client.terminal.switch_off()
    with pytest.raises(httpx.ConnectError):
        await client.ask("GET", COUNT)
    await client.terminal.switch_on()
    assert client.terminal.port == port
    answer = await client.ask("GET", COUNT)
    assert answer.json()["UserInfoCount"]["userNumber"] == 1


async def test_a_power_cut_breaks_the_call_in_progress_without_effect(
    trust: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with switched_on(trust, Profile(delay_s=30)) as client:
        call = asyncio.create_task(client.ask("POST", RECORD, person()))
        await asyncio.sleep(0.05)
        await client.terminal.switch_off()
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            await call
        assert [call.status for call in client.terminal.sightings.calls] == [401]
        assert client.terminal.persons == {}
        assert caplog.records == []


async def test_a_power_cut_fails_the_deletion_in_progress(trust: Any) -> None:
    async with switched_on(trust, Profile(deletion_s=30)) as client:
        await client.add()
        await client.ask("PUT", DELETE, deletion("1001"))
        await client.terminal.switch_off()
        await client.terminal.switch_on()
        assert await until_deleted(client) == "failed"
        assert "1001" in client.terminal.persons


async def test_a_hanging_terminal_accepts_and_does_not_answer_until_it_recovers(
    client: Client,
) -> None:
    await client.terminal.hang()
    call = asyncio.create_task(client.ask("POST", RECORD, person()))
    await asyncio.sleep(0.05)
    assert not call.done()
    assert client.terminal.persons == {}
    await client.terminal.unhang()
    assert (await call).json() == OK


async def test_a_hanging_terminal_is_stopped_all_the_same(trust: Any) -> None:
    async with switched_on(trust) as client:
        await client.terminal.hang()
        call = asyncio.create_task(client.ask("GET", COUNT))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(1):
            await client.terminal.stop()
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            await call


async def test_a_stopped_terminal_gives_its_port_back(trust: Any) -> None:
    async with switched_on(trust) as client:
        await client.ask("GET", COUNT)
        await client.terminal.stop()
        with socket.create_server((client.terminal.host, client.terminal.port)):
            pass


def test_the_simulated_terminal_shares_no_code_with_the_client() -> None:
    script = (
        "import sys, receiver.sandbox.terminal;"
        "print([m for m in sys.modules if m.startswith('receiver.')"
        " and not m.startswith('receiver.sandbox')])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
