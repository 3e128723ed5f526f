"""A verification whose pages move, or end before their total: whoever left passes no more."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, cast

import pytest

from receiver.core.models import LeaverPolicy
from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.terminal import persons as simulated_persons
from tests.support.hr_days import Company, open_company
from tests.support.waiting import eventually
from tests.whole.test_harms import green, now, staff

LEAVERS = 6


@pytest.fixture
async def company(embedded_postgres: PostgresServer) -> AsyncIterator[Company]:
    async with open_company(embedded_postgres) as company:
        company.verify_every(3600.0)
        yield company
        await company.end_day()


async def _verified_since(company: Company, at: datetime) -> bool:
    [row] = await company.run("select verified_at from hikvision_sync_status()")
    return row["verified_at"] is not None and row["verified_at"] > at


async def verify(company: Company) -> None:
    """Have everybody asked for once, and wait for the end and for what it found."""
    at = await now(company)
    await company.run("update hikvision_sync.terminals set verify_began_at = null")
    await eventually(lambda: _verified_since(company, at))
    while await company.unfinished():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def may_pass(company: Company) -> set[str]:
    """Return those of our people whom the only terminal lets in."""
    terminal, at = company.terminals[0], await now(company)
    ours = {str(1000 + n) for n in range(LEAVERS + 2)}
    return {number for number in ours & set(terminal.persons) if terminal.may_pass(number, at)}


@pytest.mark.parametrize("policy", ["delete", "expire"])
@pytest.mark.parametrize("says_ok", [False, True])
async def test_a_backup_that_brings_leavers_back_lets_none_of_them_in(
    company: Company, monkeypatch: pytest.MonkeyPatch, policy: LeaverPolicy, *, says_ok: bool
) -> None:
    """Those on a page are erased before the next page, which passes over as many behind them."""
    monkeypatch.setattr(simulated_persons, "_PAGE", 2)
    search = simulated_persons.PersonCalls.search

    async def saying_ok(self: Any, request: Any) -> Any:
        found = cast("Any", await search(self, request))
        if found["UserInfoSearch"]["responseStatusStrg"] == "MORE":
            found["UserInfoSearch"]["responseStatusStrg"] = "OK"
        return found

    if says_ok:
        monkeypatch.setattr(simulated_persons.PersonCalls, "search", saying_ok)
    await company.begin_day(policy=policy, terminals=1)
    people = await staff(company, LEAVERS + 2)
    company.back_up(0)
    for id_ in people[1:-1]:
        await company.set_status(id_, "inactiv")
    await green(company)
    company.give_back(0)
    assert len(await may_pass(company)) == LEAVERS + 2
    await verify(company)
    assert await may_pass(company) == {"1000", str(1000 + LEAVERS + 1)}
