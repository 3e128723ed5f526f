"""PostgREST's query language, with no network and no database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.sandbox.supabase.query import (
    Column,
    Embed,
    Filter,
    Order,
    Query,
    QueryRefused,
    parse_filter,
    parse_order,
    parse_query,
    parse_range,
    parse_select,
    split_outside,
)


def test_an_empty_query_means_every_column_of_every_row() -> None:
    assert parse_query([]) == Query(select=(Column(name="*"),))


def test_a_whole_query_is_parsed() -> None:
    assert parse_query(
        [
            ("select", "id,nume"),
            ("id", "gt.5"),
            ("id", "lt.9"),
            ("order", "id.asc"),
            ("limit", "10"),
            ("offset", "20"),
            ("columns", '"id","nume"'),
        ],
    ) == Query(
        select=(Column(name="id"), Column(name="nume")),
        filters=(
            Filter(column="id", operator="gt", values=("5",), negated=False),
            Filter(column="id", operator="lt", values=("9",), negated=False),
        ),
        order=(Order(column="id", descending=False, nulls_first=None),),
        limit=10,
        offset=20,
        columns=("id", "nume"),
    )


def test_embeddings_nest_and_may_be_required() -> None:
    assert parse_select("id, b!inner(x,c(*)), *") == (
        Column(name="id"),
        Embed(
            table="b",
            select=(Column(name="x"), Embed(table="c", select=(Column(name="*"),), inner=False)),
            inner=True,
        ),
        Column(name="*"),
    )


@pytest.mark.parametrize(
    ("text", "operator", "values", "negated"),
    [
        ("eq.a.b,c", "eq", ("a.b,c",), False),
        ("eq.", "eq", ("",), False),
        ("not.eq.5", "eq", ("5",), True),
        ("is.null", "is", ("null",), False),
        ("not.is.NULL", "is", ("null",), True),
        ("in.(a,b)", "in", ("a", "b"), False),
        ("in.()", "in", (), False),
        (r'in.("a,b","c\"d\\",e f)', "in", ("a,b", 'c"d\\', "e f"), False),
    ],
)
def test_a_condition_is_parsed(
    text: str, operator: str, values: tuple[str, ...], *, negated: bool
) -> None:
    expected = Filter(column="c", operator=operator, values=values, negated=negated)
    assert parse_filter("c", text) == expected


def test_an_order_says_where_the_nulls_go_only_if_asked() -> None:
    assert parse_order("a.desc.nullslast,b,c.nullsfirst") == (
        Order(column="a", descending=True, nulls_first=False),
        Order(column="b", descending=False, nulls_first=None),
        Order(column="c", descending=False, nulls_first=True),
    )


@pytest.mark.parametrize(
    ("header", "expected"),
    [("0-24", (0, 25)), ("5-5", (5, 1)), ("10-", (10, None)), ("bytes=0-5", (0, None))],
)
def test_a_range_header_is_an_offset_and_a_limit(
    header: str, expected: tuple[int, int | None]
) -> None:
    assert parse_range(header) == expected


def test_the_url_wins_over_the_range_header() -> None:
    query = parse_query([("limit", "3")], "10-19")
    assert (query.offset, query.limit) == (10, 3)


@pytest.mark.parametrize(
    "parameter",
    [
        ("or", "(a.eq.1,b.eq.2)"),
        ("on_conflict", "id"),
        ("a", "5"),
        ("a", "fts.x"),
        ("a", "in.a,b"),
        ("a", "is.5"),
        ("a->>b", "eq.1"),
        ("select", "id::text"),
        ("select", "alias:id"),
        ("select", "a(b"),
        ("select", "a!fk_name(b)"),
        ("select", "a(b(c(d(e(f(g(h)))))))"),
        ("select", 'id,"'),
        ("order", "id.sideways"),
        ("limit", "-1"),
        ("limit", "²"),
        ("limit", "9" * 5000),
        ("offset", ""),
    ],
)
def test_an_unknown_part_of_a_query_is_refused_and_never_ignored(
    parameter: tuple[str, str],
) -> None:
    with pytest.raises(QueryRefused):
        parse_query([parameter])


@given(st.lists(st.tuples(st.text(), st.text())), st.none() | st.text())
def test_any_text_is_parsed_or_refused(
    parameters: list[tuple[str, str]], header: str | None
) -> None:
    try:
        parse_query(parameters, header)
    except QueryRefused:
        return


@given(st.lists(st.text(), min_size=1))
def test_quoted_values_come_back_whatever_is_in_them(values: list[str]) -> None:
    quoted = ['"' + value.replace("\\", r"\\").replace('"', r"\"") + '"' for value in values]
    assert parse_filter("c", f"in.({','.join(quoted)})").values == tuple(values)
    assert split_outside(",".join(quoted)) == quoted
