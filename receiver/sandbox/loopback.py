"""Serves an ASGI app on 127.0.0.1 in the running loop; can be switched off, gently or not."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Self

import uvicorn
from starlette.types import ASGIApp

START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 5
ACCEPTED_WITHIN = 5  # rounds of the loop
GRACE_S = 0.5  # for requests under way when it is stopped


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the program that runs the loop.

    An event tells it to stop, and it stops at once, where uvicorn sleeps in between: there are many
    tests and each stops one.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.asked_to_stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.asked_to_stop.wait()

    async def stop_listening(self) -> None:
        """Accept no more connections, after the ones that are being accepted.

        asyncio loses a connection that is being accepted when its server closes: first no more,
        then a few rounds of the loop for these, then the end.
        """
        listening = [listener.fileno() for server in self.servers for listener in server.sockets]
        for number in listening:
            asyncio.get_running_loop().remove_reader(number)
        for _ in range(ACCEPTED_WITHIN):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.stop_listening()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if tasks := set(self.server_state.tasks):
            _, unfinished = await asyncio.wait(tasks, timeout=GRACE_S)
            for task in unfinished:
                task.cancel()


class LoopbackServer:
    """One app on one port of the loopback; it keeps the port while it is switched off.

    Port 0 lets the system choose; `port` and `url` are known from the start. Beyond
    `max_connections` it answers 503.
    """

    def __init__(self, app: ASGIApp, *, port: int = 0, max_connections: int | None = None) -> None:
        self._app = app
        self._max_connections = max_connections
        self._listener: socket.socket | None = bound_socket(port)
        self.port: int = self._listener.getsockname()[1]
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Return where it is reached, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve, and return once connections are accepted; do nothing if it serves already."""
        if self._serving is not None:
            return
        listener = self._listener or bound_socket(self.port)
        self._listener = listener
        config = uvicorn.Config(
            self._app,
            interface="asgi3",  # uvicorn guesses wrong about bound methods
            loop="none",
            limit_concurrency=self._max_connections,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http="h11",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # uvicorn's own loop, left out above, would keep it right
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not self._server.started:
                    if self._serving.done():
                        await self._serving
                    await asyncio.sleep(0.005)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Refuse connections from now on and cut the open ones; `start` brings it back."""
        serving, self._serving = self._serving, None
        if serving is not None and self._server is not None:
            self._server.asked_to_stop.set()
            self._server.should_exit = True  # in case it has not come up yet
            done, _ = await asyncio.wait({serving}, timeout=STOP_TIMEOUT_S)
            if not done:
                serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            self._server = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def pull_plug(self) -> None:
        """Break connections and cancel their requests, as a power cut does; keep the port."""
        server, serving = self._server, self._serving
        if server is None or serving is None or self._listener is None:
            return
        self._server = self._serving = None
        serving.cancel()
        await asyncio.wait({serving})
        _abort(server)
        await server.stop_listening()
        _abort(server)  # what was being accepted too
        self._listener.close()
        # Bound but not listening: connections are refused and no other program gets the port.
        self._listener = bound_socket(self.port)
        await asyncio.sleep(0)
        if calls := list(server.server_state.tasks):
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)


def _abort(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def bound_socket(port: int) -> socket.socket:
    """Return a socket bound to the port on 127.0.0.1 (0: any free one), not yet listening."""
    # The protocol is named because asyncio sets TCP_NODELAY only where it is; without, each answer
    # waits 40 ms for a delayed ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except BaseException:
        listener.close()
        raise
    return listener
