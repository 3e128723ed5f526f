"""A person as ISAPI spells one: what we send, and what a search says. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from receiver.core.models import Found
from receiver.terminals.answers import Answer

VALID_FROM: Final = "2020-01-01T00:00:00"
VALID_TO: Final = "2037-12-31T23:59:59"
ENDED_AT: Final = "2020-01-01T00:00:01"
"""The end of a leaver's window. `Valid.enable=false` would mean *permanent* validity (G1 p.299)."""

ENDED_BY: Final = "2020-01-02"
BLOCKED: Final = "blackList"
MAX_ENTRIES: Final = 1000


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """One page of a search, in the terminal's own order."""

    persons: tuple[Found, ...]
    more: bool
    """Whether it says that there are more."""
    total: int
    """How many persons there are in all; 0: it does not say."""


def person(employee_no: str, name: str, valid_to: str) -> Mapping[str, Any]:
    """Return the body that makes a terminal hold this person."""
    user_info = {
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
    return {"UserInfo": user_info}


def cut(name: str, most_bytes: int) -> str:
    """Return the name in at most so many bytes of UTF-8, cut between two characters."""
    return name.encode()[:most_bytes].decode(errors="ignore").rstrip()


def found_in(answer: Answer) -> SearchResult | None:
    """Return the page that an answer holds; None where it holds none.

    On NO MATCH the list of persons is absent (HA). Malformed entries are left out.
    """
    result = answer.fields.get("UserInfoSearch", answer.fields)
    if not isinstance(result, Mapping) or "responseStatusStrg" not in result:
        return None
    entries = result.get("UserInfo", [])
    if isinstance(entries, Mapping):  # one person, in XML
        entries = [entries]
    if not isinstance(entries, list):
        return None
    persons = [_found(entry) for entry in entries[:MAX_ENTRIES] if isinstance(entry, Mapping)]
    return SearchResult(
        persons=tuple(one for one in persons if one.employee_no),
        more=str(result.get("responseStatusStrg", "")).upper() == "MORE",
        total=_total(result.get("totalMatches")),
    )


def _total(value: object) -> int:
    if isinstance(value, (int, str)) and re.fullmatch("[0-9]{1,9}", str(value)):
        return int(value)
    return 0


def _found(entry: Mapping[str, Any]) -> Found:
    name, number, valid = entry.get("name"), entry.get("employeeNo"), entry.get("Valid")
    return Found(
        employee_no=str(number) if isinstance(number, (str, int)) else "",
        name=name if isinstance(name, str) else None,
        access=_access(valid, entry.get("userType")) if isinstance(valid, Mapping) else None,
        faces=_faces(entry),
    )


def _access(valid: Mapping[str, Any], user_type: object) -> Any:
    """Return whether they may pass, to a day: some terminals write the end in another time zone.

    A window that begins later than ours, and a person on the block list, is `other`: at this moment
    they may not pass, perhaps.
    """
    if valid.get("enable") in (False, "false"):
        return "permanent"
    begin, end = valid.get("beginTime"), valid.get("endTime")
    if not isinstance(end, str):
        return None
    if end[: len(ENDED_BY)] <= ENDED_BY:
        return "ended"
    late = isinstance(begin, str) and begin[: len(ENDED_BY)] > ENDED_BY
    return "other" if end < VALID_TO[:4] or late or user_type == BLOCKED else "open"


def _faces(entry: Mapping[str, Any]) -> int | None:
    faces = entry.get("numOfFace")
    if isinstance(faces, (int, str)) and re.fullmatch("[0-9]{1,9}", str(faces)):
        return int(faces)
    return 1 if entry.get("faceURL") else None
