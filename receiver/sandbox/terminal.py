"""A simulated Hikvision face terminal: a real HTTP server on loopback, as strict as isapi.md.

It is the independent twin of the receiver's client and shares no code with it, so that a mistake
there cannot hide here. This module is its front door (who may call, what is there to be called)
and its eyes; what the calls do is in `terminal_persons` and `terminal_faces`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.responses import Response

from receiver.sandbox.digest import DigestGuard, Verdict
from receiver.sandbox.terminal_answers import (
    Answer,
    Document,
    Refusal,
    carried_out,
    device_info,
    refused,
    unauthorized,
)
from receiver.sandbox.terminal_faces import FaceCalls
from receiver.sandbox.terminal_memory import MODERN, Call, Face, Person, Profile, Sightings
from receiver.sandbox.terminal_payloads import Request, parse
from receiver.sandbox.terminal_persons import PersonCalls
from receiver.sandbox.terminal_power import PowerSupply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from datetime import datetime
    from types import TracebackType

    from starlette.types import Receive, Scope, Send

__all__ = ["Call", "Face", "Person", "Profile", "Sightings", "SimulatedTerminal"]

_BODY_BYTES = 1024 * 1024
_USER_INFO = "/ISAPI/AccessControl/UserInfo"
_USER_INFO_DETAIL = "/ISAPI/AccessControl/UserInfoDetail"
_FDLIB = "/ISAPI/Intelligent/FDLib"


@dataclass(frozen=True, kw_only=True)
class _Endpoint:
    """What a path and a method lead to, and whether it must be asked with `?format=json`."""

    carry_out: Callable[[Request], Awaitable[Document]]
    has_body: bool = False
    writes: bool = False
    needs_format: bool = True


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
        self.profile = profile
        self.persons: dict[str, Person] = {}
        self.sightings = Sightings(min_pause_s=min_pause_s)
        self._guard = DigestGuard(
            username=username,
            password=password,
            nonce_life_s=profile.nonce_life_s,
            lockout_failures=profile.lockout_failures,
            lockout_s=profile.lockout_s,
            clock=clock,
        )
        self._person_calls = PersonCalls(
            profile=profile,
            persons=self.persons,
            sightings=self.sightings,
            face_url=self._face_url,
        )
        self._endpoints = self._all_endpoints(
            FaceCalls(profile=profile, persons=self.persons, sightings=self.sightings)
        )
        self._writes_seen = 0
        self._awake = asyncio.Event()
        self._awake.set()
        self._power = PowerSupply(self._serve, port=port)

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

    def holds(self) -> dict[str, tuple[str, str | None]]:
        """Say who is on the terminal: employeeNo → (name, photo URL)."""
        return {
            number: (person.name, None if person.face is None else person.face.url)
            for number, person in self.persons.items()
        }

    def may_pass(self, employee_no: str, at: datetime) -> bool:
        """Say whether the terminal lets this person in at `at`; a stranger never."""
        person = self.persons.get(employee_no)
        return person is not None and person.may_pass(at)

    async def start(self) -> None:
        """Switch on for the first time; returns once it listens."""
        await self.switch_on()

    async def stop(self) -> None:
        """Switch off and give the port back."""
        await self.switch_off()
        self._power.disconnect()

    async def switch_on(self) -> None:
        """Listen, with the memory as it was. No effect on a terminal that is on."""
        await self._power.switch_on()
        self.port = self._power.port

    async def switch_off(self) -> None:
        """Cut the power: connections break, calls in progress are lost, the port refuses.

        The memory stays. A terminal that hangs is cured by it. No effect on one that is off.
        """
        await self._power.switch_off()
        await self._person_calls.lose_power()
        self._awake.set()

    async def hang(self) -> None:
        """Go on accepting connections and requests, and answer none until `unhang`."""
        self._awake.clear()

    async def unhang(self) -> None:
        """Answer all that waited."""
        self._awake.set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the ASGI application. Neither uvicorn nor this stops when the client goes away."""
        with contextlib.suppress(asyncio.CancelledError):  # only a power cut cancels
            await self._take(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        request, target = _request(scope)
        verdict = self._guard.judge(
            method=request.method,
            target=target,
            authorization=Headers(scope=scope).get("authorization"),
        )
        authenticated = verdict is Verdict.RIGHT
        if not authenticated and verdict is not Verdict.ABSENT:
            self.sightings.failed_logins += 1
        with self._watched() if authenticated else contextlib.nullcontext():
            body = await _body(receive)
            if body is None:
                return
            await self._awake.wait()
            answer = (
                await self._answer(request, body) if authenticated else self._turn_away(verdict)
            )
            await self._awake.wait()
            self.sightings.calls.append(
                Call(
                    method=request.method,
                    path=request.path,
                    employee_no=request.employee_no,
                    status=answer.status,
                    sub_status=answer.sub_status,
                    started=started,
                    ended=time.monotonic(),
                    authenticated=authenticated,
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
            locked_for_s=self._guard.locked_for_s(),
            attempts_left=self._guard.attempts_left(),
            challenge=self._guard.challenge() if offers else None,
        )

    async def _answer(self, request: Request, body: bytes) -> Answer:
        answers = self.profile.answers
        await asyncio.sleep(self.profile.delay_s)
        try:
            document = await self._carry_out(request, body)
        except Refusal as refusal:
            return refused(refusal, answers=answers, path=request.path)
        return carried_out(document, answers=answers, path=request.path)

    async def _carry_out(self, request: Request, body: bytes) -> Document:
        endpoint = self._endpoint(request)
        if endpoint.needs_format and request.query.get("format") != "json":
            raise Refusal("badURLFormat", "format")
        if endpoint.writes:
            self._writes_seen += 1
        if endpoint.has_body:
            request.payload = parse(body)
        if endpoint.writes:
            self.sightings.bodies.append(request.payload)
            busy_every = self.profile.busy_every
            if busy_every and self._writes_seen % busy_every == 0:
                raise Refusal("deviceBusy", http=self.profile.busy_http)
        return await endpoint.carry_out(request)

    def _endpoint(self, request: Request) -> _Endpoint:
        methods = self._endpoints.get(request.path)
        if methods is None:
            raise Refusal("notSupport", http=404)
        if request.method not in methods:
            raise Refusal("methodNotAllowed", http=405)
        return methods[request.method]

    def _all_endpoints(self, faces: FaceCalls) -> dict[str, dict[str, _Endpoint]]:
        persons = self._person_calls

        def reads(carry_out: Callable[[Request], Awaitable[Document]]) -> _Endpoint:
            return _Endpoint(carry_out=carry_out)

        def searches(carry_out: Callable[[Request], Awaitable[Document]]) -> _Endpoint:
            return _Endpoint(carry_out=carry_out, has_body=True)

        def writes(carry_out: Callable[[Request], Awaitable[Document]]) -> _Endpoint:
            return _Endpoint(carry_out=carry_out, has_body=True, writes=True)

        endpoints = {
            f"{_USER_INFO}/Record": {"POST": writes(persons.record)},
            f"{_USER_INFO}/Modify": {"PUT": writes(persons.modify)},
            f"{_USER_INFO}/SetUp": {"PUT": writes(persons.set_up)},
            f"{_USER_INFO}/Search": {"POST": searches(persons.search)},
            f"{_USER_INFO}/Count": {"GET": reads(persons.count)},
            f"{_USER_INFO}/capabilities": {"GET": reads(persons.capabilities)},
            f"{_USER_INFO_DETAIL}/Delete": {"PUT": writes(persons.delete)},
            # isapi.md writes this one without ?format=json
            f"{_USER_INFO_DETAIL}/DeleteProcess": {
                "GET": _Endpoint(carry_out=persons.delete_process, needs_format=False)
            },
            f"{_FDLIB}/FaceDataRecord": {"POST": writes(faces.record)},
            f"{_FDLIB}/FDSetUp": {"PUT": writes(faces.set_up)},
            f"{_FDLIB}/FDModify": {"PUT": writes(faces.modify)},
            f"{_FDLIB}/FDSearch": {"POST": searches(faces.search)},
            f"{_FDLIB}/FDSearch/Delete": {"PUT": writes(faces.delete)},
            "/ISAPI/System/deviceInfo": {
                "GET": _Endpoint(carry_out=self._device_info, needs_format=False)
            },
        }
        if not self.profile.has_fd_setup:  # FG's DS-K1T672MX
            del endpoints[f"{_FDLIB}/FDSetUp"]
        return endpoints

    async def _device_info(self, _: Request) -> Document:
        return device_info(
            name=self.profile.name, model="DS-K1T342MFWX-E1", serial=f"SIMULATED{self.port}"
        )

    def _face_url(self, person: Person) -> str:
        return f"http://{self.host}:{self.port}/LOCALS/pic/enrlFace/0/{person.employee_no}.jpg"


def _request(scope: Scope) -> tuple[Request, str]:
    """Read the head of a request: what is called, and the target exactly as it was sent."""
    query = scope["query_string"].decode("latin-1")
    target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    request = Request(method=scope["method"], path=scope["path"], query=dict(parse_qsl(query)))
    return request, target


async def _body(receive: Receive) -> bytes | None:
    """Read the body up to a limit, beyond which it no longer parses; None if the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) < _BODY_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)
