"""Reports for the React app: how every terminal stands, and what one of them holds."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.core.errors import DeviceUnknown, OptionsInvalid, TerminalUnusable
from receiver.on_demand.feed import Feed, Json
from receiver.on_demand.status import MAX_FAILED
from receiver.web.access import pressed, services, signed_in
from receiver.web.ndjson import lines, wants_lines
from receiver.web.request import parse_uuid

KINDS: Final = ("missing", "different", "unknown")


@signed_in
async def status(request: Request) -> Response:
    """Return how every active terminal stands, and a page of the failed pairs."""
    limit = request.query_params.get("limit", str(MAX_FAILED))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= MAX_FAILED):
        raise OptionsInvalid(f"limit must be a number from 1 to {MAX_FAILED}.")
    status = services(request).status
    return JSONResponse(await status.as_json(after=_after(request), limit=int(limit)))


@pressed
async def drift(request: Request) -> Response:
    """Compare what one terminal holds with what HR says, asked of the terminal now."""
    device_id = parse_uuid(request.path_params["device_id"])
    if device_id is None:
        raise DeviceUnknown
    try:
        feed = await services(request).drifts.start(device_id)
    except TerminalUnusable as error:
        raise DeviceUnknown(error.message) from None
    if wants_lines(request):
        return lines(_pinged(feed), {})
    await feed.ended()
    end = {key: value for key, value in feed.lines[-1].items() if key != "type"}
    return JSONResponse({**end, **{kind: _of(feed, kind) for kind in KINDS}})


def _after(request: Request) -> tuple[UUID, UUID] | None:
    """Return the failed pair after which the page begins: `next` of the page before."""
    text = request.query_params.get("after")
    if text is None:
        return None
    terminal_id, employee_id = (parse_uuid(part) for part in [*text.split("."), "", ""][:2])
    if terminal_id is None or employee_id is None:
        raise OptionsInvalid("after must be what `next` of the page before said.")
    return terminal_id, employee_id


def _of(feed: Feed, kind: str) -> list[Json]:
    found = (line for line in feed.lines if line["type"] == kind)
    return [{key: value for key, value in line.items() if key != "type"} for line in found]


async def _pinged(feed: Feed) -> AsyncIterator[Json]:
    async for line in feed.watch():
        yield {"type": "ping"} if line is None else line


ROUTES = [
    Route("/api/hikvision/status", status, methods=["GET"]),
    Route("/api/hikvision/devices/{device_id}/drift", drift, methods=["GET"]),
]
