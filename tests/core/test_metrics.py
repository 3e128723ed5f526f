"""The figures of /metrics: their names, what an answer counts as, and what a scrape costs."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import pytest

from receiver.core import errors
from receiver.core.errors import LoginRefused, SupabaseUnreachable, TerminalError
from receiver.core.metrics import KEPT_S, Metrics, Scrapes
from receiver.core.models import Standing
from receiver.sandbox.database.postgres import Database
from receiver.terminals.answers import parse
from tests.support.metrics import ROOT, SECTION, TABLE, named
from tests.support.projects import Project

EVERY_ERROR = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, TerminalError)
]
RESTS = ("supabase", "receiver")


def test_every_alert_is_about_a_metric_of_its_row() -> None:
    for names, _, _, alert in TABLE:
        asked = set(re.findall(r"\b(?:hikvision|process|python)_\w+", alert))
        known = {n + suffix for n in named(names) for suffix in ("", "_bucket", "_count")}
        assert asked <= known
        assert asked or alert.strip() == "none"


def test_the_readme_has_every_word_for_what_went_wrong_and_they_are_few() -> None:
    words = {cls.kind for cls in EVERY_ERROR} | {*RESTS}
    told = SECTION.split("The words for what went wrong:")[1]
    assert words == set(named(told)) - {"dispozitive_pontaj"}
    assert all(re.fullmatch("[a-z_]{1,20}", word) for word in words)
    assert len(words) <= len(EVERY_ERROR) + len(RESTS)
    source = (ROOT / "receiver" / "sync" / "worker.py").read_text(encoding="utf-8")
    assert set(re.findall(r'kind="(\w+)"', source)) == {*RESTS}


def test_only_a_refused_login_has_the_kind_of_a_refused_login() -> None:
    assert [cls.__name__ for cls in EVERY_ERROR if cls.kind == LoginRefused.kind] == [
        "LoginRefused"
    ]


@pytest.mark.parametrize(
    ("http_status", "body", "kind"),
    [
        (200, b'{"statusCode": 1, "statusString": "OK"}', "ok"),
        (200, b'{"UserInfoSearch": {"numOfMatches": 0}}', "ok"),
        (200, b"<DeviceInfo><serialNumber>1</serialNumber></DeviceInfo>", "ok"),
        (400, b'{"statusCode": 6, "subStatusCode": "employeeNoAlreadyExist"}', "ok"),
        (400, b'{"statusCode": 6, "subStatusCode": "employeeNoNotExist"}', "ok"),
        (200, b'{"statusCode": 6, "subStatusCode": "deviceUserFull"}', "full"),
        (400, b'{"statusCode": 6, "subStatusCode": "picFormatError"}', "data"),
        (503, b'{"statusCode": 2, "subStatusCode": "deviceBusy"}', "busy"),
        (200, b"<html>a router's page", "unexplained"),
        (404, b"", "unsupported"),
        (400, b'{"statusCode": 6, "subStatusCode": "Popescu"}', "unexplained"),
    ],
)
def test_an_answer_is_counted_as_what_it_means(http_status: int, body: bytes, kind: str) -> None:
    assert parse(http_status, body).kind == kind


# The ledger's part


def standing(terminal_id: UUID, *, rests_for: str | None = None) -> Standing:
    return Standing(
        terminal_id=terminal_id,
        pairs={"in_step": 1, "wanted": 0, "failed": 0},
        oldest_wanted_s=0.0,
        confirmed_s=3.0,
        rests_for=rests_for,
    )


async def test_any_number_of_scrapes_asks_the_ledger_once_in_five_seconds() -> None:
    asked = 0
    now = 0.0

    async def ask() -> Sequence[Standing]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return [standing(uuid4())]

    scrapes = Scrapes(Metrics(), ask, clock=lambda: now)
    texts = await asyncio.gather(*(scrapes.text() for _ in range(200)))
    now = KEPT_S - 0.01
    assert {*texts, await scrapes.text()} == {texts[0]}
    assert asked == 1
    now = KEPT_S
    assert await scrapes.text() != texts[0]
    assert asked == 2


async def test_a_ledger_that_cannot_be_asked_is_not_asked_more_often() -> None:
    asked = 0

    async def ask() -> Sequence[Standing]:
        nonlocal asked
        asked += 1
        raise SupabaseUnreachable

    scrapes = Scrapes(Metrics(), ask, clock=lambda: 0.0)
    texts = {await scrapes.text() for _ in range(20)}
    assert asked == 1
    assert b"hikvision_ledger_up 0.0" in texts.pop()


async def test_a_silent_ledger_is_given_up_before_prometheus_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ask() -> Sequence[Standing]:
        await asyncio.sleep(3600)
        return []

    monkeypatch.setattr("receiver.core.metrics.MAX_ASK_S", 0.05)
    async with asyncio.timeout(5):
        assert b"hikvision_ledger_up 0.0" in await Scrapes(Metrics(), ask).text()


async def test_terminals_and_reasons_that_are_gone_leave_nothing_behind() -> None:
    now = 0.0
    standings: list[Standing] = []
    metrics = Metrics()

    async def ask() -> Sequence[Standing]:
        return standings

    scrapes = Scrapes(metrics, ask, clock=lambda: now)
    sizes = set()
    for round_ in range(50):
        now += KEPT_S
        why = ("busy", "timeout", "login")[round_ % 3]
        standings = [standing(uuid4(), rests_for=why) for _ in range(3)]
        sizes.add(sum("device_id=" in line for line in (await scrapes.text()).decode().split("\n")))
    assert sizes == {3 * 6}


def test_two_receivers_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.answered(202)
    found = [
        m.registry.get_sample_value("hikvision_webhooks_total", {"status": "202"})
        for m in (one, other)
    ]
    assert found == [1, 0]


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    with Project(each_migrated_database) as project:
        yield project


def test_an_edit_that_nobody_has_claimed_has_waited_too(project: Project) -> None:
    first, second = (
        project.run(
            "insert into dispozitive_pontaj (ip_address) values (%s) returning id::text", address
        )[0]["id"]
        for address in ("10.0.0.1", "10.0.0.2")
    )

    def ages() -> dict[str, float]:
        rows = project.run("select * from hikvision_sync_status()")
        return {str(row["terminal_id"]): row["oldest_wanted_s"] for row in rows}

    project.run("delete from hikvision_sync.edits")
    assert ages() == {first: 0, second: 0}
    project.run(
        "insert into hikvision_sync.edits (terminal_id, edited_at)"
        " values (%s, now() - interval '50 s')",
        first,
    )
    assert ages() == {first: pytest.approx(50, abs=5), second: 0}
    project.run(
        "insert into hikvision_sync.edits (employee_id, edited_at)"
        " values (gen_random_uuid(), now() - interval '20 s')"
    )
    assert ages() == {first: pytest.approx(50, abs=5), second: pytest.approx(20, abs=5)}


def test_a_resting_terminal_has_a_reason_until_it_works_again(project: Project) -> None:
    [terminal] = project.run(
        "insert into dispozitive_pontaj (ip_address) values ('10.0.0.1') returning id::text"
    )
    project.run("update hikvision_sync.terminals set changed_at = null")

    def visited(rest_s: float | None, *more: object) -> str | None:
        [lease] = project.run("select * from hikvision_sync_lease('a', %s, 60)", terminal["id"])
        project.run(
            f"select hikvision_sync_release(%s, %s, 0, 0, %s, %s, false{', %s' * len(more)})",
            terminal["id"],
            lease["fence"],
            rest_s,
            "why" if rest_s is not None else None,
            *more,
        )
        [row] = project.run("select rest_kind from hikvision_sync_status()")
        kind: str | None = row["rest_kind"]
        return kind

    assert visited(None, None) is None
    assert visited(0.0, "timeout") == "timeout"  # over, but it has not been seen to work since
    assert visited(600.0) == "other"  # by a receiver of an earlier version
    project.run("update dispozitive_pontaj set ip_address = '10.0.0.2'")
    assert project.run("select rest_kind from hikvision_sync_status()") == [{"rest_kind": None}]
    assert visited(None, None) is None
