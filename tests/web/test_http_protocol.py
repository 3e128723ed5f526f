"""How answers are written to the socket; its limits are tested in `test_storms`."""

import asyncio
from typing import Any, cast

from receiver.web.http_protocol import OneWrite

HEAD = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n"


class Socket:
    """A transport that notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 7


def one_write() -> tuple[Socket, OneWrite]:
    socket = Socket()
    return socket, OneWrite(cast("Any", socket), asyncio.get_running_loop())


async def test_head_and_body_leave_in_one_write() -> None:
    socket, transport = one_write()
    transport.write(HEAD)
    transport.write(b"{}")
    transport.write(HEAD)
    transport.write(b"[]")
    await asyncio.sleep(0)
    assert socket.done == [HEAD + b"{}", HEAD + b"[]"]


async def test_a_head_does_not_wait_for_a_body_that_comes_late() -> None:
    socket, transport = one_write()
    transport.write(HEAD)
    assert socket.done == []
    await asyncio.sleep(0)
    assert socket.done == [HEAD]
    transport.write(b"{}")
    transport.write(b"more")
    assert socket.done == [HEAD, b"{}", b"more"]


async def test_a_head_that_was_kept_is_written_before_the_end() -> None:
    socket, transport = one_write()
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert socket.done == [HEAD, "closed"]


async def test_every_other_call_goes_to_the_transport_itself() -> None:
    _, transport = one_write()
    assert transport.get_write_buffer_size() == 7
    assert not transport.is_closing()
