"""How a photo gets to a terminal: by its URL, or by upload, in the form that the firmware takes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LeaseLost,
    LoginRefused,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    PhotoUnusable,
    ReceiverError,
    TerminalBusy,
    TerminalError,
    TerminalRefused,
    TerminalTimeout,
)
from receiver.core.models import Capabilities
from receiver.sandbox.multipart import Part, read_form
from receiver.sandbox.portraits import portrait
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Face, Profile
from receiver.terminals.faces import UPLOAD_PARTS
from tests.support.clients import Memory
from tests.support.pictures import plain
from tests.support.raw_terminals import (
    BUSY,
    DIGEST,
    NO,
    OK,
    SHORT_S,
    Scripted,
    Visit,
    answer,
    challenge,
    raw,
    scripted,
    targets,
    visiting,
)
from tests.support.terminals import PhotoServer, photo_server

JPEG = portrait("ion")
URL = "http://127.0.0.1:1/ion.jpg"
NOWHERE = "http://127.0.0.1:1/nobody.jpg"
Photos = Callable[[str], str]


@dataclass
class Storage:
    """Photos as the receiver fetches them, and the URLs that it was asked for."""

    picture: bytes = JPEG
    fails: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if self.fails:
            raise self.fails
        return self.picture


def face(visit: Visit, number: str = NO) -> Face:
    held = visit.person(number).face
    assert held is not None
    return held


def ways(visit: Visit) -> list[str]:
    """Return the calls about faces, and whether each carried a picture."""
    calls = [c for c in visit.terminal.sightings.calls if c.authenticated and "FDLib" in c.path]
    return [f"{c.path.rpartition('/')[2]}{' upload' * c.uploaded}" for c in calls]


def sub_codes(code: str) -> bytes:
    return answer(
        f'{{"statusCode":6,"statusString":"No","subStatusCode":"{code}"}}'.encode(),
        status="400 Bad Request",
    )


def uploads(terminal: Scripted) -> list[list[Part]]:
    """Return the forms that a raw terminal was sent."""
    return [read_form(*form) for form in map(form_of, terminal.requests) if form is not None]


def form_of(request: bytes) -> tuple[str, bytes] | None:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-type:")]
    media_type = lines[0].partition(b":")[2].strip().decode() if lines else ""
    return (media_type, body) if media_type.startswith("multipart/") else None


# The URL first


async def test_a_photo_that_the_terminal_fetches_is_not_sent(photos: Photos) -> None:
    memory, storage = Memory(), Storage()
    async with visiting(fetch_photo=storage, memory=memory) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        for name in ("ion.jpg", "ion-2.jpg"):
            await visit.client.faces.put(NO, photos(name))
            assert face(visit).url == photos(name)
        assert ways(visit) == ["FDSetUp", "FDSetUp"]
        assert storage.asked == []
        assert [one.photos for one in memory.learnt] == ["url"]  # once
        visit.assert_well_treated()


async def test_a_photo_that_the_terminal_cannot_fetch_is_sent(photos: Photos) -> None:
    memory, storage = Memory(), Storage()
    async with visiting(
        Profile(downloads_photos=False), fetch_photo=storage, memory=memory
    ) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.persons.put("1002", "Ionescu Ana")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert face(visit).url == ""
        assert face(visit).sha256 == hashlib.sha256(JPEG).hexdigest()
        await visit.client.faces.put("1002", photos("ana.jpg"))
        assert ways(visit) == ["FDSetUp", "FDSetUp upload", "FDSetUp upload"]
        assert storage.asked == [photos("ion.jpg"), photos("ana.jpg")]
        assert [(one.photos, one.parts) for one in memory.learnt] == [("upload", 0)]
        visit.assert_well_treated()


async def test_a_url_too_long_for_the_terminal_is_not_tried(photos: Photos) -> None:
    memory, storage = Memory(), Storage()
    url = photos("x" * 300)
    async with visiting(fetch_photo=storage, memory=memory) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, url)
        assert ways(visit) == ["FDSetUp upload"]
        assert memory.learnt == []  # a shorter one may be fetched
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert ways(visit) == ["FDSetUp upload", "FDSetUp"]
        visit.assert_well_treated()


@pytest.mark.parametrize(("length", "sent"), [(256, False), (257, True)])
async def test_the_limit_of_a_url_is_of_bytes_and_inclusive(
    length: int,
    sent: bool,  # noqa: FBT001 - a case of the table
    photos: Photos,
) -> None:
    start = photos("")
    url = start + "ș" + "x" * (length - len(start) - 2)
    assert len(url.encode()) == length
    async with visiting(fetch_photo=Storage()) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, url)
        assert ways(visit)[-1:] == (["FDSetUp upload"] if sent else ["FDSetUp"])


async def test_a_url_that_fits_only_a_newer_terminal_is_given_to_it(photos: Photos) -> None:
    async with visiting(PROFILES["url_only"], capabilities=None) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("x" * 900))
        assert face(visit).url == photos("x" * 900)
        assert visit.client.calls.capabilities.photo_url_bytes == 1024


async def test_a_file_that_the_terminal_does_not_take_is_made_fit_and_sent() -> None:
    """Too large a file, or one that lies on its side, is no fault of the person's face."""
    memory, storage = Memory(), Storage()
    async with photo_server() as server, visiting(fetch_photo=storage, memory=memory) as visit:
        server.pictures["/huge.jpg"] = JPEG + b"\0" * 300_000
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, server.url("/huge.jpg"))
        assert ways(visit) == ["FDSetUp", "FDSetUp upload"]
        assert face(visit).sha256 == hashlib.sha256(JPEG).hexdigest()
        assert memory.learnt == []  # the next file may be taken as it is
        await visit.client.faces.put(NO, server.url("/ion.jpg"))
        assert ways(visit)[2:] == ["FDSetUp"]
        visit.assert_well_treated()


