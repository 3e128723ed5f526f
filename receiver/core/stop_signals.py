"""Hears SIGTERM and SIGINT when they come, not when the server has sent its last answer.

uvicorn lets open requests end before it shuts the app down; a watched run is such a request, and
would go on calling terminals until its last pair or uvicorn's timeout.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in the running loop at the first signal, before the server's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield  # a test's server in a thread: signals are not its business
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):  # no handler: the signal keeps its default effect
            signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
