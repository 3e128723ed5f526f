"""The figures of /metrics as a test reads them, and the README's table of them."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]


README = (ROOT / "receiver" / "web" / "README.md").read_text(encoding="utf-8")


SECTION = README.split("\n## Metrics")[1].split("\n## ")[0]


TABLE = [line.split("|")[1:5] for line in SECTION.splitlines() if line.startswith("| `")]


CALLS = "hikvision_device_call_duration_seconds"


OLDEST = "hikvision_oldest_wanted_age_seconds"


Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures(text: str) -> Figures:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Figures, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def assert_as_documented(text: str) -> None:
    """The README's table has every metric with its labels, and no other."""
    documented = {
        metric: set(named(labels)) for names, labels, _, _ in TABLE for metric in named(names)
    }
    there: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels}
        there[name] = labels - {"le"}
    # The one that nobody has now
    there.setdefault("hikvision_terminal_resting", {"device_id", "why"})
    there["hikvision_terminal_resting"] |= {"device_id", "why"}
    assert there == documented
