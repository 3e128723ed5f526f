"""What a terminal says that it holds, against what it should hold: tables, no terminal."""

from dataclasses import replace
from typing import Literal
from uuid import UUID

import pytest

from receiver.core.errors import NotKept, PhotoNotFetched
from receiver.core.models import (
    Employee,
    Expected,
    Found,
    Held,
    LeaverPolicy,
    Outcome,
    Owner,
    Status,
)
from receiver.sync.held import NOT_THERE, UNKNOWN_PHOTO, expected_of, photo_fingerprint
from receiver.sync.verdict import (
    MIN_CUT_BYTES,
    already_so,
    corrected,
    differences,
    judged,
    numbers_to_ask,
    of_page,
)

ION = Employee(
    id=UUID(int=1),
    name="Popescu Ion",
    active=True,
    employee_no="1000",
    photo_url="https://x.supabase.co/storage/v1/object/public/pontaj-photos/ion.jpg",
)
NO_PHOTO = replace(ION, photo_url=None)
LEFT = replace(ION, active=False)
GONE = Employee(id=ION.id, name="", active=False, employee_no=None, gone=True)
BOTH = Held(employee_no="1000", photo=photo_fingerprint(ION))
PERSON = Held(employee_no="1000")
UNSURE = Held(employee_no="1000", photo=UNKNOWN_PHOTO)
OTHER_NUMBER = Held(employee_no="999", photo=BOTH.photo)
THERE = Found(employee_no="1000", name="Popescu Ion", access="open", faces=1)
ENDED = replace(THERE, access="ended")
EXPECTED = expected_of(ION, "1000")
POLICIES: list[LeaverPolicy] = ["expire", "delete", "keep"]


# Whom to ask for


@pytest.mark.parametrize(
    ("employee", "held", "numbers"),
    [
        (ION, BOTH, ["1000"]),
        (ION, Held(), ["1000"]),
        (ION, OTHER_NUMBER, ["1000", "999"]),
        (ION, replace(BOTH, others=("998", "1000")), ["1000", "998"]),
        (replace(ION, employee_no=None), BOTH, ["1000"]),
        (replace(ION, employee_no=None), Held(), []),
        (LEFT, BOTH, ["1000"]),
        (LEFT, Held(), ["1000"]),
        (LEFT, OTHER_NUMBER, ["999", "1000"]),
        (GONE, Held(), []),
        (GONE, replace(OTHER_NUMBER, others=("998",)), ["999", "998"]),
    ],
)
def test_a_terminal_is_asked_for_every_number_that_somebody_may_have_there(
    employee: Employee, held: Held, numbers: list[str]
) -> None:
    assert numbers_to_ask(employee, held) == numbers


# What the terminal said, put right in what the ledger believes


@pytest.mark.parametrize(
    ("employee", "held", "asked", "right"),
    [
        (ION, BOTH, {}, BOTH),
        (ION, BOTH, {"1000": THERE}, BOTH),
        (ION, BOTH, {"1000": replace(THERE, faces=None)}, BOTH),
        (ION, BOTH, {"1000": replace(THERE, faces=0)}, PERSON),
        (ION, PERSON, {"1000": THERE}, UNSURE),
        (ION, BOTH, {"1000": None}, replace(BOTH, photo=NOT_THERE)),
        (LEFT, UNSURE, {"1000": None}, Held()),
        (GONE, OTHER_NUMBER, {"999": None}, Held()),
        (ION, replace(BOTH, others=("999",)), {"999": None, "1000": THERE}, BOTH),
    ],
)
def test_what_a_terminal_said_counts_more_than_what_the_ledger_believed(
    employee: Employee, held: Held, asked: dict[str, Found | None], right: Held
) -> None:
    assert corrected(employee, held, asked) == right


