"""The values that travel between modules: frozen, and without behaviour."""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from receiver.errors import TerminalError

Status = Literal["success", "partial", "skipped", "fatal"]
Step = Literal["person", "photo", "done"]
LeaverPolicy = Literal["expire", "delete", "keep"]


@dataclass(frozen=True, kw_only=True)
class Employee:
    """One employee as HR has it now; one who is gone from the tables is an inactive one."""

    id: UUID
    name: str
    active: bool
    employee_no: str | None
    photo_url: str | None = field(default=None, repr=False)
    gone: bool = False
    """Whether HR has no row of them any more."""


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """One row of the company's terminals, as it is needed to talk to it."""

    id: UUID
    host: str
    port: int
    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a terminal holds of an employee, as far as the ledger knows."""

    employee_no: str | None = None
    photo: str | None = None
    """Fingerprint of the photo, see `sync.photo_fingerprint`; None for none or unknown."""


NOTHING_HELD = Held()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One employee that one terminal has to be told about."""

    employee_id: UUID
    version: int
    """What is wanted, counted in edits; recorded with the outcome, so that an edit made
    meanwhile stays wanted."""
    attempts: int
    held: Held
    was_wanted: bool = True
    """Whether the worker has it to do as well; False for a button's push of a pair in step."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A leased terminal and the pairs that are due there."""

    terminal_id: UUID
    fence: int
    failures: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, kw_only=True)
class Leased:
    """What came of asking for one terminal: a lease where `fence` is a number."""

    state: Literal["leased", "busy", "resting"]
    fence: int | None
    failures: int
    rest_reason: str | None


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Why a terminal is left alone, and for how long."""

    seconds: float
    reason: str
    login_refused: bool = False
    """Then nobody may try it sooner, not even a button: it might lock the account."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it went to bring one employee on one terminal to where HR says (design: Outcomes)."""

    status: Status
    step: Step
    message: str
    held: Held
    error: TerminalError | None = None
    """What stood in the way, where something did; decides about the retry."""
