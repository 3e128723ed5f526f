"""JSON that may be long, written in pieces: no single step of it keeps other requests waiting.

A whole run of half a million pairs is 100 MB, and would take seconds to write at once.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from receiver.on_demand.feed import Json

PIECE: Final = 16 * 1024
"""About how many characters are written before other work has its turn: a few milliseconds."""


def texts(value: Any) -> Iterator[str]:
    """Write a value as Starlette's JSONResponse does; an iterator becomes an array, item by item.

    It looks for iterators in dicts only: any other value is written in one text.
    """
    if isinstance(value, dict) and any(
        isinstance(item, dict | Iterator) for item in value.values()
    ):
        for n, (key, item) in enumerate(value.items()):
            yield f"{',' if n else '{'}{_written(key)}:"
            yield from texts(item)
        yield "}"
    elif isinstance(value, Iterator):
        begin = "["
        for item in value:
            yield begin + _written(item)
            begin = ","
        yield "[]" if begin == "[" else "]"
    else:
        yield _written(value)


async def pieces(written: Iterator[str]) -> AsyncIterator[bytes]:
    """Yield the texts in pieces, and let other work have its turn after each full one."""
    piece: list[str] = []
    size = 0
    for text in written:
        piece.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(piece).encode()
            piece, size = [], 0
            await asyncio.sleep(0)
    if piece:
        yield "".join(piece).encode()


def in_pieces(
    value: Json, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response that is written as it is sent."""
    body = pieces(texts(value))
    return StreamingResponse(body, status, headers, media_type="application/json")


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
