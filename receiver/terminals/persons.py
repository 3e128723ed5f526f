"""The persons on one terminal: put, end, erase, find; which call follows which answer."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from receiver.core.errors import AnswerUnexplained, NotSupported, TerminalBusy
from receiver.core.models import Found
from receiver.terminals.answers import NAME_REFUSED, PERSON_ABSENT, PERSON_EXISTS, Answer
from receiver.terminals.calls import USER_DETAIL, USER_INFO, Calls, Way
from receiver.terminals.faces import Faces
from receiver.terminals.user_info import (
    ENDED_AT,
    VALID_TO,
    SearchResult,
    cut,
    found_in,
    person,
)

RECORD: Final = (Way(method="POST", path=f"{USER_INFO}/Record"),)
MODIFY: Final = (
    Way(method="PUT", path=f"{USER_INFO}/Modify"),
    Way(method="POST", path=f"{USER_INFO}/Modify"),  # BL
)
SEARCH: Final = Way(method="POST", path=f"{USER_INFO}/Search")
FACES_COUNTED: Final = Way(method="POST", path=f"{USER_INFO}/Search numOfFace")
SEARCH_BY_NUMBER: Final = Way(method="POST", path=f"{USER_INFO}/Search by EmployeeNoList")
DELETE_ALL_OF: Final = Way(method="PUT", path=f"{USER_DETAIL}/Delete")
DELETE_PROCESS: Final = Way(method="GET", path=f"{USER_DETAIL}/DeleteProcess")
DELETE: Final = Way(method="PUT", path=f"{USER_INFO}/Delete")

ERASE_POLLS: Final = 10
ERASE_POLL_S: Final = 0.3
"""Between two polls, also where no pause between calls is configured."""
SHORT_NAME_BYTES: Final = 32
"""What the shortest name field takes, in UTF-8 (HA, FG); others take 128 (SK)."""
MAX_PAGES: Final = 10_000


def new_search() -> str:
    """Return what tells one search from another; the pages of one have the same."""
    return uuid.uuid4().hex


class Persons:
    """The persons of one terminal."""

    def __init__(self, calls: Calls, faces: Faces) -> None:
        self._calls = calls
        self._faces = faces

    async def put(self, employee_no: str, name: str, *, expected_there: bool = False) -> bool:
        """Put this person on the terminal under this name; return whether it held them before.

        Record fails where the person is present and Modify where it is absent (G1 p.85), so each
        says what was there; where `expected_there` is right, one call is enough.
        """
        for ways, otherwise in (
            ((MODIFY, PERSON_ABSENT), (RECORD, PERSON_EXISTS))
            if expected_there
            else ((RECORD, PERSON_EXISTS), (MODIFY, PERSON_ABSENT))
        ):
            answer = await self._send_person(ways, employee_no, name, VALID_TO)
            if not answer.says(otherwise):
                break
        self._calls.require_ok(answer)
        return ways is MODIFY

    async def end(self, employee_no: str, name: str) -> bool:
        """End a person's access; everything else stays. Return whether the terminal holds them."""
        answer = await self._send_person(MODIFY, employee_no, name, ENDED_AT)
        if answer.says(PERSON_ABSENT):
            return False
        self._calls.require_ok(answer)
        return True

    async def erase(self, employee_no: str) -> None:
        """Erase a person with face and cards, if the terminal holds them.

        An empty list of numbers would erase everybody (G1 p.301).
        """
        if not employee_no:
            raise ValueError("erase needs a number: without one a terminal erases everybody")
        numbers = [{"employeeNo": employee_no}]
        if not self._calls.lacks(DELETE_ALL_OF):
            detail = {"mode": "byEmployeeNo", "EmployeeNoList": numbers}
            answer = await self._calls.call(DELETE_ALL_OF, {"UserInfoDetail": detail})
            if answer.says(PERSON_ABSENT):
                return
            if not answer.unsupported:
                self._calls.require_ok(answer)
                await self._erased()
                return
            await self._calls.note_lack(DELETE_ALL_OF, answer)
        # The older call erases the person; sources differ on whether the face goes too (README.md).
        with suppress(AnswerUnexplained, NotSupported):
            await self._faces.remove(employee_no)
        answer = await self._calls.call(DELETE, {"UserInfoDelCond": {"EmployeeNoList": numbers}})
        if not answer.says(PERSON_ABSENT):
            self._calls.require_ok(answer)

    async def find(self, employee_nos: Sequence[str]) -> dict[str, Found]:
        """Return the persons whom the terminal holds under these numbers.

        Asks for as many in a call as it takes. Raises NotSupported where it cannot be asked (FG:
        404), or answers with other persons: paging through everybody for a few would take all day.
        """
        await self._calls.identify()
        if self._calls.lacks(SEARCH_BY_NUMBER):
            raise NotSupported("The terminal cannot be asked for single persons.").named(
                self._calls.name
            )
        found: dict[str, Found] = {}
        for start in range(0, len(employee_nos), self._calls.capabilities.page):
            asked = employee_nos[start : start + self._calls.capabilities.page]
            numbers = [{"employeeNo": employee_no} for employee_no in asked]
            async for page in self._pages({"EmployeeNoList": numbers}):
                found |= {one.employee_no: one for one in page}
                if not found.keys() <= set(employee_nos):
                    await self._calls.note_lack(SEARCH_BY_NUMBER)
                    return await self.find(employee_nos)
        return found

    def everybody(self) -> AsyncIterator[tuple[Found, ...]]:
        """Return all persons on the terminal, page by page; raises NotSupported as `find` does."""
        return self._pages({})

    async def _pages(self, whom: Mapping[str, Any]) -> AsyncIterator[tuple[Found, ...]]:
        """Yield pages, advancing by what was received; end at an empty, repeated or last one."""
        search_id = new_search()
        position = 0
        last: tuple[Found, ...] = ()
        for _ in range(MAX_PAGES):
            page = await self.page(whom, search_id=search_id, position=position)
            if not page.persons or page.persons == last:
                return
            yield page.persons
            position, last = position + len(page.persons), page.persons
            if not page.more:
                return

    async def page(self, whom: Mapping[str, Any], *, search_id: str, position: int) -> SearchResult:
        """Return the page that begins after so many persons; raises NotSupported as `find` does.

        `whom` narrows the search; empty: everybody.
        """
        await self._calls.identify()
        if self._calls.lacks(SEARCH):
            raise NotSupported("The terminal cannot be asked whom it holds.").named(
                self._calls.name
            )
        condition = {
            "searchID": search_id,
            "searchResultPosition": position,
            "maxResults": self._calls.capabilities.page,
            **whom,
        }
        answer = await self._calls.call(SEARCH, {"UserInfoSearchCond": condition})
        if answer.unsupported:
            await self._calls.note_lack(SEARCH, answer)
        result = found_in(answer)
        if result is None:
            raise self._calls.error(answer)
        if result.persons and result.total > position + len(result.persons):
            result = replace(result, more=True)  # some say OK for every page
        if self._calls.lacks(FACES_COUNTED):
            if any(one.faces for one in result.persons):  # it does count: once it was late
                await self._calls.note_no_lack(FACES_COUNTED)
                return result
            persons = (replace(one, faces=one.faces or None) for one in result.persons)
            return replace(result, persons=tuple(persons))
        return result

    async def note_faces_uncounted(self) -> None:
        """Remember that this firmware says of a person with a face that they have none."""
        await self._calls.note_lack(FACES_COUNTED)

    async def _erased(self) -> None:
        """Wait until the terminal says that it is done: it erases in the background (G1 p.86)."""
        for _ in range(ERASE_POLLS):
            answer = await self._calls.call(DELETE_PROCESS, None)
            if answer.unsupported:  # then only a search can tell
                return
            process = answer.fields.get("UserInfoDetailDeleteProcess", answer.fields)
            status = process.get("status") if isinstance(process, Mapping) else None
            if status == "success":
                return
            if status != "processing":
                raise self._calls.error(answer)
            await asyncio.sleep(ERASE_POLL_S)
        raise TerminalBusy("The terminal is still erasing the person.").named(self._calls.name)

    async def _send_person(
        self, ways: Sequence[Way], employee_no: str, name: str, valid_to: str
    ) -> Answer:
        """Send a person, and again with a shorter name where the firmware refuses the long one."""
        await self._calls.identify()
        fitting = (
            cut(name, self._calls.capabilities.name_bytes)
            if self._calls.capabilities.name_bytes
            else name
        )
        answer = await self._calls.by_first(ways, person(employee_no, fitting, valid_to))
        short = cut(name, SHORT_NAME_BYTES)
        if short != fitting and answer.says(NAME_REFUSED):
            answer = await self._calls.by_first(ways, person(employee_no, short, valid_to))
            if answer.ok:
                await self._calls.learn(
                    replace(self._calls.capabilities, name_bytes=SHORT_NAME_BYTES)
                )
        return answer
