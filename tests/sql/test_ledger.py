"""The ledger's functions, called as the receiver calls them, on both servers."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg.types.json
import pytest
from psycopg.rows import dict_row

from receiver.sandbox.database.postgres import Database
from tests.support.projects import Project, Row, wait_until_somebody_waits_for


class Receiver:
    """One receiver's session: a connection as service_role."""

    def __init__(self, database: Database, name: str = "a") -> None:
        self.name = name
        self.connection = psycopg.connect(
            database.superuser_dsn, autocommit=True, row_factory=dict_row
        )
        self.connection.execute("set role service_role")

    def call(self, verb: str, *arguments: Any) -> list[Row]:
        places = ", ".join(["%s"] * len(arguments))
        statement = f"select * from public.hikvision_sync_{verb}({places})"
        return self.connection.execute(statement.encode(), arguments).fetchall()

    def claim(
        self,
        limit: int = 100,
        lease_s: float = 60,
        *,
        look_s: float = 900,
        verify_s: float | None = None,
        policy: str | None = None,
    ) -> list[Row]:
        return self.call("claim", self.name, lease_s, limit, look_s, verify_s, policy)

    def record(
        self, row: Row, status: str = "success", retry_s: float | None = None, **changes: Any
    ) -> bool:
        outcome = {
            "employee_id": str(row["employee_id"]),
            "version": row["version"],
            "status": status,
            "step": "done",
            "message": "message",
            "employee_no": "1000",
            "photo": "fingerprint",
            "retry_seconds": retry_s,
            "confirmed_ago": 0 if status == "success" else None,
        }
        return self.record_all(row, {**outcome, **changes})

    def record_all(self, lease: Row, *outcomes: dict[str, Any]) -> bool:
        written = psycopg.types.json.Jsonb(list(outcomes))
        held = self.call("record", lease["terminal_id"], lease["fence"], 60, written)
        return bool(held[0]["held"])

    def due(
        self, terminal: str, fence: int, limit: int = 100, besides: Sequence[str] = ()
    ) -> list[Row]:
        found = self.call("due", terminal, fence, limit, list(besides))
        return [{**row, "terminal_id": terminal, "fence": fence} for row in found]

    def take(self, terminal: str, fence: int, employee: str) -> list[Row]:
        found = self.call("take", terminal, fence, 60, employee)
        return [{**row, "terminal_id": terminal, "fence": fence} for row in found]

    def release(
        self,
        row: Row,
        rest_s: float | None = None,
        pause_s: float = 0,
        *,
        login_refused: bool = False,
    ) -> bool:
        held = self.call(
            "release",
            row["terminal_id"],
            row["fence"],
            pause_s,
            1 if rest_s else 0,
            rest_s,
            "why",
            login_refused,
        )
        return bool(held[0]["held"])


@pytest.fixture
def project(each_migrated_database: Database) -> Iterator[Project]:
    with Project(each_migrated_database) as project:
        yield project


@pytest.fixture
def a(project: Project) -> Iterator[Receiver]:
    receiver = Receiver(project.database, "a")
    yield receiver
    receiver.connection.close()


@pytest.fixture
def b(project: Project) -> Iterator[Receiver]:
    receiver = Receiver(project.database, "b")
    yield receiver
    receiver.connection.close()


def install_terminals(project: Project, count: int) -> list[str]:
    """Install terminals as if long ago: they are not to be filled any more."""
    rows = project.run(
        "insert into dispozitive_pontaj (ip_address, username, password_encrypted)"
        " select '10.0.0.' || n, 'admin', 'x' from generate_series(1, %s) n returning id::text",
        count,
    )
    project.run("delete from hikvision_sync.edits where employee_id is null")
    return sorted(row["id"] for row in rows)


def hire(project: Project, count: int = 1) -> list[str]:
    rows = project.run(
        "insert into angajati (nume) select 'n' || n from generate_series(1, %s) n"
        " returning id::text",
        count,
    )
    return [row["id"] for row in rows]


@contextmanager
def transaction_of_hr(project: Project) -> Iterator[Project]:
    """A second HR session whose transaction stays open until the end of the block."""
    with Project(project.database) as other, other.connection.transaction():
        yield other


def test_an_edit_is_wanted_on_every_active_terminal_and_on_no_other(
    project: Project, a: Receiver
) -> None:
    active = install_terminals(project, 3)
    project.run("update dispozitive_pontaj set status = 'inactiv' where id = %s", active.pop())
    [employee] = hire(project)
    claimed = [a.claim()[0] for _ in active]
    assert sorted(str(row["terminal_id"]) for row in claimed) == active
    assert {str(row["employee_id"]) for row in claimed} == {employee}
    assert a.claim() == []


