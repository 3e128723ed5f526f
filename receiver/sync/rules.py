"""Bring one employee on one terminal to where HR says it should be.

The rules alone, not how a terminal spells them or when they are applied: the person before the
photo, a leaver's access ended, a photo that is there already not sent again.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    NotKept,
    NotSupported,
    PersonAbsent,
    TerminalError,
)
from receiver.core.models import (
    Employee,
    Expected,
    Held,
    LeaverPolicy,
    Outcome,
)
from receiver.sync.consequences import consequence
from receiver.sync.held import (
    ANOTHERS_PHOTO,
    NOT_THERE,
    UNKNOWN_PHOTO,
    expected_of,
    numbers_to_end,
    outcome_of,
    person_failed,
    photo_failed,
    photo_fingerprint,
)
from receiver.sync.person_terminal import PersonTerminal, patiently, put_face
from receiver.sync.verdict import differences

NO_NUMBER = "The employee has no employee_no."


Intend = Callable[[str], Awaitable[str]]
"""Called with a number before the first call that may put it on the terminal, and before one that
changes its face: the ledger must know every person who may have to leave, and must not believe in a
photo that may be gone. Returns what is known of the face: UNKNOWN_PHOTO or ANOTHERS_PHOTO."""


async def sync(
    terminal: PersonTerminal, employee: Employee, held: Held, policy: LeaverPolicy, intend: Intend
) -> Outcome:
    """Bring the employee to the terminal; return an Outcome, whatever the terminal does.

    `held` is what the terminal held before, as far as known. Raises only what forbids a call:
    CallForbidden, and SupabaseError where the lease or `intend` failed.
    """
    if not employee.active:
        return await _sync_leaver(terminal, employee, held, policy)
    if former := numbers_to_end(employee, held):
        # Other numbers, or none any more: the old ones would stay valid until 2037. They are ended
        # first and read back at once, so that the ledger knows them until they are ended for sure.
        # The policy `keep` is not about numbers.
        error = await _end_former(terminal, employee, former, policy)
        if error is not None:
            return person_failed(error, held)
        held = Held() if held.employee_no in former else replace(held, others=())
    return await _sync_number(terminal, employee, held, intend)


async def _end_former(
    terminal: PersonTerminal, employee: Employee, numbers: Sequence[str], policy: LeaverPolicy
) -> TerminalError | None:
    """End numbers that are no longer the employee's; return why one may not have ended, if so.

    The faces under them go too: the ledger forgets them, and HR may give such a number to an
    employee who has no photo.
    """
    error = await _end(terminal, employee, numbers, policy, faces_too=True)
    return error or await _fault_of_end(terminal, numbers, gone=policy == "delete")


async def _sync_number(
    terminal: PersonTerminal, employee: Employee, held: Held, intend: Intend
) -> Outcome:
    if employee.employee_no is None:
        return outcome_of("skipped", "person", NO_NUMBER, held)
    return await _sync_person(terminal, employee, employee.employee_no, held, intend)


async def sync_again(
    terminal: PersonTerminal, employee: Employee, held: Held, policy: LeaverPolicy, intend: Intend
) -> Outcome:
    """Bring the employee to the terminal, the photo too, whatever the ledger believes."""
    photo = UNKNOWN_PHOTO if employee.photo_url or held.photo else None
    if held.photo in (NOT_THERE, ANOTHERS_PHOTO):
        photo = held.photo
    return await sync(terminal, employee, replace(held, photo=photo), policy, intend)


async def sync_photo(
    terminal: PersonTerminal, employee: Employee, held: Held, policy: LeaverPolicy, intend: Intend
) -> Outcome:
    """Bring only the photo, to a person whom the terminal holds; end a leaver's access."""
    if not employee.active:
        return await _sync_leaver(terminal, employee, held, policy)
    if employee.employee_no is None:
        return outcome_of("skipped", "person", NO_NUMBER, held)
    if employee.photo_url is None:
        return outcome_of("skipped", "photo", "HR has no photo of the employee.", held)
    # Another number held there is ended by the next whole sync.
    number = held.employee_no or employee.employee_no
    held = replace(held, employee_no=number, photo=await intend(number))
    if held.photo == ANOTHERS_PHOTO and number == employee.employee_no:
        return await _sync_person(terminal, employee, number, held, intend)
    return await _sync_photo(terminal, employee, employee.employee_no, employee.photo_url, held)


