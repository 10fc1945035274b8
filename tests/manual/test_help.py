"""Every help page is whole: an example that the command takes, and lines that are not cut off."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from rebyte_cli.app import App
from rebyte_cli.cli import root
from rebyte_cli.manual.tree import describe, walk

OPERATORS = set("();<>|&")


@pytest.fixture(scope="module")
def nodes() -> list[dict[str, Any]]:
    """Every command, described. Not at import: each worker of a parallel run imports this file."""
    return list(walk(describe(root)))


def calls(example: str) -> Iterator[list[str]]:
    """The arguments of each `rebyte` in a line of shell."""
    example = re.sub(r"\| xargs (.*)", r"; \1 ID", example)
    example = re.sub(r"\$\(\(.*?\)\)", "1", example)
    words = shlex.shlex(example, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    found: list[str] | None = None
    before = ";"
    for word in [*words, ";"]:
        if set(word) <= OPERATORS:
            if found is not None:
                yield found
            found = None
        elif found is not None:
            found.append(word)
        elif word == "rebyte" and (set(before) <= OPERATORS or "=" in before):
            found = []
        before = word


def parse(arguments: list[str]) -> str:
    """The path of the command that takes these arguments; a usage error when none does."""
    context = root.make_context("rebyte", arguments, obj=App(argv=arguments))
    path = []
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest and context.command.invoke_without_command:
            break  # `rebyte skill` does something by itself
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
        path.append(str(name))
    return " ".join(path)


def test_the_examples_are_of_that_command_and_parse(nodes: list[dict[str, Any]]) -> None:
    assert len(nodes) > 40
    for node in nodes:
        lines = "\n".join(node["examples"]).replace("\\\n", " ").splitlines()
        paths = [parse(arguments) for line in lines for arguments in calls(line)]
        assert any(path.startswith(str(node["path"])) for path in paths), node["path"]


def test_the_examples_fit_into_eighty_columns(nodes: list[dict[str, Any]]) -> None:
    for node in nodes:
        lines = "\n".join(node["examples"]).splitlines()
        # Four more for the indent.
        assert [line for line in lines if len(line) > 76] == [], node["path"]


def test_no_line_of_a_list_of_commands_is_cut_off(nodes: list[dict[str, Any]]) -> None:
    for node in nodes:
        for sub in node["commands"]:
            assert len(sub["summary"]) <= 64, sub["path"]


def test_ranges_are_words() -> None:
    def helped(*words: str) -> str:
        shown = CliRunner().invoke(root, [*words, "--help"]).output
        return " ".join(shown.split())

    assert "[default: 8; 1 to 256]" in helped("batch")
    assert "[1 to 20]" in helped("create")
    assert "Skip the first N tasks. --all" in helped("list")


def test_no_summary_of_a_subcommand_is_cut_off(nodes: list[dict[str, Any]]) -> None:
    groups = [node["path"] for node in nodes if node["commands"]]
    for path in groups:
        shown = CliRunner().invoke(root, [*str(path).split(), "--help"]).output
        assert "..." not in shown.replace("[ARGS]...", ""), path
