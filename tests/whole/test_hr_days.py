"""Random HR days against real Postgres and simulated terminals: at the end of each, every active
terminal holds exactly what the tables say, and strangers are as they were.

A day is a list of steps, each a verb and its target, so that a day that fails shrinks to the
few that matter. HR_DAYS sets the number of days, HR_DAY_WITHIN_S how long one may take to
converge; with HR_DAY_SHRINK=no the first day that fails is printed as it is.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from receiver.core.errors import RunRefused
from receiver.core.models import LeaverPolicy
from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.terminal.profiles import PROFILES
from tests.support.hr_days import PHOTOS, SITES, Company, open_company

DAYS: Final = int(os.environ.get("HR_DAYS", "200"))
STEPS: Final = 30
WITHIN_S: Final = float(os.environ.get("HR_DAY_WITHIN_S", "30"))
PHASES: Final = (
    (Phase.generate,) if os.environ.get("HR_DAY_SHRINK") == "no" else (Phase.generate, Phase.shrink)
)
VERIFY_S: Final = 0.6
"""How often each terminal is asked for everybody."""
STAFF: Final = 4
"""Hired before the day."""
MAX_WRONG_PASSWORDS: Final = 4
"""In a day: the fifth failed login locks an account, and only time unlocks it."""
FIRMWARES: Final = (
    *("modern", "xml", "upload_only", "no_upsert_no_search", "old_deletes", "busy", "url_only"),
    *("names_32", "no_capabilities"),
)
SURNAMES: Final = ("Popescu", "Ștefănescu", "Țîrlea-Brânză", "Văcărescu", "Mureșan", "Dinu")
POLICIES: Final[tuple[LeaverPolicy, ...]] = ("expire", "delete")
STATUSES: Final = ("activ", "suspendat", "concediu", "inactiv")


@dataclass(frozen=True)
class Step:
    """`do` a verb of `Day` to the employee or site `who`; what `other` means is the verb's."""

    do: str
    who: int
    other: int
    breath: int = 0
    """Hundredths of a second that the receivers have before the next step."""
    joined: bool = False
    """Committed together with the next step, where both are HR's."""


