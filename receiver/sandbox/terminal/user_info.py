"""One person on the wire: `UserInfo` as a terminal reads it strictly and writes it back."""

import re
from datetime import datetime

from receiver.sandbox.terminal.answers import Refusal
from receiver.sandbox.terminal.memory import Person, Profile
from receiver.sandbox.terminal.payloads import Fields

EMPLOYEE_NO_BYTES = 32
USER_TYPES = ("normal", "visitor", "blackList")
USER_INFO = (
    "employeeNo",
    "name",
    "userType",
    "Valid",
    "doorRight",
    "RightPlan",
    "localUIRight",
    "userVerifyMode",
    "addUser",
    "deleteUser",
)
READ_ONLY = ("numOfCard", "numOfFP", "numOfFace", "faceURL")
"""Fields that Search adds to a person, and that no client may send back."""

_VALID = ("enable", "beginTime", "endTime", "timeType")
_RIGHT_PLAN = ("doorNo", "planTemplateNo")
_TIME_TYPES = ("local", "UTC")
_DOOR_RIGHT = re.compile(r"\d+(,\d+)*", re.ASCII)


def read_employee_no(fields: Fields) -> str:
    """Read `employeeNo`: a string of 1 to 32 bytes (terminals/README.md, Limits)."""
    employee_no = fields.text("employeeNo")
    if not 1 <= len(employee_no.encode()) <= EMPLOYEE_NO_BYTES:
        raise Refusal("illegalEmployeeNo", "employeeNo")
    return employee_no


def read_person(fields: Fields, *, known: Person | None, profile: Profile) -> Person:
    """Read a whole new person, or `known` with the changes that `fields` names.

    A new person needs employeeNo, name, userType and Valid. Raises Refusal.
    """
    name = fields.text("name", known.name if known else None)
    user_type = fields.text("userType", known.user_type if known else None)
    if len(name.encode()) > profile.name_bytes:
        if not profile.cuts_names:
            raise Refusal("badParameters", "name")
        name = name.encode()[: profile.name_bytes].decode(errors="ignore")
    if user_type not in USER_TYPES:
        raise Refusal("badParameters", "userType")
    enabled, begin, end, time_type = _valid(fields, known)
    return Person(
        employee_no=read_employee_no(fields),
        name=name,
        begin=begin,
        end=end,
        enabled=enabled,
        user_type=user_type,
        door_right=_door_right(fields, known),
        right_plan=_right_plan(fields, known),
        face=known.face if known else None,
        cards=known.cards if known else 0,
        time_type=time_type,
        local_ui_right=fields.flag(
            "localUIRight", default=False if known is None else known.local_ui_right
        ),
    )


def write_person(person: Person, *, face_url: str) -> dict[str, object]:
    """Write the person as Search finds it; `face_url` is where the terminal serves the face."""
    written: dict[str, object] = {
        "employeeNo": person.employee_no,
        "name": person.name,
        "userType": person.user_type,
        "Valid": {
            "enable": person.enabled,
            "beginTime": person.begin.isoformat(),
            "endTime": person.end.isoformat(),
            "timeType": person.time_type,
        },
        "doorRight": person.door_right,
        "RightPlan": person.right_plan,
        "localUIRight": person.local_ui_right,
        "numOfCard": person.cards,
        "numOfFP": 0,
        "numOfFace": int(person.face is not None),
    }
    if person.face is not None:
        written["faceURL"] = face_url
    return written


def _valid(fields: Fields, known: Person | None) -> tuple[bool, datetime, datetime, str]:
    if known is not None and "Valid" not in fields:
        return known.enabled, known.begin, known.end, known.time_type
    valid = fields.nested("Valid", _VALID)
    enabled = valid.flag("enable")
    begin, end = valid.date("beginTime"), valid.date("endTime")
    time_type = valid.text("timeType", "local")
    if time_type not in _TIME_TYPES:
        raise Refusal("badParameters", "timeType")
    if begin >= end:
        raise Refusal("endtimeEarlierThanBegintime")
    return enabled, begin, end, time_type


def _door_right(fields: Fields, known: Person | None) -> str:
    door_right = fields.text("doorRight", known.door_right if known else "")
    if door_right and not _DOOR_RIGHT.fullmatch(door_right):
        raise Refusal("badJsonContent", "doorRight")
    return door_right


def _right_plan(fields: Fields, known: Person | None) -> list[dict[str, object]]:
    if known is not None and "RightPlan" not in fields:
        return known.right_plan
    plans = []
    for plan in fields.objects("RightPlan", _RIGHT_PLAN):
        kept: dict[str, object] = {"doorNo": plan.number("doorNo")}
        # Without a template (or with it misspelled) the plan is kept bare: what a real terminal
        # then does is unconfirmed (terminals/README.md, Traps).
        if "planTemplateNo" in plan:
            kept["planTemplateNo"] = plan.text("planTemplateNo")
        plans.append(kept)
    return plans
