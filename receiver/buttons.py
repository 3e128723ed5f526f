"""The routes under /api/hikvision: the React app's buttons, and what watches their runs.

Who calls is verified before anything else is looked at; what a run does is in `runs`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from receiver.bodies import read_body
from receiver.errors import (
    BodyNotJson,
    OptionsInvalid,
    RunUnknown,
    TokenInvalid,
    TooManyRequests,
)
from receiver.events import parse_uuid
from receiver.logs import get_logger
from receiver.run import OnFatal, Run
from receiver.services import Services

PRESSES_PER_MINUTE: Final = 60
NDJSON: Final = "application/x-ndjson"
RUN_ID: Final = "X-Run-Id"
"""The header that names the run: who is cut off before the first line can still ask for it."""

Endpoint = Callable[[Request], Awaitable[Response]]

log = get_logger(__name__)


def services(request: Request) -> Services:
    """Return what the app was built with."""
    found: Services = request.app.state.services
    return found


def signed_in(endpoint: Endpoint) -> Endpoint:
    """Let only callers with a valid access token in; the caller is on `request.state`."""

    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        given = request.headers.getlist("authorization")
        if len(given) > 1:
            raise TokenInvalid
        caller = await services(request).tokens.caller(given[0] if given else None)
        request.state.caller = caller
        log.info("request", path=request.scope["path"], method=request.method, sub=caller.sub)
        return await endpoint(request)

    return guarded


class Presses:
    """Counts each caller's presses of a button within the last minute."""

    def __init__(self, per_minute: int = PRESSES_PER_MINUTE) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def count(self, sub: str, now: Callable[[], float]) -> None:
        """Count one press; raise TooManyRequests for one too many."""
        if not await self._limiter.hit(self._limit, sub):
            window = await self._limiter.get_window_stats(self._limit, sub)
            raise TooManyRequests(retry_after_s=max(1, round(window.reset_time - now() + 0.5)))


def pressed(endpoint: Endpoint) -> Endpoint:
    """Let a signed-in caller press a button, and not too often."""

    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        presses: Presses = request.app.state.presses
        await presses.count(request.state.caller.sub, request.app.state.now)
        return await endpoint(request)

    return signed_in(guarded)


@pressed
async def sync_employee(request: Request) -> Response:
    """Push one employee to all active terminals."""
    return await _one_employee(request, photo_only=False)


@pressed
async def sync_photo(request: Request) -> Response:
    """Push one employee's photo to all active terminals."""
    return await _one_employee(request, photo_only=True)


@pressed
async def sync_all(request: Request) -> Response:
    """Push all active employees to all active terminals."""
    on_fatal = _on_fatal(await _options(request))
    return await _answer(request, await services(request).runs.start_all(on_fatal))


@signed_in
async def one_run(request: Request) -> Response:
    """Tell how far a run is and its result once it has ended; DELETE has it end early."""
    run = services(request).runs.get(request.path_params["run_id"])
    if run is None:
        raise RunUnknown
    if request.method == "DELETE":
        services(request).runs.stop(run)
        return JSONResponse(run.progress(), HTTPStatus.ACCEPTED)
    return JSONResponse(run.progress())


async def _one_employee(request: Request, *, photo_only: bool) -> Response:
    options = await _options(request)
    employee_id = parse_uuid(options.get("angajat_id"))
    if employee_id is None:
        raise OptionsInvalid("angajat_id is missing, or is not a UUID.")
    run = await services(request).runs.start_one(
        employee_id, _on_fatal(options), photo_only=photo_only
    )
    return await _answer(request, run)


async def _options(request: Request) -> Mapping[str, Any]:
    body = await read_body(request)
    try:
        options = json.loads(body.decode()) if body.strip() else {}
    except (ValueError, RecursionError):
        raise BodyNotJson from None
    if not isinstance(options, Mapping):
        raise OptionsInvalid("The body is not a JSON object.")
    return options


def _on_fatal(options: Mapping[str, Any]) -> OnFatal:
    match options.get("on_fatal", "stop"):
        case "stop":
            return "stop"
        case "continue":
            return "continue"
    raise OptionsInvalid('on_fatal must be "stop" or "continue".')


async def _answer(request: Request, run: Run) -> Response:
    """Stream the run to who asked for a stream, and to others its whole result at its end."""
    if NDJSON in request.headers.get("accept", ""):
        return StreamingResponse(
            _lines(run),
            media_type=NDJSON,
            # nginx would hold lines back until its buffer is full
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", RUN_ID: run.id},
        )
    await run.ended()
    return JSONResponse(run.as_json(), headers={RUN_ID: run.id})


async def _lines(run: Run) -> AsyncIterator[bytes]:
    async for line in run.watch():
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


ROUTES = [
    Route("/api/hikvision/sync-angajat-all-devices", sync_employee, methods=["POST"]),
    Route("/api/hikvision/sync-all-to-all-devices", sync_all, methods=["POST"]),
    Route("/api/hikvision/sync-angajat-photo-only", sync_photo, methods=["POST"]),
    Route("/api/hikvision/runs/{run_id}", one_run, methods=["GET", "DELETE"]),
]
