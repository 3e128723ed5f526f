"""What the client learns of a terminal, and how each call falls back: over real HTTP.

The raw servers give answers that the simulated terminal never gives.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotSupported,
    TerminalBusy,
    TerminalError,
    TerminalRefused,
    TerminalReplaced,
    TerminalTimeout,
    TerminalUnreachable,
)
from receiver.core.models import Capabilities, Found
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Face, Profile
from receiver.terminals.answers import Answer, parse
from receiver.terminals.client import TerminalClient
from receiver.terminals.persons import FACES_COUNTED
from receiver.terminals.user_info import found_in
from tests.support.clients import Memory
from tests.support.raw_terminals import (
    BUSY,
    DEVICE_XML,
    DIGEST,
    NO,
    OK,
    SHORT_S,
    Scripted,
    answer,
    challenge,
    raw,
    scripted,
    targets,
    visiting,
)

MISSING = pytest.mark.parametrize("missing", ["404", "405", "403"])
Missing = Literal["404", "405", "403"]
IDENTIFYING = ["GET deviceInfo", "GET capabilities", "GET capabilities"]
SERIAL = "DS-K1T0001"
DEVICE = Profile(serial=SERIAL)
KNOWN = Capabilities(
    serial=SERIAL,
    firmware=DEVICE.firmware,
    model=DEVICE.model,
    name_bytes=128,
    most_persons=2000,
    photos="upload",
    parts=2,
    lacks=("FDLib/FDModify",),
)

Act = Callable[[TerminalClient], Awaitable[object]]


async def put(client: TerminalClient) -> object:
    return await client.persons.put(NO, "Popescu Ion")


# Identifying


async def test_a_terminal_is_identified_once_before_the_first_call() -> None:
    memory = Memory()
    async with visiting(DEVICE, capabilities=None, memory=memory) as visit:
        await put(visit.client)
        await put(visit.client)
        await visit.client.calls.identify()
        assert visit.paths() == [*IDENTIFYING, "POST Record", "POST Record", "PUT Modify"]
        [learnt] = memory.learnt
        assert visit.client.calls.capabilities == learnt
        assert learnt == Capabilities(
            serial=SERIAL,
            firmware="V4.39.0",
            model="DS-K1T342MFWX-E1",
            name_bytes=128,
            most_persons=2000,
            page=30,
            photo_url_bytes=256,
        )
        visit.assert_well_treated()


@pytest.mark.parametrize(
    "act",
    [
        put,
        lambda client: client.persons.end(NO, "Popescu Ion"),
        lambda client: client.persons.erase(NO),
        lambda client: client.persons.find([NO]),
        lambda client: anext(client.persons.everybody(), None),
        lambda client: client.faces.remove(NO),
    ],
    ids=["put_person", "end_validity", "erase", "find", "everybody", "remove_face"],
)
async def test_a_terminal_is_identified_before_the_first_call_of_any_kind(act: Act) -> None:
    async with visiting(DEVICE, capabilities=None) as visit:
        await act(visit.client)
        assert visit.paths()[:3] == IDENTIFYING
        assert "GET deviceInfo" not in visit.paths()[1:]


async def test_a_terminal_is_not_identified_when_that_is_not_due() -> None:
    memory = Memory()
    async with visiting(DEVICE, capabilities=KNOWN, identify=False, memory=memory) as visit:
        await put(visit.client)
        assert visit.paths() == ["POST Record"]
        assert memory.learnt == []


async def test_the_same_terminal_is_asked_only_which_one_it_is() -> None:
    memory = Memory()
    async with visiting(DEVICE, capabilities=KNOWN, identify=True, memory=memory) as visit:
        await put(visit.client)
        assert visit.paths() == ["GET deviceInfo", "POST Record"]
        assert memory.learnt == [KNOWN]  # also what turned out on the way, before
        assert visit.client.calls.capabilities == KNOWN


@pytest.mark.parametrize(
    "change", [{"serial": "DS-OTHER"}, {"firmware": "V4.40.0"}], ids=["serial", "firmware"]
)
async def test_another_serial_number_or_firmware_is_asked_what_it_takes(
    change: dict[str, Any],
) -> None:
    memory = Memory()
    profile = replace(DEVICE, name_bytes=32, max_persons=500, **change)
    async with visiting(profile, capabilities=KNOWN, identify=True, memory=memory) as visit:
        await put(visit.client)
        assert visit.paths() == [*IDENTIFYING, "POST Record"]
        [learnt] = memory.learnt
        assert (learnt.serial, learnt.firmware) == (profile.serial, profile.firmware)
        assert (learnt.name_bytes, learnt.most_persons) == (32, 500)
        assert (learnt.photos, learnt.parts, learnt.lacks) == ("", 0, ())


async def test_a_call_that_an_upgrade_brings_is_used() -> None:
    old = replace(DEVICE, has_fd_setup=False)
    async with visiting(old, capabilities=None) as visit:
        await visit.client.calls.identify()
        assert visit.client.calls.capabilities.lacks == ("FDLib/FDSetUp",)
        visit.terminal.upgrade(replace(DEVICE, firmware="V4.50"))
        known = visit.client.calls.capabilities
        async with visiting(
            replace(DEVICE, firmware="V4.50"), capabilities=known, identify=True
        ) as later:
            await later.client.calls.identify()
            assert later.client.calls.capabilities.lacks == ()


NOT_SUPPORTED = b'{"statusCode":4,"subStatusCode":"notSupport","errorMsg":"notSupport"}'
MUTE = {
    "404": answer(b"", status="404 Not Found"),
    "a page that is not there": answer(b"<html><body>no</body></html>", status="404 Not Found"),
    "403": answer(NOT_SUPPORTED, status="403 Forbidden"),
    "a page": answer(b"<!DOCTYPE html><html><body><br></body></html>"),
    "a page that is XML": answer(b"<html><head><title>Login</title></head></html>"),
    "500": answer(b"", status="500 Oops"),
    "garbage": answer(b"\x00\xff\xfe{{{<"),
    "nothing": answer(b""),
    "a list": answer(b'[{"serialNumber":"S"}]'),
    "busy": answer(BUSY, status="503 Service Unavailable"),
    "busy at 200": answer(BUSY),
    "a serial number that is none": answer(b'{"DeviceInfo":{"serialNumber":7}}'),
    "without serial number": answer(b"<DeviceInfo><model>M</model></DeviceInfo>"),
    "not HTTP that we know": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: x\r\n\r\n"
    b"<\xff\xff\xff\xff\xff\xff\xff>",
}
MUTELY = pytest.mark.parametrize("sent", MUTE.values(), ids=MUTE)


@MUTELY
async def test_a_terminal_that_does_not_identify_itself_takes_persons_all_the_same(
    sent: bytes,
) -> None:
    memory = Memory()
    answers = {b"/deviceInfo": sent, b"/capabilities": sent}
    async with scripted(answers, capabilities=None, memory=memory) as (client, terminal):
        assert await client.persons.put(NO, "Popescu Ion") is False
        assert await client.persons.put(NO, "Popescu Ion") is False
        assert len([t for t in targets(terminal) if t.endswith("deviceInfo")]) == 1
    [learnt] = memory.learnt
    assert replace(learnt, model="") == Capabilities()


@MUTELY
async def test_a_known_terminal_that_does_not_identify_itself_stays_known(sent: bytes) -> None:
    """If it were forgotten, another terminal in its place would not be noticed."""
    memory = Memory()
    async with scripted(
        {b"/deviceInfo": sent, b"/capabilities": sent},
        capabilities=KNOWN,
        identify=True,
        memory=memory,
    ) as (client, terminal):
        await client.persons.put(NO, "Popescu Ion")
        assert [t.rpartition("/")[2] for t in targets(terminal)] == ["deviceInfo", "Record"]
        assert client.calls.capabilities == KNOWN
    assert memory.learnt == [KNOWN]


async def test_a_device_info_in_json_is_read_as_well() -> None:
    body = b'{"DeviceInfo":{"model":"M","serialNumber":"S1","firmwareVersion":"V1"}}'
    for sent in (body, body.replace(b'{"DeviceInfo":', b"").replace(b"}}", b"}")):
        async with scripted({b"/deviceInfo": answer(sent)}, capabilities=None) as (client, _):
            await client.calls.identify()
            assert (client.calls.capabilities.serial, client.calls.capabilities.model) == (
                "S1",
                "M",
            )


async def test_identifying_a_terminal_that_is_off_raises_and_is_due_again() -> None:
    memory = Memory()
    async with visiting(DEVICE, capabilities=None, memory=memory) as visit:
        await visit.terminal.switch_off()
        with pytest.raises(TerminalUnreachable):
            await put(visit.client)
        assert memory.learnt == []
        await visit.terminal.switch_on()
        await put(visit.client)
        assert visit.paths() == [*IDENTIFYING, "POST Record"]


async def test_identifying_a_terminal_that_hangs_raises() -> None:
    memory = Memory()
    async with visiting(DEVICE, capabilities=None, memory=memory, timeout_s=SHORT_S) as visit:
        await visit.terminal.hang()
        with pytest.raises(TerminalTimeout):
            await put(visit.client)
        assert memory.learnt == []


@pytest.mark.parametrize("known", [None, KNOWN], ids=["new", "known"])
async def test_a_wrong_password_costs_one_failed_login_while_identifying(
    known: Capabilities | None,
) -> None:
    memory = Memory()
    options: dict[str, Any] = {"capabilities": known, "identify": True, "memory": memory}
    async with visiting(DEVICE, password="gresita", **options) as visit:
        with pytest.raises(LoginRefused):
            await put(visit.client)
        assert visit.terminal.sightings.failed_logins == 1
        assert visit.paths() == []
    assert memory.learnt == []


@pytest.mark.parametrize("status", ["403 Forbidden", "400 Bad Request", "200 OK"])
@pytest.mark.parametrize("code", ["badAuthorization", "userNameLocked", "loginPasswordError"])
async def test_a_login_that_is_refused_without_a_401_is_not_tried_again(
    code: str, status: str
) -> None:
    """G1 has badAuthorization as a subStatusCode; each further call is a failed login more."""
    refused = answer(f'{{"statusCode":4,"subStatusCode":"{code}"}}'.encode(), status=status)
    async with scripted({}, otherwise=refused, capabilities=None) as (client, terminal):
        with pytest.raises(LoginRefused):
            await client.persons.put(NO, "Popescu Ion")
        assert len(terminal.requests) == 1


async def test_a_replaced_terminal_gets_no_further_call() -> None:
    async def replaced(_: Capabilities) -> None:
        raise TerminalReplaced

    async with visiting(DEVICE, capabilities=KNOWN, identify=True, memory=replaced) as visit:
        with pytest.raises(TerminalReplaced):
            await put(visit.client)
        assert visit.paths() == ["GET deviceInfo"]
        assert visit.terminal.persons == {}


# Ways to do the same


@asynccontextmanager
async def remembered(profile: Profile, **options: Any) -> AsyncIterator[tuple[Any, Memory]]:
    memory = Memory()
    async with visiting(profile, memory=memory, **options) as visit:
        yield visit, memory


@MISSING
@pytest.mark.parametrize("answers", ["json", "xml"])
async def test_modify_by_post_is_found_once(
    missing: Missing, answers: Literal["json", "xml"]
) -> None:
    profile = Profile(modify_by="POST", missing=missing, answers=answers)
    async with remembered(profile) as (visit, memory):
        await visit.client.persons.put(NO, "Popescu Ion", expected_there=False)
        assert await visit.client.persons.put(NO, "Popescu Ana", expected_there=True) is True
        assert await visit.client.persons.put(NO, "Popescu Eva", expected_there=True) is True
        await visit.client.persons.end(NO, "Popescu Eva")
        calls = ["PUT Modify", "POST Modify", "POST Modify", "POST Modify"]
        assert visit.paths() == ["POST Record", *calls]
        assert [one.lacks for one in memory.learnt] == [("UserInfo/Modify",)]
        assert visit.person().name == "Popescu Eva"
        assert not visit.terminal.may_pass(NO, datetime.now(UTC))
        visit.assert_well_treated()


@pytest.mark.parametrize("http", [200, 400])
async def test_a_call_that_is_perhaps_missing_is_made_otherwise_and_tried_again_next_time(
    http: Literal[200, 400],
) -> None:
    """invalidOperation has other meanings too; leavers must not stay because of it."""
    profile = Profile(
        has_user_info_detail=False,
        has_fd_search_delete=False,
        has_fd_setup=False,
        missing="400",
        errors_http=http,
    )
    async with remembered(profile) as (visit, memory):
        for _ in range(2):
            await visit.client.persons.put(NO, "Popescu Ion")
            visit.person().face = Face(url="", sha256="0", size=1)
            await visit.client.persons.erase(NO)
            assert visit.terminal.persons == {}
        tried = ["PUT Delete", "PUT Delete", "PUT FDDelete", "PUT Delete"]
        assert visit.paths() == ["POST Record", *tried] * 2
        assert memory.learnt == []
        visit.assert_well_treated()


@pytest.mark.parametrize("code", ["invalidOperation", "badURLFormat", "INVALIDOPERATION"])
async def test_modify_by_post_is_found_where_modify_by_put_is_perhaps_missing(code: str) -> None:
    refused = f'{{"statusCode":4,"statusString":"No","subStatusCode":"{code}"}}'.encode()

    def script(_: int, request: bytes) -> bytes:
        by_put = request.startswith(b"PUT") and b"/Modify" in request
        return answer(refused, status="400 Bad Request") if by_put else answer(OK)

    memory, terminal = Memory(), Scripted(script)
    async with raw(terminal, memory=memory) as client:
        for _ in range(2):
            await client.persons.end(NO, "Popescu Ion")
    assert [target.split()[0] for target in targets(terminal)] == ["PUT", "POST"] * 2
    assert memory.learnt == []


async def test_the_next_client_does_not_try_a_call_that_is_remembered_as_missing() -> None:
    known = Capabilities(lacks=("UserInfo/Modify", "FDLib/FDSetUp"))
    profile = Profile(modify_by="POST", has_fd_setup=False)
    async with remembered(profile, capabilities=known) as (visit, memory):
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.persons.put(NO, "Popescu Ion", expected_there=True)
        assert visit.paths() == ["POST Record", "POST Modify"]
        assert memory.learnt == []


async def test_a_terminal_that_seems_to_lack_every_way_is_asked_in_each_of_them() -> None:
    """It may now have a call that it lacked once: no person is given up because of a memory."""
    known = Capabilities(lacks=("UserInfo/Modify", "POST UserInfo/Modify"))
    async with remembered(Profile(), capabilities=known) as (visit, _):
        await visit.client.persons.put(NO, "Popescu Ion")
        assert await visit.client.persons.put(NO, "Popescu Ana", expected_there=True) is True
        assert visit.person().name == "Popescu Ana"


@MISSING
async def test_face_and_person_are_deleted_one_by_one_where_user_info_detail_is_missing(
    missing: Missing,
) -> None:
    profile = Profile(has_user_info_detail=False, has_fd_search_delete=False, missing=missing)
    async with remembered(profile) as (visit, memory):
        for number in (NO, "1002", "1003"):
            await visit.client.persons.put(number, "Popescu Ion")
            visit.person(number).face = Face(url="", sha256="0", size=1)
        for number in (NO, "1002"):
            await visit.client.persons.erase(number)
        assert list(visit.terminal.persons) == ["1003"]
        tried = ["PUT Delete", "PUT Delete", "PUT FDDelete", "PUT Delete"]
        assert visit.paths()[3:] == [*tried, "PUT FDDelete", "PUT Delete"]
        lacks = [one.lacks for one in memory.learnt]
        assert lacks == [
            ("UserInfoDetail/Delete",),
            ("UserInfoDetail/Delete", "FDLib/FDSearch/Delete"),
        ]
        assert visit.terminal.sightings.deletions_not_of_one == 0
        visit.assert_well_treated()


@pytest.mark.parametrize("name", ["old_deletes", "modern", "xml", "no_upsert_no_search"])
async def test_erasing_a_person_who_is_not_there_is_no_error(name: str) -> None:
    async with visiting(PROFILES[name]) as visit:
        await visit.client.persons.erase(NO)
        await visit.client.faces.remove(NO)


async def test_a_leaver_is_erased_also_where_faces_cannot_be_deleted_alone() -> None:
    """Otherwise they may still pass; sources differ on whether the face goes with the person."""
    missing = answer(b"", status="404 Not Found")
    answers = {
        b"/UserInfoDetail/Delete": missing,
        b"/FDSearch/Delete": missing,
        b"/FDDelete": missing,
    }
    async with scripted(answers) as (client, terminal):
        await client.persons.erase(NO)
        assert targets(terminal)[-1] == "PUT /ISAPI/AccessControl/UserInfo/Delete"
        await client.persons.erase("1002")
        assert targets(terminal)[-1] == "PUT /ISAPI/AccessControl/UserInfo/Delete"


async def test_a_leaver_whose_face_a_busy_terminal_keeps_is_not_half_erased() -> None:
    busy = answer(BUSY, status="503 Service Unavailable")
    answers = {b"/UserInfoDetail/Delete": answer(b"", status="404 X"), b"/FDSearch/Delete": busy}
    async with scripted(answers) as (client, terminal):
        with pytest.raises(TerminalBusy):
            await client.persons.erase(NO)
        assert "PUT /ISAPI/AccessControl/UserInfo/Delete" not in targets(terminal)


@MISSING
async def test_a_terminal_without_search_is_asked_once(missing: Missing) -> None:
    async with remembered(Profile(has_search=False, missing=missing)) as (visit, memory):
        for _ in range(2):
            with pytest.raises(NotSupported):
                await visit.client.persons.find([NO])
            with pytest.raises(NotSupported):
                await anext(visit.client.persons.everybody())
        assert visit.paths() == ["POST Search"]
        assert [one.lacks for one in memory.learnt] == [("UserInfo/Search",)]


@pytest.mark.parametrize("count", [0, 1, 30, 31, 65])
@pytest.mark.parametrize("page", [30, 7, 1])
async def test_persons_are_found_in_as_few_searches_as_the_terminal_allows(
    count: int, page: int
) -> None:
    async with visiting(capabilities=Capabilities(page=page)) as visit:
        await visit.client.persons.put("9", "Altcineva")
        for n in range(0, count, 2):
            await visit.client.persons.put(str(1000 + n), f"Muncitor {n}")
        before = len(visit.paths())
        found = await visit.client.persons.find([str(1000 + n) for n in range(count)])
        assert sorted(found) == [str(1000 + n) for n in range(0, count, 2)]
        assert found.get("1000") == (
            Found(employee_no="1000", name="Muncitor 0", access="open", faces=0) if count else None
        )
        assert len(visit.paths()) - before == -(-count // page)
        visit.assert_well_treated()


@pytest.mark.parametrize("page", [30, 7, 1])
async def test_everybody_is_found_page_by_page(page: int) -> None:
    async with visiting(capabilities=Capabilities(page=page)) as visit:
        for n in range(35):
            await visit.client.persons.put(str(n), f"Muncitor {n}")
        pages = [found async for found in visit.client.persons.everybody()]
        assert [one.employee_no for found in pages for one in found] == [str(n) for n in range(35)]
        assert {len(found) for found in pages[:-1]} <= {page}
        visit.assert_well_treated()


def search_result(*persons: str, status: str = "OK", key: str = "UserInfo") -> bytes:
    entries = ",".join(persons)
    body = f'"responseStatusStrg":"{status}","numOfMatches":{len(persons)},"{key}":[{entries}]'
    return answer(f'{{"UserInfoSearch":{{"searchID":"x",{body}}}}}'.encode())


def entry(number: object = NO, **fields: object) -> str:
    more = "".join(f', "{key}": {value}' for key, value in fields.items())
    return f'{{"employeeNo": "{number}", "name": "Popescu Ion"{more}}}'


async def test_a_terminal_that_repeats_a_page_is_not_asked_endlessly() -> None:
    result = search_result(entry(), status="MORE")
    async with scripted({}, otherwise=result) as (client, terminal):
        assert list(await client.persons.find([NO, "1002"])) == [NO]
        assert len(terminal.requests) == 2
        assert len([page async for page in client.persons.everybody()]) == 1


async def test_a_terminal_that_lists_everybody_is_not_searched_for_single_persons_again() -> None:
    """If it ignores the list of numbers, it would have to be paged through for each of them."""
    everybody = search_result(entry("1"), entry(NO), status="MORE")
    async with scripted({}, otherwise=everybody) as (client, terminal):
        for _ in range(2):
            with pytest.raises(NotSupported):
                await client.persons.find([NO])
        assert len(terminal.requests) == 1
        assert len([page async for page in client.persons.everybody()]) == 1


@pytest.mark.parametrize(
    "sent",
    [
        answer(b'{"UserInfoSearch":{"responseStatusStrg":"NO MATCH","numOfMatches":0}}'),
        answer(b'{"responseStatusStrg":"NO MATCH"}'),
        search_result(status="NO MATCH"),
        answer(
            b"<UserInfoSearch><responseStatusStrg>NO MATCH</responseStatusStrg></UserInfoSearch>"
        ),
    ],
)
async def test_an_empty_result_is_a_result(sent: bytes) -> None:
    async with scripted({}, otherwise=sent) as (client, _):
        assert await client.persons.find([NO]) == {}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (answer(OK), AnswerUnexplained),
        (answer(b"{}"), AnswerUnexplained),
        (answer(b"<html></html>"), AnswerUnexplained),
        (answer(b'{"UserInfoSearch":[]}'), AnswerUnexplained),
        (answer(BUSY), TerminalBusy),
        (answer(b"", status="502 Bad Gateway"), TerminalBusy),
        (answer(b'{"statusCode":6,"subStatusCode":"badJsonContent"}'), AnswerUnexplained),
    ],
)
async def test_an_answer_without_a_result_never_counts_as_an_empty_one(
    sent: bytes, error: type[TerminalError]
) -> None:
    """An empty one would have every person pushed again."""
    async with scripted({}, otherwise=sent) as (client, _):
        with pytest.raises(error):
            await client.persons.find([NO])


XML_RESULT = b"""<?xml version="1.0"?>
<UserInfoSearch xmlns="http://www.isapi.org/ver20/XMLSchema"><searchID>x</searchID>
<responseStatusStrg>OK</responseStatusStrg><numOfMatches>2</numOfMatches>%s</UserInfoSearch>"""
XML_PERSON = b"""<UserInfo><employeeNo>%d</employeeNo><name>Popescu</name>
<Valid><enable>true</enable>
<beginTime>2020-01-01T00:00:00</beginTime><endTime>2037-12-31T23:59:59</endTime></Valid>
<numOfFace>1</numOfFace></UserInfo>"""


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_result_in_xml_holds_everybody_who_was_found(count: int) -> None:
    numbers = list(range(1001, 1001 + count))
    persons = b"".join(XML_PERSON % number for number in numbers)
    async with scripted({}, otherwise=answer(XML_RESULT % persons)) as (client, _):
        found = await client.persons.find([str(number) for number in numbers])
    assert found == {
        str(number): Found(employee_no=str(number), name="Popescu", access="open", faces=1)
        for number in numbers
    }


@pytest.mark.parametrize(
    ("fields", "faces"),
    [
        ({"numOfFace": 0}, 0),
        ({"numOfFace": 2}, 2),
        ({"numOfFace": '"1"'}, 1),
        ({"faceURL": '"http://x/1.jpg"'}, 1),
        ({"numOfFace": 0, "faceURL": '"http://x/1.jpg"'}, 0),
        ({"faceURL": '""'}, None),
        ({}, None),
        ({"numOfFace": -1}, None),
        ({"numOfFace": "null"}, None),
        ({"numOfFace": "true"}, None),
        ({"numOfFace": '"²"'}, None),
        ({"numOfFace": '"' + "9" * 5000 + '"'}, None),
        ({"numOfFace": "[1]"}, None),
    ],
)
async def test_faces_are_counted_or_unknown(fields: dict[str, object], faces: int | None) -> None:
    async with scripted({}, otherwise=search_result(entry(**fields))) as (client, _):
        assert (await client.persons.find([NO]))[NO].faces == faces


@pytest.mark.parametrize(
    ("valid", "access"),
    [
        ('{"enable": true, "endTime": "2037-12-31T23:59:59"}', "open"),
        ('{"enable": "true", "endTime": "2037-12-31T23:59:59+02:00"}', "open"),
        ('{"enable": true, "endTime": "2037-12-31T23:59"}', "open"),
        ('{"enable": true, "endTime": "2020-01-01T00:00:01"}', "ended"),
        ('{"enable": true, "endTime": "2030-01-01T00:00:00"}', "other"),
        ('{"beginTime": "2020-01-01T02:00:00", "endTime": "2037-12-31T23:59:59"}', "open"),
        ('{"beginTime": "2036-01-01T00:00:00", "endTime": "2037-12-31T23:59:59"}', "other"),
        ('{"beginTime": "2036-01-01T00:00:00", "endTime": "2020-01-01T00:00:01"}', "ended"),
        ('{"beginTime": 7, "endTime": "2037-12-31T23:59:59"}', "open"),
        ('{"enable": false, "endTime": "2020-01-01T00:00:01"}', "permanent"),
        ('{"enable": "false"}', "permanent"),
        ('{"enable": true}', None),
        ('{"enable": true, "endTime": 7}', None),
        ("{}", None),
        ("null", None),
        ('"x"', None),
    ],
)
async def test_access_is_read_from_the_last_day_of_validity(valid: str, access: str | None) -> None:
    async with scripted({}, otherwise=search_result(entry(Valid=valid))) as (client, _):
        assert (await client.persons.find([NO]))[NO].access == access


@pytest.mark.parametrize(("user_type", "access"), [("blackList", "other"), ("visitor", "open")])
async def test_who_is_on_the_block_list_may_not_pass(user_type: str, access: str) -> None:
    valid = '{"enable": true, "endTime": "2037-12-31T23:59:59"}'
    found = entry(Valid=valid, userType=f'"{user_type}"')
    async with scripted({}, otherwise=search_result(found)) as (client, _):
        assert (await client.persons.find([NO]))[NO].access == access


async def test_a_terminal_that_counts_faces_after_all_is_believed_again() -> None:
    found = search_result(entry(numOfFace=1))
    async with scripted({}, otherwise=found) as (client, _):
        await client.persons.note_faces_uncounted()
        assert client.calls.lacks(FACES_COUNTED)
        await client.persons.find([NO])
        assert not client.calls.lacks(FACES_COUNTED)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["²", "٣", "9" * 5000, "false", "2037-12-31", [], {}, [{}]])
)
ENTRIES = st.dictionaries(
    st.sampled_from(["employeeNo", "name", "Valid", "numOfFace", "faceURL"]),
    VALUES | st.dictionaries(st.sampled_from(["enable", "endTime"]), VALUES),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(ENTRIES | VALUES, max_size=4) | VALUES | ENTRIES)
@example([{"employeeNo": "1", "numOfFace": "²"}])
def test_any_entry_of_a_result_is_read_without_an_error(entries: object) -> None:
    fields = {"UserInfoSearch": {"responseStatusStrg": "OK", "UserInfo": entries}}
    found = found_in(
        Answer(http_status=200, status_code=None, code="", detail="", fields=fields),
    )
    assert found is None or all(one.employee_no for one in found.persons)


# Other answers


@pytest.mark.parametrize("http", [200, 400])
@pytest.mark.parametrize("answers", ["json", "xml"])
async def test_a_business_error_is_recognised_under_either_http_status(
    http: Literal[200, 400], answers: Literal["json", "xml"]
) -> None:
    async with visiting(Profile(errors_http=http, answers=answers)) as visit:
        with pytest.raises(DataRefused):
            await visit.client.persons.put("9" * 40, "Popescu Ion")
        assert await visit.client.persons.put(NO, "Popescu Ion", expected_there=True) is False
        assert await visit.client.persons.put(NO, "Popescu Ion", expected_there=True) is True
        assert visit.paths()[1:] == ["PUT Modify", "POST Record", "PUT Modify"]
        await visit.client.persons.end("1002", "Nimeni")
        visit.assert_well_treated()


@pytest.mark.parametrize("charset", ["latin-1", "cp1250", "gb18030", "utf-16"])
@pytest.mark.parametrize("answers", ["json", "xml"])
async def test_a_terminal_of_a_poor_charset_is_never_taken_for_one_without_the_person(
    charset: str, answers: Literal["json", "xml"]
) -> None:
    profile = Profile(charset=charset, answers=answers)
    async with visiting(profile) as visit:
        try:
            await visit.client.persons.put(NO, "Ștefănescu Ana")
            found = await visit.client.persons.find([NO])
        except TerminalError:
            assert charset == "utf-16"  # nobody sends it; no answer of ours in it either
        else:
            assert list(found) == [NO]


BROKEN = {
    "empty": answer(b""),
    "half of an object": answer(OK[:30]),
    "half of a document": answer(b"<ResponseStatus><statusCode>1</statusCode>"),
    "a page": answer(b"<html><body>statusCode 1</body></html>"),
    "a number": answer(b"1"),
    "a list": answer(b"[1]"),
    "a text": answer(b'"statusCode"'),
    "null": answer(b"null"),
    "a page that is not there": answer(b"<html></html>", status="404 Not Found"),
    "moved": answer(b"", status="302 Found", headers="Location: /doc/page/login.asp\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "OK that is an error": answer(OK, status="500 Oops"),
    "a status that is a list": answer(b'{"statusCode":[1]}'),
    "a status beyond reason": answer(b'{"statusCode":1e400}'),
    "a word": answer(b'{"statusCode":"OK"}'),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    "act",
    [
        put,
        lambda client: client.persons.put(NO, "Popescu Ion", expected_there=True),
        lambda client: client.persons.end(NO, "Popescu Ion"),
        lambda client: client.persons.erase(NO),
        lambda client: client.faces.remove(NO),
        lambda client: client.faces.put(NO, "http://x/1.jpg"),
        lambda client: client.persons.find([NO]),
    ],
    ids=["record", "modify", "end_validity", "erase", "remove_face", "put_face", "find"],
)
async def test_an_answer_that_says_nothing_is_never_a_success(act: Act, sent: bytes) -> None:
    async with scripted({}, otherwise=sent) as (client, terminal):
        with pytest.raises(TerminalError) as raised:
            await act(client)
        assert 1 <= len(terminal.requests) <= 6
    assert raised.value.message.isprintable()
    assert "x/1.jpg" not in raised.value.message


async def test_a_truncated_body_is_a_broken_connection_and_no_answer() -> None:
    cut = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99\r\n\r\n" + OK
    async with scripted({}, otherwise=cut, timeout_s=SHORT_S) as (client, _):
        with pytest.raises((TerminalUnreachable, TerminalTimeout)):
            await put(client)
        assert client.calls.answered == 0


# Messages


async def test_every_error_names_its_terminal() -> None:
    async with visiting(password="gresita") as visit:
        with pytest.raises(LoginRefused, match=r"^Terminal 127\.0\.0\.1 refuses"):
            await put(visit.client)
        await visit.terminal.switch_off()
        with pytest.raises(TerminalUnreachable, match=r"^Terminal 127\.0\.0\.1 cannot be reached"):
            await put(visit.client)
    async with visiting(Profile(has_search=False)) as visit:
        for _ in range(2):
            with pytest.raises(NotSupported, match=r"^Terminal 127\.0\.0\.1 "):
                await visit.client.persons.find([NO])
    async with visiting(Profile(busy_every=1)) as visit:
        with pytest.raises(TerminalBusy, match=r"^Terminal 127\.0\.0\.1 "):
            await put(visit.client)
    async with visiting(Profile(delay_s=5), timeout_s=SHORT_S) as visit:
        with pytest.raises(TerminalTimeout, match=r"^Terminal 127\.0\.0\.1 did not answer"):
            await put(visit.client)
    async with visiting(Profile(deletion_s=60)) as visit:
        await put(visit.client)
        with pytest.raises(TerminalBusy, match=r"^Terminal 127\.0\.0\.1 is still erasing"):
            await visit.client.persons.erase(NO)
    async with scripted({}, otherwise=answer(b"hm")) as (client, _):
        with pytest.raises(AnswerUnexplained, match=r"^Terminal 127\.0\.0\.1's answer cannot"):
            await put(client)
    async with scripted({}, otherwise=challenge("Basic realm=x")) as (client, _):
        with pytest.raises(AnswerUnexplained, match=r"^Terminal 127\.0\.0\.1 asks for a login"):
            await put(client)
    async with scripted({}, otherwise=challenge(DIGEST.format(n=1), b"<a/>")) as (client, _):
        with pytest.raises(LoginRefused, match=r"^Terminal 127\.0\.0\.1 "):
            await put(client)


async def test_bad_data_names_what_is_bad() -> None:
    async with visiting() as visit:
        with pytest.raises(DataRefused, match=r"^Terminal 127\.0\.0\.1 does not take this empl"):
            await visit.client.persons.put("9" * 40, "Popescu Ion")


@pytest.mark.parametrize("answers", ["json", "xml"])
async def test_a_full_terminal_says_how_many_it_holds(answers: Literal["json", "xml"]) -> None:
    profile = replace(PROFILES["full"], answers=answers)
    async with visiting(profile, capabilities=None) as visit:
        for n in range(3):
            await visit.client.persons.put(str(n), "Popescu Ion")
        with pytest.raises(TerminalRefused) as raised:
            await put(visit.client)
        assert raised.value.message == "Terminal 127.0.0.1 is full (3 persons)."
        assert await visit.client.persons.put("0", "Popescu Ion") is True  # still


async def test_a_full_terminal_that_does_not_say_how_many_is_full_all_the_same() -> None:
    async with visiting(PROFILES["full"]) as visit:
        for n in range(3):
            await visit.client.persons.put(str(n), "Popescu Ion")
        with pytest.raises(TerminalRefused) as raised:
            await put(visit.client)
        assert raised.value.message.startswith("Terminal 127.0.0.1 is full of persons")


# Names


LONG = "Șerbănescu-Brâncoveanu Ana-Mărioara"


async def test_a_name_is_cut_to_the_declared_length_before_it_is_sent() -> None:
    async with visiting(PROFILES["names_32"], capabilities=None) as visit:
        await visit.client.persons.put(NO, LONG)
        assert visit.paths() == [*IDENTIFYING, "POST Record"]
        assert LONG.startswith(visit.person().name)


async def test_an_undeclared_limit_is_remembered_once_it_is_met() -> None:
    profile = Profile(name_bytes=32, has_capabilities=False)
    async with remembered(profile, capabilities=None) as (visit, memory):
        await visit.client.persons.put(NO, LONG)
        await visit.client.persons.put("1002", LONG)
        assert visit.paths() == [*IDENTIFYING, "POST Record", "POST Record", "POST Record"]
        assert [one.name_bytes for one in memory.learnt] == [None, 32]


async def test_a_refusal_that_a_shorter_name_does_not_prevent_teaches_no_limit() -> None:
    refused = answer(b'{"statusCode":6,"subStatusCode":"badParameters"}', status="400 Bad Request")
    memory = Memory()
    async with scripted({}, otherwise=refused, memory=memory) as (client, terminal):
        with pytest.raises(AnswerUnexplained):
            await client.persons.put(NO, LONG)
        assert len(terminal.requests) == 2
    assert memory.learnt == []


def test_device_info_is_read_as_the_fixtures_of_the_raw_servers_have_it() -> None:
    assert parse(200, DEVICE_XML).fields["serialNumber"] == "S1"


# Trouble that must not count against a terminal for good


DEVICE_INFO = answer(
    b"<DeviceInfo><serialNumber>A1</serialNumber><firmwareVersion>V1</firmwareVersion></DeviceInfo>"
)


async def test_a_terminal_whose_capabilities_hang_is_worked_with_all_the_same() -> None:
    """It is enough that it identifies itself: its capabilities are found out by trying."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"  # and no more comes
    answers = {b"deviceInfo": DEVICE_INFO, b"capabilities": half}
    async with scripted(answers, capabilities=None, timeout_s=0.3) as (client, terminal):
        await put(client)
        assert client.calls.capabilities.serial == "A1"
        assert [target.rpartition("/")[2] for target in targets(terminal)] == [
            "deviceInfo",
            "capabilities",
            "capabilities",
            "Record",
        ]


