"""Answers that come line by line, one JSON object per line (application/x-ndjson)."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.on_demand.feed import Json

NDJSON: Final = "application/x-ndjson"


def wants_lines(request: Request) -> bool:
    """Return whether the caller asked for a stream, one JSON object per line."""
    return NDJSON in request.headers.get("accept", "")


def lines(feed: AsyncIterator[Json], headers: Mapping[str, str]) -> Response:
    """Return a stream of the feed, one JSON object per line."""

    async def encoded() -> AsyncIterator[bytes]:
        async for line in feed:
            yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    # nginx would keep lines until its buffer is full
    unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(encoded(), media_type=NDJSON, headers={**unbuffered, **headers})
