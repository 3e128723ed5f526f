"""/metrics over real HTTP: each figure moves for its reason, and says nothing of anybody."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.core import errors
from receiver.core.errors import LoginRefused, SupabaseUnreachable, TerminalError
from receiver.core.metrics import KEPT_S, Metrics, Scrapes
from receiver.core.models import Standing
from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import PASSWORD, World, open_world
from receiver.terminals.answers import parse
from tests.support.projects import Project

ROOT = Path(__file__).parents[2]
README = (ROOT / "receiver" / "web" / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## Metrics")[1].split("\n## ")[0]
TABLE = [line.split("|")[1:5] for line in SECTION.splitlines() if line.startswith("| `")]
WITHIN_S = 40.0
EVERY_ERROR = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, TerminalError)
]
RESTS = ("supabase", "receiver")
CALLS = "hikvision_device_call_duration_seconds"
OLDEST = "hikvision_oldest_wanted_age_seconds"

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures(text: str) -> Figures:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Figures, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


async def scraped(world: World) -> httpx.Response:
    async with httpx.AsyncClient(
        base_url=world.receiver.url, trust_env=False, timeout=10
    ) as client:
        return await client.get("/metrics")


async def scrape_where(world: World, true: Callable[[Figures], object]) -> Figures:
    """Scrape until it is so; a text is kept for five seconds."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = figures((await scraped(world)).text)
            said = true(found)
            if await said if isinstance(said, Awaitable) else said:
                return found
            await asyncio.sleep(0.3)


@asynccontextmanager
async def world_of(postgres: PostgresServer, *profiles: Profile) -> AsyncIterator[World]:
    async with open_world(
        {f"Poarta {place}": profile for place, profile in enumerate(profiles)},
        pause_s=0.05,
        poll_s=1.0,
        lanes=len(profiles),
        postgres=postgres,
        settings={"DEVICE_TIMEOUT_SECONDS": "2"},
    ) as world:
        await world.receiver.start()
        yield world


def resting(found: Figures, device_id: str) -> set[str]:
    return {
        dict(labels)["why"]
        for (name, labels), value in found.items()
        if name == "hikvision_terminal_resting"
        and dict(labels)["device_id"] == device_id
        and value == 1
    }


async def test_every_figure_moves_for_its_reason_and_names_nobody(
    embedded_postgres: PostgresServer,
) -> None:
    profiles = (Profile(), Profile(max_persons=1), Profile(delay_s=0.4))
    async with world_of(embedded_postgres, *profiles) as world, Hr(world.supabase) as hr:
        await work_is_counted(world, hr)
        await trouble_is_named_and_forgotten(world, hr)
        await a_lost_lease_is_counted(world, hr)
        text = await a_terminal_that_is_not_active_is_left_out(world)
        assert_as_documented(text)
        for secret in (
            *("Popescu", "Ștefan", "Rusu", "ion.jpg", "Poarta", "http:", "127.0.0.1", "admin"),
            *(PASSWORD, world.environment["SUPABASE_SERVICE_ROLE_KEY"]),
            world.environment["WEBHOOK_SECRET"],
        ):
            assert secret not in text
        await without_supabase_the_process_speaks_for_itself(world)


async def work_is_counted(world: World, hr: Hr) -> None:
    await hr.hire("Popescu", "Ion", photo="ion.jpg")
    found = await scrape_where(
        world,
        lambda now: all(
            of(now, "hikvision_pairs", device_id=site.id, state="in_step") == 1
            for site in world.sites
        ),
    )
    assert of(found, "hikvision_ledger_up") == 1
    for site in world.sites:
        assert of(found, OLDEST, device_id=site.id) == 0
        assert resting(found, site.id) == set()
    assert (of(found, "hikvision_webhooks_total", status="202") or 0) >= 1
    assert of(found, "hikvision_webhooks_total", status="401") == 0
    calls = of(found, f"{CALLS}_count", outcome="ok") or 0
    assert calls >= 6
    # The third terminal takes 0.4 s for each
    assert 0 < (of(found, f"{CALLS}_bucket", outcome="ok", le="0.25") or 0) < calls


