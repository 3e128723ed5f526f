"""Asks for the receiver where Supabase's webhooks are sent, from this machine.

Sends no secret and follows no redirect. Tells apart a receiver that answers, a proxy before one
that does not run, something else, and nothing.
"""

import asyncio
import json
from typing import Final

import httpx

from receiver.check.finding import Finding
from receiver.core.http_faults import in_words
from receiver.core.logs import printable, redact

TIMEOUT_S: Final = 5.0
"""The time that pg_net gives a webhook."""
MAX_BYTES: Final = 64 * 1024
PROBLEM: Final = "application/problem+json"
NOT_RUNNING: Final = "Is it running? No edit is lost: it catches up by itself when it is back"

_NO_ANSWER: Final = (TimeoutError, httpx.HTTPError, httpx.InvalidURL)


async def find(origin: str) -> Finding:
    """Ask the receiver at `https://host[:port]` whether it can do its work."""
    what = f"receiver at {printable(httpx.URL(origin).host)}"
    async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as http:
        try:
            return await _ask(http, what, origin)
        except _NO_ANSWER as error:
            words = f"does not answer from here: {in_words(error)}. {NOT_RUNNING}"
            return Finding(what=what, fault=words)


async def _ask(http: httpx.AsyncClient, what: str, origin: str) -> Finding:
    status, media_type, body = await _get(http, f"{origin}/readyz")
    if status == httpx.codes.OK and _member(body, "status") == "ready":
        return Finding(what=what, fault=None, note="ready")
    if status == httpx.codes.SERVICE_UNAVAILABLE and media_type == PROBLEM:
        return Finding(what=what, fault=f"runs, and cannot do its work: {_member(body, 'detail')}")
    # A proxy may pass on the webhooks alone. Asked with GET, the receiver says 405.
    webhooks = await _get(http, f"{origin}/webhooks/supabase")
    if webhooks[:2] == (httpx.codes.METHOD_NOT_ALLOWED, PROBLEM):
        return Finding(what=what, fault=None, note="takes webhooks; /readyz is not open")
    return Finding(what=what, fault=_not_ours(status))


def _not_ours(status: int) -> str:
    if httpx.codes.is_redirect(status):
        return (
            f"is redirected ({status}): pg_net would follow without the body; put the final "
            "address into the Vault's hikvision_sync_webhook_url"
        )
    if status in (502, 503, 504):
        return f"a proxy answers {status} in its place. {NOT_RUNNING}"
    return (
        f"something else answers there (HTTP {status}): see the reverse proxy and the Vault's "
        "hikvision_sync_webhook_url"
    )


async def _get(http: httpx.AsyncClient, url: str) -> tuple[int, str, bytes]:
    async with asyncio.timeout(TIMEOUT_S), http.stream("GET", url) as response:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                break
        media_type = response.headers.get("content-type", "").partition(";")[0]
        return response.status_code, media_type, bytes(body)


def _member(body: bytes, name: str) -> str:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return redact(printable(str(found.get(name, ""))))[:300] if isinstance(found, dict) else ""
