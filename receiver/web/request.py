"""The parts of a request: its body, bounded in size and time, the JSON object in it, a UUID."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.types import Receive

from receiver.core.errors import BodyNotJson, BodyTooLarge, BodyTooSlow, OptionsInvalid

MAX_BODY_BYTES = 1024 * 1024
MAX_DRAINED_BYTES = 32 * MAX_BODY_BYTES
"""How much of a body that is too large is read and thrown away, so that its sender reads the 413
instead of a reset connection."""
BODY_TIMEOUT_S = 10.0
SMALL_BODY_BYTES = 16 * 1024
"""Far more than a webhook of ours (300 bytes), a press, or a webhook with whole rows has."""
LARGE_BODIES = 8
"""How many larger ones are read at a time. The others wait unread, within their time, so that a
client that sends hundreds of them takes no memory, and delays no small one."""
_UUID = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def read_body(receive: Receive, large: asyncio.Semaphore) -> bytes:
    """Return the body: at most 1 MiB, within 10 s; raise BodyTooLarge or BodyTooSlow.

    `large` admits the app's large bodies, LARGE_BODIES at a time.
    """
    body, size, more, has_turn = bytearray(), 0, True, False
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while more and size <= MAX_DRAINED_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BodyTooSlow("The body ended early.")
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size > SMALL_BODY_BYTES and not has_turn:
                    await large.acquire()
                    has_turn = True
                if size <= MAX_BODY_BYTES:
                    body += chunk
    except TimeoutError:
        raise BodyTooSlow from None
    finally:
        if has_turn:
            large.release()
    if size > MAX_BODY_BYTES:
        raise BodyTooLarge
    return bytes(body)


async def json_object(request: Request) -> Mapping[str, Any]:
    """Return the JSON object in the body, empty for an empty body.

    Raises BodyNotJson, OptionsInvalid, or what `read_body` does.
    """
    body = await read_body(request.receive, request.app.state.large_bodies)
    try:
        options = json.loads(body.decode()) if body.strip() else {}
    except (ValueError, RecursionError):
        raise BodyNotJson from None
    if not isinstance(options, Mapping):
        raise OptionsInvalid("The body is not a JSON object.")
    return options


def parse_uuid(value: object) -> UUID | None:
    """Return the UUID that a JSON value spells in the usual form; None for anything else."""
    return UUID(value) if isinstance(value, str) and _UUID.fullmatch(value) else None
