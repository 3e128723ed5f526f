"""What a terminal's answer means: pure, bytes in, an `Answer` or a TerminalError out.

The body is parsed before the HTTP status is believed: business errors come as HTTP 400 (SK, UP),
but also as 200 with statusCode other than 1 (SK), and notSupport as 403 (G2 §4.2.6). JSON where we
asked for it, XML where the terminal prefers it, namespaces of any kind.

The meaning of its codes is in a table, codes.csv.
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

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    TerminalBusy,
    TerminalError,
    TerminalFull,
    TerminalRefused,
)
from receiver.core.logs import printable
from receiver.terminals.codes import code_of, meaning_of

# Branches, not errors.
PERSON_EXISTS: Final = frozenset({"employeeNoAlreadyExist", "deviceUserAlreadyExist"})
PERSON_ABSENT: Final = frozenset({"employeeNoNotExist", "deviceUserNotExist"})
FACE_ABSENT: Final = frozenset({"deleteNoExistFace", "faceDataNotExist"}) | PERSON_ABSENT
FACE_EXISTS: Final = frozenset({"deviceUserAlreadyExistFace"})
NAME_REFUSED: Final = frozenset({"badParameters", "badJsonContent", "nameIsOverlong"})
"""Refusals of a name that is too long; the first two refuse much else too."""
PERSONS_FULL: Final = frozenset({"deviceUserFull"})
BRANCHES: Final = PERSON_EXISTS | FACE_ABSENT | FACE_EXISTS
PERHAPS_LACKED: Final = frozenset({"invalidOperation", "badURLFormat"})
"""Refusals by some firmware of a call that it does not have, and of much else."""

# By class of codes.csv. A code of another class, and one that has no words there, is told
# as it came.
KINDS: Final[Mapping[str, type[TerminalError]]] = {
    "absent": PersonAbsent,  # met at the photo
    "data": DataRefused,
    "full": TerminalFull,
    "login": LoginRefused,
    "permission": TerminalRefused,
    "photo": PhotoNotFetched,
    "terminal": TerminalRefused,
    "transient": TerminalBusy,
    "unsupported": NotSupported,
}

MAX_DEPTH: Final = 20
STATUS_OK = (0, 1)
STATUS_BUSY = 2
STATUS_REBOOT = 7
_TERMINAL: Final = "the terminal"
_PUZZLING: Final = (
    "'s answer cannot be understood; see that its address in dispozitive_pontaj is right, "
    "then restart it"
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A terminal's answer that is not an error of the protocol itself."""

    http_status: int
    status_code: int | None
    """1 (0 too in XML): done. None where the body is not a ResponseStatus."""
    code: str
    """The subStatusCode as sent; where there is none, what the errorCode stands for, or empty."""
    detail: str
    """errorMsg: which field, which check."""
    fields: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Return whether the terminal says that it did it."""
        return self.status_code in STATUS_OK and self.http_status < 400  # noqa: PLR2004

    @property
    def kind(self) -> str:
        """Return its kind in the metrics: `ok`, also for data and for a branch, or an error's."""
        done = self.status_code in (None, *STATUS_OK) and self.http_status < 400  # noqa: PLR2004
        if (done and self.fields) or self.says(BRANCHES):
            return "ok"
        return self.error().kind

    @property
    def lacked(self) -> bool:
        """Return whether the firmware lacks the call."""
        return not self.ok and isinstance(self.error(), NotSupported)

    @property
    def unsupported(self) -> bool:
        """Return whether to try another way: the firmware lacks this one, or may lack it."""
        return self.lacked or (not self.ok and self.says(PERHAPS_LACKED))

    def says(self, codes: frozenset[str]) -> bool:
        """Return whether the terminal answered with one of these codes; their case varies."""
        return self.code.lower() in {code.lower() for code in codes}

    def error(self, terminal: str = _TERMINAL) -> TerminalError:
        """Return what the answer means as an error, with words for a person.

        `terminal` is its name, where the words begin with "the terminal".
        """
        kind, words, detail = self._meant()
        message = _sentence(words, detail, terminal)
        if kind is LoginRefused:
            return LoginRefused(message, locked_s=_locked_s(self.fields))
        return kind(message)

    def _meant(self) -> tuple[type[TerminalError], str, str]:
        """Return the class of the error, the words for it, and what the terminal said of it."""
        # What the code stands for, or else the number beside a code that says little.
        for code in (self.code, code_of(_whole(self.fields.get("errorCode")))):
            meaning = meaning_of(code)
            if meaning and meaning.words:
                kind = KINDS[meaning.class_]
                return kind, meaning.words, "" if kind is LoginRefused else self.detail
        if self.http_status in (404, 405):
            return NotSupported, f"{_TERMINAL} does not support this", ""
        if self.status_code == STATUS_REBOOT:
            return TerminalRefused, f"{_TERMINAL} must be restarted first", self._said()
        if self.status_code == STATUS_BUSY or self.http_status >= 500:  # noqa: PLR2004
            return TerminalBusy, f"{_TERMINAL} is in trouble", self._said()
        if self.status_code in STATUS_OK or (self.status_code is None and not self.code):
            return AnswerUnexplained, f"{_TERMINAL}{_PUZZLING}", self._said()
        return AnswerUnexplained, f"{_TERMINAL} answered", self._said()

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
        code=_text(fields.get("subStatusCode")) or code_of(_whole(fields.get("errorCode"))),
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
    """Return how many seconds an account is locked: unlockTime (UP) or resLockTime (G1 p.351)."""
    if _text(fields.get("lockStatus")).lower() not in ("lock", "locked"):
        return 0.0
    return float(_whole(fields.get("unlockTime")) or _whole(fields.get("resLockTime")) or 0)


