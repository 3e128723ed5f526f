"""One HTTP exchange with a terminal, with a digest login of its own; foreign exceptions end here.

The handshake is done step by step, because each step is checked: a terminal that says in its
challenge that the account is locked must not be sent the password, and no answer may be larger
than MAX_ANSWER_BYTES.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from receiver.core.errors import AnswerUnexplained, TerminalTimeout, TerminalUnreachable
from receiver.core.models import Terminal
from receiver.terminals.answers import refusal_of_login
from receiver.terminals.digest import answerable, digests

MAX_CONNECT_S: Final = 5.0
"""A terminal that is switched off is silent, it does not refuse; a LAN connects in far less."""
MAX_CONNECT_PART: Final = 0.8
"""Of a call's time, so that a terminal that is off raises TerminalUnreachable, not a timeout."""
MAX_ANSWER_BYTES: Final = 256 * 1024


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
        limits = httpx.Timeout(timeout_s, connect=min(timeout_s * MAX_CONNECT_PART, MAX_CONNECT_S))

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
            # The whole exchange is bounded too: httpx's own timeouts begin again with each byte.
            async with asyncio.timeout(timeout_s):
                status, answered, stale = await self._login_and_send(request())
                if status == httpx.codes.UNAUTHORIZED and stale:
                    # The nonce ran out between the challenge and the answer: no failed login
                    # (RFC 7616 §3.3), and the only case in which a login is tried twice.
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
            ValueError,  # for example, a login that cannot be encoded
        ) as exc:
            raise AnswerUnexplained(
                f"The terminal's HTTP cannot be understood ({type(exc).__name__})."
            ) from exc

    async def _login_and_send(self, request: httpx.Request) -> tuple[int, bytes, bool]:
        """Send one request; return status, body, and whether the nonce was stale.

        Each request gets a challenge of its own, so that no nonce is used twice: a reused one is
        refused without a new challenge, and counts as a wrong password (SK).
        """
        status, answered, asked = await self._send(request)
        if status != httpx.codes.UNAUTHORIZED:
            return status, answered, False
        refused = refusal_of_login(answered)
        if refused.locked:
            raise refused  # another attempt would be another failed login
        challenge = answerable(asked)
        if challenge is None:
            kind = (
                "a kind of digest login that we do not have"
                if asked
                else "a login that is not digest"
            )
            raise AnswerUnexplained(f"The terminal asks for {kind}; it was not given any.")
        login = challenge.answer(
            username=self._terminal.username,
            password=self._terminal.password,
            method=request.method,
            target=request.url.raw_path,
            cnonce=secrets.token_hex(8).encode(),
        )
        request.headers = httpx.Headers([*request.headers.raw, (b"Authorization", login)])
        status, answered, asked = await self._send(request)
        return status, answered, any(one.get(b"stale", b"").lower() == b"true" for one in asked)

    async def _send(self, request: httpx.Request) -> tuple[int, bytes, list[dict[bytes, bytes]]]:
        """Send one request as it is; return status, bounded body and the digests asked for."""
        response = await self._http.send(request, auth=None, stream=True)
        try:
            answered = bytearray()
            async for chunk in response.aiter_bytes():
                answered += chunk
                if len(answered) > MAX_ANSWER_BYTES:
                    raise AnswerUnexplained("The terminal's answer has no end.")
            headers = response.headers.raw
            asked = [value for name, value in headers if name.lower() == b"www-authenticate"]
            return response.status_code, bytes(answered), digests(asked)
        finally:
            await response.aclose()
