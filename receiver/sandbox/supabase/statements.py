"""From a parsed query and the catalog to one SQL statement that answers in JSON.

Pure: names become `sql.Identifier`s and values `sql.Literal`s, never text. Every statement returns
one row, (the JSON text, the number of rows in it).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from psycopg import sql

from receiver.sandbox.supabase.catalog import Function, Relationship, Table
from receiver.sandbox.supabase.query import COMPARISONS, Filter, Order, Query

Piece: TypeAlias = sql.Composable

OPERATORS = {name: sql.SQL(operator) for name, operator in COMPARISONS.items()}
IS_OPERATORS = {
    "null": sql.SQL("is null"),
    "not_null": sql.SQL("is not null"),
    "true": sql.SQL("is true"),
    "false": sql.SQL("is false"),
    "unknown": sql.SQL("is unknown"),
}
AS_ARRAY = sql.SQL(
    "with _page as ({rows}) select coalesce(json_agg(_page), '[]')::text, count(*) from _page"
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The columns and embeddings selected from one table, with their foreign keys found."""

    table: Table
    items: "tuple[str | Embedding, ...]"


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A related table inside another's rows, as one object or as an array of them."""

    selection: Selection
    relationship: Relationship
    as_object: bool
    inner: bool


def read(selection: Selection, query: Query, max_rows: int) -> Piece:
    """Select a page; never more rows than the cap, whatever the query asks for."""
    limit = max_rows if query.limit is None else min(query.limit, max_rows)
    rows = sql.SQL("select {} from {} where {}{} limit {} offset {}").format(
        _items(selection, max_rows),
        _identifier(selection.table),
        _conditions(selection, query.filters),
        _order(selection.table, query.order),
        sql.Literal(limit),
        sql.Literal(query.offset),
    )
    return AS_ARRAY.format(rows=rows)


def count(selection: Selection, query: Query) -> Piece:
    """Count all rows that the filters match, beyond the page too."""
    return sql.SQL("select null, count(*) from {} where {}").format(
        _identifier(selection.table), _conditions(selection, query.filters)
    )


def insert(table: Table, columns: Iterable[str], body: str) -> Piece:
    """Insert the rows of a JSON array; columns that are not named get their defaults."""
    names = [sql.Identifier(name) for name in columns]
    if not names:
        return sql.SQL("insert into {} default values").format(_identifier(table))
    return sql.SQL("insert into {} ({}) select {} from {}").format(
        _identifier(table),
        _comma(names),
        _comma(sql.SQL("_body.{}").format(name) for name in names),
        _body(table, body),
    )


def update(selection: Selection, query: Query, columns: Iterable[str], body: str) -> Piece:
    """Set the columns of one JSON object in the rows that the filters match."""
    names = [sql.Identifier(name) for name in columns]
    return sql.SQL("update {} set {} from {} where {}").format(
        _identifier(selection.table),
        _comma(sql.SQL("{0} = _body.{0}").format(name) for name in names),
        _body(selection.table, body),
        _conditions(selection, query.filters),
    )


def delete(selection: Selection, query: Query) -> Piece:
    """Delete the rows that the filters match."""
    return sql.SQL("delete from {} where {}").format(
        _identifier(selection.table), _conditions(selection, query.filters)
    )


def represented(change: Piece, selection: Selection, query: Query, max_rows: int) -> Piece:
    """Carry a change out and select from the rows it touched."""
    # The CTE takes the table's name, so that what selects from the table selects from it instead.
    name = sql.Identifier(selection.table.name)
    rows = sql.SQL("select {} from {}{}").format(
        _items(selection, max_rows), name, _order(selection.table, query.order)
    )
    return sql.SQL("with {0} as ({1} returning {0}.*), _page as ({2}) ").format(
        name, change, rows
    ) + (sql.SQL("select coalesce(json_agg(_page), '[]')::text, count(*) from _page"))


def call(schema: str, function: Function, arguments: Iterable[str], body: str, cap: int) -> Piece:
    """Call a function with the named arguments of a JSON object, cast to their declared types."""
    types = dict(zip(function.argument_names, function.argument_types, strict=False))
    names = list(arguments)
    call = sql.SQL("{}({})").format(
        sql.Identifier(schema, function.name),
        _comma(sql.SQL("{0} := _body.{0}").format(sql.Identifier(name)) for name in names),
    )
    source = sql.SQL("{} as _call").format(call)
    if not function.returns_rows:
        source += sql.SQL("(value)")
    if names:
        declared = _comma(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Identifier(*types[name]))
            for name in names
        )
        source = sql.SQL("json_to_record({}::json) as _body({}), lateral {}").format(
            sql.Literal(body), declared, source
        )
    if function.returns_set:
        source += sql.SQL(" limit {}").format(sql.Literal(cap))
    # Through a subselect: a function with a single OUT column is a scalar when named as a whole.
    value = sql.SQL("_row" if function.returns_rows else "_row.value")
    result = sql.SQL(
        "coalesce(json_agg({}), '[]')::text, count(*)"
        if function.returns_set
        else "to_json({})::text, 1"
    )
    return sql.SQL("select {} from (select _call.* from {}) as _row").format(
        result.format(value), source
    )


