"""Which callers /api/hikvision lets in, and how often; decided before anything else is read."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request
from starlette.responses import Response

from receiver.core.errors import TokenInvalid, TooManyRequests
from receiver.core.logs import get_logger
from receiver.services import Services

PRESSES_PER_MINUTE: Final = 60

Endpoint = Callable[[Request], Awaitable[Response]]

log = get_logger(__name__)


def services(request: Request) -> Services:
    """Return the services of the app."""
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
        """Count one press; raise TooManyRequests where it is one too many."""
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
