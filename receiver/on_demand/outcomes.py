"""What became of each pair of a run, in 12 bytes a pair: a run may have half a million of them.

A pair is a number here. How many are told at once, and to whom, is `progress`.
"""

from array import array
from bisect import bisect_left
from dataclasses import dataclass

from receiver.core.models import NOTHING_HELD, Outcome


@dataclass(frozen=True, kw_only=True)
class Telling:
    """One outcome as it was told."""

    pair: int
    outcome: Outcome
    amends: bool
    """Whether another outcome of the pair was told before."""
    done: int
    """How many pairs were told by then, this one included."""


class Outcomes:
    """What was told of pairs 0 to `pairs` - 1, in its order, and what holds of each now.

    Of an outcome it keeps what is told, and each only once: most are the same few.
    """

    def __init__(self, pairs: int) -> None:
        self._numbers: dict[Outcome, int] = {}
        self._outcomes: list[Outcome] = []
        self._told_pairs = array("I")
        self._told_outcomes = array("I")
        self._amendments = array("I")  # which of the tellings are that, in order
        self._now = array("I", bytes(array("I").itemsize * pairs))  # telling + 1; 0: none

    def tell(self, pair: int, outcome: Outcome) -> None:
        """Add what became of a pair, also where something else was told of it before."""
        if self._now[pair]:
            self._amendments.append(self.tellings())
        self._told_pairs.append(pair)
        self._told_outcomes.append(self._number(outcome))
        self._now[pair] = self.tellings()

    def tellings(self) -> int:
        """Return how many outcomes were told, amendments included."""
        return len(self._told_pairs)

    def telling(self, place: int) -> Telling:
        """Return what was told, from 0 on."""
        before = bisect_left(self._amendments, place)
        amends = before < len(self._amendments) and self._amendments[before] == place
        return Telling(
            pair=self._told_pairs[place],
            outcome=self._outcomes[self._told_outcomes[place]],
            amends=amends,
            done=place + (0 if amends else 1) - before,
        )

    def __len__(self) -> int:
        """Return of how many pairs something was told."""
        return self.tellings() - len(self._amendments)

    def now(self, pair: int) -> Outcome | None:
        """Return what holds of a pair, None where nothing was told."""
        telling = self._now[pair]
        return self._outcomes[self._told_outcomes[telling - 1]] if telling else None

    def among(self, pairs: range) -> list[tuple[int, Outcome]]:
        """Return what holds of some successive pairs, without those of which nothing was told."""
        if not any(self._now[pairs.start : pairs.stop]):
            return []
        found = ((pair, self.now(pair)) for pair in pairs)
        return [(pair, outcome) for pair, outcome in found if outcome is not None]

    def untold(self, pairs: range) -> list[int]:
        """Return those of some successive pairs of which nothing was told."""
        if all(self._now[pairs.start : pairs.stop]):
            return []
        return [pair for pair in pairs if not self._now[pair]]

    def _number(self, outcome: Outcome) -> int:
        told = Outcome(
            status=outcome.status, step=outcome.step, message=outcome.message, held=NOTHING_HELD
        )
        number = self._numbers.setdefault(told, len(self._outcomes))
        if number == len(self._outcomes):
            self._outcomes.append(told)
        return number
