"""A Supabase access token → `Caller`, verified here, without asking Supabase about each one.

Two ways to verify that never meet: with the public keys that the project publishes (JWKS), or with
its legacy secret (HS256) where one was given. Which keys there are decides; the token only says
which of them it wants. Refuses the project's own API keys, anonymous users and OAuth clients, and
never follows a key or a URL inside a token.

Signed in is not yet allowed: who may press a button is said by `app_metadata`, which only the
project's administrators can write; `user_metadata` is the user's own and is never looked at.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

from receiver.core.errors import CallerForbidden, KeysUnavailable, TokenInvalid, TokenMissing
from receiver.core.logs import get_logger

log = get_logger(__name__)

MAX_TOKEN_CHARS = 8192
MAX_ID_CHARS = 256
"""Of a `kid` and of a `sub`; Supabase's are UUIDs."""
MIN_SECRET_BYTES = 32
"""RFC 7518 §3.2: a key for HS256 is at least as long as its hash."""
MIN_RSA_BITS = 2048
LEEWAY_S = 10

KEYS_TTL_S = 600.0
"""Supabase: do not keep the keys longer than 10 minutes (guides/auth/signing-keys)."""
KEYS_STALE_S = 3600.0
"""How long the last known keys are used while no newer ones can be had."""
FETCH_TIMEOUT_S = 5.0
MAX_JWKS_BYTES = 256 * 1024
MAX_JWKS_KEYS = 64
REFETCH_PAUSE_S = 30.0
"""Between two fetches that unknown kids cause, and after a failed one while keys are at hand."""
RETRY_PAUSE_S = 5.0
"""After a failed fetch with no keys at hand."""

SHARED_ALGORITHM = "HS256"
_KINDS = {"ES256": ("EC", "P-256"), "RS256": ("RSA", None), "EdDSA": ("OKP", "Ed25519")}
"""The algorithms of published keys, and the `kty` and `crv` that each belongs to."""
_AUTHENTICATED = "authenticated"
_OPTIONS: Options = {"require": ["exp", "iat", "sub", "aud", "iss", "role"], "strict_aud": True}
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_NEVER = -math.inf
_FAULTS = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What PyJWT raises for a malformed token or key; 2.14 lets all of these through, 2.15 does not."""


def http_client() -> httpx.AsyncClient:
    """Return a client for the keys alone: it carries no key of ours, and waits for nobody."""
    return httpx.AsyncClient(timeout=FETCH_TIMEOUT_S)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who presses a button."""

    sub: str
    roles: frozenset[str]
    """From app_metadata's `role` and `roles`."""


class _NotKeys(Exception):
    """What was fetched is not a key set; says why, in words of ours."""


