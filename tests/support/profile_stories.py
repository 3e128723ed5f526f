"""Parts that the stories on every profile of terminal share."""

from receiver.sandbox.world import Site

RARELY = 11
"""How often the terminals of the company are busy, or lie. If each third write is refused, a new
person meets that twice, and the pauses after that are longer than a test may take."""


def assert_well_treated(site: Site, *, failed_logins: int = 0) -> None:
    seen = site.terminal.sightings
    assert {
        "terminal": site.name,
        "overlapping calls": seen.overlapping_calls,
        "calls too close": seen.calls_too_close,
        "failed logins": seen.failed_logins,
        "unknown fields": seen.unknown_fields,
        "deletions of everybody": seen.deletions_of_everybody,
        "deletions not of one": seen.deletions_not_of_one,
    } == {
        "terminal": site.name,
        "overlapping calls": 0,
        "calls too close": 0,
        "failed logins": failed_logins,
        "unknown fields": [],
        "deletions of everybody": 0,
        "deletions not of one": 0,
    }
