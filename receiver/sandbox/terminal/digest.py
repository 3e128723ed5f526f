"""The terminal's side of HTTP digest access (RFC 7616: MD5, qop=auth), with its traps.

It judges one Authorization header at a time and keeps the account's failures. It performs no I/O.
"""

import hashlib
import math
import secrets
import time
from collections.abc import Callable
from enum import Enum, auto
from urllib.request import parse_http_list, parse_keqv_list

REALM = "DS-K1T342MFWX-E1"
_FIRST_USE = "00000001"
_NONCES_KEPT = 1000


class Verdict(Enum):
    """What a request's credentials are worth."""

    RIGHT = auto()
    ABSENT = auto()  # no Authorization: answered with a challenge, counts as nothing
    WRONG = auto()
    STALE = auto()  # right password, spent or expired nonce: counts like a wrong password
    LOCKED = auto()  # whatever the credentials


class DigestGuard:
    """One account behind one-use nonces and a lockout.

    A nonce is good once and for `nonce_life_s`; SK measured the rejection of an older one on
    hardware and JV calls nonces single-use (terminals/README.md, Login and lock-out).
    `lockout_failures` failures in a row lock the account for `lockout_s`; a success in between
    forgives them.
    """

    def __init__(  # noqa: PLR0913 - a firmware has this many habits
        self,
        *,
        username: str,
        password: str,
        nonce_life_s: float,
        lockout_failures: int,
        lockout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._username = username
        self.change_password(password)
        self._nonce_life_s = nonce_life_s
        self._lockout_failures = lockout_failures
        self._lockout_s = lockout_s
        self._clock = clock
        self._opaque = secrets.token_hex(8)
        self._issued: dict[str, float] = {}
        self.start_over()

    def change_password(self, password: str) -> None:
        """Expect another password from now on; nonces, failures and a lockout stay."""
        self._ha1 = _md5(f"{self._username}:{REALM}:{password}")

    def start_over(self) -> None:
        """Forget nonces, failures and a lockout."""
        self._issued.clear()
        self._failures = 0
        self._locked_until = -math.inf

    def challenge(self) -> str:
        """Issue a nonce; return the value of a WWW-Authenticate header."""
        while len(self._issued) >= _NONCES_KEPT:
            del self._issued[next(iter(self._issued))]
        nonce = secrets.token_hex(16)
        self._issued[nonce] = self._clock()
        return (
            f'Digest qop="auth", realm="{REALM}", nonce="{nonce}", '
            f'opaque="{self._opaque}", algorithm="MD5", stale="FALSE"'
        )

    def judge(self, *, method: str, target: str, authorization: str | None) -> Verdict:
        """Judge a request whose target (path and query, as sent) is `target`."""
        if authorization is None:
            return Verdict.ABSENT
        if self.locked_for_s() > 0:
            return Verdict.LOCKED
        verdict = self._verify(method, target, authorization)
        if verdict is Verdict.RIGHT:
            self._failures = 0
        else:
            self._failures += 1
        if self._failures >= self._lockout_failures:
            self._failures = 0
            self._locked_until = self._clock() + self._lockout_s
        return verdict

    def locked_for_s(self) -> float:
        """Return the seconds until the account unlocks, 0 if it is not locked."""
        return max(0.0, self._locked_until - self._clock())

    def attempts_left(self) -> int:
        """Return the failures that may still happen before the lockout."""
        return 0 if self.locked_for_s() > 0 else self._lockout_failures - self._failures

    def _verify(self, method: str, target: str, authorization: str) -> Verdict:
        fields = _credentials(authorization)
        nonce, nc = fields.get("nonce", ""), fields.get("nc", "")
        cnonce = fields.get("cnonce", "")
        # An attempt spends its nonce, whatever comes of it.
        fresh = self._spend(nonce) and nc == _FIRST_USE
        ha2 = _md5(f"{method}:{target}")
        right = (
            fields.get("username") == self._username
            and fields.get("realm") == REALM
            and fields.get("opaque") == self._opaque
            and fields.get("algorithm", "MD5") == "MD5"
            and fields.get("qop") == "auth"
            and fields.get("uri") == target
            and cnonce != ""
            and fields.get("response") == _md5(f"{self._ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")
        )
        if not right:
            return Verdict.WRONG
        return Verdict.RIGHT if fresh else Verdict.STALE

    def _spend(self, nonce: str) -> bool:
        issued = self._issued.pop(nonce, None)
        return issued is not None and self._clock() - issued <= self._nonce_life_s


def _credentials(authorization: str) -> dict[str, str]:
    """Parse `Digest key=value, …`; anything else is empty, so it verifies as wrong."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "digest":
        return {}
    try:
        return parse_keqv_list(parse_http_list(rest))
    except (ValueError, IndexError):
        return {}


def _md5(text: str) -> str:
    # MD5 is the only algorithm that these terminals offer.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
