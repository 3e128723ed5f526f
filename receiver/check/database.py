"""What `hikvision_sync_check` answered, as findings: pure."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from receiver.check import figures, host
from receiver.check.finding import Figures, Finding
from receiver.core import signatures
from receiver.core.settings import Settings
from receiver.supabase.ledger_rows import DatabaseCheck

TERMINAL: Final = "terminal "
"""The beginning of the names of rows with one terminal's figures; its id follows."""
VERIFICATION: Final = "verification "
"""The same, with when one terminal was asked for everybody."""
FIGURES: Final = ("clock", "webhooks", "work", TERMINAL, VERIFICATION)


class Diagnosis:
    """One answer, which came between two moments of this machine's clock."""

    def __init__(
        self, checks: Sequence[DatabaseCheck], *, asked_at: float, answered_at: float
    ) -> None:
        self._checks = checks
        self._asked_at = asked_at
        self._answered_at = answered_at
        self.terminals: dict[str, Figures] = {}
        """The figures of each active terminal, by its id; filled by `findings`."""

    def findings(self, settings: Settings) -> Iterator[Finding]:
        """Yield what is wrong with the set-up, then what the figures mean."""
        for check in self._checks:
            if not check.name.startswith(FIGURES):
                yield _of_setup(check, settings)
        try:
            yield from self._of_figures(settings)
        except (KeyError, TypeError, ValueError):
            yield Finding(
                what="database: sql", fault="is of another version: run this version's sql/ files"
            )

    @property
    def webhook_origin(self) -> str | None:
        """Return where the Vault has webhooks sent, without path and login; None where it errs."""
        found = [c for c in self._checks if c.name == "webhook_url" and c.fault is None]
        return found[0].detail if found else None

    def _of_figures(self, settings: Settings) -> Iterator[Finding]:
        details = {check.name: check.detail for check in self._checks}
        theirs = float(details["clock"] or "")
        yield host.clock(theirs, asked_at=self._asked_at, answered_at=self._answered_at)
        yield figures.webhooks(json.loads(details["webhooks"] or "null"), settings.poll_s)
        work = json.loads(details["work"] or "")
        yield figures.work(work, poll_s=settings.poll_s, look_s=settings.look_s)
        for name, detail in details.items():
            if name.startswith(TERMINAL):
                state = json.loads(detail or "")
                self.terminals[name.removeprefix(TERMINAL)] = state
                yield figures.edits(state)
            if name.startswith(VERIFICATION):
                yield figures.verification(json.loads(detail or ""), verify_s=settings.verify_s)


def _of_setup(check: DatabaseCheck, settings: Settings) -> Finding:
    fault, note = check.fault, ""
    if check.name == "webhook_secret" and fault is None:
        given = (check.detail or "").removeprefix("v1,").encode()
        ours = [signatures.sign(k, b"receiver-check", b"0", b"{}") for k in settings.webhook_keys]
        if given not in ours:  # no secret to time: the database signed this for us to see
            fault = (
                "the Vault secret hikvision_sync_webhook_secret is none of WEBHOOK_SECRET: "
                "every webhook is refused with 401"
            )
    if check.name == "terminals" and check.detail:
        note = f"{check.detail} active"
    return Finding(what=f"database: {check.name}", fault=fault, note=note)
