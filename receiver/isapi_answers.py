"""What a terminal's answer means: pure, bytes in, an `Answer` or a TerminalError out.

The body is parsed before the HTTP status is believed: business errors come as HTTP 400 (SK, UP),
but also as 200 with statusCode other than 1 (SK), and notSupport as 403 (G2 §4.2.6). JSON where we
asked for it, XML where the terminal prefers it, namespaces of any kind.

Codes: ISAPI guide G2's error-code workbook; classes: our judgement (facts: isapi.md §2).
"""

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from receiver.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    TerminalBusy,
    TerminalError,
    TerminalRefused,
)
from receiver.logs import printable

# Branches, not errors.
PERSON_EXISTS: Final = frozenset({"employeeNoAlreadyExist", "deviceUserAlreadyExist"})
PERSON_ABSENT: Final = frozenset({"employeeNoNotExist", "deviceUserNotExist"})
FACE_ABSENT: Final = frozenset({"deleteNoExistFace"}) | PERSON_ABSENT
FACE_EXISTS: Final = frozenset({"deviceUserAlreadyExistFace"})
NAME_REFUSED: Final = frozenset({"badParameters", "badJsonContent"})
"""What a name that is too long is refused with; so is much else."""

# subStatusCode -> what it is, and what to tell a person.
CODES: Final[Mapping[str, tuple[type[TerminalError], str]]] = {
    # transient
    "noMemory": (TerminalBusy, "the terminal is out of memory"),
    "serviceUnavailable": (TerminalBusy, "the terminal's service is not available"),
    "upgrading": (TerminalBusy, "the terminal is being upgraded"),
    "deviceBusy": (TerminalBusy, "the terminal is busy"),
    "faceDataModeling": (TerminalBusy, "the terminal is still modelling another face"),
    "loginNumExceedLimit": (TerminalBusy, "too many users are logged in at the terminal"),
    "facelibDataProcessing": (TerminalBusy, "the terminal is processing its face library"),
    # this employee's data
    "illegalEmployeeNo": (DataRefused, "the terminal does not take this employee_no"),
    "SubpicAnalysisModelingError": (DataRefused, "the face in the photo cannot be modelled"),
    "PicFeaturePoints": (DataRefused, "the face in the photo cannot be modelled"),
    "PicAnalysisNoTargetError": (DataRefused, "no face found in the photo"),
    "pictureFaceDetectZero": (DataRefused, "no face found in the photo"),
    "multipleFaceObjectError": (DataRefused, "more than one face in the photo"),
    "picSizeExceedError": (DataRefused, "the photo is too large for the terminal (200 KB)"),
    "picFormatError": (DataRefused, "the photo is not a picture format the terminal takes"),
    "faceLowQulity": (DataRefused, "the photo's quality is too low"),  # sic
    "pupilDistanceTooSmall": (DataRefused, "the face in the photo is too small"),
    "faceDataLenShort": (DataRefused, "the photo is too small a file"),
    "endtimeEarlierThanBegintime": (DataRefused, "the validity ends before it begins"),
    # the terminal, or its operator
    "deviceUserFull": (TerminalRefused, "the terminal is full of persons"),
    "deviceFaceFull": (TerminalRefused, "the terminal is full of faces"),
    "faceLibraryIDError": (TerminalRefused, "the terminal has no face library 1"),
    "libraryNotExist": (TerminalRefused, "the terminal has no face library 1"),
    "lowPrivilege": (TerminalRefused, "the terminal's user may not manage persons"),
    "notActivated": (TerminalRefused, "the terminal is not activated"),
    # the firmware
    "notSupport": (NotSupported, "the terminal does not support this"),
    "methodNotAllowed": (NotSupported, "the terminal does not support this"),
    # the login
    "badAuthorization": (LoginRefused, "the terminal refuses the user name or password"),
    "userNameLocked": (LoginRefused, "the terminal has locked the account"),
    # met at the photo
    "employeeNoNotExist": (PersonAbsent, "the person is not on this terminal yet"),
    "deviceUserNotExist": (PersonAbsent, "the person is not on this terminal yet"),
    # the network from the terminal to the photo
    "urlDownloadFail": (PhotoNotFetched, "the terminal could not download the photo"),
}
_BY_LOWER_CASE = {code.lower(): meaning for code, meaning in CODES.items()}

