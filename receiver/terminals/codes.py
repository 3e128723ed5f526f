"""Every answer code that Hikvision has written down, in classes that can be acted upon.

The table is codes.csv, which says where each code is from. What follows from a class is
decided where answers are read.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code stands for."""

    class_: str
    words: str
    """What to tell a person; empty where the code itself says as much."""


def meaning_of(code: str) -> Meaning | None:
    """Return what a subStatusCode stands for, in any case of letters; None for a new one."""
    return _BY_CODE.get(code.lower())


def code_of(error_code: int | None) -> str:
    """Return the subStatusCode that goes with an errorCode; empty where there is none."""
    return _BY_NUMBER.get(error_code, "") if error_code is not None else ""


def rows() -> Iterator[list[str]]:
    """Yield code, error codes, class, words and source of every code in the table."""
    with TABLE.open(encoding="utf-8", newline="") as table:
        lines = csv.reader(line for line in table if not line.startswith("#"))
        next(lines)  # the columns' names
        yield from lines


def _load() -> tuple[dict[str, Meaning], dict[int, str]]:
    by_code, by_number = {}, {}
    seen: dict[tuple[str, str], Meaning] = {}  # two thousand codes share one meaning
    for code, error_codes, class_, words, _ in rows():
        key = class_, words
        by_code[code.lower()] = seen.get(key) or seen.setdefault(key, Meaning(class_, words))
        for error_code in error_codes.split():
            by_number[int(error_code, 16)] = code
    return by_code, by_number


_BY_CODE, _BY_NUMBER = _load()
