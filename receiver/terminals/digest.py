"""HTTP digest logins (RFC 7616): a terminal's challenges, and the answer to one. No I/O.

httpx's own digest takes only the first Digest header, in one spelling, and changes a realm that
contains quotes. All is bytes here, so that a realm returns in the charset in which it came.
Nothing that a terminal sends raises: a parameter that cannot be read counts as absent.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_HASHES: Final = {b"MD5": "md5", b"SHA": "sha1", b"SHA-256": "sha256", b"SHA-512": "sha512"}
_SESSION: Final = b"-SESS"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ELEMENT: Final = re.compile(rb'(?:"(?:[^"\\]|\\.)*"?|[^",])+', re.DOTALL)
_SCHEME: Final = re.compile(rb"(%b)(?:[ \t].*)?" % _TOKEN, re.DOTALL)
_PARAMETER: Final = re.compile(
    rb"(?:(%b)[ \t]+)?(%b)[ \t]*=[ \t]*(.*)" % (_TOKEN, _TOKEN), re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A challenge that can be answered."""

    realm: bytes
    nonce: bytes
    algorithm: bytes
    """As the terminal spells it."""
    opaque: bytes = b""
    has_qop: bool
    """Whether `auth` is offered; without any qop the answer is that of RFC 2069."""

    def answer(
        self, *, username: str, password: str, method: str, target: bytes, cnonce: bytes
    ) -> bytes:
        """Return the Authorization for the first request with this nonce.

        Values are hashed unquoted and sent quoted (RFC 7616 §3.4.2, RFC 9110 §5.6.4).
        """
        algorithm = self.algorithm.upper()

        def hashed(*parts: bytes) -> bytes:
            name = _HASHES[algorithm.removesuffix(_SESSION)]
            joined = b":".join(parts)
            return hashlib.new(name, joined, usedforsecurity=False).hexdigest().encode()

        secret = hashed(username.encode(), self.realm, password.encode())
        if algorithm.endswith(_SESSION):
            secret = hashed(secret, self.nonce, cnonce)
        count = (b"00000001", cnonce, b"auth") if self.has_qop else ()
        response = hashed(secret, self.nonce, *count, hashed(method.encode(), target))
        said = {
            b"username": _quoted(username.encode()),
            b"realm": _quoted(self.realm),
            b"nonce": _quoted(self.nonce),
            b"uri": _quoted(target),
            b"response": _quoted(response),
            b"algorithm": self.algorithm,
        }
        if self.opaque:
            said[b"opaque"] = _quoted(self.opaque)
        if self.has_qop:
            said |= {b"qop": b"auth", b"nc": b"00000001", b"cnonce": _quoted(cnonce)}
        return b"Digest " + b", ".join(name + b"=" + value for name, value in said.items())


def digests(values: Iterable[bytes]) -> list[dict[bytes, bytes]]:
    """Return the parameters of each Digest challenge in these headers, names in lower case.

    One value may hold several challenges, of several schemes (RFC 9110 §11.6.1).
    """
    found: list[dict[bytes, bytes]] = []
    for value in values:
        parameters: dict[bytes, bytes] = {}
        for element in map(bytes.strip, _ELEMENT.findall(value)):
            parameter = _PARAMETER.fullmatch(element)
            scheme = parameter[1] if parameter else _scheme(element)
            if scheme:
                parameters = {}
                if scheme.lower() == b"digest":
                    found.append(parameters)
            if parameter:
                parameters[parameter[2].lower()] = _unquoted(parameter[3])
    return found


def answerable(challenges: Iterable[Mapping[bytes, bytes]]) -> Challenge | None:
    """Return the first challenge that can be answered; their order is the terminal's choice."""
    for said in challenges:
        algorithm = said.get(b"algorithm", b"MD5")
        qop = said.get(b"qop")
        has_qop = b"auth" in [one.strip() for one in (qop or b"").lower().split(b",")]
        is_session = algorithm.upper().endswith(_SESSION)
        if (
            {b"realm", b"nonce"} <= said.keys()
            and algorithm.upper().removesuffix(_SESSION) in _HASHES
            and (has_qop or qop is None)
            and (has_qop or not is_session)  # a session needs a cnonce, which is sent with a qop
        ):
            return Challenge(
                realm=said[b"realm"],
                nonce=said[b"nonce"],
                algorithm=algorithm,
                opaque=said.get(b"opaque", b""),
                has_qop=has_qop,
            )
    return None


def _scheme(element: bytes) -> bytes | None:
    scheme = _SCHEME.fullmatch(element)
    return scheme[1] if scheme else None


def _unquoted(value: bytes) -> bytes:
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        return re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL)
    return value


def _quoted(value: bytes) -> bytes:
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"'