# Which pairs are in step, as the terminal says


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("employee", "held", "there"),
    [
        (ION, BOTH, THERE),
        (ION, BOTH, replace(THERE, faces=2)),
        (NO_PHOTO, PERSON, replace(THERE, faces=0)),
        (replace(ION, name="Ștefan"), BOTH, replace(THERE, name="?tefan")),
    ],
)
def test_a_person_whom_the_terminal_holds_as_hr_has_them_is_a_success(
    employee: Employee, held: Held, there: Found, policy: LeaverPolicy
) -> None:
    outcome = already_so(employee, held, policy, {"1000": there})
    assert outcome is not None
    assert (outcome.status, outcome.step, outcome.held) == ("success", "done", held)
    assert (outcome.error, outcome.expected) == (None, ())


@pytest.mark.parametrize(
    "there",
    [
        None,
        replace(THERE, name="Popescu Ana"),
        replace(THERE, name=""),
        replace(THERE, name=None),
        replace(THERE, access=None),
        replace(THERE, faces=0),
        replace(THERE, access="ended"),
        replace(THERE, access="permanent"),
        replace(THERE, access="other"),
    ],
)
def test_a_person_about_whom_anything_differs_or_is_not_told_is_pushed(
    there: Found | None,
) -> None:
    assert already_so(ION, BOTH, "expire", {"1000": there}) is None


def test_a_person_who_was_not_asked_for_is_pushed() -> None:
    assert already_so(ION, BOTH, "expire", {}) is None
    assert already_so(LEFT, BOTH, "expire", {}) is None
    assert already_so(ION, Held(), "expire", {"1000": THERE}) is None


def test_a_face_that_hr_has_no_photo_for_is_not_in_step() -> None:
    assert already_so(NO_PHOTO, PERSON, "expire", {"1000": THERE}) is None


def test_a_number_that_is_no_longer_theirs_is_not_in_step() -> None:
    """The terminal may well hold somebody under it, by whatever name."""
    held, there = OTHER_NUMBER, replace(THERE, employee_no="999")
    assert already_so(ION, held, "expire", {"999": there, "1000": THERE}) is None


@pytest.mark.parametrize("employee", [LEFT, GONE])
@pytest.mark.parametrize(
    ("policy", "there", "left"),
    [
        ("expire", ENDED, BOTH),
        ("expire", replace(ENDED, name="?", faces=None), BOTH),
        ("expire", None, Held()),
        ("delete", None, Held()),
        ("expire", THERE, None),
        ("expire", replace(THERE, access=None), None),
        ("expire", replace(THERE, access="permanent"), None),
        ("expire", replace(THERE, access="other"), None),
        ("delete", ENDED, None),
        ("delete", THERE, None),
        ("keep", ENDED, None),
        ("keep", None, None),
    ],
)
def test_a_leaver_is_in_step_where_the_terminal_lets_them_pass_no_longer(
    employee: Employee, policy: LeaverPolicy, there: Found | None, left: Held | None
) -> None:
    outcome = already_so(employee, BOTH, policy, {"1000": there})
    assert (outcome.held if outcome else None) == left
    if outcome:
        assert (outcome.status, outcome.expected) == ("success", ())


# Differences


def named(ours: str, theirs: str | None) -> list[str]:
    expected = replace(EXPECTED, name=ours)
    return differences(expected, replace(THERE, name=theirs))


