"""The HTTP app: its routes, of a few lines each, and its middleware. It decides nothing itself."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from receiver.core import logs
from receiver.core.errors import RequestRefused, SupabaseError
from receiver.core.metrics import CONTENT_TYPE
from receiver.core.settings import Settings
from receiver.services import running
from receiver.web import buttons, reports, webhook
from receiver.web.access import Presses, services
from receiver.web.openapi import DOCUMENT
from receiver.web.problem_details import (
    UnexpectedErrors,
    http_refused,
    problem,
    request_refused,
    supabase_failed,
)
from receiver.web.request import LARGE_BODIES


class App(Starlette):
    """Starlette's app; webhooks go past its layers straight to their endpoint."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a webhook, or let Starlette answer, which also refuses methods other than POST."""
        if scope["type"] == "http" and scope["path"] == webhook.PATH and scope["method"] == "POST":
            scope["app"] = self
            await self.state.webhook(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app() -> Starlette:
    """Return the app; read the environment, and raise SettingsInvalid where it is at fault."""
    settings = Settings.from_env()
    logs.configure(settings.log_format)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(settings) as app.state.services:
            gc.freeze()  # what is there now stays: no collection needs to go through it again
            yield

    endpoint = webhook.Webhook(settings.webhook_keys)
    app = App(
        routes=[
            Route(webhook.PATH, endpoint, methods=["POST"]),
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
                CORSMiddleware,
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
    app.state.webhook = endpoint
    app.state.large_bodies = asyncio.Semaphore(LARGE_BODIES)
    app.state.presses = Presses()
    app.state.now = time.time
    app.router.redirect_slashes = False  # pg_net would follow a redirect without the body
    return app


async def healthz(_request: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer whether the worker can do its work, or why not."""
    fault = services(request).worker.fault
    if fault is None:
        return JSONResponse({"status": "ready"})
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, fault)


async def metrics(request: Request) -> Response:
    """Return the figures for Prometheus."""
    return Response(await services(request).scrapes.text(), media_type=CONTENT_TYPE)


async def openapi(_request: Request) -> Response:
    """Return the description of all routes."""
    return JSONResponse(DOCUMENT)
