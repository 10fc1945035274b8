"""`rebyte workspace` over the history: what makes reuse practical."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Done

Run = Callable[..., Done]


@pytest.fixture
def local(inside_local: Run) -> Run:
    """The command against a service of the test's own, without a process for each call."""
    return inside_local


def test_workspaces_are_known_from_the_tasks_created_here(local: Run) -> None:
    first = local("create", "One").json
    second = local("create", "Two").json
    local("create", "Three", "-w", first["workspaceId"])
    rows = local("workspace", "list").json["data"]
    known = {row["id"]: row for row in rows}
    assert known[first["workspaceId"]]["tasks"] == 2
    assert known[second["workspaceId"]]["tasks"] == 1
    assert rows[0]["id"] == first["workspaceId"]


def test_an_alias_stands_for_its_workspace_until_forgotten(local: Run) -> None:
    workspace = local("create", "One").json["workspaceId"]
    assert local("workspace", "name", "@last", "shop").json["name"] == "shop"
    assert local("workspace", "show", "shop").json["id"] == workspace
    assert local("create", "Two", "-w", "shop").json["workspaceId"] == workspace
    assert local("workspace", "forget", "shop").status == 0
    assert local("workspace", "show", "shop").status == 4


def test_an_unknown_alias_ends_in_4_and_names_the_nearest(local: Run) -> None:
    local("create", "One")
    local("workspace", "name", "@last", "shop")
    done = local("workspace", "show", "shpo")
    assert done.status == 4
    assert "shop" in json.loads(done.err.strip().splitlines()[-1])["error"]["hint"]
