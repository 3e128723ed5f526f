"""The HTTP client for terminals: which connections it keeps, and for how long.

A challenge and its answer share a connection; keeping it longer gains nothing. The terminal may
close an idle connection at any moment, and a request that is lost by that is not sent again:
nobody can tell whether it was carried out.
"""

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

MAX_IDLE_S: Final = 0.5
"""Less than the default pause between calls, after which some terminals hang up."""
MAX_HANGING_UP: Final = 4096
"""How many terminals to remember; after so many, each is found out again."""


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for terminals. No proxy of the environment leads to a LAN."""
    return httpx.AsyncClient(
        trust_env=False,
        transport=_Transport(),
        headers={"Accept": "application/json, application/xml", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no session but digest's
    )


class _Transport(httpx.AsyncBaseTransport):
    """Keeps connections, but none to a terminal that was found to hang up after its answers."""

    def __init__(self) -> None:
        self._pool = httpx.AsyncHTTPTransport(
            trust_env=False,
            verify=False,  # calls go over plain HTTP; spares a CA store
            limits=httpx.Limits(
                max_connections=300, max_keepalive_connections=50, keepalive_expiry=MAX_IDLE_S
            ),
        )
        self._hanging_up: set[tuple[str, int | None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise what httpx does, and note a terminal that cut a kept connection."""
        terminal = (request.url.host, request.url.port)
        if terminal in self._hanging_up:
            request.headers["Connection"] = "close"
        is_kept = True

        async def note(event: str, _: object) -> None:
            nonlocal is_kept
            is_kept = is_kept and not event.startswith("connection.connect")

        request.extensions["trace"] = note
        try:
            return await self._pool.handle_async_request(request)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            # On a new connection this is a fault like any other, not a habit of the terminal's.
            if is_kept:
                if len(self._hanging_up) >= MAX_HANGING_UP:
                    self._hanging_up.clear()
                self._hanging_up.add(terminal)
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
