"""What a terminal says: ResponseStatus, userCheck and documents, in the words of isapi.md §1-2."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from xml.sax.saxutils import escape

NAMESPACE = "http://www.isapi.org/ver20/XMLSchema"

_STATUS_STRINGS = {
    1: "OK",
    2: "Device Busy",
    4: "Invalid Operation",
    5: "Invalid Format",
    6: "Invalid Content",
}

# subStatusCode: (statusCode, errorCode), from Hikvision's error-code workbook
_CODES = {
    "deviceBusy": (2, 0x20000004),
    "notSupport": (4, 0x40000001),
    "methodNotAllowed": (4, 0x40000004),
    "badJsonFormat": (5, 0x50000002),
    "badURLFormat": (5, 0x50000003),
    "badParameters": (6, 0x60000001),
    "badJsonContent": (6, 0x60000017),
    "MessageParametersLack": (6, 0x60000019),
    "faceLibraryIDError": (6, 0x60000031),
    "picFormatError": (6, 0x6000003B),
    "picSizeExceedError": (6, 0x6000003D),
    "urlDownloadFail": (6, 0x6000006E),
    "deleteNoExistFace": (6, 0x60006015),
    "employeeNoNotExist": (6, 0x6000601F),
    "employeeNoAlreadyExist": (6, 0x60006020),
    "illegalEmployeeNo": (6, 0x60006036),
    "faceDataLenShort": (6, 0x6000603C),
    "endtimeEarlierThanBegintime": (6, 0x60006048),
    "deviceUserFull": (6, 0x60007000),
    "deviceUserNotExist": (6, 0x60007003),
    "deviceUserAlreadyExistFace": (6, 0x60007004),
}

Document = dict[str, object] | str | None
"""What a call that went well answers: a JSON document, an XML one, or ResponseStatus OK (None)."""


class Refusal(Exception):
    """The terminal refuses a call, with a subStatusCode of the workbook."""

    def __init__(
        self, sub_status_code: str, error_msg: str = "", *, http: int = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(sub_status_code)
        self.sub_status_code = sub_status_code
        self.status_code, self.error_code = _CODES[sub_status_code]
        self.error_msg = error_msg or sub_status_code
        self.http = http


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer, ready to send."""

    status: int
    body: bytes
    media_type: str
    sub_status: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def carried_out(document: Document, *, answers: Literal["json", "xml"], path: str) -> Answer:
    """Answer a call that went well."""
    if isinstance(document, str):
        return _xml(HTTPStatus.OK, document, sub_status="ok")
    if document is None and answers == "xml":
        return _xml(HTTPStatus.OK, _response_status(path, 1, "ok"), sub_status="ok")
    return _json(HTTPStatus.OK, document or OK, sub_status="ok")


def refused(refusal: Refusal, *, answers: Literal["json", "xml"], path: str) -> Answer:
    """Answer a call that the terminal refuses."""
    sub_status = refusal.sub_status_code
    if answers == "xml":
        body = _response_status(path, refusal.status_code, sub_status)
        return _xml(refusal.http, body, sub_status=sub_status)
    status = {
        "statusCode": refusal.status_code,
        "statusString": _STATUS_STRINGS[refusal.status_code],
        "subStatusCode": sub_status,
        "errorCode": refusal.error_code,
        "errorMsg": refusal.error_msg,
    }
    return _json(refusal.http, status, sub_status=sub_status)


def unauthorized(*, locked_for_s: float, attempts_left: int, challenge: str | None) -> Answer:
    """Answer 401 with `userCheck` (UP in isapi.md §2), and with `challenge` if there is one."""
    body = (
        "<userCheck><statusValue>401</statusValue><statusString>Unauthorized</statusString>"
        f"<lockStatus>{'lock' if locked_for_s > 0 else 'unlock'}</lockStatus>"
        f"<unlockTime>{math.ceil(locked_for_s)}</unlockTime>"
        f"<retryLoginTime>{attempts_left}</retryLoginTime></userCheck>"
    )
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    return _xml(HTTPStatus.UNAUTHORIZED, body, headers=headers)


def device_info(*, name: str, model: str, serial: str) -> str:
    """Describe the terminal: XML even when JSON is asked for (FG, WN in isapi.md §1)."""
    return (
        f'<DeviceInfo version="2.0" xmlns="{NAMESPACE}"><deviceName>{escape(name)}</deviceName>'
        f"<model>{escape(model)}</model><serialNumber>{escape(serial)}</serialNumber>"
        "<firmwareVersion>V4.39.0</firmwareVersion></DeviceInfo>"
    )


OK: dict[str, object] = {"statusCode": 1, "statusString": "OK", "subStatusCode": "ok"}


def _response_status(path: str, status_code: int, sub_status: str) -> str:
    return (
        f'<ResponseStatus version="2.0" xmlns="{NAMESPACE}">'
        f"<requestURL>{escape(path)}</requestURL><statusCode>{status_code}</statusCode>"
        f"<statusString>{_STATUS_STRINGS[status_code]}</statusString>"
        f"<subStatusCode>{sub_status}</subStatusCode></ResponseStatus>"
    )


def _json(status: int, document: dict[str, object], *, sub_status: str) -> Answer:
    body = json.dumps(document, ensure_ascii=False).encode()
    return Answer(status=status, body=body, media_type="application/json", sub_status=sub_status)


def _xml(
    status: int, body: str, *, sub_status: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    return Answer(
        status=status,
        body=b'<?xml version="1.0" encoding="UTF-8"?>\n' + body.encode(),
        media_type="application/xml",
        sub_status=sub_status,
        headers=headers or {},
    )
