"""Bring one employee on one terminal to where HR says it should be.

The rules of the house, and nothing about how a terminal spells them or when it is done: person
before photo, a leaver's access ended, a photo that the terminal has already not sent again.
"""

import hashlib
from dataclasses import replace
from typing import Protocol

from receiver.errors import (
    DataRefused,
    NotSupported,
    PhotoNotFetched,
    TerminalBusy,
    TerminalError,
    TerminalRefused,
    TerminalTimeout,
)
from receiver.models import Employee, Held, LeaverPolicy, Outcome, Status, Step

PHOTO_ALONE = (
    DataRefused,
    NotSupported,
    PhotoNotFetched,
    TerminalBusy,
    TerminalRefused,
    TerminalTimeout,
)
"""Errors that, met at the photo, leave a person who may pass: `partial`. Any other is `fatal`."""


class PersonTerminal(Protocol):
    """What this module asks of a terminal; `isapi.TerminalClient` is one."""

    async def put_person(self, employee_no: str, name: str) -> bool:
        """Hold this person; return whether the terminal did before."""

    async def put_face(self, employee_no: str, photo_url: str) -> None:
        """Hold this photo as the person's face."""

    async def end_validity(self, employee_no: str, name: str) -> None:
        """Let the person pass no longer."""

    async def erase(self, employee_no: str) -> None:
        """Erase the person."""


def photo_fingerprint(employee: Employee) -> str | None:
    """Return what tells one photo of an employee from the next; None for no photo.

    Of its URL and number, not its bytes: HR's edit changes the URL. A digest, so that the ledger
    holds no link to a face.
    """
    if employee.photo_url is None:
        return None
    identity = f"{employee.employee_no}\n{employee.photo_url}"
    return hashlib.sha256(identity.encode()).hexdigest()


async def sync(
    terminal: PersonTerminal, employee: Employee, held: Held, policy: LeaverPolicy
) -> Outcome:
    """Bring the employee there; whatever the terminal does, the answer is an Outcome.

    `held` is what the terminal held before, as far as known. Raises only what forbids a call:
    CallForbidden, and SupabaseError where the lease could not be renewed.
    """
    if not employee.active:
        return await _sync_leaver(terminal, employee, held, policy)
    if employee.employee_no is None:
        return _outcome("skipped", "person", "The employee has no employee_no.", held)
    return await _sync_person(terminal, employee, employee.employee_no, held)


async def _sync_person(
    terminal: PersonTerminal, employee: Employee, employee_no: str, held: Held
) -> Outcome:
    try:
        known = await terminal.put_person(employee_no, employee.name)
    except TerminalError as error:
        return _person_failed(error, held)
    photo = held.photo if known and held.employee_no == employee_no else None
    held = Held(employee_no=employee_no, photo=photo)
    wanted_photo = photo_fingerprint(employee)
    if employee.photo_url is None:
        return _outcome("success", "done", "The person is on the terminal; HR has no photo.", held)
    if photo == wanted_photo:
        return _outcome("success", "done", "The person is on the terminal.", held)
    try:
        await terminal.put_face(employee_no, employee.photo_url)
    except PHOTO_ALONE as error:
        message = f"The person is on the terminal, the photo is not: {error.message}"
        return _outcome("partial", "photo", message, replace(held, photo=None), error)
    except TerminalError as error:
        return _outcome("fatal", "photo", error.message, replace(held, photo=None), error)
    held = replace(held, photo=wanted_photo)
    return _outcome("success", "done", "Person and photo are on the terminal.", held)


async def _sync_leaver(
    terminal: PersonTerminal, employee: Employee, held: Held, policy: LeaverPolicy
) -> Outcome:
    employee_no = held.employee_no or employee.employee_no
    if employee_no is None:
        return _outcome("success", "done", "The person was never on the terminal.", held)
    if policy == "keep":
        message = "The person is not active, and is left as is (LEAVER_POLICY=keep)."
        return _outcome("success", "done", message, held)
    try:
        if policy == "delete":
            await terminal.erase(employee_no)
            return _outcome("success", "done", "The person is erased from the terminal.", Held())
        await terminal.end_validity(employee_no, employee.name)
    except TerminalError as error:
        return _person_failed(error, held)
    return _outcome("success", "done", "The person may no longer pass.", held)


def _person_failed(error: TerminalError, held: Held) -> Outcome:
    status: Status = "skipped" if isinstance(error, DataRefused) else "fatal"
    return _outcome(status, "person", error.message, held, error)


def _outcome(
    status: Status,
    step: Step,
    message: str,
    held: Held,
    error: TerminalError | None = None,
) -> Outcome:
    return Outcome(status=status, step=step, message=message, held=held, error=error)
