"""The webhook: verify, validate, wake the worker, 202. Nothing is awaited but the body itself.

A bare ASGI callable, past Starlette's routing and its request and response objects: one import of
HR's is thousands of webhooks within seconds, and those cost more than all that is done here.
"""

import json
import time
from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from receiver import signatures
from receiver.bodies import read_body
from receiver.errors import RequestRefused, SignatureInvalid
from receiver.events import parse_event
from receiver.logs import get_logger
from receiver.problems import refused
from receiver.services import Services

PATH = "/webhooks/supabase"
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Webhook:
    """The endpoint; `keys` are those that a webhook may be signed with."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._log = get_logger(__name__).bind()  # once, not for every webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one webhook; the app has to be running."""
        services: Services = scope["app"].state.services
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            body = await self._accept(scope, receive, services)
            status = HTTPStatus.ACCEPTED
            await _answer(send, body)
        except RequestRefused as refusal:
            status = refusal.status
            await refused(scope["path"], refusal)(scope, receive, send)
        finally:
            services.metrics.answered(status)

    async def _accept(self, scope: Scope, receive: Receive, services: Services) -> bytes:
        body = await read_body(receive)
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        signatures.verify(
            self._keys,
            webhook_id=_single(headers, b"webhook-id"),
            timestamp=_single(headers, b"webhook-timestamp"),
            signatures=b" ".join([v for name, v in headers if name == b"webhook-signature"]),
            body=body,
            now=time.time(),
        )
        event = parse_event(body)
        services.worker.wake()
        self._log.info(
            "webhook_accepted", table=event.table, type=event.type, employee_id=event.employee_id
        )
        angajat_id = str(event.employee_id) if event.employee_id else None
        return _ENCODER.encode({"accepted": True, "angajat_id": angajat_id}).encode()


class Shortcut:
    """Middleware that hands webhooks to their endpoint past all that stands behind it."""

    def __init__(self, app: ASGIApp, webhook: ASGIApp) -> None:
        self._app = app
        self._webhook = webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on whatever is no webhook; the router refuses other methods than POST."""
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":
            await self._webhook(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _answer(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    status = int(HTTPStatus.ACCEPTED)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _single(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise SignatureInvalid(f"The header {name.decode()} is there more than once.")
    return values[0] if values else b""
