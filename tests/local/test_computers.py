"""Agent computers: provisioning, failing, changing and deleting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.witness import Clock, serving


def test_agent_computer_becomes_ready_and_serves_as_workspace(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        made = caller.call("POST", "/agent-computers", {"name": "build-box", "icon": "B"})
        path = f"/agent-computers/{made.document['id']}"
        task = caller.create(workspaceId=made.document["id"])
        assert caller.task(task["id"])["prompts"][0]["status"] == "pending"
        clock.advance(0.5)
        ready = caller.call("GET", path).document
        assert caller.task(task["id"])["prompts"][0]["status"] == "running"
    assert made.status == 201
    assert (made.document["status"], made.document["sandboxId"]) == ("provisioning", None)
    assert (ready["status"], ready["name"], ready["icon"]) == ("ready", "build-box", "B")
    assert ready["sandboxId"]
    assert ready["updatedAt"] > ready["createdAt"]
    assert task["workspaceId"] == ready["id"]


def test_agent_computer_that_fails(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        made = caller.call("POST", "/agent-computers", {"name": "[[fail]] [[run=3s]]"}).document
        clock.advance(2)
        early = caller.call("GET", f"/agent-computers/{made['id']}").document
        clock.advance(1)
        late = caller.call("GET", f"/agent-computers/{made['id']}").document
        refused = caller.call("POST", "/tasks", {"prompt": "x", "workspaceId": made["id"]})
    assert (early["status"], early["provisionError"]) == ("provisioning", None)
    assert late["status"] == "error"
    assert late["provisionError"]
    assert refused.status == 400


def test_agent_computers_are_listed_changed_and_removed(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        made = [caller.call("POST", "/agent-computers", {}).document for _ in range(3)]
        page = caller.call("GET", "/agent-computers", query={"limit": 2, "offset": 1}).document
        assert [row["id"] for row in page["data"]] == [made[1]["id"], made[0]["id"]]
        assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)
        assert made[0]["name"] == "Agent Computer"

        path = f"/agent-computers/{made[0]['id']}"
        view = caller.call("GET", path).document["views"][0]["id"]
        body = {"agent_instructions": "Answer in English.", "views": {view: False}}
        changed = caller.call("PATCH", path, body).document
        assert changed["agentInstructions"] == "Answer in English."
        assert changed["views"][0]["enabled"] is False
        assert caller.call("PATCH", path, {"views": {view: True}}).document["agentInstructions"]
        changes: list[Any] = [{}, {"agent_instructions": 1}, {"views": []}]
        for wrong in changes:
            assert caller.call("PATCH", path, wrong).code == "validation_error"
        assert caller.call("PATCH", path, {"views": {"x": True}}).message == "View x not found"

        assert caller.call("DELETE", path).status == 204
        for method in ("GET", "DELETE"):
            assert caller.call(method, path).status == 404
        assert caller.call("PATCH", path, body).status == 404
        assert caller.call("GET", f"/workspaces/{made[0]['id']}/artifacts").status == 404
        bodies: list[Any] = [{"name": "x" * 201}, {"name": 1}, {"icon": "x" * 51}]
        for body in bodies:
            assert caller.call("POST", "/agent-computers", body).code == "validation_error"
