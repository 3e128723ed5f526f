"""Request bodies read with a bound."""

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_BODY = 20 * 1024 * 1024


async def read_body(request: Request) -> bytes:
    """Return the whole body; raise a 413 where it is longer than anything the sandbox takes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, "the body is too large for the sandbox")
    return bytes(body)