LONG = "Șerbănescu-Brâncoveanu Ana-Mărioara"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Popescu Ion", "Popescu Ion"),
        ("Popescu Ion", " Popescu Ion "),
        ("Popescu Ion", None),
        (LONG, LONG.encode()[:32].decode(errors="ignore")),
        (LONG, LONG.encode()[:31].decode(errors="ignore").rstrip()),
        (LONG, LONG.encode()[:MIN_CUT_BYTES].decode(errors="ignore")),
        ("Ștefănescu Ana", "?tef?nescu Ana"),
        ("Ștefănescu Ana", "\ufffdtef\ufffdnescu Ana"),
        ("Ștefănescu Ana", "\ufffd\ufffdtef\ufffd\ufffdnescu Ana"),
        (LONG, "?erb?nescu-Br?ncoveanu Ana-M?rio"),
        ("", "a person HR has no name for"),
    ],
)
def test_a_name_that_is_cut_or_in_a_poor_charset_is_the_same(ours: str, theirs: str | None) -> None:
    assert named(ours, theirs) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Popescu Ion", "Popescu Ana"),
        ("Popescu Ion", ""),
        ("Popescu Ion", "Pop"),
        ("Popescu Ion", "Popescu Ion Ion"),
        ("Popescu Ion", "popescu ion"),
        ("Popescu Ioana-Maria", "Popescu"),
        (LONG, LONG[:10]),
        ("Ștefănescu Ana", "Stefanescu Ana"),
        ("Ștefănescu Ana", "?tef?nescu Ion"),
        ("Popescu Ion", "???????????"),
        ("Popescu Ion", "?"),
        ("Popescu Ion", "P?"),
    ],
)
def test_another_name_is_a_difference(ours: str, theirs: str) -> None:
    assert named(ours, theirs) == ["the name of 1000 is another"]


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ("open", []),
        (None, []),
        ("ended", ["the validity of 1000 is another"]),
        ("other", ["the validity of 1000 is another"]),
        ("permanent", ["the validity of 1000 is another"]),
    ],
)
def test_a_person_who_may_pass_does_so_until_our_last_day(access: object, words: list[str]) -> None:
    assert differences(EXPECTED, _with(access)) == words


def _with(access: object) -> Found:
    return replace(THERE, access=access)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ("ended", []),
        (None, []),
        ("open", ["person 1000 may still pass"]),
        ("other", ["person 1000 may still pass"]),
        ("permanent", ["person 1000 may still pass"]),
    ],
)
def test_a_leaver_does_not_pass_at_all(access: object, words: list[str]) -> None:
    assert differences(Expected(employee_no="1000", may_pass=False), _with(access)) == words


@pytest.mark.parametrize(
    ("face", "faces", "words"),
    [
        (True, 1, []),
        (True, 2, []),
        (True, None, []),
        (True, 0, ["1000 has no face there"]),
        (False, 0, []),
        (False, None, []),
        (False, 1, ["1000 has still a face there"]),
        (None, 0, []),
        (None, 1, []),
    ],
)
def test_a_face_is_there_where_it_should_be(
    face: bool | None,  # noqa: FBT001 - a case of the table
    faces: int | None,
    words: list[str],
) -> None:
    assert differences(replace(EXPECTED, face=face), replace(THERE, faces=faces)) == words


def test_an_absent_person_is_one_difference_and_an_absent_leaver_is_none() -> None:
    assert differences(EXPECTED, None) == ["person 1000 is not there"]
    assert differences(Expected(employee_no="1000", may_pass=None), None) == [
        "person 1000 is not there"
    ]
    assert differences(Expected(employee_no="1000", may_pass=False), None) == []


def test_a_push_of_the_photo_alone_expects_nothing_but_the_face() -> None:
    expected = Expected(employee_no="1000", may_pass=None, face=True)
    assert differences(expected, replace(ENDED, name="Altul")) == []
    assert differences(expected, replace(ENDED, faces=0)) == ["1000 has no face there"]


def test_several_differences_are_told_together() -> None:
    assert differences(EXPECTED, replace(ENDED, faces=0)) == [
        "the validity of 1000 is another",
        "1000 has no face there",
    ]


# Outcomes after reading back


def pushed(*expected: Expected, held: Held = BOTH) -> Outcome:
    return Outcome(
        status="success", step="done", message="Words.", held=held, expected=expected or (EXPECTED,)
    )


def test_an_outcome_that_the_terminal_confirms_stands() -> None:
    outcome = pushed()
    assert judged(outcome, {"1000": THERE}) == outcome
    assert judged(replace(outcome, expected=()), {}) == replace(outcome, expected=())


ABSENT = Held(employee_no="1000", photo=NOT_THERE)


@pytest.mark.parametrize(
    ("there", "held"), [(None, ABSENT), (replace(THERE, name="Altul"), UNSURE), (ENDED, UNSURE)]
)
def test_a_person_who_is_not_as_pushed_is_fatal(there: Found | None, held: Held) -> None:
    outcome = judged(pushed(), {"1000": there} if there else {})
    assert (outcome.status, outcome.step) == ("fatal", "person")
    assert isinstance(outcome.error, NotKept)
    assert outcome.message.startswith("The terminal answered OK, but ")
    assert outcome.message == outcome.error.message
    assert outcome.held == held  # nobody knows which face is there