async def test_a_photo_without_a_face_is_tried_once_in_each_form() -> None:
    storage = Storage(picture=plain())
    async with photo_server() as server, visiting(fetch_photo=storage) as visit:
        server.pictures["/wall.jpg"] = plain()
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(DataRefused, match="o face found"):
            await visit.client.faces.put(NO, server.url("/wall.jpg"))
        assert ways(visit) == ["FDSetUp", "FDSetUp upload"]
        assert visit.person().face is None


async def test_photos_are_uploaded_at_once_where_they_were_the_last_time(photos: Photos) -> None:
    storage = Storage()
    known = Capabilities(photos="upload", parts=1)
    async with visiting(PROFILES["upload_only"], capabilities=known, fetch_photo=storage) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert ways(visit) == ["FDSetUp upload"]
        assert storage.asked == [photos("ion.jpg")]


# The names of the parts


@pytest.mark.parametrize("parts", range(len(UPLOAD_PARTS)))
@pytest.mark.parametrize("answers", ["json", "xml"])
async def test_the_names_of_the_parts_are_tried_in_their_order_and_remembered(
    parts: int, answers: Any
) -> None:
    memory = Memory()
    profile = Profile(downloads_photos=False, upload_parts=UPLOAD_PARTS[parts], answers=answers)
    async with visiting(profile, fetch_photo=Storage(), memory=memory) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, URL)
        assert len(ways(visit)) == 2 + parts
        assert (visit.client.calls.capabilities.photos, visit.client.calls.capabilities.parts) == (
            "upload",
            parts,
        )
        assert len(memory.learnt) == (2 if parts else 1)
        await visit.client.faces.put(NO, URL)
        assert len(ways(visit)) == 3 + parts
        assert face(visit).replaced == 1
        visit.assert_well_treated()


async def test_part_names_that_were_remembered_wrongly_are_found_again() -> None:
    known = Capabilities(photos="upload", parts=2)
    memory = Memory()
    async with visiting(capabilities=known, fetch_photo=Storage(), memory=memory) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, URL)
        assert [one.parts for one in memory.learnt] == [0]


@pytest.mark.parametrize("parts", [-1, 3, 99])
async def test_remembered_part_names_beyond_the_table_are_ignored(parts: int) -> None:
    known = Capabilities(photos="upload", parts=parts)
    async with visiting(capabilities=known, fetch_photo=Storage()) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, URL)
        assert visit.client.calls.capabilities.parts == 0


