"""HR days for tests: a company in a real database, its simulated terminals, receivers beside them.

The receiver runs in the test's own process, whole: worker, gate, digest, SQL. Only the pauses after
failures are cut short, because a day here lasts a second or two. `Company.faults` is the referee.
"""

import asyncio
import copy
import itertools
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row
from structlog.testing import capture_logs

from receiver import services
from receiver.core import settings
from receiver.core.models import LeaverPolicy
from receiver.core.settings import Settings
from receiver.photos import album
from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.portraits import likeness, portrait
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.terminal.simulated import Face, Person, Profile, SimulatedTerminal
from receiver.sandbox.world import PASSWORD, Site, World, open_world
from receiver.sync import consequences, person_terminal, photo_watch, visit, worker
from receiver.terminals import persons

Row = dict[str, Any]

SITES: Final = 4
PHOTOS: Final = tuple(f"poza-{n}.jpg" for n in range(8))
FOREVER: Final = datetime(2037, 12, 31, 23, 59, 59)  # noqa: DTZ001 - device time
STRANGERS: Final = ("90001", "90002", "vizitator7")
"""Numbers that were never the company's."""
NEVER_HAPPENS: Final = frozenset(
    {"visit_failed", "push_failed", "worker_failed", "run_failed", "supabase_failed"}
)
"""Log events that are mistakes of ours here, where Supabase is always there."""


