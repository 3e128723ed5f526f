"""A request's body, bounded in size and time; and all bodies together, in size."""

import asyncio

from starlette.types import Receive

from receiver.core.errors import BodyTooLarge, BodyTooSlow

MOST_BODY_BYTES = 1024 * 1024
MOST_DRAINED_BYTES = 32 * MOST_BODY_BYTES
"""How much of a body that is too large is read and thrown away, so that its sender gets to read
the 413 instead of a reset connection."""
BODY_TIMEOUT_S = 10.0
SMALL_BODY_BYTES = 16 * 1024
"""Far more than a webhook of ours (300 bytes) or a press has, and than one with whole rows has."""
LARGE_BODIES = 8
"""How many larger ones are read at a time. The others wait within their time and their senders are
not read, so that who sends hundreds of them takes no memory, and no turn from a small one."""


async def read_body(receive: Receive, large: asyncio.Semaphore) -> bytes:
    """Return the body: at most 1 MiB, within 10 s; raise BodyTooLarge or BodyTooSlow.

    `large` has the turns of the app's large bodies.
    """
    body, size, more, has_turn = bytearray(), 0, True, False
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while more and size <= MOST_DRAINED_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BodyTooSlow("The body ended early.")
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size > SMALL_BODY_BYTES and not has_turn:
                    await large.acquire()
                    has_turn = True
                if size <= MOST_BODY_BYTES:
                    body += chunk
    except TimeoutError:
        raise BodyTooSlow from None
    finally:
        if has_turn:
            large.release()
    if size > MOST_BODY_BYTES:
        raise BodyTooLarge
    return bytes(body)