async def test_an_upload_is_the_documented_form() -> None:
    """terminals/README.md, Calls: JSON first and without a file name, then the picture with one."""
    known = Capabilities(photos="upload")
    async with scripted(
        {b"/FDSetUp": sub_codes("badParameters")}, capabilities=known, fetch_photo=Storage()
    ) as (client, terminal):
        with pytest.raises(AnswerUnexplained):
            await client.faces.put(NO, URL)
        forms = uploads(terminal)
    assert len(forms) == len(UPLOAD_PARTS) == len(terminal.requests) - 1
    for (record, picture), names in zip(forms, UPLOAD_PARTS, strict=True):
        assert (record.name, picture.name) == names
        assert (record.filename, record.content_type) == (None, "application/json")
        assert json.loads(record.content) == {"faceLibType": "blackFD", "FDID": "1", "FPID": NO}
        assert (picture.filename, picture.content_type) == (f"{NO}.jpg", "image/jpeg")
        assert picture.content == JPEG
    assert all(b"PUT /ISAPI/Intelligent/FDLib/FDSetUp?format=json " in r for r in terminal.requests)
    assert [URL.encode() in request for request in terminal.requests] == [False] * 3 + [True]


async def test_a_stale_nonce_does_not_cost_the_picture() -> None:
    """Each attempt sends the whole body again."""

    def script(n: int, _: bytes) -> bytes:
        if n == 4:
            return answer(OK)
        return challenge(DIGEST.format(n=n) + (", stale=true" if n == 2 else ""))

    terminal = Scripted(script)
    async with raw(
        terminal, fetch_photo=Storage(), capabilities=Capabilities(photos="upload")
    ) as client:
        await client.faces.put(NO, URL)
    forms = uploads(terminal)
    assert [[part.content for part in form][1] for form in forms] == [JPEG] * 4


async def test_every_upload_begins_without_credentials_and_is_whole_each_time() -> None:
    known = Capabilities(photos="upload")
    async with visiting(capabilities=known, fetch_photo=Storage()) as visit:
        for number in ("1001", "1002"):
            await visit.client.persons.put(number, "Popescu Ion")
            await visit.client.faces.put(number, URL)
            assert face(visit, number).size == len(JPEG)
        assert visit.authorizations[::2] == [None] * (len(visit.authorizations) // 2)
        visit.assert_well_treated()


@pytest.mark.parametrize("has_fd_modify", [True, False])
async def test_an_upload_replaces_a_face_where_there_is_no_fd_set_up(
    has_fd_modify: bool,  # noqa: FBT001 - a case of the table
) -> None:
    memory = Memory()
    profile = Profile(downloads_photos=False, has_fd_setup=False, has_fd_modify=has_fd_modify)
    storage = Storage()
    async with visiting(profile, fetch_photo=storage, memory=memory) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, URL)
        assert ways(visit) == ["FDSetUp", "FaceDataRecord", "FaceDataRecord upload"]
        storage.picture = portrait("ion 2")
        await visit.client.faces.put(NO, URL)
        assert face(visit).sha256 == hashlib.sha256(storage.picture).hexdigest()
        before = len(ways(visit))
        await visit.client.faces.put(NO, URL)
        again = ways(visit)[before:]
        if has_fd_modify:
            assert again == ["FaceDataRecord upload", "FDModify upload"]
        else:
            assert again == ["FaceDataRecord upload", "Delete", "FaceDataRecord upload"]
        lacks = ("FDLib/FDSetUp",) if has_fd_modify else ("FDLib/FDSetUp", "FDLib/FDModify")
        assert memory.learnt[-1] == Capabilities(photos="upload", lacks=lacks)
        assert visit.terminal.sightings.deletions_not_of_one == 0
        visit.assert_well_treated()


