"""A simulated Hikvision face terminal: a strict HTTP server on loopback (terminals/README.md).

It is the independent twin of the receiver's client and shares no code with it, so that a mistake
there cannot hide here. This module decides who may call, and notes every call; `firmware` answers
calls, `persons` and `faces` carry them out.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Self

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from receiver.sandbox.loopback import LoopbackServer
from receiver.sandbox.terminal.answers import Answer, Document, device_info, unauthorized
from receiver.sandbox.terminal.digest import DigestGuard, Verdict
from receiver.sandbox.terminal.endpoints import Endpoints
from receiver.sandbox.terminal.faces import FaceCalls
from receiver.sandbox.terminal.firmware import Firmware
from receiver.sandbox.terminal.memory import (
    MODERN,
    Call,
    Device,
    Face,
    Person,
    Profile,
    Sightings,
)
from receiver.sandbox.terminal.payloads import Request, read_body, read_head
from receiver.sandbox.terminal.persons import PersonCalls

__all__ = ["Call", "Face", "Person", "Profile", "Sightings", "SimulatedTerminal"]


CONNECTIONS = 100


class SimulatedTerminal:
    """One terminal: `persons` is its memory, `sightings` what it noticed about its client.

    `port` is 0 until it is started, unless given, and then stays the same through power cuts.
    A client is expected to leave `min_pause_s` between authenticated calls; it is only counted.
    `clock` measures nonces and the lockout.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, and each has a default but the password
        self,
        *,
        password: str,
        username: str = "admin",
        profile: Profile = MODERN,
        port: int = 0,
        min_pause_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.serial = profile.serial
        self._device = Device(
            profile=profile,
            face_url=self._face_url,
            sightings=Sightings(min_pause_s=min_pause_s),
        )
        self._guard = DigestGuard(
            username=username,
            password=password,
            nonce_life_s=profile.nonce_life_s,
            lockout_failures=profile.lockout_failures,
            lockout_s=profile.lockout_s,
            clock=clock,
        )
        self._person_calls = PersonCalls(self._device)
        self._firmware = Firmware(
            self._device,
            Endpoints(self._person_calls, FaceCalls(self._device), device_info=self._device_info),
        )
        self._awake = asyncio.Event()
        self._awake.set()
        self._server: LoopbackServer | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def profile(self) -> Profile:
        """Return the habits of the firmware that it has now."""
        return self._device.profile

    @property
    def persons(self) -> dict[str, Person]:
        """Return its memory, by employeeNo; a test may change it."""
        return self._device.persons

    @property
    def sightings(self) -> Sightings:
        """Return what it noticed about its client so far."""
        return self._device.sightings

    def holds(self) -> dict[str, tuple[str, str | None]]:
        """Return the persons it holds: employeeNo → (name, photo URL, empty for an upload)."""
        return {
            number: (person.name, None if person.face is None else person.face.url)
            for number, person in self.persons.items()
        }

    def may_pass(self, employee_no: str, at: datetime) -> bool:
        """Return whether the terminal lets this person in at `at`; a stranger never."""
        person = self.persons.get(employee_no)
        return person is not None and person.may_pass(at)

    def enroll_card(self, employee_no: str) -> None:
        """Enroll a card at the terminal itself, as a receptionist does. KeyError for a stranger."""
        self.persons[employee_no].cards += 1

    def change_password(self, password: str) -> None:
        """Change the password at the terminal itself; failures and a lockout stay as they are."""
        self._guard.change_password(password)

    def upgrade(self, profile: Profile) -> None:
        """Give it another firmware: other habits and endpoints; the memory and the login stay."""
        self._device.profile = profile

    def replace_hardware(self, serial: str) -> None:
        """Hang another terminal in its place: same address and password, empty memory."""
        self.serial = serial
        self._guard.start_over()
        self._person_calls.give_up_deletion()
        self.persons.clear()

    async def start(self) -> None:
        """Switch on for the first time; return once it listens."""
        await self.switch_on()

    async def stop(self) -> None:
        """Switch off and give the port back."""
        await self.switch_off()
        if self._server is not None:
            await self._server.stop()

    async def switch_on(self) -> None:
        """Listen, with the memory as it was. No effect on a terminal that is on."""
        self._server = self._server or LoopbackServer(
            self._serve, port=self.port, max_connections=CONNECTIONS
        )
        self.port = self._server.port
        await self._server.start()

    async def switch_off(self) -> None:
        """Cut the power: connections break, calls in progress are lost, the port refuses.

        The memory stays. It also ends a hang. No effect on a terminal that is off.
        """
        if self._server is not None:
            await self._server.pull_plug()
        await self._person_calls.lose_power()
        self._awake.set()

    async def hang(self) -> None:
        """Go on accepting connections and requests, and answer none until `unhang`."""
        self._awake.clear()

    async def unhang(self) -> None:
        """Answer every request that waited."""
        self._awake.set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the ASGI application. Neither uvicorn nor this stops when the client goes away."""
        with contextlib.suppress(asyncio.CancelledError):  # only a power cut cancels
            await self._take(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        request, target = read_head(scope)
        verdict = self._guard.judge(
            method=request.method,
            target=target,
            authorization=Headers(scope=scope).get("authorization"),
        )
        authenticated = verdict is Verdict.RIGHT
        if not authenticated and verdict is not Verdict.ABSENT:
            self.sightings.failed_logins += 1
        with self._watched() if authenticated else contextlib.nullcontext():
            body = await read_body(receive, request)
            if body is None:
                return
            await self._awake.wait()
            answer = (
                await self._firmware.answer(request, body)
                if authenticated
                else self._turn_away(verdict)
            )
            await self._awake.wait()
            ended = time.monotonic()
            if authenticated:
                self.sightings.authenticated_call_answered(ended)
            self.sightings.calls.append(
                Call(
                    method=request.method,
                    path=request.path,
                    employee_no=request.employee_no,
                    status=answer.status,
                    sub_status=answer.sub_status,
                    started=started,
                    ended=ended,
                    authenticated=authenticated,
                    uploaded=request.picture is not None,
                )
            )
            response = Response(
                answer.body, answer.status, answer.headers, media_type=answer.media_type
            )
            await response(scope, receive, send)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self.sightings.authenticated_call_begins(time.monotonic())
        try:
            yield
        finally:
            self.sightings.authenticated_call_ends(time.monotonic())

    def _turn_away(self, verdict: Verdict) -> Answer:
        # A stale nonce gets no new challenge, so a client that reuses one sees a bad password.
        offers = verdict in (Verdict.ABSENT, Verdict.WRONG)
        return unauthorized(
            profile=self.profile,
            locked_for_s=self._guard.locked_for_s(),
            attempts_left=self._guard.attempts_left(),
            challenge=self._guard.challenge() if offers else None,
        )

    async def _device_info(self, _: Request) -> Document:
        return device_info(self.profile, serial=self.serial or f"SIMULATED{self.port}")

    def _face_url(self, person: Person) -> str:
        return f"http://{self.host}:{self.port}/LOCALS/pic/enrlFace/0/{person.employee_no}.jpg"
