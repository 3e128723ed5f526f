"""Names stay in the rooms that they belong to, and have one meaning."""

import ast
import re
from pathlib import Path

RECEIVER = Path(__file__).parents[1] / "receiver"
FILES = sorted(RECEIVER.rglob("*.py"))

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
        files = [str(path.relative_to(RECEIVER)) for path in FILES]
        spoken = {file for file in files if re.search(names, (RECEIVER / file).read_text("utf-8"))}
        assert {file for file in spoken - logs if not file.startswith(tuple(homes))} == set()
        assert spoken, names


def test_no_function_takes_a_visit_and_its_client_and_what_is_held_is_a_terminals() -> None:
    for file in FILES:
        if RECEIVER / "sandbox" in file.parents:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arguments):
                taken = {one.arg: one.annotation for one in (*node.args, *node.kwonlyargs)}
                assert not {"visit", "client"} <= taken.keys(), file
                assert "held" not in taken or ast.unparse(taken["held"] or node) == "Held", file
