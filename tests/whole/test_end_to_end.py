"""From HR's save to the terminals, with every part real: the receiver is a process of its own.

Waits are bounded but assert nothing about speed: `agreed` means that every terminal holds exactly
what HR's tables say.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.terminal.simulated import Face, Person, Profile, SimulatedTerminal
from receiver.sandbox.world import PASSWORD, World, open_world
from tests.support.waiting import ON_TIME_S, eventually, gives_nothing

MODERN = Profile(name="modern")
XML = Profile(name="xml", answers="xml", has_fd_setup=False)
SLOW = Profile(name="slow", delay_s=0.4, face_delay_s=0.8)
NEVER_S = "3600"


class OpenWorld(Protocol):
    """Opens a world that ends with the test."""

    def __call__(self, *profiles: Profile, **options: Any) -> Awaitable[World]: ...


@pytest.fixture
async def world_of(embedded_postgres: PostgresServer) -> AsyncIterator[OpenWorld]:
    async with AsyncExitStack() as stack:

        async def build(*profiles: Profile, **options: Any) -> World:
            settings = {"DEVICE_TIMEOUT_SECONDS": "2", **options.pop("settings", {})}
            named = {f"{i} {profile.name}": profile for i, profile in enumerate(profiles)}
            options = {"pause_s": 0.05, "poll_s": 1.0, "lanes": len(profiles), **options}
            return await stack.enter_async_context(
                open_world(named, postgres=embedded_postgres, settings=settings, **options)
            )

        yield build


def terminals(world: World) -> list[SimulatedTerminal]:
    return [site.terminal for site in world.sites]


def assert_well_treated(world: World) -> None:
    """No terminal saw overlapping or hurried calls, a failed login or a field it does not know."""
    for terminal in terminals(world):
        seen = terminal.sightings
        assert seen.overlapping_calls == 0
        assert seen.calls_too_close == 0
        assert seen.failed_logins == 0
        assert seen.unknown_fields == []
        assert seen.deletions_of_everybody == 0


async def test_hires_renames_and_new_photos_reach_every_terminal(world_of: OpenWorld) -> None:
    world = await world_of(MODERN, XML, SLOW)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        ana = await hr.hire("Ștefănescu", "Ana-Maria", photo="ana.jpg")
        await hr.hire("Fără", "Poză")
        assert await world.agreed(within_s=ON_TIME_S)
        await hr.rename(ana, "Brâncoveanu")
        await hr.new_photo(ion, "ion-2.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
    for terminal in terminals(world):
        assert terminal.persons[str(ana.employee_no)].name == "Brâncoveanu Ana-Maria"
        assert terminal.persons[str(ion.employee_no)].end == datetime(2037, 12, 31, 23, 59, 59)  # noqa: DTZ001 - device time
        face = terminal.persons[str(ion.employee_no)].face
        assert face is not None
        assert face.replaced == 1
    assert_well_treated(world)


async def test_an_edit_made_while_the_receiver_is_down_needs_no_webhook(
    world_of: OpenWorld,
) -> None:
    """The poll is an hour away: only what a receiver asks at its start can bring the edit."""
    world = await world_of(MODERN, XML, settings={"POLL_SECONDS": NEVER_S})
    world.pg_net.lose_next(1000)
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion", photo="ion.jpg")
    await eventually(lambda: world.pg_net.lost == 2)
    await world.receiver.start()
    assert await world.agreed(within_s=ON_TIME_S)
    assert world.pg_net.delivered == 0


async def test_a_lost_webhook_costs_at_most_a_poll(world_of: OpenWorld) -> None:
    world = await world_of(MODERN)
    await world.receiver.start()
    world.pg_net.lose_next(1000)
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion", photo="ion.jpg")
    assert await world.agreed(within_s=ON_TIME_S)
    assert world.pg_net.delivered == 0


async def test_a_webhook_alone_wakes_the_receiver(world_of: OpenWorld) -> None:
    world = await world_of(MODERN, settings={"POLL_SECONDS": NEVER_S})
    await world.receiver.start()
    await ready(world)
    world.pg_net.duplicate_next(2)
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion", photo="ion.jpg")
    assert await world.agreed(within_s=ON_TIME_S)
    assert world.pg_net.delivered >= 2


@pytest.mark.parametrize("profile", [MODERN, XML], ids=["FDSetUp", "FDModify"])
async def test_a_terminal_that_already_knows_the_person_gets_new_name_and_photo(
    world_of: OpenWorld, profile: Profile
) -> None:
    """As after years of the old app: the ledger knows nothing, the terminal knows everybody."""
    world = await world_of(profile)
    [terminal] = terminals(world)
    terminal.persons["1000"] = Person(
        employee_no="1000",
        name="Nume Vechi",
        begin=datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        end=datetime(2021, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        enabled=True,
        user_type="normal",
        face=Face(url="http://vechi/poza.jpg", sha256="0", size=1),
    )
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        await hr.hire("Nume", "Nou", photo="nou.jpg")
    assert await world.agreed(within_s=ON_TIME_S)
    assert terminal.persons["1000"].name == "Nume Nou"
    said = [call.sub_status for call in terminal.sightings.calls if call.authenticated]
    assert "employeeNoAlreadyExist" in said
    assert ("deviceUserAlreadyExistFace" in said) == (not profile.has_fd_setup)


async def test_a_photo_already_there_is_not_sent_again(world_of: OpenWorld) -> None:
    world = await world_of(MODERN)
    [terminal] = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        for surname in ("Ionescu", "Georgescu"):
            await hr.rename(ion, surname)
            assert await world.agreed(within_s=ON_TIME_S)
    faces = [c for c in terminal.sightings.calls if c.authenticated and "FDSetUp" in c.path]
    assert len(faces) == 1


WANTED = (
    "select id from hikvision_sync.edits"
    " union all select wanted from hikvision_sync.pairs where wanted > done"
)


async def test_a_terminal_that_is_off_delays_no_other_and_gets_everything_later(
    world_of: OpenWorld,
) -> None:
    """One lane for all, and the terminal that is off is the first in line."""
    world = await world_of(MODERN, XML, SLOW, lanes=1)
    first = min(world.sites, key=lambda site: site.id)
    await first.terminal.switch_off()
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        people = [await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg") for n in range(5)]
        assert await world.agreed(but=[first], within_s=ON_TIME_S)
        await hr.rename(people[0], "Redenumit")
        assert await world.agreed(but=[first], within_s=ON_TIME_S)
        assert first.terminal.persons == {}
        await first.terminal.switch_on()
        assert await world.agreed(within_s=ON_TIME_S)
    assert_well_treated(world)


async def test_a_terminal_that_is_silent_costs_one_attempt_however_many_pairs_wait(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML, settings={"DEVICE_TIMEOUT_SECONDS": "0.5"})
    silent, other = world.sites
    await silent.terminal.hang()
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        for n in range(10):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
    assert await world.agreed(but=[silent], within_s=ON_TIME_S)
    assert await world.disagreeing() == [silent]
    [row] = await world.execute(
        "select failures > 0 as failed, failures >= (select sum(attempts)"
        "  from hikvision_sync.pairs p where p.terminal_id = t.terminal_id) as one_each"
        " from hikvision_sync.terminals t where terminal_id = %s",
        silent.id,
    )
    # Each attempt was the terminal's, not a pair's; the first may have come before any pair.
    assert row == {"failed": True, "one_each": True}
    await silent.terminal.unhang()
    assert await world.agreed(within_s=ON_TIME_S)
    assert other.terminal.sightings.overlapping_calls == 0


async def test_a_wrong_password_costs_one_failed_login_until_the_row_is_put_right(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML)
    wrong, _ = world.sites
    change = "update dispozitive_pontaj set password_encrypted = %s where id = %s"
    await world.execute(change, "Parola-gresita", wrong.id)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        for n in range(4):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
            assert await world.agreed(but=[wrong], within_s=ON_TIME_S)
        await eventually(lambda: wrong.terminal.sightings.failed_logins)
        await hr.hire("Încă", "Unul")
        assert await world.agreed(but=[wrong], within_s=ON_TIME_S)
        assert wrong.terminal.sightings.failed_logins == 1
        await world.execute(change, PASSWORD, wrong.id)
        assert await world.agreed(within_s=ON_TIME_S)
    assert wrong.terminal.sightings.failed_logins == 1


async def test_a_person_edited_during_the_push_ends_with_the_last_edit(
    world_of: OpenWorld,
) -> None:
    world = await world_of(SLOW)
    [terminal] = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        await eventually(lambda: "1000" in terminal.persons)  # the photo is on its way
        await hr.rename(ion, "Ionescu")
        await hr.new_photo(ion, "ion-2.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
    assert await world.disagreeing() == []
    assert_well_treated(world)


async def test_sigterm_ends_the_call_in_flight_and_gives_the_terminal_back(
    world_of: OpenWorld,
) -> None:
    world = await world_of(SLOW, settings={"POLL_SECONDS": NEVER_S})
    [terminal] = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        for n in range(3):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
        await eventually(lambda: terminal.persons)
        assert await world.receiver.stop() in (0, -15)
        calls = len(terminal.sightings.calls)
        leased = await world.execute(
            "select * from hikvision_sync.terminals where leased_by is not null"
        )
        assert leased == []
        assert len(terminal.sightings.calls) == calls
        assert await world.disagreeing()
        await world.receiver.start()
        assert await world.agreed(within_s=ON_TIME_S)
    assert_well_treated(world)


async def test_kill_9_in_the_middle_of_a_call_loses_nothing_and_overlaps_nothing(
    world_of: OpenWorld,
) -> None:
    world = await world_of(SLOW, MODERN)
    slow, _ = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        for n in range(3):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
        await eventually(lambda: slow.persons)
        await world.receiver.kill()
        await hr.hire("Angajat", "În pauză")
        await world.receiver.start()
        assert await world.agreed(within_s=ON_TIME_S)
    for terminal in terminals(world):
        assert terminal.sightings.overlapping_calls == 0
        assert terminal.sightings.failed_logins == 0


async def test_two_receivers_share_the_terminals_and_never_call_one_together(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML, SLOW, lanes=2)
    async with ReceiverProcess(world.environment) as second, Hr(world.supabase) as hr:
        await world.receiver.start()
        for n in range(8):
            await hr.hire(f"Muncitor{n}", "Ion", photo=f"{n}.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        assert "pair_synced" in world.receiver.logged()
        assert "pair_synced" in second.logged()
    assert_well_treated(world)


@pytest.mark.parametrize("policy", ["expire", "delete", "keep"])
async def test_a_leaver_passes_no_longer_and_passes_again_on_return(
    world_of: OpenWorld, policy: str
) -> None:
    world = await world_of(MODERN, XML, settings={"LEAVER_POLICY": policy})
    await world.receiver.start()
    now = datetime.now(UTC)
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        number = str(ion.employee_no)
        assert await world.agreed(within_s=ON_TIME_S)
        await hr.set_status(ion, "suspendat")
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        for terminal in terminals(world):
            assert terminal.may_pass(number, now) is (policy == "keep")
            assert (number in terminal.persons) is (policy != "delete")
        await hr.set_status(ion, "activ")
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
    for terminal in terminals(world):
        assert terminal.may_pass(number, now)
    assert_well_treated(world)


async def ready(world: World) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(ON_TIME_S):
        while (await client.get(f"{world.receiver.url}/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_receiver_starts_without_supabase_says_so_and_works_when_it_is_back(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN)
    async with Hr(world.supabase) as hr:
        await hr.hire("Popescu", "Ion", photo="ion.jpg")
    await world.supabase.switch_off()
    await world.receiver.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{world.receiver.url}/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    await world.supabase.switch_on()
    assert await world.agreed(within_s=ON_TIME_S)
    await ready(world)


async def test_nothing_private_is_asked_for_and_nothing_secret_is_logged(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu-Secretul", "Ion", photo="poza-secreta.jpg")
        await hr.update("angajati", ion.id, {"cnp": "1800101123456", "iban": "RO49", "salariu": 9})
        assert await world.agreed(within_s=ON_TIME_S)
        await world.sites[1].terminal.switch_off()
        await hr.rename(ion, "Ionescu-Secretul")
        assert await world.agreed(but=[world.sites[1]], within_s=ON_TIME_S)
    await world.receiver.stop()
    # Of the tables only our functions speak, which return no private column.
    read = [path for method, path, _ in world.supabase.requests if method == "GET"]
    assert [path for path in read if path.startswith("/rest/")] == []
    logged = world.receiver.logged()
    assert "pair_synced" in logged
    secrets = [
        *(PASSWORD, "Secretul", "poza-secreta", "1800101123456", "Digest", "/storage/"),
        *(world.environment["WEBHOOK_SECRET"], world.supabase.secret_key, "v1,"),
        *(world.supabase.service_role_key, "Traceback"),
    ]
    assert [s for s in secrets if s in logged] == []


async def test_a_removed_photo_a_new_number_and_a_deleted_row_reach_the_terminals(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML)
    await world.receiver.start()
    now = datetime.now(UTC)
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        ana = await hr.hire("Ionescu", "Ana", photo="ana.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        await hr.update("angajati_biometrie", ion.biometrics_id, {"foto_fata_url": None})
        assert await world.agreed(within_s=ON_TIME_S)
        await hr.update("angajati_biometrie", ion.biometrics_id, {"employee_no": 7000})
        assert await world.agreed(within_s=ON_TIME_S)
        await world.execute("delete from angajati where id = %s", ana.id)
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
    for terminal in terminals(world):
        assert not terminal.may_pass(str(ion.employee_no), now)
        assert not terminal.may_pass(str(ana.employee_no), now)
        assert terminal.persons["7000"].face is None
    assert_well_treated(world)


async def test_two_employees_who_swap_numbers_both_pass_under_their_new_ones(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, XML)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        ana = await hr.hire("Ionescu", "Ana", photo="ana.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        for biometrics, number in (
            (ion.biometrics_id, 9999),
            (ana.biometrics_id, ion.employee_no),
            (ion.biometrics_id, ana.employee_no),
        ):
            await hr.update("angajati_biometrie", biometrics, {"employee_no": number})
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        assert await world.disagreeing() == []
    assert_well_treated(world)


async def test_nobody_passes_with_the_face_of_the_numbers_owner_before(
    world_of: OpenWorld,
) -> None:
    """The terminal cannot be searched, so nothing would notice it afterwards."""
    world = await world_of(Profile(name="blind", has_search=False), MODERN)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        ana = await hr.hire("Ionescu", "Ana")
        assert await world.agreed(within_s=ON_TIME_S)
        await hr.update("angajati_biometrie", ion.biometrics_id, {"employee_no": 7000})
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        await hr.update("angajati_biometrie", ana.biometrics_id, {"employee_no": ion.employee_no})
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        assert await world.disagreeing() == []
    assert_well_treated(world)


@pytest.mark.parametrize(("policy", "lie"), [("expire", "renumber"), ("delete", "leave")])
async def test_a_number_that_the_terminal_only_claimed_to_have_ended_is_ended_again(
    world_of: OpenWorld, policy: str, lie: str
) -> None:
    world = await world_of(MODERN, settings={"LEAVER_POLICY": policy})
    [terminal] = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        assert await world.agreed(within_s=ON_TIME_S)
        await eventually(lambda: gives_nothing(world.execute(WANTED)))
        terminal.upgrade(Profile(name="lying", lies_every=1))
        if lie == "renumber":
            await hr.update("angajati_biometrie", ion.biometrics_id, {"employee_no": 7000})
        else:
            await world.execute("delete from angajati where id = %s", ion.id)
        await eventually(lambda: "may still pass" in world.receiver.logged())
        terminal.upgrade(MODERN)
        assert await world.agreed(within_s=ON_TIME_S)


async def test_postgres_stopped_and_started_again_loses_nothing(
    stoppable_postgres: PostgresServer,
) -> None:
    async with open_world(
        {"one": MODERN}, pause_s=0.05, poll_s=1.0, postgres=stoppable_postgres
    ) as world:
        await world.receiver.start()
        async with Hr(world.supabase) as hr:
            ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
            assert await world.agreed(within_s=ON_TIME_S)
            await asyncio.to_thread(stoppable_postgres.stop)
            async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(ON_TIME_S):
                while (await client.get(f"{world.receiver.url}/readyz")).is_success:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(stoppable_postgres.start)
            await hr.rename(ion, "Ionescu")
            assert await world.agreed(within_s=ON_TIME_S)
        await ready(world)
        assert_well_treated(world)


async def test_a_person_put_there_by_a_receiver_that_died_at_once_can_still_be_made_to_leave(
    world_of: OpenWorld,
) -> None:
    """Killed between push and record; then HR deletes the row: only the ledger knows them."""
    world = await world_of(Profile(name="slow faces", face_delay_s=3.0))
    [terminal] = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        ion = await hr.hire("Popescu", "Ion", photo="ion.jpg")
        await eventually(lambda: "1000" in terminal.persons)
        await world.receiver.kill()
        await world.execute("delete from angajati where id = %s", ion.id)
        assert terminal.may_pass("1000", datetime.now(UTC))
        await world.receiver.start()
        assert await world.agreed(within_s=ON_TIME_S)
    assert not terminal.may_pass("1000", datetime.now(UTC))


async def test_a_photo_that_could_not_be_fetched_is_tried_again_without_a_poll(
    world_of: OpenWorld,
) -> None:
    world = await world_of(MODERN, settings={"POLL_SECONDS": NEVER_S})
    [terminal] = terminals(world)
    await world.receiver.start()
    async with Hr(world.supabase) as hr:
        await ready(world)
        url = await hr.upload("ion.jpg")
        picture = world.supabase.photos.pop("ion.jpg")
        row = await hr.insert("angajati", {"nume": "Popescu", "prenume": "Ion"})
        await hr.insert("angajati_biometrie", {"angajat_id": row["id"], "foto_fata_url": url})
        await eventually(lambda: '"partial"' in world.receiver.logged())
        world.supabase.photos["ion.jpg"] = picture
        assert await world.agreed(within_s=ON_TIME_S)
    assert terminal.persons["1000"].face is not None
