"""`rebyte logs`, and `--stream` of `create` and `follow-up`: the run as text and as events."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.conftest import COMMAND, Done
from tests.servers import RawServer, error_reply, json_reply, reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
NOW = "[[run=1ms]]"  # steers the local service: the run is over before anybody asks
NOTICE = "This is a simulation: the local Rebyte service ran no agent and asked no model."


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_transcript_says_who_said_what_and_folds_tools(inside_local: Run) -> None:
    inside_local("create", f"Say hello\nand goodbye {NOW}", "--wait")
    inside_local("follow-up", "@last", f"Again {NOW}", "--wait")
    out = inside_local("logs", "@last").out
    assert out.startswith(f"> Say hello\n> and goodbye {NOW}\n\n* Bash: ls /code\n{NOTICE}")
    assert out.count("* Bash: ls /code\n") == 2
    assert f"\n\n> Again {NOW}\n\n* Bash: ls /code\n" in out
    assert out.count(NOTICE) == 2
    assert "README.md" not in out


def test_full_unfolds_thoughts_tools_and_delegated_runs(inside_local: Run) -> None:
    inside_local("create", f"Say hello [[delegate]] {NOW}", "--wait")
    out = inside_local("logs", "@last", "--full").out
    assert "* thinking\n    Reading the prompt.\n" in out
    assert "* Bash\n    ls /code\n* Bash gave\n    README.md\n" in out
    assert "    * Read\n        /code/README.md\n" in out
    assert out.index("    Helped. This is a simulation.") < out.index("* Task gave")


def test_jsonl_is_each_event_and_nothing_else(inside_local: Run) -> None:
    inside_local("create", f"One [[events=5]] {NOW}", "--wait")
    inside_local("follow-up", "@last", f"Two [[events=4]] {NOW}", "--wait")
    done = inside_local("logs", "@last", "-o", "jsonl")
    events = lines(done.out)
    assert [event["seq"] for event in events] == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert len({event["promptId"] for event in events}) == 2
    assert done.err == ""


def test_json_is_the_content_document_with_its_events(inside_local: Run) -> None:
    inside_local("create", f"One {NOW}", "--wait")
    document = inside_local("logs", "@last", "-o", "json").json
    assert document["status"] == "completed"
    assert document["prompts"][0]["userPrompt"] == f"One {NOW}"
    assert document["prompts"][0]["events"][0]["eventType"] == "init"


def test_follow_shows_older_prompts_and_stays_to_the_end(inside_local: Run) -> None:
    inside_local("create", f"One {NOW}", "--wait")
    inside_local("follow-up", "@last", "Two [[run=300ms]]")
    out = inside_local("logs", "@last", "-f").out
    assert out.index("> One") < out.index("> Two")
    assert out.count(NOTICE) == 2
    assert inside_local("get", "@last").json["status"] == "completed"


TRAPS = (
    "[[cut=2]] [[run=300ms]]",
    "[[early-done]] [[run=400ms]]",
    "[[renumber]] [[no-keys]] [[run=200ms]]",
)


def test_follow_drops_what_each_connection_says_again(inside_local: Run) -> None:
    for steering in (
        "[[cut=2]] [[run=300ms]]",
        "[[early-done]] [[run=400ms]]",
        "[[renumber]] [[no-keys]] [[run=200ms]]",
    ):
        done = inside_local("create", f"Go {steering}", "--stream", "-o", "jsonl")
        *events, end = lines(done.out)
        kinds = [event["eventType"] for event in events]
        assert kinds.count("init") == 1, steering
        assert kinds.count("text") == 1, steering
        assert end["status"] == "succeeded", steering


def test_events_arrive_while_the_run_goes_on(service: Any) -> None:
    del service
    with subprocess.Popen(
        [*COMMAND, "create", "Go [[run=30s]]", "--stream", "-o", "jsonl"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["eventType"] == "init"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_stream_prints_the_answer_once_and_nothing_else(inside_local: Run) -> None:
    done = inside_local("create", f"Say hello {NOW}", "--stream")
    assert done.status == 0
    assert done.out.startswith("* Bash: ls /code\n" + NOTICE)
    assert done.out.count("Prompt: Say hello") == 1
    done = inside_local("follow-up", "@last", f"Once more {NOW}", "--stream")
    assert done.status == 0
    assert done.out.count("Prompt: Once more") == 1
    assert "Say hello" not in done.out


def test_an_answer_that_comes_late_is_waited_for(inside_local: Run) -> None:
    out = inside_local("create", f"Say hello [[late-answer=300ms]] {NOW}", "--stream").out
    assert out.count("Prompt: Say hello") == 1


def test_stream_ends_with_the_status_of_the_outcome(inside_local: Run) -> None:
    failed = inside_local("create", f"Go [[fail]] {NOW}", "--stream")
    assert failed.status == 10
    assert failed.out.endswith("(failed)\n")
    canceled = inside_local("create", f"Go [[cancel]] {NOW}", "--stream", "-o", "jsonl")
    assert canceled.status == 11
    assert lines(canceled.out)[-1]["status"] == "canceled"
    assert json.loads(canceled.err.splitlines()[-1])["error"]["exit"] == 11


def test_stream_as_json_is_the_finished_task(inside_local: Run) -> None:
    done = inside_local("create", f"Go [[fail]] {NOW}", "--stream", "-o", "json")
    assert done.status == 10
    assert done.json["status"] == "failed"
    assert done.json["workspaceId"]


def test_the_time_limit_ends_in_124_and_says_how_to_go_on(inside_local: Run) -> None:
    for words in (["create", "Go [[run=1m]]", "--stream"], ["logs", "@last", "-f"]):
        begun = time.monotonic()
        done = inside_local(*words, "--timeout", "0.3")
        assert done.status == 124
        assert time.monotonic() - begun < 5
    assert "still running after 0.3 s" in done.err


def test_a_question_is_shown_with_the_way_to_answer_it(inside_local: Run) -> None:
    task = inside_local("create", "Go [[ask]] [[run=100ms]]", "-o", "id").out.strip()
    time.sleep(0.2)  # the local service parks a run at half of its time
    done = inside_local("logs", task)
    assert "? How should the simulation go on?\n  1. Go on: Take the default.\n" in done.out
    assert done.out.endswith("(running…)\n")
    assert f"`rebyte answer {task}`" in done.err


def test_without_a_content_endpoint_the_stream_stands_in(inside: Run, aim: Aim) -> None:
    event = {"seq": 0, "eventType": "text", "payload": {"content": "Three files changed."}}
    stream = f"event: event\ndata: {json.dumps(event)}\n\nevent: done\ndata: {{}}\n\n"
    task = {
        "id": "abcd1234",
        "status": "completed",
        "prompts": [{"id": "p1", "status": "succeeded"}],
    }

    def answer(request: Any) -> bytes:
        if request.path.endswith("/events"):
            return reply(200, stream, {"Content-Type": "text/event-stream"})
        if request.path.endswith("/abcd1234"):
            return json_reply(task)
        return error_reply(404, "not_found", "Cannot GET")

    with RawServer(answer) as server:
        aim(server)
        done = inside("logs", "abcd1234")
    assert done.status == 0
    assert done.out == ">\n\nThree files changed.\n"