async def _sync_photo(
    terminal: PersonTerminal, employee: Employee, employee_no: str, photo_url: str, held: Held
) -> Outcome:
    try:
        await put_face(terminal, employee_no, photo_url)
    except PersonAbsent as error:
        words = f"{error.message} The whole employee is synced next."
        return outcome_of("skipped", "photo", words, held, error)
    except TerminalError as error:
        return photo_failed(employee_no, error, held)
    if held.employee_no == employee_no:
        held = replace(held, photo=photo_fingerprint(employee))
    expected = Expected(employee_no=employee_no, may_pass=None, face=True)
    return outcome_of(
        "success", "done", "The photo is on the terminal.", held, expected=(expected,)
    )


async def _sync_person(
    terminal: PersonTerminal, employee: Employee, employee_no: str, held: Held, intend: Intend
) -> Outcome:
    noted = held.employee_no == employee_no
    expected_there = noted and held.photo != NOT_THERE
    if not noted:
        # A person whom the terminal has under this number may have another person's face.
        held = replace(held, employee_no=employee_no, photo=await intend(employee_no))
    put = await _put_person(terminal, employee, employee_no, held, expected_there=expected_there)
    if isinstance(put, Outcome):
        return put
    held, photo = put, put.photo
    expected = expected_of(employee, employee_no)
    if photo == photo_fingerprint(employee):
        words = "The person is on the terminal" + ("." if photo else "; HR has no photo.")
        return outcome_of("success", "done", words, held, expected=(expected,))
    if noted:
        await intend(employee_no)
    try:
        if employee.photo_url is None:
            await terminal.faces.remove(employee_no)
            words = "The person is there, the photo is removed."
        else:
            await put_face(terminal, employee_no, employee.photo_url)
            words = "Person and photo are on the terminal."
    except TerminalError as error:
        failed = photo_failed(employee_no, error, replace(held, photo=UNKNOWN_PHOTO))
        if failed.status != "partial":
            return failed
        what = "The person is on the terminal, the photo is not."
        if employee.photo_url is None:
            what = "The photo could not be removed from the terminal."
        expected = replace(expected, face=None)
        return replace(failed, message=f"{what} {failed.message}", expected=(expected,))
    held = replace(held, photo=photo_fingerprint(employee))
    return outcome_of("success", "done", words, held, expected=(expected,))


async def _put_person(
    terminal: PersonTerminal,
    employee: Employee,
    employee_no: str,
    held: Held,
    *,
    expected_there: bool,
) -> Held | Outcome:
    """Put the person there; return what is held then, or the outcome where that failed.

    A person who was there, and of whom the ledger knew nothing, may have anybody's face; one whose
    number was another's is not let in with that one's face.
    """
    put = partial(terminal.persons.put, employee_no, employee.name)
    if held.photo == ANOTHERS_PHOTO:
        return await _put_heir(terminal, employee, employee_no, held, put)
    try:
        was_there = await put(expected_there=expected_there)
    except TerminalError as error:
        return person_failed(error, held)  # the terminal may hold them all the same
    return replace(held, photo=held.photo if was_there else None)


async def _put_heir(
    terminal: PersonTerminal,
    employee: Employee,
    employee_no: str,
    held: Held,
    put: Callable[..., Awaitable[bool]],
) -> Held | Outcome:
    """Put somebody there whose number was another's, as `_put_person` does.

    That one is ended first, because from now on nobody else ends the number; and the face goes, or
    becomes theirs, before they are let in.
    """
    try:
        there = await patiently(partial(terminal.persons.end, employee_no, employee.name))
    except DataRefused as refused:  # not given up like a hire's bad data: another may still pass
        return person_failed(AnswerUnexplained(refused.message), held)
    except TerminalError as error:
        return person_failed(error, held)
    photo: str | None = None
    try:
        if there:
            photo = await _make_face_theirs(terminal, employee, employee_no)
    except TerminalError as error:
        return _not_let_in(employee_no, error, held)
    try:
        await patiently(partial(put, expected_there=there))
    except TerminalError as error:
        return person_failed(error, held)
    return replace(held, photo=photo)


