"""The sandbox's servers leave nothing behind, whenever they are stopped."""

import asyncio
import gc
import socket
from contextlib import closing

import pytest
from starlette.types import Receive, Scope, Send

from receiver.sandbox.loopback import LoopbackServer


async def no_content(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def caller(port: int) -> socket.socket:
    calling = socket.socket()
    calling.settimeout(0)
    calling.connect_ex(("127.0.0.1", port))
    return calling


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_is_just_being_accepted_is_closed_too(turns: int) -> None:
    server, power = LoopbackServer(no_content), LoopbackServer(no_content)
    await server.start()
    await power.start()
    with closing(caller(server.port)), closing(caller(power.port)):
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.stop()
        await power.pull_plug()
    await power.stop()
    gc.collect()  # an open one left behind is a ResourceWarning, and that an error
