"""The face calls of a simulated terminal: Intelligent/FDLib (terminals/README.md, Calls).

The terminal fetches the picture itself from faceURL, or is sent the bytes beside the JSON.
"""

import asyncio
import functools
import hashlib
import ssl
from http import HTTPStatus

import httpx

from receiver.sandbox.terminal.answers import OK, Document, Refusal
from receiver.sandbox.terminal.memory import Device, Face, Person
from receiver.sandbox.terminal.payloads import Fields, Request
from receiver.sandbox.terminal.pictures import model

_FACE_LIB_TYPE = "blackFD"
_FDID = "1"
_FPID_BYTES = 63
_LIBRARY = ("faceLibType", "FDID", "FPID")
_FACE_DATA_OF_UPLOAD = (*_LIBRARY, "name", "bornTime")
_FACE_DATA_RECORD = (*_FACE_DATA_OF_UPLOAD, "faceURL")

_DOWNLOAD_BYTES = 10 * 1024 * 1024
_DOWNLOAD_S = 5.0


class FaceCalls:
    """Carries out the calls about faces on the memory of `device`."""

    def __init__(self, device: Device) -> None:
        self._device = device

    async def capabilities(self, _: Request) -> Document:
        """Declare this firmware's limits: flat on DS-K1T321MFWX, nested on others."""
        profile = self._device.profile
        functions = ["post", "delete", *(["put"] if profile.has_fd_modify else []), "get"]
        found: dict[str, object] = {
            "supportFDFunction": ",".join(functions + ["setUp"] * profile.has_fd_setup),
            "FDRecordDataMaxNum": profile.max_faces,
            "faceURLLen": profile.face_url_bytes,
        }
        return {"FDLibCap": found} if profile.fd_capabilities == "wrapped" else found

    async def record(self, request: Request) -> Document:
        """Add a face; the person must have none."""
        fields, person = self._face_data_record(request)
        if person.face is not None:
            raise Refusal("deviceUserAlreadyExistFace")
        await self._keep(request, fields, person.employee_no)
        return None

    async def set_up(self, request: Request) -> Document:
        """Add a face, or overwrite the one there is."""
        fields, person = self._face_data_record(request)
        await self._keep(request, fields, person.employee_no)
        return None

    async def modify(self, request: Request) -> Document:
        """Overwrite a face; there must be one."""
        fields, person = self._face_data_record(request)
        if person.face is None:
            raise Refusal("deleteNoExistFace")  # which code a real terminal uses is unconfirmed
        await self._keep(request, fields, person.employee_no)
        return None

    async def search(self, request: Request) -> Document:
        """Page through the faces, or find the one of FPID."""
        fields = self._fields(request, (*_LIBRARY, "searchResultPosition", "maxResults"))
        _check_library(fields)
        position, size = fields.number("searchResultPosition"), fields.number("maxResults")
        if position < 0 or size < 1:
            raise Refusal("badParameters", "searchResultPosition" if position < 0 else "maxResults")
        fpid = _fpid(fields) if "FPID" in fields else None
        request.employee_no = fpid
        matches = [
            {
                "FPID": person.employee_no,
                "faceURL": person.face.url or self._device.face_url(person),
            }
            for person in self._device.persons.values()
            if person.face is not None and fpid in (None, person.employee_no)
        ]
        page = matches[position : position + size]
        more = position + len(page) < len(matches)
        found: dict[str, object] = {
            **OK,
            "responseStatusStrg": ("MORE" if more else "OK") if page else "NO MATCH",
            "numOfMatches": len(page),
            "totalMatches": len(matches),
        }
        if page:  # absent on NO MATCH, as UserInfo is in Search
            found["MatchList"] = page
        return found

    async def delete(self, request: Request) -> Document:
        """Delete the faces of the persons listed; the library is named in the query."""
        if request.query.get("FDID") != _FDID:
            raise Refusal("faceLibraryIDError", "FDID")
        if request.query.get("faceLibType") != _FACE_LIB_TYPE:
            raise Refusal("badParameters", "faceLibType")
        fields = self._fields(request, ("FPID",))
        numbers = [one.text("value") for one in fields.objects("FPID", ("value",))]
        if not numbers:
            raise Refusal("MessageParametersLack", "FPID")
        request.employee_no = numbers[0]
        holders = [self._device.persons.get(number) for number in numbers]
        for person in holders:
            if person is None or person.face is None:
                raise Refusal("deleteNoExistFace", "FPID")
        for number in numbers:
            self._device.persons[number].face = None
        return None

    def _fields(self, request: Request, known: tuple[str, ...]) -> Fields:
        seen_unknown = self._device.sightings.unknown_field
        return Fields("", request.payload, known=known, seen_unknown=seen_unknown)

    def _face_data_record(self, request: Request) -> tuple[Fields, Person]:
        if "FaceDataRecord" in request.payload:  # DS-K1T321MFWX wants the flat form
            raise Refusal("badJsonContent", "faceLibType")
        known = _FACE_DATA_RECORD if request.picture is None else _FACE_DATA_OF_UPLOAD
        fields = self._fields(request, known)
        request.employee_no = _fpid(fields)
        _check_library(fields)
        if (
            request.picture is None
            and len(fields.text("faceURL").encode()) > self._device.profile.face_url_bytes
        ):
            raise Refusal("badJsonContent", "faceURL")
        return fields, self._holder(request.employee_no)

    def _holder(self, employee_no: str) -> Person:
        person = self._device.persons.get(employee_no)
        if person is None:
            raise Refusal("deviceUserNotExist", "FPID")
        return person

    async def _keep(self, request: Request, fields: Fields, employee_no: str) -> None:
        url, picture = "", request.picture
        if picture is None:
            url = fields.text("faceURL")
            picture = await self._picture(url)
        seen = await asyncio.to_thread(model, picture, uploaded=not url)
        await asyncio.sleep(self._device.profile.face_delay_s)  # modelling
        person = self._holder(employee_no)  # they may have gone meanwhile
        held = sum(person.face is not None for person in self._device.persons.values())
        if person.face is None and held >= self._device.profile.max_faces:
            raise Refusal("deviceFaceFull")
        person.face = Face(
            url=url,
            sha256=hashlib.sha256(picture).hexdigest(),
            size=len(picture),
            likeness=seen,
            replaced=0 if person.face is None else person.face.replaced + 1,
        )

    async def _picture(self, url: str) -> bytes:
        """Fetch the picture as the terminal does; any failure is urlDownloadFail."""
        if not self._device.profile.downloads_photos or not url.startswith(("http://", "https://")):
            raise Refusal("urlDownloadFail", "faceURL")
        try:
            async with asyncio.timeout(_DOWNLOAD_S):
                return await _download(url)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnicodeError) as exc:
            raise Refusal("urlDownloadFail", "faceURL") from exc


