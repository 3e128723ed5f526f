"""What a terminal holds of an employee, what it should hold, and what came of a push: pure."""

import hashlib
import re

from receiver.core.errors import TerminalError
from receiver.core.models import Employee, Expected, Held, Outcome, Status, Step
from receiver.sync.consequences import consequence

UNKNOWN_PHOTO = "unknown"
"""In place of a fingerprint: the terminal may hold a face, and the ledger cannot tell which."""

NOT_THERE = "not there"
"""In place of a fingerprint: a search found nobody under the number."""

ANOTHERS_PHOTO = "anothers"
"""In place of a fingerprint: the number was another person's there, and so is the face, perhaps."""

SIGNED = re.compile(r"(/storage/v1/(?:object|render/image)/sign/[^?]*)\?.*", re.DOTALL)
"""A URL that Supabase's storage has signed: its query is the signature, and new each time."""


def photo_fingerprint(employee: Employee) -> str | None:
    """Return what tells one photo of an employee from the next; None for no photo.

    Made of its URL and number, not its bytes: HR's edit changes the URL. A digest, so that the
    ledger has no link to a photo. A URL of storage that is only signed anew is of the same photo.
    """
    if employee.photo_url is None:
        return None
    unsigned = SIGNED.sub(r"\1", employee.photo_url)
    identity = f"{employee.employee_no}\n{unsigned}"
    return hashlib.sha256(identity.encode()).hexdigest()


def expected_of(employee: Employee, employee_no: str) -> Expected:
    """Return what a terminal says of an employee whom it holds as HR has them."""
    return Expected(
        employee_no=employee_no,
        may_pass=True,
        name=employee.name,
        face=employee.photo_url is not None,
    )


def numbers_to_end(employee: Employee, held: Held) -> list[str]:
    """Return the numbers to end: those in the ledger that are not theirs any more.

    All numbers of a leaver, and their own also where the ledger has another: hardware that was used
    elsewhere may hold it.
    """
    numbers = (held.employee_no, *held.others, None if employee.active else employee.employee_no)
    theirs = employee.employee_no if employee.active else None
    return [number for number in dict.fromkeys(numbers) if number not in (None, theirs)]


def photo_failed(employee_no: str, error: TerminalError, held: Held) -> Outcome:
    """Return the outcome of an error at the photo of a person who is there."""
    status = consequence(error).at_photo
    message = error.message
    if status == "partial":
        message = f"Photo of {employee_no}: {message[0].lower()}{message[1:]}"
    return outcome_of(status, "photo", message, held, error)


def person_failed(error: TerminalError, held: Held) -> Outcome:
    """Return the outcome of an error at the person."""
    return outcome_of(consequence(error).at_person, "person", error.message, held, error)


def outcome_of(  # noqa: PLR0913 - one row
    status: Status,
    step: Step,
    message: str,
    held: Held,
    error: TerminalError | None = None,
    *,
    expected: tuple[Expected, ...] = (),
) -> Outcome:
    """Return an outcome."""
    return Outcome(
        status=status, step=step, message=message, held=held, error=error, expected=expected
    )