def test_giving_a_terminal_back_may_be_repeated_until_another_has_it(
    project: Project, a: Receiver, b: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    assert a.release(row)
    assert a.release(row, rest_s=600)  # its answer got lost; what it said first counts
    assert b.claim()
    assert not a.release(row)


def test_two_receivers_claiming_at_once_get_different_terminals(
    project: Project, a: Receiver, b: Receiver
) -> None:
    install_terminals(project, 2)
    hire(project)
    a.release(a.claim()[0])
    with a.connection.transaction():  # a's claim is not committed when b claims
        first = a.claim()
        second = b.claim()
    assert first[0]["terminal_id"] != second[0]["terminal_id"]
    assert b.claim() == []


def test_a_pair_edited_while_it_is_pushed_stays_wanted(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    [employee] = hire(project)
    [row] = a.claim()
    project.run("update angajati set nume = 'altul' where id = %s", employee)
    assert a.claim() == []  # spreads the edit, while the terminal is leased
    assert a.record(row)
    assert a.release(row)
    [again] = a.claim()
    assert again["version"] == row["version"] + 1
    assert again["employee_no"] == "1000"
    assert again["photo"] == "fingerprint"
    assert a.record(again)
    assert a.release(again)
    assert a.claim() == []


def test_many_edits_of_one_employee_are_one_push(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    [employee] = hire(project)
    for n in range(5):
        project.run("update angajati set nume = %s where id = %s", f"n{n}", employee)
    assert len(a.claim()) == 1


def test_a_failed_pair_waits_and_an_edit_makes_it_due_at_once(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    [employee] = hire(project)
    [row] = a.claim()
    a.record(row, "fatal", retry_s=3600)
    a.release(row)
    assert a.claim() == []
    project.run("update angajati set nume = 'altul' where id = %s", employee)
    [again] = a.claim()
    assert again["attempts"] == 0


def test_attempts_are_counted_and_failed_pairs_go_last(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    hire(project, 2)
    rows = a.claim()
    first, second = (r["employee_id"] for r in rows)
    a.record(rows[0], "fatal", retry_s=0)
    a.release(rows[0])
    again = a.claim()
    assert [r["employee_id"] for r in again] == [second, first]
    assert [r["attempts"] for r in again] == [0, 1]


def test_bad_data_is_done_until_hr_edits_it(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    a.record(row, "skipped")
    a.release(row)
    assert a.claim() == []
    project.run("update angajati set status = 'activ', nume = 'bun'")
    assert len(a.claim()) == 1


def test_a_receiver_that_shows_an_old_fence_changes_nothing(
    project: Project, a: Receiver, b: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [old] = a.claim(lease_s=0)
    [new] = b.claim()
    assert new["fence"] > old["fence"]
    assert not a.record(old)
    assert not a.release(old)
    assert not a.call("renew", old["terminal_id"], old["fence"], 60)[0]["held"]
    assert b.record(new)
    assert b.release(new)
    assert not b.record(new)  # it was given back


def test_a_lease_that_ran_out_but_was_not_taken_still_belongs_to_its_holder(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim(lease_s=0)
    assert a.call("renew", row["terminal_id"], row["fence"], 60)[0]["held"]
    assert a.claim() == []


def test_a_running_lease_belongs_to_its_holder_alone(
    project: Project, a: Receiver, b: Receiver
) -> None:
    [terminal] = install_terminals(project, 1)
    hire(project)
    a.claim()
    assert b.claim() == []
    assert b.call("lease", "b", terminal, 60)[0]["state"] == "busy"


def test_one_named_terminal_can_be_leased_unless_it_refused_the_login(
    project: Project, a: Receiver, b: Receiver
) -> None:
    [terminal] = install_terminals(project, 1)
    [lease] = a.call("lease", "a", terminal, 60)
    assert lease["state"] == "leased"
    hire(project)
    assert b.claim() == []
    a.release({"terminal_id": terminal, "fence": lease["fence"]}, rest_s=60)
    assert b.claim() == []
    [again] = b.call("lease", "b", terminal, 60)
    assert again["state"] == "leased"
    b.release({**again, "terminal_id": terminal}, rest_s=60, login_refused=True)
    [refused] = b.call("lease", "b", terminal, 60)
    assert (refused["state"], refused["fence"], refused["rest_reason"]) == ("resting", None, "why")


def test_the_pause_after_a_call_holds_for_the_next_receiver_too(
    project: Project, a: Receiver, b: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    a.release(row, pause_s=30)
    assert b.claim() == []


def test_a_terminal_that_rests_holds_back_only_itself(project: Project, a: Receiver) -> None:
    install_terminals(project, 2)
    hire(project)
    resting, other = a.claim()[0], a.claim()[0]
    a.release(resting, rest_s=600)
    a.release(other)
    [row] = a.claim()
    assert row["terminal_id"] == other["terminal_id"]


@pytest.mark.parametrize(
    "change",
    [
        "ip_address = '10.9.9.9'",
        "port = 8080",
        "username = 'root'",
        "password_encrypted = 'y'",
        "ip_address = null",
    ],
)
def test_a_changed_row_ends_a_terminals_rest(project: Project, a: Receiver, change: str) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    a.release(row, rest_s=1860)
    project.run("update dispozitive_pontaj set nume = 'alt nume'")
    assert a.claim() == []
    project.run(f"update dispozitive_pontaj set {change}")
    [again] = a.claim()
    assert again["failures"] == 0


def test_a_row_changed_during_the_visit_that_failed_is_tried_again_at_once(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    project.run("update dispozitive_pontaj set password_encrypted = 'corrected'")
    a.release(row, rest_s=1860)
    assert len(a.claim()) == 1


def test_terminals_are_claimed_one_after_another(project: Project, a: Receiver) -> None:
    terminals = install_terminals(project, 3)
    hire(project, 10)
    seen = []
    for _ in range(6):
        rows = a.claim(limit=1)
        seen.append(str(rows[0]["terminal_id"]))
        a.release(rows[0])
    assert sorted(seen[:3]) == terminals
    assert seen[3:] == seen[:3]


def test_an_open_transaction_of_hr_keeps_no_receiver_waiting(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    [employee] = hire(project)
    [row] = a.claim()
    a.connection.execute("set lock_timeout = '2s'")
    with transaction_of_hr(project) as hr:
        hr.run("update angajati set nume = 'inca nesalvat' where id = %s", employee)
        assert a.record(row)
        assert a.release(row)
        assert a.claim() == []
    assert len(a.claim()) == 1


def test_edits_in_crossed_order_cannot_deadlock_hr(project: Project, a: Receiver) -> None:
    """One HR session edits A's row of one table then B's; the other B's of the other then A's."""
    install_terminals(project, 3)
    first, second = hire(project, 2)
    for employee in (first, second):
        project.run("insert into angajati_biometrie (angajat_id) values (%s)", employee)
    barrier = threading.Barrier(2, timeout=10)
    failures: list[Exception] = []

    def session(statement: str, order: list[str]) -> None:
        try:
            with Project(project.database) as hr, hr.connection.transaction():
                hr.run("set local lock_timeout = '5s'")
                hr.run(statement, order[0])
                barrier.wait()
                hr.run(statement, order[1])
        except Exception as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [
        threading.Thread(
            target=session,
            args=("update angajati set nume = 'x' where id = %s", [first, second]),
        ),
        threading.Thread(
            target=session,
            args=(
                "update angajati_biometrie set foto_fata_url = 'x' where angajat_id = %s",
                [second, first],
            ),
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert len(a.claim()) == 2


@pytest.mark.parametrize("verb", ["record", "intend"])
@pytest.mark.parametrize("had_it", [0, 1])
def test_an_employee_who_gets_anothers_number_cannot_deadlock_with_edits_being_spread(
    project: Project, a: Receiver, verb: str, had_it: int
) -> None:
    """Spreading locks the pairs of a terminal in the order of their employees; so must this."""
    install_terminals(project, 1)
    hire(project, 2)
    rows = a.claim()
    in_order = sorted(rows, key=lambda row: str(row["employee_id"]))
    assert a.record(in_order[had_it])  # it has number 1000
    other = in_order[1 - had_it]
    asked = threading.Thread(target=lambda: done.append(change()), daemon=True)
    done: list[object] = []

    def change() -> object:
        if verb == "record":
            return a.record(other)
        at = (other["terminal_id"], other["fence"], 60)
        return a.call("intend", *at, other["employee_id"], "1000", "unknown")[0]["held"]

    lock = "select from hikvision_sync.pairs where employee_id = %s for update"
    with transaction_of_hr(project) as spreading:
        spreading.run(lock, in_order[0]["employee_id"])
        asked.start()
        wait_until_somebody_waits_for(spreading)
        spreading.run(lock, in_order[1]["employee_id"])
    asked.join(10)
    assert done == [True]


def test_receivers_spreading_edits_at_once_lose_none(project: Project) -> None:
    terminals = install_terminals(project, 4)
    employees = hire(project, 400)
    receivers = [Receiver(project.database, str(n)) for n in range(4)]
    found: list[list[Row]] = [[] for _ in receivers]

    def work(place: int) -> None:
        while rows := receivers[place].claim(limit=50):
            for row in rows:
                assert receivers[place].record(row)
            found[place] += rows
            receivers[place].release(rows[0])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for n in range(20):
        project.run("update angajati set nume = %s where id = %s", f"u{n}", employees[n])
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    work(0)  # edits that were made after the others had looked
    pairs = {(str(r["terminal_id"]), str(r["employee_id"])) for rows in found for r in rows}
    assert pairs == {(t, e) for t in terminals for e in employees}
    left = project.run("select count(*) from hikvision_sync.pairs where wanted > done")
    assert left[0]["count"] == 0
    for receiver in receivers:
        receiver.connection.close()


def test_a_large_import_is_spread_in_bounded_steps(project: Project, a: Receiver) -> None:
    install_terminals(project, 20)
    hire(project, 2500)
    a.claim(limit=1)
    assert len(project.edits()) == 1500  # 20,000 pairs a call
    a.claim(limit=1)
    a.claim(limit=1)
    assert project.edits() == []
    pairs = project.run("select count(*) from hikvision_sync.pairs where wanted > done")
    assert pairs[0]["count"] == 50_000


def test_everybody_can_be_wanted_again(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    hire(project, 3)
    for row in (rows := a.claim()):
        a.record(row)
    a.release(rows[0])
    assert a.claim() == []
    assert a.call("want", rows[0]["employee_id"]) == [{"employees": 1}]
    assert len(a.claim(lease_s=0)) == 1
    assert a.call("want", None) == [{"employees": 3}]
    assert len(serve_all(a)) == 3


def test_a_terminal_that_is_leased_already_says_what_else_is_due_there(
    project: Project, a: Receiver
) -> None:
    first, _ = install_terminals(project, 2)
    [lease] = a.call("lease", "a", first, 60)
    [employee] = hire(project)
    assert a.due(first, lease["fence"], besides=[employee]) == []  # it is in hand
    [due] = a.due(first, lease["fence"])
    assert (str(due["employee_id"]), due["version"]) == (employee, 1)
    assert a.record(due)
    assert a.due(first, lease["fence"], 10) == []
    assert a.due(first, lease["fence"] + 1, 10) == []


def test_a_pair_that_is_taken_is_wanted_until_it_is_recorded(
    project: Project, a: Receiver, b: Receiver
) -> None:
    [terminal] = install_terminals(project, 1)
    project.run("alter table angajati disable trigger hikvision_sync_inserted")
    [employee] = hire(project)
    [lease] = a.call("lease", "a", terminal, 60)
    assert a.take(terminal, lease["fence"] + 1, employee) == []
    [taken] = a.take(terminal, lease["fence"], employee)
    [seen] = a.call("pairs", terminal, lease["fence"], [employee])
    assert (seen["version"], seen["was_wanted"]) == (taken["version"], True)
    a.release(
        {"terminal_id": terminal, **lease}
    )  # as a receiver that is stopped in the middle does
    [claimed] = b.claim()
    assert (str(claimed["employee_id"]), claimed["version"]) == (employee, taken["version"])
    b.record(claimed)
    b.release(claimed)
    [lease] = a.call("lease", "a", terminal, 60)
    [again] = a.take(terminal, lease["fence"], employee)
    assert again["version"] == claimed["version"] + 1
    a.record(again)
    a.release(again)
    assert b.claim() == []


def pages_read(receiver: Receiver, project: Project, limit: int = 30) -> int:
    """Return how many pages of tables and indexes one claim reads, and undo it."""
    statement = (
        "explain (analyze, buffers, format json)"
        " select * from hikvision_sync_claim(%s, 60, %s, 900, null, null)"
    )
    read = []
    for _ in range(2):  # the first one also reads what this session knows nothing of yet
        [row] = receiver.connection.execute(statement, (receiver.name, limit)).fetchall()
        plan = row["QUERY PLAN"][0]["Plan"]
        read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        project.run("update hikvision_sync.terminals set leased_by = null, leased_until = null")
    return int(read[-1])


@pytest.mark.parametrize("due", [0, 1, 400])
@pytest.mark.parametrize("analyzed", [False, True])
def test_a_claim_reads_few_of_the_pairs_that_wait(
    project: Project, a: Receiver, due: int, *, analyzed: bool
) -> None:
    terminals = install_terminals(project, 2)
    project.run(
        "insert into hikvision_sync.terminals (terminal_id) select id from dispozitive_pontaj"
    )
    project.run(
        "insert into hikvision_sync.pairs (terminal_id, employee_id, attempts, next_attempt_at)"
        " select id, gen_random_uuid(), 3, now() + interval '1 day'"
        " from dispozitive_pontaj, generate_series(1, 6000)"
    )
    if analyzed:
        project.run("vacuum analyze hikvision_sync.pairs")
    project.run(
        "update hikvision_sync.pairs set next_attempt_at = now() - interval '1 minute'"
        " where ctid in (select ctid from hikvision_sync.pairs where terminal_id = %s"
        " order by wanted_since desc limit %s)",
        terminals[0],
        due,
    )
    # Two for each claimed pair are the memory of numbers. Where all that wait are read: 240 to 770.
    assert pages_read(a, project) < 200
    assert len(a.claim(limit=1000)) == due


def test_due_pairs_come_in_the_same_order_however_many_they_are(
    project: Project, a: Receiver
) -> None:
    [terminal_id] = install_terminals(project, 1)
    project.run(
        "insert into hikvision_sync.terminals (terminal_id) select id from dispozitive_pontaj"
    )
    project.run(
        "insert into hikvision_sync.pairs"
        " (terminal_id, employee_id, attempts, wanted_since, next_attempt_at, leaves)"
        " select %s, gen_random_uuid(), n %% 3, now() - n %% 7 * interval '1 hour',"
        " now() - n %% 5 * interval '1 minute', false from generate_series(1, 700) n",
        terminal_id,
    )
    in_order = [
        row["employee_id"]
        for row in project.run(
            "select employee_id from hikvision_sync.pairs"
            " order by leaves desc, attempts, wanted_since, employee_id"
        )
    ]
    claimed = a.claim(limit=700)
    assert [row["employee_id"] for row in claimed] == in_order
    project.run("update hikvision_sync.pairs set leaves = employee_id < %s", in_order[0])
    project.run(
        "update hikvision_sync.pairs set done = wanted where employee_id = any(%s)", in_order[:400]
    )
    few = a.call("due", terminal_id, claimed[0]["fence"], 1000, [])
    assert [row["employee_id"] for row in few] == [
        row["employee_id"]
        for row in project.run(
            "select employee_id from hikvision_sync.pairs where wanted > done"
            " order by leaves desc, attempts, wanted_since, employee_id"
        )
    ]


def test_an_edit_made_while_a_terminal_is_not_active_waits_there_for_it(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    [employee, other] = hire(project, 2)
    for row in (rows := a.claim()):
        a.record(row)
    a.release(rows[0])
    project.run("update dispozitive_pontaj set status = 'eroare'")
    project.run("update angajati set status = 'inactiv' where id = %s", employee)
    project.run("delete from angajati where id = %s", other)
    assert a.claim() == []
    assert project.edits() == []
    project.run("update dispozitive_pontaj set status = 'activ'")
    assert names(serve_all(a)) == {employee, other}


def test_wanting_everybody_includes_employees_whom_hr_has_deleted(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    [gone] = hire(project)
    [row] = a.claim()
    a.record(row)
    a.release(row)
    project.run("delete from angajati")
    [row] = a.claim()
    a.record(row)
    a.release(row)
    assert a.call("want", None) == [{"employees": 1}]
    assert str(a.claim()[0]["employee_id"]) == gone


def test_a_number_that_is_noted_is_known_and_belongs_to_one_employee_alone(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project, 2)
    first, second = a.claim()

    def intend(row: Row, fence_off: int = 0) -> Row:
        fence = row["fence"] + fence_off
        lease = row["terminal_id"], fence, 60
        [said] = a.call("intend", *lease, row["employee_id"], "1000", "unknown")
        return said

    for row in (first, second, second):  # its first answer got lost
        photo = "unknown" if row is first else "anothers"
        assert intend(row) == {"held": True, "photo": photo}
    assert not intend(first, fence_off=1)["held"]
    held = {
        r["employee_id"]: (r["employee_no"], r["photo"])
        for r in a.due(first["terminal_id"], first["fence"], 10)
    }
    assert held == {first["employee_id"]: (None, None), second["employee_id"]: ("1000", "anothers")}


def serve(receiver: Receiver) -> list[Row]:
    """Claim what is due and record it all as done; return it."""
    if rows := receiver.claim():
        for row in rows:
            if row["employee_id"]:
                receiver.record(row)
        receiver.release(rows[0])
    return rows


def serve_all(receiver: Receiver) -> list[Row]:
    """Serve until nothing is due; leavers come alone, before the others."""
    served: list[Row] = []
    while names(rows := serve(receiver)):  # not of a terminal that is only to be identified
        served += rows
    return served


def names(rows: list[Row]) -> set[str]:
    return {str(row["employee_id"]) for row in rows if row["employee_id"]}


def meet(receiver: Receiver, row: Row, serial: str) -> Row:
    device = psycopg.types.json.Jsonb({"serial": serial, "firmware": "V4.39.0"})
    [met] = receiver.call("meet", row["terminal_id"], row["fence"], 60, device)
    return met


def enrol(project: Project, receiver: Receiver) -> str:
    """Hire an employee with a number, whom every terminal holds after this."""
    [employee] = hire(project)
    project.run("insert into angajati_biometrie (angajat_id) values (%s)", employee)
    serve_all(receiver)
    return employee


@pytest.mark.parametrize(
    "departure",
    [
        "update angajati set status = 'inactiv' where id = %s",
        "update angajati set status = null where id = %s",
        "update angajati_biometrie set employee_no = null where angajat_id = %s",
        "delete from angajati_biometrie where angajat_id = %s",
        "delete from angajati where id = %s",
    ],
)
def test_an_employee_who_leaves_goes_before_an_import_and_keeps_no_terminal_longer(
    project: Project, a: Receiver, departure: str
) -> None:
    terminals = install_terminals(project, 3)
    leaver = enrol(project, a)
    hire(project, 40)
    first = a.claim(limit=30)  # the import has begun
    a.release(first[0])
    project.run(departure, leaver)
    visits = [serve(a) for _ in range(4)]
    assert [names(rows) for rows in visits[:3]] == [{leaver}] * 3
    assert sorted(str(rows[0]["terminal_id"]) for rows in visits[:3]) == terminals
    assert leaver not in names(visits[3])
    assert len(visits[3]) == 40


def test_a_terminal_that_holds_a_leaver_goes_before_terminals_that_waited_longer(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 3)
    leaver = enrol(project, a)
    hire(project, 10)
    visited: list[object] = []
    for _ in range(3):
        [row, *_] = a.claim()
        if visited:  # on all but the first the number went to another employee
            at = (row["terminal_id"], row["fence"], 60)
            a.call("intend", *at, row["employee_id"], "1000", "unknown")
        visited.append(row["terminal_id"])
        a.release(row)
    holder, last = visited[0], visited[-1]
    project.run("update angajati set status = 'inactiv' where id = %s", leaver)
    rows = serve(a)
    assert holder != last
    assert (rows[0]["terminal_id"], names(rows)) == (holder, {leaver})
    assert leaver in names(
        serve(a)
    )  # these hold nothing of theirs to end, so they come in their order


def test_a_leaver_who_cannot_be_ended_does_not_keep_the_others_waiting(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    leaver = enrol(project, a)
    project.run("update angajati set status = 'inactiv' where id = %s", leaver)
    staff = hire(project, 2)
    [row] = a.claim()
    a.record(row, "fatal", retry_s=30)
    a.release(row)
    assert names(serve(a)) == set(staff)
    assert a.claim() == []


def test_an_employee_who_came_back_before_the_push_waits_like_the_others(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    back = enrol(project, a)
    hire(project, 3)
    for status in ("concediu", "activ"):
        project.run("update angajati set status = %s where id = %s", status, back)
        rows = a.claim(limit=2)
        a.release(rows[0])
        assert (back in names(rows)) == (status == "concediu")


def test_a_terminal_that_is_added_is_filled_with_every_active_employee(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    staff = hire(project, 5)
    serve(a)
    project.run("update angajati set status = 'inactiv' where id = %s", staff[0])
    serve(a)
    project.run("insert into dispozitive_pontaj (ip_address) values ('10.0.0.99')")
    assert len(project.fills()) == 1
    rows = serve(a)
    assert names(rows) == set(staff[1:])
    assert project.fills() == []
    assert a.claim() == []


@pytest.mark.parametrize("meanwhile", ["inactiv", "eroare"])
def test_a_terminal_that_comes_back_is_filled_once_and_one_that_goes_is_not(
    project: Project, a: Receiver, meanwhile: str
) -> None:
    install_terminals(project, 1)
    staff = hire(project, 3)
    serve(a)
    project.run("update dispozitive_pontaj set status = %s", meanwhile)
    project.run("update dispozitive_pontaj set password_encrypted = 'new'")
    staff += hire(project)  # while the terminal is left alone
    assert project.fills() == []
    project.run("update dispozitive_pontaj set status = 'activ'")
    project.run("update dispozitive_pontaj set status = 'activ'")
    assert len(project.fills()) == 1
    assert names(serve_all(a)) == set(staff)


def test_a_terminal_that_is_added_as_inactive_is_not_filled(project: Project) -> None:
    project.run(
        "insert into dispozitive_pontaj (ip_address, status) values ('10.0.0.1', 'inactiv')"
    )
    assert project.fills() == []


def test_many_terminals_are_filled_in_bounded_steps(project: Project, a: Receiver) -> None:
    hire(project, 5000)
    project.run("delete from hikvision_sync.edits")
    project.run(
        "insert into dispozitive_pontaj (ip_address)"
        " select '10.0.1.' || n from generate_series(1, 10) n"
    )
    spread = []
    while project.fills():
        a.claim(lease_s=0)
        [row] = project.run("select count(*) as n from hikvision_sync.pairs")
        spread.append(row["n"])
    assert spread == [20000, 40000, 50000]


def test_a_new_terminal_is_to_be_identified_and_is_known_after_that(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    assert row["look"]
    assert row["device"] is None
    assert meet(a, row, "A1") == {"held": True, "replaced": False}
    a.record(row)
    a.release(row)
    hire(project)
    [row] = a.claim()
    assert not row["look"]
    assert row["device"] == {"serial": "A1", "firmware": "V4.39.0"}


def test_a_terminal_is_identified_again_after_a_while_a_failure_and_a_change_of_its_row(
    project: Project, a: Receiver
) -> None:
    [terminal] = install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    meet(a, row, "A1")
    a.record(row)
    a.release(row, rest_s=1e-6)
    assert a.claim() == []  # only identifying is due, and only together with something else
    [leased] = a.call("lease", "a", terminal, 60)
    assert leased["look"]  # something went wrong
    meet(a, {"terminal_id": terminal, **leased}, "A1")
    a.release({"terminal_id": terminal, **leased})
    assert a.claim() == []
    [row] = a.claim(20, look_s=0)  # identify at every claim
    assert row["look"]
    assert row["employee_id"] is None
    a.release(row)
    project.run("update dispozitive_pontaj set ip_address = '10.9.9.9'")
    [row] = a.claim()
    assert row["look"]
    assert row["employee_id"] is None


def test_identifying_does_not_count_if_a_change_of_the_row_overtook_it(
    project: Project, a: Receiver
) -> None:
    """The device that was met may still have been the one at the old address."""
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    project.run("update dispozitive_pontaj set ip_address = '10.9.9.9'")
    meet(a, row, "A1")
    a.record(row)
    a.release(row)
    [row] = a.claim()
    assert row["look"]
    assert meet(a, row, "B2") == {"held": True, "replaced": True}


def test_other_hardware_behind_a_row_starts_its_ledger_again(project: Project, a: Receiver) -> None:
    [terminal, _] = install_terminals(project, 2)
    staff = hire(project, 3)
    rows = [a.claim(), a.claim()]
    for met in rows:
        meet(a, met[0], f"serial of {met[0]['terminal_id']}")
    [first] = [met for met in rows if str(met[0]["terminal_id"]) == terminal]
    for place, row in enumerate(row for met in rows for row in met):
        a.record(row, employee_no=str(1000 + place))
    project.run("update angajati set status = 'inactiv' where id = %s", staff[0])
    assert names(a.due(terminal, first[0]["fence"], 100)) == {staff[0]}
    assert meet(a, first[0], "B2") == {"held": True, "replaced": True}
    assert meet(a, first[0], "B2") == {"held": True, "replaced": True}  # its answer got lost
    due = a.due(terminal, first[0]["fence"], 100)
    assert names(due) == set(staff)  # the leaver too: the people on it are unknown
    assert {row["photo"] for row in due} == {"unknown"}
    assert None not in {row["employee_no"] for row in due}
    other = rows[0] if rows[1] is first else rows[1]
    assert names(a.due(other[0]["terminal_id"], other[0]["fence"], 9)) == {staff[0]}


def test_a_serial_number_that_is_not_told_replaces_nothing(project: Project, a: Receiver) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    for device in ({}, {"serial": "A"}, {}, {"serial": None}):
        [met] = a.call(
            "meet", row["terminal_id"], row["fence"], 60, psycopg.types.json.Jsonb(device)
        )
        assert met == {"held": True, "replaced": False}


def test_a_receiver_that_shows_an_old_fence_remembers_no_device(
    project: Project, a: Receiver
) -> None:
    install_terminals(project, 1)
    hire(project)
    [row] = a.claim()
    assert meet(a, {**row, "fence": row["fence"] - 1}, "A1") == {"held": False, "replaced": False}
    [row] = project.run("select device from hikvision_sync.terminals")
    assert row["device"] is None


# Verification


def verified(  # noqa: PLR0913 - a page
    receiver: Receiver,
    row: Row,
    *,
    confirmed: Sequence[Row] = (),
    different: Sequence[dict[str, Any]] = (),
    state: dict[str, Any] | None = None,
    found: dict[str, Any] | None = None,
) -> bool:
    """Note a page; without a state it was the last one."""
    known = [{"employee_id": str(r["employee_id"]), "version": r["version"]} for r in confirmed]
    held = receiver.call(
        "verified",
        *(row["terminal_id"], row["fence"], 60, 0),
        *map(psycopg.types.json.Jsonb, (known, list(different))),
        None if state is None else psycopg.types.json.Jsonb(state),
        psycopg.types.json.Jsonb(found or {}),
    )
    return bool(held[0]["held"])


def staffed(project: Project, receiver: Receiver, count: int = 2) -> list[Row]:
    """Have so many people with numbers on one terminal, as the terminal said long ago."""
    install_terminals(project, 1)
    ids = hire(project, count)
    for place, id_ in enumerate(ids):
        project.run(
            "insert into angajati_biometrie (angajat_id, employee_no) values (%s, %s)",
            id_,
            1000 + place,
        )
    rows = receiver.claim()
    for row in rows:
        number = ids.index(str(row["employee_id"])) + 1000
        receiver.record(row, employee_no=str(number), confirmed_ago=3600)
    receiver.release(rows[0])
    project.run("update hikvision_sync.terminals set verify_began_at = null")
    return rows


def test_a_verification_waits_for_every_edit_and_goes_on_where_it_was(
    project: Project, a: Receiver, b: Receiver
) -> None:
    staff = staffed(project, a)
    [page] = a.claim(verify_s=3600)
    assert (page["employee_id"], page["verification"]) == (None, {})
    state = {"position": 30}
    assert verified(a, page, confirmed=staff[:1], state=state)
    a.release(page)
    project.run("update angajati set nume = 'nou' where id = %s", staff[1]["employee_id"])
    [edit] = b.claim(verify_s=3600)
    assert edit["employee_id"] == staff[1]["employee_id"]
    assert edit["verification"] is None
    b.record(edit, employee_no="1001", confirmed_ago=0)
    b.release(edit)
    [page] = b.claim(verify_s=3600)
    assert (page["employee_id"], page["verification"]) == (None, {**state, "unsure": True})
    assert not verified(a, {**page, "fence": page["fence"] - 1}, state={})
    assert verified(b, page, found={"persons": 2, "different": 0, "unknown": 0})
    b.release(page)
    assert b.claim(verify_s=3600) == []
    [terminal] = project.run("select verified from hikvision_sync.terminals")
    assert terminal["verified"] == {"persons": 2, "different": 0, "unknown": 0, "missing": 0}


def test_a_verification_is_no_work_without_a_time_for_it(project: Project, a: Receiver) -> None:
    staffed(project, a)
    assert a.claim() == []


def test_whom_no_page_showed_is_wanted_when_the_verification_is_over(
    project: Project, a: Receiver
) -> None:
    staff = staffed(project, a, 3)
    project.run("alter table angajati disable trigger user")
    project.run("alter table angajati_biometrie disable trigger user")
    [unseen] = hire(project)
    project.run("insert into angajati_biometrie values (gen_random_uuid(), %s, 1009)", unseen)
    [page] = a.claim(verify_s=3600)
    wrong = {"employee_id": str(staff[1]["employee_id"]), "number": "1001", "leaves": False}
    verified(a, page, confirmed=staff[:1], different=[wrong])
    due = a.due(page["terminal_id"], page["fence"])
    missing = {str(staff[1]["employee_id"]), str(staff[2]["employee_id"]), unseen}
    assert names(due) == missing
    assert {row["in_doubt"] for row in due} == {True}


def test_an_edit_since_a_page_was_asked_for_is_not_confirmed(project: Project, a: Receiver) -> None:
    staff = staffed(project, a, 1)
    [page] = a.claim(verify_s=3600)
    project.run("update angajati set nume = 'nou'")
    assert len(a.due(page["terminal_id"], page["fence"])) == 1
    verified(a, page, confirmed=staff)
    [pair] = project.run(
        "select confirmed_at < now() - interval '1 minute' as old, * from hikvision_sync.pairs"
    )
    assert (pair["old"], pair["wanted"] > pair["done"]) == (True, True)


def test_rows_that_nothing_needs_any_more_are_forgotten_and_numbers_are_not(
    project: Project, a: Receiver
) -> None:
    staff = staffed(project, a)
    install_terminals(project, 1)
    project.run("delete from dispozitive_pontaj where id = %s", staff[0]["terminal_id"])
    project.run("update hikvision_sync.terminals set verify_began_at = null")
    project.run("delete from hikvision_sync.edits")
    project.run(
        "insert into hikvision_sync.terminals (terminal_id, verify_began_at)"
        " select id, null from dispozitive_pontaj on conflict do nothing"
    )
    [page] = a.claim(verify_s=3600)
    verified(a, page)
    assert (
        project.run(
            "select 1 from hikvision_sync.pairs where terminal_id = %s", staff[0]["terminal_id"]
        )
        == []
    )
    assert len(project.run("select 1 from hikvision_sync.terminals")) == 1
    assert len(project.run("select 1 from hikvision_sync.numbers")) == 2


# The policy for leavers


def test_a_receiver_with_another_policy_wants_who_left_and_may_be_there(
    project: Project, a: Receiver, b: Receiver
) -> None:
    staff = staffed(project, a)
    left = str(staff[0]["employee_id"])
    assert a.claim(policy="keep") == []
    project.run("update angajati set status = 'inactiv' where id = %s", left)
    [row] = a.claim(policy="keep")
    a.record(row, employee_no="1000")
    a.release(row)
    assert a.claim(policy="keep") == []
    rows = b.claim(policy="expire")
    assert names(rows) == {left}
    b.record(rows[0], employee_no="1000")
    b.release(rows[0])
    for receiver, policy in ((a, "keep"), (b, "expire")) * 2:  # they take no turns at it
        assert receiver.claim(policy=policy) == []
    fault = "select hikvision_sync.fault_of_policies() as it"
    assert "different ones (expire, keep)" in project.run(fault)[0]["it"]
    project.run(
        "update hikvision_sync.receivers set seen_at = now() - interval '1 hour'"
        " where policy = 'keep'"
    )
    assert project.run(fault) == [{"it": None}]


# The memory of hardware


def test_hardware_that_comes_back_behind_another_row_is_remembered(
    project: Project, a: Receiver
) -> None:
    [row] = staffed(project, a, 1)
    [lease] = a.call("lease", "a", row["terminal_id"], 60)
    at = {"terminal_id": row["terminal_id"], **lease}
    assert meet(a, at, "HW1") == {"held": True, "replaced": True}  # people are known there
    a.release(at)
    project.run("delete from dispozitive_pontaj")
    project.run("delete from angajati")
    project.run("delete from hikvision_sync.pairs")
    [terminal] = install_terminals(project, 1)
    [lease] = a.call("lease", "a", terminal, 60)
    at = {"terminal_id": terminal, **lease}
    assert meet(a, at, "HW1") == {"held": True, "replaced": True}
    [pair] = a.due(terminal, lease["fence"])
    assert (pair["employee_id"], pair["employee_no"]) == (row["employee_id"], "1000")
    assert a.record({**at, **pair}, employee_no=None)
    assert meet(a, at, "HW1")["replaced"]  # its answer got lost
    a.release(at)
    [lease] = a.call("lease", "a", terminal, 60)
    assert not meet(a, {"terminal_id": terminal, **lease}, "HW1")["replaced"]


# What storage says of photos


def photo_says(receiver: Receiver, employee: str, etag: str) -> bool:
    """Have storage say an ETag of Ion's photo; return whether it is another photo than before."""
    receiver.call("photos_due", 10, 0)
    [said] = receiver.call("photo_seen", employee, "ion.jpg", etag, None)
    return bool(said["changed"])


def with_a_photo(project: Project, a: Receiver) -> Row:
    """Return the claim of the only pair, of somebody whose photo storage was asked for."""
    [employee] = [str(row["employee_id"]) for row in staffed(project, a, 1)]
    project.run("update angajati_biometrie set foto_fata_url = 'ion.jpg'")
    assert not photo_says(a, employee, "first")
    [row] = a.claim()
    return row


def intend(receiver: Receiver, row: Row) -> None:
    lease = (row["terminal_id"], row["fence"])
    receiver.call("intend", *lease, 60, row["employee_id"], "1000", "unknown")


@pytest.mark.parametrize("spread", [True, False])
def test_a_save_during_a_push_does_not_have_the_photo_sent_again(
    project: Project, a: Receiver, b: Receiver, *, spread: bool
) -> None:
    row = with_a_photo(project, a)
    intend(a, row)
    project.run("update angajati set nume = 'Nou'")
    if spread:
        assert b.claim() == []
    a.record(row, photo="sent")
    a.release(row)
    [again] = a.claim()
    assert (again["version"] > row["version"], again["photo"]) == (True, "sent")


@pytest.mark.parametrize("spread", [True, False])
def test_a_photo_that_is_replaced_during_a_push_is_sent_again(
    project: Project, a: Receiver, b: Receiver, *, spread: bool
) -> None:
    row = with_a_photo(project, a)
    intend(a, row)
    assert photo_says(a, str(row["employee_id"]), "second")
    if spread:
        assert b.claim() == []
    a.record(row, photo="sent")
    a.release(row)
    [again] = a.claim()
    assert again["photo"] == "unknown"
    intend(a, again)
    a.record(again, photo="sent anew")
    a.release(again)
    assert a.claim() == []


def test_a_photo_that_was_replaced_before_the_push_is_sent_once(
    project: Project, a: Receiver
) -> None:
    row = with_a_photo(project, a)
    assert photo_says(a, str(row["employee_id"]), "second")
    intend(a, row)
    a.record(row, photo="sent anew")
    a.release(row)
    [again] = a.claim()  # nobody knows any more that it was sent after storage had it
    assert again["photo"] == "sent anew"


def test_the_last_page_may_be_noted_again_where_its_answer_got_lost(
    project: Project, a: Receiver
) -> None:
    staff = staffed(project, a, 4)
    left = staff[3]["employee_id"]
    project.run("update angajati set status = 'inactiv' where id = %s", left)
    [row] = a.claim()
    a.record(row, employee_no=None, photo=None, confirmed_ago=3600)
    a.release(row)
    [page] = a.claim(verify_s=3600)
    verified(a, page, confirmed=staff[:2], state={"position": 30})
    [before] = project.run("select clock_timestamp() as now")
    figures = {"persons": 3, "different": 0, "unknown": 0}
    for _ in range(2):  # Ledger._repeated_call does so after a lost answer
        assert verified(a, page, confirmed=staff[2:3], found=figures)
    [terminal] = project.run("select verified from hikvision_sync.terminals")
    [leaver] = project.run(
        "select confirmed_at from hikvision_sync.pairs where employee_id = %s", left
    )
    found = (
        a.due(page["terminal_id"], page["fence"]),
        terminal["verified"]["missing"],
        leaver["confirmed_at"] < before["now"],
    )
    assert found == ([], 0, True)


def test_a_policy_that_is_rolled_out_receiver_by_receiver_reaches_who_left_meanwhile(
    project: Project, a: Receiver, b: Receiver
) -> None:
    staff = staffed(project, a)
    left = str(staff[0]["employee_id"])
    assert a.claim(policy="keep") == []
    assert b.claim(policy="expire") == []  # the first that was restarted
    project.run("update angajati set status = 'inactiv' where id = %s", left)
    [row] = a.claim(policy="keep")  # the other is still at work, and leaves them as they are
    a.record(row, employee_no="1000")
    a.release(row)
    c = Receiver(project.database, "c")  # it is restarted too
    rows = c.claim(policy="expire")
    c.connection.close()
    assert names(rows) == {left}


def test_a_verification_begins_again_on_other_hardware(project: Project, a: Receiver) -> None:
    staff = staffed(project, a)
    [page] = a.claim(verify_s=3600)
    a.call(
        "meet", page["terminal_id"], page["fence"], 60, psycopg.types.json.Jsonb({"serial": "A"})
    )
    verified(a, page, confirmed=staff, state={"position": 30})
    a.call(
        "meet", page["terminal_id"], page["fence"], 60, psycopg.types.json.Jsonb({"serial": "B"})
    )
    a.release(page)
    for row in a.claim():
        a.record(row, employee_no=None)
    a.release({**page, "fence": page["fence"] + 1})
    [page] = a.claim(verify_s=3600)
    assert page["verification"] == {}


def test_a_number_whose_new_owner_loses_it_before_their_push_is_ended_on_known_hardware(
    project: Project, a: Receiver
) -> None:
    staff = sorted(staffed(project, a), key=lambda row: str(row["employee_id"]))
    known = {
        str(row["employee_id"]): row["employee_no"]
        for row in project.run("select employee_id::text, employee_no from hikvision_sync.pairs")
    }
    left, heir = (str(row["employee_id"]) for row in staff)
    [look] = a.claim(verify_s=3600)
    a.call(
        "meet", look["terminal_id"], look["fence"], 60, psycopg.types.json.Jsonb({"serial": "A"})
    )
    a.release(look)
    # The terminal is off; its row is deleted, somebody leaves, and their number is the heir's.
    project.run("delete from dispozitive_pontaj")
    project.run("delete from angajati where id = %s", left)
    project.run(
        "update angajati_biometrie set employee_no = %s where angajat_id = %s",
        int(known[left]),
        heir,
    )
    project.run(
        "insert into dispozitive_pontaj (ip_address, username, password_encrypted)"
        " values ('10.0.0.9', 'admin', 'x')"
    )
    rows = a.claim()
    a.call(
        "meet",
        rows[0]["terminal_id"],
        rows[0]["fence"],
        60,
        psycopg.types.json.Jsonb({"serial": "A"}),
    )
    a.release(rows[0])
    # A fill may take hours; before it comes to the heir, HR gives them another number.
    project.run("update angajati_biometrie set employee_no = 2000 where angajat_id = %s", heir)
    rows = a.claim()
    reached = {str(row["employee_id"]): [row["employee_no"], *row["others"]] for row in rows}
    assert known[left] in [number for numbers in reached.values() for number in numbers]


@pytest.mark.parametrize("unsure", [True, False])
def test_whoever_was_on_no_page_of_a_list_that_moved_is_asked_for_by_number(
    project: Project, a: Receiver, *, unsure: bool
) -> None:
    staff = staffed(project, a)
    left = str(staff[0]["employee_id"])
    number = project.run(
        "select employee_no from hikvision_sync.numbers where employee_id = %s", left
    )
    project.run("update angajati set status = 'inactiv' where id = %s", left)
    [row] = a.claim()
    a.record(row, employee_no=None, photo=None)
    a.release(row)
    [page] = a.claim(verify_s=3600)
    figures = {"persons": 1, "different": 0, "unknown": 0, "unsure": unsure}
    verified(a, page, confirmed=staff[1:], found=figures)
    due = a.due(page["terminal_id"], page["fence"])
    assert {str(one["employee_id"]): one["others"] for one in due} == (
        {left: [number[0]["employee_no"]]} if unsure else {}
    )
    [terminal] = project.run("select verified from hikvision_sync.terminals")
    assert terminal["verified"] == {"persons": 1, "different": 0, "unknown": 0, "missing": 0}


def test_a_push_between_two_pages_moves_the_list(project: Project, a: Receiver) -> None:
    staff = staffed(project, a)
    [page] = a.claim(verify_s=3600)
    verified(a, page, confirmed=staff, state={"position": 30})
    a.release(page)
    project.run("update angajati set nume = 'Nou' where id = %s", staff[0]["employee_id"])
    [row] = a.claim(verify_s=3600)
    a.record(row)
    a.release(row)
    [page] = a.claim(verify_s=3600)
    assert page["verification"] == {"position": 30, "unsure": True}


def test_what_hr_mends_unseen_for_somebody_who_was_refused_is_brought(
    project: Project, a: Receiver
) -> None:
    """A terminal refused a name; HR corrects it while no trigger is on."""
    staff = staffed(project, a)
    refused = staff[0]["employee_id"]
    project.run("update angajati set nume = '\u0001' where id = %s", refused)
    [row] = a.claim()
    a.record(row, status="skipped", message="The name has characters that it does not take.")
    a.release(row)
    project.run("alter table angajati disable trigger user")
    project.run("update angajati set nume = 'Pop' where id = %s", refused)
    project.run("alter table angajati enable trigger user")
    [page] = a.claim(verify_s=3600)
    verified(a, page, confirmed=staff[1:])  # they are on no page: it never took them
    assert names(a.due(page["terminal_id"], page["fence"])) == {str(refused)}


@pytest.mark.parametrize(("seconds", "replaced"), [(-60, False), (-0.5, False), (60, True)])
def test_a_photo_is_replaced_before_its_first_look_if_it_was_changed_since_it_was_brought(
    project: Project, a: Receiver, seconds: float, *, replaced: bool
) -> None:
    """Most photos are brought at once: one that was uploaded a moment before is sent once."""
    staff = staffed(project, a, 1)
    employee = str(staff[0]["employee_id"])
    project.run("update angajati_biometrie set foto_fata_url = 'ion.jpg'")
    for row in a.claim():
        a.record(row, employee_no="1000", photo="fingerprint")
    a.call("photos_due", 10, 60)
    [row] = project.run(
        "select date_trunc('second', recorded_at + make_interval(secs => %s)) as at"
        " from hikvision_sync.pairs where employee_id = %s",
        seconds,
        employee,
    )
    [said] = a.call("photo_seen", employee, "ion.jpg", '"1"', row["at"])
    assert said == {"changed": replaced}
    assert (employee in project.edits()) is replaced
