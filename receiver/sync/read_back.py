"""Ask a terminal for the persons it holds, before and after a batch of pushes; many in a search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from receiver.core.errors import TerminalBusy, TerminalError
from receiver.core.models import Expected, Found
from receiver.sync.consequences import is_unanswering
from receiver.terminals.client import TerminalClient

BUSY_SEARCHES: Final = 3
"""How often a busy terminal is searched before the search fails."""


async def before(
    client: TerminalClient, numbers: Sequence[str], faces: Sequence[str]
) -> Mapping[str, Found | None]:
    """Return what it says of each number; of none where it cannot say.

    `faces` are those numbers that should have a face. Raises TerminalError where the terminal is
    not to be asked anything more.
    """
    if not numbers:
        return {}
    numbers = list(dict.fromkeys(numbers))
    try:
        found = await _find(client, numbers)
        return await _witnessed(client, {n: found.get(n) for n in numbers}, faces)
    except TerminalError as error:
        if is_unanswering(error):
            raise
        return {}


async def after(client: TerminalClient, expected: Sequence[Expected]) -> Mapping[str, Found]:
    """Return the persons whom it holds under the numbers that were pushed; raise TerminalError."""
    found = await _find(client, list(dict.fromkeys(e.employee_no for e in expected)))
    faces = [e.employee_no for e in expected if e.face]
    there = await _witnessed(client, found, faces)
    for number in faces:
        one = there.get(number)
        if one is not None and one.faces == 0:  # the next one would not arrive by URL either
            await client.faces.prefer_upload()
    return {number: one for number, one in there.items() if one is not None}


async def _witnessed(
    client: TerminalClient, found: Mapping[str, Found | None], numbers: Sequence[str]
) -> Mapping[str, Found | None]:
    """Return what was found, with the face library as a second witness for missing faces.

    A person who should have a face and is said to have none is looked up there before the face is
    called missing: no source promises how firmwares count faces.
    """
    corrected = dict(found)
    for number in numbers:
        there = found.get(number)
        if there is not None and there.faces == 0:
            faces = int(await client.faces.has(number))
            if faces:
                await client.persons.note_faces_uncounted()
            corrected[number] = replace(there, faces=faces)
    return corrected


async def _find(client: TerminalClient, numbers: Sequence[str]) -> Mapping[str, Found]:
    for _ in range(BUSY_SEARCHES - 1):
        try:
            return await client.persons.find(numbers)
        except TerminalBusy:
            continue
    return await client.persons.find(numbers)
