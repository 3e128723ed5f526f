"""A request's body, bounded in size and time."""

import asyncio

from starlette.types import Receive

from receiver.errors import BodyTooLarge, BodyTooSlow

MOST_BODY_BYTES = 1024 * 1024
MOST_DRAINED_BYTES = 32 * MOST_BODY_BYTES
"""How much of a body that is too large is read and thrown away, so that its sender gets to read
the 413 instead of a reset connection."""
BODY_TIMEOUT_S = 10.0


async def read_body(receive: Receive) -> bytes:
    """Return the body: at most 1 MiB, within 10 s; raise BodyTooLarge or BodyTooSlow."""
    body, size, more = bytearray(), 0, True
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while more and size <= MOST_DRAINED_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BodyTooSlow("The body ended early.")
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size <= MOST_BODY_BYTES:
                    body += chunk
    except TimeoutError:
        raise BodyTooSlow from None
    if size > MOST_BODY_BYTES:
        raise BodyTooLarge
    return bytes(body)
