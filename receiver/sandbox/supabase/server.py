"""A stand-in for a Supabase project's HTTP API: REST, auth and storage on one loopback port.

It composes rest.py, auth.py and storage.py over a real Postgres, so that grants, policies and the
project's own SQL functions are the real ones. It speaks the part of Supabase that the receiver and
the React app use, and refuses the rest.
"""

import json
from collections import deque
from typing import Any, Literal, Self
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.sandbox.database.postgres import Database
from receiver.sandbox.loopback import LoopbackServer
from receiver.sandbox.supabase.auth import AccessDenied, Auth, Caller, SigningKeys, User
from receiver.sandbox.supabase.bodies import read_body
from receiver.sandbox.supabase.connections import Connections
from receiver.sandbox.supabase.rest import EmbedAs, Rest
from receiver.sandbox.supabase.storage import Storage

MAX_REMEMBERED_REQUESTS = 10_000
JWKS_MAX_AGE_S = 600


class SupabaseStandIn:
    """A running project: `async with SupabaseStandIn(database) as supabase: …`.

    `requests` remembers the last (method, path with query, status), so that a test can tell what
    was asked for. `photos` are the files of the bucket `pontaj-photos`.
    """

    def __init__(
        self,
        database: Database,
        *,
        port: int = 0,
        max_rows: int = 1000,
        embed_as: EmbedAs = "auto",
        signing: Literal["ES256", "HS256"] = "ES256",
    ) -> None:
        self.requests: deque[tuple[str, str, int]] = deque(maxlen=MAX_REMEMBERED_REQUESTS)
        self._connections = Connections(database.dsn("authenticator"))
        self.rest = Rest(
            self._connections,
            self._caller,
            max_rows=max_rows,
            embed_as=embed_as,
        )
        self.storage = Storage(self._caller)
        self._server = LoopbackServer(self._app(), port=port)
        self.keys = SigningKeys(signing=signing)
        self.auth = Auth(self._server.url, self.keys)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start serving."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving and leave Postgres."""
        await self._server.stop()
        if self.rest.replica is not None:
            await self.rest.replica.close()
        await self._connections.close()

    async def switch_off(self) -> None:
        """Be gone: connections are refused until `switch_on`, on the same port."""
        await self._server.stop()

    async def switch_on(self) -> None:
        """Be back on the same port with the same keys."""
        await self._server.start()

    async def lag(self) -> None:
        """Answer GET by a read replica that stays as the database is now."""
        self.rest.replica = await self._connections.replica()

    @property
    def url(self) -> str:
        """Return the value of `SUPABASE_URL`."""
        return self._server.url

    @property
    def photos(self) -> dict[str, bytes]:
        """Return the bucket's files by name."""
        return self.storage.photos

    @property
    def service_role_key(self) -> str:
        """The legacy key, a JWT."""
        return self.auth.service_role_key

    @property
    def anon_key(self) -> str:
        """The legacy key, a JWT."""
        return self.auth.anon_key

    @property
    def secret_key(self) -> str:
        """Return the new kind of service key: `sb_secret_…`."""
        return self.auth.secret_key

    @property
    def publishable_key(self) -> str:
        """Return the new kind of anon key: `sb_publishable_…`."""
        return self.auth.publishable_key

    @property
    def jwt_secret(self) -> str:
        """Return the legacy secret, which signs HS256 tokens and the legacy keys."""
        return self.keys.jwt_secret

    def photo_url(self, name: str) -> str:
        """Return the public URL under which the app stores a photo in `foto_fata_url`."""
        return f"{self.url}/storage/v1/object/public/pontaj-photos/{name}"

    def add_user(self, email: str, password: str | None = None, **metadata: Any) -> User:
        """Make a user who can sign in; `app_metadata` and `user_metadata` as on Supabase."""
        return self.auth.add_user(email, password, **metadata)

    def access_token(self, *, email: str = "hr@example.com", **claims: object) -> str:
        """Mint a user's access token; claims given override Supabase's, None leaves one out."""
        return self.auth.access_token(email=email, **claims)

    def rotate_key(self, *, keep_old: bool = True) -> str:
        """Sign tokens with a new ES256 key from now on; return its kid."""
        return self.keys.rotate(keep_old=keep_old)

    def _app(self) -> ASGIApp:
        routes = [
            Route("/rest/v1/rpc/{function}", self.rest.rpc, methods=["POST"]),
            Route("/rest/v1/{table}", self.rest.table, methods=["GET", "POST", "PATCH", "DELETE"]),
            Route("/auth/v1/.well-known/jwks.json", self._jwks),
            Route("/auth/v1/token", self._token, methods=["POST"]),
            Route("/auth/v1/user", self._user),
            Route("/storage/v1/object/public/{bucket}/{file:path}", self.storage.public_object),
            Route(
                "/storage/v1/object/authenticated/{bucket}/{file:path}",
                self.storage.private_object,
            ),
            Route("/storage/v1/object/{bucket}/{file:path}", self.storage.private_object),
            Route(
                "/storage/v1/object/{bucket}/{file:path}",
                self.storage.upload,
                methods=["POST", "PUT"],
            ),
        ]
        # A browser app on another origin talks to Supabase, and reads the range of a page.
        cors = Middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Content-Range"],
        )
        app = Starlette(
            routes=routes,
            middleware=[Middleware(_Remember, requests=self.requests), cors],
            exception_handlers={AccessDenied: _refused},
        )
        # Supabase never redirects a path that is only a slash away from one of its own.
        app.router.redirect_slashes = False
        return app

    def _caller(self, request: Request) -> Caller:
        return self.auth.caller(
            apikey=request.headers.get("apikey") or request.query_params.get("apikey"),
            authorization=request.headers.get("authorization"),
            user_agent=request.headers.get("user-agent", ""),
        )

    async def _jwks(self, _: Request) -> Response:
        headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_S}"}
        return JSONResponse(self.keys.jwks(), headers=headers)

    async def _token(self, request: Request) -> Response:
        self._caller(request)
        try:
            given = json.loads(await read_body(request))
            match request.query_params.get("grant_type"), given:
                case "password", {"email": str(email), "password": str(password)}:
                    return JSONResponse(self.auth.sign_in(email, password))
                case "refresh_token", {"refresh_token": str(refresh_token)}:
                    return JSONResponse(self.auth.refresh(refresh_token))
        except AccessDenied as exc:
            return _auth_refused(400, exc.code or "", exc.message)
        except (ValueError, RecursionError):
            return _auth_refused(400, "bad_json", "Could not parse request body as JSON")
        return _auth_refused(400, "validation_failed", "unsupported grant_type or missing field")

    async def _user(self, request: Request) -> Response:
        try:
            return JSONResponse(self.auth.user_of(request.headers.get("authorization")).as_json())
        except AccessDenied as exc:
            status = 401 if exc.code == "no_authorization" else 403
            return _auth_refused(status, exc.code or "", exc.message)


class _Remember:
    """Notes every request with the status that it was answered with."""

    def __init__(self, app: ASGIApp, requests: deque[tuple[str, str, int]]) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                query = scope["query_string"].decode("ascii", "replace")
                path = scope["path"] + (f"?{unquote(query)}" if query else "")
                self._requests.append((scope["method"], path, message["status"]))
            await send(message)

        await self._app(scope, receive, noting)


def _auth_refused(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": status, "error_code": code, "msg": message}, status_code=status)


async def _refused(_: Request, exc: Exception) -> Response:
    """Answer why no key or token fits: as the gateway, or as PostgREST where there is a code."""
    if not isinstance(exc, AccessDenied):
        raise exc
    body = {"message": exc.message, "hint": exc.hint}
    if exc.code is not None:
        body |= {"code": exc.code, "details": None}
    return JSONResponse(body, status_code=401, headers={"WWW-Authenticate": "Bearer"})
