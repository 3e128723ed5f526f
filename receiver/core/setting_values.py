"""Parsers of one environment variable's text; each raises ValueError, and names no value."""

import math
import re
from collections.abc import Callable
from typing import get_args
from urllib.parse import urlsplit

from receiver.core.signatures import parse_secret

MAX_SECRETS = 8
DEFAULT_PORTS = {"http": 80, "https": 443}


def http_url(text: str) -> str:
    """Parse an http(s) URL without a login; the scheme in small letters, no slash at the end."""
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


def header_value(text: str) -> str:
    """Parse a key that goes into a header."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("holds characters that no key has; copy it again")
    return text


def jwt_secret(text: str) -> str:
    """Parse the legacy JWT secret."""
    if len(text) < 32:  # noqa: PLR2004 - RFC 7518 §3.2: at least as long as the hash
        raise ValueError("is too short for HS256: copy the legacy JWT secret again")
    if text.startswith(("-----BEGIN", "{")):
        raise ValueError("is a public key, with which anybody could sign; leave it out")
    return text


def origins(text: str) -> tuple[str, ...]:
    """Parse origins, comma-separated, as browsers spell them."""
    origins = []
    for place, word in enumerate(_listed(text), start=1):
        try:
            origins.append(_origin(word))
        except ValueError:
            fault = f"origin {place} must be like https://hr.example.com, and no more"
            raise ValueError(fault) from None
    return tuple(origins)


def _origin(text: str) -> str:
    """Return an origin as browsers send it: in small letters and punycode, without a default port.

    Raises ValueError for any other text.
    """
    scheme, _, rest = text.lower().partition("://")
    host, colon, port = rest.partition(":")
    host = host.encode("idna").decode()
    if scheme not in DEFAULT_PORTS or not re.fullmatch(r"[a-z0-9.-]+", host):
        raise ValueError
    number = whole(1, 65535)(port) if colon else DEFAULT_PORTS[scheme]
    return f"{scheme}://{host}" + (f":{number}" if number != DEFAULT_PORTS[scheme] else "")


def hosts(text: str) -> frozenset[str]:
    """Parse hosts with or without a port, an IPv6 address in brackets; in small letters."""
    hosts = _listed(text.lower())
    for place, host in enumerate(hosts, start=1):
        if not re.fullmatch(r"([a-z0-9_.-]*[a-z0-9]|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", host):
            raise ValueError(f"host {place} must be like cdn.example.com or 10.0.0.7:8080")
    return frozenset(hosts)


def names(text: str) -> frozenset[str]:
    """Parse names, comma-separated."""
    return frozenset(_listed(text))


def _listed(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:  # refused: an empty list of roles would let everybody in
        raise ValueError("is set, but names nothing between its commas; name one, or leave it out")
    return words


def yes_or_no(text: str) -> bool:
    """Parse true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def secrets(text: str) -> tuple[bytes, ...]:
    """Parse webhook secrets, separated by blanks, into keys."""
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


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of numbers within these bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return number

    return parse


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers within these bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def one_of(choices: object) -> Callable[[str], str]:
    """Return a parser of the words of a Literal."""
    allowed: tuple[str, ...] = get_args(choices)

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse
