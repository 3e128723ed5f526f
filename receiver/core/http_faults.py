"""Says why no answer came over HTTP, to the person who must repair it. Pure; names no address."""

import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx

_REFUSED: Final = "the connection is refused, nothing listens there"

_CAUSES: Final = (
    (
        ssl.SSLCertVerificationError,
        "its certificate is not accepted: expired, another's, or this machine's clock is off",
    ),
    (ssl.SSLError, "no TLS connection comes about"),
    (socket.gaierror, "its name cannot be resolved (DNS)"),
    (ConnectionRefusedError, _REFUSED),
)
"""Words by the cause under httpx's exception; the first match counts."""

_KINDS: Final = (
    (httpx.ConnectTimeout, "no connection comes about: switched off, or behind a firewall"),
    ((TimeoutError, httpx.TimeoutException), "it takes the connection and does not answer"),
    (httpx.ConnectError, "no connection comes about: is this machine's network up?"),
    (httpx.RemoteProtocolError, "the answer was cut off"),
    (httpx.NetworkError, "the connection was reset"),
)


def in_words(error: BaseException) -> str:
    """Return what happened to a request, without a capital and a full stop."""
    causes = list(_causes(error))
    for kind, words in _CAUSES:
        if any(isinstance(cause, kind) for cause in causes):
            return words
    for kinds, words in _KINDS:
        if isinstance(error, kinds):
            return words
    return f"the request failed ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all its causes; several attempts to connect come as a group."""
    left, seen = [error], set[int]()
    while left:
        cause = left.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            left += cause.exceptions
        left += [e for e in (cause.__cause__, cause.__context__) if e is not None]
