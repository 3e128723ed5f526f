"""The recorded answers of terminals and their index, fixtures/isapi/cases.csv."""

import csv
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "fixtures" / "isapi"


INDEX = FIXTURES / "cases.csv"


with INDEX.open(encoding="utf-8", newline="") as index:
    CASES = list(csv.DictReader(index))
