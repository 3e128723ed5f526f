"""What is written down is true: README, Procfile, SQL comments, the house."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import open_world
from receiver.web import webhook
from receiver.web.server_flags import APP, FLAGS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WEB = (ROOT / "receiver" / "web" / "README.md").read_text(encoding="utf-8")
CHECK = (ROOT / "receiver" / "check" / "README.md").read_text(encoding="utf-8")
MODULES = sorted((ROOT / "receiver").rglob("*.py"))


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
    made = [n for n, line in enumerate(lines) if re.match(r"create (or replace f|table)", line)]
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
