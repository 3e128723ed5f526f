"""One terminal's protocol: persons and faces over ISAPI. All Hikvision names end here.

Sources are those of isapi.md: G1/G2 are Hikvision's guides, SK, BL, FG … integrations on real
hardware. This module decides which call follows which answer; it does not pace itself (`turn`
does), does not retry, and knows nothing of the ledger.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import httpx

from receiver.errors import NotSupported, TerminalBusy
from receiver.isapi_answers import (
    FACE_ABSENT,
    FACE_EXISTS,
    NAME_REFUSED,
    PERSON_ABSENT,
    PERSON_EXISTS,
    Answer,
    parse,
)
from receiver.isapi_wire import Wire, http_client
from receiver.models import Terminal

__all__ = ["TerminalClient", "Turn", "http_client"]

Turn = Callable[[float], AbstractAsyncContextManager[None]]
"""Called with the most seconds that a call may take; entered, it is this terminal's turn."""

VALID_FROM: Final = "2020-01-01T00:00:00"
VALID_TO: Final = "2037-12-31T23:59:59"
ENDED_AT: Final = "2020-01-01T00:00:01"
"""The end of a leaver's window. `Valid.enable=false` would mean *permanent* validity (G1 p.299)."""

USER_INFO: Final = "/ISAPI/AccessControl/UserInfo"
USER_DETAIL: Final = "/ISAPI/AccessControl/UserInfoDetail"
FACE_LIBRARY: Final = "/ISAPI/Intelligent/FDLib"

ERASE_POLLS: Final = 10
ERASE_POLL_S: Final = 0.3
"""Between two polls, also where no pause between calls is configured."""
SHORT_NAME_BYTES: Final = 32
"""What the shortest name field takes, in UTF-8 (HA, FG); others take 128 (SK)."""


class TerminalClient:
    """Calls to one terminal; each waits for its turn and raises TerminalError."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        terminal: Terminal,
        turn: Turn,
        *,
        timeout_s: float,
        face_timeout_s: float,
    ) -> None:
        self._wire = Wire(http, terminal)
        self._turn = turn
        self._timeout_s = timeout_s
        self._face_timeout_s = face_timeout_s
        self.calls_answered = 0
        """How often the terminal has let us in and answered; 0 means that nothing was learnt."""

    async def put_person(self, employee_no: str, name: str) -> bool:
        """Make the terminal hold this person under this name; return whether it did before.

        Record fails where the person is present and Modify where it is absent (G1 p.85).
        """
        answer = await self._send_person("POST", "Record", employee_no, name, VALID_TO)
        known = answer.says(PERSON_EXISTS)
        if known:
            answer = await self._send_person("PUT", "Modify", employee_no, name, VALID_TO)
        _require_ok(answer)
        return known

    async def end_validity(self, employee_no: str, name: str) -> None:
        """Let a person pass no longer, if the terminal holds them; everything else stays."""
        answer = await self._send_person("PUT", "Modify", employee_no, name, ENDED_AT)
        if not answer.says(PERSON_ABSENT):
            _require_ok(answer)

    async def erase(self, employee_no: str) -> None:
        """Erase a person with face and cards, if the terminal holds them.

        An empty list of numbers would erase everybody (G1 p.301). Asynchronous on the terminal:
        it is asked until it says that it is done (G1 p.86).
        """
        if not employee_no:
            raise ValueError("erase needs a number: without one a terminal erases everybody")
        detail = {"mode": "byEmployeeNo", "EmployeeNoList": [{"employeeNo": employee_no}]}
        _require_ok(await self._call("PUT", f"{USER_DETAIL}/Delete", {"UserInfoDetail": detail}))
        for _ in range(ERASE_POLLS):
            answer = await self._call("GET", f"{USER_DETAIL}/DeleteProcess", None)
            process = answer.fields.get("UserInfoDetailDeleteProcess", answer.fields)
            status = process.get("status") if isinstance(process, Mapping) else None
            if status == "success":
                return
            if status != "processing":
                raise answer.error()
            await asyncio.sleep(ERASE_POLL_S)
        raise TerminalBusy("The terminal is still erasing the person.")

    async def put_face(self, employee_no: str, photo_url: str) -> None:
        """Make the terminal fetch this photo and hold it as the person's only face.

        FaceDataRecord only adds. Where a face exists, FDSetUp overwrites it, or FDModify where the
        firmware has no FDSetUp (FG: 404). The body is flat: wrapped in FaceDataRecord it is
        rejected (DS-K1T321MFWX).
        """
        face = {
            "faceURL": photo_url,
            "faceLibType": "blackFD",
            "FDID": "1",
            "FPID": employee_no,
        }
        answer = await self._face_call("POST", "FaceDataRecord", face)
        if answer.says(FACE_EXISTS):
            answer = await self._face_call("PUT", "FDSetUp", face)
            if not answer.ok and isinstance(answer.error(), NotSupported):
                answer = await self._face_call("PUT", "FDModify", face)
        _require_ok(answer)

    async def remove_face(self, employee_no: str) -> None:
        """Make the terminal hold no face of this person, if it holds one."""
        if not employee_no:
            raise ValueError("remove_face needs a number")
        answer = await self._call(
            "PUT",
            f"{FACE_LIBRARY}/FDSearch/Delete",
            {"FPID": [{"value": employee_no}]},
            params={"FDID": "1", "faceLibType": "blackFD"},
        )
        if not answer.says(FACE_ABSENT):
            _require_ok(answer)

    async def device_info(self) -> Mapping[str, Any]:
        """Return model, serialNumber, firmwareVersion; the cheapest call that needs the login."""
        answer = await self._call("GET", "/ISAPI/System/deviceInfo", None)
        if not answer.fields.get("serialNumber"):
            raise answer.error()
        return answer.fields

    async def _send_person(
        self, method: str, verb: str, employee_no: str, name: str, valid_to: str
    ) -> Answer:
        """Send a person, and again with a shorter name where the firmware refuses the long one."""
        short = name.encode()[:SHORT_NAME_BYTES].decode(errors="ignore").rstrip()
        path = f"{USER_INFO}/{verb}"
        person = _person(employee_no, name, valid_to)
        answer = await self._call(method, path, {"UserInfo": person})
        if short != name and answer.says(NAME_REFUSED):
            person = _person(employee_no, short, valid_to)
            answer = await self._call(method, path, {"UserInfo": person})
        return answer

    async def _face_call(self, method: str, name: str, face: Mapping[str, Any]) -> Answer:
        return await self._call(
            method, f"{FACE_LIBRARY}/{name}", face, timeout_s=self._face_timeout_s
        )

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        timeout_s: float | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        timeout_s = timeout_s or self._timeout_s
        async with self._turn(timeout_s):
            status, answered = await self._wire.exchange(
                method, path, body, params={"format": "json", **(params or {})}, timeout_s=timeout_s
            )
        answer = parse(status, answered)
        self.calls_answered += 1
        return answer


def _person(employee_no: str, name: str, valid_to: str) -> Mapping[str, Any]:
    return {
        "employeeNo": employee_no,
        **({"name": name} if name else {}),
        "userType": "normal",
        "Valid": {
            "enable": True,
            "beginTime": VALID_FROM,
            "endTime": valid_to,
            "timeType": "local",
        },
        "doorRight": "1",
        "RightPlan": [{"doorNo": 1, "planTemplateNo": "1"}],
        "localUIRight": False,
    }


def _require_ok(answer: Answer) -> None:
    if not answer.ok:
        raise answer.error()