@pytest.mark.parametrize("missing", ["404", "405", "403"])
async def test_without_fd_modify_the_old_face_goes_before_the_new_one(
    missing: Any, photos: Photos
) -> None:
    profile = Profile(
        has_fd_setup=False, has_fd_modify=False, has_fd_search_delete=False, missing=missing
    )
    async with visiting(profile) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        for name in ("ion.jpg", "ion-2.jpg", "ion-3.jpg"):
            await visit.client.faces.put(NO, photos(name))
            assert face(visit).url == photos(name)
        last = ["FaceDataRecord", "FDDelete", "FaceDataRecord"]
        assert ways(visit)[-3:] == last
        lacks = {"FDLib/FDSetUp", "FDLib/FDModify", "FDLib/FDSearch/Delete"}
        assert set(visit.client.calls.capabilities.lacks) == lacks
        visit.assert_well_treated()


# Refusals that lead to no other form


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("deviceBusy", TerminalBusy),
        ("deviceFaceFull", TerminalRefused),
        ("faceLibraryIDError", TerminalRefused),
        ("lowPrivilege", TerminalRefused),
        ("deviceUserNotExist", PersonAbsent),
        ("badAuthorization", LoginRefused),
    ],
)
async def test_a_refusal_that_is_not_about_the_form_leads_to_no_other_form(
    code: str, error: type[TerminalError]
) -> None:
    for known in (Capabilities(), Capabilities(photos="upload")):
        storage = Storage()
        async with scripted(
            {}, otherwise=sub_codes(code), capabilities=known, fetch_photo=storage
        ) as (
            client,
            terminal,
        ):
            with pytest.raises(error):
                await client.faces.put(NO, URL)
            assert len(terminal.requests) == 1
        assert storage.asked == ([URL] if known.photos else [])


