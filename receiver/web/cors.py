"""CORS as Starlette has it, and to other origins not a word of it.

Starlette leaves Access-Control-Allow-Origin out of what it answers them, but not which headers and
methods it would allow; there is no reason to tell.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Send

_PREFIX = "access-control-"


class Cors(CORSMiddleware):
    """Starlette's middleware, silent towards origins that are not allowed."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight; of one from another origin, only that it failed."""
        response = super().preflight_response(request_headers)
        if not self.is_allowed_origin(request_headers["origin"]):
            _strip(response.headers)
        return response

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        """Send an answer, to another origin without what it may read of it."""
        origin = request_headers.get("origin")

        async def stripped(message: Message) -> None:
            _strip(MutableHeaders(scope=message))
            await send(message)

        allowed = origin is None or self.is_allowed_origin(origin)
        starts = message["type"] == "http.response.start"
        await super().send(message, stripped if starts and not allowed else send, request_headers)


def _strip(headers: MutableHeaders) -> None:
    for name in [key for key in headers if key.lower().startswith(_PREFIX)]:
        del headers[name]
