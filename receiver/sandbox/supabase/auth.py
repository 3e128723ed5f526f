"""Supabase's keys, users and access tokens: who may call, and as which Postgres role.

No HTTP and no database here: server.py turns `AccessDenied` into answers. Sources:
supabase.com/docs/guides/api/api-keys, …/auth/signing-keys, …/auth/jwt-fields.
"""

import base64
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

Claims: TypeAlias = dict[str, Any]
Role: TypeAlias = Literal["anon", "authenticated", "service_role"]

ACCESS_TOKEN_SECONDS = 3600
TEN_YEARS_S = 10 * 365 * 24 * 3600
ROLES: tuple[Role, ...] = ("anon", "authenticated", "service_role")
MAX_REFRESH_TOKENS = 1000


class AccessDenied(Exception):
    """The request carries no key or token that gives access."""

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The caller of a request: the role it runs as and the claims that SQL may read."""

    role: Role
    claims: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class User:
    """A user of the project, who can sign in where there is a password."""

    id: str
    email: str
    password: str | None
    app_metadata: Mapping[str, Any] = field(default_factory=dict)
    user_metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the user object that Supabase's auth endpoints answer with."""
        return {
            "id": self.id,
            "aud": "authenticated",
            "role": "authenticated",
            "email": self.email,
            "phone": "",
            "app_metadata": dict(self.app_metadata),
            "user_metadata": dict(self.user_metadata),
            "identities": [],
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "is_anonymous": False,
        }


