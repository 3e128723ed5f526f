"""PostgREST's query language, parsed: a URL's parameters go in, a frozen `Query` comes out.

Pure. It takes the part that this project and the HR app use; anything else it refuses with
`QueryRefused`, and never ignores. Source: docs.postgrest.org, "Tables and Views".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

PLAIN_NAME = re.compile(r"[^\W\d][\w $-]*")
EMBED = re.compile(r"(?P<table>[^\W\d]\w*)(?:!(?P<hint>\w+))?\((?P<select>.*)\)", re.DOTALL)
RANGE = re.compile(r"(\d+)-(\d*)")
MAX_EMBED_DEPTH = 5
MAX_BIGINT = 2**63 - 1

COMPARISONS = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "like",
    "ilike": "ilike",
}
IS_VALUES = ("null", "not_null", "true", "false", "unknown")
NOT_FILTERS = ("select", "order", "limit", "offset", "columns", "apikey")
REFUSED = ("and", "or", "not.and", "not.or", "on_conflict")


class QueryRefused(Exception):
    """The query is not PostgREST's, or is a part of it that the sandbox does not have."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column to be returned; `*` stands for all of them."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Embed:
    """A related table's rows to be returned inside each row."""

    table: str
    select: "Select"
    inner: bool


Select: TypeAlias = tuple[Column | Embed, ...]
EVERYTHING: Select = (Column(name="*"),)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One condition; all of a query's conditions must hold."""

    column: str
    operator: str
    values: tuple[str, ...]
    negated: bool


@dataclass(frozen=True, kw_only=True)
class Order:
    """One column to sort by; `nulls_first` is None where Postgres' own default holds."""

    column: str
    descending: bool
    nulls_first: bool | None


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a request asks of a table."""

    select: Select = EVERYTHING
    filters: tuple[Filter, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None


def parse_query(parameters: Iterable[tuple[str, str]], range_header: str | None = None) -> Query:
    """Parse the decoded parameters of a URL, in their order, and a Range header.

    A limit or offset in the URL wins over the header. Raises QueryRefused.
    """
    filters = []
    named: dict[str, str] = {}
    for name, value in parameters:
        if name in REFUSED:
            raise QueryRefused(f'the sandbox does not know "{name}"')
        if name in NOT_FILTERS:
            named[name] = value
        else:
            filters.append(parse_filter(name, value))
    offset, limit = parse_range(range_header) if range_header else (0, None)
    return Query(
        select=parse_select(named["select"]) if named.get("select") else EVERYTHING,
        filters=tuple(filters),
        order=parse_order(named["order"]) if named.get("order") else (),
        limit=_count("limit", named["limit"]) if "limit" in named else limit,
        offset=_count("offset", named["offset"]) if "offset" in named else offset,
        columns=_columns(named["columns"]) if named.get("columns") else None,
    )


def parse_select(text: str, *, depth: int = 0) -> Select:
    """Parse `id,nume,angajati_biometrie(employee_no)`."""
    if depth > MAX_EMBED_DEPTH:
        raise QueryRefused("too many embeddings inside one another")
    return tuple(_selected(item.strip(), depth) for item in split_outside(text))


def parse_filter(column: str, text: str) -> Filter:
    """Parse a condition such as `eq.5`, `in.(a,"b,c")` or `not.is.null`."""
    operator, dot, value = text.partition(".")
    negated = operator == "not"
    if negated:
        operator, dot, value = value.partition(".")
    values: tuple[str, ...]
    if operator == "in" and value.startswith("(") and value.endswith(")"):
        inside = value[1:-1]
        values = tuple(_unquoted(item) for item in split_outside(inside)) if inside else ()
    elif operator == "is" and value.lower() in IS_VALUES:
        values = (value.lower(),)
    elif operator in COMPARISONS and dot:
        values = (value,)
    else:
        raise QueryRefused(f"failed to parse filter ({column}={text})")
    return Filter(column=_name(column), operator=operator, values=values, negated=negated)


def parse_order(text: str) -> tuple[Order, ...]:
    """Parse `nume.desc.nullslast,id`."""
    return tuple(_ordered(item.strip()) for item in split_outside(text))


def parse_range(header: str) -> tuple[int, int | None]:
    """Return the offset and limit of a Range header such as `0-24` or `10-`."""
    match = RANGE.fullmatch(header.strip())
    if match is None:
        return 0, None  # PostgREST ignores what it cannot read here
    first = _count("range", match[1])
    last = _count("range", match[2]) if match[2] else None
    if last is not None and last < first:
        raise QueryRefused("the lower boundary must be lower than or equal to the upper boundary")
    return first, None if last is None else last - first + 1


def split_outside(text: str) -> list[str]:
    """Split at the commas that stand outside quotes and parentheses."""
    parts = [""]
    depth = 0
    quoted = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif quoted:
            escaped = character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character == "," and depth == 0:
            parts.append("")
            continue
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
        parts[-1] += character
    if quoted or depth != 0:
        raise QueryRefused(f"unbalanced quotes or parentheses in {text}")
    return parts


def _selected(item: str, depth: int) -> Column | Embed:
    if item == "*":
        return Column(name="*")
    if match := EMBED.fullmatch(item):
        if match["hint"] not in {None, "inner", "left"}:
            raise QueryRefused(f'the sandbox does not know the hint "{match["hint"]}"')
        select = parse_select(match["select"], depth=depth + 1)
        return Embed(table=match["table"], select=select, inner=match["hint"] == "inner")
    return Column(name=_name(item))


def _ordered(item: str) -> Order:
    column, *modifiers = item.split(".")
    descending = "desc" in modifiers
    nulls_first = True if "nullsfirst" in modifiers else None
    if "nullslast" in modifiers:
        nulls_first = False
    if set(modifiers) - {"asc", "desc", "nullsfirst", "nullslast"}:
        raise QueryRefused(f"failed to parse order ({item})")
    return Order(column=_name(column), descending=descending, nulls_first=nulls_first)


def _columns(text: str) -> tuple[str, ...]:
    return tuple(_name(item.strip()) for item in split_outside(text))


def _name(text: str) -> str:
    name = _unquoted(text)
    if name == text and not PLAIN_NAME.fullmatch(text):
        raise QueryRefused(f'the sandbox does not know "{text}" as a column')
    return name


def _unquoted(text: str) -> str:
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _count(name: str, text: str) -> int:
    # isdecimal alone takes other scripts' digits and int() refuses very long ones.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_BIGINT))):
        raise QueryRefused(f"{name} must be a whole number")
    return min(int(text), MAX_BIGINT)
