"""A person's face on one terminal: by URL where the terminal fetches it, by upload where not.

A photo gets there in two ways, a face replaces another in three, the parts of an upload have three
pairs of names: which of them a firmware takes is found out once and remembered.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    NotSupported,
    PhotoNotFetched,
    PhotoUnusable,
    TerminalBusy,
    TerminalError,
    TerminalTimeout,
)
from receiver.terminals.answers import FACE_ABSENT, FACE_EXISTS, Answer
from receiver.terminals.calls import FACE_LIBRARY, Calls, Way
from receiver.terminals.exchange import Body, Part

FetchPhoto = Callable[[str], Awaitable[bytes]]
"""Fetches the photo at a URL as a JPEG that terminals take; raises TerminalError."""

SET_UP: Final = Way(method="PUT", path=f"{FACE_LIBRARY}/FDSetUp")
RECORD: Final = Way(method="POST", path=f"{FACE_LIBRARY}/FaceDataRecord")
MODIFY: Final = Way(method="PUT", path=f"{FACE_LIBRARY}/FDModify")
DELETE: Final = (
    Way(method="PUT", path=f"{FACE_LIBRARY}/FDSearch/Delete"),
    Way(method="PUT", path=f"{FACE_LIBRARY}/FDDelete"),  # CH
)
SEARCH: Final = Way(method="POST", path=f"{FACE_LIBRARY}/FDSearch")
LIBRARY: Final = {"FDID": "1", "faceLibType": "blackFD"}

UPLOAD_PARTS: Final = (
    ("FaceDataRecord", "img"),  # SK on FDSetUp, FG on FaceDataRecord
    ("FaceDataRecord", "FaceImage"),  # G1; CH on FDSetUp
    ("faceURL", "img"),  # G2
)

BY_OTHER_FORM: Final = (AnswerUnexplained, DataRefused, NotSupported, PhotoNotFetched)
"""Refusals of a photo's URL that may not be of the photo: too large a file, one that lies on its
side, or nothing that this terminal can fetch. An upload is made fit."""
NO_WAY_THERE: Final = frozenset({"networkError"})
"""Elsewhere transient; of a photo's URL it means that the terminal cannot reach the host."""
BY_OTHER_NAMES: Final = (AnswerUnexplained, NotSupported, PhotoNotFetched)


