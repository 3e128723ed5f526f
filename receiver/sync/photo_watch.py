"""Notice photos that were replaced under their name: HR's table does not change with them.

Storage is asked for each photo's ETag about as often as a terminal for its people, a few at a time.
Where it is another one, the employee is wanted on every terminal, and the photo is sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from receiver.core.errors import SupabaseError, TerminalError
from receiver.core.logs import get_logger
from receiver.photos import album
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.supabase.ledger_rows import SeenPhoto

TURN_S: Final = 10.0
PHOTOS_A_TURN: Final = 10
"""60 a minute: 10,000 photos are asked for in three hours."""

log = get_logger(__name__)

AskStorage = Callable[[str, str | None], Awaitable[tuple[str | None, datetime | None]]]
"""Returns the ETag at a URL, and when the photo was last changed; None for what is not to be had.
Raises TerminalError."""


class PhotoWatch:
    """Asks for photos, a few each turn, until `stop`."""

    def __init__(
        self, ledger: Ledger, company: Company, ask: AskStorage, *, wake: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._company = company
        self._ask = ask
        self._wake = wake
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Ask until `stop` was called."""
        while not self._stopping.is_set():
            try:
                await self._take_turn()
            except SupabaseError as error:
                log.info("photos_not_looked_at", reason=error.message)
            except Exception:  # a mistake of ours over one photo must not end it
                log.exception("photo_watch_failed")
            await self._pause(TURN_S)

    async def _take_turn(self) -> None:
        changed: list[tuple[SeenPhoto, str, datetime | None]] = []
        for photo in await self._ledger.photos_due(limit=PHOTOS_A_TURN):
            if self._stopping.is_set():
                break
            etag, changed_at = await self._asked(photo)
            if etag is None or etag == photo.etag:
                continue
            if photo.etag is None and not _lately(changed_at):
                await self._note(photo, etag, changed_at)
            else:
                changed.append((photo, etag, changed_at))
        if changed:
            # Any receiver may have fetched an old one just before it was replaced.
            await self._pause(album.CACHED_FOR_S)
        for photo, etag, changed_at in changed:
            await self._note(photo, etag, changed_at)

    async def _note(self, photo: SeenPhoto, etag: str, changed_at: datetime | None) -> None:
        if await self._ledger.photo_seen(photo, etag, changed_at):
            log.info("photo_replaced", employee_id=str(photo.employee_id))
            self._wake()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def stop(self) -> None:
        """Ask for no further photo; `run` returns soon."""
        self._stopping.set()

    async def _asked(self, photo: SeenPhoto) -> tuple[str | None, datetime | None]:
        url = self._company.photo_url(photo.reference)
        if url is None:
            return None, None
        try:
            return await self._ask(url, photo.etag)
        except TerminalError as error:  # it is asked for again at its next turn
            id_ = str(photo.employee_id)
            log.info("photo_not_looked_at", employee_id=id_, reason=error.message)
            return None, None


def _lately(changed_at: datetime | None) -> bool:
    if changed_at is None:
        return False
    return datetime.now(UTC) - changed_at < timedelta(seconds=2 * album.CACHED_FOR_S)
