"""Ask a terminal for the persons it holds, before and after a batch of pushes; many in a search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from receiver.core.errors import TerminalBusy, TerminalError
from receiver.core.models import Expected, Found
from receiver.sync.consequences import is_unanswering
from receiver.terminals.client import TerminalClient

SEARCH_FIRST: Final = 3
"""From so many pairs on that may be in step already, one search first is cheaper than pushes."""
BUSY_SEARCHES: Final = 3
"""How often a busy terminal is searched before the search fails."""


async def before(client: TerminalClient, numbers: Sequence[str]) -> Mapping[str, Found | None]:
    """Return what it says of each number; of none where they are few, or it cannot say.

    Raises TerminalError where the terminal is not to be asked anything more.
    """
    if len(numbers) < SEARCH_FIRST:
        return {}
    try:
        found = await _find(client, numbers)
    except TerminalError as error:
        if is_unanswering(error):
            raise
        return {}
    return {number: found.get(number) for number in numbers}


async def after(client: TerminalClient, expected: Sequence[Expected]) -> Mapping[str, Found]:
    """Return the persons whom it holds under the numbers that were pushed; raise TerminalError.

    A person who should have a face and is said to have none is looked up in the face library too: a
    second witness before a face is called missing. No source promises how firmwares count faces.
    """
    found = dict(await _find(client, list(dict.fromkeys(e.employee_no for e in expected))))
    for one in expected:
        there = found.get(one.employee_no)
        if one.face and there is not None and there.faces == 0:
            faces = int(await client.faces.has(one.employee_no))
            if not faces:  # the next one would not arrive by URL either
                await client.faces.prefer_upload()
            found[one.employee_no] = replace(there, faces=faces)
    return found


async def _find(client: TerminalClient, numbers: Sequence[str]) -> Mapping[str, Found]:
    for _ in range(BUSY_SEARCHES - 1):
        try:
            return await client.persons.find(numbers)
        except TerminalBusy:
            continue
    return await client.persons.find(numbers)
