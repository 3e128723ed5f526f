"""The only reader of the environment. Knows every variable, its default and its bounds.

Refuses to guess: what is missing or malformed is named in one message, all at once, and never
with its value.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from receiver.core.errors import SettingsInvalid
from receiver.core.models import LeaverPolicy
from receiver.core.signatures import parse_secret

LogFormat = Literal["json", "console"]
MAX_SECRETS = 8
NO_ORIGINS: tuple[str, ...] = ()
NOBODY: frozenset[str] = frozenset()
NOWHERE: frozenset[str] = frozenset()
LOCAL: tuple[str, ...] = ("http://localhost:3000", "http://localhost:5173")
"""Where the React app runs while it is developed."""
DEFAULT_PORTS = {"http": 80, "https": 443}
FACE_TIMEOUT_S = 45.0
"""What a terminal may take to model a face (SK: read timeout 45 s)."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The environment, parsed. Secrets stay out of its repr."""

    supabase_url: str
    service_role_key: str = field(repr=False)
    webhook_keys: tuple[bytes, ...] = field(repr=False)
    device_delay_s: float = 1.0
    device_timeout_s: float = 15.0
    device_lanes: int = 1
    leaver_policy: LeaverPolicy = "expire"
    poll_s: float = 30.0
    look_s: float = 900.0
    log_format: LogFormat = "json"
    port: int = 8000
    jwks_url: str = ""
    jwt_secret: str | None = field(default=None, repr=False)
    cors_origins: tuple[str, ...] = ()
    allowed_roles: frozenset[str] = frozenset()
    photo_hosts: frozenset[str] = frozenset()

    @property
    def face_timeout_s(self) -> float:
        """Return how long a call that models a face may take, in seconds."""
        return max(FACE_TIMEOUT_S, self.device_timeout_s)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Parse the environment, or raise SettingsInvalid naming every variable at fault."""
        env = _Reader(environ)
        settings: dict[str, Any] = {
            "supabase_url": env.required("SUPABASE_URL", _http_url),
            "service_role_key": env.required("SUPABASE_SERVICE_ROLE_KEY", _header_value),
            "webhook_keys": env.required("WEBHOOK_SECRET", _secrets),
            "device_delay_s": env.optional("DEVICE_DELAY_SECONDS", _number(0, 60), 1.0),
            "device_timeout_s": env.optional("DEVICE_TIMEOUT_SECONDS", _number(0.1, 300), 15.0),
            "device_lanes": env.optional("DEVICE_LANES", _whole(1, 256), 1),
            "leaver_policy": env.optional("LEAVER_POLICY", _one_of(LeaverPolicy), "expire"),
            "poll_s": env.optional("POLL_SECONDS", _number(0.1, 3600), 30.0),
            "look_s": env.optional("LOOK_SECONDS", _number(1, 86400), 900.0),
            "log_format": env.optional("LOG_FORMAT", _one_of(LogFormat), "json"),
            "port": env.optional("PORT", _whole(1, 65535), 8000),
            "jwks_url": env.optional("SUPABASE_JWKS_URL", _http_url, ""),
            "jwt_secret": env.optional("SUPABASE_JWT_SECRET", _jwt_secret, None),
            "cors_origins": env.optional("CORS_ALLOWED_ORIGINS", _origins, NO_ORIGINS),
            "allowed_roles": env.optional("SYNC_ALLOWED_ROLES", _names, NOBODY),
            "photo_hosts": env.optional("PHOTO_HOSTS", _hosts, NOWHERE),
        }
        localhost = env.optional("CORS_ALLOW_LOCALHOST", _yes_or_no, default=True)
        if env.faults:
            raise SettingsInvalid(
                "The receiver cannot start; mend these environment variables:\n"
                + "\n".join(f"  {name}: {fault}" for name, fault in env.faults)
            )
        settings["jwks_url"] = settings["jwks_url"] or (
            f"{settings['supabase_url']}/auth/v1/.well-known/jwks.json"
        )
        if localhost:
            settings["cors_origins"] = (*settings["cors_origins"], *LOCAL)
        return cls(**settings)


class _Reader:
    """Reads variables and gathers what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[tuple[str, str]] = []

    def required(self, name: str, parse: Callable[[str], T]) -> T | None:
        return self._parsed(name, parse, None, missing="is missing")

    def optional(self, name: str, parse: Callable[[str], T], default: T) -> T | None:
        return self._parsed(name, parse, default, missing=None)

    def _parsed(
        self, name: str, parse: Callable[[str], T], default: T | None, missing: str | None
    ) -> T | None:
        text = self._environ.get(name, "").strip()
        if not text:
            if missing:
                self.faults.append((name, missing))
            return default
        try:
            return parse(text)
        except ValueError as fault:
            self.faults.append((name, str(fault)))
            return default