async def _make_face_theirs(
    terminal: PersonTerminal, employee: Employee, employee_no: str
) -> str | None:
    """Remove or replace another person's face before its number lets anybody in again.

    Returns what is known of the photo there then. Raises TerminalError where neither can be done.
    """
    fault: TerminalError | None
    try:
        with suppress(DataRefused, PersonAbsent):  # it has none
            await patiently(partial(terminal.faces.remove, employee_no))
        fault = await _fault_of_removal(terminal, employee_no)
    except TerminalError as error:
        if consequence(error).asked_back != "now":
            raise
        fault = error
    if fault is None:
        return None
    if employee.photo_url is None:
        raise fault
    await put_face(terminal, employee_no, employee.photo_url)
    return photo_fingerprint(employee)


async def _fault_of_removal(terminal: PersonTerminal, employee_no: str) -> TerminalError | None:
    """Return why a face may be there still; believe a terminal that cannot be asked."""
    try:
        found = await patiently(partial(terminal.persons.find, [employee_no]))
    except TerminalError as error:
        if consequence(error).asked_back == "now":
            return None
        raise
    there = found.get(employee_no)
    if there is None:
        return None
    if not there.faces and not await patiently(partial(terminal.faces.has, employee_no)):
        return None
    return NotKept(f"The terminal answered OK, but {employee_no} has still a face there.")


def _not_let_in(employee_no: str, error: TerminalError, held: Held) -> Outcome:
    failed = photo_failed(employee_no, error, held)
    what = "The number was another person's, whose face may be there: nobody is let in with it."
    expected = (Expected(employee_no=employee_no, may_pass=False),)
    return replace(failed, message=f"{what} {failed.message}", expected=expected)


async def _sync_leaver(
    terminal: PersonTerminal, employee: Employee, held: Held, policy: LeaverPolicy
) -> Outcome:
    numbers = numbers_to_end(employee, held)
    if not numbers:
        return outcome_of("success", "done", "The person was never on the terminal.", held)
    if policy == "keep":
        message = "The person is not active, and is left as is (LEAVER_POLICY=keep)."
        return outcome_of("success", "done", message, held)
    words = "The person may no longer pass."
    if policy == "delete":
        words = "The person is erased from the terminal."
    error = await _end(terminal, employee, numbers, policy)
    if error is not None:
        return person_failed(error, held)
    gone = policy == "delete"
    held = Held() if gone else replace(held, others=())
    expected = tuple(Expected(employee_no=one, may_pass=False, gone=gone) for one in numbers)
    return outcome_of("success", "done", words, held, expected=expected)


async def _end(
    terminal: PersonTerminal,
    employee: Employee,
    numbers: Sequence[str],
    policy: LeaverPolicy,
    *,
    faces_too: bool = False,
) -> TerminalError | None:
    """End numbers, or erase them with all they have; return what stood in the way."""
    try:
        for number in numbers:
            if policy == "delete":
                await _erase(terminal, number, employee.name)
                continue
            await terminal.persons.end(number, employee.name)
            if faces_too:
                with suppress(DataRefused, NotSupported, PersonAbsent):
                    await terminal.faces.remove(number)  # it has none, or cannot remove it
    except DataRefused as refused:  # not given up like a hire's bad data: they may still pass
        return AnswerUnexplained(refused.message)
    except TerminalError as error:
        return error
    return None


async def _erase(terminal: PersonTerminal, employee_no: str, name: str) -> None:
    """Erase a person; where the terminal cannot, end their access and raise its refusal."""
    try:
        await terminal.persons.erase(employee_no)
    except (AnswerUnexplained, NotSupported):
        await terminal.persons.end(employee_no, name)
        raise


async def _fault_of_end(
    terminal: PersonTerminal, numbers: Sequence[str], *, gone: bool
) -> TerminalError | None:
    """Return why a number may not have ended, if so; believe a terminal that cannot be asked."""
    try:
        found = await terminal.persons.find(numbers)
    except TerminalError as error:
        return None if consequence(error).asked_back == "now" else error
    for number in numbers:
        expected = Expected(employee_no=number, may_pass=False, gone=gone)
        for fault in differences(expected, found.get(number)):
            return NotKept(f"The terminal answered OK, but {fault}.")
    return None
