"""A Postgres's own account of its tables, foreign keys and functions.

PostgREST keeps this in a "schema cache" that migrations must reload; the sandbox asks each time, so
it is never out of date.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

Session: TypeAlias = AsyncConnection[TupleRow]

TABLE = """
select
    c.oid,
    c.relname as name,
    array(
        select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    ) as columns
from pg_class c
where c.relnamespace = to_regnamespace(quote_ident(%s)) and c.relname = %s
    and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""

# A foreign key in either direction. It points at one row where the child's columns are themselves
# a primary key or carry a unique constraint; as in PostgREST, a mere unique index does not count.
RELATIONSHIP = """
select
    con.conrelid = %(parent)s as outgoing,
    array(
        select a.attname::text
        from unnest(con.conkey) with ordinality as k (number, position)
        join pg_attribute a on a.attrelid = con.conrelid and a.attnum = k.number
        order by k.position
    ) as columns,
    array(
        select a.attname::text
        from unnest(con.confkey) with ordinality as k (number, position)
        join pg_attribute a on a.attrelid = con.confrelid and a.attnum = k.number
        order by k.position
    ) as referenced,
    exists (
        select from pg_constraint u
        where u.conrelid = con.conrelid and u.contype in ('p', 'u')
            and u.conkey @> con.conkey and u.conkey <@ con.conkey
    ) as unique_columns
from pg_constraint con
where con.contype = 'f' and (
    (con.conrelid = %(parent)s and con.confrelid = %(child)s)
    or (con.conrelid = %(child)s and con.confrelid = %(parent)s)
)
"""
FUNCTIONS = """
select
    p.proname as name,
    p.proretset as returns_set,
    p.prorettype = 'void'::regtype as returns_void,
    t.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false) as returns_rows,
    p.pronargs - p.pronargdefaults as required,
    array(
        select p.proargnames[i] from generate_subscripts(p.proargnames, 1) as i
        where p.proargmodes is null or p.proargmodes[i] in ('i', 'b', 'v')
    ) as argument_names,
    array(
        select array[tn.nspname::text, ty.typname::text]
        from unnest(p.proargtypes::oid[]) with ordinality as a (type_oid, position)
        join pg_type ty on ty.oid = a.type_oid
        join pg_namespace tn on tn.oid = ty.typnamespace
        order by a.position
    ) as argument_types
from pg_proc p
join pg_type t on t.oid = p.prorettype
where p.pronamespace = to_regnamespace(quote_ident(%s)) and p.proname = %s and p.prokind = 'f'
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or view of an exposed schema."""

    schema: str
    name: str
    oid: int
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Relationship:
    """A foreign key between a parent that is selected from and a child embedded in it."""

    pairs: tuple[tuple[str, str], ...]  # (parent's column, child's column)
    kind: Literal["to_parent", "to_one_child", "to_many_children"]


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function, with its input arguments in order and their types as (schema, name)."""

    name: str
    returns_set: bool
    returns_void: bool
    returns_rows: bool
    required: int
    argument_names: list[str]
    argument_types: list[list[str]]

    def takes(self, given: AbstractSet[str]) -> bool:
        """Return whether it can be called with just these named arguments."""
        names = self.argument_names
        if len(names) != len(self.argument_types):
            return False  # unnamed arguments cannot be given by name
        return given <= set(names) and set(names[: self.required]) <= given


async def find_table(session: Session, schema: str, name: str) -> Table | None:
    """Return the table or view of this exact name, or None."""
    row = await (await session.execute(TABLE, (schema, name))).fetchone()
    if row is None:
        return None
    return Table(schema=schema, name=row[1], oid=row[0], columns=tuple(row[2]))


async def find_relationships(session: Session, parent: Table, child: Table) -> list[Relationship]:
    """Return the foreign keys between two tables, in whichever direction they point."""
    rows = await session.execute(RELATIONSHIP, {"parent": parent.oid, "child": child.oid})
    return [
        _relationship(columns, referenced, outgoing=outgoing, unique=unique)
        for outgoing, columns, referenced, unique in await rows.fetchall()
    ]


async def find_functions(session: Session, schema: str, name: str) -> list[Function]:
    """Return every function of that name."""
    async with session.cursor(row_factory=class_row(Function)) as cursor:
        await cursor.execute(FUNCTIONS, (schema, name))
        return await cursor.fetchall()


def _relationship(
    columns: list[str], referenced: list[str], *, outgoing: bool, unique: bool
) -> Relationship:
    if outgoing:
        pairs = tuple(zip(columns, referenced, strict=True))
        return Relationship(pairs=pairs, kind="to_parent")
    pairs = tuple(zip(referenced, columns, strict=True))
    return Relationship(pairs=pairs, kind="to_one_child" if unique else "to_many_children")
