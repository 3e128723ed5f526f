"""The rules of a push as a table: the calls to a terminal, and the outcome."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast
from uuid import UUID

import pytest

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LeaseLost,
    LoginRefused,
    NotKept,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    ReceiverError,
    Stopping,
    SupabaseUnreachable,
    TerminalBusy,
    TerminalError,
    TerminalRefused,
    TerminalTimeout,
    TerminalUnreachable,
    TerminalUnusable,
)
from receiver.core.models import Employee, Expected, Found, Held, LeaverPolicy, Outcome, Status
from receiver.sync import person_terminal
from receiver.sync.consequences import consequence
from receiver.sync.held import ANOTHERS_PHOTO, NOT_THERE, UNKNOWN_PHOTO, photo_fingerprint
from receiver.sync.push import Sync
from receiver.sync.rules import Intend, sync, sync_again, sync_photo
from receiver.terminals.client import TerminalClient

ION = Employee(
    id=UUID(int=1),
    name="Popescu Ion",
    active=True,
    employee_no="1000",
    photo_url="https://x.supabase.co/storage/v1/object/public/pontaj-photos/ion.jpg",
)
NO_PHOTO = replace(ION, photo_url=None)
NO_NUMBER = replace(ION, employee_no=None)
LEFT = replace(ION, active=False)
GONE = Employee(id=ION.id, name="", active=False, employee_no=None)
PHOTO = photo_fingerprint(ION)
NOTHING = Held()
PERSON = Held(employee_no="1000")
BOTH = Held(employee_no="1000", photo=PHOTO)
OTHER_PHOTO = Held(employee_no="1000", photo="f" * 64)
OTHER_NUMBER = Held(employee_no="999", photo=PHOTO)

EVERY_ERROR: tuple[type[TerminalError], ...] = (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotKept,
    NotSupported,
    PersonAbsent,
    PhotoNotFetched,
    TerminalBusy,
    TerminalRefused,
    TerminalTimeout,
    TerminalUnreachable,
    TerminalUnusable,
)
Call = tuple[str, ...]
PUT_PERSON: Call = ("put_person", "1000", "Popescu Ion")
PUT_FACE: Call = ("put_face", "1000", str(ION.photo_url))
END: Call = ("end_validity", "1000", "Popescu Ion")
ERASE: Call = ("erase", "1000")


@dataclass
class Recorder:
    """A terminal that notes its calls, knows the person or not, and fails where told to."""

    holds_them: bool = False
    fails: Mapping[str, Exception] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def asked(self, *call: str) -> None:
        self.calls.append(call)
        if call[0] in self.fails:
            raise self.fails[call[0]]

    intended: list[str] = field(default_factory=list)
    guesses: list[bool] = field(default_factory=list)

    was_anothers: bool = False

    async def intend(self, employee_no: str) -> str:
        self.intended.append(employee_no)
        return ANOTHERS_PHOTO if self.was_anothers else UNKNOWN_PHOTO

    found: Mapping[str, Found] = field(default_factory=dict)

    @property
    def persons(self) -> "RecordedPersons":
        return RecordedPersons(self)

    @property
    def faces(self) -> "RecordedFaces":
        return RecordedFaces(self)


@dataclass
class RecordedPersons:
    terminal: Recorder

    async def put(self, employee_no: str, name: str, *, expected_there: bool) -> bool:
        self.terminal.guesses.append(expected_there)
        self.terminal.asked("put_person", employee_no, name)
        return self.terminal.holds_them

    async def end(self, employee_no: str, name: str) -> bool:
        self.terminal.asked("end_validity", employee_no, name)
        return self.terminal.holds_them

    async def erase(self, employee_no: str) -> None:
        self.terminal.asked("erase", employee_no)

    async def find(self, employee_nos: Sequence[str]) -> Mapping[str, Found]:
        self.terminal.asked("find", *employee_nos)
        found = self.terminal.found
        return {number: found[number] for number in employee_nos if number in found}


@dataclass
class RecordedFaces:
    terminal: Recorder

    async def put(self, employee_no: str, photo_url: str) -> None:
        self.terminal.asked("put_face", employee_no, photo_url)

    async def remove(self, employee_no: str) -> None:
        self.terminal.asked("remove_face", employee_no)

    async def has(self, employee_no: str) -> bool:
        self.terminal.asked("has_face", employee_no)
        return False


async def run(
    terminal: Recorder,
    employee: Employee = ION,
    held: Held = NOTHING,
    policy: LeaverPolicy = "expire",
) -> Outcome:
    return await sync(terminal, employee, held, policy, terminal.intend)


def test_the_table_of_errors_is_complete() -> None:
    assert set(EVERY_ERROR) == set(TerminalError.__subclasses__())


# A person who may pass


@pytest.mark.parametrize(
    ("known", "held", "asked_for_face"),
    [
        (False, NOTHING, True),
        (True, NOTHING, True),
        (False, PERSON, True),
        (True, PERSON, True),
        (True, BOTH, False),
        (True, OTHER_PHOTO, True),
        (False, BOTH, True),  # wiped or replaced: it had the photo once
    ],
    ids=[
        "new",
        "known to the terminal alone",
        "wiped before the photo",
        "photo missing",
        "already so",
        "another photo",
        "wiped",
    ],
)
async def test_the_person_is_put_before_the_photo_and_a_photo_already_there_is_not_sent(
    known: bool,  # noqa: FBT001 - a case of the table
    held: Held,
    asked_for_face: bool,  # noqa: FBT001
) -> None:
    terminal = Recorder(holds_them=known)
    outcome = await run(terminal, held=held)
    assert terminal.calls == ([PUT_PERSON, PUT_FACE] if asked_for_face else [PUT_PERSON])
    assert (outcome.status, outcome.step, outcome.error) == ("success", "done", None)
    assert outcome.held == BOTH


async def test_a_person_without_a_photo_is_a_success_that_says_so() -> None:
    terminal = Recorder()
    outcome = await run(terminal, NO_PHOTO)
    assert terminal.calls == [PUT_PERSON]
    assert (outcome.status, outcome.step, outcome.held) == ("success", "done", PERSON)
    assert "no photo" in outcome.message


async def test_a_person_without_a_number_is_skipped_and_the_terminal_is_left_alone() -> None:
    terminal = Recorder()
    outcome = await run(terminal, NO_NUMBER)
    assert terminal.calls == []
    assert (outcome.status, outcome.step, outcome.error) == ("skipped", "person", None)
    assert "employee_no" in outcome.message
    assert outcome.held == NOTHING


async def test_the_photo_is_sent_again_under_a_new_number() -> None:
    terminal = Recorder(holds_them=True)
    outcome = await run(terminal, held=OTHER_NUMBER)
    assert PUT_PERSON in terminal.calls
    assert PUT_FACE in terminal.calls
    assert (outcome.status, outcome.held) == ("success", BOTH)


@pytest.mark.parametrize(("policy", "ended"), [("expire", "end_validity"), ("delete", "erase")])
async def test_the_old_number_lets_nobody_pass_after_a_change_of_number(
    policy: LeaverPolicy, ended: str
) -> None:
    """Otherwise it stays valid until 2037, and the ledger has forgotten it."""
    terminal = Recorder()
    await run(terminal, held=OTHER_NUMBER, policy=policy)
    assert (ended, "999") in [call[:2] for call in terminal.calls]


@pytest.mark.parametrize("policy", ["expire", "delete"])
async def test_an_old_number_that_could_not_be_ended_is_not_forgotten(
    policy: LeaverPolicy,
) -> None:
    busy = TerminalBusy()
    terminal = Recorder(fails={"end_validity": busy, "erase": busy})
    outcome = await run(terminal, held=OTHER_NUMBER, policy=policy)
    assert outcome.status != "success"
    assert outcome.held.employee_no == "999"


@pytest.mark.parametrize("policy", ["expire", "delete", "keep"])
@pytest.mark.parametrize("employee", [ION, NO_NUMBER], ids=["new number", "no number"])
async def test_an_old_number_whose_end_was_a_lie_is_not_forgotten(
    policy: LeaverPolicy, employee: Employee
) -> None:
    """A 200 that changed nothing: under its new number the ledger would forget the old one."""
    open_still = Found(employee_no="999", name="Popescu Ion", access="open", faces=1)
    terminal = Recorder(found={"999": open_still})
    outcome = await run(terminal, employee, held=OTHER_NUMBER, policy=policy)
    asked = [call[:2] for call in terminal.calls[1:] if call[0] != "remove_face"]
    assert asked == [("find", "999")]
    assert (outcome.status, outcome.held, terminal.intended) == ("fatal", OTHER_NUMBER, [])
    assert outcome.message == "The terminal answered OK, but person 999 may still pass."
    assert isinstance(outcome.error, NotKept)


@pytest.mark.parametrize("error", EVERY_ERROR)
async def test_a_terminal_that_cannot_be_searched_is_believed_to_have_ended_the_old_number(
    error: type[TerminalError],
) -> None:
    """A terminal that cannot answer now is asked later."""
    later = (LoginRefused, TerminalBusy, TerminalTimeout, TerminalUnreachable)
    terminal = Recorder(fails={"find": error("Because.")})
    outcome = await run(terminal, held=OTHER_NUMBER)
    assert outcome.held == (OTHER_NUMBER if error in later else BOTH)
    assert (outcome.status == "fatal") == (error in later)


async def test_a_number_that_was_taken_away_lets_nobody_pass() -> None:
    terminal = Recorder()
    outcome = await run(terminal, NO_NUMBER, held=BOTH)
    assert [call[:2] for call in terminal.calls] == [
        ("end_validity", "1000"),
        ("remove_face", "1000"),  # HR may give the number to a person without a photo
        ("find", "1000"),
    ]
    assert outcome.status == "skipped"


async def test_a_photo_that_hr_removed_is_removed_from_the_terminal() -> None:
    """`success`: the terminal holds what Supabase says, which is no face."""
    for held in (BOTH, replace(BOTH, photo=UNKNOWN_PHOTO)):
        terminal = Recorder(holds_them=True)
        outcome = await run(terminal, NO_PHOTO, held=held)
        assert terminal.calls == [PUT_PERSON, ("remove_face", "1000")]
        assert (outcome.status, outcome.held) == ("success", PERSON)


async def test_a_photo_that_could_not_be_removed_is_reported_and_not_forgotten() -> None:
    terminal = Recorder(holds_them=True, fails={"remove_face": TerminalBusy("Because.")})
    outcome = await run(terminal, NO_PHOTO, held=BOTH)
    assert outcome.status == "partial"
    assert "could not be removed" in outcome.message
    assert outcome.held.photo is not None


async def test_a_push_of_everything_sends_the_photo_whatever_the_ledger_believes() -> None:
    terminal = Recorder(holds_them=True)
    await sync_again(terminal, ION, BOTH, "expire", terminal.intend)
    assert terminal.calls == [PUT_PERSON, PUT_FACE]


@pytest.mark.parametrize(
    ("error", "status"), [(PersonAbsent, "skipped"), (PhotoNotFetched, "partial")]
)
async def test_a_push_of_the_photo_only_touches_nothing_else(
    error: type[TerminalError], status: Status
) -> None:
    terminal = Recorder()
    assert (await sync_photo(terminal, ION, PERSON, "expire", terminal.intend)).held == BOTH
    assert terminal.calls == [PUT_FACE]
    terminal = Recorder(fails={"put_face": error()})
    outcome = await sync_photo(terminal, ION, BOTH, "expire", terminal.intend)
    assert outcome.status == status


async def test_a_push_of_the_photo_only_does_not_forget_an_old_number_that_may_still_pass() -> None:
    held = Held(employee_no="999", photo="x")
    terminal = Recorder()
    outcome = await sync_photo(terminal, ION, held, "expire", terminal.intend)
    assert outcome.held.employee_no == "999"


# Errors

PERSON_STEP: dict[type[TerminalError], Status] = dict.fromkeys(EVERY_ERROR, "fatal")
PERSON_STEP[DataRefused] = "skipped"
PHOTO_STEP: dict[type[TerminalError], Status] = {
    AnswerUnexplained: "fatal",
    DataRefused: "partial",
    LoginRefused: "fatal",
    NotKept: "fatal",
    NotSupported: "partial",
    PersonAbsent: "partial",
    PhotoNotFetched: "partial",
    TerminalBusy: "partial",
    TerminalRefused: "partial",
    TerminalTimeout: "partial",
    TerminalUnreachable: "fatal",
    TerminalUnusable: "fatal",
}


@pytest.mark.parametrize(("kind", "status"), PERSON_STEP.items(), ids=str)
async def test_an_error_at_the_person_ends_the_push(
    kind: type[TerminalError], status: Status
) -> None:
    error = kind("Because.")
    terminal = Recorder(fails={"put_person": error})
    outcome = await run(terminal, held=OTHER_PHOTO)
    assert terminal.calls == [PUT_PERSON]
    assert (outcome.status, outcome.step, outcome.message) == (status, "person", "Because.")
    assert outcome.error is error
    assert outcome.held.employee_no == "1000"
    assert outcome.held.photo in (None, OTHER_PHOTO.photo)  # never a photo that was not sent


@pytest.mark.parametrize(("kind", "status"), PHOTO_STEP.items(), ids=str)
@pytest.mark.parametrize("held", [NOTHING, PERSON, OTHER_PHOTO])
async def test_an_error_at_the_photo_leaves_the_person_and_no_photo_to_rely_on(
    held: Held, kind: type[TerminalError], status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal may have taken the photo or not: it is sent again, whatever it held before."""
    monkeypatch.setattr(person_terminal, "BUSY_PAUSES_S", (0.0, 0.0))
    error = kind("Because.")
    terminal = Recorder(holds_them=True, fails={"put_face": error})
    outcome = await run(terminal, held=held)
    times = 3 if kind is TerminalBusy else 1  # most terminals are busy for a moment
    assert terminal.calls == [PUT_PERSON] + [PUT_FACE] * times
    assert (outcome.status, outcome.step, outcome.error) == (status, "photo", error)
    assert outcome.held == replace(PERSON, photo=UNKNOWN_PHOTO)
    assert "because." in outcome.message.lower()
    if status == "partial":
        assert outcome.message.startswith("The person is on the terminal")


