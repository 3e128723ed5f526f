"""What the check makes of figures."""

import pytest

from receiver.check.figures import verification

DAY_S = 86_400.0


@pytest.mark.parametrize("going_on", [True, False])
def test_a_verification_that_does_not_come_to_an_end_is_a_fault(*, going_on: bool) -> None:
    figures = {"began_s": 30 * DAY_S, "going_on": going_on, "verified": None, "verified_s": None}
    found = verification({"host": "10.0.0.1", "confirmed_s": None, **figures}, verify_s=DAY_S)
    assert found.fault is not None
    assert "30 d 0 h ago" in found.fault


@pytest.mark.parametrize(("confirmed_s", "says"), [(None, True), (60.0, False)])
def test_a_terminal_of_which_nobody_is_confirmed_is_said_to_be_believed(
    confirmed_s: float | None, *, says: bool
) -> None:
    figures = {"began_s": 60.0, "going_on": False, "verified": None, "verified_s": None}
    found = verification(
        {"host": "10.0.0.1", "confirmed_s": confirmed_s, **figures}, verify_s=DAY_S
    )
    assert found.fault is None
    assert ("what is done there is believed" in str(found.note)) is says
