"""Green means that the terminal said so: what is recorded as confirmed, and what is not."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

import pytest

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    NotSupported,
    PhotoUnusable,
    SupabaseUnreachable,
)
from receiver.core.models import Employee, Held
from receiver.sandbox.terminal import persons as simulated_persons
from receiver.sandbox.terminal.simulated import Profile
from receiver.sync.held import ANOTHERS_PHOTO, UNKNOWN_PHOTO
from receiver.sync.rules import sync_again, sync_photo
from receiver.terminals.faces import Faces
from receiver.terminals.persons import Persons
from tests.sync.test_push import ENDED, House, finished, house, pair

LATER = datetime(2036, 1, 1)  # noqa: DTZ001 - device time


async def test_a_terminal_that_cannot_be_asked_confirms_nothing() -> None:
    async with house(Profile(has_search=False, lies_every=1)) as at:
        ion = at.hire(1)
        await at.serve(pair(ion))
        assert not at.last(ion).confirmed


@pytest.mark.parametrize("policy", ["keep", "expire"])
async def test_a_terminal_that_is_off_confirms_nothing(policy: Any) -> None:
    async with house(policy=policy) as at:
        left = at.hire(1, active=False, employee_no="1001" if policy == "keep" else None)
        await at.terminal.switch_off()
        await at.serve(pair(left))
        assert at.paths() == []
        assert at.last(left).outcome.status == "success"
        assert not at.last(left).confirmed


async def test_an_ended_person_whom_a_lying_terminal_did_not_erase_is_not_forgotten() -> None:
    """As after a change of LEAVER_POLICY from `expire` to `delete`."""
    async with house(Profile(lies_every=1), policy="delete") as at:
        held = at.enrolled(at.hire(1, photo=True), end=ENDED)
        left = at.hire(1, active=False, gone=True, employee_no=None)
        await at.serve(pair(left, held))
        assert "1001" not in at.terminal.persons or at.last(left).outcome.status != "success"


@pytest.mark.parametrize("policy", ["expire", "keep"])
async def test_a_leavers_face_opens_no_door_under_the_number_of_an_heir(policy: Any) -> None:
    async with house(Profile(downloads_photos=False), policy=policy) as at:
        held = at.enrolled(at.hire(1, photo=True))
        left = at.hire(1, active=False, employee_no=None)
        heir = at.hire(2, employee_no="1001", photo=True)
        at.photo_fails = PhotoUnusable("No face found.")
        await at.serve(pair(left, held), pair(heir))
        assert at.last(heir).outcome.status == "partial"  # and not tried again until HR edits
        face = at.terminal.persons["1001"].face
        assert not at.may_pass("1001") or face is None


async def test_a_bulk_run_tells_what_it_read_back_though_it_could_not_record_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(Profile(lies_every=1)) as at:
        at.hire(1)

        async def record(*_: Any, **__: Any) -> None:
            raise SupabaseUnreachable("Supabase cannot be reached.")

        monkeypatch.setattr(at.ledger, "record", record)
        run = await finished(at)
        assert "1001" not in at.terminal.persons
        assert run.counts["success"] == 0


@pytest.mark.parametrize(
    "changed", [{"begin": LATER}, {"user_type": "blackList"}], ids=["begins later", "blocked"]
)
async def test_somebody_who_may_not_pass_for_another_reason_is_not_in_step(changed: Any) -> None:
    """Changed at the terminal, and the search says so."""
    async with house() as at:
        ion = at.hire(1)
        held = at.enrolled(ion, **changed)
        await at.serve(pair(ion, held, in_doubt=True))
        there = at.terminal.persons["1001"]
        assert (at.may_pass("1001"), there.user_type) == (True, "normal")


async def test_one_answer_that_counts_a_face_late_does_not_hide_faces_that_go_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It makes a model of a face for seconds; its library has the face at once."""
    search, late = simulated_persons.PersonCalls.search, [True]

    async def counting(self: Any, request: Any) -> Any:
        found = cast("Any", await search(self, request))
        for person in found["UserInfoSearch"].get("UserInfo", []):
            if late and person.get("numOfFace"):
                late.clear()
                person["numOfFace"] = 0
                person.pop("faceURL", None)
        return found

    monkeypatch.setattr(simulated_persons.PersonCalls, "search", counting)
    async with house(Profile(downloads_photos=False)) as at:
        ion, ana = (at.hire(n, photo=True) for n in (1, 2))
        await at.serve(pair(ion), pair(ana))
        assert late == []
        assert at.last(ion).outcome.status == "success"
        at.terminal.persons["1002"].face = None
        await at.serve(pair(ana, at.last(ana).outcome.held, in_doubt=True))
        assert at.terminal.persons["1002"].face is not None


async def test_a_lying_terminal_that_says_nothing_of_windows_confirms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = simulated_persons.PersonCalls.search

    async def silent(self: Any, request: Any) -> Any:
        found = cast("Any", await search(self, request))
        for person in found["UserInfoSearch"].get("UserInfo", []):
            del person["Valid"]
        return found

    monkeypatch.setattr(simulated_persons.PersonCalls, "search", silent)
    async with house() as at:
        ion = at.hire(1)
        await at.serve(pair(ion))
        assert at.last(ion).outcome.status == "success"
        assert not at.last(ion).confirmed