class Faces:
    """The faces of one terminal."""

    def __init__(self, calls: Calls, fetch_photo: FetchPhoto) -> None:
        self._calls = calls
        self._fetch_photo = fetch_photo

    async def put(self, employee_no: str, photo_url: str) -> None:
        """Put this photo on the terminal as the person's only face."""
        await self._calls.identify()
        by_url = len(photo_url.encode()) <= self._calls.capabilities.photo_url_bytes
        if self._calls.capabilities.photos == "upload" or not by_url:
            try:
                picture = await self._fetch_photo(photo_url)
            except (PhotoNotFetched, PhotoUnusable):
                # The terminal may be able to fetch it where the receiver may not.
                if by_url and (await self._by_url(employee_no, photo_url)).ok:
                    return
                raise
            try:
                await self._upload(employee_no, picture)
            except BY_OTHER_NAMES:  # it takes no upload any more, or not yet
                if not by_url or not (await self._by_url(employee_no, photo_url)).ok:
                    raise
                await self._calls.learn(replace(self._calls.capabilities, photos="url"))
            return
        try:
            answer = await self._by_url(employee_no, photo_url)
        except TerminalTimeout:  # perhaps it waits for a host that it cannot reach
            await self.prefer_upload()
            raise
        if answer.ok:
            if self._calls.capabilities.photos != "url":
                await self._calls.learn(replace(self._calls.capabilities, photos="url"))
            return
        refused = self._calls.error(answer)
        if not (isinstance(refused, BY_OTHER_FORM) or answer.says(NO_WAY_THERE)):
            raise refused
        await self._upload_instead(employee_no, photo_url, refused)

    async def prefer_upload(self) -> None:
        """Upload photos from now on: the terminal did not fetch one by its URL."""
        if self._calls.capabilities.photos != "upload":
            await self._calls.learn(replace(self._calls.capabilities, photos="upload"))

    async def remove(self, employee_no: str) -> None:
        """Remove this person's face, if the terminal holds one."""
        if not employee_no:
            raise ValueError("remove needs a number")
        body = {"FPID": [{"value": employee_no}]}
        answer = await self._calls.by_first(DELETE, body, params=LIBRARY)
        if not answer.says(FACE_ABSENT):
            self._calls.require_ok(answer)

    async def has(self, employee_no: str) -> bool:
        """Return whether the face library has a face of this person; False where it cannot say.

        Raises TerminalBusy where it can, but not now.
        """
        search = {"searchResultPosition": 0, "maxResults": 1, **_record(employee_no)}
        answer = await self._calls.call(SEARCH, search)
        if not answer.ok and isinstance(busy := self._calls.error(answer), TerminalBusy):
            raise busy
        matches = answer.fields.get("numOfMatches") or answer.fields.get("totalMatches")
        return answer.ok and str(matches or 0) != "0"

    async def _upload_instead(
        self, employee_no: str, photo_url: str, refused: TerminalError
    ) -> None:
        """Upload a photo whose URL was refused; where that cannot be done, raise that refusal."""
        fetching = isinstance(refused, PhotoNotFetched)
        try:
            picture = await self._fetch_photo(photo_url)
        except TerminalError as error:
            raise (error if fetching else refused) from error
        try:
            await self._upload(employee_no, picture)
        except NotSupported:
            raise refused from None
        if fetching or isinstance(refused, NotSupported):
            await self.prefer_upload()

    async def _by_url(self, employee_no: str, photo_url: str) -> Answer:
        # Flat: wrapped in FaceDataRecord it is rejected (DS-K1T321MFWX).
        return await self._set(employee_no, {"faceURL": photo_url, **_record(employee_no)})

    async def _upload(self, employee_no: str, picture: bytes) -> None:
        """Send the picture under the names that the terminal takes; raise NotSupported if none.

        Where an upload has worked before, the answer to its names tells what went wrong.
        """
        first: TerminalError | None = None
        record = json.dumps(_record(employee_no)).encode()
        order = sorted(
            range(len(UPLOAD_PARTS)), key=lambda names: names != self._calls.capabilities.parts
        )
        for names in order:
            form, image = UPLOAD_PARTS[names]
            answer = await self._set(
                employee_no,
                [
                    Part(name=form, content=record, media_type="application/json"),
                    Part(
                        name=image,
                        content=picture,
                        media_type="image/jpeg",
                        file=f"{employee_no}.jpg",
                    ),
                ],
            )
            if answer.ok:
                if names != self._calls.capabilities.parts:
                    await self._calls.learn(replace(self._calls.capabilities, parts=names))
                return
            refused = self._calls.error(answer)
            if not isinstance(refused, BY_OTHER_NAMES):
                raise refused
            first = first or refused
        if (
            first
            and self._calls.capabilities.photos == "upload"
            and not isinstance(first, NotSupported)
        ):
            raise first
        raise NotSupported(f"{refused.message} It takes no upload of photos either.")

    async def _set(self, employee_no: str, body: Body) -> Answer:
        """Add the face, or replace the one there is.

        FDSetUp does both. Where the firmware lacks it (FG: 404), FaceDataRecord only adds and
        FDModify only replaces; where it lacks FDModify too, the old face is removed first.
        """
        first = RECORD if self._calls.lacks(SET_UP) else SET_UP
        answer = await self._face_call(first, body)
        if first is SET_UP and answer.unsupported:
            await self._calls.note_lack(SET_UP, answer)
            answer = await self._face_call(RECORD, body)
        if not answer.says(FACE_EXISTS):
            return answer
        if not self._calls.lacks(MODIFY):
            answer = await self._face_call(MODIFY, body)
            if not answer.unsupported:
                return answer
            await self._calls.note_lack(MODIFY, answer)
        await self.remove(employee_no)
        return await self._face_call(RECORD, body)

    async def _face_call(self, way: Way, body: Body) -> Answer:
        return await self._calls.call(way, body, is_of_face=True)


def _record(employee_no: str) -> Mapping[str, Any]:
    return {"faceLibType": "blackFD", "FDID": "1", "FPID": employee_no}
