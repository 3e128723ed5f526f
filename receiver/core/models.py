"""The values that travel between modules: frozen, and without behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from receiver.core.errors import LoginRefused, TerminalError

Status = Literal["success", "partial", "skipped", "fatal"]
Step = Literal["person", "photo", "done"]
LeaverPolicy = Literal["expire", "delete", "keep"]


@dataclass(frozen=True, kw_only=True)
class Employee:
    """One employee as HR has them now; a deleted employee counts as inactive."""

    id: UUID
    name: str
    active: bool
    employee_no: str | None
    photo_url: str | None = field(default=None, repr=False)
    gone: bool = False
    """Whether HR no longer has a row of them."""

    @classmethod
    def of_nobody(cls, id_: UUID) -> "Employee":
        """Return an inactive employee for an id of which HR has no row."""
        return cls(id=id_, name="", active=False, employee_no=None, gone=True)


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """One row of the company's terminals: what is needed to call it."""

    id: UUID
    host: str
    port: int
    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The hardware behind a terminal's row and what it takes, declared or found out.

    Remembered in the ledger for every receiver, as long as serial and firmware stay the same.
    """

    serial: str = ""
    firmware: str = ""
    model: str = ""
    name_bytes: int | None = None
    """The longest name it takes, in bytes of UTF-8; None where it does not say."""
    most_persons: int | None = None
    page: int = 30
    """How many persons one search may ask for."""
    photo_url_bytes: int = 256
    lacks: tuple[str, ...] = ()
    """Calls that it answered with "not supported"."""
    photos: Literal["url", "upload", ""] = ""
    """How a photo arrived the last time: fetched by the terminal or sent to it; empty: neither."""
    parts: int = 0
    """Under which names it took an upload, see `terminals.faces.UPLOAD_PARTS`."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One person as a terminal describes them; None for what it did not say."""

    employee_no: str
    name: str | None
    access: Literal["open", "ended", "permanent", "other"] | None
    """Whether they may pass; `permanent` has no end, `other` one that is not ours."""
    faces: int | None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a terminal should say of one number after a push; None for what does not matter."""

    employee_no: str
    may_pass: bool | None
    name: str | None = None
    face: bool | None = None
    gone: bool = False
    """Whether nobody should be there: not to pass is not enough."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a terminal holds of an employee, as far as the ledger knows."""

    employee_no: str | None = None
    photo: str | None = None
    """Fingerprint of the photo, see `sync.rules.photo_fingerprint`; None for none or unknown."""
    others: tuple[str, ...] = ()
    """More numbers under which it may hold them: former ones, or brought back by a backup."""


NOTHING_HELD = Held()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One employee that one terminal has to be told about."""

    employee_id: UUID
    version: int
    """Which version is wanted; recorded with the outcome, so that an edit made meanwhile stays
    wanted."""
    attempts: int
    held: Held
    was_wanted: bool = True
    """Whether the worker has to push it too; False for a button's push of a pair in step."""
    in_doubt: bool = False
    """Whether it is wanted because the terminal may hold something else than `held` says."""

    @classmethod
    def of_nothing(cls, employee_id: UUID) -> "Pair":
        """Return the pair of an employee who was never wanted on the terminal."""
        return cls(
            employee_id=employee_id, version=0, attempts=0, held=NOTHING_HELD, was_wanted=False
        )


@dataclass(frozen=True, kw_only=True)
class Leased:
    """A terminal whose lease is ours, and what the ledger remembers of it."""

    terminal_id: UUID
    fence: int
    failures: int
    capabilities: Capabilities | None = None
    """None where nothing is known of it."""
    identify: bool = True
    """Whether to ask it which hardware it is."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a verification has come: everything that the next page needs to know."""

    search_id: str = ""
    position: int = 0
    """How many persons were passed."""
    first: str = ""
    """The first number of the page before; a terminal that repeats a page has no more."""
    total: int = 0
    """How many persons the terminal said it has, at the page before; 0: it did not say."""
    persons: int = 0
    different: int = 0
    unknown: int = 0
    """Persons on the pages so far; of them those who differ, and those who are not ours."""
    unsure: bool = False
    """Whether somebody may be on no page: the list moved, or ended before its total."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Somebody who may be behind a number on a terminal, and how their pair stands."""

    number: str
    employee_id: UUID
    version: int
    """0 where there is no pair."""
    wanted: bool
    status: Status | None
    held: Held


@dataclass(frozen=True, kw_only=True)
class Different:
    """An employee of whom a terminal holds, under this number, something else than it should."""

    employee_id: UUID
    number: str
    leaves: bool
    """Whether they may not pass."""


@dataclass(frozen=True, kw_only=True)
class PageVerdict:
    """What one page of a verification shows."""

    confirmed: tuple[Owner, ...]
    """Whom the terminal holds as the ledger says."""
    different: tuple[Different, ...]
    unknown: int
    """How many persons are not ours."""


@dataclass(frozen=True, kw_only=True)
class Claim(Leased):
    """A leased terminal and its due pairs; none where it is only to be identified or verified."""

    pairs: tuple[Pair, ...]
    verification: Progress | None = None
    """Where to go on with asking it for everybody; None where that is not due."""


@dataclass(frozen=True, kw_only=True)
class LeaseAnswer:
    """The ledger's answer to a request for the lease of one terminal."""

    state: Literal["leased", "busy", "resting"]
    rest_reason: str | None = None
    leased: Leased | None = None


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Why a terminal is left alone, and for how long."""

    seconds: float
    reason: str
    kind: str
    """The reason in one of few words: an error's kind, `supabase` or `receiver`."""

    @property
    def login_refused(self) -> bool:
        """Return whether not even a button may call it sooner: that might lock the account."""
        return self.kind == LoginRefused.kind


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an active terminal stands, in figures."""

    terminal_id: UUID
    pairs: Mapping[str, int]
    """How many are `in_step`, `wanted`, `failed` and `unknown`."""
    oldest_wanted_s: float
    """How long the oldest edit has waited to be there, in seconds; 0 where none waits."""
    confirmed_s: float | None
    """How long ago the terminal had confirmed everybody whom it ever did; None: nobody yet."""
    rests_for: str | None
    """The kind of its last rest, until a visit ends well; None where it works."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one pair (sync/README.md, Outcomes)."""

    status: Status
    step: Step
    message: str
    held: Held
    error: TerminalError | None = None
    """What stood in the way, if anything; decides about the retry."""
    expected: tuple[Expected, ...] = ()
    """What the terminal will say when it is read back, if it did what it confirmed."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is to be recorded of one pair."""

    pair: Pair
    outcome: Outcome
    retry_s: float | None
    """Seconds until the pair is due again; None: done."""
    confirmed_at: float | None
    """When the terminal itself said so, on this process's monotonic clock; None: it did not."""
