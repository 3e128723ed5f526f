"""uvicorn's HTTP protocol, with bounds of time and size for a client without a whole request.

uvicorn bounds how long a connection may idle after an answer and how many there may be, but keeps a
connection that sends no request at all, or a head without end, forever; and when such connections
are as many as `--limit-concurrency`, it answers all others 503. Here such a connection is ended
after a while, sooner where others need its place. A request's body is bounded where it is read
(`request`); the part of it that is not read yet is bounded here.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from receiver.core.logs import get_logger

if TYPE_CHECKING:  # AutoHTTPProtocol is a variable; what is used here, both protocols have
    from uvicorn.protocols.http.h11_impl import H11Protocol as UvicornHttp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as UvicornHttp

PATIENCE_S = 10.0
"""For the first request's head. Also between two checks of a connection: where no request is being
answered, or an answer is left unread, the second must find a change."""
MAX_HEAD_BYTES = 64 * 1024
"""Of a request's head, as h11 has it by itself (httptools has no limit); also of a body's trailer,
and of data that comes after an answer."""
MAX_HEADERS = 100
"""With those of a trailer. httptools keeps each as objects, far larger than its bytes."""
MAX_UNREAD_BODY_BYTES = 4 * 1024
"""Taken from a connection while the app does not read its body (uvicorn: 64 KiB)."""
AT_A_TIME = 4096
"""Bytes that are parsed before these limits are checked again."""
FEW = 50
"""Connections of which all there is, up to 256 KiB, is read at a time. Any that come beside so many
others are read AT_A_TIME, which costs a webhook a tenth more CPU, and bounds the memory of all."""
CROWDED = 0.9
"""Part of `--limit-concurrency` above which connections without a request make way."""
MAKING_WAY = 0.1
"""Part of it that makes way at a time: not every newcomer causes a search through all."""

log = get_logger(__name__)


class ImpatientHttp(UvicornHttp):
    """One connection. Costs it a timer, and a few comparisons each time data comes."""

    # Both are None before the first request, whatever uvicorn declares.
    cycle: "RequestResponseCycle | None"  # type: ignore[assignment]
    headers: list[tuple[bytes, bytes]] | None  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._opened_at = 0.0
        self._next_check: asyncio.TimerHandle | None = None
        self._stood: tuple[object, int] | None = (None, 0)
        self._bytes_for_nothing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to check the connection now and then."""
        super().connection_made(cast("asyncio.Transport", OneWrite(transport, self.loop)))
        if len(self.connections) > FEW:
            transport.set_protocol(ByThePiece(self))
        self._opened_at = self.loop.time()
        self._next_check = self.loop.call_later(PATIENCE_S, self._check_again)
        most = self.limit_concurrency
        if most is not None and len(self.connections) > most * CROWDED:
            self._make_room(max(1, int(most * MAKING_WAY)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Check it no more."""
        super().connection_lost(exc)
        if self._next_check is not None:
            self._next_check.cancel()

    def data_received(self, data: bytes) -> None:
        """Take data; end the connection where it is too much of anything but a body."""
        if len(data) <= AT_A_TIME:
            self._take(data)
            return
        for start in range(0, len(data), AT_A_TIME):
            if not self.transport.is_closing():
                self._take(data[start : start + AT_A_TIME])

    def _take(self, data: bytes) -> None:
        cycle = self.cycle
        body_bytes = 0 if cycle is None else len(cycle.body)
        super().data_received(data)
        if self.cycle is not None and len(self.cycle.body) > MAX_UNREAD_BODY_BYTES:
            self.flow.pause_reading()
        if self.cycle is not cycle or (cycle is not None and len(cycle.body) != body_bytes):
            self._bytes_for_nothing = 0
        else:
            self._bytes_for_nothing += len(data)
        if (
            self._bytes_for_nothing > MAX_HEAD_BYTES
            or (self.headers is not None and len(self.headers) > MAX_HEADERS)
        ) and not self.transport.is_closing():
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """End the connection where a request comes before the last one is answered.

        Only httptools calls this; h11 takes one at a time. uvicorn would prepare every request that
        comes, even a million, and tell only the last when the client is gone. No browser, proxy or
        pg_net sends requests like this.
        """
        if self.cycle is None or self.cycle.response_complete:
            super().on_headers_complete()  # type: ignore[misc]
        else:
            self.transport.abort()

    def _check_again(self) -> None:
        """End the connection where nothing changed since the last check and something had to."""
        unread_bytes = self.transport.get_write_buffer_size()
        at_work = self.cycle is not None and not self.cycle.response_complete
        stands = None if at_work and not unread_bytes else (self.cycle, unread_bytes)
        if stands is not None and stands == self._stood:
            self.transport.abort()
            return
        self._stood = stands
        self._next_check = self.loop.call_later(PATIENCE_S, self._check_again)

    def _make_room(self, count: int) -> None:
        """End the oldest connections of those without a whole request that is being answered."""
        without_request = [
            one
            for one in self.connections
            if isinstance(one, ImpatientHttp)
            and (one.cycle is None or one.cycle.response_complete or one.cycle.more_body)
        ]
        ended = sorted(without_request, key=lambda one: one._opened_at)[:count]  # noqa: SLF001 - its own class
        for one in ended:
            self.connections.discard(one)  # no longer counted, before its loss is noticed
            one.transport.abort()
        if ended:
            log.warning("connections_made_way", count=len(ended))


class OneWrite:
    """A transport that gives an answer's head and body to the socket in one write instead of two.

    uvicorn writes each by itself. The second write costs a webhook as much as its verification,
    and wakes its sender once more.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, but keep a head until the body comes, or until the loop's next round."""
        if self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._write_head)
        else:
            self._transport.write(data)

    def _write_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Close once everything is written."""
        self._write_head()
        self._transport.close()


class ByThePiece(asyncio.BufferedProtocol):
    """Reads at most AT_A_TIME at a time for a protocol that takes all there is.

    A class of its own, because uvloop asks no `asyncio.Protocol` for a buffer.
    """

    _buffer = bytearray(AT_A_TIME)  # all connections share it: it is emptied at once
    _read = memoryview(_buffer)

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        self._take = protocol.data_received

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio says it
        """Return the buffer for the next bytes; its size is the most that is read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read."""
        self._take(bytes(self._read[:nbytes]))

    def eof_received(self) -> bool | None:
        """Hand it on."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Hand it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand it on."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand it on."""
        self._protocol.connection_lost(exc)