def _fields(body: bytes) -> Mapping[str, Any]:
    """Return the top-level fields of a JSON or XML body; none of any other body."""
    # A wrong or unknown charset may spoil a message, but not the code beside it.
    text = body.removeprefix(codecs.BOM_UTF8).decode(errors="replace").strip()
    try:
        if text.startswith("<"):
            return _xml_fields(fromstring(text, forbid_dtd=True))
        found = json.loads(text)
    except (ValueError, RecursionError, ParseError, DefusedXmlException):
        return {}
    if not isinstance(found, Mapping):
        return {}
    inner = found.get("ResponseStatus") or found.get("userCheck") or found.get("DeviceInfo")
    return inner if isinstance(inner, Mapping) else found


def _xml_fields(root: Element) -> Mapping[str, Any]:
    """Return every leaf by its name without namespace, and branches nested as in JSON.

    The first leaf of a name counts.
    """
    leaves: dict[str, Any] = {}
    for element in root.iter():
        if not len(element):
            leaves.setdefault(_tag(element), _leaf(element))
    branches = {_tag(element) for element in root if len(element)}
    return leaves | {name: value for name, value in _branch(root).items() if name in branches}


def _tree(element: Element, depth: int = 0) -> Any:
    if not len(element) or depth == MAX_DEPTH:
        return _leaf(element)
    return _branch(element, depth)


def _branch(element: Element, depth: int = 0) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for child in element:
        name, value = _tag(child), _tree(child, depth + 1)
        there = inner.setdefault(name, value)
        if isinstance(there, list):
            there.append(value)
        elif there is not value:
            inner[name] = [there, value]
    return inner


def _leaf(element: Element) -> Any:
    """Return a leaf's text, or where it has none its attributes: `max` of a capability."""
    text = (element.text or "").strip()
    return text or {f"@{name}": value for name, value in element.attrib.items()} or ""


def _tag(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    try:
        return int(str(value)[:12])
    except ValueError:
        return None


_URL = re.compile(r"(?::|%3a)(?:\\?/|%2f){2}", re.IGNORECASE)


def _short(text: str) -> str:
    words = text[:4096].split()
    # A URL is mostly a photo's. Word by word, as the terminal chooses how long a word is.
    text = " ".join("[URL]" if _URL.search(word) else word for word in words)
    return printable(text)[:120]


def _sentence(words: str, detail: str, terminal: str) -> str:
    if words.startswith(_TERMINAL):
        words = terminal + words.removeprefix(_TERMINAL)
    said = _short(detail)
    return f"{words[0].upper()}{words[1:]}{f' ({said})' if said else ''}."
