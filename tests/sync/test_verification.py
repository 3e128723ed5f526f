"""Pages of a verification, and lists that move between them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from receiver.core.errors import (
    AnswerUnexplained,
    DataRefused,
    LoginRefused,
    NotSupported,
    TerminalBusy,
    TerminalError,
    TerminalTimeout,
    TerminalUnreachable,
)
from receiver.core.models import Employee, Found, Held, Owner, Progress
from receiver.sync.verification import Verifications
from receiver.terminals.user_info import SearchResult


class Terminal:
    """Lists the newest first, two a page."""

    def __init__(self) -> None:
        self.numbers = ["4", "3", "2", "1"]

    async def page(self, _: Any, *, search_id: str, position: int) -> SearchResult:
        assert search_id
        page = self.numbers[position : position + 2]
        persons = tuple(Found(employee_no=n, name=n, access="open", faces=0) for n in page)
        more = position + len(page) < len(self.numbers)
        return SearchResult(persons=persons, more=more, total=len(self.numbers))


class Visit:
    """A visit that notes how a verification goes on."""

    terminal_id = UUID(int=7)

    def __init__(self, terminal: Terminal) -> None:
        self.failures = 0
        self.client = cast("Any", type("Client", (), {"persons": terminal})())
        self.progress = Progress()
        self.ended = False
        self.seen: list[str] = []

    async def owners(self, numbers: Sequence[str]) -> tuple[Owner, ...]:
        self.seen += numbers
        return self.ours

    ours: tuple[Owner, ...] = ()

    async def verified(self, _: Any, progress: Any, *, asked_at: float, ended: bool) -> None:
        assert asked_at
        self.progress, self.ended = progress or self.progress, ended
        self.asked_in_vain = progress is None


class Nobody:
    async def employees(self, _: Any) -> dict[UUID, Employee]:
        return {}


@pytest.mark.parametrize(
    ("numbers", "unsure"),
    [
        (["4", "3", "2", "1"], False),
        (["6", "5", "4", "3", "2", "1"], True),  # a page of newcomers: it shows the same again
        (["5", "4", "3", "2", "1"], True),
        (["3", "2", "1"], True),  # it passes over 2
        (["4"], True),
        ([], True),
    ],
)
async def test_a_verification_says_where_it_may_have_passed_over_somebody(
    numbers: list[str], *, unsure: bool
) -> None:
    terminal = Terminal()
    visit = Visit(terminal)
    verifications = Verifications("expire", cast("Any", Nobody()))
    await verifications.go_on(cast("Any", visit), visit.progress)
    terminal.numbers = numbers
    while not visit.ended:
        await verifications.go_on(cast("Any", visit), visit.progress)
    assert visit.progress.unsure == unsure
    if not unsure:
        assert visit.seen == numbers


async def test_a_terminal_that_shows_its_first_page_again_and_again_is_not_believed() -> None:
    class Stubborn(Terminal):
        async def page(self, _: Any, *, search_id: str, position: int) -> SearchResult:
            page = await super().page(_, search_id=search_id, position=0)
            assert position < 10
            return page

    visit = Visit(Stubborn())
    verifications = Verifications("expire", cast("Any", Nobody()))
    while not visit.ended:
        await verifications.go_on(cast("Any", visit), visit.progress)
    assert visit.progress.unsure


class Refusing(Terminal):
    """A terminal that refuses the page at a position, and how."""

    def __init__(self, error: TerminalError, at: int) -> None:
        super().__init__()
        self.error, self.at = error, at

    async def page(self, _: Any, *, search_id: str, position: int) -> SearchResult:
        if position == self.at:
            raise self.error
        return await super().page(_, search_id=search_id, position=position)


@pytest.mark.parametrize(
    ("error", "at", "failures", "left"),
    [
        (NotSupported("No."), 0, 0, True),
        (NotSupported("No."), 2, 0, True),
        (AnswerUnexplained("Odd."), 0, 0, False),  # once is not enough
        (AnswerUnexplained("Odd."), 0, 1, True),
        (DataRefused("Odd."), 0, 1, True),
        (AnswerUnexplained("Odd."), 2, 9, False),  # it did list people a moment ago
        (TerminalBusy("Busy."), 0, 9, False),
        (TerminalTimeout("Late."), 0, 9, False),
        (TerminalUnreachable("Off."), 0, 9, False),
        (LoginRefused("Wrong."), 0, 9, False),
    ],
)
async def test_a_terminal_that_refuses_to_list_everybody_is_left_and_one_in_trouble_asked_again(
    error: TerminalError, at: int, failures: int, *, left: bool
) -> None:
    visit = Visit(Refusing(error, at))
    visit.progress = Progress(position=at)
    visit.failures = failures
    verifications = Verifications("expire", cast("Any", Nobody()))
    if not left:
        with pytest.raises(TerminalError) as raised:
            await verifications.go_on(cast("Any", visit), visit.progress)
        assert raised.value is error
        assert not visit.ended
        return
    await verifications.go_on(cast("Any", visit), visit.progress)
    assert (visit.ended, visit.asked_in_vain, visit.failures) == (True, True, 0)


async def test_a_terminal_that_says_of_nobody_whether_they_may_pass_cannot_be_asked() -> None:
    class Silent(Terminal):
        async def page(self, _: Any, *, search_id: str, position: int) -> SearchResult:
            page = await super().page(_, search_id=search_id, position=position)
            return replace(page, persons=tuple(replace(p, access=None) for p in page.persons))

    class Somebody:
        async def employees(self, ids: Sequence[UUID]) -> dict[UUID, Employee]:
            return {id_: Employee.of_nobody(id_) for id_ in ids}

    visit = Visit(Silent())
    visit.ours = (
        Owner(
            number="4",
            employee_id=UUID(int=4),
            version=1,
            wanted=False,
            status="success",
            held=Held(employee_no="4"),
        ),
    )
    verifications = Verifications("expire", cast("Any", Somebody()))
    await verifications.go_on(cast("Any", visit), visit.progress)
    assert (visit.ended, visit.asked_in_vain) == (True, True)


class OneWithoutWindow(Terminal):
    """The last page has one person alone, of whom it says no window: an administrator's."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = ["3", "2", "1"]

    async def page(self, _: Any, *, search_id: str, position: int) -> SearchResult:
        page = await super().page(_, search_id=search_id, position=position)
        persons = tuple(
            replace(one, access=None) if one.employee_no == "1" else one for one in page.persons
        )
        return replace(page, persons=persons)


async def test_one_person_without_a_window_alone_on_a_page_does_not_end_a_verification() -> None:
    visit = Visit(OneWithoutWindow())
    verifications = Verifications("expire", cast("Any", Nobody()))
    while not visit.ended:
        await verifications.go_on(cast("Any", visit), visit.progress)
    assert not visit.asked_in_vain  # else nobody learns who is missing there, night after night


class Wiped(Terminal):
    """A wiped terminal: an administrator made at its screen is all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = ["1"]

    async def page(self, _: Any, *, search_id: str, position: int) -> SearchResult:
        assert (search_id, position) != ("", 1)
        persons = (Found(employee_no="1", name="admin", access=None, faces=0),)
        return SearchResult(persons=persons, more=False, total=1)


async def test_a_wiped_terminal_with_one_person_without_a_window_is_verified() -> None:
    visit = Visit(Wiped())
    verifications = Verifications("expire", cast("Any", Nobody()))
    await verifications.go_on(cast("Any", visit), Progress())
    assert not visit.asked_in_vain
