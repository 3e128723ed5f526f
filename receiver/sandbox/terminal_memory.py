"""What a simulated terminal is, holds and has seen: plain values, no protocol."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

_CLOCK_SLACK_S = 0.005
_UNKNOWN_FIELDS_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A firmware's habits. Defaults are a current, healthy terminal.

    `answers` is the form of ResponseStatus bodies; what a call asks for (search results, counts)
    is JSON on both, and deviceInfo is XML on both. `busy_http` is the HTTP status of deviceBusy:
    both 503 and 200 with statusCode 2 occur (isapi.md §2). `face_url_bytes` is the documented
    limit; DS-K1T321MFWX takes 1024 (isapi.md §3). `deletion_s` is how long the asynchronous
    UserInfoDetail/Delete takes after its answer.
    """

    name: str = "modern"
    answers: Literal["json", "xml"] = "json"
    delay_s: float = 0.0
    face_delay_s: float = 0.0
    name_bytes: int = 128
    max_persons: int = 2000
    has_fd_setup: bool = True
    nonce_life_s: float = 30.0
    lockout_failures: int = 5
    lockout_s: float = 1800.0
    busy_every: int = 0
    busy_http: Literal[200, 503] = 503
    downloads_photos: bool = True
    face_url_bytes: int = 256
    deletion_s: float = 0.05


MODERN = Profile()


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face as the terminal keeps it: where it came from and what arrived."""

    url: str
    sha256: str
    size: int
    replaced: int = 0


@dataclass(kw_only=True)
class Person:
    """One person in a terminal's memory; `begin` and `end` are naive, in `time_type`'s clock."""

    employee_no: str
    name: str
    begin: datetime
    end: datetime
    enabled: bool
    user_type: str
    door_right: str = ""
    right_plan: list[dict[str, object]] = field(default_factory=list)
    face: Face | None = None
    time_type: str = "local"
    local_ui_right: bool = False

    def may_pass(self, at: datetime) -> bool:
        """Say whether the validity lets the person in at `at` (naive: the device's clock).

        `Valid.enable` false means PERMANENT validity, not a disabled person (G1 p.299).
        """
        if not self.enabled:
            return True
        zone = UTC if self.time_type == "UTC" else None
        return self.begin <= at.astimezone(zone).replace(tzinfo=None) <= self.end


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request as the terminal saw it; times are of the monotonic clock.

    `sub_status` is the answer's subStatusCode, None on a 401, which has none.
    """

    method: str
    path: str
    employee_no: str | None
    status: int
    sub_status: str | None
    started: float
    ended: float
    authenticated: bool


@dataclass(kw_only=True)
class Sightings:
    """What the terminal noticed about its client: evidence for tests, all of it bounded."""

    min_pause_s: float = 0.0
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=10_000))
    bodies: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=1000))
    unknown_fields: list[str] = field(default_factory=list)
    overlapping_calls: int = 0
    calls_too_close: int = 0
    failed_logins: int = 0
    deletions_of_everybody: int = 0
    _in_progress: int = 0
    _last_ended: float | None = None

    def authenticated_call_begins(self, at: float) -> None:
        """Count a call that arrives during another, or too soon after the last one ended."""
        if self._in_progress:
            self.overlapping_calls += 1
        elif (
            self._last_ended is not None
            and at - self._last_ended < self.min_pause_s - _CLOCK_SLACK_S
        ):
            self.calls_too_close += 1
        self._in_progress += 1

    def authenticated_call_ends(self, at: float) -> None:
        """Note the end from which the next pause is measured."""
        self._in_progress -= 1
        self._last_ended = at

    def unknown_field(self, path: str) -> None:
        """Keep the dotted path of a field that isapi.md does not know, once."""
        if path not in self.unknown_fields and len(self.unknown_fields) < _UNKNOWN_FIELDS_KEPT:
            self.unknown_fields.append(path)
