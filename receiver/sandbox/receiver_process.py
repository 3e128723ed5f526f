"""The real receiver in a process of its own.

Started as in production: uvicorn and the Procfile's flags. Only the address differs: loopback
instead of all interfaces.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

from receiver.web.server_flags import APP, FLAGS

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 70.0  # a face call in flight may end (45 s)


class ReceiverFailedError(Exception):
    """The receiver did not start; the message ends with what it logged."""


class ReceiverProcess:
    """One receiver: `start`, `stop` (SIGTERM), `kill` (SIGKILL), and start again."""

    def __init__(self, environment: Mapping[str, str], *, port: int = 0) -> None:
        self._environment = dict(environment)
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        directory = tempfile.TemporaryDirectory(prefix="receiver-")
        self._directory = directory
        self.log = Path(directory.name) / "receiver.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop it, if it runs, and forget what it logged."""
        await self.stop()
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        """Return the id of the last process; raise ReceiverFailedError if there was none."""
        if self._process is None:
            raise ReceiverFailedError("The receiver was never started.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the process lives."""
        return self._process is not None and self._process.returncode is None

    def logged(self) -> str:
        """Return what it has logged so far, in all its runs."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    async def start(self) -> None:
        """Start it and return once it is alive, even if it reaches nothing."""
        command = [sys.executable, "-m", "uvicorn", APP, *FLAGS]
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**kept, **self._environment},
                cwd=Path(__file__).parents[2],
            )
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            for _ in range(int(START_TIMEOUT_S / 0.05)):
                if not self.running:
                    break
                try:
                    if (await client.get(f"{self.url}/healthz")).is_success:
                        return
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
        await self.kill()
        raise ReceiverFailedError(f"The receiver did not start. It said:\n{self.logged()[-3000:]}")

    async def stop(self) -> int | None:
        """Ask it to stop, wait until it has, and return its exit code."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Kill it at once."""
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it without its knowledge: it does nothing more until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def _end(self, how: signal.Signals) -> int | None:
        if self._process is None:
            return None
        self._signal(how)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
