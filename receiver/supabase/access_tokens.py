"""A Supabase access token → `Caller`, verified here, without asking Supabase about each one.

Two ways to verify, never mixed: with the public keys that the project publishes (JWKS), or with
its legacy secret (HS256) where one was given. The keys there are decide; the token only says which
of them it wants. Refuses the project's own API keys, anonymous users and OAuth clients, and never
follows a key or a URL inside a token.

Signed in is not yet allowed: `app_metadata`, which only the project's administrators can write,
says whether a user may press the buttons; `user_metadata` is the user's own and is never read.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.types import Options

from receiver.core.errors import CallerForbidden, TokenInvalid, TokenMissing
from receiver.supabase.jwks import FAULTS, KINDS, Jwks, is_id

MAX_TOKEN_CHARS = 8192
MIN_SECRET_BYTES = 32
"""RFC 7518 §3.2: a key for HS256 is at least as long as its hash."""
LEEWAY_S = 10

SHARED_ALGORITHM = "HS256"
_AUTHENTICATED = "authenticated"
_OPTIONS: Options = {"require": ["exp", "iat", "sub", "aud", "iss", "role"], "strict_aud": True}
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The user who presses a button."""

    sub: str
    roles: frozenset[str]
    """From app_metadata's `role` and `roles`."""


class TokenVerifier:
    """Verifies access tokens of one project, and lets in users who may press the buttons."""

    def __init__(
        self,
        *,
        issuer: str,
        jwks: Jwks,
        jwt_secret: str | None = None,
        allowed_roles: frozenset[str] = frozenset(),
    ) -> None:
        """Take what to verify with; without allowed roles every signed-in user is let in.

        Raises ValueError for a secret that is too short or is a public key.
        """
        if not issuer:
            raise ValueError("the issuer of access tokens is empty")
        self._issuer = issuer
        self._jwks = jwks
        self._shared_key = None if jwt_secret is None else _shared_key(jwt_secret)
        self._allowed_roles = allowed_roles

    async def caller(self, authorization: str | None) -> Caller:
        """Return the caller whose header this is; raise AccessRefused in one of its kinds."""
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
        if not isinstance(alg, str) or alg not in KINDS or not is_id(kid):
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
        except FAULTS:  # their messages may quote the token
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
    except FAULTS:
        raise TokenInvalid from None
    if "crit" in header:  # RFC 7515 §4.1.11: we understand no extension
        raise TokenInvalid
    return header


def _is_of_a_user(claims: Mapping[str, Any]) -> bool:
    """Return what PyJWT does not check: whether types are exact, and a user of ours signed in."""
    return (
        all(_is_time(claims[name]) for name in ("exp", "iat", "nbf") if name in claims)
        and is_id(claims["sub"])
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
    """Return whether it is a NumericDate; PyJWT also takes "1760000000", True and 1e400."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _shared_key(secret: str) -> bytes:
    key = secret.encode()
    if len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"is shorter than {MIN_SECRET_BYTES} bytes")
    try:
        jwt.get_algorithm_by_name(SHARED_ALGORITHM).prepare_key(key)
    except jwt.InvalidKeyError:
        raise ValueError("is a public key, with which anybody could sign") from None
    return key
