"""Reads requests to a terminal strictly: types are not coerced, missing keys are refused.

A picture comes as a form of two parts (terminals/README.md, Calls): JSON first, without a file
name, then a file.
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from receiver.sandbox.multipart import FORM, FormMalformed, read_form
from receiver.sandbox.terminal.answers import Refusal

_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, 2037
_BODY_BYTES = 1024 * 1024
_FORM_BYTES = 2 * 1024 * 1024


@dataclass(kw_only=True)
class Request:
    """One authenticated call; the code that reads the body fills in `employee_no`."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str = ""
    picture: bytes | None = None
    """The picture beside the payload, in a form."""
    payload: dict[str, object] = field(default_factory=dict)
    employee_no: str | None = None

    @property
    def is_form(self) -> bool:
        """Return whether the body says that it is multipart/form-data."""
        return self.content_type.lower().startswith(FORM)


def read_head(scope: Scope) -> tuple[Request, str]:
    """Read the head of a request; return it, and the target exactly as it was sent."""
    query = scope["query_string"].decode("latin-1")
    target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    request = Request(
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(query)),
        content_type=Headers(scope=scope).get("content-type", ""),
    )
    return request, target


async def read_body(receive: Receive, request: Request) -> bytes | None:
    """Read the body up to a limit, beyond which it no longer parses; None if the client left."""
    limit = _FORM_BYTES if request.is_form else _BODY_BYTES
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) < limit:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def parse(body: bytes) -> dict[str, object]:
    """Parse a JSON body; anything but an object is badJsonFormat."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refusal("badJsonFormat") from exc
    if not isinstance(payload, dict):
        raise Refusal("badJsonFormat")
    return payload


def parse_upload(
    content_type: str, body: bytes, parts: tuple[str, str]
) -> tuple[dict[str, object], bytes]:
    """Parse a form of JSON and a picture, whose parts have these names, in this order.

    Any other body is badJsonFormat, as for a parser that expected JSON. Without these names it is
    MessageParametersLack.
    """
    try:
        form = read_form(content_type, body)
    except FormMalformed as exc:
        raise Refusal("badJsonFormat") from exc
    names = [part.name for part in form]
    for name in parts:
        if name not in names:
            raise Refusal("MessageParametersLack", name)
    if tuple(names) != parts:
        raise Refusal("badJsonFormat")
    record, picture = form
    if record.filename is not None or record.content_type != "application/json":
        raise Refusal("badJsonFormat", record.name)
    if picture.filename is None or picture.content_type != "image/jpeg":
        raise Refusal("picFormatError", picture.name)
    return parse(record.content), picture.content


class Fields:
    """One JSON object of a body, read key by key.

    A missing key is MessageParametersLack unless there is a default, a wrong type is
    badJsonContent, both with the key as errorMsg. Keys outside `known` are reported to
    `seen_unknown` with their dotted path, and not refused: real terminals ignore them.
    """

    def __init__(
        self,
        path: str,
        value: object,
        *,
        known: Collection[str],
        seen_unknown: Callable[[str], None],
    ) -> None:
        if not isinstance(value, dict):
            raise Refusal("badJsonContent", path.rpartition(".")[2])
        self._path = path
        self._value: dict[str, object] = value
        self._seen_unknown = seen_unknown
        for key in value:
            if key not in known:
                seen_unknown(self._below(key))

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def text(self, key: str, default: str | None = None) -> str:
        """Read a string; numbers are not strings (employeeNo, FPID: G1)."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise Refusal("badJsonContent", key)
        try:
            value.encode()
        except UnicodeEncodeError as exc:  # half a surrogate pair, which JSON can spell
            raise Refusal("badJsonContent", key) from exc
        return value

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """Read a boolean."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise Refusal("badJsonContent", key)
        return value

    def number(self, key: str) -> int:
        """Read an integer; `true` is not one."""
        value = self._get(key, None)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refusal("badJsonContent", key)
        return value

    def date(self, key: str) -> datetime:
        """Read `YYYY-MM-DDThh:mm:ss` within 1970 to 2037 (terminals/README.md, Limits)."""
        text = self.text(key)
        if not _DATE.fullmatch(text):
            raise Refusal("badJsonContent", key)
        try:
            date = datetime.fromisoformat(text)
        except ValueError as exc:
            raise Refusal("badJsonContent", key) from exc
        if not _FIRST_YEAR <= date.year <= _LAST_YEAR:
            raise Refusal("badJsonContent", "beginTime and endTime")  # HA's wording
        return date

    def nested(self, key: str, known: Collection[str]) -> "Fields":
        """Read an object."""
        return self._fields(key, self._get(key, None), known)

    def objects(self, key: str, known: Collection[str]) -> list["Fields"]:
        """Read a list of objects; a missing key is an empty list."""
        values = self._get(key, [])
        if not isinstance(values, list):
            raise Refusal("badJsonContent", key)
        return [self._fields(key, value, known) for value in values]

    def _fields(self, key: str, value: object, known: Collection[str]) -> "Fields":
        return Fields(self._below(key), value, known=known, seen_unknown=self._seen_unknown)

    def _below(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _get(self, key: str, default: object) -> object:
        if key in self._value:
            return self._value[key]
        if default is None:
            raise Refusal("MessageParametersLack", key)
        return default