async def trouble_is_named_and_forgotten(world: World, hr: Hr) -> None:
    login, full, off = (site.id for site in world.sites)
    await world.execute(
        "update dispozitive_pontaj set password_encrypted = 'x' where id = %s", login
    )
    await world.sites[2].terminal.switch_off()
    await hr.hire("Ștefan", "Ana", photo="ana.jpg")
    async with httpx.AsyncClient(trust_env=False) as anybody:
        await anybody.post(f"{world.receiver.url}/webhooks/supabase", content=b"{}")
    found = await scrape_where(
        world,
        lambda now: (
            [resting(now, id_) for id_ in (login, full, off)]
            == [{"login"}, {"full"}, {"unreachable"}]
            and of(now, "hikvision_webhooks_total", status="401") == 1
        ),
    )
    assert of(found, f"{CALLS}_count", outcome="login") == 1
    for outcome in ("unreachable", "full"):
        assert (of(found, f"{CALLS}_count", outcome=outcome) or 0) >= 1
    assert of(found, "hikvision_pairs", device_id=full, state="failed") == 1
    assert 0 < (of(found, OLDEST, device_id=off) or 0) < WITHIN_S

    world.sites[1].terminal.upgrade(Profile())
    await world.sites[2].terminal.switch_on()
    await world.execute("update dispozitive_pontaj set password_encrypted = %s", PASSWORD)

    async def works_again(now: Figures) -> bool:
        # Each time: the visit under way may have found the old fault, and be about to record it
        await world.execute("update hikvision_sync.terminals set rests_until = null")
        await world.execute(
            "update hikvision_sync.pairs set next_attempt_at = now() where wanted > done"
        )
        return not any(
            resting(now, site.id) or of(now, OLDEST, device_id=site.id) for site in world.sites
        )

    await scrape_where(world, works_again)


async def a_lost_lease_is_counted(world: World, hr: Hr) -> None:
    site = world.sites[0]
    await site.terminal.hang()
    await hr.hire("Rusu", "Dan")
    taken: Sequence[object] = ()
    async with asyncio.timeout(WITHIN_S):
        while not taken:
            taken = await world.execute(
                "update hikvision_sync.terminals set fence = fence + 1, leased_by = null"
                " where terminal_id = %s and leased_by is not null returning 1",
                site.id,
            )
            await asyncio.sleep(0.02)
    await scrape_where(world, lambda now: of(now, "hikvision_lease_losses_total") == 1)
    await site.terminal.unhang()


async def a_terminal_that_is_not_active_is_left_out(world: World) -> str:
    gone = world.sites[0].id
    await world.execute("update dispozitive_pontaj set status = 'inactiv' where id = %s", gone)
    await scrape_where(
        world, lambda now: not any(dict(labels).get("device_id") == gone for _, labels in now)
    )
    answer = await scraped(world)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


async def without_supabase_the_process_speaks_for_itself(world: World) -> None:
    await world.supabase.switch_off()
    found = await scrape_where(world, lambda now: of(now, "hikvision_ledger_up") == 0)
    assert not any("device_id" in dict(labels) for _, labels in found)
    assert (of(found, "hikvision_webhooks_total", status="202") or 0) >= 1
    assert (of(found, "process_resident_memory_bytes") or 0) > 1e6
    await world.supabase.switch_on()
    await scrape_where(world, lambda now: of(now, "hikvision_ledger_up") == 1)


def assert_as_documented(text: str) -> None:
    """The README's table has every metric with its labels, and no other."""
    documented = {
        metric: set(named(labels)) for names, labels, _, _ in TABLE for metric in named(names)
    }
    there: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels}
        there[name] = labels - {"le"}
    # The one that nobody has now
    there.setdefault("hikvision_terminal_resting", {"device_id", "why"})
    there["hikvision_terminal_resting"] |= {"device_id", "why"}
    assert there == documented


def test_every_alert_is_about_a_metric_of_its_row() -> None:
    for names, _, _, alert in TABLE:
        asked = set(re.findall(r"\b(?:hikvision|process|python)_\w+", alert))
        known = {n + suffix for n in named(names) for suffix in ("", "_bucket", "_count")}
        assert asked <= known
        assert asked or alert.strip() == "none"


def test_every_word_for_what_went_wrong_is_in_the_readme_and_they_are_few() -> None:
    words = {cls.kind for cls in EVERY_ERROR} | {*RESTS}
    told = SECTION.split("The words for what went wrong:")[1]
    assert words == set(named(told)) - {"dispozitive_pontaj"}
    assert all(re.fullmatch("[a-z_]{1,20}", word) for word in words)
    assert len(words) <= len(EVERY_ERROR) + len(RESTS)
    source = (ROOT / "receiver" / "sync" / "worker.py").read_text(encoding="utf-8")
    assert set(re.findall(r'kind="(\w+)"', source)) == {*RESTS}


def test_only_what_refused_the_login_is_not_tried_sooner() -> None:
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
        rests_for=rests_for,
    )


async def test_any_number_of_scrapes_costs_one_look_in_five_seconds() -> None:
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


async def test_a_ledger_that_is_silent_is_given_up_before_prometheus_gives_up(
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
    assert sizes == {3 * 5}


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


def test_a_terminal_that_rests_says_for_what_until_it_works_again(project: Project) -> None:
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
    assert visited(0.0, "timeout") == "timeout"  # over, but nobody has seen it work since
    assert visited(600.0) == "other"  # by a receiver of an earlier version
    project.run("update dispozitive_pontaj set ip_address = '10.0.0.2'")
    assert project.run("select rest_kind from hikvision_sync_status()") == [{"rest_kind": None}]
    assert visited(None, None) is None
