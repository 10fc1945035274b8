"""The tree of errors: statuses, codes, and that an error is copied rather than changed."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import errors
from rebyte_cli.errors import (
    BadUsage,
    Interrupted,
    Message,
    MissingKey,
    Next,
    OutcomeUnknown,
    RebyteError,
    TaskFailed,
    WaitTimeout,
    did_you_mean,
    worst,
)

PACKAGE = Path(errors.__file__).parent
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RebyteError) and kind.__module__ == errors.__name__
]


def test_an_fstring_that_drops_what_a_message_is_made_of_fails_in_tests() -> None:
    hint = "Wait with " + Next("wait", "t")
    with pytest.raises(AssertionError, match="drops"):
        format(hint)
    assert f"{Message('plain')}" == "plain"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+) {2,}(\d+)\b", str(errors.__doc__)))
    named = {kind.__name__: str(kind.exit_status) for kind in KINDS}
    assert named.items() - drawn.items() == {("CarriesTask", "1"), ("TaskEnded", "1")}  # bases


@pytest.mark.parametrize(
    ("statuses", "status"),
    [([], 0), ([0, 0], 0), ([4, 10, 0], 4), ([124, 11], 11), ([1, 6, 3], 6), ([6, 130], 130)],
)
def test_the_status_of_several_errors(statuses: list[int], status: int) -> None:
    assert worst(statuses) == status


def test_an_interrupt_is_no_exception_that_a_handler_of_faults_would_catch() -> None:
    assert not issubclass(Interrupted, Exception)
    assert Interrupted(143, hint="h").as_dict() == {
        "error": {
            "code": "interrupted",
            "message": "interrupted",
            "status": None,
            "hint": "h",
            "exit": 143,
        }
    }


@pytest.mark.parametrize(
    "error",
    [
        BadUsage("m", hint="h"),
        MissingKey("m"),
        OutcomeUnknown("m", candidates=[{"id": "t"}], status_code=504),
        TaskFailed({"id": "t"}, "no key").without_record(),
        WaitTimeout("m", pending=["t"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_differs_in_what_it_was_given_alone(error: RebyteError) -> None:
    before = dict(vars(error))
    copy = error.copy_with(message="other", hint=None)
    assert type(copy) is type(error)
    assert (copy.message, str(copy), copy.hint) == ("other", "other", None)
    assert vars(copy) | {"message": error.message, "hint": error.hint} == before
    assert vars(error) == before
    assert error.copy_with().as_dict() == error.as_dict()


@pytest.mark.slow
def test_errors_are_not_changed_where_they_pass() -> None:
    """Nothing is assigned to a caught error: the raiser decides what it says."""
    changed = []
    for path in PACKAGE.rglob("*.py"):
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(handler, ast.ExceptHandler) and handler.name):
                continue
            for node in ast.walk(handler):
                targets: list[Any] = node.targets if isinstance(node, ast.Assign) else []
                changed += [
                    f"{path.name}:{node.lineno}"
                    for target in targets
                    if isinstance(target, ast.Attribute)
                    and isinstance(target.value, ast.Name)
                    and target.value.id == handler.name
                ]
    assert changed == []


def test_every_hint_is_a_sentence_or_a_command() -> None:
    """As written in the source: hints begin with a capital letter, or with what to type."""
    begins = re.compile(r"""hint = f?"([a-z][^"]*)|hint=f?"([a-z][^"]*)""")
    typed = ("chmod ", "export ", "rebyte ", "rm ", "http://")
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for match in begins.finditer(path.read_text(encoding="utf-8")):
            text = match[1] or match[2]
            if not text.startswith(typed):
                wrong.append(f"{path.name}: {text}")
    assert not wrong


def test_what_all_words_begin_with_makes_none_nearer() -> None:
    variables = ["REBYTE_OUTPUT", "REBYTE_PROFILE"]
    assert did_you_mean("REBYTE_FOO", variables) is not None
    assert did_you_mean("REBYTE_FOO", variables, prefix="REBYTE_") is None
    found = did_you_mean("rebyte_ouptut", variables, prefix="REBYTE_")
    assert found == "Did you mean 'REBYTE_OUTPUT'?"


@pytest.mark.slow
def test_exit_statuses_are_set_in_one_place() -> None:
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {kind.name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for kind in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(kind, ast.ClassDef)
        for line in kind.body
        if isinstance(line, ast.Assign) and "exit_status" in ast.unparse(line.targets[0])
    ]
    assert not elsewhere
