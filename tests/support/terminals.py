"""A simulated terminal, a client that asks it with care, and the requests that it sends."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from receiver.sandbox.portraits import portrait
from receiver.sandbox.terminal.simulated import Profile, SimulatedTerminal
from tests.support.pictures import changed

PASSWORD = "Parola-de-test1"
RECORD = "/ISAPI/AccessControl/UserInfo/Record?format=json"
MODIFY = "/ISAPI/AccessControl/UserInfo/Modify?format=json"
SET_UP = "/ISAPI/AccessControl/UserInfo/SetUp?format=json"
SEARCH = "/ISAPI/AccessControl/UserInfo/Search?format=json"
COUNT = "/ISAPI/AccessControl/UserInfo/Count?format=json"
CAPABILITIES = "/ISAPI/AccessControl/UserInfo/capabilities?format=json"
DELETE = "/ISAPI/AccessControl/UserInfoDetail/Delete?format=json"
DELETE_PROCESS = "/ISAPI/AccessControl/UserInfoDetail/DeleteProcess?format=json"
FACE_RECORD = "/ISAPI/Intelligent/FDLib/FaceDataRecord?format=json"
FACE_SET_UP = "/ISAPI/Intelligent/FDLib/FDSetUp?format=json"
FACE_MODIFY = "/ISAPI/Intelligent/FDLib/FDModify?format=json"
FACE_SEARCH = "/ISAPI/Intelligent/FDLib/FDSearch?format=json"
FACE_DELETE = "/ISAPI/Intelligent/FDLib/FDSearch/Delete?format=json&FDID=1&faceLibType=blackFD"
DEVICE_INFO = "/ISAPI/System/deviceInfo"
NAMESPACE = "{http://www.isapi.org/ver20/XMLSchema}"
OK = {"statusCode": 1, "statusString": "OK", "subStatusCode": "ok"}
JPEG = portrait("ion")
PNG = changed(portrait("ion 2"), "PNG", size=(120, 160))


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Client:
    """Asks as a careful client does: every call starts without credentials."""

    def __init__(self, terminal: SimulatedTerminal, http: httpx.AsyncClient) -> None:
        self.terminal = terminal
        self.http = http

    def url(self, target: str) -> str:
        return f"http://{self.terminal.host}:{self.terminal.port}{target}"

    async def ask(
        self, method: str, target: str, body: object = None, *, password: str = PASSWORD
    ) -> httpx.Response:
        return await self.http.request(
            method, self.url(target), json=body, auth=httpx.DigestAuth("admin", password)
        )

    async def challenge(self, target: str = COUNT) -> dict[str, str]:
        answer = await self.http.get(self.url(target))
        assert answer.status_code == 401
        return dict(re.findall(r'(\w+)="([^"]*)"', answer.headers["www-authenticate"]))

    async def ask_with(
        self, challenge: dict[str, str], *, password: str = PASSWORD, **overrides: str
    ) -> httpx.Response:
        """Ask for the count with a hand-made Authorization."""
        authorization = digest(challenge, password=password, **overrides)
        return await self.http.get(self.url(COUNT), headers={"Authorization": authorization})

    async def add(self, employee_no: str = "1001", **fields: object) -> None:
        answer = await self.ask("POST", RECORD, person(employee_no, **fields))
        assert answer.json() == OK


def digest(challenge: dict[str, str], *, password: str = PASSWORD, **overrides: str) -> str:
    fields = {
        "username": "admin",
        "realm": challenge["realm"],
        "nonce": challenge["nonce"],
        "uri": COUNT,
        "opaque": challenge["opaque"],
        "qop": "auth",
        "nc": "00000001",
        "cnonce": "0a4f113b",
    } | overrides

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    ha1 = md5(f"{fields['username']}:{fields['realm']}:{password}")
    ha2 = md5(f"GET:{fields['uri']}")
    rest = f"{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}:{ha2}"
    fields.setdefault("response", md5(f"{ha1}:{rest}"))
    return "Digest " + ", ".join(f'{key}="{value}"' for key, value in fields.items())


def person(employee_no: object = "1001", **fields: object) -> dict[str, dict[str, object]]:
    """The UserInfo of terminals/README.md, Calls; a field given as ... is left out."""
    user_info: dict[str, object] = {
        "employeeNo": employee_no,
        "name": "Popescu Ion",
        "userType": "normal",
        "Valid": valid(),
        "doorRight": "1",
        "RightPlan": [{"doorNo": 1, "planTemplateNo": "1"}],
        "localUIRight": False,
    } | fields
    return {"UserInfo": {key: value for key, value in user_info.items() if value is not ...}}


def valid(
    begin: object = "2020-01-01T00:00:00",
    end: object = "2037-12-31T23:59:59",
    *,
    enable: object = True,
) -> dict[str, object]:
    return {"enable": enable, "beginTime": begin, "endTime": end, "timeType": "local"}


def face(url: str, fpid: object = "1001", **fields: object) -> dict[str, object]:
    record: dict[str, object] = {
        "faceURL": url,
        "faceLibType": "blackFD",
        "FDID": "1",
        "FPID": fpid,
    } | fields
    return {key: value for key, value in record.items() if value is not ...}


def search(position: int = 0, size: int = 30, *employee_nos: str) -> dict[str, dict[str, object]]:
    cond: dict[str, object] = {
        "searchID": "x",
        "searchResultPosition": position,
        "maxResults": size,
    }
    if employee_nos:
        cond["EmployeeNoList"] = [{"employeeNo": number} for number in employee_nos]
    return {"UserInfoSearchCond": cond}


def deletion(*employee_nos: str) -> dict[str, dict[str, object]]:
    numbers = [{"employeeNo": number} for number in employee_nos]
    return {"UserInfoDetail": {"mode": "byEmployeeNo", "EmployeeNoList": numbers}}


@asynccontextmanager
async def switched_on(
    trust: Any, profile: Profile | None = None, *, min_pause_s: float = 0.0, clock: Any = None
) -> AsyncIterator[Client]:
    more = {} if clock is None else {"clock": clock}
    terminal = SimulatedTerminal(
        profile=profile or Profile(), password=PASSWORD, min_pause_s=min_pause_s, **more
    )
    async with terminal, httpx.AsyncClient(verify=trust, trust_env=False) as http:
        yield Client(terminal, http)


class PhotoServer:
    """Serves `pictures` by path, and nothing else."""

    def __init__(self) -> None:
        self.port = 0
        self.pictures: dict[str, bytes] = {"/ion.jpg": JPEG, "/ion-2.png": PNG}
        self.asked: list[str] = []

    def url(self, path: str = "/ion.jpg") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        status, more = "404 Not Found", ""
        if path in self.pictures:
            status = "200 OK"
        elif path == "/moved.jpg":
            status, more = "302 Found", "Location: /ion.jpg\r\n"
        picture = self.pictures.get(path, b"")
        length = f"Content-Length: {len(picture)}\r\nConnection: close\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{more}{length}".encode() + picture)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def photo_server() -> AsyncIterator[PhotoServer]:
    """Serve photos on the loopback."""
    server = PhotoServer()
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


def assert_refused(answer: httpx.Response, sub_status: str, *, http: int = 400) -> dict[str, Any]:
    status: dict[str, Any] = answer.json()
    assert (answer.status_code, status["subStatusCode"]) == (http, sub_status)
    return status
