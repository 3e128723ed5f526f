"""A visit to one leased terminal: from the lease to a client for it, to giving it back.

What the worker and `receiver check` share, so that whoever calls a terminal does it by the gate,
under a lease, and leaves its rest in the ledger.
"""

import time
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import httpx

from receiver.gate import LEASE_MARGIN_S, Gate, Lease
from receiver.isapi import TerminalClient
from receiver.ledger import Ledger
from receiver.models import Terminal
from receiver.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Why a terminal is left alone, and for how long."""

    seconds: float
    reason: str


class Visits:
    """Opens and closes visits; `ledger` leases in this receiver's name."""

    def __init__(
        self, settings: Settings, ledger: Ledger, gate: Gate, terminals_http: httpx.AsyncClient
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._gate = gate
        self._http = terminals_http
        self.lease_s = settings.device_timeout_s + LEASE_MARGIN_S
        """For how long to lease: enough for a call other than a face's."""

    def lease(self, terminal_id: UUID, fence: int, *, asked_at: float) -> Lease:
        """Return the lease of a terminal leased for `lease_s` by a request begun at `asked_at`."""
        return Lease(
            lambda s: self._ledger.renew(terminal_id, fence, lease_s=s),
            until=asked_at + self.lease_s,
            clock=time.monotonic,
        )

    def client(self, terminal: Terminal, lease: Lease) -> TerminalClient:
        """Return a client whose every call passes the gate under the lease."""
        return TerminalClient(
            self._http,
            terminal,
            partial(self._gate.turn, terminal.id, lease),
            timeout_s=self._settings.device_timeout_s,
            face_timeout_s=self._settings.face_timeout_s,
        )

    async def end(self, terminal_id: UUID, fence: int, *, failures: int, rest: Rest | None) -> None:
        """Give the terminal back; raises LeaseLost where another has it already."""
        await self._ledger.release(
            terminal_id,
            fence,
            pause_s=self._settings.device_delay_s,
            failures=failures,
            rest_s=rest.seconds if rest else None,
            reason=rest.reason if rest else None,
        )