def _http_url(text: str) -> str:
    fault = ValueError("must be an http(s) URL such as https://abcdefgh.supabase.co")
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise fault from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not port_ok
        or parts.username is not None
        or parts.query
        or parts.fragment
        or re.search(r"\s", text)
    ):
        raise fault
    return f"{parts.scheme}{text[len(parts.scheme) :]}".rstrip("/")  # supabase-py: small letters


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("holds characters that no key has; copy it again")
    return text


def _jwt_secret(text: str) -> str:
    if len(text) < 32:  # noqa: PLR2004 - RFC 7518 §3.2: at least as long as the hash
        raise ValueError("is too short for HS256: copy the legacy JWT secret again")
    if text.startswith(("-----BEGIN", "{")):
        raise ValueError("is a public key, with which anybody could sign; leave it out")
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = []
    for place, word in enumerate(_listed(text), start=1):
        try:
            origins.append(_origin(word))
        except ValueError:
            fault = f"origin {place} must be like https://hr.example.com, and no more"
            raise ValueError(fault) from None
    return tuple(origins)


def _origin(text: str) -> str:
    """Spell an origin as browsers send it: in small letters and punycode, without a default port.

    Raises ValueError for what is none.
    """
    scheme, _, rest = text.lower().partition("://")
    host, colon, port = rest.partition(":")
    host = host.encode("idna").decode()
    if scheme not in DEFAULT_PORTS or not re.fullmatch(r"[a-z0-9.-]+", host):
        raise ValueError
    number = _whole(1, 65535)(port) if colon else DEFAULT_PORTS[scheme]
    return f"{scheme}://{host}" + (f":{number}" if number != DEFAULT_PORTS[scheme] else "")


def _hosts(text: str) -> frozenset[str]:
    """Parse hosts with or without a port, an IPv6 address in brackets; in small letters."""
    hosts = _listed(text.lower())
    for place, host in enumerate(hosts, start=1):
        if not re.fullmatch(r"([a-z0-9_.-]*[a-z0-9]|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", host):
            raise ValueError(f"host {place} must be like cdn.example.com or 10.0.0.7:8080")
    return frozenset(hosts)


def _names(text: str) -> frozenset[str]:
    return frozenset(_listed(text))


def _listed(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:  # not none: no allowed roles would let everybody in
        raise ValueError("is set, but names nothing between its commas; name one, or leave it out")
    return words


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _secrets(text: str) -> tuple[bytes, ...]:
    words = text.split()
    if len(words) > MAX_SECRETS:
        raise ValueError(f"holds {len(words)} secrets; {MAX_SECRETS} are the most")
    keys = []
    for place, word in enumerate(words, start=1):
        try:
            keys.append(parse_secret(word))
        except ValueError as fault:
            raise ValueError(f"secret {place} {fault}; `receiver secret` prints one") from None
    return tuple(keys)


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return number

    return parse


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _one_of(choices: object) -> Callable[[str], str]:
    allowed: tuple[str, ...] = get_args(choices)

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse
