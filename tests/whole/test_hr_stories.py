"""Edits of HR's day, one story each: the whole receiver runs in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from receiver.core.models import LeaverPolicy
from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Call
from tests.support.hr_days import Company, open_company
from tests.support.waiting import eventually

POLICIES: tuple[LeaverPolicy, ...] = ("expire", "delete")
QUIET_S = 1.5
"""Longer than two looks and several polls of a receiver here."""


@pytest.fixture
async def company(embedded_postgres: PostgresServer) -> AsyncIterator[Company]:
    async with open_company(embedded_postgres) as company:
        yield company
        await company.end_day()
        assert company.broken_promises() == []


async def settled(company: Company) -> None:
    """Wait until every active terminal holds what the tables say, and say why if it does not."""
    assert await company.converged(), await company.report()


def writes(company: Company, place: int = 0) -> list[Call]:
    """Return the calls that changed something on a terminal, or tried to."""
    return [
        call
        for call in company.terminals[place].sightings.calls
        if call.authenticated and call.method != "GET" and "Search?" not in f"{call.path}?"
    ]


def logins(company: Company, place: int = 0) -> int:
    return sum(call.authenticated for call in company.terminals[place].sightings.calls)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_leaver_passes_nowhere_and_passes_again_on_return(
    company: Company, policy: LeaverPolicy
) -> None:
    await company.begin_day(policy=policy)
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    for status in ("inactiv", "suspendat", "concediu"):
        await company.set_status(ion, status)
        await settled(company)
        assert company.on(0) == company.on(1) == {}
        assert ("1000" in company.terminals[0].persons) is (policy == "expire")
        await company.set_status(ion, "activ")
        await settled(company)
        assert company.on(0) == company.on(1) == {"1000": ("Popescu", "poza-1.jpg")}


@pytest.mark.parametrize("policy", POLICIES)
async def test_an_employee_who_leaves_during_an_import_does_not_wait_behind_it(
    company: Company, policy: LeaverPolicy
) -> None:
    await company.begin_day(policy=policy)
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.stop_receivers()
    for n in range(40):  # more than one visit's
        await company.hire(f"Om{n}")
    await company.set_status(ion, "inactiv")
    made = [len(writes(company, place)) for place in range(2)]
    await company.start_receiver()
    await settled(company)
    assert [writes(company, place)[made[place]].employee_no for place in range(2)] == ["1000"] * 2


async def test_delete_erases_face_and_card_too(company: Company) -> None:
    await company.begin_day(policy="delete", profiles=[PROFILES["modern"], PROFILES["old_deletes"]])
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    for terminal in company.terminals[:2]:
        terminal.enroll_card("1000")
    await company.set_status(ion, "inactiv")
    await settled(company)
    await company.set_status(ion, "activ")
    await company.set_photo(ion, None)
    await settled(company)
    for terminal in company.terminals[:2]:
        assert terminal.persons["1000"].cards == 0
        assert terminal.persons["1000"].face is None


@pytest.mark.parametrize("policy", POLICIES)
async def test_an_employee_whose_row_is_deleted_passes_nowhere(
    company: Company, policy: LeaverPolicy
) -> None:
    await company.begin_day(policy=policy)
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.delete(ion)
    await settled(company)
    assert company.on(0) == company.on(1) == {}
    assert ("1000" in company.terminals[0].persons) is (policy == "expire")


@pytest.mark.parametrize("policy", POLICIES)
async def test_an_active_employee_who_has_no_number_any_more_passes_nowhere(
    company: Company, policy: LeaverPolicy
) -> None:
    await company.begin_day(policy=policy)
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.delete_biometrics(ion)
    await settled(company)
    assert company.on(0) == company.on(1) == {}
    await company.give_biometrics(ion, photo="poza-2.jpg")
    await settled(company)
    assert company.on(0) == company.on(1) == {"1001": ("Popescu", "poza-2.jpg")}


@pytest.mark.parametrize("policy", POLICIES)
async def test_an_old_number_is_ended_before_the_new_one_is_put(
    company: Company, policy: LeaverPolicy
) -> None:
    """At no moment may the same face pass under both: it may under none, for the one push."""
    await company.begin_day(policy=policy, profiles=[PROFILES["modern"], PROFILES["xml"]])
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    before = [len(writes(company, place)) for place in (0, 1)]
    now, both = datetime.now(UTC), 0
    await company.renumber(ion, 2000)
    while await company.faults():
        both += any(
            terminal.may_pass("1000", now) and terminal.may_pass("2000", now)
            for terminal in company.terminals
        )
        await asyncio.sleep(0)
    await settled(company)
    assert both == 0
    for place in (0, 1):
        assert company.on(place) == {"2000": ("Popescu", "poza-1.jpg")}
        numbers = [str(call.employee_no) for call in writes(company, place)[before[place] :]]
        assert numbers == sorted(numbers), numbers  # all about 1000, then all about 2000
        assert set(numbers) == {"1000", "2000"}


@pytest.mark.parametrize("firmware", ["modern", "no_upsert_no_search", "old_deletes"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_two_employees_who_swap_numbers_pass_under_their_new_ones_with_their_own_faces(
    company: Company, policy: LeaverPolicy, firmware: str
) -> None:
    await company.begin_day(policy=policy, profiles=[PROFILES[firmware]])
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    ana = await company.hire("Ionescu")
    await settled(company)
    for _ in range(2):
        await company.swap_numbers(ion, ana)
        await settled(company)
    await company.swap_numbers(ion, ana)
    await settled(company)
    assert company.on() == {"1001": ("Popescu", "poza-1.jpg"), "1000": ("Ionescu", None)}


async def test_a_removed_photo_is_removed(company: Company) -> None:
    await company.begin_day()
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.set_photo(ion, "poza-2.jpg", bare=True)
    await settled(company)
    assert company.on() == {"1000": ("Popescu", "poza-2.jpg")}
    await company.set_photo(ion, None)
    await settled(company)
    assert company.on() == {"1000": ("Popescu", None)}


@pytest.mark.parametrize("firmware", ["modern", "no_upsert_no_search"])
async def test_a_row_that_is_given_to_another_employee_lets_only_that_one_pass(
    company: Company, firmware: str
) -> None:
    await company.begin_day(profiles=[PROFILES[firmware]])
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    ana = await company.hire("Ionescu", photo="poza-2.jpg")
    await settled(company)
    await company.move_biometrics(ion, ana)
    await settled(company)
    assert company.on() == {"1000": ("Ionescu", "poza-1.jpg")}
    await company.set_photo(ana, None)
    await settled(company)
    assert company.on() == {"1000": ("Ionescu", None)}


async def test_a_terminal_that_becomes_active_is_filled(company: Company) -> None:
    await company.begin_day(terminals=1)
    await company.hire("Popescu", photo="poza-1.jpg")
    left = await company.hire("Plecat", photo="poza-2.jpg")
    await settled(company)
    await company.set_status(left, "inactiv")
    await settled(company)
    await company.add_terminal(1)
    await settled(company)
    assert company.on(1) == {"1000": ("Popescu", "poza-1.jpg")}


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_terminal_back_from_eroare_gets_every_edit_that_it_missed(
    company: Company, policy: LeaverPolicy
) -> None:
    await company.begin_day(policy=policy)
    names = ("Pleacă", "Șters", "Renumerotat", "Redenumit")
    leaves, deleted, renumbered, renamed = [
        await company.hire(name, photo=f"poza-{place}.jpg") for place, name in enumerate(names)
    ]
    await settled(company)
    await company.change_terminal(1, status="eroare")
    await company.set_status(leaves, "inactiv")
    await company.delete(deleted)
    await company.renumber(renumbered, 2000)
    await company.rename(renamed, "Nou")
    await settled(company)
    assert len(company.on(1)) == 4
    await company.change_terminal(1, status="activ")
    await settled(company)
    assert company.on(0) == company.on(1)
    assert set(company.on(1)) == {"1003", "2000"}


async def test_a_terminal_emptied_at_its_own_menu_is_filled_when_it_becomes_active_again(
    company: Company,
) -> None:
    await company.begin_day()
    for n in range(4):
        await company.hire(f"Om{n}", photo=f"poza-{n}.jpg")
    await settled(company)
    for number in company.on(0):  # people whom others put there are not part of the story
        del company.terminals[0].persons[number]
    for status in ("inactiv", "activ"):
        await company.change_terminal(0, status=status)
    await settled(company)
    assert len(company.on(0)) == 4


async def test_a_terminal_that_is_not_active_is_left_alone(company: Company) -> None:
    await company.begin_day()
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    for status in ("inactiv", "eroare", "altceva"):
        await company.change_terminal(1, status=status)
        await settled(company)  # a visit that had begun is over
        calls = logins(company, 1)
        await company.rename(ion, f"Popescu-{status}")
        await settled(company)
        await asyncio.sleep(QUIET_S)
        assert logins(company, 1) == calls
        await company.change_terminal(1, status="activ")
        await settled(company)
        assert logins(company, 1) > calls


async def test_a_wrong_password_costs_one_failed_login_and_the_right_one_is_tried_at_once(
    company: Company,
) -> None:
    await company.begin_day()
    seen = company.terminals[1].sightings
    await settled(company)
    before = seen.failed_logins
    await company.change_terminal(1, password_encrypted="gresita")
    await company.hire("Popescu", photo="poza-1.jpg")
    await eventually(lambda: company.on(0) and seen.failed_logins > before)
    await company.hire("Ionescu")
    await asyncio.sleep(QUIET_S)
    assert seen.failed_logins == before + 1
    assert company.on(1) == {}
    await company.repair_all()
    await settled(company)
    assert seen.failed_logins == before + 1
    assert len(company.on(1)) == 2


async def test_a_changed_address_is_tried_at_once(company: Company) -> None:
    await company.begin_day(terminals=1)
    await company.change_terminal(0, ip_address="")  # nothing to talk to: it rests
    await company.hire("Popescu")
    await eventually(lambda: "terminal_blocked" in [entry["event"] for entry in company.logged])
    assert company.on() == {}
    await company.repair_all()
    await settled(company)
    assert company.on() == {"1000": ("Popescu", None)}


async def test_replaced_hardware_is_noticed_and_filled(company: Company) -> None:
    await company.begin_day()
    await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.replace_hardware(1)
    await eventually(lambda: company.on(1))
    await settled(company)
    assert company.on(1) == {"1000": ("Popescu", "poza-1.jpg")}


@pytest.mark.parametrize("policy", POLICIES)
async def test_leavers_whom_a_replacement_remembers_pass_no_longer(
    company: Company, policy: LeaverPolicy
) -> None:
    """One employee left while the terminal hung here, another before it did."""
    await company.begin_day(policy=policy, terminals=1)
    before = await company.hire("Dinainte", status="inactiv")
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.add_terminal(1)
    await settled(company)
    await company.set_status(ion, "inactiv")
    await settled(company)
    numbers = [str(await company.number_of(id_)) for id_ in (before, ion)]
    await company.replace_hardware(1, {n: company.old_person(n) for n in numbers})
    assert set(company.on(1)) == set(numbers)
    await settled(company)
    assert company.on(1) == {}


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_leaver_known_there_by_an_old_number_is_ended_under_the_new_one_too(
    company: Company, policy: LeaverPolicy
) -> None:
    """The ledger has 1000 of the old hardware; on the replacement the person is 2000."""
    await company.begin_day(policy=policy, terminals=1)
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.switch_off(0)
    await company.set_status(ion, "inactiv")
    await company.renumber(ion, 2000)
    await company.replace_hardware(0, {"2000": company.old_person("2000")})
    await company.switch_on(0)
    await settled(company)
    assert company.on() == {}


@pytest.mark.xfail(strict=True, reason="no receiver ever put that number on this hardware")
async def test_a_person_whom_a_replacement_remembers_and_hr_has_deleted_passes_no_longer(
    company: Company,
) -> None:
    """The memory is of hardware: on a second-hand terminal 1000 may be anybody, and is left alone.

    tests/whole/test_harms.py has the hardware that a receiver did put the number on.
    """
    await company.begin_day(policy="delete", terminals=1)
    ion = await company.hire("Popescu", photo="poza-1.jpg")
    await settled(company)
    await company.delete(ion)
    await settled(company)
    await company.replace_hardware(0, {"1000": company.old_person("1000")})
    await settled(company)
    assert company.on() == {}


@pytest.mark.parametrize("policy", POLICIES)
async def test_strangers_keep_their_cards_faces_and_windows(
    company: Company, policy: LeaverPolicy
) -> None:
    """`faults` compares them to the last field; here everything around them is moved about."""
    await company.begin_day(policy=policy)
    people = [await company.hire(f"Om{n}", photo=f"poza-{n}.jpg") for n in range(4)]
    await settled(company)
    await company.set_status(people[0], "inactiv")
    await company.swap_numbers(people[1], people[2])
    await company.delete(people[3])
    await company.change_terminal(1, status="inactiv")
    await company.change_terminal(1, status="activ")
    await company.replace_hardware(0)
    await settled(company)
    run = await company.services[0].runs.start_all("continue")
    await eventually(lambda: run.ended_at is not None)
    await settled(company)
    assert len(company.on(0)) == len(company.on(1)) == 2


async def test_two_receivers_share_a_busy_day(company: Company) -> None:
    await company.begin_day(terminals=3, receivers=2, profiles=[PROFILES["busy"]])
    people = [await company.hire(f"Om{n}", photo=f"poza-{n}.jpg") for n in range(6)]
    await company.swap_numbers(people[0], people[1])
    await company.set_status(people[2], "concediu")
    await settled(company)
    assert len(company.on(0)) == len(company.on(1)) == len(company.on(2)) == 5
