"""The name under which a receiver leases terminals: made here, and read here."""

import os
import socket
import uuid
from typing import Final

CHECK: Final = "check:"
"""The beginning of a name of a `receiver check`, which is no receiver (sql/0005_check.sql)."""


def receiver_name() -> str:
    """Return a name for this process: where it runs, and a part that never comes twice."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def check_name() -> str:
    """Return a name for a `receiver check` of this process."""
    return f"{CHECK}{receiver_name()}"


def machine_and_process(name: str) -> tuple[str, int]:
    """Return the machine and the process in a name; process 0 where it has none."""
    machine, _, rest = name.removeprefix(CHECK).partition(":")
    process, _, _ = rest.partition(":")
    return machine, int(process) if process.isdecimal() else 0