def _identifier(table: Table) -> Piece:
    return sql.Identifier(table.schema, table.name)


def _column(table: Table, name: str) -> Piece:
    return sql.Identifier(table.name, name)


def _comma(pieces: Iterable[Piece]) -> Piece:
    return sql.SQL(", ").join(pieces)


def _and(pieces: list[Piece]) -> Piece:
    return sql.SQL(" and ").join(pieces) if pieces else sql.SQL("true")


def _body(table: Table, body: str) -> Piece:
    return sql.SQL("json_populate_recordset(null::{}, {}::json) as _body").format(
        _identifier(table), sql.Literal(body)
    )


def _items(selection: Selection, max_rows: int) -> Piece:
    table = selection.table
    pieces: list[Piece] = []
    for item in selection.items:
        if isinstance(item, Embedding):
            pieces.append(_embedded(table, item, max_rows))
        elif item == "*":
            pieces.append(sql.SQL("{}.*").format(sql.Identifier(table.name)))
        else:
            pieces.append(_column(table, item))
    return _comma(pieces)


def _embedded(parent: Table, embedding: Embedding, max_rows: int) -> Piece:
    child = embedding.selection
    rows = sql.SQL("select {} from {} where {} limit {}").format(
        _items(child, max_rows),
        _identifier(child.table),
        _and([_join(parent, embedding), *_inner_conditions(child)]),
        sql.Literal(1 if embedding.as_object else max_rows),
    )
    shape = sql.SQL(
        "row_to_json(_embedded)" if embedding.as_object else "coalesce(json_agg(_embedded), '[]')"
    )
    return sql.SQL("(select {} from ({}) as _embedded) as {}").format(
        shape, rows, sql.Identifier(child.table.name)
    )


def _join(parent: Table, embedding: Embedding) -> Piece:
    child = embedding.selection.table
    return _and(
        [
            sql.SQL("{} = {}").format(_column(parent, theirs), _column(child, ours))
            for theirs, ours in embedding.relationship.pairs
        ]
    )


def _inner_conditions(selection: Selection) -> list[Piece]:
    """Require the rows that `!inner` asks for."""
    return [
        sql.SQL("exists (select from {} where {})").format(
            _identifier(item.selection.table),
            _and([_join(selection.table, item), *_inner_conditions(item.selection)]),
        )
        for item in selection.items
        if isinstance(item, Embedding) and item.inner
    ]


def _conditions(selection: Selection, filters: Iterable[Filter]) -> Piece:
    conditions = [_condition(selection.table, condition) for condition in filters]
    return _and([*conditions, *_inner_conditions(selection)])


def _condition(table: Table, condition: Filter) -> Piece:
    column = _column(table, condition.column)
    if condition.operator == "is":
        test: Piece = sql.SQL("{} {}").format(column, IS_OPERATORS[condition.values[0]])
    elif condition.operator == "in":
        values = _comma(sql.Literal(value) for value in condition.values)
        # An empty list matches nothing, and the column has to exist all the same.
        test = sql.SQL("{} in ({})" if condition.values else "{} is null and false{}").format(
            column, values if condition.values else sql.SQL("")
        )
    else:
        value = condition.values[0]
        if condition.operator in {"like", "ilike"}:
            value = value.replace("*", "%")
        test = sql.SQL("{} {} {}").format(column, OPERATORS[condition.operator], sql.Literal(value))
    return sql.SQL("not ({})" if condition.negated else "({})").format(test)


def _order(table: Table, orders: tuple[Order, ...]) -> Piece:
    if not orders:
        return sql.SQL("")
    return sql.SQL(" order by {}").format(_comma(_sorted_by(table, order) for order in orders))


def _sorted_by(table: Table, order: Order) -> Piece:
    piece = _column(table, order.column) + sql.SQL(" desc" if order.descending else " asc")
    if order.nulls_first is not None:
        piece += sql.SQL(" nulls first" if order.nulls_first else " nulls last")
    return piece