@pytest.mark.parametrize("kind", [TerminalTimeout, TerminalUnreachable, AnswerUnexplained])
async def test_a_person_whom_the_terminal_may_have_taken_before_it_failed_can_still_leave(
    kind: type[TerminalError],
) -> None:
    """The answer got lost, HR deletes the employee: only the ledger still knows the number."""
    outcome = await run(Recorder(fails={"put_person": kind()}), held=NOTHING)
    terminal = Recorder()
    await run(terminal, GONE, held=outcome.held)
    assert [call[:2] for call in terminal.calls] == [("end_validity", "1000")]


@pytest.mark.parametrize("error", [LeaseLost(), Stopping(), SupabaseUnreachable()])
@pytest.mark.parametrize(
    ("verb", "employee", "policy"),
    [
        ("put_person", ION, "keep"),
        ("put_face", ION, "keep"),
        ("end_validity", LEFT, "expire"),
        ("erase", LEFT, "delete"),
    ],
)
async def test_a_forbidden_call_is_raised_and_is_no_outcome(
    error: ReceiverError, verb: str, employee: Employee, policy: LeaverPolicy
) -> None:
    terminal = Recorder(fails={verb: error})
    with pytest.raises(type(error)) as raised:
        await run(terminal, employee, policy=policy)
    assert raised.value is error
    assert terminal.calls[-1][0] == verb


