"""What a terminal says that it holds, against what it should hold: pure.

A terminal that answers 200 has not yet done it: some firmware says so and changes nothing (BL).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from receiver.core.errors import NotKept, TerminalError
from receiver.core.models import (
    Employee,
    Expected,
    Found,
    Held,
    LeaverPolicy,
    Outcome,
    Status,
    Step,
)
from receiver.sync.rules import (
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
    number = number_to_ask(employee, held, policy)
    if number is None or number not in asked:
        return None
    there = asked[number]
    if not employee.active:
        if there is not None and (policy == "delete" or there.access != "ended"):
            return None
        if there is None:
            held = Held()
        elif held.employee_no is None:
            held = Held(employee_no=number, photo=UNKNOWN_PHOTO)
        return Outcome(
            status="success", step="done", message="The person may no longer pass.", held=held
        )
    if there is None or there.access is None or there.faces is None or there.name is None:
        return None
    if differences(expected_of(employee, number), there):
        return None
    message = "The terminal holds the person as HR has them."
    return Outcome(status="success", step="done", message=message, held=held)


def number_to_ask(employee: Employee, held: Held, policy: LeaverPolicy) -> str | None:
    """Return the number by which a terminal can tell that the pair is in step already.

    None where the ledger knows that it is not, or where that takes two numbers.
    """
    if not employee.active:
        numbers = numbers_to_end(employee, held)
        return numbers[0] if policy != "keep" and len(numbers) == 1 else None
    same = held.employee_no == employee.employee_no and held.photo == photo_fingerprint(employee)
    return held.employee_no if same else None


def judged(outcome: Outcome, found: Mapping[str, Found]) -> Outcome:
    """Return an outcome corrected by what the terminal says when it is read back."""
    # Persons who should be gone first: the ledger must keep their number, nothing else knows it.
    for expected in sorted(outcome.expected, key=lambda one: one.may_pass is not False):
        there = found.get(expected.employee_no)
        if (fault := _fault_of_person(expected, there)) is not None:
            if expected.may_pass is False:
                held = Held(employee_no=expected.employee_no, photo=UNKNOWN_PHOTO)
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
            return replace(
                outcome, held=Held(employee_no=expected.employee_no, photo=UNKNOWN_PHOTO)
            )
    return outcome


def differences(expected: Expected, there: Found | None) -> list[str]:
    """Return in words everything that a terminal holds otherwise than it should."""
    faults = [_fault_of_person(expected, there)]
    if there is not None:
        faults.append(_fault_of_face(expected, there))
    return [fault for fault in faults if fault is not None]


def _fault_of_person(expected: Expected, there: Found | None) -> str | None:
    if expected.may_pass is False:
        if there is None or there.access in ("ended", None):
            return None
        return f"person {expected.employee_no} may still pass"
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
    return Held(employee_no=held.employee_no, photo=UNKNOWN_PHOTO) if held.employee_no else Held()


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
