"""What `receiver check` asks of the machine that it runs on: room on its disks."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from receiver.check.finding import Finding

MIN_FREE_BYTES: Final = 100 * 1024**2
MIN_FREE_PART: Final = 0.05
"""Of a disk for which that many bytes are much."""


def disk() -> Finding:
    """Check the disks that the receiver writes to, or the service that keeps its log."""
    full = []
    for directory in dict.fromkeys((Path.cwd(), *_temporary(), Path("/var/log"))):
        try:
            usage = shutil.disk_usage(directory)
        except OSError:
            continue  # there is no such directory
        if usage.free < min(MIN_FREE_BYTES, usage.total * MIN_FREE_PART):
            full.append(f"{usage.free / 1024**2:.0f} MB are left for {directory}")
    if not full:
        return Finding(what="disk", fault=None)
    return Finding(
        what="disk", fault=f"is full: {', '.join(full)}. Make room, or no log can be written"
    )


def _temporary() -> Iterable[Path]:
    try:
        return (Path(tempfile.gettempdir()),)
    except FileNotFoundError:  # no directory can be written to, which the other two show
        return ()