# Leavers


@pytest.mark.parametrize("held", [NOTHING, PERSON, BOTH])
@pytest.mark.parametrize(
    ("policy", "calls", "left"),
    [
        ("expire", [END], lambda held: held),
        ("delete", [ERASE], lambda _: NOTHING),
        ("keep", [], lambda held: held),
    ],
)
async def test_a_leaver_is_treated_as_the_policy_says(
    held: Held, policy: LeaverPolicy, calls: list[Call], left: Callable[[Held], Held]
) -> None:
    terminal = Recorder(holds_them=True)
    outcome = await run(terminal, LEFT, held, policy)
    assert terminal.calls == calls
    assert (outcome.status, outcome.step, outcome.error) == ("success", "done", None)
    assert outcome.held == left(held)


@pytest.mark.parametrize(
    ("policy", "calls"),
    [("expire", [("end_validity", "1000", "")]), ("delete", [ERASE]), ("keep", [])],
)
async def test_a_leaver_whom_hr_deleted_leaves_under_the_number_that_the_terminal_holds(
    policy: LeaverPolicy, calls: list[Call]
) -> None:
    terminal = Recorder()
    assert (await run(terminal, GONE, BOTH, policy)).status == "success"
    assert terminal.calls == calls


@pytest.mark.parametrize("policy", ["expire", "delete", "keep"])
async def test_a_leaver_who_never_had_a_number_costs_no_call(policy: LeaverPolicy) -> None:
    terminal = Recorder()
    outcome = await run(terminal, GONE, NOTHING, policy)
    assert terminal.calls == []
    assert (outcome.status, outcome.held) == ("success", NOTHING)