class Day:
    """The verbs of a day; those about people that are not there do nothing."""

    def __init__(self, company: Company) -> None:
        self.company = company

    def _who(self, place: int) -> str | None:
        people = self.company.people
        return people[place % len(people)] if people else None

    async def rest(self, step: Step) -> None:
        await asyncio.sleep(0.02 * step.other)

    # -- HR --

    async def hire(self, step: Step) -> None:
        await self.company.hire(
            SURNAMES[step.who % len(SURNAMES)],
            photo=PHOTOS[step.other] if step.who % 3 else None,
            numbered=step.other != 0,
        )

    async def rename(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.rename(id_, SURNAMES[step.other % len(SURNAMES)])

    async def leave_or_return(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.set_status(id_, STATUSES[step.other % len(STATUSES)])

    async def delete(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.delete(id_)

    async def delete_biometrics(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.delete_biometrics(id_)

    async def give_biometrics(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.give_biometrics(id_, photo=PHOTOS[step.other])

    async def renumber(self, step: Step) -> None:
        """To none, or to a number that nobody has now and perhaps somebody had."""
        if id_ := self._who(step.who):
            rows = await self.company.run("select employee_no from angajati_biometrie")
            taken = {row["employee_no"] for row in rows}
            [row] = await self.company.run("select last_value from angajati_employee_no_seq")
            free = [n for n in range(1000, row["last_value"]) if n not in taken]
            free += [n for n in range(2000, 2020) if n not in taken]
            await self.company.renumber(id_, free[step.other - 1] if step.other else None)

    async def swap_numbers(self, step: Step) -> None:
        one, other = self._who(step.who), self._who(step.other)
        if one and other and one != other:
            await self.company.swap_numbers(one, other)

    async def move_biometrics(self, step: Step) -> None:
        one, other = self._who(step.who), self._who(step.other)
        if one and other and one != other:
            await self.company.move_biometrics(one, other)

    async def set_photo(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.set_photo(id_, PHOTOS[step.other], bare=step.other % 4 == 0)

    async def remove_photo(self, step: Step) -> None:
        if id_ := self._who(step.who):
            await self.company.set_photo(id_, None)

    # -- the terminals --

    async def add_terminal(self, _: Step) -> None:
        place = len(self.company.rows)
        if place < SITES:
            await self.company.add_terminal(place)

    async def terminal_status(self, step: Step) -> None:
        await self._change(step, status=("activ", "inactiv", "activ", "eroare")[step.other % 4])

    async def switch_off(self, step: Step) -> None:
        await self.company.switch_off(step.who % SITES)

    async def switch_on(self, step: Step) -> None:
        await self.company.switch_on(step.who % SITES)

    async def replace_hardware(self, step: Step) -> None:
        await self.company.replace_hardware(step.who % SITES)

    async def replace_by_a_used_one(self, step: Step) -> None:
        """Use hardware that knows people who are in the tables now, both active and not."""
        numbers = await self.company.run(
            "select employee_no from angajati_biometrie where employee_no is not null order by 1"
        )
        used = [str(row["employee_no"]) for row in numbers][:: 1 + step.other % 3]
        await self.company.replace_hardware(
            step.who % SITES, {n: self.company.old_person(n) for n in used}
        )

    async def wrong_password(self, step: Step) -> None:
        await self._change(step, password_encrypted=f"gresita-{step.other}")

    async def wrong_address(self, step: Step) -> None:
        await self._change(step, ip_address="" if step.other % 2 else "127.0.0.2")

    async def repair_terminals(self, _: Step) -> None:
        await self.company.repair_all()

    async def _change(self, step: Step, **columns: object) -> None:
        place = step.who % max(1, len(self.company.rows))
        if place in self.company.rows and self.company.wrong_passwords < MAX_WRONG_PASSWORDS:
            await self.company.change_terminal(place, **columns)

    # -- what no edit tells --

    def _place(self, step: Step) -> int | None:
        """Return the place of a harm, if it can be noticed there."""
        places = [place for place in sorted(self.company.rows) if self.company.can_be_asked(place)]
        return places[step.who % len(places)] if places else None

    async def enter_anew(self, step: Step) -> None:
        if (place := self._place(step)) is not None:
            await self.company.enter_anew(place)

    async def reset(self, step: Step) -> None:
        if (place := self._place(step)) is not None:
            self.company.reset(place)

    async def back_up(self, step: Step) -> None:
        if (place := self._place(step)) is not None:
            self.company.back_up(place)

    async def give_back(self, step: Step) -> None:
        if (place := self._place(step)) is not None:
            self.company.give_back(place)

    async def change_at(self, step: Step) -> None:
        if (place := self._place(step)) is not None:
            self.company.change_at(place, step.who, step.other)

    async def unseen(self, step: Step) -> None:
        """An edit while no trigger is on, where every terminal can be asked."""
        if not all(self.company.can_be_asked(place) for place in range(SITES)):
            return
        async with self.company.unseen():
            edits = (self.rename, self.leave_or_return, self.set_photo, self.delete, self.renumber)
            await edits[step.other % len(edits)](step)

    # -- the receivers and their buttons --

    async def restart_a_receiver(self, _: Step) -> None:
        count = len(self.company.services)
        await self.company.stop_receivers()
        for _receiver in range(count):
            await self.company.start_receiver()

    async def press_a_button(self, step: Step) -> None:
        runs = self.company.services[0].runs
        with suppress(RunRefused):
            if step.other % 3 == 0:
                await runs.start_all("continue")
            elif id_ := self._who(step.who):
                await runs.start_one(UUID(id_), "continue", photo_only=step.other % 3 == 1)


OF_PEOPLE: Final = (
    *("hire", "hire", "hire", "rename", "leave_or_return", "leave_or_return", "leave_or_return"),
    *("delete", "delete_biometrics", "give_biometrics", "give_biometrics", "renumber", "renumber"),
    *("swap_numbers", "swap_numbers", "move_biometrics", "set_photo", "set_photo", "remove_photo"),
)
OF_TERMINALS: Final = (
    *("add_terminal", "terminal_status", "terminal_status", "switch_off", "switch_on"),
    *("replace_hardware", "replace_by_a_used_one", "wrong_password", "wrong_address"),
    *("repair_terminals", "restart_a_receiver", "press_a_button"),
)
HARMS: Final = ("enter_anew", "reset", "back_up", "give_back", "change_at", "change_at", "unseen")

steps = st.builds(
    Step,
    do=st.sampled_from(("rest", *OF_PEOPLE, *OF_TERMINALS, *HARMS)),
    who=st.integers(0, 7),
    other=st.integers(0, 7),
    breath=st.sampled_from((0, 0, 0, 2, 5, 10)),
    joined=st.sampled_from((False, False, False, True)),
)


@dataclass(frozen=True)
class Conditions:
    """The conditions under which a day begins."""

    policy: LeaverPolicy
    firmwares: list[str]
    receivers: int


conditions = st.builds(
    Conditions,
    policy=st.sampled_from(POLICIES),
    firmwares=st.lists(st.sampled_from(FIRMWARES), min_size=SITES, max_size=SITES),
    receivers=st.integers(1, 2),
)


async def play(company: Company, day: list[Step], under: Conditions) -> None:
    """Play a day, repair everything, and ask whether all is as it should be."""
    company.verify_every(VERIFY_S)
    await company.begin_day(
        policy=under.policy,
        profiles=[PROFILES[name] for name in under.firmwares],
        receivers=under.receivers,
    )
    verbs, figures = Day(company), company.figures.counts
    for who in range(STAFF):
        await verbs.hire(Step(do="hire", who=who, other=who + 1))
    async with AsyncExitStack() as stack:
        transaction = await stack.enter_async_context(AsyncExitStack())
        joined = False
        for step in day:
            if joined and step.do not in OF_PEOPLE:
                await transaction.aclose()
                joined = False
            if step.joined and step.do in OF_PEOPLE and not joined:
                await transaction.enter_async_context(company.one_transaction())
                joined = True
            await getattr(verbs, step.do)(step)
            if joined and not step.joined:
                await transaction.aclose()
                joined = False
            figures["steps"] += 1
            if step.breath:
                await asyncio.sleep(step.breath / 100)
    await company.repair_all()
    converged = await company.converged(within_s=WITHIN_S)
    report = "" if converged else await company.report()
    await company.end_day()
    figures["days"] += 1
    assert converged, report
    broken = company.broken_promises()
    assert not broken, "\n".join(broken)
    assert await company.faults() == []


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all days: terminals and Supabase's stand-in live in it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def company(
    runner: asyncio.Runner, embedded_postgres: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[Company]:
    opened = open_company(embedded_postgres)
    company = runner.run(opened.__aenter__())
    yield company
    runner.run(opened.__aexit__(None, None, None))
    request.config.get_terminal_writer().line(f"\nHR days: {company.figures}")


@pytest.mark.timeout(1200 + 6 * DAYS)
@settings(
    max_examples=DAYS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    phases=PHASES,
)
@given(st.lists(steps, min_size=STEPS, max_size=STEPS), conditions)
def test_after_any_day_every_terminal_holds_what_hr_says(
    runner: asyncio.Runner, company: Company, day: list[Step], under: Conditions
) -> None:
    runner.run(play(company, day, under))
