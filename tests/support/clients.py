"""A terminal's client for tests of its protocol alone: no ledger, no storage, no gate."""

import httpx

from receiver.core.errors import PhotoNotFetched
from receiver.core.models import Capabilities, Terminal
from receiver.terminals.calls import Calls, Turn
from receiver.terminals.client import TerminalClient
from receiver.terminals.faces import FetchPhoto


async def no_photo(_url: str) -> bytes:
    """Be a storage that has no photos."""
    raise PhotoNotFetched


class Memory:
    """Keeps the capabilities of a terminal, as the ledger does."""

    def __init__(self) -> None:
        self.learnt: list[Capabilities] = []

    async def __call__(self, capabilities: Capabilities) -> None:
        self.learnt.append(capabilities)


def client_for(  # noqa: PLR0913 - keyword-only but for the first three
    http: httpx.AsyncClient,
    terminal: Terminal,
    turn: Turn,
    *,
    timeout_s: float = 5.0,
    face_timeout_s: float = 6.0,
    fetch_photo: FetchPhoto = no_photo,
    memory: Memory | None = None,
    capabilities: Capabilities | None = Capabilities(),  # noqa: B008 - frozen
    identify: bool = False,
    after_trouble: bool = False,
) -> TerminalClient:
    """Return a client that knows its terminal already, unless told otherwise."""
    calls = Calls(
        http,
        terminal,
        turn,
        timeout_s=timeout_s,
        face_timeout_s=face_timeout_s,
        remember=memory or Memory(),
        called=lambda _outcome, _seconds: None,
        capabilities=capabilities,
        identify=identify,
        after_trouble=after_trouble,
    )
    return TerminalClient(calls, fetch_photo)
