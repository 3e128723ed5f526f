"""A terminal's answers: ResponseStatus, userCheck and documents (terminals/README.md)."""

import json
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from xml.sax.saxutils import escape, quoteattr

from receiver.sandbox.terminal.memory import Profile

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
    "invalidOperation": (4, 0x40000006),
    "faceLowQulity": (4, 0x40006010),  # sic
    "badJsonFormat": (5, 0x50000002),
    "badURLFormat": (5, 0x50000003),
    "badParameters": (6, 0x60000001),
    "badJsonContent": (6, 0x60000017),
    "MessageParametersLack": (6, 0x60000019),
    "faceLibraryIDError": (6, 0x60000031),
    "PicAnalysisNoTargetError": (6, 0x60000036),
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
    "deviceFaceFull": (6, 0x60007001),
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


def carried_out(document: Document, *, profile: Profile, path: str) -> Answer:
    """Answer a call that went well."""
    if isinstance(document, str):
        return _xml(HTTPStatus.OK, document, profile=profile, sub_status="ok")
    if document is None and profile.answers == "xml":
        return _status_as_xml(HTTPStatus.OK, 1, "ok", profile=profile, path=path)
    return _json(HTTPStatus.OK, document or OK, profile=profile, sub_status="ok")


def refused(refusal: Refusal, *, profile: Profile, path: str) -> Answer:
    """Answer a call that the terminal refuses; a business error may come as HTTP 200."""
    http = profile.errors_http if refusal.http == HTTPStatus.BAD_REQUEST else refusal.http
    sub_status = refusal.sub_status_code
    if profile.answers == "xml":
        return _status_as_xml(http, refusal.status_code, sub_status, profile=profile, path=path)
    status = {
        "statusCode": refusal.status_code,
        "statusString": _STATUS_STRINGS[refusal.status_code],
        "subStatusCode": sub_status,
        "errorCode": refusal.error_code,
        "errorMsg": refusal.error_msg,
    }
    return _json(http, status, profile=profile, sub_status=sub_status)


def missing(*, profile: Profile, path: str) -> Answer:
    """Answer for an endpoint that is missing: FG saw 404 and 405, G2 §4.2.6 says 403."""
    if profile.missing == "403":
        return refused(Refusal("notSupport", http=403), profile=profile, path=path)
    if profile.missing == "400":
        return refused(Refusal("invalidOperation"), profile=profile, path=path)
    if profile.missing == "405":
        return Answer(status=HTTPStatus.METHOD_NOT_ALLOWED, body=b"", media_type="text/html")
    return Answer(status=HTTPStatus.NOT_FOUND, body=_NOT_FOUND_PAGE, media_type="text/html")


def unauthorized(
    *, profile: Profile, locked_for_s: float, attempts_left: int, challenge: str | None
) -> Answer:
    """Answer 401 with `userCheck` (UP), and with `challenge` if there is one."""
    body = (
        f"<userCheck{_xmlns(profile)}><statusValue>401</statusValue>"
        "<statusString>Unauthorized</statusString>"
        f"<lockStatus>{'lock' if locked_for_s > 0 else 'unlock'}</lockStatus>"
        f"<unlockTime>{math.ceil(locked_for_s)}</unlockTime>"
        f"<retryLoginTime>{attempts_left}</retryLoginTime></userCheck>"
    )
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    return _xml(HTTPStatus.UNAUTHORIZED, body, profile=profile, headers=headers)


def device_info(profile: Profile, *, serial: str) -> str:
    """Return deviceInfo: XML even when JSON is asked for (FG, WN in terminals/README.md)."""
    return (
        f'<DeviceInfo version="2.0"{_xmlns(profile)}>'
        f"<deviceName>{escape(profile.name)}</deviceName><model>{escape(profile.model)}</model>"
        f"<serialNumber>{escape(serial)}</serialNumber>"
        f"<firmwareVersion>{escape(profile.firmware)}</firmwareVersion></DeviceInfo>"
    )


OK: dict[str, object] = {"statusCode": 1, "statusString": "OK", "subStatusCode": "ok"}

_NOT_FOUND_PAGE = (
    b"<!DOCTYPE html>\r\n<html><head><title>Document Error: Not Found</title></head>\r\n"
    b"<body><h2>Access Error: 404 -- Not Found</h2>\r\n<hr></body></html>\r\n"
)


def _xmlns(profile: Profile) -> str:
    return f" xmlns={quoteattr(profile.xml_namespace)}" if profile.xml_namespace else ""


def _status_as_xml(
    http: int, status_code: int, sub_status: str, *, profile: Profile, path: str
) -> Answer:
    body = (
        f'<ResponseStatus version="2.0"{_xmlns(profile)}>'
        f"<requestURL>{escape(path)}</requestURL><statusCode>{status_code}</statusCode>"
        f"<statusString>{_STATUS_STRINGS[status_code]}</statusString>"
        f"<subStatusCode>{sub_status}</subStatusCode></ResponseStatus>"
    )
    return _xml(http, body, profile=profile, sub_status=sub_status)


def _json(status: int, document: dict[str, object], *, profile: Profile, sub_status: str) -> Answer:
    body = json.dumps(document, ensure_ascii=False).encode(profile.charset, errors="replace")
    return Answer(status=status, body=body, media_type="application/json", sub_status=sub_status)


def _xml(
    status: int,
    body: str,
    *,
    profile: Profile,
    sub_status: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    encoding = ' encoding="UTF-8"' if profile.charset == "utf-8" else ""
    document = f'<?xml version="1.0"{encoding}?>\n{body}'
    return Answer(
        status=status,
        body=document.encode(profile.charset, errors="replace"),
        media_type="application/xml",
        sub_status=sub_status,
        headers=headers or {},
    )
