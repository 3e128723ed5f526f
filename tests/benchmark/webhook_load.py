"""Posts signed webhooks over connections kept alive, as fast as they are answered.

A process of its own, so that what it costs is not the server's:
`python -m tests.benchmark.webhook_load PORT REQUESTS CONNECTIONS`, the secret on stdin; prints a
`Taken` as JSON.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass

WARM_UP = 500
ACCEPTED = b"HTTP/1.1 202 "


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the acknowledgements took; latencies in seconds."""

    per_second: float
    p50_s: float
    p99_s: float


def signed(number: int, port: int, key: bytes) -> bytes:
    """Return one webhook as pg_net sends it, of an employee of its own."""
    record = {"id": str(uuid.UUID(int=number))}
    event = {"type": "UPDATE", "table": "angajati", "schema": "public", "record": record}
    body = json.dumps({**event, "old_record": None}).encode()
    head = f"msg_{number}.{int(time.time())}"
    digest = hmac.digest(key, head.encode() + b"." + body, hashlib.sha256)
    webhook_id, _, timestamp = head.partition(".")
    return (
        "POST /webhooks/supabase HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "User-Agent: pg_net/0.20.4\r\n"
        "Content-Type: application/json\r\n"
        f"webhook-id: {webhook_id}\r\n"
        f"webhook-timestamp: {timestamp}\r\n"
        f"webhook-signature: v1,{base64.b64encode(digest).decode()}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


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
    """Warm up, post, and print what it took."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    await load(port, [signed(n, port, key) for n in range(WARM_UP)], connections)
    letters = [signed(n, port, key) for n in range(requests)]
    print(json.dumps(asdict(await load(port, letters, connections))))


if __name__ == "__main__":
    asyncio.run(main(sys.stdin.read().strip(), *map(int, sys.argv[1:4])))