@pytest.mark.parametrize(("after_trouble", "left"), [(True, ()), (False, ("FDLib/FDModify",))])
async def test_a_call_that_a_starting_terminal_lacked_is_tried_again_after_trouble(
    after_trouble: bool,  # noqa: FBT001 - a case of the table
    left: tuple[str, ...],
) -> None:
    known = replace(KNOWN, serial="A1", firmware="V1")
    answers = {b"deviceInfo": DEVICE_INFO}
    async with scripted(
        answers, capabilities=known, identify=True, after_trouble=after_trouble
    ) as (
        client,
        _,
    ):
        await client.calls.identify()
        assert client.calls.capabilities == replace(known, lacks=left)


async def test_a_terminal_that_does_not_report_on_its_erasing_is_believed_for_now() -> None:
    answers = {b"DeleteProcess": raw_status(404)}
    async with scripted(answers) as (client, terminal):
        await client.persons.erase(NO)
        assert len(terminal.requests) == 2


async def test_a_face_that_exists_even_according_to_fdsetup_is_replaced() -> None:
    exists = answer(
        b'{"statusCode":6,"statusString":"x","subStatusCode":"deviceUserAlreadyExistFace"}'
    )
    async with scripted({b"FDSetUp": exists}) as (client, terminal):
        await client.faces.put(NO, "http://10.0.0.1/1.jpg")
        assert [target.rpartition("/")[2] for target in targets(terminal)] == [
            "FDSetUp",
            "FDModify",
        ]


def raw_status(status: int) -> bytes:
    return f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
