"""Labels of tasks, `NAME=VALUE`: kept on this machine only, since the API has none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import BadUsage

LONGEST_VALUE = 200  # characters
MOST = 50  # of one task
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)


def problem_of(name: str, value: Any) -> str | None:
    """What is wrong with a label, or None."""
    if not _NAME.fullmatch(name):
        return (
            f"{name[:80]!r} is not a label name: use letters, digits and `._/-`, at most 63"
            " characters, a letter or digit first"
        )
    if not isinstance(value, str):
        return f"{name}: the value must be a string"
    # An unset variable must not select, or mark, other tasks than those that were meant.
    if not value.strip():
        return f"{name}: the value is empty"
    if len(value) > LONGEST_VALUE:
        return f"{name}: the value has more than {LONGEST_VALUE} characters"
    return None if value.isprintable() else f"{name}: the value cannot be printed"


def problem_of_all(labels: Mapping[str, Any]) -> str | None:
    """The first problem of several labels, or None."""
    if len(labels) > MOST:
        return f"more than {MOST} labels"
    problems = (problem_of(name, value) for name, value in labels.items())
    return next((problem for problem in problems if problem), None)


def parse(words: Iterable[str], *, of: str = "--label") -> dict[str, str]:
    """The labels that `--label` was given. BadUsage for one that is malformed or given twice.

    `of` begins the error.
    """
    labels: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BadUsage(f"{of} {word!r} is not NAME=VALUE", hint=f"For example {of} team=search")
        problem = problem_of(name, value)
        if problem is not None:
            raise BadUsage(f"{of}: {problem}")
        if labels.setdefault(name, value) != value:
            raise BadUsage(f"{of}: {name} has two values, {labels[name]!r} and {value!r}")
    if len(labels) > MOST:
        raise BadUsage(f"{of}: more than {MOST} labels")
    return labels


def changes(words: Iterable[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """The references to tasks, labels to set (`NAME=VALUE`) and names to remove (`NAME-`) of words.

    BadUsage for a label that is malformed, or both set and removed. A task's id has no `=`, and
    does not end in a hyphen.
    """
    words = list(words)
    removed = [word[:-1] for word in words if len(word) > 1 and word.endswith("-")]
    given = [word for word in words if "=" in word]
    labels = parse(given, of="label")
    if both := sorted({*labels} & {*removed}):
        raise BadUsage(f"label: {both[0]} is both set and removed")
    names = {f"{name}-" for name in removed}
    return [word for word in words if word not in names and word not in given], labels, removed


def shown(labels: Mapping[str, str]) -> str:
    """Labels as a user writes them."""
    return ", ".join(f"{name}={value}" for name, value in labels.items())
