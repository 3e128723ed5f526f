"""The person calls of a simulated terminal: UserInfo, UserInfoDetail (terminals/README.md)."""

import asyncio

from receiver.sandbox.terminal.answers import Document, Refusal
from receiver.sandbox.terminal.memory import Device
from receiver.sandbox.terminal.payloads import Fields, Request
from receiver.sandbox.terminal.user_info import (
    EMPLOYEE_NO_BYTES,
    READ_ONLY,
    USER_INFO,
    USER_TYPES,
    read_employee_no,
    read_person,
    write_person,
)

_PAGE = 30
_SEARCH_COND = ("searchID", "searchResultPosition", "maxResults", "EmployeeNoList")


class PersonCalls:
    """Carries out the calls about persons on the memory of `device`."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._deletion: asyncio.Task[None] | None = None

    async def record(self, request: Request) -> Document:
        """Add a person; it must be new."""
        fields, employee_no = self._user_info(request)
        if employee_no in self._device.persons:
            raise Refusal("employeeNoAlreadyExist", "checkUser")
        self._keep(fields, employee_no)
        return None

    async def modify(self, request: Request) -> Document:
        """Edit a person; it must be there, unless `addUser` is true."""
        fields, employee_no = self._user_info(request)
        if employee_no not in self._device.persons and not fields.flag("addUser", default=False):
            raise Refusal("employeeNoNotExist", "checkUser")
        # BL on hardware: echoing what Search returned is answered 200 and not applied.
        if not any(key in fields for key in READ_ONLY):
            self._keep(fields, employee_no)
        return None

    async def set_up(self, request: Request) -> Document:
        """Add or edit a person: the official upsert (G1 p.85)."""
        fields, employee_no = self._user_info(request)
        if fields.flag("deleteUser", default=False):
            # It would leave cards and face behind: not simulated, so no client may rely on it.
            raise Refusal("notSupport", "deleteUser", http=403)
        self._keep(fields, employee_no)
        return None

    async def search(self, request: Request) -> Document:
        """Page through the persons, or through those of EmployeeNoList."""
        cond = self._fields(request, "UserInfoSearchCond", _SEARCH_COND)
        search_id = cond.text("searchID")
        position, size = cond.number("searchResultPosition"), cond.number("maxResults")
        wanted = _employee_nos(cond)
        if not search_id:
            raise Refusal("badParameters", "searchID")
        if position < 0:
            raise Refusal("badParameters", "searchResultPosition")
        if not 1 <= size <= _PAGE:  # G1 clamps, SK saw it rejected: the stricter of the two
            raise Refusal("badParameters", "maxResults")
        if len(wanted) > _PAGE:
            raise Refusal("badParameters", "EmployeeNoList")
        request.employee_no = wanted[0] if wanted else None
        matches = [
            p for p in self._device.persons.values() if not wanted or p.employee_no in wanted
        ]
        page = matches[position : position + size]
        more = position + len(page) < len(matches)
        found: dict[str, object] = {
            "searchID": search_id,
            "responseStatusStrg": ("MORE" if more else "OK") if page else "NO MATCH",
            "numOfMatches": len(page),
            "totalMatches": len(matches),
        }
        if page:  # on NO MATCH the key is absent (HA)
            found["UserInfo"] = [write_person(p, face_url=self._device.face_url(p)) for p in page]
        return {"UserInfoSearch": found}

    async def count(self, _: Request) -> Document:
        """Count persons, and those with a face (SK)."""
        faces = sum(person.face is not None for person in self._device.persons.values())
        return {
            "UserInfoCount": {"userNumber": len(self._device.persons), "bindFaceUserNumber": faces}
        }

    async def capabilities(self, _: Request) -> Document:
        """Declare this firmware's limits, in the shape HA recorded."""
        profile = self._device.profile
        functions = "post,delete,put,get" + (",setUp" if profile.has_set_up else "")
        return {
            "UserInfo": {
                "supportFunction": {"@opt": functions},
                "UserInfoSearchCond": {
                    "maxResults": {"@min": 1, "@max": _PAGE},
                    "EmployeeNoList": {"maxSize": _PAGE},
                },
                "employeeNo": {"@min": 1, "@max": EMPLOYEE_NO_BYTES},
                "name": {"@min": 0, "@max": profile.name_bytes},
                "userType": {"@opt": ",".join(USER_TYPES)},
                "maxRecordNum": profile.max_persons,
            }
        }

    async def delete(self, request: Request) -> Document:
        """Begin to delete persons with all their data; absent ones are no error (G2).

        No EmployeeNoList, or an empty one, deletes EVERYBODY (G1 p.301), as mode `all` does.
        A second deletion during one is deviceBusy: no source says so, it is our strictness.
        """
        detail = self._fields(request, "UserInfoDetail", ("mode", "EmployeeNoList"))
        mode = detail.text("mode")
        if mode not in ("all", "byEmployeeNo"):
            raise Refusal("badParameters", "mode")
        numbers = _employee_nos(detail)
        request.employee_no = numbers[0] if numbers else None
        if self._deletion is not None and not self._deletion.done():
            raise Refusal("deviceBusy", http=self._device.profile.busy_http)
        everybody = mode == "all" or not numbers
        if everybody:
            self._device.sightings.deletions_of_everybody += 1
        self._deletion = asyncio.create_task(self._delete(None if everybody else numbers))
        return None

    async def delete_now(self, request: Request) -> Document:
        """Delete persons before answering; the face goes too (SK, FG; G1 says it does not).

        No EmployeeNoList, or an empty one, deletes EVERYBODY (G1 p.301).
        """
        numbers = _employee_nos(self._fields(request, "UserInfoDelCond", ("EmployeeNoList",)))
        request.employee_no = numbers[0] if numbers else None
        if not numbers:
            self._device.sightings.deletions_of_everybody += 1
        self._forget(numbers or None)
        return None

    async def delete_process(self, _: Request) -> Document:
        """Return how the last deletion goes (G1 p.86); one that a power cut interrupted failed."""
        if self._deletion is None:
            status = "success"
        elif self._deletion.cancelled():
            status = "failed"
        else:
            status = "success" if self._deletion.done() else "processing"
        return {"UserInfoDetailDeleteProcess": {"status": status}}

    async def lose_power(self) -> None:
        """Give up a deletion in progress."""
        self.give_up_deletion()
        if self._deletion is not None and not self._deletion.done():
            await asyncio.wait({self._deletion})

    def give_up_deletion(self) -> None:
        """Cancel a deletion in progress, before it deletes anybody."""
        if self._deletion is not None:
            self._deletion.cancel()

    async def _delete(self, numbers: list[str] | None) -> None:
        await asyncio.sleep(self._device.profile.deletion_s)
        self._forget(numbers)

    def _forget(self, numbers: list[str] | None) -> None:
        """Forget persons with faces and cards; None is everybody."""
        if numbers is None:
            self._device.persons.clear()
            return
        for number in numbers:
            self._device.persons.pop(number, None)

    def _fields(self, request: Request, key: str, known: tuple[str, ...]) -> Fields:
        seen_unknown = self._device.sightings.unknown_field
        root = Fields("", request.payload, known=(key,), seen_unknown=seen_unknown)
        return root.nested(key, known)

    def _user_info(self, request: Request) -> tuple[Fields, str]:
        fields = self._fields(request, "UserInfo", USER_INFO)
        request.employee_no = read_employee_no(fields)
        return fields, request.employee_no

    def _keep(self, fields: Fields, employee_no: str) -> None:
        """Add the person, or change what `fields` names and leave the rest; all or nothing."""
        known = self._device.persons.get(employee_no)
        person = read_person(fields, known=known, profile=self._device.profile)
        if known is None and len(self._device.persons) >= self._device.profile.max_persons:
            raise Refusal("deviceUserFull")
        self._device.persons[employee_no] = person


def _employee_nos(fields: Fields) -> list[str]:
    return [read_employee_no(one) for one in fields.objects("EmployeeNoList", ("employeeNo",))]
