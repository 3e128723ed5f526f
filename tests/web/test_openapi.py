"""The OpenAPI document is true: no undocumented status, no other shape, no 5xx but the documented.

schemathesis plays the client, against the real receiver over real HTTP with a terminal behind it.
"""

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import World, open_world
from receiver.web import buttons, reports, webhook
from receiver.web.openapi import DOCUMENT

HOOK = Path(__file__).parents[2] / "receiver" / "react" / "useHikvisionSync.ts"
UUID = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SCHEMA: Any = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def world(embedded_postgres: PostgresServer) -> Iterator[World]:
    """A world in a loop of its own: schemathesis speaks blocking HTTP."""
    built: Future[World] = Future()
    done: asyncio.Event | None = None
    loop = asyncio.new_event_loop()

    async def keep_up() -> None:
        nonlocal done
        done = asyncio.Event()
        async with open_world(
            {"one": Profile()}, pause_s=0.0, poll_s=60, postgres=embedded_postgres
        ) as world:
            await world.receiver.start()
            async with Hr(world.supabase) as hr:
                await hr.hire("Popescu", "Ion", photo="ion.jpg")
            built.set_result(world)
            await done.wait()

    def run() -> None:
        try:
            loop.run_until_complete(keep_up())
        except BaseException as error:
            if not built.done():
                built.set_exception(error)
            raise
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield built.result(60)
    assert done is not None
    loop.call_soon_threadsafe(done.set)
    thread.join(60)


