"""The HTTP face: routes of a few lines each. What they decide is decided elsewhere.

No answer holds personal data, a request's body or a traceback; refusals are RFC 9457.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver import logs, signatures
from receiver.errors import BodyTooLarge, BodyTooSlow, SignatureInvalid, WebhookRefused
from receiver.events import parse_event
from receiver.services import running_worker
from receiver.settings import Settings
from receiver.worker import Worker

MOST_BODY_BYTES = 1024 * 1024
MOST_DRAINED_BYTES = 32 * MOST_BODY_BYTES
"""How much of a body that is too large is read and thrown away, so that its sender gets to read
the 413 instead of a reset connection."""
BODY_TIMEOUT_S = 10.0

log = logs.get_logger(__name__)


def create_app() -> Starlette:
    """Return the app; reads the environment and raises SettingsInvalid where it is not complete."""
    settings = Settings.from_env()
    logs.configure(settings.log_format)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running_worker(settings) as worker:
            app.state.worker = worker
            yield

    app = Starlette(
        routes=[
            Route("/webhooks/supabase", supabase_webhook, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
        ],
        exception_handlers={
            WebhookRefused: _webhook_refused,
            HTTPException: _http_refused,
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.state.webhook_keys = settings.webhook_keys
    app.router.redirect_slashes = False  # pg_net would follow a redirect without the body
    return app


async def supabase_webhook(request: Request) -> Response:
    """Verify, validate, wake the worker, 202. Nothing is awaited but the body itself."""
    body = await _body(request)
    signatures.verify(
        request.app.state.webhook_keys,
        webhook_id=_single(request, b"webhook-id"),
        timestamp=_single(request, b"webhook-timestamp"),
        signatures=b" ".join(_values(request, b"webhook-signature")),
        body=body,
        now=time.time(),
    )
    event = parse_event(body)
    _worker(request).wake()
    angajat_id = str(event.employee_id) if event.employee_id else None
    log.info("webhook_accepted", table=event.table, type=event.type, employee_id=angajat_id)
    return JSONResponse({"accepted": True, "angajat_id": angajat_id}, HTTPStatus.ACCEPTED)


async def healthz(_request: Request) -> Response:
    """Say that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Say whether the worker can do its work, or why not."""
    fault = _worker(request).fault
    if fault is None:
        return JSONResponse({"status": "ready"})
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, fault)


def problem(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return a refusal in the shape of RFC 9457."""
    return JSONResponse(
        {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail},
        status,
        headers,
        media_type="application/problem+json",
    )


def _worker(request: Request) -> Worker:
    worker: Worker = request.app.state.worker
    return worker


def _values(request: Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers.raw if key == name]


def _single(request: Request, name: bytes) -> bytes:
    values = _values(request, name)
    if len(values) > 1:
        raise SignatureInvalid(f"The header {name.decode()} is there more than once.")
    return values[0] if values else b""


async def _body(request: Request) -> bytes:
    """Return the body: at most 1 MiB, within 10 s."""
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_DRAINED_BYTES:
                    break
                if size <= MOST_BODY_BYTES:
                    body += chunk
    except TimeoutError:
        raise BodyTooSlow from None
    except ClientDisconnect:
        raise BodyTooSlow("The body ended early.") from None
    if size > MOST_BODY_BYTES:
        raise BodyTooLarge
    return bytes(body)


async def _webhook_refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, WebhookRefused)  # noqa: S101 - what it is registered for
    log.warning("webhook_refused", status=int(exc.status), reason=exc.message)
    # The rest of a body that was not read to its end must not keep the connection open.
    unread = isinstance(exc, BodyTooSlow | BodyTooLarge)
    return problem(exc.status, exc.message, {"Connection": "close"} if unread else None)


async def _http_refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101 - what it is registered for
    status = HTTPStatus(exc.status_code)
    return problem(status, status.description or status.phrase, dict(exc.headers or {}))


async def _failed(_request: Request, _exc: Exception) -> Response:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The receiver failed; see its log.")
