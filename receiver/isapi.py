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

from receiver.errors import (
    AnswerUnexplained,
    NotSupported,
    TerminalBusy,
    TerminalTimeout,
    TerminalUnreachable,
)
from receiver.isapi_answers import FACE_EXISTS, PERSON_ABSENT, PERSON_EXISTS, Answer, parse
from receiver.models import Terminal

Turn = Callable[[float], AbstractAsyncContextManager[None]]
"""Called with the most seconds that a call may take; entered, it is this terminal's turn."""

VALID_FROM: Final = "2020-01-01T00:00:00"
VALID_TO: Final = "2037-12-31T23:59:59"
ENDED_AT: Final = "2020-01-01T00:00:01"
"""The end of a leaver's window. `Valid.enable=false` would mean *permanent* validity (G1 p.299)."""

USER_INFO: Final = "/ISAPI/AccessControl/UserInfo"
USER_DETAIL: Final = "/ISAPI/AccessControl/UserInfoDetail"
FACE_LIBRARY: Final = "/ISAPI/Intelligent/FDLib"

MOST_CONNECT_S: Final = 5.0
"""A terminal that is switched off does not refuse, it is silent; a LAN connects in far less."""
MOST_ANSWER_BYTES: Final = 256 * 1024
ERASE_POLLS: Final = 10


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for terminals. No proxy of the environment leads to a LAN."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=False,  # noqa: S501 - terminals are spoken to over plain HTTP; spares a CA store
        headers={"Accept": "application/json, application/xml", "Accept-Encoding": "identity"},
        limits=httpx.Limits(max_connections=300, max_keepalive_connections=50, keepalive_expiry=3),
        event_hooks={"request": [_in_utf_8]},
    )


async def _in_utf_8(request: httpx.Request) -> None:
    """Let the answer to a challenge hold a user name or realm with diacritics."""
    request.headers.encoding = "utf-8"


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
        host = f"[{terminal.host}]" if ":" in terminal.host else terminal.host
        self._base = f"http://{host}:{terminal.port}"
        self._http = http
        self._terminal = terminal
        self._turn = turn
        self._timeout_s = timeout_s
        self._face_timeout_s = face_timeout_s
        self.calls_answered = 0
        """How often the terminal has let us in and answered; 0 means that nothing was learnt."""

    async def put_person(self, employee_no: str, name: str) -> bool:
        """Make the terminal hold this person under this name; return whether it did before.

        Record fails where the person is present and Modify where it is absent (G1 p.85).
        """
        person = _person(employee_no, name, VALID_TO)
        answer = await self._call("POST", f"{USER_INFO}/Record", {"UserInfo": person})
        if not answer.says(PERSON_EXISTS):
            _require_ok(answer)
            return False
        _require_ok(await self._call("PUT", f"{USER_INFO}/Modify", {"UserInfo": person}))
        return True

    async def end_validity(self, employee_no: str, name: str) -> None:
        """Let a person pass no longer, if the terminal holds them; everything else stays."""
        person = _person(employee_no, name, ENDED_AT)
        answer = await self._call("PUT", f"{USER_INFO}/Modify", {"UserInfo": person})
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

    async def device_info(self) -> Mapping[str, Any]:
        """Return model, serialNumber, firmwareVersion; the cheapest call that needs the login."""
        answer = await self._call("GET", "/ISAPI/System/deviceInfo", None)
        if not answer.fields.get("serialNumber"):
            raise answer.error()
        return answer.fields

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
    ) -> Answer:
        timeout_s = timeout_s or self._timeout_s
        async with self._turn(timeout_s):
            status, answered = await self._exchange(method, path, body, timeout_s)
        answer = parse(status, answered)
        self.calls_answered += 1
        return answer

    async def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[int, bytes]:
        limits = httpx.Timeout(timeout_s, connect=min(timeout_s, MOST_CONNECT_S))
        try:
            # The whole exchange is bounded too: httpx's own timeouts begin anew with each byte.
            async with asyncio.timeout(timeout_s):
                status, answered, stale = await self._once(method, path, body, limits)
                if status == httpx.codes.UNAUTHORIZED and stale:
                    # The nonce ran out between the challenge and the answer: no failed login
                    # (RFC 7616 §3.3), and the only case in which one is tried twice.
                    status, answered, _ = await self._once(method, path, body, limits)
                return status, answered
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise TerminalUnreachable from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TerminalTimeout(f"The terminal did not answer within {timeout_s:g} s.") from exc
        except (httpx.NetworkError, httpx.RemoteProtocolError) as exc:
            raise TerminalUnreachable(
                "The terminal cut the connection before it answered."
            ) from exc
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            NotImplementedError,
            KeyError,
            ValueError,
        ) as exc:
            # The last three: what httpx's digest makes of qop=auth-int, of an algorithm it does
            # not have, and of a challenge that is malformed or not ASCII.
            raise AnswerUnexplained(
                f"The terminal's HTTP cannot be understood ({type(exc).__name__})."
            ) from exc

    async def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, limits: httpx.Timeout
    ) -> tuple[int, bytes, bool]:
        """Send one request with a challenge of its own and return status, body, stale nonce.

        A fresh DigestAuth each time: it begins unauthenticated, so that no nonce is used twice.
        A reused one is refused without a new challenge, and counts as a wrong password (SK).
        """
        auth = httpx.DigestAuth(self._terminal.username, self._terminal.password)
        async with self._http.stream(
            method,
            f"{self._base}{path}",
            params={"format": "json"},
            json=body,
            auth=auth,
            timeout=limits,
        ) as response:
            answered = bytearray()
            async for chunk in response.aiter_bytes():
                answered += chunk
                if len(answered) > MOST_ANSWER_BYTES:
                    raise AnswerUnexplained("The terminal's answer has no end.")
            challenge = response.headers.get("www-authenticate", "").lower()
            return response.status_code, bytes(answered), "stale=true" in challenge.replace('"', "")


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