def test_a_face_that_is_not_there_is_partial() -> None:
    outcome = judged(pushed(), {"1000": replace(THERE, faces=0)})
    assert (outcome.status, outcome.step, outcome.held) == ("partial", "photo", UNSURE)
    assert isinstance(outcome.error, NotKept)


def test_a_person_who_is_not_there_outweighs_a_face() -> None:
    found = {"1000": replace(THERE, faces=0, name="Altul")}
    assert judged(pushed(), found).status == "fatal"


def test_a_partial_outcome_stays_what_it_was_where_the_person_is_there() -> None:
    error = PhotoNotFetched()
    expected = replace(EXPECTED, face=None)
    partial = replace(
        pushed(expected, held=UNSURE), status="partial", step="photo", error=error, message="Why."
    )
    assert judged(partial, {"1000": replace(THERE, faces=0)}) == partial
    assert judged(partial, {}).status == "fatal"


GONE_999 = Expected(employee_no="999", may_pass=False)
STILL_999 = replace(THERE, employee_no="999")


@pytest.mark.parametrize("order", [(EXPECTED, GONE_999), (GONE_999, EXPECTED)])
@pytest.mark.parametrize("there", [THERE, None, replace(THERE, faces=0)])
def test_an_old_number_that_may_still_pass_is_not_forgotten(
    order: tuple[Expected, ...], there: Found | None
) -> None:
    """If the ledger had the new one alone, the old one would stay valid until 2037."""
    found = {"999": STILL_999} | ({"1000": there} if there else {})
    outcome = judged(pushed(*order), found)
    assert (outcome.status, outcome.step) == ("fatal", "person")
    assert outcome.message == "The terminal answered OK, but person 999 may still pass."
    assert outcome.held == Held(employee_no="999", photo=UNKNOWN_PHOTO)


def test_an_old_number_that_is_ended_does_not_hide_a_fault_of_the_new_one() -> None:
    found = {"999": replace(STILL_999, access="ended")}
    outcome = judged(pushed(EXPECTED, GONE_999), found)
    assert "1000 is not there" in outcome.message
    assert outcome.held == ABSENT


@pytest.mark.parametrize("held", [Held(), BOTH])
def test_a_leaver_who_still_passes_is_not_forgotten(held: Held) -> None:
    """Also a leaver who was to be erased, and of whom HR may have no row any more."""
    gone = Expected(employee_no="1000", may_pass=False)
    outcome = judged(pushed(gone, held=held), {"1000": THERE})
    assert (outcome.status, outcome.held) == ("fatal", UNSURE)
    assert judged(pushed(gone, held=held), {"1000": ENDED}).held == held
    assert judged(pushed(gone, held=held), {}).held == held


# A page of everybody


ANA = replace(ION, id=UUID(int=2), employee_no="2000")


def owner(
    employee: Employee,
    held: Held = BOTH,
    *,
    number: str = "1000",
    wanted: bool = False,
    status: Status | None = "success",
) -> Owner:
    return Owner(
        number=number,
        employee_id=employee.id,
        version=3,
        wanted=wanted,
        status=status,
        held=held,
    )


Seen = Literal["confirmed", "different", "neither", "unknown"]