class SigningKeys:
    """The project's token keys: ES256 published by JWKS, or the legacy shared secret, or both.

    With `signing="HS256"` the JWKS is empty, as Supabase's is: a shared secret is never published.
    """

    def __init__(self, *, signing: Literal["ES256", "HS256"] = "ES256") -> None:
        self.signing = signing
        self.jwt_secret = secrets.token_urlsafe(40)
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        if signing == "ES256":
            self.rotate()

    def rotate(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on and return its kid; an old key that is kept verifies."""
        if not keep_old:
            self._keys.clear()
        kid = str(uuid.uuid4())
        self._keys[kid] = ec.generate_private_key(ec.SECP256R1())
        self.signing = "ES256"
        return kid

    def jwks(self) -> dict[str, Any]:
        """Return the published key set, the newest key first."""
        return {
            "keys": [
                {
                    **ECAlgorithm.to_jwk(key.public_key(), as_dict=True),
                    "kid": kid,
                    "alg": "ES256",
                    "use": "sig",
                    "key_ops": ["verify"],
                    "ext": True,
                }
                for kid, key in reversed(self._keys.items())
            ]
        }

    def sign(self, claims: Claims) -> str:
        """Sign with the current key."""
        if self.signing == "HS256":
            return self.sign_with_secret(claims)
        kid, key = list(self._keys.items())[-1]
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})

    def sign_with_secret(self, claims: Claims) -> str:
        """Sign with the legacy secret, as the legacy API keys are."""
        return jwt.encode(claims, self.jwt_secret, algorithm="HS256")

    def verify(self, token: str) -> Claims:
        """Return the claims of a token of this project that has not expired.

        Raises jwt.PyJWTError. Like PostgREST it checks neither audience nor issuer.
        """
        header = jwt.get_unverified_header(token)
        options: Any = {"verify_aud": False, "require": ["exp"]}
        if header.get("alg") == "HS256":
            return jwt.decode(token, self.jwt_secret, algorithms=["HS256"], options=options)
        key = self._keys.get(str(header.get("kid")))
        if key is None:
            raise jwt.InvalidKeyError("No suitable key or wrong key type")
        return jwt.decode(token, key.public_key(), algorithms=["ES256"], options=options)


class Auth:
    """API keys, users and tokens of one project."""

    def __init__(self, url: str, keys: SigningKeys) -> None:
        self.issuer = f"{url}/auth/v1"
        self.keys = keys
        self.anon_key = self._legacy_key("anon")
        self.service_role_key = self._legacy_key("service_role")
        self.publishable_key = f"sb_publishable_{secrets.token_urlsafe(24)}"
        self.secret_key = f"sb_secret_{secrets.token_urlsafe(24)}"
        self.users: dict[str, User] = {}
        self._refresh_tokens: dict[str, str] = {}

    def add_user(
        self,
        email: str,
        password: str | None = None,
        *,
        app_metadata: Mapping[str, Any] | None = None,
        user_metadata: Mapping[str, Any] | None = None,
    ) -> User:
        """Make or replace the user of that address, who cannot sign in without a password."""
        user = User(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"mailto:{email}")),
            email=email,
            password=password,
            app_metadata={"provider": "email", "providers": ["email"], **(app_metadata or {})},
            user_metadata=user_metadata or {},
        )
        self.users[email] = user
        return user

    def access_token(self, *, email: str = "hr@example.com", **claims: object) -> str:
        """Mint a user's access token with Supabase's claims, overridden by those given.

        A claim given as None is left out. A user that does not exist is made, without a password.
        """
        user = self.users.get(email) or self.add_user(email)
        now = int(time.time())
        payload: Claims = {
            "iss": self.issuer,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": user.id,
            "exp": now + ACCESS_TOKEN_SECONDS,
            "iat": now,
            "session_id": str(uuid.uuid4()),
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "email": user.email,
            "phone": "",
            "is_anonymous": False,
            "app_metadata": dict(user.app_metadata),
            "user_metadata": dict(user.user_metadata),
        }
        payload.update(claims)
        return self.keys.sign({name: value for name, value in payload.items() if value is not None})

    def sign_in(self, email: str, password: str) -> dict[str, Any]:
        """Answer a password grant; raise AccessDenied."""
        user = self.users.get(email)
        if user is None or user.password is None or user.password != password:
            raise AccessDenied("Invalid login credentials", code="invalid_credentials")
        return self._session(user)

    def refresh(self, refresh_token: str) -> dict[str, Any]:
        """Answer a refresh grant; each refresh token works once. Raise AccessDenied."""
        user = self.users.get(self._refresh_tokens.pop(refresh_token, ""))
        if user is None:
            raise AccessDenied(
                "Invalid Refresh Token: Refresh Token Not Found", code="refresh_token_not_found"
            )
        return self._session(user)

    def user_of(self, authorization: str | None) -> User:
        """Return the user that an access token belongs to; raise AccessDenied."""
        token = _bearer(authorization)
        if token is None:
            raise AccessDenied(
                "This endpoint requires a valid Bearer token", code="no_authorization"
            )
        try:
            claims = self.keys.verify(token)
        except jwt.PyJWTError as exc:
            raise AccessDenied(
                f"invalid JWT: unable to parse or verify signature, {exc}", code="bad_jwt"
            ) from exc
        for user in self.users.values():
            if user.id == claims.get("sub"):
                return user
        raise AccessDenied("User from sub claim in JWT does not exist", code="user_not_found")

    def caller(
        self, *, apikey: str | None, authorization: str | None, user_agent: str = ""
    ) -> Caller:
        """Return the caller of a request, as Supabase's gateway and then PostgREST decide it.

        The gateway wants one of the project's API keys, in `apikey` or as the bearer. A bearer
        that is not that key is a user's access token, and then decides the role. Raises
        AccessDenied; its `code` is None for the gateway's refusals.
        """
        bearer = _bearer(authorization)
        key_roles = self._key_roles()
        key = apikey if apikey is not None else (bearer if bearer in key_roles else None)
        if key is None:
            raise AccessDenied(
                "No API key found in request",
                hint="No `apikey` request header or url param was found.",
            )
        role = key_roles.get(key)
        if role is None:
            raise AccessDenied(
                "Invalid API key",
                hint="Double check your Supabase `anon` or `service_role` API key.",
            )
        if key == self.secret_key and user_agent.startswith("Mozilla/"):
            raise AccessDenied("Forbidden use of secret API key in browser")
        if bearer is None or bearer == key:
            return Caller(role=role, claims={"role": role})
        return self._token_caller(bearer)

    def _token_caller(self, token: str) -> Caller:
        try:
            claims = self.keys.verify(token)
        except jwt.ExpiredSignatureError as exc:
            raise AccessDenied("JWT expired", code="PGRST303") from exc
        except jwt.PyJWTError as exc:
            raise AccessDenied(str(exc), code="PGRST301") from exc
        for role in ROLES:
            if claims.get("role", "anon") == role:
                return Caller(role=role, claims=claims)
        raise AccessDenied("the token's role is not one of the API's", code="PGRST301")

    def _key_roles(self) -> dict[str, Role]:
        return {
            self.anon_key: "anon",
            self.publishable_key: "anon",
            self.service_role_key: "service_role",
            self.secret_key: "service_role",
        }

    def _legacy_key(self, role: Role) -> str:
        now = int(time.time())
        claims = {"iss": "supabase", "ref": "sandbox", "role": role, "iat": now}
        return self.keys.sign_with_secret({**claims, "exp": now + TEN_YEARS_S})

    def _session(self, user: User) -> dict[str, Any]:
        refresh_token = base64.urlsafe_b64encode(secrets.token_bytes(9)).decode()
        self._refresh_tokens[refresh_token] = user.email
        while len(self._refresh_tokens) > MAX_REFRESH_TOKENS:
            self._refresh_tokens.pop(next(iter(self._refresh_tokens)))
        return {
            "access_token": self.access_token(email=user.email),
            "token_type": "bearer",
            "expires_in": ACCESS_TOKEN_SECONDS,
            "expires_at": int(time.time()) + ACCESS_TOKEN_SECONDS,
            "refresh_token": refresh_token,
            "user": user.as_json(),
        }


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