class Jwks:
    """The project's public keys, fetched when needed: by one at a time, seldom, and in vain too.

    Nobody can cause more fetches than the pauses above allow, whatever kids they send and whether
    or not the fetches succeed.
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
        except Exception as exc:  # noqa: BLE001 - whatever it was, those who wait get their answer
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


class TokenVerifier:
    """Verifies access tokens of one project, and lets in those who may press the buttons."""

    def __init__(
        self,
        *,
        issuer: str,
        jwks: Jwks,
        jwt_secret: str | None = None,
        allowed_roles: frozenset[str] = frozenset(),
    ) -> None:
        """Take what to verify with; no allowed roles: everybody signed in may.

        Raises ValueError for a secret that is too short or is somebody's public key.
        """
        if not issuer:
            raise ValueError("the issuer of access tokens is empty")
        self._issuer = issuer
        self._jwks = jwks
        self._shared_key = None if jwt_secret is None else _shared_key(jwt_secret)
        self._allowed_roles = allowed_roles

    async def caller(self, authorization: str | None) -> Caller:
        """Return who sent this Authorization header; raise AccessRefused in one of its kinds."""
        token = _bearer_token(authorization)
        header = _header(token)
        if header.get("alg") == SHARED_ALGORITHM:
            claims = self._verified_by_secret(token)
        else:
            claims = await self._verified_by_published_key(token, header)
        caller = _caller(claims)
        if self._allowed_roles and not caller.roles & self._allowed_roles:
            raise CallerForbidden
        return caller

    def _verified_by_secret(self, token: str) -> Mapping[str, Any]:
        if self._shared_key is None:
            raise TokenInvalid
        return self._claims(token, self._shared_key, SHARED_ALGORITHM)

    async def _verified_by_published_key(
        self, token: str, header: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        alg, kid = header.get("alg"), header.get("kid")
        if not isinstance(alg, str) or alg not in _KINDS or not _is_id(kid):
            raise TokenInvalid
        key = await self._jwks.key(str(kid))
        return self._claims(token, key, key.algorithm_name)  # the key's: it must be the token's too

    def _claims(self, token: str, key: jwt.PyJWK | bytes, algorithm: str) -> Mapping[str, Any]:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=_AUTHENTICATED,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options=_OPTIONS,
            )
        except jwt.ExpiredSignatureError:
            raise TokenInvalid("The access token has expired; sign in again.") from None
        except _FAULTS:  # their messages may quote the token
            raise TokenInvalid from None
        if not _is_of_a_user(claims):
            raise TokenInvalid
        return claims


def _bearer_token(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").strip(" ").partition(" ")
    token = token.lstrip(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenMissing
    if len(token) > MAX_TOKEN_CHARS or not _COMPACT.fullmatch(token):
        raise TokenInvalid
    return token


def _header(token: str) -> Mapping[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except _FAULTS:
        raise TokenInvalid from None
    if "crit" in header:  # RFC 7515 §4.1.11: we understand no extension
        raise TokenInvalid
    return header


def _is_of_a_user(claims: Mapping[str, Any]) -> bool:
    """Tell what PyJWT does not ask: whether types are exact, and a person of ours signed in."""
    return (
        all(_is_time(claims[name]) for name in ("exp", "iat", "nbf") if name in claims)
        and _is_id(claims["sub"])
        and claims["role"] == _AUTHENTICATED
        and claims.get("is_anonymous", False) is False
        and "client_id" not in claims  # a third party's app acts for the user (OAuth server)
    )


def _caller(claims: Mapping[str, Any]) -> Caller:
    metadata = claims.get("app_metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    role, roles = metadata.get("role"), metadata.get("roles")
    named = {role} if isinstance(role, str) else set()
    if isinstance(roles, list) and all(isinstance(each, str) for each in roles):
        named.update(roles)
    return Caller(sub=claims["sub"], roles=frozenset(named - {""}))


def _is_time(value: object) -> bool:
    """Tell whether it is a NumericDate; PyJWT also takes "1760000000", True and 1e400."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_ID_CHARS


def _shared_key(secret: str) -> bytes:
    key = secret.encode()
    if len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"is shorter than {MIN_SECRET_BYTES} bytes")
    try:
        jwt.get_algorithm_by_name(SHARED_ALGORITHM).prepare_key(key)
    except jwt.InvalidKeyError:
        raise ValueError("is a public key, with which anybody could sign") from None
    return key


def _published_keys(body: bytes) -> Mapping[str, jwt.PyJWK]:
    """Return the keys fit to verify with, by their ids; raise _NotKeys if it is no key set."""
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
    """Return a key of the set, or None for one that is not meant or not fit for our use."""
    kind = jwk.get("kty"), jwk.get("crv")
    alg = next((alg for alg, fitting in _KINDS.items() if fitting == kind), None)
    operations = jwk.get("key_ops", ["verify"])
    if (
        alg is None
        or jwk.get("alg", alg) != alg
        or jwk.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not _is_id(jwk.get("kid"))
        or "d" in jwk  # a private key that was published is anybody's
    ):
        return None
    try:
        key = jwt.PyJWK(dict(jwk), alg)
    except _FAULTS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    return key
