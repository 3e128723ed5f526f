"""The HTTP face: routes of a few lines each. What they decide is decided elsewhere."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import wraps
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver import buttons, logs, reports, signatures
from receiver.bodies import read_body
from receiver.callers import Endpoint, Presses, services
from receiver.cors import Cors
from receiver.errors import RequestRefused, SignatureInvalid, SupabaseError
from receiver.events import parse_event
from receiver.metrics import CONTENT_TYPE
from receiver.openapi import DOCUMENT
from receiver.problems import (
    UnexpectedErrors,
    http_refused,
    problem,
    request_refused,
    supabase_failed,
)
from receiver.services import running
from receiver.settings import Settings

log = logs.get_logger(__name__)


def create_app() -> Starlette:
    """Return the app; reads the environment and raises SettingsInvalid where it is not complete."""
    settings = Settings.from_env()
    logs.configure(settings.log_format)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(settings) as app.state.services:
            yield

    app = Starlette(
        routes=[
            Route("/webhooks/supabase", supabase_webhook, methods=["POST"]),
            *buttons.ROUTES,
            *reports.ROUTES,
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
        ],
        exception_handlers={
            RequestRefused: request_refused,
            SupabaseError: supabase_failed,
            HTTPException: http_refused,
        },
        middleware=[
            Middleware(
                Cors,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "Accept"],
                expose_headers=["Retry-After", "WWW-Authenticate", buttons.RUN_ID],
                # The app comes from the internet, the receiver may stand on the office's LAN.
                allow_private_network=True,
            ),
            Middleware(UnexpectedErrors),
        ],
        lifespan=lifespan,
    )
    app.state.webhook_keys = settings.webhook_keys
    app.state.presses = Presses()
    app.state.now = time.time
    app.router.redirect_slashes = False  # pg_net would follow a redirect without the body
    return app


def counted(endpoint: Endpoint) -> Endpoint:
    """Count what a webhook is answered, by HTTP status."""

    @wraps(endpoint)
    async def counting(request: Request) -> Response:
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            answer = await endpoint(request)
            status = answer.status_code
        except RequestRefused as refusal:
            status = refusal.status
            raise
        finally:
            services(request).metrics.answered(status)
        return answer

    return counting


@counted
async def supabase_webhook(request: Request) -> Response:
    """Verify, validate, wake the worker, 202. Nothing is awaited but the body itself."""
    body = await read_body(request)
    signatures.verify(
        request.app.state.webhook_keys,
        webhook_id=_single(request, b"webhook-id"),
        timestamp=_single(request, b"webhook-timestamp"),
        signatures=b" ".join(_values(request, b"webhook-signature")),
        body=body,
        now=time.time(),
    )
    event = parse_event(body)
    services(request).worker.wake()
    angajat_id = str(event.employee_id) if event.employee_id else None
    log.info("webhook_accepted", table=event.table, type=event.type, employee_id=angajat_id)
    return JSONResponse({"accepted": True, "angajat_id": angajat_id}, HTTPStatus.ACCEPTED)


async def healthz(_request: Request) -> Response:
    """Say that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Say whether the worker can do its work, or why not."""
    fault = services(request).worker.fault
    if fault is None:
        return JSONResponse({"status": "ready"})
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, fault)


async def metrics(request: Request) -> Response:
    """Return the figures for Prometheus."""
    return Response(await services(request).scrapes.text(), media_type=CONTENT_TYPE)


async def openapi(_request: Request) -> Response:
    """Describe all routes."""
    return JSONResponse(DOCUMENT)


def _values(request: Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers.raw if key == name]


def _single(request: Request, name: bytes) -> bytes:
    values = _values(request, name)
    if len(values) > 1:
        raise SignatureInvalid(f"The header {name.decode()} is there more than once.")
    return values[0] if values else b""
