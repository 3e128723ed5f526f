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
        found = await _witnessed(client, await _find(client, numbers), faces)
    except TerminalError as error:
        if is_unanswering(error):
            raise
        return {}
    return {number: found.get(number) for number in numbers}


async def after(client: TerminalClient, expected: Sequence[Expected]) -> Mapping[str, Found]:
    """Return the persons whom it holds under the numbers that were pushed; raise TerminalError."""
    numbers = list(dict.fromkeys(e.employee_no for e in expected))
    faces = [e.employee_no for e in expected if e.face]
    found = await _witnessed(client, await _find(client, numbers), faces)
    if any(number in found and found[number].faces == 0 for number in faces):
        await client.faces.prefer_upload()  # the next one would not arrive by URL either
    return found


async def _witnessed(
    client: TerminalClient, found: Mapping[str, Found], numbers: Sequence[str]
) -> Mapping[str, Found]:
    """Return what was found, with the face library as a second witness for missing faces.

    A person who should have a face and is said to have none is looked up there before the face is
    called missing: no source promises how firmwares count faces. One that counts nobody's is not
    asked for that again; one that counts others' was only late.
    """
    counts = any(one.faces for one in found.values())
    corrected = dict(found)
    for number in numbers:
        there = found.get(number)
        if there is not None and there.faces == 0:
            faces = int(await client.faces.has(number))
            if faces and not counts:
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
