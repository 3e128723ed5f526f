"""The stand-in for Supabase's HTTP face, driven over the network by real clients."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import httpx
import jwt
import psycopg
import pytest
from postgrest import APIError, APIResponse, CountMethod
from postgrest.types import JSON
from supabase import AsyncClient, AsyncClientOptions, create_async_client

from receiver.sandbox.database.postgres import Database, PostgresServer
from receiver.sandbox.database.project import create_project
from receiver.sandbox.supabase.server import SupabaseStandIn

FUNCTIONS = """
create function public.add(a int, b int default 10) returns int
    language sql as 'select a + b';
create function public.echo(p_ids uuid[], p_doc jsonb, p_at timestamptz) returns jsonb
    language sql as 'select jsonb_build_object(''ids'', p_ids, ''doc'', p_doc, ''at'', p_at)';
create function public.nothing() returns void language sql as '';
create function public.numbers(n int) returns setof int
    language sql as 'select generate_series(1, n)';
create function public.pairs() returns table (a int, b text)
    language sql as 'select * from (values (1, ''x''), (2, ''ș'')) v';
create function public.one_column() returns table (held boolean)
    language sql as 'select true';
create function public.row() returns public.dispozitive_pontaj
    language sql as 'select * from public.dispozitive_pontaj';
create function public.document(n int) returns jsonb
    language sql as
    $$ select coalesce(jsonb_agg(jsonb_build_object('n', i)), '[]') from generate_series(1, n) i $$;
create function public.null_text() returns text language sql as 'select null::text';
create function public.fail(code text) returns void language plpgsql as
    $$ begin raise exception 'because' using errcode = code, detail = 'd', hint = 'h'; end $$;
create function public.who() returns jsonb language sql as
    $$ select jsonb_build_object('role', current_user,
        'sub', current_setting('request.jwt.claims')::jsonb ->> 'sub') $$;
