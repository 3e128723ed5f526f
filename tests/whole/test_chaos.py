"""Everything at once: HR edits, receivers die, terminals lose power, Supabase and lines fail.

A seed, which is printed, decides all that happens; the machine decides when. At the end only time
is left to pass: pauses and rests are cut short there, so that it does not take hours.
"""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hired, Hr
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from tests.support.faults import (
    CUT,
    RESET,
    SILENT,
    UNHEARD,
    Line,
    assert_nothing_lost,
    converge,
    differences,
    late,
    port_of,
    put_behind,
    receiver_of,
    status,
)

PHOTOS = 12
RECEIVERS = 3
CONVERGE_S = 90.0
SOAK_EDITS = int(os.environ.get("CHAOS_EDITS", "2000"))
"""Of the long form; a receiver is killed for each twenty of them at least."""
SUPABASE_FAULTS = (
    *(status(code) for code in (401, 500, 502, 520)),
    *(status(code, arrives=True) for code in (500, 502)),
    *(RESET, CUT, SILENT, UNHEARD, late(0.5)),
)
TERMINAL_FAULTS = (RESET, CUT, SILENT, UNHEARD, late(1.2), status(502), status(500, arrives=True))
TERMINALS: Mapping[str, Profile] = {
    "Poarta": PROFILES["modern"],
    "Hala": Profile(name="xml", answers="xml", has_fd_setup=False, delay_s=0.02, face_delay_s=0.1),
    "Depozit": PROFILES["no_upsert_no_search"],
    "Birouri": Profile(name="busy", busy_every=9),
}
MORE_TERMINALS: Mapping[str, Profile] = {
    **TERMINALS,
    "Poarta Sud": PROFILES["upload_only"],
    "Rampa": Profile(name="lying", lies_every=9),
    "Atelier": PROFILES["old_deletes"],
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is to happen, at least."""

    edits: int
    kills: int
    between_edits_s: float
    terminals: Mapping[str, Profile]
    leaver_policy: str = "expire"
    seed: int = field(default_factory=lambda: int(os.environ.get("CHAOS_SEED", "1")))


@dataclass
class Tally:
    """What has happened so far."""

    edits: int = 0
    kills: int = 0
    power_cuts: int = 0
    outages: int = 0


class Editor:
    """HR, which edits without stopping to think."""

    def __init__(self, world: World, hr: Hr, chance: random.Random, tally: Tally) -> None:
        self._world = world
        self._hr = hr
        self._chance = chance
        self._tally = tally
        self._people: list[Hired] = []
        self._number = 50_000
        self._kinds: dict[Callable[[Hired], Awaitable[None]], int] = {
            self._rename: 20,
            self._new_photo: 25,
            self._no_photo: 5,
            self._status: 20,
            self._renumber: 10,
            self._hand_over_number: 5,
            self._delete: 6,
        }

    async def edit(self) -> None:
        """Make one edit, of any kind; some take two or three saves."""
        if len(self._people) < 5 or self._chance.random() < 0.12:
            await self._hire()
            return
        [kind] = self._chance.choices(list(self._kinds), weights=list(self._kinds.values()))
        await kind(self._chance.choice(self._people))

    async def _hire(self) -> None:
        photo = self._photo() if self._chance.random() < 0.8 else None
        self._people.append(await self._hr.hire(self._name(), "Ion", photo=photo))
        self._tally.edits += 1

    async def _rename(self, person: Hired) -> None:
        await self._hr.rename(person, self._name())
        self._tally.edits += 1

    async def _new_photo(self, person: Hired) -> None:
        await self._hr.new_photo(person, self._photo())
        self._tally.edits += 1

    async def _no_photo(self, person: Hired) -> None:
        await self._biometrics(person, foto_fata_url=None)

    async def _status(self, person: Hired) -> None:
        await self._hr.set_status(person, self._chance.choice(["activ", "activ", "suspendat"]))
        self._tally.edits += 1

    async def _renumber(self, person: Hired) -> None:
        self._number += 1
        await self._biometrics(person, employee_no=self._number)

    async def _hand_over_number(self, person: Hired) -> None:
        """Give another person the number that this one had until now."""
        [row] = await self._world.execute(
            "select employee_no from angajati_biometrie where id = %s", person.biometrics_id
        )
        await self._renumber(person)
        heir = self._chance.choice(self._people)
        await self._biometrics(heir, employee_no=row["employee_no"])

    async def _delete(self, person: Hired) -> None:
        self._people.remove(person)
        await self._world.execute("delete from angajati where id = %s", person.id)
        self._tally.edits += 1

    async def _biometrics(self, person: Hired, **changes: object) -> None:
        await self._hr.update("angajati_biometrie", person.biometrics_id, changes)
        self._tally.edits += 1

    def _name(self) -> str:
        return f"Muncitor{self._chance.randrange(1000)}"

    def _photo(self) -> str:
        """Return one of a few photos, perhaps the one before."""
        return f"{self._chance.randrange(PHOTOS)}.jpg"


class Chaos:
    """Kills, power cuts and outages beside the edits, until enough was edited and killed."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        receivers: list[ReceiverProcess],
        to_supabase: list[Line],
        to_terminals: list[Line],
    ) -> None:
        self._world = world
        self._plan = plan
        self._receivers = receivers
        self._to_supabase = to_supabase
        self._to_terminals = to_terminals
        self._chances = {name: random.Random(f"{plan.seed} {name}") for name in "ekpst"}
        self._over = False
        self.tally = Tally()

    async def run(self, hr: Hr) -> None:
        """Return once everything that was hurt works again."""
        async with asyncio.TaskGroup() as group:
            for harm in (self._kill, self._cut_power, self._hurt_supabase, self._hurt_lines):
                group.create_task(harm())
            editor = Editor(self._world, hr, self._chances["e"], self.tally)
            while self.tally.edits < self._plan.edits or self.tally.kills < self._plan.kills:
                await editor.edit()
                between_s = self._chances["e"].expovariate(1 / self._plan.between_edits_s)
                await asyncio.sleep(min(between_s, 1.0))
            self._over = True

    async def _kill(self) -> None:
        chance = self._chances["k"]
        while not self._over:
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            receiver = chance.choice(self._receivers)
            await receiver.kill()
            self.tally.kills += 1
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            await receiver.start()

    async def _cut_power(self) -> None:
        chance = self._chances["p"]
        while not self._over:
            await asyncio.sleep(chance.uniform(1.0, 4.0))
            terminal = chance.choice(self._world.sites).terminal
            await terminal.switch_off()
            self.tally.power_cuts += 1
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            await terminal.switch_on()

    async def _hurt_supabase(self) -> None:
        chance = self._chances["s"]
        while not self._over:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            line = chance.choice(self._to_supabase)
            if chance.random() < 0.2:
                await line.refuse()
            else:
                line.hurt(chance.choice(SUPABASE_FAULTS), times=chance.randint(1, 6))
            self.tally.outages += 1
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            await line.repair()

    async def _hurt_lines(self) -> None:
        chance = self._chances["t"]
        while not self._over:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            line = chance.choice(self._to_terminals)
            line.hurt(chance.choice(TERMINAL_FAULTS), times=chance.randint(1, 3))
            self.tally.outages += 1
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            await line.repair()


