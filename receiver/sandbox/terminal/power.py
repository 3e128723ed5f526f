"""The power supply of a simulated terminal: a uvicorn server whose plug can be pulled.

Pulling it is not a graceful shutdown: connections break and what was in progress is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn

from receiver.sandbox.loopback import bound_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

_START_WITHIN_S = 5.0
_CONNECTIONS = 100


class PowerSupply:
    """Serves `app` on a port of the loopback inside the running loop, while it is on.

    Port 0 becomes a free port when it is first switched on, and is kept until `disconnect`.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        self.port = port
        self._reserved: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def switch_on(self) -> None:
        """Listen; returns once it does. No effect if it is on."""
        if self._server is not None:
            return
        listener, self._reserved = self._reserved or bound_socket(self.port), None
        self.port = listener.getsockname()[1]
        self._server = _server(self._app)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                while not self._server.started:
                    if self._serving.done():
                        self._serving.result()
                    await asyncio.sleep(0.001)
        except BaseException:
            listener.close()
            self._serving.cancel()
            self._server = self._serving = None
            raise

    async def switch_off(self) -> None:
        """Refuse connections, break those there are, cancel what they asked for."""
        server, serving = self._server, self._serving
        if server is None or serving is None:
            return
        self._server = self._serving = None
        serving.cancel()
        await asyncio.wait({serving})
        for listener in server.servers:
            listener.close()
        # Bound but not listening: connections are refused and nobody else gets the port.
        self._reserved = bound_socket(self.port)
        await _break_connections(server)

    def disconnect(self) -> None:
        """Give the port back."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program that we run in."""
        yield


def _server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            interface="asgi3",  # uvicorn guesses wrong about bound methods
            proxy_headers=False,
            loop="none",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
        )
    )


async def _break_connections(server: uvicorn.Server) -> None:
    for _ in range(3):  # a connection may just have been accepted
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
    calls = list(server.server_state.tasks)
    for call in calls:
        call.cancel()
    if calls:
        await asyncio.wait(calls)