create function public.secret() returns int language sql as 'select 1';
revoke execute on function public.secret() from public, anon, authenticated;
create function public.slow() returns void language sql as 'select pg_sleep(30)';
create function public.over(a int) returns text language sql as $$ select 'one' $$;
create function public.over(a int, b int) returns text language sql as $$ select 'two' $$;
"""


@pytest.fixture
async def supabase(database: Database) -> AsyncIterator[SupabaseStandIn]:
    async with SupabaseStandIn(database) as supabase:
        yield supabase


@pytest.fixture
async def http(supabase: SupabaseStandIn) -> AsyncIterator[httpx.AsyncClient]:
    """A client holding the service key."""
    headers = {"apikey": supabase.service_role_key}
    async with httpx.AsyncClient(base_url=supabase.url, headers=headers, trust_env=False) as http:
        yield http


@pytest.fixture
async def client(supabase: SupabaseStandIn) -> AsyncIterator[AsyncClient]:
    """The real supabase-py, as the receiver uses it."""
    async with httpx.AsyncClient(trust_env=False) as http:
        yield await create_async_client(
            supabase.url,
            supabase.secret_key,
            AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False),
        )


def run(database: Database, statements: str) -> None:
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute(statements.encode())


def people(database: Database, count: int) -> None:
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute(
            """insert into public.angajati (id, nume, prenume, cnp)
            select lpad(to_hex(n), 32, '0')::uuid, 'Nume' || n,
                nullif('Prenume' || n, 'Prenume2'), 'x'
            from generate_series(1, %s) as n""",
            (count,),
        )
        connection.execute(
            """insert into public.angajati_biometrie (angajat_id, foto_fata_url)
            select id, nume || '.jpg' from public.angajati where nume <> 'Nume3' order by id"""
        )


def rows(answer: APIResponse) -> list[dict[str, JSON]]:
    assert isinstance(answer.data, list)
    return [row for row in answer.data if isinstance(row, dict)]


def number(n: int) -> str:
    return str(uuid.UUID(int=n))


async def test_the_real_client_selects_embeds_filters_sorts_and_limits(
    database: Database, supabase: SupabaseStandIn, client: AsyncClient
) -> None:
    people(database, 5)
    answer = await (
        client.table("angajati")
        .select("id, nume, angajati_biometrie(employee_no, foto_fata_url)")
        .in_("id", [number(1), number(3), number(4), number(99)])
        .order("nume", desc=True)
        .limit(2)
        .execute()
    )
    assert answer.data == [
        {
            "id": number(4),
            "nume": "Nume4",
            "angajati_biometrie": {"employee_no": 1002, "foto_fata_url": "Nume4.jpg"},
        },
        {"id": number(3), "nume": "Nume3", "angajati_biometrie": None},
    ]
    nulls = await client.table("angajati").select("id").is_("prenume", "null").execute()
    assert nulls.data == [{"id": number(2)}]
    method, path, status = supabase.requests[0]
    assert (method, status) == ("GET", 200)
    assert path.startswith("/rest/v1/angajati?select=id,nume,angajati_biometrie(employee_no,")


async def test_a_replica_that_lags_answers_get_and_the_primary_all_else(
    database: Database, supabase: SupabaseStandIn, client: AsyncClient
) -> None:
    people(database, 1)
    await supabase.lag()
    people_then = (await client.table("angajati").select("id").execute()).data
    added = await client.table("angajati").insert({"nume": "Nou"}).execute()
    assert len(added.data) == 1
    for _ in range(2):
        assert (await client.table("angajati").select("id").execute()).data == people_then
    changed = await client.table("angajati").update({"nume": "Altul"}).eq("nume", "Nou").execute()
    assert len(changed.data) == 1


async def test_the_real_client_writes_and_calls_functions(
    database: Database, client: AsyncClient
) -> None:
    run(database, FUNCTIONS)
    made = await client.table("angajati").insert([{"nume": "Ță-Ion"}, {"nume": "B"}]).execute()
    assert [row["nume"] for row in rows(made)] == ["Ță-Ion", "B"]
    changed = (
        await client.table("angajati").update({"status": "inactiv"}).eq("nume", "Ță-Ion").execute()
    )
    assert [(row["nume"], row["status"]) for row in rows(changed)] == [("Ță-Ion", "inactiv")]
    gone = await client.table("angajati").delete().eq("nume", "B").execute()
    assert len(gone.data) == 1
    counted = (
        await client.table("angajati").select("id", count=CountMethod.exact, head=True).execute()
    )
    assert counted.count == 1
    assert (await client.rpc("add", {"a": 1}).execute()).data == 11
    assert (await client.rpc("pairs", {}).execute()).data == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": "ș"},
    ]
    missing = await client.table("angajati").select("id").eq("nume", "?").maybe_single().execute()
    assert missing is None
    with pytest.raises(APIError) as caught:
        await client.rpc("fail", {"code": "P0001"}).execute()
    assert (caught.value.code, caught.value.message) == ("P0001", "because")


async def test_no_answer_holds_more_than_a_thousand_rows(
    database: Database, client: AsyncClient, http: httpx.AsyncClient
) -> None:
    run(database, FUNCTIONS)
    people(database, 1005)
    page = await client.table("angajati").select("id").order("id").limit(5000).execute()
    assert len(page.data) == 1000
    rest = await client.table("angajati").select("id").order("id").gt("id", number(1000)).execute()
    assert [row["id"] for row in rows(rest)] == [number(n) for n in range(1001, 1006)]
    numbers = await client.rpc("numbers", {"n": 1005}).execute()
    assert numbers.data == list(range(1, 1001))
    counted = await http.get("/rest/v1/angajati?select=id", headers={"Prefer": "count=exact"})
    assert (counted.status_code, counted.headers["content-range"]) == (206, "0-999/1005")


@pytest.mark.parametrize(
    ("headers", "path", "status", "content_range", "count"),
    [
        ({}, "", 200, "0-4/*", 5),
        ({"Range": "1-2"}, "", 200, "1-2/*", 2),
        ({"Prefer": "count=exact"}, "?limit=2&offset=4", 206, "4-4/5", 1),
        ({"Prefer": "count=exact"}, "", 200, "0-4/5", 5),
        ({}, "?limit=0", 200, "*/*", 0),
        ({"Prefer": "count=exact"}, "?nume=eq.nobody", 200, "*/0", 0),
    ],
)
async def test_a_page_says_which_rows_it_holds(  # noqa: PLR0913, PLR0917
    database: Database,
    http: httpx.AsyncClient,
    headers: dict[str, str],
    path: str,
    status: int,
    content_range: str,
    count: int,
) -> None:
    people(database, 5)
    answer = await http.get(f"/rest/v1/angajati{path}", headers=headers)
    assert (answer.status_code, answer.headers["content-range"]) == (status, content_range)
    assert len(answer.json()) == count


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("id=eq.{1}", [1]),
        ("id=neq.{1}&id=lte.{3}", [2, 3]),
        ("id=gte.{4}", [4, 5]),
        ("id=not.in.({1},{2},{3})", [4, 5]),
        ("id=in.()", []),
        ('nume=in.("Nume1","Nume2")', [1, 2]),
        ("nume=like.*me5", [5]),
        ("prenume=not.is.null&id=lt.{4}", [1, 3]),
        ("order=prenume.asc.nullsfirst&limit=1", [2]),
        ("order=prenume.desc.nullslast&limit=1", [5]),
        ("nume=eq.'; drop table angajati; --", []),
        ("select=id,angajati_biometrie!inner(id)&id=lt.{5}", [1, 2, 4]),
    ],
)
async def test_filters_and_orders_choose_the_rows(
    database: Database, http: httpx.AsyncClient, query: str, expected: list[int]
) -> None:
    people(database, 5)
    for n in range(1, 6):
        query = query.replace(f"{{{n}}}", number(n))
    answer = await http.get(f"/rest/v1/angajati?{query}")
    assert [uuid.UUID(row["id"]).int for row in answer.json()] == expected


async def test_an_embedding_is_an_object_where_the_key_is_unique_and_else_an_array(
    database: Database, supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    people(database, 1)
    path = "/rest/v1/angajati?select=angajati_biometrie(employee_no)"
    assert (await http.get(path)).json() == [{"angajati_biometrie": {"employee_no": 1000}}]
    supabase.rest.embed_as = "array"
    assert (await http.get(path)).json() == [{"angajati_biometrie": [{"employee_no": 1000}]}]
    back = await http.get("/rest/v1/angajati_biometrie?select=employee_no,angajati(nume)")
    assert back.json() == [{"employee_no": 1000, "angajati": {"nume": "Nume1"}}]
    supabase.rest.embed_as = "auto"
    run(
        database,
        "alter table public.angajati_biometrie drop constraint angajati_biometrie_angajat_id_key",
    )
    assert (await http.get(path)).json() == [{"angajati_biometrie": [{"employee_no": 1000}]}]
    supabase.rest.embed_as = "object"
    assert (await http.get(path)).json() == [{"angajati_biometrie": {"employee_no": 1000}}]


async def test_a_request_for_one_object_succeeds_with_exactly_one_row(
    database: Database, http: httpx.AsyncClient
) -> None:
    people(database, 2)
    one = {"Accept": "application/vnd.pgrst.object+json"}
    found = await http.get("/rest/v1/angajati?select=nume&nume=eq.Nume1", headers=one)
    assert found.json() == {"nume": "Nume1"}
    many = await http.get("/rest/v1/angajati", headers=one)
    assert (many.status_code, many.json()["code"]) == (406, "PGRST116")
    assert many.json()["details"] == "The result contains 2 rows"
    undone = await http.patch(
        "/rest/v1/angajati?nume=like.Nume*",
        json={"nume": "changed"},
        headers={**one, "Prefer": "return=representation"},
    )
    assert undone.status_code == 406
    assert (await http.get("/rest/v1/angajati?nume=eq.changed")).json() == []


@pytest.mark.parametrize(
    ("function", "arguments", "status", "expected"),
    [
        ("add", {"a": 1, "b": 2}, 200, 3),
        ("nothing", {}, 204, None),
        ("numbers", {"n": 3}, 200, [1, 2, 3]),
        ("one_column", {}, 200, [{"held": True}]),
        ("null_text", {}, 200, None),
        ("document", {"n": 3}, 200, [{"n": 1}, {"n": 2}, {"n": 3}]),
        ("document", {"n": 1500}, 200, [{"n": n} for n in range(1, 1501)]),  # no row limit
        ("document", {"n": 0}, 200, []),
        ("over", {"a": 1}, 200, "one"),
        ("over", {"a": 1, "b": 2}, 200, "two"),
        (
            "echo",
            {"p_ids": [number(1)], "p_doc": {"ș": [1.50, None]}, "p_at": "2026-01-02T03:04:05Z"},
            200,
            {"ids": [number(1)], "doc": {"ș": [1.5, None]}, "at": "2026-01-02T03:04:05+00:00"},
        ),
    ],
)
async def test_a_function_answers_in_the_shape_of_what_it_returns(  # noqa: PLR0913, PLR0917
    database: Database,
    http: httpx.AsyncClient,
    function: str,
    arguments: dict[str, object],
    status: int,
    expected: object,
) -> None:
    run(database, FUNCTIONS)
    answer = await http.post(f"/rest/v1/rpc/{function}", json=arguments)
    assert answer.status_code == status
    assert (answer.json() if answer.content else None) == expected


async def test_a_function_that_returns_one_row_answers_with_one_object(
    database: Database, http: httpx.AsyncClient
) -> None:
    run(database, FUNCTIONS)
    run(database, "insert into public.dispozitive_pontaj (nume) values ('Poarta')")
    answer = await http.post("/rest/v1/rpc/row", json={})
    assert answer.json()["nume"] == "Poarta"


@pytest.mark.parametrize(
    ("sqlstate", "status"),
    [
        ("P0001", 400),
        ("42501", 403),
        ("23505", 409),
        ("23503", 409),
        ("22P02", 400),
        ("23514", 400),
        ("40001", 500),
        ("57014", 500),
        ("53300", 503),
    ],
)
async def test_postgres_errors_become_postgrests(
    database: Database, http: httpx.AsyncClient, sqlstate: str, status: int
) -> None:
    run(database, FUNCTIONS)
    answer = await http.post("/rest/v1/rpc/fail", json={"code": sqlstate})
    assert answer.status_code == status
    assert answer.json() == {"code": sqlstate, "message": "because", "details": "d", "hint": "h"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "nowhere", None, 404, "PGRST205"),
        ("GET", "angajati?select=nowhere", None, 400, "42703"),
        ("GET", "angajati?id=eq.five", None, 400, "22P02"),
        ("GET", "angajati?nume=eq.%00", None, 400, "22P02"),
        ("GET", "angajati?or=(a.eq.1)", None, 400, "PGRST100"),
        ("GET", "angajati?select=dispozitive_pontaj(id)", None, 400, "PGRST200"),
        ("GET", "angajati?select=nowhere(id)", None, 400, "PGRST200"),
        ("POST", "angajati", '{"nowhere": 1}', 400, "PGRST204"),
        ("POST", "angajati", "not json", 400, "PGRST102"),
        ("POST", "angajati", '[{"nume": "a"}, {"prenume": "b"}]', 400, "PGRST102"),
        ("POST", "angajati_biometrie", f'{{"angajat_id": "{number(99)}"}}', 409, "23503"),
        ("POST", "angajati_biometrie", f'{{"angajat_id": "{number(1)}"}}', 409, "23505"),
        ("PATCH", "angajati", '{"nume": "everyone"}', 400, "21000"),
        ("DELETE", "angajati", None, 400, "21000"),
        ("POST", "rpc/nowhere", "{}", 404, "PGRST202"),
        ("POST", "rpc/add", '{"c": 1}', 404, "PGRST202"),
        ("POST", "rpc/add", '{"b": 1}', 404, "PGRST202"),
        ("POST", "rpc/add", "[1]", 400, "PGRST102"),
        ("POST", "rpc/add", '{"a": "x"}', 400, "22P02"),
        ("POST", "rpc/slow", "{}", 500, "57014"),
    ],
)
async def test_a_fault_of_a_request_is_reported_as_postgrest_reports_it(  # noqa: PLR0913, PLR0917
    database: Database,
    supabase: SupabaseStandIn,
    http: httpx.AsyncClient,
    method: str,
    path: str,
    body: str | None,
    status: int,
    code: str,
) -> None:
    supabase.rest.statement_timeout = "500ms"
    run(database, FUNCTIONS)
    people(database, 1)
    answer = await http.request(method, f"/rest/v1/{path}", content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json().keys() == {"code", "message", "details", "hint"}


async def test_a_schema_that_is_not_exposed_is_refused(http: httpx.AsyncClient) -> None:
    for schema in ("vault", "net", "hikvision_sync"):
        answer = await http.get("/rest/v1/secrets", headers={"Accept-Profile": schema})
        assert (answer.status_code, answer.json()["code"]) == (406, "PGRST106")


async def test_numbers_are_written_without_passing_through_floats(
    database: Database, http: httpx.AsyncClient
) -> None:
    precise = "12345678901234567890.10"
    answer = await http.post("/rest/v1/angajati", content=f'{{"salariu": {precise}}}')
    assert (answer.status_code, answer.content) == (201, b"")
    with psycopg.connect(database.superuser_dsn) as connection:
        row = connection.execute("select salariu::text from public.angajati").fetchone()
    assert row == (precise,)


async def test_each_key_acts_as_its_role(
    database: Database, supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    run(database, FUNCTIONS)
    token = supabase.access_token(email="hr@firma.ro")
    user = supabase.auth.users["hr@firma.ro"]
    roles = {
        supabase.service_role_key: "service_role",
        supabase.secret_key: "service_role",
        supabase.anon_key: "anon",
        supabase.publishable_key: "anon",
    }
    for key, role in roles.items():
        for headers in ({"apikey": key}, {"apikey": key, "Authorization": f"Bearer {key}"}):
            answer = await http.post("/rest/v1/rpc/who", json={}, headers=headers)
            assert answer.json() == {"role": role, "sub": None}
    signed_in = {"apikey": supabase.anon_key, "Authorization": f"Bearer {token}"}
    answer = await http.post("/rest/v1/rpc/who", json={}, headers=signed_in)
    assert answer.json() == {"role": "authenticated", "sub": user.id}


async def test_the_bearer_alone_may_be_an_api_key_but_not_a_users_token(
    supabase: SupabaseStandIn,
) -> None:
    async with httpx.AsyncClient(base_url=supabase.url, trust_env=False) as http:
        for token, status in (
            (supabase.service_role_key, 200),
            (supabase.access_token(), 401),
        ):
            headers = {"Authorization": f"Bearer {token}"}
            answer = await http.get("/rest/v1/angajati", headers=headers)
            assert answer.status_code == status


async def test_bad_keys_and_tokens_open_nothing(supabase: SupabaseStandIn) -> None:
    anon = supabase.anon_key
    other = jwt.encode({"role": "service_role", "exp": 9999999999}, "x" * 40, algorithm="HS256")
    unsigned = jwt.encode({"role": "service_role", "exp": 9999999999}, "", algorithm="none")
    cases = [
        {},
        {"apikey": "sb_secret_wrong"},
        {"apikey": other},
        {"apikey": anon, "Authorization": f"Bearer {other}"},
        {"apikey": anon, "Authorization": f"Bearer {unsigned}"},
        {"apikey": anon, "Authorization": "Bearer not.a.token"},
        {"apikey": anon, "Authorization": f"Bearer {supabase.secret_key}"},
        {"apikey": anon, "Authorization": f"Bearer {supabase.access_token(exp=1)}"},
        {"apikey": anon, "Authorization": f"Bearer {supabase.access_token(role='postgres')}"},
        {"apikey": supabase.secret_key, "User-Agent": "Mozilla/5.0"},
    ]
    async with httpx.AsyncClient(base_url=supabase.url, trust_env=False) as http:
        for headers in cases:
            answer = await http.get("/rest/v1/angajati", headers=headers)
            assert answer.status_code == 401, headers
            assert answer.json()["message"]


async def test_rights_and_policies_decide(
    database: Database, supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    run(database, FUNCTIONS)
    people(database, 1)
    signed_in = {
        "apikey": supabase.anon_key,
        "Authorization": f"Bearer {supabase.access_token()}",
    }
    anonymous = {"apikey": supabase.anon_key}
    assert len((await http.get("/rest/v1/angajati", headers=signed_in)).json()) == 1
    assert (await http.get("/rest/v1/angajati", headers=anonymous)).json() == []
    assert (await http.post("/rest/v1/rpc/secret", json={})).json() == 1
    for headers, status in ((signed_in, 403), (anonymous, 401)):
        answer = await http.post("/rest/v1/rpc/secret", json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, "42501")


async def test_an_access_token_carries_supabases_claims_and_verifies_by_the_jwks(
    supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    user = supabase.add_user("hr@firma.ro", app_metadata={"role": "hr"})
    token = supabase.access_token(email="hr@firma.ro", aal="aal2", phone=None)
    answer = await http.get("/auth/v1/.well-known/jwks.json", headers={"apikey": ""})
    assert answer.headers["cache-control"] == "public, max-age=600"
    keys = jwt.PyJWKSet.from_dict(answer.json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token, key, algorithms=["ES256"], audience="authenticated", issuer=f"{supabase.url}/auth/v1"
    )
    assert claims["sub"] == user.id
    assert claims["app_metadata"]["role"] == "hr"
    assert (claims["role"], claims["aal"], claims["is_anonymous"]) == (
        "authenticated",
        "aal2",
        False,
    )
    assert claims.keys() >= {"session_id", "amr", "email", "iat", "exp", "user_metadata"}
    assert "phone" not in claims
    assert "d" not in answer.json()["keys"][0]


async def test_a_rotated_key_signs_new_tokens_and_the_old_one_is_kept_or_not(
    supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    async def kids() -> list[str]:
        answer = await http.get("/auth/v1/.well-known/jwks.json")
        return [key["kid"] for key in answer.json()["keys"]]

    (first,) = await kids()
    second = supabase.rotate_key()
    assert await kids() == [second, first]
    third = supabase.rotate_key(keep_old=False)
    assert await kids() == [third]
    assert jwt.get_unverified_header(supabase.access_token())["kid"] == third


async def test_a_project_with_the_legacy_secret_publishes_no_key(database: Database) -> None:
    async with (
        SupabaseStandIn(database, signing="HS256") as supabase,
        httpx.AsyncClient(base_url=supabase.url, trust_env=False) as http,
    ):
        assert (await http.get("/auth/v1/.well-known/jwks.json")).json() == {"keys": []}
        token = supabase.access_token()
        assert jwt.decode(
            token, supabase.jwt_secret, algorithms=["HS256"], audience="authenticated"
        )


async def test_a_user_signs_in_refreshes_and_is_recognised(
    supabase: SupabaseStandIn, client: AsyncClient, http: httpx.AsyncClient
) -> None:
    supabase.add_user("hr@firma.ro", "parola", user_metadata={"name": "Ana"})
    session = (
        await client.auth.sign_in_with_password({"email": "hr@firma.ro", "password": "parola"})
    ).session
    assert session is not None
    assert session.user.user_metadata == {"name": "Ana"}
    found = await client.auth.get_user(session.access_token)
    assert found is not None
    assert found.user.email == "hr@firma.ro"
    refresh = "/auth/v1/token?grant_type=refresh_token"
    body = {"refresh_token": session.refresh_token}
    assert (await http.post(refresh, json=body)).json()["token_type"] == "bearer"
    assert (await http.post(refresh, json=body)).status_code == 400


@pytest.mark.parametrize(
    "body", ['{"email": "hr@firma.ro", "password": "x"}', "{}", "[]", "not json", '{"email": 1}']
)
async def test_a_wrong_sign_in_is_refused(
    supabase: SupabaseStandIn, http: httpx.AsyncClient, body: str
) -> None:
    supabase.add_user("hr@firma.ro", "parola")
    answer = await http.post("/auth/v1/token?grant_type=password", content=body)
    assert answer.status_code == 400
    assert answer.json()["error_code"]


async def test_a_caller_who_shows_no_good_token_is_no_user(http: httpx.AsyncClient) -> None:
    assert (await http.get("/auth/v1/user")).status_code == 401
    forged = {"Authorization": "Bearer a.b.c"}
    assert (await http.get("/auth/v1/user", headers=forged)).status_code == 403


async def test_photos_are_served_to_all_from_a_public_bucket_and_otherwise_to_the_service_key(
    supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    supabase.photos["ion ș.jpg"] = b"\xff\xd8picture"
    open_, closed = (f"/storage/v1/object/{p}pontaj-photos/ion%20ș.jpg" for p in ("public/", ""))
    nobody = {"apikey": ""}
    answer = await http.get(open_, headers=nobody)
    assert (answer.content, answer.headers["content-type"]) == (b"\xff\xd8picture", "image/jpeg")
    assert (await http.get(closed)).content == b"\xff\xd8picture"
    assert (await http.get(closed, headers=nobody)).json()["statusCode"] == "404"
    missing = await http.get(closed + "x")
    assert (missing.status_code, missing.json()["error"]) == (400, "not_found")
    supabase.storage.public = False
    refused = await http.get(open_)
    assert (refused.status_code, refused.json()["error"]) == (400, "Bucket not found")
    assert (await http.get(closed)).status_code == 200


async def test_photos_are_uploaded_raw_or_as_a_form(
    supabase: SupabaseStandIn, client: AsyncClient, http: httpx.AsyncClient
) -> None:
    picture = bytes(range(256)) * 10
    path = "/storage/v1/object/pontaj-photos/raw.jpg"
    assert (await http.post(path, content=picture)).status_code == 200
    assert (await http.post(path, content=b"")).json()["error"] == "Duplicate"
    await client.storage.from_("pontaj-photos").upload("form.jpg", picture)
    assert supabase.photos == {"raw.jpg": picture, "form.jpg": picture}
    assert await client.storage.from_("pontaj-photos").download("form.jpg") == picture
    anonymous = {"apikey": supabase.anon_key}
    assert (await http.post(path, content=b"", headers=anonymous)).json()["statusCode"] == "403"


async def test_a_browser_on_any_origin_may_call(
    supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    origin = {"Origin": "http://localhost:5173"}
    asked = {
        **origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "apikey, authorization, x-client-info",
    }
    preflight = await http.options("/rest/v1/angajati", headers=asked)
    assert preflight.status_code == 200
    for answer in (
        preflight,
        await http.get("/rest/v1/angajati", headers=origin),
        await http.get("/rest/v1/angajati", headers={**origin, "apikey": "wrong"}),
    ):
        assert answer.headers["access-control-allow-origin"] in {"*", origin["Origin"]}
    assert [status for _, _, status in supabase.requests] == [200, 200, 401]


async def test_supabase_is_switched_off_and_on_at_the_same_address(
    supabase: SupabaseStandIn, http: httpx.AsyncClient
) -> None:
    await supabase.switch_off()
    with pytest.raises(httpx.ConnectError):
        await http.get("/rest/v1/angajati")
    await supabase.switch_on()
    assert (await http.get("/rest/v1/angajati")).status_code == 200


async def test_supabase_answers_503_while_postgres_is_away_and_then_recovers(
    stoppable_postgres: PostgresServer,
) -> None:
    database = create_project(stoppable_postgres, "rest_outage")
    async with SupabaseStandIn(database) as supabase:
        headers = {"apikey": supabase.service_role_key}
        async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
            path = f"{supabase.url}/rest/v1/angajati"
            assert (await http.get(path)).status_code == 200
            await asyncio.to_thread(stoppable_postgres.stop)
            away = await http.get(path)
            assert (away.status_code, away.json()["code"]) == (503, "PGRST001")
            await asyncio.to_thread(stoppable_postgres.start)
            assert (await http.get(path)).status_code == 200


async def test_many_requests_at_once_share_few_connections(
    database: Database, http: httpx.AsyncClient
) -> None:
    people(database, 3)
    answers = await asyncio.gather(*(http.get("/rest/v1/angajati?select=id") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}
    with psycopg.connect(database.superuser_dsn) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where usename = 'authenticator' "
            "and datname = current_database()"
        ).fetchone()
    assert row is not None
    assert row[0] <= 8
