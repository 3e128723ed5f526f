"""The embedded world: everything around a receiver, real where it can be, on one machine.

Postgres with the project's own SQL, Supabase's HTTP API over it, pg_net's job, terminals; and the
real receiver in a process of its own. Also the referee: what every terminal should hold.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg
from psycopg.rows import dict_row

from receiver.sandbox.database.pg_net import PgNetWorker
from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import apply_migrations, create_project
from receiver.sandbox.portraits import likeness
from receiver.sandbox.receiver_process import ReceiverProcess
from receiver.sandbox.supabase.server import SupabaseStandIn
from receiver.sandbox.terminal.simulated import Profile, SimulatedTerminal

PASSWORD = "Parola-terminal-1"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A terminal on a wall, with its name there and its row's id."""

    name: str
    id: str
    terminal: SimulatedTerminal


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One person on one terminal, or as HR has them: comparable."""

    name: str
    photo: str | None
    """Whose portrait it is, as `portraits.likeness` says: a terminal may hold other bytes of it."""


class World:
    """A running world; `open_world` builds it. `receiver` is not started yet."""

    def __init__(  # noqa: PLR0913 - the parts of a world
        self,
        *,
        database: Database,
        supabase: SupabaseStandIn,
        pg_net: PgNetWorker,
        terminals: AsyncExitStack,
        environment: Mapping[str, str],
        receiver_port: int,
    ) -> None:
        self.database = database
        self.supabase = supabase
        self.pg_net = pg_net
        self.sites: tuple[Site, ...] = ()
        self._terminals = terminals
        self.environment = dict(environment)
        self.receiver = ReceiverProcess(self.environment, port=receiver_port)

    async def add_site(self, name: str, profile: Profile) -> Site:
        """Hang a terminal on a wall, switch it on and tell HR's tables of it."""
        terminal = SimulatedTerminal(
            profile=profile,
            password=PASSWORD,
            min_pause_s=float(self.environment["DEVICE_DELAY_SECONDS"]),
        )
        await self._terminals.enter_async_context(terminal)
        [row] = await self.execute(
            "insert into public.dispozitive_pontaj"
            " (nume, ip_address, port, username, password_encrypted)"
            " values (%s, %s, %s, 'admin', %s) returning id::text",
            *(name, terminal.host, terminal.port, PASSWORD),
        )
        site = Site(name=name, id=str(row["id"]), terminal=terminal)
        self.sites += (site,)
        return site

    async def execute(self, statement: str, *parameters: object) -> list[dict[str, object]]:
        """Run one statement as the database's owner, and return its rows if it has any.

        The loop goes on meanwhile: it serves Supabase, and a statement may wait for Supabase's open
        requests.
        """
        return await asyncio.to_thread(self._execute, statement, parameters)

    def _execute(self, statement: str, parameters: tuple[object, ...]) -> list[dict[str, object]]:
        with psycopg.connect(self.database.owner_dsn, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    async def wanted(self) -> dict[str, Standing]:
        """Return the persons who may pass according to HR's tables: number → name and photo."""
        rows = await self.execute(
            "select b.employee_no, b.foto_fata_url, case"
            "  when btrim(coalesce(a.nume, '')) <> '' and btrim(coalesce(a.prenume, '')) <> ''"
            "  then btrim(a.nume) || ' ' || btrim(a.prenume) else a.nume_complet end as name"
            " from public.angajati a join public.angajati_biometrie b on b.angajat_id = a.id"
            " where a.status = 'activ' and b.employee_no is not null"
        )
        return {str(r["employee_no"]): self._standing(r["name"], r["foto_fata_url"]) for r in rows}

    def _standing(self, name: object, photo_url: object) -> Standing:
        photo = None
        if photo_url:
            file = str(photo_url).rpartition("/")[2]
            photo = likeness(self.supabase.photos[file])
        return Standing(name=str(name), photo=photo)

    @staticmethod
    def standing_on(terminal: SimulatedTerminal) -> dict[str, Standing]:
        """Return the persons who may pass according to a terminal itself."""
        now = datetime.now(UTC)
        return {
            number: Standing(name=p.name, photo=p.face.likeness if p.face else None)
            for number, p in terminal.persons.items()
            if p.may_pass(now)
        }

    async def disagreeing(self) -> list[Site]:
        """Return the sites whose terminal does not hold what HR says, as far as it can."""
        wanted = await self.wanted()
        return [
            site
            for site in self.sites
            if self.standing_on(site.terminal) != as_held(wanted, site.terminal.profile)
        ]

    async def agreed(self, *, but: Sequence[Site] = (), within_s: float) -> bool:
        """Wait until all terminals agree with HR; return False where they do not in time."""
        try:
            async with asyncio.timeout(within_s):
                while {s.id for s in await self.disagreeing()} - {s.id for s in but}:  # noqa: ASYNC110 - HTTP terminals tell nobody
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True


def as_held(wanted: Mapping[str, Standing], profile: Profile) -> dict[str, Standing]:
    """Return these persons as a terminal can hold them: with the part of a name that fits."""
    return {
        number: replace(
            person,
            name=person.name.encode()[: profile.name_bytes].decode(errors="ignore").rstrip(),
        )
        for number, person in wanted.items()
    }


@asynccontextmanager
async def open_world(  # noqa: PLR0913 - keyword-only, and most have a default
    profiles: Mapping[str, Profile],
    *,
    pause_s: float,
    poll_s: float,
    lanes: int = 1,
    postgres: PostgresServer | None = None,
    supabase_port: int = 0,
    receiver_port: int = 0,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[World]:
    """Build the world with a terminal for each profile, by name of its site; end it all on exit.

    `pause_s`, `poll_s`, `lanes` and `settings` (environment variables) are the receiver's.
    """
    async with AsyncExitStack() as stack:
        server = postgres or stack.enter_context(await asyncio.to_thread(PostgresServer.embedded))
        database = await asyncio.to_thread(create_project, server, f"w_{secrets.token_hex(8)}")
        stack.callback(database.drop)
        await asyncio.to_thread(apply_migrations, database)
        supabase = await stack.enter_async_context(SupabaseStandIn(database, port=supabase_port))
        pg_net = await stack.enter_async_context(PgNetWorker(database.superuser_dsn))
        terminals = await stack.enter_async_context(AsyncExitStack())
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        world = World(
            database=database,
            supabase=supabase,
            pg_net=pg_net,
            terminals=terminals,
            environment={
                "SUPABASE_URL": supabase.url,
                "SUPABASE_SERVICE_ROLE_KEY": supabase.secret_key,
                "WEBHOOK_SECRET": secret,
                "DEVICE_DELAY_SECONDS": str(pause_s),
                "DEVICE_LANES": str(lanes),
                "POLL_SECONDS": str(poll_s),
                **(settings or {}),
            },
            receiver_port=receiver_port,
        )
        for vault_name, value in (
            ("hikvision_sync_webhook_url", f"{world.receiver.url}/webhooks/supabase"),
            ("hikvision_sync_webhook_secret", secret),
        ):
            await world.execute("select vault.create_secret(%s, %s)", value, vault_name)
        for name, profile in profiles.items():
            await world.add_site(name, profile)
        stack.push_async_callback(world.receiver.close)
        yield world
