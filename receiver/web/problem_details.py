"""Refusals as RFC 9457 (application/problem+json). No answer contains a traceback or a request."""

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.core.errors import (
    ReceiverError,
    RequestRefused,
    RunGoingOn,
    SupabaseError,
    TooManyRequests,
)
from receiver.core.logs import get_logger

log = get_logger(__name__)


def problem(
    status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """Return a refusal; `more` are members beside the standard ones."""
    return JSONResponse(
        {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail, **more},
        status,
        headers,
        media_type="application/problem+json",
    )


async def request_refused(request: Request, exc: Exception) -> Response:
    """Answer with the status that the refusal names."""
    assert isinstance(exc, RequestRefused)  # noqa: S101 - what it is registered for
    path = request.scope["path"]
    log.warning("request_refused", path=path[:100], status=int(exc.status), reason=exc.message)
    return refused(exc)


def refused(exc: RequestRefused) -> Response:
    """Return the answer to a refused request."""
    headers, more = dict(exc.headers), {}
    if isinstance(exc, TooManyRequests):
        headers["Retry-After"] = str(exc.retry_after_s)
    if isinstance(exc, RunGoingOn) and exc.run_id:
        more["run_id"] = exc.run_id
    return problem(exc.status, exc.message, headers, **more)


async def supabase_failed(_request: Request, exc: Exception) -> Response:
    """Answer 503: nothing can be done while Supabase cannot be asked."""
    assert isinstance(exc, SupabaseError)  # noqa: S101 - what it is registered for
    log.warning("supabase_failed", reason=exc.message)
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, exc.message)


async def http_refused(_request: Request, exc: Exception) -> Response:
    """Answer what the router refuses: no such path, no such method."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - what it is registered for
    status = HTTPStatus(exc.status_code)
    return problem(status, status.description or status.phrase, dict(exc.headers or {}))


class UnexpectedErrors:
    """Turns an unexpected exception into a 500 without a traceback.

    Stands inside the CORS middleware, unlike Starlette's own: a browser must be able to read it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer where an exception came back before an answer went out."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            log.exception("request_failed", known=isinstance(error, ReceiverError))
            if scope["type"] != "http" or begun:
                raise
            answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The receiver failed; see its log.")
            await answer(scope, receive, send)
