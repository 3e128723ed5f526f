"""What a terminal says that it holds, against what it should hold: tables, no terminal."""

from dataclasses import replace
from uuid import UUID

import pytest

from receiver.core.errors import NotKept, PhotoNotFetched
from receiver.core.models import Employee, Expected, Found, Held, LeaverPolicy, Outcome
from receiver.sync.rules import NOT_THERE, UNKNOWN_PHOTO, expected_of, photo_fingerprint
from receiver.sync.verdict import MIN_CUT_BYTES, already_so, differences, judged, number_to_ask

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


# Which pairs may be in step already


@pytest.mark.parametrize(
    ("employee", "held", "could"),
    [
        (ION, BOTH, True),
        (ION, PERSON, False),
        (ION, UNSURE, False),
        (ION, Held(), False),
        (ION, OTHER_NUMBER, False),
        (ION, replace(BOTH, photo="f" * 64), False),
        (NO_PHOTO, PERSON, True),
        (NO_PHOTO, BOTH, False),
        (NO_PHOTO, UNSURE, False),
        (replace(ION, employee_no=None), BOTH, False),
        (replace(ION, employee_no=None), Held(), False),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_person_who_may_pass_could_be_in_step_where_the_ledger_has_number_and_photo(
    employee: Employee,
    held: Held,
    could: bool,  # noqa: FBT001 - a case of the table
    policy: LeaverPolicy,
) -> None:
    assert (number_to_ask(employee, held, policy) is not None) is could


@pytest.mark.parametrize("employee", [LEFT, GONE])
@pytest.mark.parametrize(
    ("held", "policy", "could"),
    [
        (BOTH, "expire", True),
        (UNSURE, "expire", True),
        (OTHER_NUMBER, "expire", True),
        (Held(), "expire", False),
        (BOTH, "delete", True),
        (Held(), "delete", False),
        (BOTH, "keep", False),
    ],
)
def test_a_leaver_could_be_in_step_where_the_ledger_has_a_number_to_ask_for(
    employee: Employee,
    held: Held,
    policy: LeaverPolicy,
    could: bool,  # noqa: FBT001 - a case of the table
) -> None:
    # A leaver whom the ledger does not know may be there all the same, by the number of HR's.
    could = could or (policy != "keep" and employee.employee_no is not None)
    # A leaver whom it knows by another number must be asked for by both.
    could = could and not (employee == LEFT and held == OTHER_NUMBER)
    assert (number_to_ask(employee, held, policy) is not None) is could


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
        replace(THERE, faces=None),
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