async def test_a_leaver_whose_number_changed_leaves_under_the_number_the_terminal_holds() -> None:
    terminal = Recorder()
    await run(terminal, LEFT, OTHER_NUMBER)
    assert ("end_validity", "999", "Popescu Ion") in terminal.calls


@pytest.mark.parametrize("policy", ["expire", "delete"])
async def test_a_leaver_whose_number_changed_leaves_under_both(policy: LeaverPolicy) -> None:
    """Hardware that hung elsewhere may know them by the number that the ledger lacks."""
    terminal = Recorder()
    outcome = await run(terminal, LEFT, OTHER_NUMBER, policy)
    assert [call[1] for call in terminal.calls] == ["999", "1000"]
    assert [(e.employee_no, e.may_pass) for e in outcome.expected] == [
        ("999", False),
        ("1000", False),
    ]
    half = Recorder(fails={"end_validity": TerminalBusy(), "erase": TerminalBusy()})
    assert (await run(half, LEFT, OTHER_NUMBER, policy)).held == OTHER_NUMBER


@pytest.mark.parametrize(("policy", "verb"), [("expire", "end_validity"), ("delete", "erase")])
@pytest.mark.parametrize(("kind", "status"), PERSON_STEP.items(), ids=str)
async def test_a_leaver_whose_access_could_not_be_ended_is_held_as_before(
    kind: type[TerminalError], status: Status, policy: LeaverPolicy, verb: str
) -> None:
    error = kind("Because.")
    outcome = await run(Recorder(fails={verb: error}), LEFT, BOTH, policy)
    assert (outcome.step, outcome.held) == ("person", BOTH)
    if kind is DataRefused:  # no data of HR's to wait for: the person may still pass
        assert (outcome.status, type(outcome.error)) == ("fatal", AnswerUnexplained)
    else:
        assert (outcome.status, outcome.error) == (status, error)


