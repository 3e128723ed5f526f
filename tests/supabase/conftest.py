"""Fixtures of the tests about access tokens and keys."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from receiver.supabase.access_tokens import Caller
from tests.support.key_server import Standing, World, new_world
from tests.support.tokens import GOOD, SECRET


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    with asyncio.Runner() as runner:
        context = new_world()
        world = runner.run(context.__aenter__())
        standing = Standing(world, runner, world.verifier(SECRET), world.verifier())
        for verifier in (standing.verifier, standing.without_secret):
            assert isinstance(standing.of(verifier, f"Bearer {GOOD['ES256']}"), Caller)
        yield standing
        runner.run(context.__aexit__(None, None, None))
