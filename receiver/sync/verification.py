"""Ask a terminal for everybody whom it holds, a page at a time, against HR and the ledger.

What no edit told is found so: a terminal that was reset, a backup of its own that brought somebody
back, a name that was changed there, edits made while no trigger was on. Whoever differs becomes
wanted and is pushed like an edit. One page is one visit: how far it has come is in the ledger, so
that edits go in between, and any receiver goes on after one that died.
"""

import time
from dataclasses import replace

from receiver.core.errors import NotSupported, TerminalError
from receiver.core.logs import get_logger
from receiver.core.models import LeaverPolicy, PageVerdict, Progress
from receiver.supabase.company import Company
from receiver.sync.consequences import consequence
from receiver.sync.verdict import of_page
from receiver.sync.visit import Visit
from receiver.terminals.persons import new_search
from receiver.terminals.user_info import SearchResult

MAX_PERSONS = 300_000
"""Ten times what the largest terminals hold: one that never comes to an end is left."""
NOTHING = PageVerdict(confirmed=(), different=(), unknown=0)

log = get_logger(__name__)


class Verifications:
    """Carries on verifications by this receiver's policy for leavers."""

    def __init__(self, policy: LeaverPolicy, company: Company) -> None:
        self._policy = policy
        self._company = company

    async def go_on(self, visit: Visit, progress: Progress) -> None:
        """Ask for the next page and note what it shows; raise TerminalError where that fails.

        A terminal that cannot be asked whom it holds is done at once: nothing can be confirmed.
        """
        search_id = progress.search_id or new_search()
        asked_at = time.monotonic()
        try:
            page = await visit.client.persons.page(
                {}, search_id=search_id, position=progress.position
            )
        except TerminalError as error:
            if not _refused_for_good(visit, progress, error):
                raise
            await self._leave(visit, error.message, asked_at)
            return
        first = page.persons[0].employee_no if page.persons else ""
        repeated = bool(first) and first == progress.first
        verdict = NOTHING if repeated else await self._judge(visit, page)
        silent = page.persons and all(one.access is None for one in page.persons)
        if silent and progress.position == 0 and verdict.unknown < len(page.persons):
            await self._leave(visit, "It does not say whether somebody may pass.", asked_at)
            return
        after = _after(progress, page, verdict, search_id) if not repeated else progress
        ended = repeated or not page.persons or not page.more or after.persons > MAX_PERSONS
        if ended and (repeated or after.persons < page.total):
            after = replace(after, unsure=True)
        await visit.verified(verdict, after, asked_at=asked_at, ended=ended)
        if ended:
            log.info(
                "terminal_verified",
                terminal_id=str(visit.terminal_id),
                persons=after.persons,
                different=after.different,
                unknown=after.unknown,
            )

    async def _leave(self, visit: Visit, reason: str, asked_at: float) -> None:
        log.info("not_verified", terminal_id=str(visit.terminal_id), reason=reason)
        visit.failures = 0  # it answered
        await visit.verified(NOTHING, None, asked_at=asked_at, ended=True)

    async def _judge(self, visit: Visit, page: SearchResult) -> PageVerdict:
        owners = await visit.owners([one.employee_no for one in page.persons])
        # After the pairs: who is edited in between is wanted in a newer version, and not confirmed.
        ids = list(dict.fromkeys(owner.employee_id for owner in owners))
        employees = await self._company.employees(ids)
        return of_page(page.persons, owners, employees, self._policy)


def _refused_for_good(visit: Visit, progress: Progress, error: TerminalError) -> bool:
    """Return whether a terminal does not list whom it holds; one odd answer is not enough."""
    if isinstance(error, NotSupported):
        return True
    first = progress.position == 0 and consequence(error).asked_back == "now"
    return first and visit.failures > 0


def _after(
    progress: Progress, page: SearchResult, verdict: PageVerdict, search_id: str
) -> Progress:
    """Return how far the verification is after a page.

    Where somebody came or went since the page before, the others have moved, and a page may pass
    over some: they are asked for by number in the end.
    """
    received = len(page.persons)
    return replace(
        progress,
        search_id=search_id,
        position=progress.position + received,
        first=page.persons[0].employee_no if page.persons else "",
        total=page.total,
        persons=progress.persons + received,
        different=progress.different + len(verdict.different),
        unknown=progress.unknown + verdict.unknown,
        unsure=progress.unsure or progress.total not in (0, page.total),
    )