@pytest.mark.parametrize("error", [NotSupported(), AnswerUnexplained()])
async def test_a_leaver_who_cannot_be_erased_passes_no_longer_all_the_same(
    error: TerminalError,
) -> None:
    terminal = Recorder(fails={"erase": error})
    outcome = await run(terminal, LEFT, BOTH, "delete")
    assert terminal.calls == [ERASE, END]
    assert (outcome.status, outcome.error, outcome.held) == ("fatal", error, BOTH)


@pytest.mark.parametrize("how", [sync, sync_again])
async def test_a_person_whom_a_search_did_not_find_is_put_as_a_new_one(how: Sync) -> None:
    """A terminal may answer OK to every change of a person whom it does not hold."""
    terminal = Recorder(holds_them=False)
    held = Held(employee_no="1000", photo=NOT_THERE)
    outcome = await how(cast("TerminalClient", terminal), ION, held, "expire", terminal.intend)
    assert terminal.guesses == [False]
    assert terminal.calls == [PUT_PERSON, PUT_FACE]
    assert outcome.held == BOTH


async def test_a_person_who_returns_is_put_again_and_keeps_a_photo_that_only_expired() -> None:
    expired = await run(Recorder(holds_them=True), LEFT, BOTH, "expire")
    terminal = Recorder(holds_them=True)
    assert (await run(terminal, ION, expired.held)).held == BOTH
    assert terminal.calls == [PUT_PERSON]
    erased = await run(Recorder(holds_them=True), LEFT, BOTH, "delete")
    terminal = Recorder(holds_them=False)
    assert (await run(terminal, ION, erased.held)).held == BOTH
    assert terminal.calls == [PUT_PERSON, PUT_FACE]


# Fingerprints


def test_a_fingerprint_holds_nothing_of_the_url() -> None:
    assert PHOTO is not None
    assert len(PHOTO) == 64
    assert set(PHOTO) <= set("0123456789abcdef")
    assert repr(BOTH).count("://") == 0


def test_a_fingerprint_changes_with_url_and_number_and_with_nothing_else() -> None:
    assert photo_fingerprint(replace(ION, name="Ionescu", active=False, id=UUID(int=9))) == PHOTO
    others = [
        photo_fingerprint(replace(ION, photo_url=f"{ION.photo_url}?v=2")),
        photo_fingerprint(replace(ION, employee_no="1001")),
        photo_fingerprint(NO_PHOTO),
    ]
    assert len({PHOTO, *others}) == 4
    assert others[-1] is None


