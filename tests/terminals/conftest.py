"""Fixtures of these tests."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from receiver.sandbox.portraits import portrait
from tests.support.raw_terminals import (
    answer,
    listening,
    read_request,
)


@pytest.fixture
async def photos() -> AsyncIterator[Callable[[str], str]]:
    """Serve a portrait under any name; the fixture returns the URL of one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await read_request(reader)).split(b" ")[1].decode()
        writer.write(answer(portrait(target), headers="Connection: close\r\n"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with listening(serve) as port:
        yield lambda name: f"http://127.0.0.1:{port}/{name}"
