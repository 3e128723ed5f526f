"""What a terminal says that it holds, against what it should hold: pure.

A terminal that answers 200 has not yet done it: some firmware says so and changes nothing (BL).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from receiver.core.errors import NotKept, TerminalError
from receiver.core.models import (
    Different,
    Employee,
    Expected,
    Found,
    Held,
    LeaverPolicy,
    Outcome,
    Owner,
    PageVerdict,
    Status,
    Step,
)
from receiver.sync.held import (
    ANOTHERS_PHOTO,
    NOT_THERE,
    UNKNOWN_PHOTO,
    expected_of,
    numbers_to_end,
    photo_fingerprint,
)

MIN_CUT_BYTES: Final = 24
"""A terminal's name that begins ours and is at least so long was cut there (FG: to 32)."""


def already_so(
    employee: Employee, held: Held, policy: LeaverPolicy, asked: Mapping[str, Found | None]
) -> Outcome | None:
    """Return the outcome of a pair that is in step already, as the terminal itself says.

    `asked` is what it says of each number that it was asked for. None where the pair is not in
    step, or the terminal did not say all that matters.
    """
    numbers = numbers_to_ask(employee, held)
    if not numbers or any(number not in asked for number in numbers):
        return None
    ends = {number: asked[number] for number in numbers_to_end(employee, held)}
    if not employee.active:
        if policy == "keep" or any(_may_be_there(there, policy) for there in ends.values()):
            return None
        still = next((number for number, there in ends.items() if there is not None), None)
        if still is None:
            held = Held()
        elif still != held.employee_no:
            held = Held(employee_no=still, photo=UNKNOWN_PHOTO)
        return _so("The person may no longer pass.", replace(held, others=()))
    former = any(there is not None for there in ends.values())  # it may still have their face
    if former or not _is_there(employee, held, asked):
        return None
    return _so("The terminal holds the person as HR has them.", replace(held, others=()))


def _is_there(employee: Employee, held: Held, asked: Mapping[str, Found | None]) -> bool:
    number = employee.employee_no
    if number is None or held.employee_no != number or held.photo != photo_fingerprint(employee):
        return False
    there = asked[number]
    if there is None or there.access is None or there.name is None:
        return False
    return not differences(expected_of(employee, number), there)


def _may_be_there(there: Found | None, policy: LeaverPolicy) -> bool:
    return there is not None and (policy == "delete" or there.access != "ended")


def _so(message: str, held: Held) -> Outcome:
    return Outcome(status="success", step="done", message=message, held=held)


def numbers_to_ask(employee: Employee, held: Held) -> list[str]:
    """Return the numbers by which a terminal can tell whether the pair is in step already."""
    own = (employee.employee_no,) if employee.active else ()
    numbers = (*own, *numbers_to_end(employee, held))
    return [number for number in dict.fromkeys(numbers) if number]


def corrected(employee: Employee, held: Held, asked: Mapping[str, Found | None]) -> Held:
    """Return what a terminal holds of somebody, where it said otherwise than the ledger."""
    others = tuple(number for number in held.others if asked.get(number, number) is not None)
    held = replace(held, others=others)
    number = held.employee_no
    if number is None or number not in asked or held.photo == ANOTHERS_PHOTO:
        return held
    there = asked[number]
    if there is None:
        if number == employee.employee_no and employee.active:
            return replace(held, photo=NOT_THERE)
        return replace(held, employee_no=None, photo=None)
    if there.faces == 0:
        return replace(held, photo=None)
    if there.faces and held.photo in (None, NOT_THERE):
        return replace(held, photo=UNKNOWN_PHOTO)
    return held


def of_page(
    page: Sequence[Found],
    owners: Sequence[Owner],
    employees: Mapping[UUID, Employee],
    policy: LeaverPolicy,
) -> PageVerdict:
    """Judge a page of the persons whom a terminal holds, each by who is behind the number.

    A pair that is wanted is left to whoever pushes it. A person behind whose number nobody is known
    is not ours.
    """
    by_number: dict[str, list[Owner]] = {}
    for owner in owners:
        by_number.setdefault(owner.number, []).append(owner)
    confirmed: list[Owner] = []
    different: list[Different] = []
    unknown = 0
    for there in page:
        number = there.employee_no
        candidates = by_number.get(number, [])
        if not candidates:
            unknown += 1
            continue
        passing = [o for o in candidates if _is_number_of(employees[o.employee_id], number)]
        known = [o for o in candidates if number in (o.held.employee_no, *o.held.others)]
        for owner in passing[:1] or known or candidates:
            if owner.wanted:
                continue
            employee = employees[owner.employee_id]
            ok = _holds(employee, owner, there) if passing else _is_ended(employee, there, policy)
            said = there.access is not None and (not passing or there.name is not None)
            if not ok:
                different.append(
                    Different(employee_id=owner.employee_id, number=number, leaves=not passing)
                )
            elif said and owner.held.employee_no == number and not owner.held.others:
                confirmed.append(owner)
    return PageVerdict(confirmed=tuple(confirmed), different=tuple(different), unknown=unknown)


