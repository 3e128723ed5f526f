"""The benchmark prints what it found, and still runs."""

import pytest

from tests.benchmark import device_calls, triggers
from tests.benchmark.__main__ import main, measure
from tests.benchmark.table import Row, figure, printed


def test_a_table_says_what_was_measured_and_how_many_times_better_ours_is() -> None:
    rows = [
        Row("an edit", 12.34, "ms", 49.36, note="100 edits"),
        Row("claims", 1234.5, "/s", better="more"),
        Row("hits", 50, "/s", 100, better="more"),
    ]
    assert printed(rows).splitlines() == [
        "| what    |     ours | baseline |  ratio | note      |",
        "| ------- | -------: | -------: | -----: | --------- |",
        "| an edit |  12.3 ms |  49.4 ms |  4.00x | 100 edits |",
        "| claims  | 1,234 /s |          |        |           |",
        "| hits    |  50.0 /s |   100 /s | 0.500x |           |",
    ]


@pytest.mark.parametrize(
    ("ours", "baseline", "ratio"), [(2.0, 4.0, 2.0), (2.0, None, None), (0.0, 4.0, None)]
)
def test_a_ratio_is_shown_where_it_says_something(
    ours: float, baseline: float | None, ratio: float | None
) -> None:
    assert Row("what", ours, "ms", baseline).ratio == ratio


def test_a_figure_has_three_digits_that_count() -> None:
    written = {0.0: "0", 0.5: "0.500", 1.234: "1.23", -12.34: "-12.3", 999.9: "1,000"}
    assert {number: figure(number) for number in written} == written


async def test_a_part_is_measured_and_printed_under_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await measure([triggers], quick=True)
    said = capsys.readouterr().out
    assert "**triggers**: What the triggers cost" in said
    assert "| single save " in said


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(SystemExit, match="no part nonsense"):
        main(["--quick", "--only", "ledger,nonsense"])


async def test_a_terminal_is_called_no_more_often_than_is_documented() -> None:
    pytest.importorskip("requests", reason="the benchmark's baseline needs it")
    found = {row.what: (row.ours, row.baseline) for row in await device_calls.measure(quick=True)}
    assert found["rename: calls"] == (2, 2)
    assert found["new photo: calls"] == (3, 2)
    assert found["new person with photo, in one save: calls"][0] == 3
    [hired] = [figures for what, figures in found.items() if "at once: calls" in what]
    assert hired[0] == 3  # 2 of them: each its two calls, and a search before and after
    unchanged = {
        int(what.split()[2]): figures[0]
        for what, figures in found.items()
        if what.endswith("unchanged: calls")
    }
    assert unchanged == {people: 1 / people for people in unchanged}  # a search for all
    for what, figures in found.items():
        if what.endswith("round trips"):
            calls = found[what.replace("round trips", "calls")]
            assert figures == pytest.approx([2 * figure for figure in calls if figure is not None])
