"""`rebyte logs`, `result` and `--stream` where a service lacks, breaks or delays a part."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, RawServer, error_reply, json_reply, reply, stall

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
GONE = {
    "404": error_reply(404, "not_found", "no"),
    "405": reply(405),
    "html": reply(200, "<html>"),
}
TEXT = {"seq": 0, "eventType": "text", "payload": {"content": "Three files changed."}}
TOOL = {"seq": 0, "eventType": "tool_use", "payload": {"name": "Bash"}}


def stream(*events: dict[str, Any], result: str = "") -> bytes:
    done = {"status": "succeeded", "lastSeq": 0, "finalResult": result}
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return reply(200, f"{body}event: done\ndata: {json.dumps(done)}\n\n")


class Service:
    """One task; `events` and `content` are what those endpoints answer."""

    def __init__(
        self,
        events: Answer = GONE["404"],
        content: Answer = GONE["404"],
        status: str = "completed",
        **task: Any,
    ) -> None:
        self.events, self.content, self.delegated = events, content, GONE["404"]
        prompt = {"id": "p1", "status": {"completed": "succeeded"}.get(status, status)}
        self.task = json_reply({"id": "abcd1234", "status": status, "prompts": [prompt], **task})

    def __call__(self, request: Any) -> Answer:
        path = request.path.partition("?")[0]
        if path.endswith("/content"):
            return self.content
        if "/prompts/" in path:
            return self.delegated
        return self.events if path.endswith("/events") else self.task


@pytest.mark.parametrize("content", GONE)
def test_a_finished_task_shows_its_answer_wherever_it_is(
    content: str, inside: Run, aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each command would look for the last words for most of a second.
    monkeypatch.setattr("rebyte_cli.tasks.stream.LAST_WORDS_PAUSE", 0.001)
    for service in (
        Service(stream(TOOL), GONE[content], finalResult="It is 4."),
        Service(stream(TOOL, result="It is 4."), GONE[content]),
    ):
        with RawServer(service) as server:
            aim(server)
            assert inside("logs", "abcd1234").out == ">\n\n* Bash\nIt is 4.\n"
            assert inside("logs", "abcd1234", "-f").out == ">\n\n* Bash\nIt is 4.\n"
            assert inside("result", "abcd1234").out == "It is 4.\n"


def test_what_was_said_is_the_answer_when_nothing_else_has_one(inside: Run, aim: Aim) -> None:
    more = {**TEXT, "seq": 2, "payload": {"text": "Two of them."}}
    with RawServer(Service(stream(TOOL, TEXT, more))) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "Three files changed.\nTwo of them.\n"
    result = {"seq": 3, "eventType": "result", "payload": {"result": "Three, two"}}
    with RawServer(Service(stream(TOOL, TEXT, result))) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "Three, two\n"


def test_a_stream_that_is_refused_is_no_empty_transcript(inside: Run, aim: Aim) -> None:
    service = Service(error_reply(400, "odd", "Not this one"), status="running")
    with RawServer(service) as server:
        aim(server)
        done = inside("logs", "abcd1234")
        assert (done.status, "Not this one" in done.err) == (1, True)
        service.events = GONE["405"]  # no stream here
        assert inside("logs", "abcd1234").status == 0


def test_an_unreadable_delegated_run_does_not_end_the_transcript(inside: Run, aim: Aim) -> None:
    for sub, answer in (("../../x", GONE["404"]), ("sub1", GONE["html"]), ("sub1", reply(405))):
        gave = {"seq": 1, "eventType": "tool_result", "payload": {"subPromptId": sub}}
        service = Service(stream(TOOL, gave, TEXT))
        service.delegated = answer
        with RawServer(service) as server:
            aim(server)
            done = inside("logs", "abcd1234", "--full")
        assert (done.status, done.err) == (0, ""), sub
        assert done.out.endswith("Three files changed.\n"), sub


def test_follow_ends_with_the_record_of_the_end_also_when_it_was_over(
    inside_local: Run,
) -> None:
    inside_local("create", "Hi [[run=1ms]]", "--wait")
    *events, end = map(json.loads, inside_local("logs", "@last", "-fojsonl").out.splitlines())
    assert (end["status"], end["lastSeq"]) == ("succeeded", events[-1]["seq"])
    assert end["finalResult"].startswith("This is a simulation")


def test_csv_has_a_row_per_event_and_none_for_the_end(inside_local: Run) -> None:
    streamed = inside_local("create", "Hi [[run=200ms]] [[events=4]]", "--stream", "-o", "csv").out
    assert inside_local("logs", "@last", "-f", "-o", "csv").out == streamed
    assert "\n,,,," not in streamed
    seqs = [line.split(",")[0] for line in streamed.splitlines()]
    assert [seq for seq in seqs if seq.isdigit()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("output", ["auto", "jsonl"])
def test_the_limit_holds_when_the_stream_has_ended_and_the_task_has_not(
    output: str, inside: Run, aim: Aim
) -> None:
    created = json_reply({"id": "abcd1234", "url": "https://x/", "status": "running"}, 201)
    service = Service(stream(TEXT), status="running")

    def answer(request: Any) -> Answer:
        return created if request.method == "POST" else service(request)

    with RawServer(answer) as server:
        aim(server)
        begun = time.monotonic()
        done = inside("create", "Hi", "--stream", "--timeout", "0.5", "-o", output)
    assert done.status == 124
    assert "still running after 0.5 s" in done.err
    assert time.monotonic() - begun < 5


def test_the_limit_holds_while_the_content_cannot_be_read(inside: Run, aim: Aim) -> None:
    with RawServer(Service(content=stall, status="running")) as server:
        aim(server)
        for words in ([], ["-f"], ["-f", "-o", "jsonl"]):
            assert inside("logs", "abcd1234", "--timeout", "0.3", *words).status == 124


def test_the_limit_holds_when_the_run_has_ended_and_the_content_cannot_be_read(
    inside: Run, aim: Aim
) -> None:
    with RawServer(Service(stream(TEXT, result="Done."), content=stall)) as server:
        aim(server)
        begun = time.monotonic()
        done = inside("logs", "abcd1234", "-f", "-o", "json", "--timeout", "0.3")
    assert (done.status, done.out) == (124, "")
    assert "could not be read in 0.3 s" in done.err
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("output", ["auto", "jsonl", "json"])
def test_the_limit_holds_when_the_run_has_ended_and_its_stream_is_mute(
    output: str, inside: Run, aim: Aim
) -> None:
    prompt = {"id": "p1", "status": "succeeded", "userPrompt": "Hi"}
    bare = json_reply({"status": "completed", "prompts": [prompt]})
    with RawServer(Service(stall, content=bare)) as server:
        aim(server)
        begun = time.monotonic()
        done = inside("logs", "abcd1234", "-f", "-o", output, "--timeout", "0.3")
    assert done.status == (124 if output == "json" else 0), done.err
    assert "still running" not in done.err
    assert time.monotonic() - begun < 4


def test_a_service_that_never_answered_is_not_said_to_run(inside: Run, aim: Aim) -> None:
    with RawServer(reply(503)) as server:
        aim(server)
        done = inside("logs", "abcd1234", "-f", "-o", "json", "--timeout", "0.3")
    assert done.status == 124
    assert "task abcd1234 could not be read in 0.3 s" in done.err