def _is_number_of(employee: Employee, number: str) -> bool:
    return employee.active and employee.employee_no == number


def _holds(employee: Employee, owner: Owner, there: Found) -> bool:
    """Return whether a terminal holds somebody who may pass as the ledger says it does.

    A photo that it does not take is not tried again until HR edits the employee.
    """
    if owner.held.employee_no != there.employee_no or owner.held.others:
        return False
    expected = expected_of(employee, there.employee_no)
    if owner.status != "success":
        return not differences(replace(expected, face=None), there)
    return owner.held.photo == photo_fingerprint(employee) and not differences(expected, there)


def _is_ended(employee: Employee, there: Found, policy: LeaverPolicy) -> bool:
    """Return whether a number that nobody has who may pass is as the policy wants it."""
    if policy == "keep" and not employee.active:
        return True
    return policy != "delete" and there.access in ("ended", None)


def judged(outcome: Outcome, found: Mapping[str, Found]) -> Outcome:
    """Return an outcome corrected by what the terminal says when it is read back."""
    # Persons who should be gone first: the ledger must keep their number, nothing else knows it.
    for expected in sorted(outcome.expected, key=lambda one: one.may_pass is not False):
        there = found.get(expected.employee_no)
        if (fault := _fault_of_person(expected, there)) is not None:
            if expected.may_pass is False:
                held = _still_there(outcome, expected.employee_no)
            elif there is None and outcome.held.employee_no == expected.employee_no:
                held = replace(outcome.held, photo=NOT_THERE)
            else:
                held = _face_unknown(outcome.held)
            return _not_kept(outcome, fault, "person", held)
        if there is not None and (fault := _fault_of_face(expected, there)) is not None:
            return _not_kept(outcome, fault, "photo", _face_unknown(outcome.held))
    return outcome


def not_yet_gone(outcome: Outcome) -> Outcome:
    """Return an outcome to be read back later, with the number of a person who should be gone.

    Until then the ledger must not forget it: nothing else knows it.
    """
    for expected in outcome.expected:
        if expected.may_pass is False:
            return replace(outcome, held=_still_there(outcome, expected.employee_no))
    return outcome


def _still_there(outcome: Outcome, employee_no: str) -> Held:
    """Return what is held where a number that should be gone, and others with it, may not be."""
    numbers = (e.employee_no for e in outcome.expected if e.may_pass is False)
    others = tuple(number for number in numbers if number != employee_no)
    return Held(employee_no=employee_no, photo=UNKNOWN_PHOTO, others=others)


def tells(expected: Expected, there: Found | None) -> bool:
    """Return whether a terminal that says this of a number says all that is expected of it."""
    if there is None or expected.gone:
        return expected.may_pass is False
    return there.access is not None and (expected.name is None or there.name is not None)


def differences(expected: Expected, there: Found | None) -> list[str]:
    """Return in words everything that a terminal holds otherwise than it should."""
    faults = [_fault_of_person(expected, there)]
    if there is not None:
        faults.append(_fault_of_face(expected, there))
    return [fault for fault in faults if fault is not None]


def _fault_of_person(expected: Expected, there: Found | None) -> str | None:
    if expected.may_pass is False:
        if there is None or (not expected.gone and there.access in ("ended", None)):
            return None
        how = "may still pass" if there.access != "ended" else "is still there"
        return f"person {expected.employee_no} {how}"
    if there is None:
        return f"person {expected.employee_no} is not there"
    if expected.may_pass and there.access not in ("open", None):
        return f"the validity of {expected.employee_no} is another"
    if expected.name and there.name is not None and not _same_name(expected.name, there.name):
        return f"the name of {expected.employee_no} is another"
    return None


def _fault_of_face(expected: Expected, there: Found) -> str | None:
    if expected.face is None or there.faces is None or (there.faces > 0) == expected.face:
        return None
    return f"{expected.employee_no} has {'no' if expected.face else 'still a'} face there"


def _not_kept(outcome: Outcome, fault: str, step: Step, held: Held) -> Outcome:
    error: TerminalError = NotKept(f"The terminal answered OK, but {fault}.")
    status: Status = "fatal" if step == "person" else "partial"
    return replace(outcome, status=status, step=step, message=error.message, held=held, error=error)


def _face_unknown(held: Held) -> Held:
    return replace(held, photo=UNKNOWN_PHOTO) if held.employee_no else held


def _same_name(ours: str, theirs: str) -> bool:
    """Return whether a terminal holds this name, perhaps cut or in a poor charset.

    The charset does not matter at the gate, and pushing the name again would not correct it.
    """
    ours, theirs = ours.strip(), theirs.strip()
    if theirs != ours and ours.startswith(theirs):
        return len(theirs.encode()) >= MIN_CUT_BYTES
    if "\ufffd" in theirs or "?" in theirs:
        was_cut = len(theirs.encode()) + theirs.count("?") >= MIN_CUT_BYTES
        theirs, ours = _ascii(theirs), _ascii(ours)
        return theirs == (ours[: len(theirs)] if was_cut else ours)
    return theirs == ours


def _ascii(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isalnum())
