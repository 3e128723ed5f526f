"""The documents are true: READMEs, Procfile, SQL comments, and the files that comments cite."""

import ast
import io
import re
import shlex
import shutil
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import open_world
from receiver.web import webhook
from receiver.web.server_flags import APP, FLAGS
from tests.tables import TABLES, renewed

ROOT = Path(__file__).parents[1]
ROOMS = [ROOT / name for name in (".ci", "receiver", "sql", "tests")]
FILES = sorted(
    path
    for path in (*ROOT.iterdir(), *(path for room in ROOMS for path in room.rglob("*")))
    if path.is_file() and not {"__pycache__", "node_modules", "dist"} & {*path.parts}
)
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
READMES = [path for path in FILES if path.name == "README.md"]
MODULES = sorted((ROOT / "receiver").rglob("*.py"))
MAX_LINES = {
    "README.md": 250,
    "receiver/README.md": 100,
    "receiver/check/README.md": 80,
    "receiver/react/README.md": 40,
    "receiver/sandbox/README.md": 40,
    "receiver/sync/README.md": 110,
    "receiver/terminals/README.md": 90,
    "receiver/web/README.md": 180,
    "sql/README.md": 90,
    "tests/README.md": 60,
    "tests/benchmark/README.md": 120,
}
MAX_FILES = 14
"""In a folder of the receiver, beside __init__.py and README.md."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


README = text_of("README.md")
WEB = text_of("receiver/web/README.md")
CHECK = text_of("receiver/check/README.md")


def without_code(text: str) -> str:
    return re.sub(r"^\s*```.*?^\s*```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors that a link may name here, as GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def remarks(path: Path) -> Iterator[str]:
    """Return the words of a file: all of a document, the comments and docstrings of code."""
    text = path.read_text(encoding="utf-8", errors="replace")  # fixtures are in any charset
    match path.suffix:
        case ".md":
            yield text
        case ".py":
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type == tokenize.COMMENT:
                    yield token.string
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                    yield str(node.value.value)
        case ".sql":
            yield from re.findall(r"--.*", text)
        case ".ts" | ".tsx":
            yield from re.findall(r"//.*|/\*.*?\*/", text, re.DOTALL)
        case ".csv":
            yield text  # a source is named beside each code


def test_every_readme_is_short_enough_to_be_read() -> None:
    lines = {name: len(text_of(name).splitlines()) for name in NAMES if name.endswith("README.md")}
    assert lines.keys() <= MAX_LINES.keys()
    assert {name: n for name, n in lines.items() if n > MAX_LINES[name]} == {}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(path: Path) -> None:
    text = without_code(path.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    astray = []
    for link in links:
        if re.match("https?:", link):
            continue
        file, _, heading = link.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or (heading and heading not in anchors(to.read_text(encoding="utf-8"))):
            astray.append(link)
    assert astray == []


def test_nothing_cites_a_file_that_is_not_there() -> None:
    file = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*[\w-]+\.(?:csv|md|py|sql|tsx?)\b")
    there = {name.split("/", n)[-1] for name in NAMES for n in range(name.count("/") + 1)}
    astray = {
        name: missing
        for name, path in zip(NAMES, FILES, strict=True)
        if (missing := {c for said in remarks(path) for c in file.findall(said)} - there)
    }
    assert astray == {}


def test_no_folder_of_the_receiver_holds_more_files_than_are_seen_at_a_glance() -> None:
    aside = {"__init__.py", "README.md"}
    counted = [path for path in FILES if ROOT / "receiver" in path.parents]
    files = Counter(
        str(path.parent.relative_to(ROOT)) for path in counted if path.name not in aside
    )
    assert len(files) > 10
    assert {folder: n for folder, n in files.items() if n > MAX_FILES} == {}


def test_every_setting_is_in_the_table_of_settings() -> None:
    source = (ROOT / "receiver" / "core" / "settings.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"([A-Z][A-Z_]{3,})"', source))
    assert len(names) >= 9
    table = README.split("## Settings")[1].split("##")[0]
    assert {name for name in names if f"`{name}`" not in table} == set()


def test_every_route_is_in_the_table_of_routes() -> None:
    source = "".join(
        (ROOT / "receiver" / name).read_text(encoding="utf-8")
        for name in ("app.py", "web/buttons.py")
    )
    routes = {webhook.PATH, *re.findall(r'Route\(\s*"([^"]+)"', source)}
    assert len(routes) >= 5
    table = WEB.split("\n## Routes\n")[1].split("\n## ")[0]
    assert {route for route in routes if f"{route}`" not in table} == set()


def test_the_words_that_are_explained_for_a_fault_are_those_that_check_says() -> None:
    said = [
        node.value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    table = CHECK.split("its words | what to do |")[1].split("\n\n")[0]
    words = [part for row in table.splitlines() for part in re.findall(r'"([^"]+)"', row)]
    assert len(words) > 30
    for part in words:
        for piece in re.split(r" … | …|…| 502 ", part):
            assert any(piece in text for text in said), piece


def test_the_procfile_serves_with_the_same_flags_as_the_command_and_the_sandbox() -> None:
    _, _, command = (ROOT / "Procfile").read_text(encoding="utf-8").partition(":")
    address = ["--host", "0.0.0.0", "--port", "${PORT:-8000}"]
    words = shlex.split(command)
    assert words[:2] == ["uvicorn", APP]
    rest = words[2:]
    start = rest.index("--host")
    assert rest[start : start + 4] == address
    assert rest[:start] + rest[start + 4 :] == list(FLAGS)


@pytest.mark.parametrize("path", sorted((ROOT / "sql").glob("0*.sql")), ids=lambda p: p.name)
def test_every_table_and_function_says_above_itself_what_it_promises(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    made = [
        n
        for n, line in enumerate(lines)
        if re.match(r"create (or replace f|(unlogged )?table)", line)
    ]
    assert made
    for n in made:
        assert lines[n - 1].startswith("--"), f"{path.name}:{n + 1}"


def test_the_two_commands_that_ci_runs_are_in_the_readme_once_each() -> None:
    lines = README.splitlines()
    assert len([x for x in lines if re.fullmatch(r"python3 -m venv .* \.venv/bin/pytest", x)]) == 1
    demo = [x for x in lines if re.fullmatch(r"python3 -m venv .* \.venv/bin/receiver demo", x)]
    assert len(demo) == 1


@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "openssl", "base64", "od"))),
    reason="the example is made with curl and openssl",
)
async def test_the_webhook_that_is_sent_by_hand_is_accepted(
    embedded_postgres: PostgresServer,
) -> None:
    [script] = re.findall(r"```sh\n(body=.*?)```", WEB, re.DOTALL)
    [answer] = re.findall(r"```json\n(\{\"accepted.*?)\n```", WEB, re.DOTALL)
    async with open_world(
        {"one": Profile()}, pause_s=0.05, poll_s=60, postgres=embedded_postgres
    ) as world:
        await world.receiver.start()
        environment = {
            "PATH": "/usr/bin:/bin",
            "RECEIVER_URL": world.receiver.url,
            "WEBHOOK_SECRET": world.environment["WEBHOOK_SECRET"],
            "no_proxy": "127.0.0.1",
        }
        ran = subprocess.run(  # noqa: ASYNC221 - the receiver is another process
            ["bash", "-euc", script], env=environment, capture_output=True, timeout=30, check=True
        )
    assert ran.stdout.decode() == answer


def test_the_package_lists_every_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "receiver", "--help"], capture_output=True, timeout=60, check=True
    )
    for command in ("serve", "demo", "sandbox", "check", "secret"):
        assert command in ran.stdout.decode()
        assert f"`receiver {command}`" in README or f"receiver {command}" in README


@pytest.mark.parametrize("document", TABLES)
def test_a_table_that_comes_from_the_code_is_as_the_code_has_it(document: str) -> None:
    """`python -m tests.tables` renews it."""
    assert (ROOT / document).read_text(encoding="utf-8") == renewed(document)
