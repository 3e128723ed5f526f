"""One HTTP exchange with a terminal, with a digest login of its own; foreign exceptions end here.

The handshake is done step by step around httpx's digest, because each step is to be looked at: a
terminal that says in its challenge that the account is locked must not be sent the password, and no
answer may be larger than fits.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx

from receiver.errors import AnswerUnexplained, TerminalTimeout, TerminalUnreachable
from receiver.isapi_answers import refusal_of_login
from receiver.models import Terminal

MOST_CONNECT_S: Final = 5.0
"""A terminal that is switched off does not refuse, it is silent; a LAN connects in far less."""
MOST_CONNECT_PART: Final = 0.8
"""Of a call's time: a terminal that is off must not look like one that does not answer."""
MOST_ANSWER_BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a multipart body."""

    name: str
    content: bytes = field(repr=False)
    media_type: str
    file: str | None = None
    """Its file name; a part of JSON must have none."""


Body = Mapping[str, Any] | Sequence[Part] | None
"""JSON, multipart in this order, or nothing."""


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for terminals. No proxy of the environment leads to a LAN."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=False,  # noqa: S501 - terminals are spoken to over plain HTTP; spares a CA store
        headers={"Accept": "application/json, application/xml", "Accept-Encoding": "identity"},
        limits=httpx.Limits(max_connections=300, max_keepalive_connections=50, keepalive_expiry=3),
        event_hooks={"request": [_in_utf_8]},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no session but digest's
    )


async def _in_utf_8(request: httpx.Request) -> None:
    """Let the answer to a challenge hold a user name or realm with diacritics."""
    request.headers.encoding = "utf-8"


class Wire:
    """Exchanges with one terminal."""

    def __init__(self, http: httpx.AsyncClient, terminal: Terminal) -> None:
        host = f"[{terminal.host}]" if ":" in terminal.host else terminal.host
        self._base = f"http://{host}:{terminal.port}"
        self._http = http
        self._terminal = terminal

    async def exchange(
        self,
        method: str,
        path: str,
        body: Body,
        *,
        params: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[int, bytes]:
        """Send a request and return status and body; raise TerminalError where none came."""
        limits = httpx.Timeout(
            timeout_s, connect=min(timeout_s * MOST_CONNECT_PART, MOST_CONNECT_S)
        )

        def request() -> httpx.Request:
            url = f"{self._base}{path}"
            if body is None or isinstance(body, Mapping):
                json, files = body, None
            else:
                json = None
                files = [(part.name, (part.file, part.content, part.media_type)) for part in body]
            return self._http.build_request(
                method, url, params=params, json=json, files=files, timeout=limits
            )

        try:
            # The whole exchange is bounded too: httpx's own timeouts begin anew with each byte.
            async with asyncio.timeout(timeout_s):
                status, answered, stale = await self._login_and_send(request())
                if status == httpx.codes.UNAUTHORIZED and stale:
                    # The nonce ran out between the challenge and the answer: no failed login
                    # (RFC 7616 §3.3), and the only case in which one is tried twice.
                    status, answered, _ = await self._login_and_send(request())
                return status, answered
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise TerminalUnreachable from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TerminalTimeout(f"The terminal did not answer within {timeout_s:g} s.") from exc
        except httpx.NetworkError as exc:
            raise TerminalUnreachable(
                "The terminal reset the connection before it answered."
            ) from exc
        except httpx.RemoteProtocolError as exc:
            raise TerminalUnreachable(
                "The terminal cut the connection before its answer was complete."
            ) from exc
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            httpx.CookieConflict,
            NotImplementedError,
            KeyError,
            ValueError,
        ) as exc:
            # The last three: what httpx's digest makes of qop=auth-int, of an algorithm it does
            # not have, and of a challenge that is malformed or not ASCII.
            raise AnswerUnexplained(
                f"The terminal's HTTP cannot be understood ({type(exc).__name__})."
            ) from exc

    async def _login_and_send(self, request: httpx.Request) -> tuple[int, bytes, bool]:
        """Send one request with a challenge of its own and return status, body, stale nonce.

        A fresh DigestAuth each time: it begins unauthenticated, so that no nonce is used twice.
        A reused one is refused without a new challenge, and counts as a wrong password (SK).
        """
        login = httpx.DigestAuth(self._terminal.username, self._terminal.password)
        flow = login.auth_flow(request)
        status, answered, headers = await self._send(next(flow))
        if status != httpx.codes.UNAUTHORIZED:
            return status, answered, False
        refused = refusal_of_login(answered)
        if refused.locked:
            raise refused  # another attempt would be another failed login
        challenge = httpx.Response(status, headers=headers, request=request)
        try:
            request = flow.send(challenge)
        except StopIteration:
            raise AnswerUnexplained(
                "The terminal asks for a login that is not digest; it was not given any."
            ) from None
        status, answered, headers = await self._send(request)
        said = ", ".join(value for _, value in headers).lower()
        return status, answered, "stale=true" in said.replace('"', "")

    async def _send(self, request: httpx.Request) -> tuple[int, bytes, list[tuple[str, str]]]:
        """Send one request as it is; return status, bounded body and the challenges."""
        response = await self._http.send(request, auth=None, stream=True)
        try:
            answered = bytearray()
            async for chunk in response.aiter_bytes():
                answered += chunk
                if len(answered) > MOST_ANSWER_BYTES:
                    raise AnswerUnexplained("The terminal's answer has no end.")
            name = "www-authenticate"
            challenges = [(name, value) for value in response.headers.get_list(name)]
            return response.status_code, bytes(answered), challenges
        finally:
            await response.aclose()
