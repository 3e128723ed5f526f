"""Posts signed webhooks over connections kept alive, as fast as they are answered.

A process of its own, so that its cost is not the server's:
`python -m tests.benchmark.webhook_load PORT REQUESTS CONNECTIONS`, the secret on stdin; prints a
`Taken` as JSON.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from tests.support.faults import signed

WARM_UP = 500
ACCEPTED = b"HTTP/1.1 202 "


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The times that the acknowledgements took; latencies in seconds."""

    per_second: float
    p50_s: float
    p99_s: float


def letter(number: int, port: int, secret: str) -> bytes:
    """Return one webhook as pg_net sends it, of an employee of its own."""
    record = {"id": str(uuid.UUID(int=number))}
    event = {"type": "UPDATE", "table": "angajati", "schema": "public", "record": record}
    body = json.dumps({**event, "old_record": None}).encode()
    headers = {
        "Host": f"127.0.0.1:{port}",
        "User-Agent": "pg_net/0.20.4",
        "Content-Type": "application/json",
        **signed(secret, body, id_=f"msg_{number}", at=time.time()),
        "Content-Length": str(len(body)),
    }
    lines = ["POST /webhooks/supabase HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """Posts the next webhook once the one before is answered."""

    def __init__(self, letters: Iterator[bytes], took_s: list[float]) -> None:
        self._letters = letters
        self._took_s = took_s
        self._answer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._post()

    def _post(self) -> None:
        assert self._transport is not None
        letter = next(self._letters, None)
        if letter is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(letter)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(b"}"):
            return
        self._took_s.append(time.perf_counter() - self._sent_at)
        if not self._answer.startswith(ACCEPTED):
            self.done.set_exception(RuntimeError(self._answer.decode()))
            return
        self._answer = b""
        self._post()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed by the server"))


async def load(port: int, letters: list[bytes], connections: int) -> Taken:
    """Post all of them; raise RuntimeError where one is not accepted."""
    took_s: list[float] = []
    waiting = iter(letters)
    loop = asyncio.get_running_loop()
    began_at = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: Connection(waiting, took_s), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    elapsed_s = time.perf_counter() - began_at
    took_s.sort()
    return Taken(
        per_second=len(took_s) / elapsed_s,
        p50_s=took_s[len(took_s) // 2],
        p99_s=took_s[len(took_s) * 99 // 100],
    )


async def main(secret: str, port: int, requests: int, connections: int) -> None:
    """Warm up, post, and print the result."""
    await load(port, [letter(n, port, secret) for n in range(WARM_UP)], connections)
    letters = [letter(n, port, secret) for n in range(requests)]
    print(json.dumps(asdict(await load(port, letters, connections))))


if __name__ == "__main__":
    asyncio.run(main(sys.stdin.read().strip(), *map(int, sys.argv[1:4])))