@pytest.mark.parametrize("kind", EVERY_ERROR)
async def test_no_outcome_repeats_the_url_of_the_photo(kind: type[TerminalError]) -> None:
    for verb in ("put_person", "put_face"):
        outcome = await run(Recorder(fails={verb: kind()}))
        assert "://" not in f"{outcome.message} {outcome.held} {outcome.error!r}"


async def test_the_ledger_hears_of_a_number_before_the_terminal_does() -> None:
    terminal = Recorder(fails={"put_person": LeaseLost()})
    with pytest.raises(LeaseLost):
        await run(terminal, held=NOTHING)
    assert terminal.intended == ["1000"]
    known = Recorder(holds_them=True)
    await run(known, held=BOTH)
    assert known.intended == []


@pytest.mark.parametrize("how", [sync, sync_again, sync_photo])
@pytest.mark.parametrize("held", [PERSON, OTHER_PHOTO])
async def test_a_face_is_changed_only_after_the_ledger_believes_in_none(
    how: Callable[[Recorder, Employee, Held, LeaverPolicy, Intend], Awaitable[Outcome]], held: Held
) -> None:
    """If a receiver dies after the call, the ledger must not believe in the old photo."""
    terminal = Recorder(holds_them=True, fails={"put_face": LeaseLost()})
    with pytest.raises(LeaseLost):
        await how(terminal, ION, held, "expire", terminal.intend)
    assert terminal.intended == ["1000"]


async def test_no_old_face_is_left_under_a_number_that_was_anothers() -> None:
    """The terminal knows a person by it, the ledger does not: a former owner, or the old app's."""
    terminal = Recorder(holds_them=True)
    outcome = await run(terminal, NO_PHOTO, held=NOTHING)
    assert terminal.calls == [PUT_PERSON, ("remove_face", "1000")]
    assert outcome.held == PERSON
    unknown = Recorder(holds_them=True)  # to the ledger: it may be anybody's face
    await run(unknown, NO_PHOTO, held=NOTHING)
    assert unknown.calls == [PUT_PERSON, ("remove_face", "1000")]
    new = Recorder(holds_them=False)
    await run(new, NO_PHOTO, held=NOTHING)
    assert new.calls == [PUT_PERSON]


def test_a_url_that_is_only_signed_anew_is_of_the_same_photo() -> None:
    signed = "https://x.supabase.co/storage/v1/object/sign/pontaj-photos/ion.jpg?token=a.b.c"
    first = photo_fingerprint(replace(ION, photo_url=signed))
    assert photo_fingerprint(replace(ION, photo_url=signed + "2&download=")) == first
    other = signed.replace("ion.jpg", "ana.jpg")
    assert photo_fingerprint(replace(ION, photo_url=other)) != first
    elsewhere = "https://cdn.example.com/photo?id="
    assert photo_fingerprint(replace(ION, photo_url=elsewhere + "1")) != photo_fingerprint(
        replace(ION, photo_url=elsewhere + "2")
    )


# The heir of a number

REMOVE: Call = ("remove_face", "1000")
FIND: Call = ("find", "1000")
HAS: Call = ("has_face", "1000")
ENDED = Found(employee_no="1000", name="Altul", access="ended", faces=0)
NOTED = Held(employee_no="1000", photo=ANOTHERS_PHOTO)


def heirs_terminal(*, faces: int = 0, **fails: Exception) -> Recorder:
    found = {"1000": replace(ENDED, faces=faces)}
    return Recorder(holds_them=True, was_anothers=True, found=found, fails=fails)


@pytest.mark.parametrize("held", [NOTHING, NOTED])
async def test_an_heir_is_let_in_only_once_the_face_is_theirs(held: Held) -> None:
    """NOTED: the receiver died after it had noted the number."""
    terminal = heirs_terminal()
    outcome = await run(terminal, held=held)
    assert terminal.calls == [END, REMOVE, FIND, HAS, PUT_PERSON, PUT_FACE]
    assert terminal.guesses == [True]
    assert (outcome.status, outcome.held) == ("success", BOTH)


async def test_an_heir_whose_number_the_terminal_does_not_have_costs_one_call_more() -> None:
    terminal = Recorder(was_anothers=True)
    outcome = await run(terminal)
    assert terminal.calls == [END, PUT_PERSON, PUT_FACE]
    assert terminal.guesses == [False]
    assert (outcome.status, outcome.held) == ("success", BOTH)


