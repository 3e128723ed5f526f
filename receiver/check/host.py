"""What `receiver check` asks of the machine that it runs on: room on its disks, its clock."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from receiver.check.figures import duration
from receiver.check.finding import Finding
from receiver.core.signatures import TOLERANCE_S

CLOCK_S: Final = 60.0
"""How far a clock may be off before that is a fault: NTP keeps it within a second."""
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


def clock(theirs: float, *, asked_at: float, answered_at: float) -> Finding:
    """Compare this machine's clock with the database's; all three in seconds since the epoch.

    The database read its own at some moment between the two; which moment cannot be known.
    """
    off_s = (asked_at + answered_at) / 2 - theirs
    unsure_s = abs(answered_at - asked_at) / 2
    if abs(off_s) - unsure_s < CLOCK_S:
        return Finding(what="clock", fault=None)
    way = "ahead of" if off_s > 0 else "behind"
    tolerance = f"webhooks over {TOLERANCE_S // 60} min off are refused with 401"
    if abs(off_s) > TOLERANCE_S:
        tolerance = f"a receiver here refuses every webhook with 401 (more than {TOLERANCE_S // 60}"
        tolerance += " min off)"
    return Finding(
        what="clock",
        fault=f"this machine's clock is {duration(abs(off_s))} {way} Supabase's, and "
        f"{tolerance}: have it set by NTP",
    )
