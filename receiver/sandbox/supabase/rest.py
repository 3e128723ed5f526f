"""The PostgREST of the sandbox: `/rest/v1/<table>` and `/rest/v1/rpc/<function>`.

Every request runs in one transaction as the caller's role, with the caller's claims, so that
grants and policies decide here as they do on Supabase. Not here: `or`, casts, JSON paths, aliases,
upserts. Those are refused, so that no client relies on a wrong answer.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg import sql
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.sandbox.supabase import catalog, statements
from receiver.sandbox.supabase.auth import Caller
from receiver.sandbox.supabase.bodies import read_body
from receiver.sandbox.supabase.connections import Connections, LaggingReplica
from receiver.sandbox.supabase.errors import RestError, from_postgres
from receiver.sandbox.supabase.query import Embed, Query, QueryRefused, Select, parse_query
from receiver.sandbox.supabase.statements import Embedding, Selection

EmbedAs: TypeAlias = Literal["auto", "object", "array"]

EXPOSED_SCHEMAS = ("public", "graphql_public")
STATEMENT_TIMEOUT = "8s"
ONE_OBJECT = "application/vnd.pgrst.object+json"


class Rest:
    """The endpoints, over a set of connections that may become the API's roles.

    `embed_as` forces the form in which child rows are embedded; by default it follows the foreign
    key, as PostgREST does: an object where its columns are unique, else an array.
    """

    def __init__(
        self,
        connections: Connections,
        identify: Callable[[Request], Caller],
        *,
        max_rows: int = 1000,
        embed_as: EmbedAs = "auto",
        statement_timeout: str = STATEMENT_TIMEOUT,
    ) -> None:
        self._connections = connections
        self._identify = identify
        self.max_rows = max_rows
        self.embed_as = embed_as
        self.statement_timeout = statement_timeout
        self.replica: LaggingReplica | None = None
        """What answers GET and HEAD, where there is one; all else is the primary's."""

    async def table(self, request: Request) -> Response:
        """Answer GET, HEAD, POST, PATCH and DELETE on a table or view."""
        methods = {"POST": self._insert, "PATCH": self._change, "DELETE": self._change}
        return await self._answer(request, methods.get(request.method, self._read))

    async def rpc(self, request: Request) -> Response:
        """Answer POST on a function."""
        return await self._answer(request, self._call)

    async def _answer(
        self, request: Request, endpoint: Callable[[Request, Caller], Awaitable[Response]]
    ) -> Response:
        caller = self._identify(request)
        try:
            return await endpoint(request, caller)
        except QueryRefused as exc:
            error = RestError(400, "PGRST100", str(exc))
        except RestError as exc:
            error = exc
        except psycopg.Error as exc:
            error = from_postgres(exc, anonymous=caller.role == "anon")
        return JSONResponse(error.as_json(), status_code=error.status)

    async def _read(self, request: Request, caller: Caller) -> Response:
        query = parse_query(request.query_params.multi_items(), request.headers.get("range"))
        async with self._transaction(caller, self.replica) as session:
            selection = await self._target(session, request, query)
            text, rows = await _run(session, statements.read(selection, query, self.max_rows))
            total = None
            if "count=exact" in _preferences(request):
                _, total = await _run(session, statements.count(selection, query))
        return _page(request, text, rows=rows, offset=query.offset, total=total)

    async def _insert(self, request: Request, caller: Caller) -> Response:
        query = parse_query(request.query_params.multi_items())
        rows, body = _rows(await read_body(request))
        if any(item.startswith("resolution=") for item in _preferences(request)):
            raise QueryRefused("the sandbox does not know upserts")
        async with self._transaction(caller) as session:
            selection = await self._target(session, request, query)
            columns = _known(selection, query.columns or tuple(rows[0] if rows else ()))
            if rows:
                change = statements.insert(selection.table, columns, body)
                text, count = await self._apply(session, request, change, selection, query)
            else:
                text, count = "[]", 0
            # Inside, so that an answer that cannot be given undoes the change, as in PostgREST.
            return _changed(request, text, rows=count, created=True)

    async def _change(self, request: Request, caller: Caller) -> Response:
        query = parse_query(request.query_params.multi_items())
        verb = "UPDATE" if request.method == "PATCH" else "DELETE"
        if not query.filters:
            # Supabase loads the extension safeupdate for the API's roles.
            raise RestError(400, "21000", f"{verb} requires a WHERE clause")
        rows, body = _rows(await read_body(request)) if verb == "UPDATE" else ([], "")
        async with self._transaction(caller) as session:
            selection = await self._target(session, request, query)
            if verb == "DELETE":
                change = statements.delete(selection, query)
            elif len(rows) == 1 and rows[0]:
                columns = _known(selection, tuple(rows[0]))
                change = statements.update(selection, query, columns, body)
            else:
                raise RestError(400, "PGRST102", "The sandbox wants one object with columns to set")
            text, count = await self._apply(session, request, change, selection, query)
            return _changed(request, text, rows=count, created=False)

    async def _apply(
        self,
        session: catalog.Session,
        request: Request,
        change: sql.Composable,
        selection: Selection,
        query: Query,
    ) -> tuple[str, int]:
        if "return=representation" not in _preferences(request):
            # Without `returning`: a role that may write is not always one that may read.
            cursor = await session.execute(sql.Composed([change]))
            return "[]", cursor.rowcount
        statement = statements.represented(change, selection, query, self.max_rows)
        return await _run(session, statement)

    async def _call(self, request: Request, caller: Caller) -> Response:
        if set(request.query_params) - {"apikey"}:
            raise QueryRefused("the sandbox does not filter what a function returns")
        name = request.path_params["function"]
        text = await read_body(request) or b"{}"
        arguments = _parsed(text)
        if not isinstance(arguments, dict):
            raise RestError(400, "PGRST102", "The arguments must be a JSON object")
        async with self._transaction(caller) as session:
            schema = _schema(request)
            function = _chosen(
                await catalog.find_functions(session, schema, name), schema, name, arguments
            )
            statement = statements.call(schema, function, arguments, text.decode(), self.max_rows)
            result, rows = await _run(session, statement)
        if function.returns_void:
            return Response(status_code=204)
        if function.returns_set:
            return _page(request, result, rows=rows, offset=0, total=None)
        return Response(result, media_type="application/json")

    @asynccontextmanager
    async def _transaction(
        self, caller: Caller, replica: LaggingReplica | None = None
    ) -> AsyncIterator[catalog.Session]:
        settings = {
            "search_path": "public, extensions",
            "statement_timeout": self.statement_timeout,
            "request.jwt.claims": json.dumps(dict(caller.claims)),
            "role": caller.role,
        }
        async with (replica or self._connections).transaction(settings) as session:
            yield session

    async def _target(self, session: catalog.Session, request: Request, query: Query) -> Selection:
        schema, name = _schema(request), request.path_params["table"]
        table = await catalog.find_table(session, schema, name)
        if table is None:
            raise RestError(
                404, "PGRST205", f"Could not find the table '{schema}.{name}' in the schema cache"
            )
        return await self._resolve(session, table, query.select, {name})

    async def _resolve(
        self, session: catalog.Session, table: catalog.Table, select: Select, above: set[str]
    ) -> Selection:
        items: list[str | Embedding] = []
        for item in select:
            if not isinstance(item, Embed):
                items.append(item.name)
                continue
            if item.table in above:
                raise QueryRefused("the sandbox does not embed a table inside itself")
            child, relationship = await _related(session, table, item.table)
            inside = await self._resolve(session, child, item.select, above | {item.table})
            as_object = relationship.kind != "to_many_children"
            if self.embed_as != "auto" and relationship.kind != "to_parent":
                as_object = self.embed_as == "object"
            items.append(
                Embedding(
                    selection=inside,
                    relationship=relationship,
                    as_object=as_object,
                    inner=item.inner,
                )
            )
        return Selection(table=table, items=tuple(items))


