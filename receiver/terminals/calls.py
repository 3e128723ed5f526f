"""One call to a terminal in its turn, and the capabilities of the terminal that answers.

Before the first call of a visit, where it is due, the terminal is asked which hardware and
firmware it is; only a new one is asked what it takes. A call that it turns out to lack is
remembered too, so that each fallback is paid for once.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from receiver.core.errors import (
    AnswerUnexplained,
    LoginRefused,
    TerminalBusy,
    TerminalError,
    TerminalFull,
    TerminalTimeout,
    TerminalUnreachable,
)
from receiver.core.models import Capabilities, Terminal
from receiver.terminals.answers import PERSONS_FULL, Answer, parse
from receiver.terminals.capabilities import declared, same_firmware
from receiver.terminals.exchange import Body, Wire

Turn = Callable[[float], AbstractAsyncContextManager[None]]
"""Takes the most seconds that a call may last; once entered, the call may begin."""

Remember = Callable[[Capabilities], Awaitable[None]]
"""Keeps capabilities; raises TerminalReplaced where they show that other hardware is there."""

Called = Callable[[str, float], None]
"""Takes what came of a call (`ok` or an error's kind), and how many seconds it took."""

USER_INFO: Final = "/ISAPI/AccessControl/UserInfo"
USER_DETAIL: Final = "/ISAPI/AccessControl/UserInfoDetail"
FACE_LIBRARY: Final = "/ISAPI/Intelligent/FDLib"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of several calls for the same thing; each firmware has its own."""

    method: str
    path: str

    @property
    def name(self) -> str:
        """Return the name under which it is remembered when a terminal lacks it."""
        short = self.path.removeprefix("/ISAPI/").removeprefix("AccessControl/")
        short = short.removeprefix("Intelligent/")
        return short if self.method != "POST" or "Modify" not in short else f"POST {short}"


class Calls:
    """Calls to one terminal; each waits for its turn and raises TerminalError."""

    def __init__(  # noqa: PLR0913 - keyword-only but for the first three
        self,
        http: httpx.AsyncClient,
        terminal: Terminal,
        turn: Turn,
        *,
        timeout_s: float,
        face_timeout_s: float,
        remember: Remember,
        called: Called,
        capabilities: Capabilities | None = None,
        identify: bool = True,
        after_trouble: bool = False,
    ) -> None:
        self._wire = Wire(http, terminal)
        self.name = f"terminal {terminal.host}"
        """Its name in messages."""
        self._turn = turn
        self._timeout_s = timeout_s
        self._face_timeout_s = face_timeout_s
        self._identify_due = identify or capabilities is None
        self._met = capabilities is not None
        self._after_trouble = after_trouble
        self._remember = remember
        self._called = called
        self.capabilities = capabilities or Capabilities()
        self.answered = 0
        """How many calls the terminal let in and answered; 0 means that nothing was learnt."""

    async def identify(self) -> None:
        """Ask which hardware and firmware it is if that is due, and a new one what it takes.

        A terminal that does not say keeps its capabilities, or gets the default ones. Raises
        TerminalUnreachable, TerminalTimeout, LoginRefused, and what `turn` and `remember` raise.
        """
        if not self._identify_due:
            return
        device = await self._asked("/ISAPI/System/deviceInfo")
        capabilities = self.capabilities
        if not self._met or not same_firmware(capabilities, device or {}):
            unable = (TerminalTimeout, TerminalUnreachable)  # it was here a moment ago
            persons = await self._asked(f"{USER_INFO}/capabilities", unable)
            faces = await self._asked(f"{FACE_LIBRARY}/capabilities", unable)
            capabilities = declared(device or {}, persons or {}, faces or {})
            if persons is None or faces is None:
                capabilities = replace(capabilities, firmware="")  # asked again the next time
        elif self._after_trouble and device and device.get("serialNumber"):
            # While it started it may have lacked calls that it has: each is found out again.
            capabilities = replace(capabilities, lacks=())
        self._identify_due, self._met = False, True
        await self.learn(capabilities)

    async def device_info(self) -> Mapping[str, Any]:
        """Return model, serialNumber, firmwareVersion; the cheapest call that needs the login."""
        answer = await self._send(Way(method="GET", path="/ISAPI/System/deviceInfo"), None)
        if not answer.fields.get("serialNumber"):
            raise self.error(answer)
        return answer.fields

    async def _asked(
        self, path: str, unable: tuple[type[TerminalError], ...] = ()
    ) -> Mapping[str, Any] | None:
        """Return the fields of its answer; None where it may say more another time."""
        try:
            answer = await self._send(Way(method="GET", path=path), None)
        except TerminalError as error:
            if isinstance(error, (AnswerUnexplained, *unable)):
                return None
            raise
        refused = self.error(answer)
        if isinstance(refused, LoginRefused):  # also one that is not a 401
            raise refused
        return None if isinstance(refused, TerminalBusy) else answer.fields

    async def learn(self, capabilities: Capabilities) -> None:
        """Note the terminal's capabilities, and have them remembered."""
        self.capabilities = capabilities
        await self._remember(capabilities)

    def lacks(self, way: Way) -> bool:
        """Return whether the firmware was found to lack a call."""
        return way.name in self.capabilities.lacks

    async def note_lack(self, way: Way, answer: Answer | None = None) -> None:
        """Remember that the firmware lacks a way, where the answer to it leaves no doubt."""
        if not self.lacks(way) and (answer is None or answer.lacked):
            await self.learn(replace(self.capabilities, lacks=(*self.capabilities.lacks, way.name)))

    async def note_no_lack(self, way: Way) -> None:
        """Remember that the firmware has a way which it was believed to lack."""
        lacks = tuple(name for name in self.capabilities.lacks if name != way.name)
        await self.learn(replace(self.capabilities, lacks=lacks))

    async def by_first(
        self,
        ways: Sequence[Way],
        body: Mapping[str, Any],
        *,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call in the first of these ways that the firmware has; remember the ways it lacks."""
        left = [way for way in ways if not self.lacks(way)] or list(ways)
        for way in left:
            answer = await self.call(way, body, params=params)
            if not answer.unsupported:
                break
            await self.note_lack(way, answer)
        return answer

    async def call(
        self,
        way: Way,
        body: Body,
        *,
        is_of_face: bool = False,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call in this way and return any answer; raise TerminalError where none came.

        A face call may take longer: the terminal makes a model of it.
        """
        await self.identify()
        timeout_s = self._face_timeout_s if is_of_face else self._timeout_s
        return await self._send(way, body, timeout_s=timeout_s, params=params)

    async def _send(
        self,
        way: Way,
        body: Body,
        *,
        timeout_s: float | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        timeout_s = timeout_s or self._timeout_s
        began_at = time.monotonic()
        try:
            async with self._turn(timeout_s):
                began_at = time.monotonic()
                status, answered = await self._wire.exchange(
                    way.method,
                    way.path,
                    body,
                    params={"format": "json", **(params or {})},
                    timeout_s=timeout_s,
                )
            answer = parse(status, answered)
        except TerminalError as error:
            self._called(error.kind, time.monotonic() - began_at)
            raise error.named(self.name) from error.__cause__
        self._called(answer.kind, time.monotonic() - began_at)
        self.answered += 1
        return answer

    def error(self, answer: Answer) -> TerminalError:
        """Return what an answer means as an error that names the terminal."""
        if answer.says(PERSONS_FULL) and self.capabilities.most_persons:
            name = f"{self.name[0].upper()}{self.name[1:]}"
            return TerminalFull(f"{name} is full ({self.capabilities.most_persons:,} persons).")
        return answer.error(self.name)

    def require_ok(self, answer: Answer) -> None:
        """Raise the error that an answer means, unless the terminal says that it did it."""
        if not answer.ok:
            raise self.error(answer)