async def test_a_full_terminal_is_not_sent_the_photo(photos: Photos) -> None:
    storage = Storage()
    async with visiting(Profile(max_faces=1), fetch_photo=storage) as visit:
        for number in (NO, "1002"):
            await visit.client.persons.put(number, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        with pytest.raises(TerminalRefused, match="full of faces"):
            await visit.client.faces.put("1002", photos("ana.jpg"))
        assert ways(visit) == ["FDSetUp", "FDSetUp"]
        await visit.client.faces.put(NO, photos("ion-2.jpg"))  # not one face more
        assert storage.asked == []


async def test_a_terminal_that_is_busy_at_the_upload_is_busy() -> None:
    def script(n: int, _: bytes) -> bytes:
        return sub_codes("urlDownloadFail") if n == 1 else answer(BUSY)

    memory = Memory()
    terminal = Scripted(script)
    async with raw(terminal, fetch_photo=Storage(), memory=memory) as client:
        with pytest.raises(TerminalBusy):
            await client.faces.put(NO, URL)
        assert len(terminal.requests) == 2
    assert memory.learnt == []


# Photos that cannot be fetched


@pytest.mark.parametrize("error", [PhotoNotFetched("Not there."), PhotoUnusable("No picture.")])
async def test_a_photo_that_neither_side_can_fetch_gives_our_error(
    error: TerminalError,
) -> None:
    async with visiting(fetch_photo=Storage(fails=error)) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        for url in (NOWHERE, NOWHERE + "x" * 300):  # fetched by it first, and by us alone
            with pytest.raises(type(error)) as raised:
                await visit.client.faces.put(NO, url)
            assert raised.value is error
        assert ways(visit) == ["FDSetUp"]


async def test_a_refusal_of_the_photo_stands_where_we_cannot_fetch_the_photo() -> None:
    storage = Storage(fails=PhotoNotFetched("Not there."))
    async with photo_server() as server, visiting(fetch_photo=storage) as visit:
        server.pictures["/wall.jpg"] = plain()
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(DataRefused, match="o face found"):
            await visit.client.faces.put(NO, server.url("/wall.jpg"))


@pytest.mark.parametrize("forbidden", [LeaseLost()])
async def test_a_lease_lost_before_a_photo_is_fetched_is_no_error_of_the_photo(
    forbidden: ReceiverError,
) -> None:
    async with visiting(fetch_photo=Storage(fails=forbidden)) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(LeaseLost):
            await visit.client.faces.put(NO, NOWHERE)
        assert ways(visit) == ["FDSetUp"]


NEITHER = Profile(downloads_photos=False, takes_uploads=False)


async def test_the_first_refusal_stands_where_a_photo_arrives_neither_way() -> None:
    memory = Memory()
    async with visiting(NEITHER, fetch_photo=Storage(), memory=memory) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(PhotoNotFetched, match=r"^Terminal 127\.0\.0\.1 could not download"):
            await visit.client.faces.put(NO, URL)
        assert len(ways(visit)) == 1 + len(UPLOAD_PARTS)
        assert memory.learnt == []  # nothing useful, and nothing wrong


async def test_the_error_says_that_a_terminal_takes_no_upload_where_a_url_is_too_long() -> None:
    async with visiting(Profile(takes_uploads=False), fetch_photo=Storage()) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        with pytest.raises(NotSupported) as raised:
            await visit.client.faces.put(NO, "http://127.0.0.1/" + "x" * 300)
        assert "takes no upload" in raised.value.message
        assert raised.value.message.startswith("Terminal 127.0.0.1 ")


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
async def test_the_first_refusal_stands_for_a_terminal_without_faces(
    status: str,
) -> None:
    missing = answer(b"", status=status)
    async with scripted({}, otherwise=missing, fetch_photo=Storage()) as (client, terminal):
        with pytest.raises(NotSupported):
            await client.faces.put(NO, URL)
        assert {t.rpartition("/")[2] for t in targets(terminal)} == {"FDSetUp", "FaceDataRecord"}
        assert targets(terminal).count("PUT /ISAPI/Intelligent/FDLib/FDSetUp") == 1


async def test_an_unexplained_refusal_of_a_url_leads_to_an_upload() -> None:
    """badJsonFormat also comes for photos over 200 KB (CH)."""

    def script(n: int, _: bytes) -> bytes:
        return sub_codes("badJsonFormat") if n == 1 else answer(OK)

    memory, terminal = Memory(), Scripted(script)
    async with raw(terminal, fetch_photo=Storage(), memory=memory) as client:
        await client.faces.put(NO, URL)
        assert len(terminal.requests) == 2
    assert memory.learnt == []


async def test_photos_are_sent_to_a_terminal_that_cannot_reach_their_host() -> None:
    def script(_: int, request: bytes) -> bytes:
        return answer(OK) if form_of(request) else sub_codes("networkError")

    async with raw(Scripted(script), fetch_photo=Storage()) as client:
        await client.faces.put(NO, URL)
        with pytest.raises(TerminalBusy):
            await client.persons.put(NO, "Popescu Ion")


async def test_the_first_of_two_unexplained_refusals_stands() -> None:
    async with scripted({}, otherwise=answer(b"<html></html>"), fetch_photo=Storage()) as (
        client,
        _,
    ):
        with pytest.raises(AnswerUnexplained, match="HTTP 200"):
            await client.faces.put(NO, URL)


# Removing


async def test_removing_a_face_names_one_number_and_never_none(photos: Photos) -> None:
    async with visiting() as visit:
        for number in (NO, "1002"):
            await visit.client.persons.put(number, "Popescu Ion")
            await visit.client.faces.put(number, photos("ion.jpg"))
        with pytest.raises(ValueError, match="number"):
            await visit.client.faces.remove("")
        await visit.client.faces.remove(NO)
        await visit.client.faces.remove(NO)  # no face there
        await visit.client.faces.remove("9")  # no such person
        assert visit.person().face is None
        assert visit.person("1002").face is not None
        assert visit.terminal.sightings.deletions_not_of_one == 0
        visit.assert_well_treated()


# Every profile


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"busy", "busy_200", "lying"}))
async def test_a_photo_reaches_a_terminal_of_every_profile(name: str) -> None:
    async with photo_server() as server:
        storage = Storage()
        async with visiting(PROFILES[name], capabilities=None, fetch_photo=storage) as visit:
            await visit.client.persons.put(NO, "Popescu Ion")
            await visit.client.faces.put(NO, server.url())
            first = face(visit)
            server.pictures["/ion.jpg"] = storage.picture = portrait("ion 2")
            await visit.client.faces.put(NO, server.url())
            assert face(visit).likeness != first.likeness
            await visit.client.faces.remove(NO)
            assert visit.person().face is None
            known = visit.client.calls.capabilities
            visit.assert_well_treated()
        async with visiting(
            PROFILES[name], capabilities=replace(known), fetch_photo=storage
        ) as later:
            await later.client.persons.put(NO, "Popescu Ion")
            await later.client.faces.put(NO, server.url())
            assert len(ways(later)) == 1  # nothing is found out twice
            later.assert_well_treated()