async def _related(
    session: catalog.Session, parent: catalog.Table, name: str
) -> tuple[catalog.Table, catalog.Relationship]:
    child = await catalog.find_table(session, parent.schema, name)
    found = [] if child is None else await catalog.find_relationships(session, parent, child)
    if child is None or not found:
        raise RestError(
            400,
            "PGRST200",
            f"Could not find a relationship between '{parent.name}' and '{name}' "
            "in the schema cache",
            f"Searched for a foreign key relationship between '{parent.name}' and '{name}' "
            f"in the schema '{parent.schema}', but no matches were found.",
        )
    if len(found) > 1:
        raise RestError(
            300,
            "PGRST201",
            "Could not embed because more than one relationship was found for "
            f"'{parent.name}' and '{name}'",
        )
    return child, found[0]


async def _run(session: catalog.Session, statement: sql.Composable) -> tuple[str, int]:
    row = await (await session.execute(sql.Composed([statement]))).fetchone()
    text, rows = row if row is not None else (None, 0)
    return ("null" if text is None else str(text)), int(rows)


def _schema(request: Request) -> str:
    reads = request.method in {"GET", "HEAD"}
    schema = request.headers.get("accept-profile" if reads else "content-profile", "public")
    if schema not in EXPOSED_SCHEMAS:
        exposed = ", ".join(EXPOSED_SCHEMAS)
        raise RestError(
            406,
            "PGRST106",
            f"Invalid schema: {schema}",
            hint=f"Only the following schemas are exposed: {exposed}",
        )
    return schema


