"""The rule of the house: a file imports from its own folder and from folders further left."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

RECEIVER = Path(__file__).parents[1] / "receiver"
STEPS = "core|supabase terminals photos|sync|on_demand|services|web check console|app|__main__"
ORDER = {room: n for n, rooms in enumerate(STEPS.split("|")) for room in rooms.split()}
FILES = {
    ".".join(path.relative_to(RECEIVER.parent).with_suffix("").parts): path
    for path in RECEIVER.rglob("*.py")
    if path.name != "__init__.py"
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


def crossings(*, of_the_sandbox: bool) -> set[tuple[str, str]]:
    pairs = {(file.split(".")[1], other) for file, taken in IMPORTS.items() for other in taken}
    crossing = {(room, other) for room, other in pairs if other.split(".")[1] != room}
    return {pair for pair in crossing if ("sandbox" in "".join(pair)) is of_the_sandbox}


def test_a_file_imports_from_its_own_folder_and_from_folders_further_left() -> None:
    for room, other in crossings(of_the_sandbox=False):
        assert ORDER[other.split(".")[1]] < ORDER[room], f"{room} imports {other}"


def test_the_sandbox_knows_how_the_receiver_is_served_and_only_commands_know_the_sandbox() -> None:
    taken = crossings(of_the_sandbox=True)
    assert {other for room, other in taken if room == "sandbox"} == {"receiver.web.server_flags"}
    assert {room for room, _ in taken} == {"sandbox", "__main__"}


def test_no_file_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(IMPORTS).prepare()


NAMES_STAY_AT_HOME = (
    (r"\b(nume|prenume|nume_complet|foto_fata_url|inactiv)\b", "supabase", "sandbox"),
    (
        r"/ISAPI|UserInfo|FDLib|FDSetUp|employeeNo|FPID|subStatusCode",
        "terminals",
        "sandbox/terminal",
    ),
)


def test_the_companys_columns_and_isapis_names_stay_in_the_rooms_that_speak_to_them() -> None:
    logs = {"core/logs.py"}  # which finds the words that no log may hold
    for names, *homes in NAMES_STAY_AT_HOME:
        files = [str(path.relative_to(RECEIVER)) for path in FILES.values()]
        spoken = {file for file in files if re.search(names, (RECEIVER / file).read_text("utf-8"))}
        assert {file for file in spoken - logs if not file.startswith(tuple(homes))} == set()
        assert spoken, names