async def test_only_the_terminal_asks_the_server_of_the_photos() -> None:
    async with photo_server() as server, visiting() as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, server.url())
        assert isinstance(server, PhotoServer)
        assert server.asked == ["/ion.jpg"]


# Uploads that a terminal took once, and takes no more


async def test_a_photo_that_only_the_terminal_may_fetch_goes_by_url_after_all(
    photos: Photos,
) -> None:
    """It lies on a host that PHOTO_HOSTS does not name; uploads were learnt from another photo."""
    known = Capabilities(photos="upload")
    async with visiting(capabilities=known, fetch_photo=Storage(fails=PhotoUnusable())) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert face(visit).url == photos("ion.jpg")
        with pytest.raises(PhotoUnusable):
            await visit.client.faces.put(NO, NOWHERE)


@pytest.mark.parametrize(
    "odd",
    [
        answer(b"<html>proxy</html>"),
        answer(b""),
        answer(b'{"statusCode":'),
        sub_codes("someNewInternalError"),
        sub_codes("urlDownloadFail"),
    ],
)
async def test_one_odd_answer_does_not_mean_that_a_terminal_takes_no_uploads(
    odd: bytes,
) -> None:
    """It refuses the other part names for good reason; but the photo must be tried again."""

    def script(n: int, _: bytes) -> bytes:
        return odd if n == 1 else sub_codes("badParameters")

    memory, terminal = Memory(), Scripted(script)
    known = Capabilities(photos="upload")
    async with raw(terminal, capabilities=known, fetch_photo=Storage(), memory=memory) as client:
        with pytest.raises((AnswerUnexplained, PhotoNotFetched)):
            await client.faces.put(NO, URL)
        assert len(terminal.requests) == len(UPLOAD_PARTS) + 1  # and by URL
    assert memory.learnt == []


async def test_a_terminal_that_is_silent_over_a_url_is_sent_the_next_photo() -> None:
    """It waits for a host that it cannot reach, longer than we wait for it."""

    def script(n: int, _: bytes) -> bytes:
        return b"" if n == 1 else answer(OK)

    terminal = Scripted(script)
    async with raw(terminal, fetch_photo=Storage(), face_timeout_s=SHORT_S) as client:
        with pytest.raises(TerminalTimeout):
            await client.faces.put(NO, URL)
        await client.faces.put(NO, URL)
    assert [form_of(request) is not None for request in terminal.requests] == [False, True]


async def test_a_terminal_that_fetches_slowly_and_takes_no_upload_is_given_urls_again() -> None:
    known = Capabilities(photos="upload")  # believed after it was silent once
    profile = Profile(takes_uploads=False)
    async with (
        photo_server() as server,
        visiting(profile, capabilities=known, fetch_photo=Storage()) as visit,
    ):
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, server.url("/ion.jpg"))
        assert visit.client.calls.capabilities.photos == "url"


async def test_a_busy_face_library_does_not_mean_that_a_person_has_no_face() -> None:
    async with scripted({b"/FDSearch": answer(BUSY)}) as (client, _):
        with pytest.raises(TerminalBusy):
            await client.faces.has(NO)
    async with scripted({b"/FDSearch": answer(b"", status="404 Not Found")}) as (client, _):
        assert not await client.faces.has(NO)


async def test_a_firmware_that_takes_uploads_no_more_gets_the_url_again(photos: Photos) -> None:
    known = Capabilities(photos="upload")
    profile = Profile(takes_uploads=False)
    async with visiting(profile, capabilities=known, fetch_photo=Storage()) as visit:
        await visit.client.persons.put(NO, "Popescu Ion")
        await visit.client.faces.put(NO, photos("ion.jpg"))
        assert face(visit).url == photos("ion.jpg")
        assert visit.client.calls.capabilities.photos == "url"
