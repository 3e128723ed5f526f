"""The public keys of a project's access tokens, fetched when they are needed and kept for a while.

Sees no token and decides nothing about one.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from receiver.core.errors import KeysUnavailable, TokenInvalid
from receiver.core.logs import get_logger

log = get_logger(__name__)

MAX_ID_CHARS = 256
"""Of a `kid` and of a `sub`; Supabase's are UUIDs."""
MIN_RSA_BITS = 2048

KEYS_TTL_S = 600.0
"""Supabase: do not keep the keys longer than 10 minutes (guides/auth/signing-keys)."""
KEYS_STALE_S = 3600.0
"""How long the last keys are used while no newer ones can be fetched."""
FETCH_TIMEOUT_S = 5.0
MAX_JWKS_BYTES = 256 * 1024
MAX_JWKS_KEYS = 64
REFETCH_PAUSE_S = 30.0
"""Between two fetches that unknown kids cause, and after a failed one while keys are at hand."""
RETRY_PAUSE_S = 5.0
"""After a failed fetch with no keys at hand."""

KINDS = {"ES256": ("EC", "P-256"), "RS256": ("RSA", None), "EdDSA": ("OKP", "Ed25519")}
"""The algorithms of published keys, and the `kty` and `crv` that each belongs to."""
_NEVER = -math.inf
FAULTS = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What PyJWT raises for a malformed token or key; 2.14 lets all of these through, 2.15 does not."""


def http_client() -> httpx.AsyncClient:
    """Return a client for the keys alone: it sends no key of ours, and waits for no other call."""
    return httpx.AsyncClient(timeout=FETCH_TIMEOUT_S)


class _NotKeys(Exception):
    """The fetched body is not a key set; says why, in words of ours."""


class Jwks:
    """The project's public keys, fetched when needed, by one fetch at a time.

    No caller can cause more fetches than the pauses above allow, whatever kids they send and
    whether or not the fetches succeed.
    """

    def __init__(
        self, url: str, http: httpx.AsyncClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = _NEVER
        self._retry_at = _NEVER
        self._force_at = _NEVER
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> jwt.PyJWK:
        """Return the key of that id, of any algorithm; raise TokenInvalid or KeysUnavailable."""
        if self._age() >= KEYS_TTL_S or kid not in self._keys:
            await self._refresh(forced=self._age() < KEYS_TTL_S)
        if self._age() > KEYS_STALE_S:
            raise KeysUnavailable
        if kid not in self._keys:
            raise TokenInvalid
        return self._keys[kid]

    async def prefetch(self) -> None:
        """Fetch the keys before the first token comes; a failure is only logged."""
        if self._age() >= KEYS_TTL_S:
            await self._refresh(forced=False)

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    async def _refresh(self, *, forced: bool) -> None:
        """Wait for the fetch under way, or for a new one if it is time; cancelling is harmless."""
        if self._fetching is None or self._fetching.done():
            now = self._clock()
            if now < self._retry_at or (forced and now < self._force_at):
                return
            if forced:
                self._force_at = now + REFETCH_PAUSE_S
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = _published_keys(await self._body())
        except _NotKeys as fault:
            self._failed(str(fault))
        except TimeoutError:
            self._failed("timeout")
        except Exception as exc:  # noqa: BLE001 - callers wait for an answer
            self._failed(type(exc).__name__)
        else:
            self._keys = keys
            self._fetched_at = self._clock()
            log.info("jwks_fetched", usable=len(keys))

    def _failed(self, reason: str) -> None:
        at_hand = self._age() <= KEYS_STALE_S
        self._retry_at = self._clock() + (REFETCH_PAUSE_S if at_hand else RETRY_PAUSE_S)
        log.warning("jwks_fetch_failed", reason=reason, keys_at_hand=at_hand)

    async def _body(self) -> bytes:
        body = bytearray()
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with self._http.stream(
            "GET", self._url, headers=headers, follow_redirects=False
        ) as response:
            if response.status_code != HTTPStatus.OK:
                raise _NotKeys(f"status {response.status_code}")
            async for chunk in response.aiter_raw():  # raw: a few bytes cannot inflate to many
                body += chunk
                if len(body) > MAX_JWKS_BYTES:
                    raise _NotKeys("too large")
        return bytes(body)


def is_id(value: object) -> bool:
    """Return whether a value can be a `kid` or a `sub`."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_ID_CHARS


def _published_keys(body: bytes) -> Mapping[str, jwt.PyJWK]:
    """Return the keys fit to verify with, by id; raise _NotKeys for anything but a key set."""
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise _NotKeys("not JSON") from None
    jwks = found.get("keys") if isinstance(found, Mapping) else None
    if not isinstance(jwks, list):
        raise _NotKeys("not a key set")
    if len(jwks) > MAX_JWKS_KEYS:
        raise _NotKeys("too many keys")
    keys: dict[str, jwt.PyJWK] = {}
    for jwk in jwks:
        if isinstance(jwk, Mapping) and (key := _published_key(jwk)) is not None:
            keys.setdefault(jwk["kid"], key)  # of two with the same id the first, always
    return keys


def _published_key(jwk: Mapping[str, Any]) -> jwt.PyJWK | None:
    """Return a key of the set, or None for a key that is not meant or not fit for our use."""
    kind = jwk.get("kty"), jwk.get("crv")
    alg = next((alg for alg, fitting in KINDS.items() if fitting == kind), None)
    operations = jwk.get("key_ops", ["verify"])
    if (
        alg is None
        or jwk.get("alg", alg) != alg
        or jwk.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not is_id(jwk.get("kid"))
        or "d" in jwk  # a private key that was published is anybody's
    ):
        return None
    try:
        key = jwt.PyJWK(dict(jwk), alg)
    except FAULTS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    return key
