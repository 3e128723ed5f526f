"""What a simulated terminal is, holds and has noticed: plain values, no protocol."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

_CLOCK_SLACK_S = 0.005
_UNKNOWN_FIELDS_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A firmware's habits. Defaults are a current, healthy terminal.

    Headings in parentheses are those of terminals/README.md.
    """

    name: str = "modern"
    model: str = "DS-K1T342MFWX-E1"
    firmware: str = "V4.39.0"
    serial: str = ""
    """Empty: derived from the port."""

    answers: Literal["json", "xml"] = "json"
    """The form of ResponseStatus. Documents (search results, counts) are JSON and deviceInfo is
    XML on both."""
    xml_namespace: str = "http://www.isapi.org/ver20/XMLSchema"
    """It varies (Calls), and may be empty: then there is none."""
    charset: str = "utf-8"
    """The real encoding of bodies; no header says so."""
    errors_http: Literal[200, 400] = 400
    """The HTTP status of business errors: both were seen (Answers and codes)."""
    missing: Literal["404", "405", "403", "400"] = "404"
    """The answer of an endpoint that is missing: an HTML page, an empty body, notSupport, or
    invalidOperation, as integrators tell (Answers and codes)."""

    delay_s: float = 0.0
    face_delay_s: float = 0.0
    nonce_life_s: float = 30.0
    lockout_failures: int = 5
    lockout_s: float = 1800.0
    busy_every: int = 0
    """Every so many writes, one is refused as deviceBusy; 0 is never."""
    busy_http: Literal[200, 503] = 503
    """The HTTP status of deviceBusy: 200 with statusCode 2 occurs too (Answers and codes)."""
    lies_every: int = 0
    """Every so many writes, one is answered OK and changes nothing (Traps); 0 is never."""
    lies_about_replaced_faces: bool = False
    """It lies also about a face that replaces another, which no later answer would show."""

    name_bytes: int = 128
    cuts_names: bool = False
    """A longer name is cut on a character boundary instead of refused."""
    max_persons: int = 2000
    deletion_s: float = 0.05
    """How long UserInfoDetail/Delete takes after its answer: it is asynchronous (Calls)."""
    has_set_up: bool = True
    has_search: bool = True
    has_capabilities: bool = True
    has_user_info_detail: bool = True
    modify_by: Literal["PUT", "POST"] = "PUT"

    max_faces: int = 3000
    downloads_photos: bool = True
    face_url_bytes: int = 256
    """The documented limit; DS-K1T321MFWX takes 1024 (Limits)."""
    takes_uploads: bool = True
    upload_parts: tuple[str, str] = ("FaceDataRecord", "img")
    """The names of the JSON part and of the picture part that it takes (Calls)."""
    has_fd_setup: bool = True
    has_fd_modify: bool = True
    has_fd_search_delete: bool = True
    """Without it, FDLib/FDDelete is there instead, which CH needed."""
    fd_capabilities: Literal["flat", "wrapped"] = "flat"
    """FDLib/capabilities: its keys at the top (DS-K1T321MFWX), or inside FDLibCap."""


MODERN = Profile()


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face as the terminal keeps it: its source, and the bytes that arrived.

    `url` is empty where the picture was uploaded.
    """

    url: str
    sha256: str
    size: int
    likeness: str = ""
    """Whose portrait it is, as `portraits.likeness` says; sha256 and size are of these bytes."""
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
    cards: int = 0
    time_type: str = "local"
    local_ui_right: bool = False

    def may_pass(self, at: datetime) -> bool:
        """Return whether the validity lets the person in at `at` (naive: the device's clock).

        `Valid.enable` false means PERMANENT validity, not a disabled person (G1 p.299).
        """
        if not self.enabled:
            return True
        zone = UTC if self.time_type == "UTC" else None
        return self.begin <= at.astimezone(zone).replace(tzinfo=None) <= self.end


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request as the terminal saw it; times are of the monotonic clock.

    `sub_status` is the answer's subStatusCode, None where it has none: on a 401, or on the page
    or empty body of an endpoint that is not there.
    """

    method: str
    path: str
    employee_no: str | None
    status: int
    sub_status: str | None
    started: float
    ended: float
    authenticated: bool
    uploaded: bool = False
    """Whether it carried a picture."""


@dataclass(kw_only=True)
class Sightings:
    """Observations of the terminal about its client: evidence for tests, all of it bounded."""

    min_pause_s: float = 0.0
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=10_000))
    bodies: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=1000))
    unknown_fields: list[str] = field(default_factory=list)
    overlapping_calls: int = 0
    calls_too_close: int = 0
    failed_logins: int = 0
    deletions_of_everybody: int = 0
    deletions_not_of_one: int = 0
    """Requests to delete persons or faces that did not carry exactly one number."""
    _in_progress: int = 0
    _answered: float | None = None
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

    def authenticated_call_answered(self, at: float) -> None:
        """Note the moment from which the client may have the answer, just before it is sent."""
        self._answered = at

    def authenticated_call_ends(self, at: float) -> None:
        """Note the end; the next pause is measured from the answer, or from here without one."""
        self._in_progress -= 1
        self._last_ended = at if self._answered is None else self._answered
        self._answered = None

    def unknown_field(self, path: str) -> None:
        """Keep the dotted path of a field that is not in the guides, once."""
        if path not in self.unknown_fields and len(self.unknown_fields) < _UNKNOWN_FIELDS_KEPT:
            self.unknown_fields.append(path)


@dataclass(kw_only=True)
class Device:
    """What a call works on: the firmware's habits, the memory, and the sightings.

    An upgrade changes `profile`. `face_url` returns where the terminal itself serves a picture.
    """

    profile: Profile
    face_url: Callable[[Person], str]
    persons: dict[str, Person] = field(default_factory=dict)
    sightings: Sightings = field(default_factory=Sightings)
