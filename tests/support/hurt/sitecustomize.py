"""Imported by Python itself in a receiver that is started with this folder on its path.

HURT_CLOCK names a file with the seconds by which the receiver's wall clock is wrong, read each time
the clock is asked, so that it can be set while the receiver runs. HURT_FACE_TIMEOUT_S shortens the
45 s that a face call may take, and with them the lease of a receiver that died in one.
HURT_PATIENCE_S and HURT_BODY_TIMEOUT_S shorten the time that a slow client is given. HURT_WITHOUT
names modules that are as good as not installed.
"""

import contextlib
import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import Self


def _set_clock(file: Path) -> None:
    right, right_ns = time.time, time.time_ns

    def wrong_by() -> float:
        with contextlib.suppress(OSError, ValueError):
            return float(file.read_text(encoding="ascii"))
        return 0.0

    class Wrong(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(right() + wrong_by(), tz)

        @classmethod
        def utcnow(cls) -> Self:
            return cls.now(dt.UTC).replace(tzinfo=None)

    time.time = lambda: right() + wrong_by()
    time.time_ns = lambda: right_ns() + int(wrong_by() * 1e9)
    dt.datetime = Wrong  # type: ignore[misc]


if "HURT_CLOCK" in os.environ:
    _set_clock(Path(os.environ["HURT_CLOCK"]))
if "HURT_FACE_TIMEOUT_S" in os.environ:
    from receiver.core import settings

    settings.FACE_TIMEOUT_S = float(os.environ["HURT_FACE_TIMEOUT_S"])
for name in os.environ.get("HURT_WITHOUT", "").split():
    sys.modules[name] = None  # type: ignore[assignment]
if "HURT_PATIENCE_S" in os.environ:
    from receiver.web import http_protocol

    http_protocol.PATIENCE_S = float(os.environ["HURT_PATIENCE_S"])
if "HURT_BODY_TIMEOUT_S" in os.environ:
    from receiver.web import request

    request.BODY_TIMEOUT_S = float(os.environ["HURT_BODY_TIMEOUT_S"])