STATUS_OK = (0, 1)
STATUS_BUSY = 2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A terminal's answer that is not an error of the protocol itself."""

    http_status: int
    status_code: int | None
    """1 (0 too in XML): done. None where the body is not a ResponseStatus."""
    code: str
    """The subStatusCode as sent, or empty."""
    detail: str
    """errorMsg: which field, which check."""
    fields: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Tell whether the terminal says that it did what it was asked."""
        return self.status_code in STATUS_OK and self.http_status < 400  # noqa: PLR2004

    def says(self, codes: frozenset[str]) -> bool:
        """Tell whether the terminal answered with one of these codes; their case varies."""
        return self.code.lower() in {code.lower() for code in codes}

    def error(self) -> TerminalError:
        """Return what the answer means as an error, with words for a person."""
        meaning = _BY_LOWER_CASE.get(self.code.lower())
        if meaning:
            kind, words = meaning
            if kind is LoginRefused:
                return LoginRefused(_sentence(words), locked_s=_locked_s(self.fields))
            return kind(_sentence(words, self.detail))
        if self.http_status in (404, 405):
            return NotSupported(_sentence("the terminal does not support this"))
        if self.status_code == STATUS_BUSY or self.http_status >= 500:  # noqa: PLR2004
            return TerminalBusy(_sentence("the terminal is in trouble", self._said()))
        return AnswerUnexplained(_sentence("the terminal answered", self._said()))

    def _said(self) -> str:
        parts = [f"HTTP {self.http_status}"]
        if self.status_code is not None:
            parts.append(f"statusCode {self.status_code}")
        return ", ".join([*parts, *(_short(x) for x in (self.code, self.detail) if x)])


def parse(http_status: int, body: bytes) -> Answer:
    """Return the answer of a terminal that let us in; raise LoginRefused for a 401."""
    fields = _fields(body)
    if http_status == 401:  # noqa: PLR2004
        raise _refusal_in(fields)
    return Answer(
        http_status=http_status,
        status_code=_whole(fields.get("statusCode")),
        code=_text(fields.get("subStatusCode")),
        detail=_text(fields.get("errorMsg")),
        fields=fields,
    )


def refusal_of_login(body: bytes) -> LoginRefused:
    """Return what the body of a 401 says: wrong or none given, or a locked account."""
    return _refusal_in(_fields(body))


def _refusal_in(fields: Mapping[str, Any]) -> LoginRefused:
    locked_s = _locked_s(fields)
    if locked_s or _text(fields.get("lockStatus")).lower() in ("lock", "locked"):
        return LoginRefused(
            "The terminal has locked the account after failed logins.",
            locked_s=locked_s,
            locked=True,
        )
    return LoginRefused()


def _locked_s(fields: Mapping[str, Any]) -> float:
    """Return for how long an account is locked: unlockTime (UP) or resLockTime (G1 p.351)."""
    if _text(fields.get("lockStatus")).lower() not in ("lock", "locked"):
        return 0.0
    return float(_whole(fields.get("unlockTime")) or _whole(fields.get("resLockTime")) or 0)


def _fields(body: bytes) -> Mapping[str, Any]:
    """Return the top-level fields of a JSON or XML body; of anything else, none."""
    text = body.removeprefix(codecs.BOM_UTF8).strip()
    try:
        if text.startswith(b"<"):
            return _xml_fields(fromstring(text, forbid_dtd=True))
        # A wrong charset spoils a message for a person, and must not spoil the code beside it.
        found = json.loads(text.decode(errors="replace"))
    except (ValueError, RecursionError, ParseError, DefusedXmlException, LookupError):
        return {}
    if not isinstance(found, Mapping):
        return {}
    inner = found.get("ResponseStatus") or found.get("userCheck")
    return inner if isinstance(inner, Mapping) else found


def _xml_fields(root: Element) -> Mapping[str, str]:
    """Return every leaf by its name without namespace; the first of a name counts."""
    leaves: dict[str, str] = {}
    for element in root.iter():
        if not len(element):
            leaves.setdefault(str(element.tag).rpartition("}")[2], (element.text or "").strip())
    return leaves


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    try:
        return int(str(value)[:12])
    except ValueError:
        return None


_URL = re.compile(r"\S*://\S*")


def _short(text: str) -> str:
    text = _URL.sub("[URL]", text[:4096])  # a photo's, as a rule
    return printable(text)[:120]


def _sentence(words: str, detail: str = "") -> str:
    said = _short(detail)
    return f"{words[0].upper()}{words[1:]}{f' ({said})' if said else ''}."
