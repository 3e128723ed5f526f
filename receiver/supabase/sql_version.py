"""Which version of sql/ this receiver works with."""

from typing import Final

SQL_VERSION: Final = 2
"""What `hikvision_sync_version` has to answer; the number in sql/0008_version.sql."""

SQL_FILES: Final = ("0001_tables.sql", "0008_version.sql")
"""The first and the last of the files that have to be applied, in the order of their numbers."""


def not_ours(found: object) -> str:
    """Say what to do where the database answered another version, or (None) has no function."""
    theirs = "older than that" if found is None else f"version {found}"
    first, last = SQL_FILES
    return (
        f"This receiver needs version {SQL_VERSION} of the SQL, and the database's is {theirs}: "
        f"apply all of the receiver's sql/ files, {first} to {last}, in the order of their numbers."
    )