# Not by the library's own decorator: its cases share one name, of which two workers run one.
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_every_answer_is_documented(operation: Any, data: st.DataObject, world: World) -> None:
    case = data.draw(operation.as_strategy())
    # Another user each time, or the rate limit would answer instead of the routes behind it.
    token = world.supabase.access_token(sub=f"user-{id(case)}-{case.path_parameters}"[:200])
    [row] = asyncio.run(world.execute("select id::text from angajati"))
    if isinstance(case.body, dict) and UUID.fullmatch(str(case.body.get("angajat_id"))):
        case.body["angajat_id"] = row["id"]  # a run instead of a 404
    if "device_id" in (case.path_parameters or {}) and len(case.path_parameters["device_id"]) > 1:
        case.path_parameters["device_id"] = world.sites[0].id  # a comparison instead of a 404
    # 503 is documented: where Supabase is not reachable. Here it is, so nothing may fail.
    response = case.call(base_url=world.receiver.url, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code < 500 or case.path == "/readyz"
    case.validate_response(response, excluded_checks=[not_a_server_error])


def test_every_route_is_documented_with_its_methods() -> None:
    source = (Path(__file__).parents[2] / "receiver" / "app.py").read_text(encoding="utf-8")
    routes = {
        (path, method.lower())
        for path, methods in re.findall(r'Route\("([^"]+)", \w+, methods=\[([^]]+)\]', source)
        for method in re.findall(r"[A-Z]+", methods)
    }
    routes.add((webhook.PATH, "post"))
    for route in (*buttons.ROUTES, *reports.ROUTES):
        routes |= {(route.path, m.lower()) for m in (route.methods or ()) if m != "HEAD"}
    documented = {
        (path, method)
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routes == documented


class HookTypes:
    """The types of the API as the hook declares them, read just as far as it spells them."""

    def __init__(self, source: str) -> None:
        one = r"^(?:export )?(?:type|interface) (\w+)( =)?(.*?)(?=^(?:export|type|interface)|\n\n)"
        declared = re.findall(one, source, re.DOTALL | re.MULTILINE)
        self.texts: dict[str, str] = {name: text.strip() for name, _, text in declared}
        [self.texts["Refusal"]] = re.findall(
            r"answer\.json\(\).* as (\{.*\})$", source, re.MULTILINE
        )

    def members(self, text: str) -> dict[str, tuple[str, bool]]:
        """Return the type of each member, and whether it is always there."""
        found = {
            name: (kind.strip(), not optional)
            for name, optional, kind in re.findall(r"(\w+)(\??): ([^;}]+)", text)
        }
        for keys, kind in re.findall(r"Record<(\w+), (\w+)>", text):
            found |= dict.fromkeys(literals(self.texts[keys]), (kind, True))
        for other in re.findall(r"(?:^|& )([A-Z]\w+)(?= &|\)|$)", text):
            found |= self.members(self.texts[other])
        return found

    def faults(self, text: str, schema: Any, where: str) -> list[str]:
        """Return the places where an object of this type differs from the document."""
        variants = [resolved(one) for one in schema.get("anyOf", [schema])]
        if not all("properties" in one for one in variants):
            return [f"{where} is no object"]
        faults = []
        for name, (kind, always) in self.members(text).items():
            having = [one for one in variants if name in one["properties"]]
            if not having or (always and not all(name in one["required"] for one in variants)):
                faults.append(f"{where}.{name} is not there")
            for one in having:
                faults += self._faults_of_kind(kind, one["properties"][name], f"{where}.{name}")
        return faults

    def _faults_of_kind(self, kind: str, schema: Any, where: str) -> list[str]:
        schema = resolved(schema)
        if kind.endswith("[]"):
            if schema.get("type") != "array":
                return [f"{where} is no list"]
            return self._faults_of_kind(kind[:-2], schema["items"], where)
        if literals(text := self.texts.get(kind, kind)):
            said = set(schema.get("enum", [schema.get("const")]))
            # A line is recognised by one of its words; any other list of words is complete.
            agrees = said <= literals(text) if "const" in schema else said == literals(text)
            return [] if agrees else [f"{where} is {sorted(map(str, said))}, not {kind}"]
        if kind in self.texts:
            return self.faults(text, schema, where)
        types = {"string": "string", "number": "integer", "null": "null"}
        wanted = {types[word] for word in kind.split(" | ")}
        said = (
            {schema["type"]} if isinstance(schema.get("type"), str) else set(schema.get("type", ()))
        )
        said = said or {"string" for word in schema["enum"] if isinstance(word, str)}
        return [] if said == wanted else [f"{where} is {said}, not {kind}"]


def literals(text: str) -> set[str]:
    """Return the words of a union of words; nothing for any other type."""
    return set(re.findall(r"'(\w+)'", text)) if re.fullmatch(r"[| ]*('\w+'[| ]*)+", text) else set()


def resolved(schema: Any) -> Any:
    name = schema.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else schema


def faults_of_the_hook(source: str) -> list[str]:
    types = HookTypes(source)
    schemas = DOCUMENT["components"]["schemas"]
    employees = resolved(schemas["AllResult"])["properties"]["results"]["items"]
    faults = []
    for name, schema in (
        ("OnDevice", schemas["Result"]),
        ("Summary", schemas["Summary"]),
        ("ByEmployee", employees),
        ("Ended", schemas["Progress"]["properties"]["result"]),
        ("Run", schemas["Progress"]),
        ("Refusal", schemas["Problem"]),
    ):
        faults += types.faults(types.texts[name], schema, name)
    told = {line["properties"]["type"]["const"]: line for line in schemas["StreamLine"]["anyOf"]}
    for text in re.split(r"(?:^|\n\s*)\| ", types.texts["Line"])[1:]:
        for word in literals(types.members(text)["type"][0]):
            if line := told.pop(word, None):
                faults += types.faults(text, line, f"line {word}")
            else:
                faults.append(f"line {word} is not there")
    return faults + [f"line {word} is not in the hook" for word in told]


def test_the_hooks_types_are_those_of_the_document() -> None:
    assert faults_of_the_hook(HOOK.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("said", "instead", "fault"),
    [
        ("device_id: string;", "terminal_id: string;", "terminal_id is not there"),
        ("first_fatal: string | null", "first_fatal: string", "first_fatal"),
        ("| 'fatal'\n", "| 'failed'\n", "fatal"),
        ("type: 'ping'", "type: 'pong'", "line ping is not in the hook"),
        ("'result' | 'amended'; done: number", "'result' | 'amended'; pairs: number", "pairs"),
        ("stopped_because: string | null; results?", "stopped_because: number; results?", "number"),
        ("per_device: OnDevice[]", "per_device: OnDevice", "per_device"),
        ("results?: ByEmployee[]", "employees?: ByEmployee[]", "employees is not there"),
        ("run_id?: string }", "run_id: string }", "Refusal.run_id"),
    ],
)
def test_a_hook_that_differs_from_the_document_is_found(
    said: str, instead: str, fault: str
) -> None:
    source = HOOK.read_text(encoding="utf-8")
    assert source.count(said) == 1
    assert fault in "\n".join(faults_of_the_hook(source.replace(said, instead)))