@contextmanager
def short_pauses() -> Any:
    """Cut short the pauses and rests after failures; test_consequences has the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consequences, "TERMINAL_RESTS_S", (0.03, 0.06, 0.12, 0.2))
        patch.setattr(consequences, "PAIR_PAUSES_S", (0.03, 0.06, 0.12, 0.2))
        patch.setattr(person_terminal, "BUSY_PAUSES_S", (0.0, 0.01, 0.02))
        patch.setattr(settings, "FACE_TIMEOUT_S", 5.0)
        patch.setattr(visit, "LEASE_PAUSE_S", 0.02)
        patch.setattr(photo_watch, "TURN_S", 0.1)
        patch.setattr(album, "CACHED_FOR_S", 0.05)
        patch.setattr(worker, "MAKE_WAY_S", 0.04)
        patch.setattr(persons, "ERASE_POLL_S", 0.01)
        # Most of a day would go into this: httpcore looks for sniffio at every request, and every
        # client reads all of the world's certificates, of which nothing here needs one.
        patch.setitem(sys.modules, "sniffio", None)
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
        yield


@dataclass
class Figures:
    """How much was done in all days so far, for the record."""

    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items())


class Company:
    """HR's tables, the terminals at their sites, and the receivers; `begin_day` starts over.

    A verb of HR is one or more statements; a row of a terminal is known by the place of its site.
    """

    def __init__(self, world: World, connection: psycopg.AsyncConnection[Row]) -> None:
        self.world = world
        self.figures = Figures()
        self.logged: list[Any] = []
        self.people: list[str] = []
        self.services: list[services.Services] = []
        self._connection = connection
        self._receivers = AsyncExitStack()
        self._logs = ExitStack()
        self._settings = replace(Settings.from_env(world.environment), look_s=0.6)
        self._serials = itertools.count(1)
        self._strangers: list[dict[str, Person]] = []
        self._brought: list[set[str]] = []
        self._backups: dict[int, tuple[str, dict[str, Person]]] = {}
        self._seen_before: list[tuple[int, int, int, int]] = []
        self.rows: dict[int, Row] = {}
        self.off: set[int] = set()
        self.wrong_passwords = 0
        self.addresses_moved = False

    # -- the day ---------------------------------------------------------------------------------

    async def begin_day(
        self,
        *,
        policy: LeaverPolicy = "expire",
        terminals: int = 2,
        profiles: Sequence[Profile] = (),
        receivers: int = 1,
    ) -> None:
        """Empty tables and terminals, add so many terminals, start the receivers."""
        await self.stop_receivers()  # where the day before broke off
        self._logs.close()
        for table in (
            *("public.angajati", "public.angajati_biometrie", "public.dispozitive_pontaj"),
            *("hikvision_sync.edits", "hikvision_sync.pairs", "hikvision_sync.terminals"),
            *("hikvision_sync.numbers", "hikvision_sync.receivers", "hikvision_sync.photos"),
        ):
            await self.run(f"delete from {table}")
        await self.run("alter sequence public.angajati_employee_no_seq restart")
        self.people, self.rows, self.off = [], {}, set[int]()
        self._backups = {}
        self.wrong_passwords, self.addresses_moved = 0, False
        self._strangers = [{} for _ in self.world.sites]
        self._brought = [set() for _ in self.world.sites]
        self._seen_before = []
        for place, terminal in enumerate(self.terminals):
            profile = profiles[place % len(profiles)] if profiles else Profile()
            terminal.upgrade(replace(profile, deletion_s=0.01, face_delay_s=0.0))
            await self.replace_hardware(place)
            terminal.sightings.calls.clear()
            self._seen_before.append(_seen(terminal))
        for place in range(terminals):
            await self.add_terminal(place)
        self._settings = replace(self._settings, leaver_policy=policy)
        self.logged = self._logs.enter_context(capture_logs())
        for _ in range(receivers):
            await self.start_receiver()

    def verify_every(self, seconds: float) -> None:
        """Have each terminal asked for everybody so often, by receivers that start from now on."""
        self._settings = replace(self._settings, verify_hours=seconds / 3600)

    def change_policy(self, policy: LeaverPolicy) -> None:
        """Have leavers treated so by receivers that start from now on."""
        self._settings = replace(self._settings, leaver_policy=policy)

    def swap_places(self, one: int, other: int) -> None:
        """Let the row of one place be that of the other, whose hardware it has now."""
        self.rows[other] = self.rows.pop(one)

    async def end_day(self) -> None:
        """Stop the receivers and count their work; fail if anything happened that never may."""
        await self.stop_receivers()
        self._logs.close()
        for terminal in self.terminals:
            self.figures.counts["device calls"] += sum(
                call.authenticated for call in terminal.sightings.calls
            )
        events = [entry["event"] for entry in self.logged]
        self.figures.counts["pushes"] += sum(event.startswith("pair_") for event in events)

    async def start_receiver(self) -> services.Services:
        """Start one more receiver in this process."""
        started = await self._receivers.enter_async_context(services.running(self._settings))
        self.services.append(started)
        return started

    async def stop_receivers(self) -> None:
        """Stop all; the call in flight of each ends."""
        self.services.clear()
        await self._receivers.aclose()

    def wake(self) -> None:
        """Nudge every receiver, as a webhook does."""
        for service in self.services:
            service.worker.wake()

    # -- the tables ------------------------------------------------------------------------------

    async def run(self, statement: str, *parameters: object) -> list[Row]:
        """Run one statement as the database's owner, and return its rows if it has any."""
        cursor = await self._connection.execute(statement.encode(), parameters or None)
        return await cursor.fetchall() if cursor.description else []

    async def hire(
        self, nume: str, *, photo: str | None = None, status: str = "activ", numbered: bool = True
    ) -> str:
        """Add an employee, with a row of angajati_biometrie if `numbered`; return their id."""
        [row] = await self.run(
            "insert into angajati (nume, prenume, status) values (%s, 'Ion', %s)"
            " returning id::text",
            nume,
            status,
        )
        self.people.append(row["id"])
        if numbered:
            await self.give_biometrics(row["id"], photo=photo)
        return str(row["id"])

    async def give_biometrics(self, id_: str, *, photo: str | None = None) -> None:
        """Give an employee a number and perhaps a photo, if they have none."""
        await self.run(
            "insert into angajati_biometrie (angajat_id, foto_fata_url) values (%s, %s)"
            " on conflict (angajat_id) do nothing",
            id_,
            photo and self.world.supabase.photo_url(photo),
        )

    async def rename(self, id_: str, nume: str) -> None:
        """Give an employee another surname."""
        await self.run("update angajati set nume = %s where id = %s", nume, id_)

    async def set_status(self, id_: str, status: str) -> None:
        """Have an employee leave, or come back."""
        await self.run("update angajati set status = %s where id = %s", status, id_)

    async def set_photo(self, id_: str, photo: str | None, *, bare: bool = False) -> None:
        """Set or remove a photo; `bare`: by its file name in the bucket."""
        value = photo if bare or photo is None else self.world.supabase.photo_url(photo)
        await self.run(
            "update angajati_biometrie set foto_fata_url = %s where angajat_id = %s", value, id_
        )

    async def renumber(self, id_: str, number: int | None) -> None:
        """Give an employee another number, or none."""
        await self.run(
            "update angajati_biometrie set employee_no = %s where angajat_id = %s", number, id_
        )

    async def swap_numbers(self, one: str, other: str) -> None:
        """Swap two employees' numbers in one transaction."""
        numbers = [await self.number_of(id_) for id_ in (one, other)]
        async with self._connection.transaction():
            await self.renumber(one, None)
            await self.renumber(other, numbers[0])
            await self.renumber(one, numbers[1])

    async def move_biometrics(self, id_: str, to: str) -> None:
        """Give one employee's row of angajati_biometrie to another, who loses theirs."""
        async with self._connection.transaction():
            await self.run("delete from angajati_biometrie where angajat_id = %s", to)
            await self.run(
                "update angajati_biometrie set angajat_id = %s where angajat_id = %s", to, id_
            )

    async def delete_biometrics(self, id_: str) -> None:
        """Delete an employee's row of angajati_biometrie."""
        await self.run("delete from angajati_biometrie where angajat_id = %s", id_)

    async def delete(self, id_: str) -> None:
        """Delete an employee with all they have."""
        await self.run("delete from angajati where id = %s", id_)
        self.people.remove(id_)

    async def number_of(self, id_: str) -> int | None:
        """Return an employee's number."""
        found = await self.run(
            "select employee_no from angajati_biometrie where angajat_id = %s", id_
        )
        return found[0]["employee_no"] if found else None

    @asynccontextmanager
    async def one_transaction(self) -> AsyncIterator[None]:
        """Let several edits be committed at once."""
        async with self._connection.transaction():
            yield

    # -- the terminals ---------------------------------------------------------------------------

    @property
    def sites(self) -> Sequence[Site]:
        """The places where terminals hang."""
        return self.world.sites

    @property
    def terminals(self) -> list[SimulatedTerminal]:
        """The hardware on them."""
        return [site.terminal for site in self.sites]

    async def add_terminal(self, place: int) -> None:
        """Add the row of a site's terminal, active."""
        terminal = self.terminals[place]
        row: Row = {
            "ip_address": terminal.host,
            "port": terminal.port,
            "username": "admin",
            "password_encrypted": PASSWORD,
            "status": "activ",
        }
        [added] = await self.run(
            f"insert into dispozitive_pontaj ({', '.join(row)})"
            " values (%s, %s, %s, %s, %s) returning id::text",
            *row.values(),
        )
        self.rows[place] = {"id": added["id"], **row}

    async def change_terminal(self, place: int, **columns: object) -> None:
        """Change the row of a terminal."""
        row = self.rows[place]
        changed = any(row[key] != value for key, value in columns.items())
        row |= columns
        if changed and row["password_encrypted"] != PASSWORD:
            self.wrong_passwords += 1
        assignments = ", ".join(f"{key} = %s" for key in columns)
        await self.run(
            f"update dispozitive_pontaj set {assignments} where id = %s",
            *columns.values(),
            row["id"],
        )

    async def repair_all(self) -> None:
        """Switch everything on and give every row the right password and address."""
        for place, row in self.rows.items():
            await self.switch_on(place)
            right = {
                "ip_address": self.terminals[place].host,
                "port": self.terminals[place].port,
                "password_encrypted": PASSWORD,
            }
            if any(row[key] != value for key, value in right.items()):
                await self.change_terminal(place, **right)

    async def replace_hardware(
        self, place: int, memory: Mapping[str, Person] | None = None
    ) -> None:
        """Hang another terminal in the place, with strangers of its own and this memory.

        While it is without power, and not at once: a challenge of the old one, answered to the
        new one, would count as a failed login.
        """
        terminal = self.terminals[place]
        await terminal.switch_off()
        await asyncio.sleep(0.03)
        terminal.replace_hardware(serial=f"HW{next(self._serials)}")
        for number in STRANGERS:
            terminal.persons[number] = Person(
                employee_no=number,
                name=f"Străin {number} la {terminal.serial}",
                begin=datetime(2020, 1, 1),  # noqa: DTZ001 - device time
                end=FOREVER,
                enabled=True,
                user_type="visitor",
                face=Face(url="http://strain/poza", sha256="1", size=1, likeness="strain"),
                cards=1,
            )
        self._strangers[place] = copy.deepcopy(dict(terminal.persons))
        self._brought[place] = set(memory or {})
        terminal.persons.update(copy.deepcopy(dict(memory or {})))
        if place not in self.off:
            await terminal.switch_on()

    async def enter_anew(self, place: int) -> None:
        """Delete the row of a terminal, and enter the same hardware again."""
        await self.run("delete from dispozitive_pontaj where id = %s", self.rows.pop(place)["id"])
        self.addresses_moved = True  # a visit under the old row may still be there
        await self.add_terminal(place)

    # What no edit tells: done behind the receivers' back

    def can_be_asked(self, place: int) -> bool:
        """Return whether a harm there can be noticed at all."""
        return self.terminals[place].profile.has_search

    def people_at(self, place: int) -> list[str]:
        """Return the numbers on a terminal that are not its strangers'."""
        strangers = self._strangers[place]
        return [number for number in self.terminals[place].persons if number not in strangers]

    def reset(self, place: int) -> None:
        """Take everybody of ours off a terminal."""
        for number in self.people_at(place):
            del self.terminals[place].persons[number]

    def back_up(self, place: int) -> None:
        """Keep what a terminal holds now."""
        terminal = self.terminals[place]
        self._backups[place] = terminal.serial, copy.deepcopy(dict(terminal.persons))

    def give_back(self, place: int) -> None:
        """Give a terminal back what was kept, unless other hardware hangs there."""
        terminal = self.terminals[place]
        serial, persons = self._backups.get(place, ("", {}))
        if serial == terminal.serial:
            terminal.persons.clear()
            terminal.persons.update(copy.deepcopy(persons))

    def change_at(self, place: int, who: int, how: int) -> None:
        """Change one person at a terminal."""
        numbers = self.people_at(place)
        if not numbers:
            return
        person = self.terminals[place].persons[numbers[who % len(numbers)]]
        match how % 4:
            case 0:
                person.name = "Altcineva"
            case 1:
                person.face = None
            case 2:
                person.enabled = not person.enabled
            case _:
                del self.terminals[place].persons[person.employee_no]

    @asynccontextmanager
    async def unseen(self) -> AsyncIterator[None]:
        """Let edits be made while no trigger is on, as by a restore."""
        tables = ("angajati", "angajati_biometrie")
        for table in tables:
            await self.run(f"alter table {table} disable trigger user")
        try:
            yield
        finally:
            for table in tables:
                await self.run(f"alter table {table} enable trigger user")

    async def switch_off(self, place: int) -> None:
        """Cut a terminal's power; `switch_on` and `repair_all` give it back."""
        self.off.add(place)
        await self.terminals[place].switch_off()

    async def switch_on(self, place: int) -> None:
        """Give a terminal its power back."""
        self.off.discard(place)
        await self.terminals[place].switch_on()

    def old_person(self, number: str, *, photo: str | None = None) -> Person:
        """Return a person as a terminal remembers them from long ago: they may pass."""
        face = Face(url="", sha256="2", size=2, likeness=likeness(portrait(photo or "vechi")))
        return Person(
            employee_no=number,
            name=f"Nume Vechi {number}",
            begin=datetime(2020, 1, 1),  # noqa: DTZ001 - device time
            end=FOREVER - timedelta(days=1),
            enabled=True,
            user_type="normal",
            face=face,
        )

    def on(self, place: int = 0) -> dict[str, tuple[str, str | None]]:
        """Return the people of the company who may pass there: number → surname and photo."""
        faces = {likeness(portrait(photo)): photo for photo in PHOTOS}
        return {
            number: (person.name.split()[0], faces.get(person.face.likeness, "another face"))
            if person.face
            else (person.name.split()[0], None)
            for number, person in self.terminals[place].persons.items()
            if number not in STRANGERS and person.may_pass(datetime.now(UTC))
        }

    # -- the referee -----------------------------------------------------------------------------

    async def faults(self) -> list[str]:
        """Return the differences between the active terminals and the tables.

        Not counted: numbers that hardware brought with it and HR has forgotten since. Nobody knows
        that they were ever the company's; see the story of it.
        """
        wanted = await self.world.wanted()
        known = {
            str(row["employee_no"])
            for row in await self.world.execute("select employee_no from angajati_biometrie")
        }
        found = []
        for place, row in self.rows.items():
            terminal = self.terminals[place]
            strangers = self._strangers[place]
            forgotten = self._brought[place] - known
            ours = {
                n: p for n, p in terminal.persons.items() if n not in forgotten | set(strangers)
            }
            if {n: terminal.persons.get(n) for n in strangers} != strangers:
                found.append(f"terminal {place}: a stranger was touched")
            if row["status"] != "activ":
                continue
            standing = {n: s for n, s in self.world.standing_on(terminal).items() if n in ours}
            found += [
                f"terminal {place}: {number} is {standing.get(number)},"
                f" should be {wanted.get(number)}"
                for number in sorted(standing.keys() | wanted.keys())
                if standing.get(number) != wanted.get(number)
            ]
            if self._settings.leaver_policy == "delete":
                found += [
                    f"terminal {place}: {number} should have been erased"
                    for number in ours.keys() - wanted.keys()
                ]
            found += [
                f"terminal {place}: the window of {number} is another"
                for number, person in ours.items()
                if number in wanted and (person.end != FOREVER or not person.enabled)
            ]
        return found

    async def unfinished(self) -> list[Row]:
        """Return the work that the ledger still has: edits, pairs, replacements unseen.

        A visit with neither verifies, which goes on for ever.
        """
        waiting = await self.run(
            "select 'edit' as what, id::text as about from hikvision_sync.edits"
            " union all select 'pair', p::text from hikvision_sync.pairs p"
            "  join dispozitive_pontaj d on d.id = p.terminal_id and d.status = 'activ'"
            "  where p.wanted > p.done"
        )
        serials = {
            row["terminal_id"]: row["serial"]
            for row in await self.run(
                "select terminal_id::text, device ->> 'serial' as serial"
                " from hikvision_sync.terminals"
            )
        }
        unseen = [
            {"what": "replaced", "about": place}
            for place, row in self.rows.items()
            if row["status"] == "activ"
            and (serials.get(row["id"]) or self.terminals[place].serial)
            != self.terminals[place].serial
        ]
        return waiting + unseen

    async def converged(self, *, within_s: float = 30.0) -> bool:
        """Wait until nothing is left to do and no terminal differs; False where that fails."""
        try:
            async with asyncio.timeout(within_s):
                while await self.unfinished() or await self.faults():  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    def broken_promises(self) -> list[str]:
        """Return everything that a receiver did or logged and never may, whatever the day."""
        found, failed_logins = [], 0
        for place, terminal in enumerate(self.terminals):
            now, before = _seen(terminal), self._seen_before[place]
            overlapping, everybody, not_of_one, failed = (
                after - earlier for after, earlier in zip(now, before, strict=True)
            )
            failed_logins += failed
            if overlapping and not self.addresses_moved:
                found.append(f"terminal {place}: {overlapping} overlapping calls")
            if everybody or not_of_one:
                found.append(f"terminal {place}: {not_of_one} deletions not of one")
            if terminal.sightings.unknown_fields:
                found.append(f"terminal {place}: {terminal.sightings.unknown_fields}")
        # Two, where the password came between a receiver's lease and its reading of the row.
        if failed_logins > 2 * self.wrong_passwords:
            found.append(f"{failed_logins} failed logins, {self.wrong_passwords} wrong passwords")
        found += [f"logged: {entry}" for entry in self.logged if entry["event"] in NEVER_HAPPENS]
        return found

    async def report(self) -> str:
        """Return all that helps to understand why a day failed."""
        pairs = await self.run(
            "select p.*, d.port from hikvision_sync.pairs p"
            " left join dispozitive_pontaj d on d.id = p.terminal_id order by 1, 2"
        )
        places = {str(row["id"]): place for place, row in self.rows.items()}
        lines = ["faults:", *await self.faults(), "unfinished:"]
        lines += [str(row) for row in await self.unfinished()]
        lines += ["promises:", *self.broken_promises(), "employees:"]
        lines += [
            str(tuple(row.values()))
            for row in await self.run(
                "select a.id::text, a.nume, a.status, b.employee_no, b.foto_fata_url"
                " from angajati a left join angajati_biometrie b on b.angajat_id = a.id"
            )
        ]
        lines += ["terminals:", *(f"{place}: {row}" for place, row in self.rows.items())]
        lines += ["pairs:"]
        lines += [
            f"{places.get(str(p['terminal_id']))} {p['employee_id']} {p['wanted']}>{p['done']}"
            f" no={p['employee_no']} photo={str(p['photo'])[:8]} {p['status']} {p['message']}"
            for p in pairs
        ]
        lines += ["log:", *(str(entry) for entry in self.logged[-40:])]
        for place in self.rows:
            lines.append(f"calls of {place}:")
            lines += [
                f"  {c.method} {c.path} {c.employee_no} {c.status} {c.sub_status}"
                for c in list(self.terminals[place].sightings.calls)[-60:]
                if c.authenticated
            ]
        return "\n".join(lines)


def _seen(terminal: SimulatedTerminal) -> tuple[int, int, int, int]:
    seen = terminal.sightings
    return (
        seen.overlapping_calls,
        seen.deletions_of_everybody,
        seen.deletions_not_of_one,
        seen.failed_logins,
    )


@asynccontextmanager
async def open_company(postgres: PostgresServer) -> AsyncIterator[Company]:
    """Build the world once for many days; no webhook is sent, receivers poll or are woken."""
    async with AsyncExitStack() as stack:
        stack.enter_context(short_pauses())
        world = await stack.enter_async_context(
            open_world(
                {f"Șantier {place}": PROFILES["modern"] for place in range(SITES)},
                pause_s=0.0,
                poll_s=0.15,
                lanes=SITES,
                postgres=postgres,
                settings={"DEVICE_TIMEOUT_SECONDS": "2"},
            )
        )
        await world.execute("delete from vault.secrets")
        world.supabase.photos.update({photo: portrait(photo) for photo in PHOTOS})
        connection = await stack.enter_async_context(
            await psycopg.AsyncConnection.connect(
                world.database.owner_dsn, autocommit=True, row_factory=dict_row
            )
        )
        yield Company(world, connection)