async def _download(url: str) -> bytes:
    picture = bytearray()
    async with (
        httpx.AsyncClient(
            verify=_trust(), trust_env=False, follow_redirects=False, timeout=_DOWNLOAD_S
        ) as client,
        client.stream("GET", url) as answer,
    ):
        if answer.status_code != HTTPStatus.OK:
            raise Refusal("urlDownloadFail", "faceURL")
        async for chunk in answer.aiter_bytes():
            picture += chunk
            if len(picture) > _DOWNLOAD_BYTES:
                raise Refusal("urlDownloadFail", "faceURL")
    return bytes(picture)


@functools.cache
def _trust() -> ssl.SSLContext:
    # Loading the certificates takes longer than a photo does, and would block the loop each time.
    return httpx.create_ssl_context(trust_env=False)


def _check_library(fields: Fields) -> None:
    if fields.text("faceLibType") != _FACE_LIB_TYPE:
        raise Refusal("badParameters", "faceLibType")
    if fields.text("FDID") != _FDID:
        raise Refusal("faceLibraryIDError", "FDID")


def _fpid(fields: Fields) -> str:
    fpid = fields.text("FPID")
    if not 1 <= len(fpid.encode()) <= _FPID_BYTES:
        raise Refusal("illegalEmployeeNo", "FPID")
    return fpid
