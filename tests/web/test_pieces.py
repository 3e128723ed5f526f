"""Long JSON is written in pieces, and reads as if it had been written at once."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from starlette.responses import JSONResponse, StreamingResponse

from receiver.core.models import Terminal
from receiver.on_demand.progress import Run
from receiver.web.ndjson import lines
from receiver.web.pieces import PIECE, in_pieces, pieces, texts


def lazily(value: Any) -> Any:
    """Return a value in which each list is an iterator."""
    if isinstance(value, dict):
        return {key: lazily(item) for key, item in value.items()}
    return iter(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": []},
        {"a": [1], "b": {}, "c": None, "d": "„ș”\n"},
        {"a": {"b": [{"c": [1, 2]}, []], "d": {"e": [True]}}, "f": 1.5, "g": ["x", "y"]},
    ],
)
def test_it_is_the_same_text_as_when_it_is_written_at_once(value: dict[str, Any]) -> None:
    at_once = bytes(JSONResponse(value).body).decode()
    assert "".join(texts(value)) == at_once
    assert "".join(texts(lazily(value))) == at_once


def large_run() -> Run:
    """Return a run that has ended, and of whose 200,000 pairs none was reached."""
    terminal = Terminal(id=UUID(int=1), host="10.0.0.1", port=80, username="a", password="b")
    run = Run(
        employee_ids=[UUID(int=n) for n in range(4000)],
        terminals=[(UUID(int=n), terminal) for n in range(50)],
        on_fatal="stop",
        bulk=True,
    )
    run.end()
    return run


class Turns:
    """Counts how often other work had its turn."""

    def __init__(self) -> None:
        self.had = 0

    async def take(self) -> None:
        while True:
            self.had += 1
            await asyncio.sleep(0)


async def sent(response: StreamingResponse) -> tuple[list[int], int, bytes]:
    """Return the sizes of what is sent, how often other work had its turn, and the body.

    Sending itself takes no turn here, as to a client that reads fast.
    """
    turns = Turns()
    task = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    found = [bytes(piece) async for piece in response.body_iterator]  # type: ignore[arg-type]
    task.cancel()
    return [len(piece) for piece in found], turns.had, b"".join(found)


@pytest.mark.parametrize("how", ["whole", "line by line"])
async def test_other_work_has_its_turn_while_a_huge_run_is_answered(how: str) -> None:
    run = large_run()
    response = in_pieces(run.progress()) if how == "whole" else lines(run.watch(), {})
    assert isinstance(response, StreamingResponse)
    sizes, turns, body = await sent(response)
    assert sum(sizes) > 5_000_000
    assert max(sizes) < 2 * PIECE
    assert turns > sum(sizes) / PIECE / 2
    found = json.loads(body) if how == "whole" else json.loads(body.splitlines()[-1])
    assert len(found.get("result", found)["not_reached"]) == len(run.employee_ids)


async def test_nothing_is_written_before_it_can_be_sent() -> None:
    written = 0

    def many() -> Iterator[str]:
        nonlocal written
        while True:
            written += 1
            yield "x" * 1000

    body = pieces(many())
    await anext(body)
    assert written == PIECE // 1000 + 1
    await body.aclose()  # type: ignore[attr-defined]


async def test_a_watcher_who_fell_behind_keeps_no_other_work_waiting() -> None:
    async def feed() -> Any:
        for n in range(5000):
            yield {"n": n, "text": "x" * 100}

    response = lines(feed(), {})
    assert isinstance(response, StreamingResponse)
    sizes, turns, _ = await sent(response)
    assert len(sizes) == 5000
    assert turns > sum(sizes) / PIECE / 2
