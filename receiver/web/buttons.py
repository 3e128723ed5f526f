"""The React app's buttons, and how their runs are watched; what a run does is in `runs`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.core.errors import OptionsInvalid, RunUnknown
from receiver.on_demand.progress import OnFatal, Run
from receiver.web.access import pressed, services, signed_in
from receiver.web.ndjson import lines, wants_lines
from receiver.web.pieces import in_pieces
from receiver.web.request import json_object, parse_uuid

RUN_ID: Final = "X-Run-Id"
"""The header that names the run: a client that is cut off before the first line can ask for it."""


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
    on_fatal = _on_fatal(await json_object(request))
    return await _answer(request, await services(request).runs.start_all(on_fatal))


@signed_in
async def one_run(request: Request) -> Response:
    """Return how far a run is, and its result once it has ended; DELETE has it end early."""
    run = services(request).runs.get(request.path_params["run_id"])
    if run is None:
        raise RunUnknown
    if request.method == "DELETE":
        services(request).runs.stop(run)
        return in_pieces(run.progress(), HTTPStatus.ACCEPTED)
    return in_pieces(run.progress())


async def _one_employee(request: Request, *, photo_only: bool) -> Response:
    options = await json_object(request)
    employee_id = parse_uuid(options.get("angajat_id"))
    if employee_id is None:
        raise OptionsInvalid("angajat_id is missing, or is not a UUID.")
    run = await services(request).runs.start_one(
        employee_id, _on_fatal(options), photo_only=photo_only
    )
    return await _answer(request, run)


def _on_fatal(options: Mapping[str, Any]) -> OnFatal:
    match options.get("on_fatal", "stop"):
        case "stop":
            return "stop"
        case "continue":
            return "continue"
    raise OptionsInvalid('on_fatal must be "stop" or "continue".')


async def _answer(request: Request, run: Run) -> Response:
    """Stream the run to a client that asked for that; send others its whole result at its end."""
    if wants_lines(request):
        return lines(run.watch(), {RUN_ID: run.id})
    await run.ended()
    return in_pieces(run.as_json(), headers={RUN_ID: run.id})


ROUTES = [
    Route("/api/hikvision/sync-angajat-all-devices", sync_employee, methods=["POST"]),
    Route("/api/hikvision/sync-all-to-all-devices", sync_all, methods=["POST"]),
    Route("/api/hikvision/sync-angajat-photo-only", sync_photo, methods=["POST"]),
    Route("/api/hikvision/runs/{run_id}", one_run, methods=["GET", "DELETE"]),
]
