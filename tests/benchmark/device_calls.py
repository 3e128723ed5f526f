"""Calls to a terminal for each pair that is brought there, on current firmware."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.portraits import portrait
from receiver.sandbox.world import World
from tests.benchmark.table import Row
from tests.benchmark.worlds import BOTH, Who, calls, quiet, resync_all, served_world

NAME = "device_calls"
QUICK_PEOPLE = 2


@dataclass(frozen=True)
class Counted:
    """The cost of one scenario, per pair."""

    calls: float
    round_trips: float


async def measure(quick: bool) -> list[Row]:  # noqa: FBT001 - every part's
    """Return calls, and round trips with the challenges before them, per pair."""
    people = QUICK_PEOPLE if quick else 30
    with await asyncio.to_thread(PostgresServer.embedded) as postgres:
        found = {who: await _counted(who, postgres, people) for who in BOTH}
    rows = []
    for what, ours in found["ours"].items():
        theirs = found["baseline"][what]
        rows += [
            Row(f"{what}: calls", ours.calls, "per pair", theirs.calls),
            Row(f"{what}: round trips", ours.round_trips, "per pair", theirs.round_trips),
        ]
    return rows


async def _counted(who: Who, postgres: PostgresServer, people: int) -> dict[str, Counted]:
    async with served_world(who, postgres, terminals=1) as world, Hr(world.supabase) as hr:
        await hr.hire("Întâi", "Ana", photo="warm.jpg")  # the terminal is known from now on
        await quiet(world)
        hired: list[Hired] = []

        async def hire(n: int) -> None:
            hired.append(await hr.hire(f"Popescu{n}", "Ion", photo=f"{n}.jpg"))

        async def rename(n: int) -> None:
            await hr.rename(hired[n], f"Ionescu{n}")

        async def new_photo(n: int) -> None:
            await hr.new_photo(hired[n], f"{n}-new.jpg")

        found = {}
        edits: dict[str, Callable[[int], Awaitable[None]]] = {
            "new person with photo": hire,
            "rename": rename,
            "new photo": new_photo,
        }
        for what, edit in edits.items():
            before = len(calls(world))
            for n in range(people):
                await edit(n)
                await quiet(world)
            found[what] = _since(world, before, people)
        before = len(calls(world))
        for _ in range(people):
            await _hire_at_once(world, 1)
            await quiet(world)
        found["new person with photo, in one save"] = _since(world, before, people)
        before = len(calls(world))
        await _hire_at_once(world, people)
        await quiet(world)
        found[f"{people} new people with photos, hired at once"] = _since(world, before, people)
        everybody = 3 * people + 1
        before = len(calls(world))
        await resync_all(world)
        found[f"resync of {everybody} unchanged"] = _since(world, before, everybody)
        more = 10 * people - everybody
        await _hire_at_once(world, more)
        await quiet(world)
        before = len(calls(world))
        await resync_all(world)
        found[f"resync of {everybody + more} unchanged"] = _since(world, before, everybody + more)
        persons = list(world.sites[0].terminal.persons.values())
        changed = persons[:: 100 if len(persons) > 100 else 5]
        for person in changed:
            person.name = "Altcineva"
        before = len(calls(world))
        await resync_all(world)
        what = f"resync of {everybody + more}, {len(changed)} of them changed at the terminal"
        found[what] = _since(world, before, everybody + more)
        return found


async def _hire_at_once(world: World, people: int) -> None:
    """Hire so many people in one transaction, as an import does."""
    names = [f"poza-{n}.jpg" for n in range(people)]
    world.supabase.photos.update({name: portrait(name) for name in names})
    await world.execute(
        "with hired as (insert into angajati (nume, prenume) select 'Import' || n, 'Ion'"
        " from generate_series(0, %s - 1) n returning id, nume)"
        " insert into angajati_biometrie (angajat_id, foto_fata_url)"
        " select id, replace(%s, 'N', substr(nume, 7)) from hired",
        people,
        world.supabase.photo_url("poza-N.jpg"),
    )


def _since(world: World, before: int, pairs: int) -> Counted:
    seen = calls(world)[before:]
    authenticated = sum(call.authenticated for call in seen)
    return Counted(calls=authenticated / pairs, round_trips=len(seen) / pairs)
