"""The rule of imports: a file imports from its own folder and from folders further left."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = "core|supabase terminals photos|sync|on_demand|services|web check console|app|__main__"
ORDER = {room: n for n, rooms in enumerate(STEPS.split("|")) for room in rooms.split()}
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.glob("receiver/**/*.py")
}


def imported(path: Path) -> set[str]:
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {file for file in FILES for name in names if f"{name}.".startswith(f"{file}.")}


IMPORTS = {file: imported(path) for file, path in FILES.items()}
PAIRS = {(file.split(".")[1], other) for file, others in IMPORTS.items() for other in others}
CROSSINGS = {(room, other) for room, other in PAIRS if other.split(".")[1] != room}


def test_a_file_imports_from_its_own_folder_and_from_folders_further_left() -> None:
    for room, other in CROSSINGS:
        if "sandbox" not in (room, other.split(".")[1]):
            assert ORDER[other.split(".")[1]] < ORDER[room], f"{room} imports {other}"


def test_the_sandbox_knows_how_the_receiver_is_served_and_only_commands_know_the_sandbox() -> None:
    taken = {(room, other) for room, other in CROSSINGS if "sandbox" in (room, other.split(".")[1])}
    assert {other for room, other in taken if room == "sandbox"} == {"receiver.web.server_flags"}
    assert {room for room, _ in taken} == {"sandbox", "__main__"}


def test_no_file_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(IMPORTS).prepare()
