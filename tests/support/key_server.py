"""A project's key server with a clock that is the test's, and the verifiers that ask it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    Response,
)
from starlette.routing import Route

from receiver.core.errors import (
    AccessRefused,
    KeysUnavailable,
    TokenInvalid,
)
from receiver.sandbox.loopback import LoopbackServer
from receiver.supabase.access_tokens import Caller, TokenVerifier
from receiver.supabase.jwks import Jwks
from tests.support.tokens import GOOD, ISSUER, JWKS, TLS, Answer

# The world around it


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class KeyServer:
    """Supabase's JWKS endpoint; counts its requests and answers as the test says."""

    def __init__(self) -> None:
        self.jwks: Sequence[object] = JWKS
        self.answer: Answer | None = None
        self.paths: list[str] = []
        self.asked = asyncio.Event()
        self.server = LoopbackServer(Starlette(routes=[Route("/{path:path}", self._answer)]))
        self.url = f"{self.server.url}/jwks.json"

    @property
    def fetches(self) -> int:
        return len(self.paths)

    async def _answer(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        self.asked.set()
        if self.answer is not None and request.url.path == "/jwks.json":
            return await self.answer(request)
        return Response(json.dumps({"keys": self.jwks}), media_type="application/json")


@dataclass(frozen=True)
class World:
    keys: KeyServer
    http: httpx.AsyncClient
    clock: Clock

    def jwks(self) -> Jwks:
        return Jwks(self.keys.url, self.http, clock=self.clock)

    def verifier(self, secret: str | None = None, *roles: str) -> TokenVerifier:
        return TokenVerifier(
            issuer=ISSUER, jwks=self.jwks(), jwt_secret=secret, allowed_roles=frozenset(roles)
        )


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    keys = KeyServer()
    async with keys.server, httpx.AsyncClient(verify=TLS) as http:
        yield World(keys, http, Clock())


@dataclass(frozen=True)
class Standing:
    """Verifiers with keys at hand, asked from outside their loop; their clock stands still."""

    world: World
    runner: asyncio.Runner
    verifier: TokenVerifier
    without_secret: TokenVerifier

    def outcome(self, authorization: str | None) -> Caller | AccessRefused:
        return self.of(self.verifier, authorization)

    def of(self, verifier: TokenVerifier, authorization: str | None) -> Caller | AccessRefused:
        return self.runner.run(outcome(verifier, authorization))


async def outcome(verifier: TokenVerifier, authorization: str | None) -> Caller | AccessRefused:
    try:
        return await verifier.caller(authorization)
    except AccessRefused as exc:
        return exc


async def called(verifier: TokenVerifier, token: str) -> Caller:
    return await verifier.caller(f"Bearer {token}")


async def refusal(verifier: TokenVerifier, token: str) -> AccessRefused:
    with pytest.raises(AccessRefused) as caught:
        await called(verifier, token)
    return caught.value


async def assert_invalid(verifier: TokenVerifier, token: str) -> None:
    assert type(await refusal(verifier, token)) is TokenInvalid


async def assert_unavailable(verifier: TokenVerifier, token: str = GOOD["ES256"]) -> None:
    assert type(await refusal(verifier, token)) is KeysUnavailable
