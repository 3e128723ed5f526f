"""`python -m tests.benchmark [--quick] [--only part,part]`: measures, and prints a table per part.

Nothing is asserted about time: the figures are the machine's. It fails only where something broke.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType

from tests.benchmark import (
    acknowledgement,
    bulk,
    device_calls,
    edit_to_terminal,
    ledger,
    memory,
    scale,
    triggers,
)
from tests.benchmark.table import Row, printed

PARTS: tuple[ModuleType, ...] = (
    acknowledgement,
    edit_to_terminal,
    device_calls,
    bulk,
    ledger,
    scale,
    triggers,
    memory,
)
"""Each has a NAME, a docstring whose first line is its title, and `measure(quick)`."""


async def measure(parts: Sequence[ModuleType], *, quick: bool) -> None:
    """Measure the parts one after another, and print each as soon as it is known."""
    for part in parts:
        began_at = time.monotonic()
        of_part: Callable[[bool], Awaitable[list[Row]]] = part.measure
        rows = await of_part(quick)
        title = (part.__doc__ or part.NAME).splitlines()[0]
        took_s = time.monotonic() - began_at
        print(f"\n**{part.NAME}**: {title} (measured in {took_s:.0f} s)\n")
        print(printed(rows), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure what it names."""
    names = {part.NAME: part for part in PARTS}
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer of everything; rough figures")
    parser.add_argument("--only", metavar="part,part", help=f"of {', '.join(names)}")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else list(names)
    if unknown := [name for name in chosen if name not in names]:
        sys.exit(f"There is no part {', '.join(unknown)}; there are {', '.join(names)}.")
    asyncio.run(measure([names[name] for name in chosen], quick=options.quick))


if __name__ == "__main__":
    main()
