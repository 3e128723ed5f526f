"""A run as it is watched: pure, no terminal and no clock."""

import asyncio
import json
import tracemalloc
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

import receiver.on_demand.feed
from receiver.core.models import Expected, Held, Outcome, Status, Terminal
from receiver.on_demand.progress import Result, Run
from receiver.web.pieces import texts

EMPLOYEES = [UUID(int=n) for n in range(1, 4)]
TERMINALS = [
    (UUID(int=n), Terminal(id=UUID(int=n), host="10.0.0.1", port=80, username="a", password="b"))
    for n in (91, 92)
]


def run() -> Run:
    return Run(employee_ids=EMPLOYEES, terminals=TERMINALS, on_fatal="stop", bulk=True)


def result(employee: int, site: int, status: Status = "success") -> Result:
    outcome = Outcome(status=status, step="done", message="Words.", held=Held())
    return Result(
        employee_id=EMPLOYEES[employee],
        name=f"N{employee}",
        terminal_id=TERMINALS[site][0],
        outcome=outcome,
    )


def written(value: dict[str, Any]) -> Any:
    """Return what a client reads of it."""
    return json.loads("".join(texts(value)))


async def lines(watched: Run, count: int | None = None) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    async for line in watched.watch():
        seen.append(written(line))
        if len(seen) == count:
            break
    return seen


async def test_a_watcher_who_comes_late_sees_everything_from_the_start() -> None:
    watched = run()
    early = asyncio.create_task(lines(watched))
    await asyncio.sleep(0)
    watched.add(result(0, 0))
    await asyncio.sleep(0)
    watched.add(result(0, 1, "partial"))
    watched.end()
    late = await lines(watched)
    assert [line["type"] for line in late] == ["start", "result", "result", "end"]
    assert await early == late


async def test_a_silent_run_pings_so_that_no_proxy_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert receiver.on_demand.feed.PING_S < 15
    monkeypatch.setattr(receiver.on_demand.feed, "PING_S", 0.01)
    watched = run()
    assert [line["type"] for line in await lines(watched, 4)] == ["start", "ping", "ping", "ping"]


def test_pairs_that_were_not_reached_are_named_by_employee_and_terminal() -> None:
    watched = run()
    watched.add(result(0, 0))
    watched.add(result(0, 1))
    watched.add(result(1, 0, "fatal"))
    watched.stopped_because = "It stopped at the first fatal result."
    watched.end()
    found = written(watched.as_json())
    assert found["not_reached"] == [
        {"angajat_id": str(EMPLOYEES[1]), "device_ids": [str(TERMINALS[1][0])]},
        {"angajat_id": str(EMPLOYEES[2]), "device_ids": [str(id_) for id_, _ in TERMINALS]},
    ]
    assert found["summary"] == {
        "success": 2,
        "partial": 0,
        "skipped": 0,
        "fatal": 1,
        "first_fatal": f"device {TERMINALS[0][0]}: Words.",
    }
    assert [entry["name"] for entry in found["results"]] == ["N0", "N1"]


def test_the_result_comes_with_the_progress_only_at_the_end() -> None:
    watched = run()
    watched.add(result(0, 0))
    assert "result" not in watched.progress()
    assert watched.progress()["state"] == "running"
    watched.end()
    assert watched.progress()["result"]["summary"]["success"] == 1


async def test_a_result_that_proved_wrong_is_amended_everywhere() -> None:
    watched = run()
    early = asyncio.create_task(lines(watched))
    await asyncio.sleep(0)
    watched.add(result(0, 0))
    watched.add(result(0, 1))
    await asyncio.sleep(0)
    watched.add(result(0, 0, "fatal"))
    watched.add(result(1, 0))
    watched.end()
    seen = await lines(watched)
    assert await early == seen
    assert [(line["type"], line.get("done")) for line in seen] == [
        ("start", None),
        ("result", 1),
        ("result", 2),
        ("amended", 2),
        ("result", 3),
        ("end", None),
    ]
    assert (seen[1]["status"], seen[3]["status"]) == ("success", "fatal")
    assert (seen[3]["angajat_id"], seen[3]["device_id"], seen[3]["total"]) == (
        str(EMPLOYEES[0]),
        str(TERMINALS[0][0]),
        6,
    )
    assert watched.counts == {"success": 2, "partial": 0, "skipped": 0, "fatal": 1}
    assert seen[-1]["summary"]["first_fatal"] == f"device {TERMINALS[0][0]}: Words."
    entries = written(watched.as_json())["results"]
    assert [one["status"] for one in entries[0]["per_device"]] == ["fatal", "success"]
    assert watched.progress()["done"] == 3


def test_an_amendment_does_not_take_the_place_of_the_first_fatal() -> None:
    watched = run()
    watched.add(result(0, 0))
    watched.add(result(0, 1, "fatal"))
    watched.add(result(0, 0, "fatal"))
    assert watched.first_fatal == f"device {TERMINALS[1][0]}: Words."


async def test_a_result_that_proved_right_is_not_told_again() -> None:
    """Watchers are not shown what was expected of the terminal."""
    watched = run()
    watched.add(result(0, 0))
    again = result(0, 0)
    expected = (Expected(employee_no="1", may_pass=True),)
    watched.add(replace(again, outcome=replace(again.outcome, expected=expected)))
    watched.add(again)
    watched.end()
    assert [line["type"] for line in await lines(watched)] == ["start", "result", "end"]


def large_run(*, employees: int, terminals: int) -> Run:
    """Return a run of which nothing is told yet."""
    [(_, terminal), _] = TERMINALS
    return Run(
        employee_ids=[UUID(int=n) for n in range(employees)],
        terminals=[(UUID(int=n), terminal) for n in range(terminals)],
        on_fatal="continue",
        bulk=True,
    )


def test_a_run_of_200000_pairs_keeps_some_bytes_of_each() -> None:
    tracemalloc.start()
    watched = large_run(employees=4000, terminals=50)
    for employee_id in watched.employee_ids:
        name = f"Popescu{employee_id.int}"
        for terminal_id, _ in watched.terminals:
            held = Held(employee_no=str(employee_id.int), photo=name * 5)
            outcome = Outcome(status="success", step="done", message=f"Of {name}.", held=held)
            told = Result(
                employee_id=employee_id, name=name, terminal_id=terminal_id, outcome=outcome
            )
            watched.add(told)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / watched.total < 50  # as objects they were 1,000
    assert len(watched.results) == watched.total


def test_a_run_reads_as_the_plan_goes_whatever_the_order_of_its_results() -> None:
    watched = run()
    for employee, site in ((1, 1), (0, 1), (1, 0), (0, 0)):
        watched.add(result(employee, site))
    found = written(watched.as_json())["results"]
    assert [entry["name"] for entry in found] == ["N0", "N1"]
    for entry in found:
        devices = [one["device_id"] for one in entry["per_device"]]
        assert devices == [str(terminal_id) for terminal_id, _ in TERMINALS]


def test_a_result_that_comes_again_counts_once() -> None:
    watched = run()
    watched.add(result(0, 0))
    watched.add(result(0, 0, "fatal"))
    watched.add(result(0, 0, "partial"))
    assert watched.counts == {"success": 0, "partial": 1, "skipped": 0, "fatal": 0}
    assert watched.progress()["done"] == 1
    assert [one.outcome.status for one in watched.results] == ["partial"]
