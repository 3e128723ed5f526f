"""One request to Supabase's REST API (PostgREST) and its rows; foreign exceptions end here.

`company` and `ledger` share it. It knows no tables or functions. A message repeats only the error
code and sentence of Supabase's answer, cut short: a proxy's page may contain anything.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions

from receiver.core.errors import (
    SqlOutdated,
    SupabaseError,
    SupabaseRefused,
    SupabaseUnreachable,
)
from receiver.core.http_faults import in_words
from receiver.core.logs import printable, redact

REQUEST_TIMEOUT_S = 10.0
TOTAL_TIMEOUT_S = 25.0
"""For one request and the library's own retries of GET (three, after 1, 2 and 4 s)."""

Row = Mapping[str, Any]

_TRANSIENT = re.compile(r"(08|40|53|55|57|58)[0-9A-Z]{3}|PGRST00\d|5\d\d|408|429")
"""Codes worth asking again: connection, deadlock, resources, lock, shut-down and
statement timeout (SQLSTATE classes), PostgREST's own connection faults, HTTP 5xx. 42501 (no
permission), PGRST202 (no such function) and HTTP 401 are not among them."""


T = TypeVar("T")


class Query(Protocol):
    """A request that the supabase library has built."""

    def execute(self) -> Awaitable[Any]:
        """Send the request and return an object with the rows in `data`."""


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for Supabase. The caller closes it; supabase's own cannot be closed.

    HTTP/1.1: idle HTTP/2 connections are dropped without notice (supabase-py #1064).
    """
    return httpx.AsyncClient(
        event_hooks={"response": [_refuse_empty]},
        timeout=REQUEST_TIMEOUT_S,
        limits=httpx.Limits(max_connections=20, max_keepalive_connections=10),
    )


async def _refuse_empty(response: httpx.Response) -> None:
    """Raise RemoteProtocolError for a success without a body, which postgrest takes for no rows.

    No rows would make every employee asked for a leaver; a true answer of none is `[]`.
    """
    if response.is_success and not (await response.aread()).strip():
        raise httpx.RemoteProtocolError("an answer without a body", request=response.request)


async def connect(url: str, key: str, http: httpx.AsyncClient) -> AsyncClient:
    """Return the supabase client for the service key; makes no request."""
    options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
    return await AsyncClient.create(url, key, options)


async def rows(query: Query) -> list[Row]:
    """Send a query and return its rows; raise SupabaseUnreachable or SupabaseRefused.

    The rows are a table's, or those of a JSON array that a function returned as one value.
    """
    data = await answer(query)
    if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
        raise SupabaseUnreachable("Supabase answered something that is not rows (a proxy's page?).")
    return data


async def answer(query: Query) -> Any:
    """Send a query and return its JSON; raise SupabaseUnreachable or SupabaseRefused."""
    try:
        async with asyncio.timeout(TOTAL_TIMEOUT_S):
            return (await query.execute()).data
    except httpx.ConnectError as exc:
        raise SupabaseUnreachable(
            f"Supabase cannot be reached: {in_words(exc)}; is SUPABASE_URL right?"
        ) from exc
    except (TimeoutError, httpx.TimeoutException) as exc:
        raise SupabaseUnreachable(f"Supabase did not answer in time: {in_words(exc)}.") from exc
    except httpx.HTTPError as exc:
        raise SupabaseUnreachable(f"Supabase's answer did not arrive: {in_words(exc)}.") from exc
    except APIError as exc:
        raise _refusal(exc) from exc
    except (ValueError, RecursionError) as exc:
        raise SupabaseUnreachable("Supabase answered something that cannot be read.") from exc


def parsed(
    parse: Callable[[Any], T], found: object, otherwise: type[SupabaseError], words: str
) -> T:
    """Return a row or rows parsed; raise `otherwise`, in words, where their shape is another."""
    try:
        return parse(found)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        raise otherwise(words) from exc


OURS = "HR001"
"""The code of what our own SQL raises, in words that say what to do."""

_KEY_REFUSED = re.compile(r"(Invalid|No) API key")  # the gateway, which gives no code
_NO_FUNCTION = "PGRST202|42883"
_ADVICE = (
    (r"53100|25006", "its disk is full: see Database > Settings in the Supabase dashboard"),
    (r"540", "the project is paused: restore it in the Supabase dashboard"),
    (r"57014", "it took too long: the database is overloaded"),
    (r"429", "it is asked too often"),
    (
        r"PGRST00\d|08...|53300|57P0\d",
        "its Postgres does not answer: stopped, starting or out of connections; see its dashboard",
    ),
    (
        r"5\d\d",
        "the gateway before it answers in its place; see its dashboard and status.supabase.com",
    ),
    (
        r"42501",
        "apply all files of sql/ again, which grant it; is SUPABASE_SERVICE_ROLE_KEY right?",
    ),
    (r"401|403|PGRST30[123]", "check SUPABASE_SERVICE_ROLE_KEY"),
    (rf"{_NO_FUNCTION}|42P01|404", "are all files of sql/ applied?"),
    (r"42703", "a column is missing: `receiver check` says which, and what mends it"),
)
"""What to do about a code of Postgres, PostgREST or HTTP; the first match counts. PostgREST itself
always sends a code of the first two."""


def _refusal(exc: APIError) -> SupabaseUnreachable | SupabaseRefused:
    code = str(exc.code or "")
    said = redact(printable(str(exc.message or ""))[: 4000 if code == OURS else 200])
    if code == OURS:
        return SupabaseRefused(f"HR's tables cannot be read: {said}.")
    advice = next((words for codes, words in _ADVICE if re.fullmatch(codes, code)), "")
    if _KEY_REFUSED.match(said):
        advice = "check SUPABASE_SERVICE_ROLE_KEY"
    if _TRANSIENT.fullmatch(code):
        return SupabaseUnreachable(
            f"Supabase is in trouble ({code}: {said}){f': {advice}' if advice else ''}."
        )
    refusal = SqlOutdated if re.fullmatch(_NO_FUNCTION, code) else SupabaseRefused
    return refusal(
        f"Supabase refused the request ({code}: {said}): {advice or 'see the Postgres log'}."
    )
