"""The event stream and the transcript, with the traps that clients have met."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.waiting import eventually
from tests.witness import KEY, Clock, conform, serving

Records = list[tuple[str, Any]]


def test_stream_is_live_replays_in_full_and_has_the_answer_everywhere(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("Say hello\nand more", skills=["pdf", "deep-research"])["id"]
        stream = caller.stream(task_id)
        first = next(stream)
        assert caller.task(task_id)["status"] == "running"
        clock.advance(1)
        records = [first, *stream]
        replay = list(caller.stream(task_id))
        task = caller.task(task_id)
        content = caller.call("GET", f"/tasks/{task_id}/content").document
        full = caller.call("GET", f"/tasks/{task_id}/content", query={"include": "events"}).document

    assert records == replay
    kinds = [data["eventType"] for _, data in records[:-1]]
    assert kinds == ["init", "thinking", "tool_use", "tool_result", "text", "result"]
    assert [data["seq"] for _, data in records[:-1]] == list(range(6))
    assert len({data["eventKey"] for _, data in records[:-1]}) == 6
    assert {data["promptId"] for _, data in records[:-1]} == {task["prompts"][0]["id"]}

    name, done = records[-1]
    assert (name, done["status"], done["lastSeq"]) == ("done", "succeeded", 5)
    answer = done["finalResult"]
    assert answer.startswith("This is a simulation")
    assert "Prompt: Say hello\n" in answer
    assert "Skills: pdf, deep-research" in answer
    assert records[-3][1]["payload"]["content"] == answer
    assert records[-2][1]["payload"]["result"] == answer
    assert task["finalResult"] == answer
    assert content["prompts"][0]["response"] == answer
    assert "events" not in content["prompts"][0]
    assert full["prompts"][0]["events"] == [data for _, data in records[:-1]]
    assert full["prompts"][0]["userPrompt"] == "Say hello\nand more"


@pytest.mark.parametrize(
    ("executor", "kind", "field", "tool"),
    [
        ("claude", "text", "content", "id"),
        ("gemini", "text", "text", "tool_id"),
        ("codex", "message", "text", "tool_id"),
    ],
)
def test_payload_names_vary_by_executor(
    tmp_path: Path, executor: str, kind: str, field: str, tool: str
) -> None:
    with serving(tmp_path) as caller:
        records = list(caller.stream(caller.create("x [[run=0]]", executor=executor)["id"]))
    assert records[-3][1]["eventType"] == kind
    assert records[-3][1]["payload"] == {field: records[-1][1]["finalResult"]}
    assert tool in records[2][1]["payload"]


def test_events_counts_them(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        for count in (0, 1, 2, 5, 50):
            task_id = caller.create(f"[[events={count}]] [[run=0]]")["id"]
            records = list(caller.stream(task_id))
            assert len(records) == count + 1
            assert records[-1][1]["lastSeq"] == count - 1


def test_early_done(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("[[early-done]] [[run=10s]]")["id"]
        early = list(caller.stream(task_id))
        clock.advance(11)
        late = list(caller.stream(task_id))
    assert early == [("done", {"status": "succeeded", "lastSeq": -1, "finalResult": ""})]
    assert len(late) == 7


def test_late_answer(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("[[late-answer=5s]]")["id"]
        clock.advance(1)
        early, task = list(caller.stream(task_id)), caller.task(task_id)
        silent = caller.call("GET", f"/tasks/{task_id}/content").document["prompts"][0]
        clock.advance(5)
        late = list(caller.stream(task_id))
        told = caller.call("GET", f"/tasks/{task_id}/content").document["prompts"][0]
    assert task["status"] == "completed"
    assert "finalResult" not in task
    assert [data.get("eventType") for _, data in early][-2] == "tool_result"
    assert (early[-1][1]["status"], early[-1][1]["finalResult"]) == ("succeeded", "")
    assert (silent["status"], silent["response"]) == ("succeeded", None)
    assert told["response"] == late[-1][1]["finalResult"] != ""


def test_renumber_moves_seq_and_keeps_keys(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("[[renumber]]")["id"]
        stream = caller.stream(task_id)
        live = [next(stream)[1]]
        clock.advance(0.45)  # the third of the next five comes later than the last
        live += [next(stream)[1] for _ in range(4)]
        clock.advance(0.1)
        live += [data for name, data in stream if name == "event"]
        replay = [data for name, data in caller.stream(task_id) if name == "event"]
    moved = {data["eventKey"] for data in live} & {data["eventKey"] for data in replay}
    assert len(live) == len(replay) == len(moved)
    seqs = [data["seq"] for data in live]
    assert len(seqs) > len(set(seqs))
    assert [data["seq"] for data in replay] == list(range(len(replay)))


def test_no_keys_and_cut(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("[[no-keys]] [[cut=2]] [[run=10s]]")["id"]
        clock.advance(9.9)
        cut = list(caller.stream(task_id))
        clock.advance(1)
        whole = list(caller.stream(task_id))
    assert [name for name, _ in cut] == ["event", "event"]
    assert all("eventKey" not in data for _, data in cut)
    assert whole[-1][0] == "done"


def test_stream_covers_the_latest_prompt_only(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("First")["id"]
        path = f"/tasks/{task_id}/prompts"
        second = caller.call("POST", path, {"prompt": "Second"}).document["promptId"]
        clock.advance(2)
        records = list(caller.stream(task_id))
    assert {data["promptId"] for name, data in records if name == "event"} == {second}
    assert "Prompt: Second" in records[-1][1]["finalResult"]


def test_cancel_ends_a_stream_that_waits(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[run=1h]] [[events=1]]")["id"]
        stream = caller.stream(task_id)
        assert next(stream)[0] == "event"
        caller.call("POST", f"/tasks/{task_id}/cancel")
        records = list(stream)
    assert records == [("done", {"status": "canceled", "lastSeq": 0, "finalResult": ""})]


def test_thread_of_a_stream_ends_when_its_client_leaves(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[run=1h]]")["id"]
        before = set(threading.enumerate())
        parts = urlsplit(caller.service.base_url)
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as wire:
            wire.sendall(
                f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\n"
                f"Host: localhost\r\nAPI_KEY: {KEY}\r\n\r\n".encode()
            )
            assert b"200 OK" in wire.recv(4096)
            (serves,) = set(threading.enumerate()) - before
        eventually(lambda: not serves.is_alive())


def test_stopping_the_service_ends_its_streams(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[run=1h]] [[events=1]]")["id"]
        stream = caller.stream(task_id)
        assert next(stream)[0] == "event"
        caller.service.stop()
        with contextlib.suppress(ConnectionError, http.client.IncompleteRead):
            assert list(stream) == []


def test_delegated_prompt_has_growing_events(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("[[delegate]] [[run=8s]]")["id"]
        clock.advance(8)
        records = list(caller.stream(task_id))
        ids = [data["payload"].get("subPromptId") for name, data in records if name == "event"]
        sub = next(filter(None, ids))
        path = f"/tasks/{task_id}/prompts/{sub}/events"
        early = caller.call("GET", path).document
        clock.advance(1)
        late = caller.call("GET", path).document
        prompt = caller.task(task_id)["prompts"][0]["id"]
        own = caller.call("GET", f"/tasks/{task_id}/prompts/{prompt}/events")
    assert ids.count(sub) == 2
    assert early["promptId"] == sub
    assert len(early["events"]) == len(late["events"]) or early["events"] == late["events"][:-1]
    assert [event["seq"] for event in late["events"]] == [0, 1, 2, 3]
    assert own.status == 404


def test_stream_answer_conforms(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[run=0]]")["id"]
        answer = caller.call("GET", f"/tasks/{task_id}/events")
        head = caller.call("HEAD", f"/tasks/{task_id}/events", check=False)
    conform("GET", f"/v1/tasks/{task_id}/events", answer)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert (head.status, head.raw) == (200, b"")