@asynccontextmanager
async def chaotic(
    plan: Plan, postgres: PostgresServer
) -> AsyncIterator[tuple[World, Chaos, list[ReceiverProcess]]]:
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            open_world(
                plan.terminals,
                pause_s=0.02,
                poll_s=0.5,
                lanes=len(plan.terminals),
                postgres=postgres,
                settings={"DEVICE_TIMEOUT_SECONDS": "1", "LEAVER_POLICY": plan.leaver_policy},
            )
        )
        to_terminals = []
        for site in world.sites:
            site.terminal.sightings.calls = deque()  # all of them, however many
            line = await stack.enter_async_context(Line(site.terminal.port))
            await put_behind(line, world, site)
            to_terminals.append(line)
        to_supabase, receivers = [], []
        for number in range(RECEIVERS):
            line = await stack.enter_async_context(Line(port_of(world.supabase.url)))
            to_supabase.append(line)
            port = world.receiver.port if number == 0 else 0
            receivers.append(
                await stack.enter_async_context(receiver_of(world, line=line, port=port))
            )
        yield world, Chaos(world, plan, receivers, to_supabase, to_terminals), receivers


async def play(plan: Plan, postgres: PostgresServer) -> None:
    async with chaotic(plan, postgres) as (world, chaos, receivers), Hr(world.supabase) as hr:
        begun = time.monotonic()
        await chaos.run(hr)
        hurt_for_s = time.monotonic() - begun
        await converge(world, within_s=max(CONVERGE_S, plan.edits / 5))  # what waits in line
        lost = [(site.name, one) for site in world.sites for one in await differences(world, site)]
        seen = [site.terminal.sightings for site in world.sites]
        print(
            f"\nchaos {plan.seed}: {len(receivers)} receivers, {len(world.sites)} terminals:"
            f" {chaos.tally.edits} edits made, {len(lost)} edits lost,"
            f" {chaos.tally.kills} kills, {chaos.tally.power_cuts} power cuts,"
            f" {chaos.tally.outages} outages,"
            f" {sum(call.authenticated for one in seen for call in one.calls)} device calls,"
            f" {sum(one.overlapping_calls for one in seen)} overlapping calls,"
            f" {sum(one.calls_too_close for one in seen)} calls too close,"
            f" {hurt_for_s:.0f} s of harm, {time.monotonic() - begun:.0f} s in all"
        )
        assert not lost, lost
        await assert_nothing_lost(world, receivers)
        assert chaos.tally.edits >= plan.edits
        assert chaos.tally.kills >= plan.kills


async def test_nothing_is_lost_in_a_short_chaos(embedded_postgres: PostgresServer) -> None:
    plan = Plan(edits=300, kills=20, between_edits_s=0.1, terminals=TERMINALS)
    await play(plan, embedded_postgres)


@pytest.mark.soak
@pytest.mark.timeout(3600 + SOAK_EDITS)
@pytest.mark.parametrize("leaver_policy", ["expire", "delete"])
async def test_nothing_is_lost_in_a_long_chaos(
    embedded_postgres: PostgresServer, leaver_policy: str
) -> None:
    plan = Plan(
        edits=SOAK_EDITS,
        kills=SOAK_EDITS // 20,
        between_edits_s=0.15,
        terminals=MORE_TERMINALS,
        leaver_policy=leaver_policy,
    )
    await play(plan, embedded_postgres)
