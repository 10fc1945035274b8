"""`rebyte schema`: the tree as a document that programs can rely on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from rebyte_cli.cli import root
from tests.conftest import Done


@pytest.fixture
def rebyte(inside: Callable[..., Done]) -> Callable[..., Done]:
    """The command, without a process for each call."""
    return inside


@pytest.fixture
def schema(rebyte: Callable[..., Done]) -> Any:
    """The document."""
    return rebyte("schema").json


def walk(node: Any) -> Iterator[Any]:
    for command in node["commands"]:
        yield command
        yield from walk(command)


def find(schema: Any, path: str) -> Any:
    return next(node for node in walk(schema) if node["path"] == path)


def test_it_holds_every_command_of_the_tree(schema: Any) -> None:
    """Click's own walk over the commands finds the same ones, with the same parameters."""

    def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, set[str]]]:
        with root.make_context("rebyte", [], resilient_parsing=True) as ctx:
            for name in group.list_commands(ctx):
                command = group.get_command(ctx, name)
                assert command is not None
                path = f"{above} {name}".strip()
                yield (
                    path,
                    {
                        opt
                        for param in command.params
                        for opt in (*param.opts, *param.secondary_opts)
                    },
                )
                if isinstance(command, click.Group):
                    yield from commands(command, path)

    shared = {name for option in schema["sharedOptions"] for name in option["names"]}
    described = {
        node["path"]: {name for option in node["options"] for name in option["names"]}
        | {argument["name"] for argument in node["arguments"]}
        for node in walk(schema)
    }
    assert described == {path: names - shared for path, names in commands(root)}
    assert {"-P", "-o", "--fields", "--help"} <= shared


def test_an_option_is_described_in_full(schema: Any) -> None:
    """Type, choices, default, variable, repetition."""
    options = {tuple(option["names"]): option for option in find(schema, "create")["options"]}
    assert options["-s", "--skill"]["multiple"] is True
    assert options["--wait",]["flag"] is True
    assert options["--timeout",]["type"] == "duration"
    status = next(
        option for option in find(schema, "list")["options"] if "--status" in option["names"]
    )
    ends = ["completed", "failed", "canceled"]
    assert status["choices"] == ["running", "queued", "limited", "waiting", *ends]
    port = next(
        option for option in find(schema, "local serve")["options"] if "--port" in option["names"]
    )
    assert (port["default"], port["type"]) == (8787, "integer range")
    shared = {option["names"][-1]: option for option in schema["sharedOptions"]}
    assert shared["--profile"]["environment"] == "REBYTE_PROFILE"
    assert "jsonl" in shared["--output"]["choices"]


def test_a_command_is_described_in_full(schema: Any) -> None:
    """Usage, arguments, examples, statuses with their meaning, what it prints."""
    create = find(schema, "create")
    assert create["usage"].startswith("rebyte create [OPTIONS]")
    assert [argument["required"] for argument in create["arguments"]] == [False]
    assert any(line.startswith("rebyte create") for line in create["examples"])
    assert {6, 10, 11, 124} <= set(create["exitStatuses"])
    assert set(map(str, create["exitStatuses"])) <= set(schema["exitStatuses"])
    assert create["prints"]["kind"] == "created"
    also = {other["with"]: other["kind"] for other in create["prints"]["also"]}
    assert also == {"--wait": "task", "--stream -o jsonl": "event", "--dry-run": "request"}
    assert find(schema, "list")["prints"]["list"] is True
    assert schema["schemaVersion"] == 1


def test_every_help_has_an_example_that_is_a_command_of_ours(schema: Any) -> None:
    """The contract asks for one in every help text."""
    for node in walk(schema):
        assert any("rebyte" in line for line in node["examples"]), node["path"]


@pytest.mark.slow
def test_the_schema_of_the_results(
    rebyte: Callable[..., Done], inside_local: Callable[..., Done]
) -> None:
    """It is a valid JSON Schema, speaks of commands that exist, and real output meets it."""
    results = rebyte("schema", "--results").json
    Draft202012Validator.check_schema(results)
    paths = {node["path"] for node in walk(rebyte("schema").json)}
    assert set(results["commands"]) <= paths
    created = inside_local("create", "Say hello", "-o", "json").json
    for path, document in {
        "get": inside_local("get", created["id"], "-o", "json").json,
        "list": inside_local("list", "-o", "json").json,
        "workspace list": inside_local("workspace", "list", "-o", "json").json,
    }.items():
        whole = {**results, **results["commands"][path]}
        Draft202012Validator(whole).validate(json.loads(json.dumps(document)))
