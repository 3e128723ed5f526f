"""What the rules ask of a terminal, and how often where it is busy."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from receiver.core.errors import TerminalBusy
from receiver.core.models import Found

BUSY_PAUSES_S = (0.5, 1.0, 2.0)
"""Before a face is sent again to a busy terminal, on top of the pause between calls: a terminal
makes a model of one face at a time, which takes it seconds (SK, CH)."""

T = TypeVar("T")


class TerminalPersons(Protocol):
    """What these rules ask of a terminal's persons; `terminals.persons.Persons` does it."""

    async def put(self, employee_no: str, name: str, *, expected_there: bool) -> bool:
        """Put the person there; return whether they were there, as `expected_there` guesses."""

    async def end(self, employee_no: str, name: str) -> bool:
        """End the person's access; return whether they were there."""

    async def erase(self, employee_no: str) -> None:
        """Erase the person."""

    async def find(self, employee_nos: Sequence[str]) -> Mapping[str, Found]:
        """Return the persons whom the terminal holds under these numbers."""


class TerminalFaces(Protocol):
    """What these rules ask of a terminal's faces; `terminals.faces.Faces` does it."""

    async def put(self, employee_no: str, photo_url: str) -> None:
        """Put this photo there as the person's face."""

    async def remove(self, employee_no: str) -> None:
        """Remove the person's face."""

    async def has(self, employee_no: str) -> bool:
        """Return whether there is a face of the person; False where it cannot say."""


class PersonTerminal(Protocol):
    """A terminal, as these rules need it; `terminals.client.TerminalClient` is one."""

    @property
    def persons(self) -> TerminalPersons:
        """Its persons."""

    @property
    def faces(self) -> TerminalFaces:
        """Their faces."""


async def put_face(terminal: PersonTerminal, employee_no: str, photo_url: str) -> None:
    """Put this photo there as the person's face, as `patiently` does."""
    await patiently(partial(terminal.faces.put, employee_no, photo_url))


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call again where the terminal is busy, because most are for a moment."""
    for pause_s in BUSY_PAUSES_S:
        try:
            return await call()
        except TerminalBusy:
            await asyncio.sleep(pause_s)
    return await call()
