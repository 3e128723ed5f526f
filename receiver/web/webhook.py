"""The webhook: verify, validate, wake the worker, 202. Nothing is awaited but the body itself.

A bare ASGI callable, past Starlette's layers and its request object: one import of HR's is
thousands of webhooks within seconds, and the layers cost more than all the work here.
"""

import time
from collections.abc import Sequence
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from receiver.core import signatures
from receiver.core.errors import RequestRefused, SignatureInvalid
from receiver.core.logs import Trickle, get_logger
from receiver.services import Services
from receiver.web.events import parse_event
from receiver.web.problem_details import problem, refused
from receiver.web.request import read_body

PATH = "/webhooks/supabase"

log = get_logger(__name__)


class Webhook:
    """The endpoint; a webhook may be signed with any of `keys`."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        bound = log.bind()  # once, not for every webhook
        self._log_accepted, self._log_refused = Trickle(bound.info), Trickle(bound.warning)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one webhook; the app must be running."""
        services: Services = scope["app"].state.services
        try:
            answer = await self._accept(scope, receive, services)
        except RequestRefused as error:
            answer = refused(error)
            self._log_refused("webhook_refused", status=error.status, reason=error.message)
        except Exception:  # never a traceback, nor a connection without an answer
            answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The receiver failed; see its log.")
            log.exception("webhook_failed")
        services.metrics.answered(answer.status_code)
        await answer(scope, receive, send)

    async def _accept(self, scope: Scope, receive: Receive, services: Services) -> Response:
        body = await read_body(receive, scope["app"].state.large_bodies)
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
        id_ = event.employee_id
        self._log_accepted("webhook_accepted", table=event.table, type=event.type, employee_id=id_)
        quoted = f'"{id_}"' if id_ else "null"
        accepted = f'{{"accepted":true,"angajat_id":{quoted}}}'
        return Response(accepted, HTTPStatus.ACCEPTED, media_type="application/json")


def _single(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise SignatureInvalid(f"The header {name.decode()} is there more than once.")
    return values[0] if values else b""