def judge(employee: Employee, there: Found, *owners: Owner, policy: LeaverPolicy) -> Seen:
    verdict = of_page([there], owners, {employee.id: employee, ANA.id: ANA}, policy)
    seen = (len(verdict.confirmed), len(verdict.different), verdict.unknown)
    found: dict[tuple[int, int, int], Seen] = {
        (1, 0, 0): "confirmed",
        (0, 1, 0): "different",
        (0, 0, 0): "neither",
        (0, 0, 1): "unknown",
    }
    return found[seen]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("employee", "pair", "there", "seen"),
    [
        (ION, owner(ION), THERE, "confirmed"),
        (ION, owner(ION), replace(THERE, faces=None), "confirmed"),
        (ION, owner(ION), replace(THERE, faces=0), "different"),
        (ION, owner(ION), replace(THERE, name="Altul"), "different"),
        (ION, owner(ION), ENDED, "different"),
        (ION, owner(ION), replace(THERE, access="permanent"), "different"),
        (ION, owner(ION), replace(THERE, access="other"), "different"),
        (ION, owner(ION), replace(THERE, access=None), "neither"),
        (ION, owner(ION), replace(THERE, name=None), "neither"),
        (ION, owner(ION, PERSON), THERE, "different"),  # it may be anybody's photo
        (ION, owner(ION, Held()), THERE, "different"),
        (ION, owner(ION, replace(BOTH, others=("999",))), THERE, "different"),
        (ION, owner(ION, wanted=True), ENDED, "neither"),
        # A photo that the terminal does not take waits for HR; the person does not.
        (ION, owner(ION, UNSURE, status="partial"), replace(THERE, faces=0), "confirmed"),
        (ION, owner(ION, UNSURE, status="partial"), ENDED, "different"),
    ],
)
def test_a_page_confirms_who_is_there_as_hr_has_them(
    employee: Employee, pair: Owner, there: Found, seen: Seen, policy: LeaverPolicy
) -> None:
    assert judge(employee, there, pair, policy=policy) == seen


@pytest.mark.parametrize("employee", [LEFT, GONE])
@pytest.mark.parametrize(
    ("policy", "there", "seen"),
    [
        ("expire", ENDED, "confirmed"),
        ("expire", THERE, "different"),
        ("expire", replace(THERE, access="permanent"), "different"),
        ("delete", ENDED, "different"),
        ("delete", THERE, "different"),
        ("keep", THERE, "confirmed"),
        ("expire", replace(ENDED, access=None), "neither"),
        ("delete", replace(ENDED, access=None), "different"),
        ("keep", replace(THERE, access=None), "neither"),
    ],
)
def test_a_page_finds_the_leavers_whom_a_terminal_lets_in(
    employee: Employee, policy: LeaverPolicy, there: Found, seen: Seen
) -> None:
    assert judge(employee, there, owner(employee, UNSURE), policy=policy) == seen
    if seen == "different":  # also where the ledger believes that they are gone
        assert judge(employee, there, owner(employee, Held()), policy=policy) == seen


@pytest.mark.parametrize("policy", POLICIES)
def test_a_former_number_of_somebody_who_may_pass_is_ended_whatever_the_policy(
    policy: LeaverPolicy,
) -> None:
    former = replace(THERE, employee_no="999")
    pair = owner(ION, BOTH, number="999")
    assert judge(ION, former, pair, policy=policy) == "different"
    seen = judge(ION, replace(former, access="ended"), pair, policy=policy)
    assert seen == ("different" if policy == "delete" else "neither")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_number_belongs_to_the_one_who_may_pass_with_it(policy: LeaverPolicy) -> None:
    had_it = owner(ANA, UNSURE)
    assert judge(ION, THERE, had_it, owner(ION), policy=policy) == "confirmed"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_person_behind_whose_number_nobody_is_known_is_left_alone(policy: LeaverPolicy) -> None:
    assert judge(ION, replace(THERE, employee_no="vizitator7"), policy=policy) == "unknown"


@pytest.mark.parametrize("policy", ["expire", "delete"])
def test_a_number_that_hr_gave_somebody_besides_theirs_is_ended_for_whoever_had_it(
    policy: LeaverPolicy,
) -> None:
    """HR's second row of Ion has the number of somebody who left, whom a backup brought back."""
    left = Employee.of_nobody(ANA.id)
    owners = [owner(ION, number="1002"), owner(left, Held(), number="1002")]
    there = replace(THERE, employee_no="1002")
    found = of_page([there], owners, {ION.id: ION, left.id: left}, policy)
    assert left.id in {one.employee_id for one in found.different}
