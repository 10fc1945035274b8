"""Faults that a prompt asks for."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.witness import Caller, serving


def test_refusals_and_lost_answers_on_request(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        for prompt, left in (("[[drop]]", 1), ("[[drop-before]]", 1)):
            with pytest.raises(http.client.RemoteDisconnected):
                caller.create(prompt)
            assert caller.call("GET", "/tasks").document["total"] == left
        task_id = caller.call("GET", "/tasks").document["data"][0]["id"]
        prompts = f"/tasks/{task_id}/prompts"
        for path in ("/tasks", prompts):
            refused = caller.call("POST", path, {"prompt": "[[http=503]]"})
            assert (refused.status, refused.code) == (503, "internal_error")
            assert refused.headers["retry-after"] == "1"
            page = caller.call("POST", path, {"prompt": "[[html=502]]"})
            assert (page.status, page.headers["content-type"][:9]) == (502, "text/html")
            busy = {"prompt": f"[[http=429*2]] {path}"}
            assert [caller.call("POST", path, busy).status for _ in range(3)] == [429, 429, 201]
        with pytest.raises(http.client.RemoteDisconnected):
            caller.call("POST", prompts, {"prompt": "[[drop]]"})
        assert len(caller.task(task_id)["prompts"]) == 3
        assert caller.call("POST", "/tasks", {"prompt": "[[http=200]]"}).status == 400


def test_slow_create_makes_its_task_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as caller, ThreadPoolExecutor(1) as pool:
        for seconds in (0.7, 4, 16):  # until a look falls into them
            began = time.monotonic()
            prompt = f"[[slow-create={seconds * 1000:.0f}ms]] [[run=0]]"
            slow = pool.submit(Caller(caller.service).create, prompt)
            (row,) = eventually(lambda: caller.call("GET", "/tasks").document["data"])
            pending = caller.task(row["id"])["prompts"][0]["status"] == "pending"
            seen = pending and not slow.done()
            assert slow.result(timeout=60)["id"] == row["id"]
            assert time.monotonic() - began >= seconds
            if seen:
                break
            caller.call("DELETE", f"/tasks/{row['id']}")
        assert seen
