"""Answers that come line by line, one JSON object per line (application/x-ndjson)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import chain
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.on_demand.feed import Json
from receiver.web.pieces import PIECE, pieces, texts

NDJSON: Final = "application/x-ndjson"


def wants_lines(request: Request) -> bool:
    """Return whether the caller asked for a stream, one JSON object per line."""
    return NDJSON in request.headers.get("accept", "")


def lines(feed: AsyncIterator[Json], headers: Mapping[str, str]) -> Response:
    """Return a stream of the feed, one JSON object per line."""

    async def encoded() -> AsyncIterator[bytes]:
        sent = 0
        async for line in feed:
            async for piece in pieces(chain(texts(line), "\n")):
                sent += len(piece)
                yield piece
            if sent >= PIECE:  # a watcher who fell behind is sent many lines at once
                sent = 0
                await asyncio.sleep(0)

    # nginx would keep lines until its buffer is full
    unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(encoded(), media_type=NDJSON, headers={**unbuffered, **headers})
