"""Rows of the ledger's functions as models."""

from typing import Any
from uuid import UUID

import pytest

from receiver.core.models import Progress
from receiver.supabase.ledger_rows import claim

ROW: dict[str, Any] = {
    "terminal_id": str(UUID(int=1)),
    "fence": 7,
    "failures": 0,
    "device": None,
    "look": False,
    "verification": None,
    "employee_id": None,
}


@pytest.mark.parametrize(
    ("state", "progress"),
    [
        (None, None),
        ({}, Progress()),
        ({"search_id": "a", "position": 30}, Progress(search_id="a", position=30)),
        ({"a word of another version": 1}, Progress()),
    ],
)
def test_a_verification_goes_on_or_begins_anew_where_another_version_began_it(
    state: dict[str, Any] | None, progress: Progress | None
) -> None:
    leased = claim([{**ROW, "verification": state}])
    assert (leased.pairs, leased.verification) == ((), progress)


def test_what_another_version_remembered_of_a_terminal_is_asked_for_again() -> None:
    assert claim([{**ROW, "device": {"lacks": [], "a word of another version": 1}}]) == (
        claim([ROW])
    )