# The heir of a number


@dataclass
class Heirs:
    """Somebody left, and is ended under 1001; HR gave that number to the heir."""

    at: House
    heir: Employee
    leavers_face: Any

    def leaver_passes(self) -> bool:
        """Return whether the leaver's face lets somebody in."""
        there = self.at.terminal.persons["1001"]
        return self.at.may_pass("1001") and there.face == self.leavers_face


@pytest.fixture
async def heirs() -> AsyncIterator[Heirs]:
    async with house(Profile(downloads_photos=False)) as at:
        at.enrolled(at.hire(1, photo=True), end=ENDED)
        face = at.terminal.persons["1001"].face
        assert face is not None
        yield Heirs(at, at.hire(2, employee_no="1001", photo=True), face)


async def test_an_heir_is_let_in_with_their_own_face(heirs: Heirs) -> None:
    at, heir = heirs.at, heirs.heir
    await at.serve(pair(heir))
    assert at.last(heir).outcome.status == "success"
    assert at.may_pass("1001")
    assert at.terminal.persons["1001"].face is not None
    assert not heirs.leaver_passes()


async def test_an_heir_whose_receiver_died_after_it_noted_the_number_has_no_leavers_face(
    heirs: Heirs,
) -> None:
    at, heir = heirs.at, heirs.heir
    at.photo_fails = PhotoUnusable("No face found.")
    noted = Held(employee_no="1001", photo=ANOTHERS_PHOTO)
    at.ledger.owners["1001"] = heir.id
    await at.serve(pair(heir, noted, attempts=1))
    assert at.may_pass("1001")
    assert at.terminal.persons["1001"].face is None


@pytest.mark.parametrize("how", [sync_again, sync_photo])
async def test_the_buttons_do_not_forget_whose_face_it_may_be(heirs: Heirs, how: Any) -> None:
    at, heir = heirs.at, heirs.heir
    at.photo_fails = PhotoUnusable("No face found.")
    held = Held(employee_no="1001", photo=ANOTHERS_PHOTO)
    push = await at.pushes.push(at.visit, pair(heir, held), heir, how=how)
    assert not heirs.leaver_passes()
    face = at.terminal.persons["1001"].face
    assert push.outcome.held.photo == (UNKNOWN_PHOTO if face is None else ANOTHERS_PHOTO)