@pytest.mark.parametrize("kind", [DataRefused, PersonAbsent])
async def test_an_heir_is_let_in_where_there_is_no_face(kind: type[TerminalError]) -> None:
    terminal = heirs_terminal(remove_face=kind("None."))
    outcome = await run(terminal, replace(ION, photo_url=None))
    assert terminal.calls == [END, REMOVE, FIND, HAS, PUT_PERSON]
    assert (outcome.status, outcome.held) == ("success", PERSON)


async def test_a_face_that_a_lying_terminal_did_not_remove_lets_nobody_in() -> None:
    terminal = heirs_terminal(faces=1)
    outcome = await run(terminal, replace(ION, photo_url=None))
    assert terminal.calls == [END, REMOVE, FIND]
    assert (outcome.status, outcome.held) == ("fatal", NOTED)
    terminal = heirs_terminal(faces=1)
    outcome = await run(terminal)
    assert terminal.calls == [END, REMOVE, FIND, PUT_FACE, PUT_PERSON]
    assert (outcome.status, outcome.held) == ("success", BOTH)


@pytest.mark.parametrize("kind", EVERY_ERROR)
async def test_where_a_terminal_cannot_say_whether_a_face_is_gone_its_word_counts(
    kind: type[TerminalError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_terminal, "BUSY_PAUSES_S", ())
    terminal = heirs_terminal(find=kind("Because."))
    outcome = await run(terminal)
    cannot = consequence(kind()).asked_back == "now"
    assert (PUT_PERSON in terminal.calls) == cannot
    assert outcome.status == ("success" if cannot else PHOTO_STEP[kind])


@pytest.mark.parametrize("kind", EVERY_ERROR)
@pytest.mark.parametrize("photo_url", [ION.photo_url, None])
async def test_where_a_face_cannot_be_removed_it_is_replaced_before_the_heir_is_let_in(
    kind: type[TerminalError], photo_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_terminal, "BUSY_PAUSES_S", ())
    terminal = heirs_terminal(remove_face=kind("Because."))
    outcome = await run(terminal, replace(ION, photo_url=photo_url))
    has_none = kind in {DataRefused, PersonAbsent}
    replaced = not has_none and photo_url and consequence(kind()).asked_back == "now"
    if has_none:
        assert (PUT_PERSON in terminal.calls, outcome.status) == (True, "success")
    elif replaced:
        assert terminal.calls == [END, REMOVE, PUT_FACE, PUT_PERSON]
        assert (outcome.status, outcome.held) == ("success", BOTH)
    else:
        assert terminal.calls == [END, REMOVE]
        assert (outcome.status, outcome.held) == (PHOTO_STEP[kind], NOTED)


@pytest.mark.parametrize("kind", EVERY_ERROR)
async def test_an_heir_is_not_let_in_while_the_face_may_be_anothers(
    kind: type[TerminalError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_terminal, "BUSY_PAUSES_S", ())
    terminal = heirs_terminal(remove_face=NotSupported("Cannot."), put_face=kind("Because."))
    outcome = await run(terminal)
    assert terminal.calls == [END, REMOVE, PUT_FACE]
    assert (outcome.status, outcome.step) == (PHOTO_STEP[kind], "photo")
    assert outcome.held == NOTED
    assert "nobody is let in" in outcome.message
    assert outcome.expected == (Expected(employee_no="1000", may_pass=False),)


@pytest.mark.parametrize("kind", EVERY_ERROR)
async def test_a_number_whose_former_owner_is_not_ended_stays_wanted(
    kind: type[TerminalError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person_terminal, "BUSY_PAUSES_S", ())
    terminal = heirs_terminal(end_validity=kind("Because."))
    outcome = await run(terminal)
    assert terminal.calls == [END]
    assert (outcome.status, outcome.held) == ("fatal", NOTED)


async def test_a_terminal_that_is_busy_now_and_then_lets_the_heir_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(person_terminal, "BUSY_PAUSES_S", (0.0,))

    class Busy(Recorder):
        def asked(self, *call: str) -> None:
            super().asked(*call)
            if self.calls.count(call) == 1:
                raise TerminalBusy("A moment.")

    terminal = Busy(holds_them=True, was_anothers=True, found={"1000": ENDED})
    outcome = await run(terminal)
    assert (outcome.status, outcome.held) == ("success", BOTH)
