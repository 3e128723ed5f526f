"""Marks every test of this folder as `whole`, and opens worlds for them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from tests.support.buttons import (
    Open,
    worker_at_rest,
)

HERE = Path(__file__).parent
HANGS_AFTER_S = 600
"""A bound for a test that waits without end, also on a machine that has much else to do."""


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.whole)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(HANGS_AFTER_S))


@pytest.fixture
async def opened(embedded_postgres: PostgresServer) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def build(*profiles: Profile, **options: Any) -> World:
            settings = {"DEVICE_TIMEOUT_SECONDS": "2", **options.pop("settings", {})}
            named = {f"{i} {profile.name}": profile for i, profile in enumerate(profiles)}
            options = {"pause_s": 0.05, "poll_s": 3600.0, **options}
            world = await stack.enter_async_context(
                open_world(named, postgres=embedded_postgres, settings=settings, **options)
            )
            await world.receiver.start()
            await worker_at_rest(world)
            return world

        yield build