async def test_an_heir_without_a_photo_is_not_let_in_where_the_face_cannot_be_removed(
    heirs: Heirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, heir = heirs.at, heirs.heir
    without = replace(heir, photo_url=None)
    at.staff.employees_[heir.id] = without

    async def unable(*_: Any) -> None:
        raise NotSupported("The terminal cannot remove a face.")

    monkeypatch.setattr(Faces, "remove", unable)
    await at.serve(pair(without))
    assert at.last(heir).outcome.status == "partial"
    assert "nobody is let in" in at.last(heir).outcome.message
    assert not at.may_pass("1001")
    at.staff.employees_[heir.id] = heir
    await at.serve(pair(heir, at.last(heir).outcome.held))  # HR adds a photo
    assert at.may_pass("1001")
    assert not heirs.leaver_passes()


async def _unable(*_: Any) -> None:
    raise NotSupported("The terminal cannot remove a face.")


async def _nothing(*_: Any) -> None:
    pass


async def _says_so(*_: Any) -> bool:
    return True


async def test_after_a_mistake_of_ours_it_is_still_known_whose_face_it_may_be(
    heirs: Heirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver fails at the heir's photo, once; at the next attempt the photo is unusable."""
    at, heir = heirs.at, heirs.heir
    monkeypatch.setattr(Faces, "remove", _unable)
    at.photo_fails = RuntimeError("a mistake of ours")
    held = Held(employee_no="1001", photo=ANOTHERS_PHOTO)  # an earlier attempt noted the number
    at.ledger.owners["1001"] = heir.id
    await at.serve(pair(heir, held, attempts=1))
    assert not heirs.leaver_passes()
    at.photo_fails = PhotoUnusable("No face found.")
    at.visit.resting = None
    await at.serve(pair(heir, at.last(heir).outcome.held, attempts=2))
    assert not heirs.leaver_passes()


@pytest.mark.parametrize("says", ["no face", "nobody"])
async def test_a_search_that_says_too_little_does_not_let_a_leavers_face_in(
    monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """A `0` is doubted, and the library asked, for those alone who should have a face."""
    search = simulated_persons.PersonCalls.search

    async def counting(self: Any, request: Any) -> Any:
        found = cast("Any", await search(self, request))
        if says == "nobody":  # once, as a moving list does
            monkeypatch.undo()
            found["UserInfoSearch"] |= {
                "responseStatusStrg": "NO MATCH",
                "numOfMatches": 0,
                "totalMatches": 0,
                "UserInfo": [],
            }
        for person in found["UserInfoSearch"].get("UserInfo", []):
            person["numOfFace"] = 0
            person.pop("faceURL", None)
        return found

    monkeypatch.setattr(simulated_persons.PersonCalls, "search", counting)
    async with house(Profile(downloads_photos=False)) as at:
        at.enrolled(at.hire(1, photo=True), end=ENDED)
        heirs = Heirs(
            at, at.hire(2, employee_no="1001", photo=True), at.terminal.persons["1001"].face
        )
        at.photo_fails = PhotoUnusable("No face found.")
        at.ledger.owners["1001"] = heirs.heir.id
        held = Held(employee_no="1001", photo=ANOTHERS_PHOTO)
        await at.serve(pair(heirs.heir, held, in_doubt=True))
        assert not heirs.leaver_passes()


async def test_an_heir_is_brought_where_a_face_can_be_replaced_but_its_removal_is_odd(
    heirs: Heirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Firmware that answers a removal in words nobody knows: it replaced faces until now."""
    at, heir = heirs.at, heirs.heir

    async def odd(*_: Any) -> None:
        raise AnswerUnexplained("Odd.")

    monkeypatch.setattr(Faces, "remove", odd)
    held = Held()
    for attempts in range(3):
        at.visit.resting = None
        await at.serve(pair(heir, held, attempts=attempts))
        held = at.last(heir).outcome.held
    assert at.may_pass("1001")
    assert not heirs.leaver_passes()


async def test_a_removal_that_was_only_said_to_be_done_lets_no_leavers_face_in(
    heirs: Heirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers OK and keeps the face; a search says so, but the face is not read back."""
    at, heir = heirs.at, heirs.heir
    monkeypatch.setattr(Faces, "remove", _nothing)
    at.photo_fails = PhotoUnusable("No face found.")
    await at.serve(pair(heir))
    assert at.last(heir).retry_s is None  # not tried again until HR edits
    assert not heirs.leaver_passes()


async def test_a_removal_that_was_refused_lets_no_leavers_face_in(
    heirs: Heirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, heir = heirs.at, heirs.heir

    async def refused(*_: Any) -> None:
        raise DataRefused("Bad parameter.")

    monkeypatch.setattr(Faces, "remove", refused)
    at.photo_fails = PhotoUnusable("No face found.")
    await at.serve(pair(heir))
    assert not heirs.leaver_passes()


async def test_an_heir_without_a_photo_on_a_terminal_that_keeps_the_face_stays_out(
    heirs: Heirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read back is recorded with `unknown`, and the next attempt opens again."""
    at = heirs.at
    heir = replace(heirs.heir, photo_url=None)
    at.staff.employees_[heir.id] = heir
    monkeypatch.setattr(Faces, "remove", _nothing)
    await at.serve(pair(heir))
    assert not heirs.leaver_passes()


async def test_nobody_is_let_in_where_the_leaver_was_not_yet_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ending failed, and waits; the heir's turn comes, and takes the number off the leaver."""
    async with house(Profile(downloads_photos=False)) as at:
        left = at.hire(1, photo=True)
        at.enrolled(left)  # still open
        face = at.terminal.persons["1001"].face
        heir = at.hire(2, employee_no="1001", photo=True)
        monkeypatch.setattr(Faces, "remove", _unable)
        at.photo_fails = PhotoUnusable("No face found.")
        await at.serve(pair(heir))
        assert "nobody is let in with it" in at.last(heir).outcome.message
        assert at.terminal.persons["1001"].face == face
        # The ledger gave 1001 to the heir: the leaver's pair has no number any more.
        gone = at.hire(1, active=False, employee_no=None)
        await at.serve(pair(gone, Held()))
        assert at.last(gone).outcome.status == "success"
        assert not at.may_pass("1001")


async def test_a_leaver_whose_number_an_heir_got_is_not_confirmed_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The terminal says OK and does not end them; the heir is refused, and leaves them open."""
    async with house(Profile(downloads_photos=False)) as at:
        held = at.enrolled(at.hire(1, photo=True))
        left = at.hire(1, active=False, employee_no=None)
        heir = at.hire(2, employee_no="1001", photo=True)
        monkeypatch.setattr(Persons, "end", _says_so)
        monkeypatch.setattr(Faces, "remove", _unable)
        at.photo_fails = PhotoUnusable("No face found.")
        await at.serve(pair(left, held), pair(heir))
        assert not at.may_pass("1001") or (
            at.last(left).outcome.status != "success" and not at.last(left).confirmed
        )


async def test_a_photo_alone_does_not_end_the_bringing_of_an_heir_who_was_not_let_in(
    heirs: Heirs,
) -> None:
    """The photo's button, after a refusal: it succeeds, and the heir stays ended."""
    at, heir = heirs.at, heirs.heir
    held = Held(employee_no="1001", photo=ANOTHERS_PHOTO)
    at.ledger.owners["1001"] = heir.id
    at.ledger.anothers.add("1001")
    push = await at.pushes.push(at.visit, pair(heir, held, was_wanted=False), heir, how=sync_photo)
    await at.pushes.settle(at.visit, [push])
    last = at.last(heir)
    assert at.may_pass("1001") or last.retry_s is not None or last.outcome.status != "success"
