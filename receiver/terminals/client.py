"""One terminal as the rest of the receiver sees it: its calls, its persons, its faces."""

from receiver.terminals.calls import Calls
from receiver.terminals.faces import Faces, FetchPhoto
from receiver.terminals.persons import Persons


class TerminalClient:
    """Talks to one terminal; every call waits for its turn and raises TerminalError.

    Does not retry and knows nothing of the ledger; the `turn` of `calls` paces it.
    """

    def __init__(self, calls: Calls, fetch_photo: FetchPhoto) -> None:
        self.calls = calls
        self.faces = Faces(calls, fetch_photo)
        self.persons = Persons(calls, self.faces)
