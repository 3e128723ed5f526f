"""What a part of the benchmark found, and how it is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HEADINGS = ("what", "ours", "baseline", "ratio", "note")


@dataclass(frozen=True)
class Row:
    """One figure of ours, and the baseline's where it has one.

    `better` says which of the two is: more of it, or less.
    """

    what: str
    ours: float
    unit: str
    baseline: float | None = None
    better: Literal["more", "less"] = "less"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is; below 1, how much worse. None where nothing is to say."""
        if self.baseline is None:
            return None
        good, bad = (
            (self.ours, self.baseline) if self.better == "more" else (self.baseline, self.ours)
        )
        return good / bad if bad else None


def printed(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown, its columns aligned."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [
        "| " + " | ".join(_aligned(text, width, n) for n, (text, width) in enumerate(pairs)) + " |"
        for pairs in (zip(line, widths, strict=True) for line in cells)
    ]
    rule = [
        "-" * (width - 1) + ":" if _is_figure(n) else "-" * width for n, width in enumerate(widths)
    ]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    ratio = row.ratio
    return (
        row.what,
        f"{figure(row.ours)} {row.unit}",
        "" if row.baseline is None else f"{figure(row.baseline)} {row.unit}",
        "" if ratio is None else f"{figure(ratio)}x",
        row.note,
    )


def figure(number: float) -> str:
    """Return a number with three digits that count, and none of them an exponent."""
    size = abs(number)
    places = 0 if size >= 100 or number == 0 else 1 if size >= 10 else 2 if size >= 1 else 3  # noqa: PLR2004, RUF100
    return f"{number:,.{places}f}"


def _is_figure(column: int) -> bool:
    return 0 < column < len(HEADINGS) - 1


def _aligned(text: str, width: int, column: int) -> str:
    return text.rjust(width) if _is_figure(column) else text.ljust(width)