def _preferences(request: Request) -> set[str]:
    given = ",".join(request.headers.getlist("prefer"))
    return {item.strip() for item in given.split(",")}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as exc:
        raise RestError(400, "PGRST102", "Empty or invalid json") from exc


def _rows(body: bytes) -> tuple[list[dict[str, Any]], str]:
    """Return the rows to write, and the same as JSON text: numbers must not pass through floats."""
    parsed = _parsed(body)
    text = body.decode()
    rows, text = (parsed, text) if isinstance(parsed, list) else ([parsed], f"[{text}]")
    if not all(isinstance(row, dict) for row in rows):
        raise RestError(400, "PGRST102", "Empty or invalid json")
    if any(row.keys() != rows[0].keys() for row in rows):
        raise RestError(400, "PGRST102", "All object keys must match")
    return rows, text


def _known(selection: Selection, columns: tuple[str, ...]) -> tuple[str, ...]:
    for name in columns:
        if name not in selection.table.columns:
            raise RestError(
                400,
                "PGRST204",
                f"Could not find the '{name}' column of '{selection.table.name}' "
                "in the schema cache",
            )
    return columns


def _chosen(
    functions: list[catalog.Function], schema: str, name: str, arguments: dict[str, Any]
) -> catalog.Function:
    matching = [function for function in functions if function.takes(arguments.keys())]
    called = f"{schema}.{name}({', '.join(sorted(arguments))})"
    if not matching:
        raise RestError(
            404, "PGRST202", f"Could not find the function {called} in the schema cache"
        )
    if len(matching) > 1:
        raise RestError(
            300, "PGRST203", f"Could not choose the best candidate function for {called}"
        )
    return matching[0]


def _page(request: Request, text: str, *, rows: int, offset: int, total: int | None) -> Response:
    if total is not None and offset > 0 and offset >= total:
        raise RestError(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            f"An offset of {offset} was requested, but there are only {total} rows.",
        )
    shown = f"{offset}-{offset + rows - 1}" if rows else "*"
    content_range = f"{shown}/{'*' if total is None else total}"
    partial = total is not None and rows < total
    return _shaped(
        request,
        text,
        rows,
        status=206 if partial else 200,
        headers={"Content-Range": content_range},
    )


def _changed(request: Request, text: str, *, rows: int, created: bool) -> Response:
    if "return=representation" in _preferences(request):
        return _shaped(request, text, rows, status=201 if created else 200)
    return Response(status_code=201 if created else 204)


def _shaped(
    request: Request,
    text: str,
    rows: int,
    *,
    status: int,
    headers: dict[str, str] | None = None,
) -> Response:
    """Answer with the array, or with its only element where the client asked for one object."""
    if ONE_OBJECT not in request.headers.get("accept", ""):
        return Response(text, status_code=status, media_type="application/json", headers=headers)
    if rows != 1:
        raise RestError(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
            f"The result contains {rows} rows",
        )
    return Response(
        text.strip()[1:-1],
        status_code=200 if status == 206 else status,  # noqa: PLR2004
        media_type=ONE_OBJECT,
        headers=headers,
    )
