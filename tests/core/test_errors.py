"""The exception tree: its docstring draws the classes that the code has."""

import inspect
import re
from http import HTTPStatus

import pytest

from receiver.core import errors
from receiver.core.errors import (
    LoginRefused,
    ReceiverError,
    RequestRefused,
    SettingsInvalid,
    SignatureInvalid,
    WebhookRefused,
)

BRANCH = re.compile(r"(?P<indent>[│ ]*)(?:├── |└── )?(?P<name>[A-Z]\w+)(?:\s{2,}(?P<note>.*))?")
STEP = 4


def drawn() -> list[tuple[str, str | None, str]]:
    """Read the docstring's tree as (name, parent, note), from top to bottom."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    path: list[str] = []
    found: list[tuple[str, str | None, str]] = []
    for line in tree.splitlines():
        branch = BRANCH.fullmatch(line)
        assert branch, f"not a line of the tree: {line!r}"
        depth = branch.start("name") // STEP
        path[depth:] = [branch["name"]]
        found.append((branch["name"], path[depth - 1] if depth else None, branch["note"] or ""))
    return found


def defined() -> list[type[ReceiverError]]:
    """Every exception class of the module, in the order in which they are written there."""
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type)]
    own = [cls for cls in classes if cls.__module__ == errors.__name__]
    found = [cls for cls in own if issubclass(cls, ReceiverError)]
    assert found == own, "not all errors are in the tree"
    return found


def test_the_drawn_tree_is_the_tree_in_the_code_in_the_same_order() -> None:
    in_code = [
        (cls.__name__, None if cls is ReceiverError else cls.__bases__[0].__name__)
        for cls in defined()
    ]
    assert [(name, parent) for name, parent, _ in drawn()] == in_code


@pytest.mark.parametrize("cls", defined(), ids=lambda cls: cls.__name__)
def test_every_class_has_a_docstring_of_its_own_that_reads_as_a_sentence(
    cls: type[Exception],
) -> None:
    summary = (cls.__dict__["__doc__"] or "").split("\n\n")[0]
    assert summary[0].isupper()
    assert summary.endswith(".")


@pytest.mark.parametrize(
    "cls", [c for c in defined() if c is not SettingsInvalid], ids=lambda c: c.__name__
)
def test_the_docstring_is_the_default_message_and_another_may_be_given(
    cls: type[ReceiverError],
) -> None:
    assert cls().message == cls.__doc__
    assert str(cls()) == cls.__doc__
    assert cls("The gate is shut.").message == "The gate is shut."


def test_each_refusal_answers_with_the_status_drawn_beside_it() -> None:
    by_name = {cls.__name__: cls for cls in defined()}
    with_status = [(name, int(note)) for name, _, note in drawn() if note.isdecimal()]
    statuses = [
        (cls.__name__, int(cls.status))
        for cls in defined()
        if issubclass(cls, RequestRefused) and not cls.__subclasses__()
    ]
    assert with_status == statuses
    assert issubclass(by_name["SignatureInvalid"], WebhookRefused)
    assert SignatureInvalid.status is HTTPStatus.UNAUTHORIZED


def test_invalid_settings_end_the_process_with_their_message() -> None:
    with pytest.raises(SystemExit) as caught:
        raise SettingsInvalid("SUPABASE_URL is missing")
    assert caught.value.code == "SUPABASE_URL is missing"
    assert isinstance(caught.value, ReceiverError)


def test_a_refused_login_says_for_how_long_the_account_is_locked() -> None:
    assert LoginRefused().locked_s == 0
    assert LoginRefused("Locked.", locked_s=90.0).locked_s == 90
