"""Terminals of every profile, asked over real HTTP: each habit must show in an answer."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from receiver.sandbox.portraits import likeness, portrait
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Profile
from tests.support.pictures import changed, lying_on_its_side, plain
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
    OK,
    PASSWORD,
    PNG,
    RECORD,
    SEARCH,
    SET_UP,
    Client,
    Clock,
    PhotoServer,
    assert_refused,
    deletion,
    face,
    person,
    photo_server,
    search,
    switched_on,
    valid,
)

FD_CAPABILITIES = "/ISAPI/Intelligent/FDLib/capabilities?format=json"
DELETE_NOW = "/ISAPI/AccessControl/UserInfo/Delete?format=json"
FD_DELETE = "/ISAPI/Intelligent/FDLib/FDDelete?format=json&FDID=1&faceLibType=blackFD"
VER10 = "{http://www.hikvision.com/ver10/XMLSchema}"

Switch = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture(scope="module")
def trust() -> Any:
    return httpx.create_ssl_context(trust_env=False)


@pytest.fixture
def on_wall(trust: Any) -> Switch:
    """Switch a terminal on, by the name of its profile or with one of its own."""

    def switch(
        profile: str | Profile = "modern", **options: Any
    ) -> AbstractAsyncContextManager[Client]:
        known = PROFILES[profile] if isinstance(profile, str) else profile
        return switched_on(trust, known, **options)

    return switch


@pytest.fixture
async def photos() -> AsyncIterator[PhotoServer]:
    async with photo_server() as server:
        yield server


RECORD_PART = {"faceLibType": "blackFD", "FDID": "1", "FPID": "1001"}
Parts = list[tuple[str, tuple[str | None, bytes, str]]]


def form(
    picture: bytes = JPEG,
    record: object = RECORD_PART,
    *,
    names: tuple[str, str] = ("FaceDataRecord", "img"),
) -> Parts:
    """The two parts of an upload, as terminals/README.md, Calls has them."""
    return [
        (names[0], (None, json.dumps(record).encode(), "application/json")),
        (names[1], ("1001.jpg", picture, "image/jpeg")),
    ]


async def upload(
    client: Client, parts: Parts, *, method: str = "PUT", target: str = FACE_SET_UP
) -> httpx.Response:
    return await client.http.request(
        method, client.url(target), files=parts, auth=httpx.DigestAuth("admin", PASSWORD)
    )


def xml(answer: httpx.Response) -> ET.Element:
    return ET.fromstring(answer.content)  # noqa: S314 - our own terminal's answer


# --- profiles -------------------------------------------------------------------------------------


def test_every_profile_is_known_by_its_own_name() -> None:
    assert {name: profile.name for name, profile in PROFILES.items()} == {n: n for n in PROFILES}
    assert len({replace(profile, name="") for profile in PROFILES.values()}) == len(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
async def test_every_terminal_says_what_it_is_and_takes_a_person(
    on_wall: Switch, name: str
) -> None:
    async with on_wall(name) as client:
        info = xml(await client.ask("GET", DEVICE_INFO))
        said = {child.tag.rpartition("}")[2]: child.text for child in info}
        assert said == {
            "deviceName": name,
            "model": PROFILES[name].model,
            "serialNumber": f"SIMULATED{client.terminal.port}",
            "firmwareVersion": PROFILES[name].firmware,
        }
        answer = await client.ask("POST", RECORD, person())
        assert answer.status_code == 200
        assert list(client.terminal.persons) == ["1001"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limit"), [("modern", 128), ("names_32", 32), ("cuts_names", 32)])
async def test_capabilities_say_how_long_a_name_may_be(
    on_wall: Switch, name: str, limit: int
) -> None:
    async with on_wall(name) as client:
        capabilities = (await client.ask("GET", CAPABILITIES)).json()["UserInfo"]
        assert capabilities["name"]["@max"] == limit


async def test_a_long_name_is_refused_by_one_terminal_and_cut_by_another(on_wall: Switch) -> None:
    name = "a" + "ș" * 16  # 33 bytes, and the 32nd is in the middle of a letter
    async with on_wall("names_32") as client:
        assert_refused(await client.ask("POST", RECORD, person(name=name)), "badParameters")
        assert client.terminal.persons == {}
    async with on_wall("cuts_names") as client:
        assert (await client.ask("POST", RECORD, person(name=name))).json() == OK
        assert client.terminal.holds() == {"1001": ("a" + "ș" * 15, None)}


# --- missing calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switch", "method", "target"),
    [
        ({"has_set_up": False}, "PUT", SET_UP),
        ({"has_search": False}, "POST", SEARCH),
        ({"has_fd_setup": False}, "PUT", FACE_SET_UP),
        ({"has_fd_modify": False}, "PUT", FACE_MODIFY),
        ({"has_capabilities": False}, "GET", CAPABILITIES),
        ({"has_capabilities": False}, "GET", FD_CAPABILITIES),
        ({"has_user_info_detail": False}, "PUT", DELETE),
        ({"has_user_info_detail": False}, "GET", DELETE_PROCESS),
        ({"has_fd_search_delete": False}, "PUT", FACE_DELETE),
        ({}, "PUT", FD_DELETE),
    ],
    ids=str,
)
async def test_a_call_that_a_firmware_lacks_is_not_there(
    on_wall: Switch, switch: dict[str, Any], method: str, target: str
) -> None:
    async with on_wall(Profile(**switch)) as client:
        assert (await client.ask(method, target, {})).status_code == 404
        client.terminal.upgrade(Profile(has_fd_search_delete=target != FD_DELETE))
        assert (await client.ask(method, target, {})).status_code in (200, 400)


async def test_a_call_that_is_not_there_is_answered_in_one_of_three_ways(on_wall: Switch) -> None:
    async with on_wall(Profile(has_search=False, missing="404")) as client:
        page = await client.ask("POST", SEARCH, search())
        client.terminal.upgrade(Profile(has_search=False, missing="405"))
        empty = await client.ask("POST", SEARCH, search())
        client.terminal.upgrade(Profile(has_search=False, missing="403"))
        refused = await client.ask("POST", SEARCH, search())
    assert (page.status_code, "Access Error" in page.text) == (404, True)
    assert page.headers["content-type"].startswith("text/html")
    assert (empty.status_code, empty.content) == (405, b"")
    assert assert_refused(refused, "notSupport", http=403)["statusCode"] == 4


async def test_a_firmware_without_upserts_says_so_in_its_capabilities(on_wall: Switch) -> None:
    for name, functions, fd_functions in [
        ("modern", "post,delete,put,get,setUp", "post,delete,put,get,setUp"),
        ("no_upsert_no_search", "post,delete,put,get", "post,delete,put,get"),
    ]:
        async with on_wall(name) as client:
            persons = (await client.ask("GET", CAPABILITIES)).json()["UserInfo"]
            faces = (await client.ask("GET", FD_CAPABILITIES)).json()
            assert persons["supportFunction"] == {"@opt": functions}
            assert faces["supportFDFunction"] == fd_functions


async def test_a_firmware_without_upserts_modifies_by_post(on_wall: Switch) -> None:
    async with on_wall("no_upsert_no_search") as client:
        await client.add()
        renamed = person(name="Popescu Ioan")
        assert_refused(await client.ask("PUT", MODIFY, renamed), "methodNotAllowed", http=405)
        assert (await client.ask("POST", MODIFY, renamed)).json() == OK
        assert client.terminal.holds() == {"1001": ("Popescu Ioan", None)}


async def test_face_capabilities_are_flat_or_wrapped(on_wall: Switch) -> None:
    async with on_wall("url_only") as client:
        flat = (await client.ask("GET", FD_CAPABILITIES)).json()
    async with on_wall("upload_g2") as client:
        wrapped = (await client.ask("GET", FD_CAPABILITIES)).json()["FDLibCap"]
    assert (flat["faceURLLen"], wrapped["faceURLLen"]) == (1024, 32)
    assert flat["FDRecordDataMaxNum"] == wrapped["FDRecordDataMaxNum"] == 3000


async def test_a_terminal_without_capabilities_still_says_what_it_is(on_wall: Switch) -> None:
    async with on_wall("no_capabilities") as client:
        for target in (CAPABILITIES, FD_CAPABILITIES):
            assert_refused(await client.ask("GET", target), "notSupport", http=403)
        assert (await client.ask("GET", DEVICE_INFO)).status_code == 200


# --- how it answers -------------------------------------------------------------------------------


async def test_an_xml_firmware_refuses_with_http_200_in_another_namespace(on_wall: Switch) -> None:
    async with on_wall("xml") as client:
        await client.ask("POST", RECORD, person())
        again = await client.ask("POST", RECORD, person())
        assert again.status_code == 200
        assert xml(again).findtext(f"{VER10}subStatusCode") == "employeeNoAlreadyExist"
        assert xml(await client.ask("GET", DEVICE_INFO)).tag == f"{VER10}DeviceInfo"
        denied = await client.ask("GET", COUNT, password="parola")
        assert xml(denied).tag == f"{VER10}userCheck"


async def test_a_firmware_may_have_no_namespace_at_all(on_wall: Switch) -> None:
    async with on_wall(Profile(answers="xml", xml_namespace="")) as client:
        assert xml(await client.ask("GET", DEVICE_INFO)).tag == "DeviceInfo"
        assert xml(await client.ask("POST", RECORD, person())).tag == "ResponseStatus"


async def test_errors_as_http_200_leave_other_statuses_alone(on_wall: Switch) -> None:
    async with on_wall(Profile(errors_http=200)) as client:
        refused = await client.ask("PUT", MODIFY, person())
        assert_refused(refused, "employeeNoNotExist", http=200)
        assert_refused(await client.ask("PUT", RECORD, person()), "methodNotAllowed", http=405)


async def test_bodies_are_in_the_charset_of_the_firmware_and_no_header_says_so(
    on_wall: Switch,
) -> None:
    async with on_wall(Profile(name="Curte în spate", charset="latin-1")) as client:
        await client.add(name="Ion Câmpeanu ș")
        answer = await client.ask("POST", SEARCH, search())
        assert "Ion Câmpeanu ?".encode("latin-1") in answer.content
        assert "charset" not in answer.headers["content-type"]
        info = await client.ask("GET", DEVICE_INFO)
        assert "Curte în spate".encode("latin-1") in info.content


async def test_a_terminal_says_the_serial_model_and_firmware_of_its_profile(
    on_wall: Switch,
) -> None:
    profile = Profile(serial="DS-X20240101", model="DS-K1T343MFX", firmware="V3.0.1")
    async with on_wall(profile) as client:
        info = xml(await client.ask("GET", DEVICE_INFO))
        assert [child.text for child in info][1:] == ["DS-K1T343MFX", "DS-X20240101", "V3.0.1"]


# --- busy, lying, full ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "http"), [("busy", 503), ("busy_200", 200)])
async def test_a_busy_terminal_refuses_each_third_write(
    on_wall: Switch, name: str, http: int
) -> None:
    async with on_wall(name) as client:
        await client.add("1001")
        await client.add("1002")
        busy = await client.ask("POST", RECORD, person("1003"))
        assert assert_refused(busy, "deviceBusy", http=http)["statusCode"] == 2
        await client.add("1003")


async def test_a_lying_terminal_says_ok_to_each_fourth_write_and_changes_nothing(
    on_wall: Switch,
) -> None:
    async with on_wall("lying") as client:
        for number in ("1001", "1002", "1003", "1004", "1005"):
            await client.ask("GET", COUNT)
            await client.add(number)
        assert list(client.terminal.persons) == ["1001", "1002", "1003", "1005"]


async def test_a_full_terminal_takes_three_persons(on_wall: Switch) -> None:
    async with on_wall("full") as client:
        for number in ("1001", "1002", "1003"):
            await client.add(number)
        assert_refused(await client.ask("POST", RECORD, person("1004")), "deviceUserFull")


async def test_a_terminal_full_of_faces_takes_no_more_but_still_replaces_one(
    on_wall: Switch, photos: PhotoServer
) -> None:
    async with on_wall(Profile(max_faces=1)) as client:
        await client.add("1001")
        await client.add("1002")
        for _ in range(2):
            assert (await client.ask("PUT", FACE_SET_UP, face(photos.url()))).json() == OK
        second = await client.ask("PUT", FACE_SET_UP, face(photos.url(), "1002"))
        assert assert_refused(second, "deviceFaceFull")["errorCode"] == 0x60007001
        assert client.terminal.persons["1002"].face is None


# --- deletions ------------------------------------------------------------------------------------


async def test_user_info_delete_deletes_at_once_and_takes_the_face_too(
    on_wall: Switch, photos: PhotoServer
) -> None:
    async with on_wall("old_deletes") as client:
        await client.add("1001")
        await client.add("1002")
        await client.ask("PUT", FACE_SET_UP, face(photos.url()))
        body = {"UserInfoDelCond": {"EmployeeNoList": [{"employeeNo": "1001"}]}}
        assert (await client.ask("PUT", DELETE_NOW, body)).json() == OK
        assert list(client.terminal.persons) == ["1002"]
        await client.add("1001")
        assert client.terminal.persons["1001"].face is None
        sightings = client.terminal.sightings
        assert (sightings.deletions_of_everybody, sightings.deletions_not_of_one) == (0, 0)


@pytest.mark.parametrize("cond", [{}, {"EmployeeNoList": []}])
async def test_user_info_delete_without_a_list_deletes_everybody(
    on_wall: Switch, cond: dict[str, object]
) -> None:
    async with on_wall() as client:
        await client.add()
        await client.ask("PUT", DELETE_NOW, {"UserInfoDelCond": cond})
        assert client.terminal.persons == {}
        assert client.terminal.sightings.deletions_of_everybody == 1


async def test_a_face_is_deleted_by_fd_delete_where_that_is_the_way(
    on_wall: Switch, photos: PhotoServer
) -> None:
    async with on_wall("old_deletes") as client:
        await client.add()
        await client.ask("PUT", FACE_SET_UP, face(photos.url()))
        body = {"FPID": [{"value": "1001"}]}
        assert (await client.ask("PUT", FACE_DELETE, body)).status_code == 405
        assert (await client.ask("PUT", FD_DELETE, body)).json() == OK
        assert client.terminal.holds() == {"1001": ("Popescu Ion", None)}


@pytest.mark.parametrize(
    ("profile", "target", "one", "others"),
    [
        ("modern", DELETE, deletion("1001"), [deletion(), deletion("1001", "1002")]),
        (
            "modern",
            DELETE_NOW,
            {"UserInfoDelCond": {"EmployeeNoList": [{"employeeNo": "1001"}]}},
            [{"UserInfoDelCond": {}}, {}, []],
        ),
        (
            "modern",
            FACE_DELETE,
            {"FPID": [{"value": "1001"}]},
            [{"FPID": []}, {"FPID": "1001"}, {"FPID": [{"value": "1001"}, {"value": "1002"}]}],
        ),
        ("old_deletes", FD_DELETE, {"FPID": [{"value": "1001"}]}, [{}, {"FPID": []}]),
    ],
)
async def test_deletions_that_do_not_carry_one_number_are_noticed(
    on_wall: Switch, profile: str, target: str, one: object, others: list[object]
) -> None:
    async with on_wall(profile) as client:
        await client.ask("PUT", target, one)
        assert client.terminal.sightings.deletions_not_of_one == 0
        for body in others:
            await client.ask("PUT", target, body)
        assert client.terminal.sightings.deletions_not_of_one == len(others)


# --- what happens to a terminal -------------------------------------------------------------------


async def test_a_card_is_found_and_stays_through_edits_and_goes_with_the_person(
    on_wall: Switch,
) -> None:
    async with on_wall(Profile(deletion_s=0)) as client:
        await client.add()
        client.terminal.enroll_card("1001")
        await client.ask("PUT", SET_UP, person(name="X", Valid=valid(end="2030-01-01T00:00:00")))
        answer = await client.ask("POST", SEARCH, search())
        assert answer.json()["UserInfoSearch"]["UserInfo"][0]["numOfCard"] == 1
        await client.ask("PUT", DELETE, deletion("1001"))
        await asyncio.sleep(0.05)
        await client.add()  # fails while the person is there
        assert client.terminal.persons["1001"].cards == 0
        with pytest.raises(KeyError):
            client.terminal.enroll_card("1002")


async def test_another_terminal_in_its_place_is_empty_and_has_another_serial(
    on_wall: Switch,
) -> None:
    async with on_wall(Profile(serial="OLD", lockout_failures=1, deletion_s=0.05)) as client:
        port = client.terminal.port
        await client.add()
        await client.ask("PUT", DELETE, deletion("1001"))
        await client.ask("GET", COUNT, password="parola")
        client.terminal.replace_hardware("NEW")
        assert client.terminal.port == port
        info = xml(await client.ask("GET", DEVICE_INFO))
        assert info[2].text == "NEW"
        assert client.terminal.persons == {}
        await client.add()
        await asyncio.sleep(0.1)
        assert "1001" in client.terminal.persons


async def test_an_upgrade_changes_the_firmware_and_keeps_the_memory(on_wall: Switch) -> None:
    async with on_wall("no_upsert_no_search") as client:
        await client.add()
        assert (await client.ask("POST", SEARCH, search())).status_code == 404
        client.terminal.upgrade(Profile(firmware="V5.0.0", name_bytes=12))
        assert (await client.ask("POST", SEARCH, search())).status_code == 200
        assert_refused(await client.ask("PUT", SET_UP, person(name="a" * 13)), "badParameters")
        assert client.terminal.holds() == {"1001": ("Popescu Ion", None)}
        info = xml(await client.ask("GET", DEVICE_INFO))
        assert [info[2].text, info[3].text] == [f"SIMULATED{client.terminal.port}", "V5.0.0"]


async def test_a_changed_password_shuts_the_old_one_out_and_forgives_no_failures(
    on_wall: Switch,
) -> None:
    clock = Clock()
    async with on_wall(Profile(lockout_failures=3), clock=clock) as client:
        await client.ask("GET", COUNT, password="parola")
        client.terminal.change_password("Parola-noua-2")
        old = await client.ask("GET", COUNT)
        assert (old.status_code, "<retryLoginTime>1<" in old.text) == (401, True)
        new = await client.ask("GET", COUNT, password="Parola-noua-2")
        assert new.status_code == 200


# --- uploads --------------------------------------------------------------------------------------


async def test_a_picture_is_taken_beside_its_json(on_wall: Switch) -> None:
    async with on_wall() as client:
        await client.add()
        for method, target, picture in [
            ("POST", FACE_RECORD, "a"),
            ("PUT", FACE_SET_UP, "b"),
            ("PUT", FACE_MODIFY, "c"),
        ]:
            answer = await upload(client, form(portrait(picture)), method=method, target=target)
            assert answer.json() == OK
            kept = client.terminal.persons["1001"].face
            assert kept is not None
            assert (kept.size, kept.url) == (len(portrait(picture)), "")
            assert kept.likeness == likeness(portrait(picture))
            assert kept.replaced == "abc".index(picture)
        sightings = client.terminal.sightings
        assert list(sightings.bodies)[1:] == [RECORD_PART] * 3
        assert [call.uploaded for call in sightings.calls if call.authenticated] == [
            False,
            True,
            True,
            True,
        ]
        assert (sightings.unknown_fields, sightings.calls[-1].employee_no) == ([], "1001")


async def test_the_face_of_an_upload_is_served_by_the_terminal_itself(on_wall: Switch) -> None:
    async with on_wall() as client:
        await client.add()
        await upload(client, form())
        found = await client.ask(
            "POST", FACE_SEARCH, RECORD_PART | {"searchResultPosition": 0, "maxResults": 1}
        )
        assert found.json()["MatchList"][0]["faceURL"].startswith(client.url("/LOCALS/"))


async def test_an_upload_obeys_the_rules_of_each_endpoint(on_wall: Switch) -> None:
    async with on_wall() as client:
        assert_refused(await upload(client, form()), "deviceUserNotExist")
        await client.add()
        absent = await upload(client, form(), target=FACE_MODIFY)
        assert_refused(absent, "deleteNoExistFace")
        await upload(client, form())
        again = await upload(client, form(), method="POST", target=FACE_RECORD)
        assert_refused(again, "deviceUserAlreadyExistFace")


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ("modern", ("FaceDataRecord", "img")),
        ("upload_only", ("FaceDataRecord", "FaceImage")),
        ("upload_g2", ("faceURL", "img")),
    ],
)
async def test_a_terminal_takes_the_parts_of_its_own_names_only(
    on_wall: Switch, profile: str, names: tuple[str, str]
) -> None:
    async with on_wall(profile) as client:
        await client.add()
        for others in {
            ("FaceDataRecord", "img"),
            ("FaceDataRecord", "FaceImage"),
            ("faceURL", "img"),
        }:
            answer = await upload(client, form(names=others))
            if others == names:
                assert answer.json() == OK
            else:
                missing = names[0] if others[0] != names[0] else names[1]
                status = assert_refused(answer, "MessageParametersLack")
                assert status["errorMsg"] == missing


async def test_a_terminal_for_urls_takes_no_uploads(on_wall: Switch, photos: PhotoServer) -> None:
    async with on_wall("url_only") as client:
        await client.add()
        assert_refused(await upload(client, form()), "badJsonFormat")
        long = photos.url("/" + "a" * 900)
        photos.pictures["/" + "a" * 900] = JPEG
        assert (await client.ask("PUT", FACE_SET_UP, face(long))).json() == OK


async def test_a_terminal_for_uploads_fetches_nothing(on_wall: Switch, photos: PhotoServer) -> None:
    async with on_wall("upload_only") as client:
        await client.add()
        answer = await client.ask("PUT", FACE_SET_UP, face(photos.url()))
        assert_refused(answer, "urlDownloadFail")
        assert photos.asked == []
    async with on_wall("upload_g2") as client:
        await client.add()
        answer = await client.ask("PUT", FACE_SET_UP, face(photos.url("/" + "a" * 32)))
        assert assert_refused(answer, "badJsonContent")["errorMsg"] == "faceURL"


async def test_persons_are_not_taken_as_uploads(on_wall: Switch) -> None:
    async with on_wall() as client:
        answer = await upload(client, form(), method="POST", target=RECORD)
        assert_refused(answer, "badJsonFormat")


def _parts(record: bytes, picture: bytes) -> Parts:
    return [
        ("FaceDataRecord", (None, record, "application/json")),
        ("img", ("1001.jpg", picture, "image/jpeg")),
    ]


JSON_PART, PICTURE_PART = form()
ODD_FORMS: dict[str, tuple[Parts, str]] = {
    "the picture first": ([PICTURE_PART, JSON_PART], "badJsonFormat"),
    "a file name on the JSON": (
        [("FaceDataRecord", ("a.json", b"{}", "application/json")), PICTURE_PART],
        "badJsonFormat",
    ),
    "JSON that says it is text": (
        [("FaceDataRecord", (None, b"{}", "text/plain")), PICTURE_PART],
        "badJsonFormat",
    ),
    "JSON that is none": (_parts(b"{", JPEG), "badJsonFormat"),
    "no file name on the picture": (
        [JSON_PART, ("img", (None, JPEG, "image/jpeg"))],
        "picFormatError",
    ),
    "a picture that says it is PNG": (
        [JSON_PART, ("img", ("1001.png", JPEG, "image/png"))],
        "picFormatError",
    ),
    "a part too many": ([JSON_PART, PICTURE_PART, PICTURE_PART], "badJsonFormat"),
    "no picture": ([JSON_PART, ("x", ("x", b"", "image/jpeg"))], "MessageParametersLack"),
    "nobody's number": (
        form(record={"faceLibType": "blackFD", "FDID": "1"}),
        "MessageParametersLack",
    ),
}


@pytest.mark.parametrize(("parts", "sub_status"), ODD_FORMS.values(), ids=ODD_FORMS)
async def test_an_upload_in_another_form_is_refused(
    on_wall: Switch, parts: Parts, sub_status: str
) -> None:
    async with on_wall() as client:
        await client.add()
        assert_refused(await upload(client, parts), sub_status)
        assert client.terminal.persons["1001"].face is None


@pytest.mark.parametrize(
    ("more", "sub_status"), [(1_900_000, "picSizeExceedError"), (2_100_000, "badJsonFormat")]
)
async def test_a_form_is_read_up_to_two_megabytes(
    on_wall: Switch, more: int, sub_status: str
) -> None:
    async with on_wall() as client:
        await client.add()
        assert_refused(await upload(client, form(JPEG + bytes(more))), sub_status)


WHOLE = (
    b'--B\r\nContent-Disposition: form-data; name="FaceDataRecord"\r\n'
    b"Content-Type: application/json\r\n\r\n"
    b'{"faceLibType":"blackFD","FDID":"1","FPID":"1001"}\r\n'
    b'--B\r\nContent-Disposition: form-data; name="img"; filename="1001.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n" + JPEG + b"\r\n--B--\r\n"
)


@pytest.mark.parametrize(
    ("content_type", "body", "taken"),
    [
        ("multipart/form-data; boundary=B", WHOLE, True),
        ("multipart/form-data; boundary=B", WHOLE.removesuffix(b"--B--\r\n"), False),
        ("multipart/form-data; boundary=B", WHOLE[:-9000], False),
        ("multipart/form-data; boundary=B", b"hello\r\n" + WHOLE, False),
        ("multipart/form-data; boundary=B", WHOLE + b"and more", False),
        ("multipart/form-data; boundary=C", WHOLE, False),
        ("multipart/form-data", WHOLE, False),
        ("multipart/mixed; boundary=B", WHOLE, False),
        ("multipart/form-data; boundary=B", WHOLE.replace(b"form-data;", b"attachment;"), False),
        ("multipart/form-data; boundary=B", WHOLE + bytes(2 * 1024 * 1024), False),
        ("multipart/form-data; boundary=B", b"", False),
    ],
)
async def test_a_form_is_taken_whole_or_not_at_all(
    on_wall: Switch,
    content_type: str,
    body: bytes,
    taken: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with on_wall() as client:
        await client.add()
        answer = await client.http.put(
            client.url(FACE_SET_UP),
            content=body,
            headers={"Content-Type": content_type},
            auth=httpx.DigestAuth("admin", PASSWORD),
        )
        assert answer.json()["subStatusCode"] == ("ok" if taken else "badJsonFormat")
        kept = client.terminal.persons["1001"].face
        assert (kept is not None and kept.size == len(JPEG)) is taken


# --- pictures -------------------------------------------------------------------------------------

NO_FACES = {
    "PNG": (PNG, "picFormatError"),
    "progressive": (changed(JPEG, progressive=True), "picFormatError"),
    "no picture": (b"\xff\xd8\xff\xe0" + bytes(2000), "picFormatError"),
    "half a picture": (JPEG[: len(JPEG) // 2], "picFormatError"),
    "too long": (changed(JPEG, size=(3000, 4000), quality=95), "picSizeExceedError"),
    "too short": (JPEG[:299], "faceDataLenShort"),
    "too small": (changed(JPEG, size=(59, 79), quality=95), "faceLowQulity"),
    "too many pixels": (plain((6000, 5000), optimize=True), "picSizeExceedError"),
    "a single colour": (plain(), "PicAnalysisNoTargetError"),
}


@pytest.mark.parametrize(("picture", "sub_status"), NO_FACES.values(), ids=NO_FACES)
async def test_an_uploaded_picture_that_makes_no_face_is_refused(
    on_wall: Switch, picture: bytes, sub_status: str
) -> None:
    async with on_wall() as client:
        await client.add()
        assert_refused(await upload(client, form(picture)), sub_status)
        assert client.terminal.persons["1001"].face is None


@pytest.mark.parametrize(
    ("picture", "sub_status"),
    [NO_FACES[what] for what in NO_FACES if what != "PNG"] + [(PNG, "ok")],
)
async def test_a_fetched_picture_is_checked_as_closely_but_may_be_png(
    on_wall: Switch, photos: PhotoServer, picture: bytes, sub_status: str
) -> None:
    photos.pictures["/new.jpg"] = picture
    async with on_wall() as client:
        await client.add()
        answer = await client.ask("PUT", FACE_SET_UP, face(photos.url("/new.jpg")))
        assert answer.json()["subStatusCode"] == sub_status


async def test_the_smallest_picture_that_suffices_is_taken(on_wall: Switch) -> None:
    async with on_wall() as client:
        await client.add()
        answer = await upload(client, form(changed(JPEG, size=(60, 80))))
        assert answer.json() == OK


async def test_a_terminal_knows_nothing_of_exif(on_wall: Switch) -> None:
    upright = portrait("ion")
    async with on_wall() as client:
        await client.add()
        for picture, alike in [
            (changed(upright, quality=50), True),
            (lying_on_its_side(upright), False),
        ]:
            await upload(client, form(picture))
            kept = client.terminal.persons["1001"].face
            assert kept is not None
            assert (kept.likeness == likeness(upright)) is alike


async def test_a_terminal_with_slow_faces_takes_longer_for_a_face(on_wall: Switch) -> None:
    async with on_wall("slow_faces") as client:
        await client.add()
        await upload(client, form())
        calls = [call for call in client.terminal.sightings.calls if call.authenticated]
        assert [call.ended - call.started >= 0.3 for call in calls] == [False, True]
