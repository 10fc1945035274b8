"""`rebyte logs`, and `--stream` of `create` and `follow-up`: the run as text and as events."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.servers import (
    Answer,
    RawServer,
    error_reply,
    json_reply,
    reply,
    stall,
    then_close,
)
from tests.waiting import eventually, with_time

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


def test_events_arrive_during_the_run(service: Any) -> None:
    del service
    with subprocess.Popen(
        [*COMMAND, "create", "Go [[run=1h]]", "--stream", "-o", "jsonl"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["eventType"] == "init"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


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
    def check(limit: float) -> None:
        follow = ["logs", "@last", "-f"]
        for words in (
            ["create", f"Go {limit} [[run=2m]]", "--stream"],
            follow,
            [*follow, "-o", "jsonl"],
            [*follow, "-o", "table"],
        ):
            done = inside_local(*words, "--timeout", str(limit))
            assert done.status == 124
            assert "See the rest with `rebyte logs " in done.err
        done = inside_local(*follow, "-o", "json", "--timeout", str(limit))
        assert done.status == 124
        assert "See the rest with `rebyte logs " in json.loads(done.err)["error"]["hint"]

    with_time(check)


def test_a_question_is_shown_with_the_way_to_answer_it(inside_local: Run) -> None:
    task = inside_local("create", "Go [[ask]] [[run=100ms]]", "-o", "id").out.strip()
    eventually(lambda: "?" in inside_local("logs", task).out)
    done = inside_local("logs", task)
    assert "? How should the simulation continue?\n  1. Go on: Take the default.\n" in done.out
    assert done.out.endswith("(running…)\n")
    assert f"`rebyte answer {task}`" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_the_stream_stands_in_for_content_that_is_missing_or_too_large(
    inside: Run, aim: Aim, is_there: bool
) -> None:
    event = {"seq": 0, "eventType": "text", "payload": {"content": "Three files changed."}}
    stream = f"event: event\ndata: {json.dumps(event)}\n\nevent: done\ndata: {{}}\n\n"
    task = {
        "id": "abcd1234",
        "status": "completed",
        "prompts": [{"id": "p1", "status": "succeeded"}],
    }

    packed = gzip.compress(b" " * (65 << 20)) if is_there else b""

    def answer(request: Any) -> bytes:
        if request.path.endswith("/events"):
            return reply(200, stream, {"Content-Type": "text/event-stream"})
        if request.path.endswith("/abcd1234"):
            return json_reply(task)
        if is_there:
            return reply(200, packed, {"Content-Encoding": "gzip"})
        return error_reply(404, "not_found", "Cannot GET")

    with RawServer(answer) as server:
        aim(server)
        done = inside("logs", "abcd1234", env={"REBYTE_REQUEST_TIMEOUT": "120"})
    assert done.status == 0
    assert done.out == ">\n\nThree files changed.\n"
    assert ("`rebyte api /tasks/abcd1234/events` prints them all" in done.err) == is_there


# Queued prompts


@pytest.fixture
def queue(inside_local: Run) -> None:
    """A task of three prompts: one runs, two wait."""
    inside_local("create", "One [[run=400ms]] [[events=6]]")
    for number in ("Two [[run=200ms]]", "Three [[run=200ms]]"):
        assert inside_local("follow-up", "@last", number).status == 0


@pytest.mark.usefixtures("queue")
def test_queued_prompts_before_the_latest_are_shown(inside_local: Run) -> None:
    followed = inside_local("logs", "@last", "-f")
    assert followed.out == inside_local("logs", "@last").out
    assert followed.out.count("This is a simulation") == 3
    assert (followed.status, followed.err) == (0, "")


@pytest.mark.usefixtures("queue")
def test_each_event_is_printed_once_and_one_end_comes_last(inside_local: Run) -> None:
    followed = inside_local("logs", "@last", "-f", "-o", "jsonl").out.splitlines()
    assert followed[:-1] == inside_local("logs", "@last", "-o", "jsonl").out.splitlines()
    assert json.loads(followed[-1])["status"] == "succeeded"


@pytest.mark.usefixtures("queue")
def test_the_time_limit_holds_while_others_have_their_turn(inside_local: Run) -> None:
    inside_local("create", "One [[run=2m]]")
    inside_local("follow-up", "@last", "Two")
    for words in ([], ["-o", "jsonl"]):
        assert inside_local("logs", "@last", "-f", "--timeout", "0.5", *words).status == 124


def test_a_question_of_an_earlier_prompt_is_told(inside_local: Run) -> None:
    task = inside_local("create", "Go [[ask]] [[run=100ms]]", "-o", "id").out.strip()
    inside_local("follow-up", task, "Then this")

    def check(limit: float) -> None:
        words = ("-f", "--timeout", str(limit), "--on-question", "wait")
        done = inside_local("logs", task, *words)
        assert done.status == 124
        assert done.err.count(f"`rebyte answer {task}`") == 1

    with_time(check, 2)
    assert inside_local("logs", task, "-f").status == 12


class Task:
    """A task of two prompts whose older one has `status`, with or without a content endpoint."""

    def __init__(self, status: str, *, content: bool = True) -> None:
        self.prompts = [
            {"id": "p1", "status": status, "userPrompt": "Old", "response": None},
            {"id": "p2", "status": "running", "userPrompt": "New", "response": None},
        ]
        self.content = content

    def __call__(self, request: Any) -> bytes:
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            self.prompts[-1]["status"] = "succeeded"
            event = {"seq": 0, "eventType": "text", "payload": {"content": "New answer"}}
            end = {"status": "succeeded", "finalResult": "New answer"}
            return reply(
                200, f"data: {json.dumps(event)}\n\nevent: done\ndata: {json.dumps(end)}\n\n"
            )
        if path.endswith("/content") and not self.content:
            return error_reply(404, "not_found", "no")
        return json_reply({"id": "abcd1234", "status": "running", "prompts": self.prompts})


@pytest.mark.parametrize("content", [True, False], ids=["content", "without"])
@pytest.mark.parametrize("status", ["running", "pending", "resting"])
def test_an_old_prompt_that_is_stuck_does_not_hold_up_the_latest(
    status: str, content: bool, inside: Run, aim: Aim
) -> None:
    with RawServer(Task(status, content=content)) as server:
        aim(server)
        done = inside("logs", "abcd1234", "-f", "--timeout", "60")
    assert done.status == 0, done.err
    assert done.out.endswith("New answer\n")


# Services with missing, broken or late endpoints


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
    content: str, inside: Run, aim: Aim
) -> None:
    for service in (
        Service(stream(TOOL), GONE[content], finalResult="It is 4."),
        Service(stream(TOOL, result="It is 4."), GONE[content]),
    ):
        with RawServer(service) as server:
            aim(server)
            assert inside("logs", "abcd1234").out == ">\n\n* Bash\nIt is 4.\n"
            assert inside("logs", "abcd1234", "-f").out == ">\n\n* Bash\nIt is 4.\n"
            assert inside("result", "abcd1234").out == "It is 4.\n"


def test_the_text_of_the_events_is_the_answer_if_there_is_no_other(inside: Run, aim: Aim) -> None:
    more = {**TEXT, "seq": 2, "payload": {"text": "Two of them."}}
    with RawServer(Service(stream(TOOL, TEXT, more))) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "Three files changed.\nTwo of them.\n"
    result = {"seq": 3, "eventType": "result", "payload": {"result": "Three, two"}}
    with RawServer(Service(stream(TOOL, TEXT, result))) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "Three, two\n"


@pytest.mark.slow
def test_a_task_that_ended_without_a_word_says_so(inside: Run, aim: Aim) -> None:
    with RawServer(Service(stream(), finalResult="")) as server:
        aim(server)
        for more in ((), ("-f",)):
            shown = inside("logs", "abcd1234", *more).out
            assert shown.endswith("\n(completed without an answer)\n")
        done = inside("result", "abcd1234")
        assert (done.status, done.out) == (1, "")
        assert done.err == "Error: task abcd1234 completed without an answer\n"


def test_a_stream_that_is_refused_is_no_empty_transcript(inside: Run, aim: Aim) -> None:
    service = Service(error_reply(400, "odd", "Not this one"), status="running")
    with RawServer(service) as server:
        aim(server)
        done = inside("logs", "abcd1234")
        assert (done.status, done.err) == (1, "Error: abcd1234: not this one\n")
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

    def check(limit: float) -> None:
        with RawServer(answer) as server:
            aim(server)
            words = ("--stream", "--timeout", str(limit), "-o", output)
            done = inside("create", f"Hi for {limit} s", *words)
        assert done.status == 124
        assert f"still running after {limit:g} s" in done.err

    with_time(check, 1)


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
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("output", ["auto", "jsonl", "json"])
def test_the_limit_holds_when_the_run_has_ended_and_its_stream_is_mute(
    output: str, inside: Run, aim: Aim
) -> None:
    prompt = {"id": "p1", "status": "succeeded", "userPrompt": "Hi"}
    bare = json_reply({"status": "completed", "prompts": [prompt]})

    def check(limit: float) -> None:
        with RawServer(Service(stall, content=bare)) as server:
            aim(server)
            begun = time.monotonic()
            done = inside("logs", "abcd1234", "-f", "-o", output, "--timeout", str(limit))
        assert done.status == (124 if output == "json" else 0), done.err
        assert "still running" not in done.err
        assert time.monotonic() - begun < limit + 8

    with_time(check)


def test_a_service_that_never_answered_is_not_said_to_run(inside: Run, aim: Aim) -> None:
    with RawServer(reply(503)) as server:
        aim(server)
        done = inside("logs", "abcd1234", "-f", "-o", "json", "--timeout", "0.3")
    assert done.status == 124
    assert "task abcd1234 could not be read in 0.3 s" in done.err


# Runs without text: how long to wait for it depends on when the run ended


EMPTY = reply(200, 'event: done\ndata: {"status": "succeeded", "lastSeq": -1}\n\n')


class Ended:
    """A task that ended at ten sharp, asked at `now` (seconds after ten; None: no `Date`)."""

    def __init__(self, now: int | None, *connections: Answer, content: bool = True) -> None:
        self.date = {} if now is None else {"Date": f"Mon, 09 Feb 2026 10:00:{now:02} GMT"}
        self.connections, self.content, self.opened = connections, content, 0

    def __call__(self, request: Any) -> Answer:
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            self.opened += 1
            return self.connections[min(self.opened, len(self.connections)) - 1]
        if path.endswith("/content") and not self.content:
            return GONE["404"]
        ended = "2026-02-09T10:00:00.000Z"
        prompt = {"id": "p1", "status": "succeeded", "completedAt": ended}
        task = {"id": "abcd1234", "status": "completed", "completedAt": ended, "prompts": [prompt]}
        return json_reply(task, headers=self.date)


@pytest.mark.parametrize("content", [True, False], ids=["content", "without"])
@pytest.mark.parametrize("last", [stream(TOOL), EMPTY], ids=["tool", "empty"])
@pytest.mark.parametrize("words", [["result"], ["logs"], ["logs", "-f"]], ids=" ".join)
def test_a_run_that_ended_long_ago_takes_one_connection(
    words: list[str], last: Answer, content: bool, inside: Run, aim: Aim
) -> None:
    service = Ended(30, last, content=content)
    with RawServer(service) as server:
        aim(server)
        inside(words[0], "abcd1234", *words[1:])
    assert service.opened == 1


@pytest.mark.parametrize("now", [3, None], ids=["just-now", "no-clock"])
@pytest.mark.parametrize("words", [["result"], ["logs"]], ids=" ".join)
def test_words_that_may_still_come_are_waited_for(
    words: list[str], now: int | None, inside: Run, aim: Aim
) -> None:
    late = Ended(now, *[stream(TOOL)] * 3, stream(TOOL, TEXT))
    with RawServer(late) as server:
        aim(server)
        assert inside(*words, "abcd1234").out.endswith("Three files changed.\n")
    assert late.opened == 4


def test_a_connection_that_breaks_does_not_count(inside: Run, aim: Aim) -> None:
    broken = then_close(reply(200, "data: {", length=500))
    service = Ended(30, broken, stream(TOOL, TEXT))
    with RawServer(service) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "Three files changed.\n"


def test_tail_is_the_last_lines_or_events(inside_local: Run) -> None:
    inside_local("create", f"One [[events=5]] {NOW}", "--wait")
    inside_local("follow-up", "@last", f"Two [[events=4]] {NOW}", "--wait")
    whole = inside_local("logs", "@last").out.splitlines(keepends=True)
    for words in ([], ["-f"]):
        for count in (0, 1, 7, 1000):
            out = inside_local("logs", "@last", "--tail", str(count), *words).out
            assert out.splitlines(keepends=True) == whole[max(len(whole) - count, 0) :]
    events = inside_local("logs", "@last", "-o", "jsonl").out.splitlines()
    assert (
        inside_local("logs", "@last", "-o", "jsonl", "--tail", "6").out.splitlines()
        == (events[-6:])
    )
    refused = inside_local("logs", "@last", "--tail", "1", "-o", "json")
    assert (refused.status, "--tail" in refused.err) == (2, True)


def test_tail_leaves_out_nothing_that_happens_later(inside_local: Run) -> None:
    inside_local("create", f"One {NOW}", "--wait")
    inside_local("follow-up", "@last", "Two [[ask]] [[run=200ms]]")
    task = inside_local("get", "@last").json["id"]
    eventually(lambda: "?" in inside_local("logs", task).out)
    watched = subprocess.Popen(
        [*COMMAND, "logs", task, "-f", "--tail", "1", "--on-question", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert watched.stdout is not None
    # The last line of what is there, before anything else happens: the question's last option.
    assert watched.stdout.readline().startswith("  2. ")
    assert inside_local("answer", task, "--option", "1").status == 0
    rest = watched.stdout.read()
    assert rest.startswith(NOTICE)
    assert "Answered: Go on" in rest
    assert watched.wait(60) == 0
    watched.stdout.close()


def event_of(**fields: Any) -> dict[str, Any]:
    return {"eventType": "text", "payload": {"content": "x"}, **fields}


@pytest.mark.parametrize(
    ("there", "streamed", "shown"),
    [
        ("abc", "abcde", "cde"),
        ("", "abc", "c"),  # a service whose content has no events: they are read from the stream
        ("abc", "ade", "ade"),  # the stream holds less than the content
        ("aa", "aab", "aab"),  # nothing tells the first two apart
    ],
)
def test_tail_ends_where_the_stream_goes_beyond_the_content(
    inside: Run, aim: Aim, there: str, streamed: str, shown: str
) -> None:
    def events(texts: str) -> list[dict[str, Any]]:
        return [event_of(seq=n, payload={"content": text}) for n, text in enumerate(texts)]

    def script(request: Any) -> Answer:
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            lines = [*events(streamed), {"status": "completed", "finalResult": ""}]
            names = ["event"] * len(streamed) + ["done"]
            stream = "".join(
                f"event: {name}\ndata: {json.dumps(line)}\n\n"
                for name, line in zip(names, lines, strict=True)
            )
            return reply(200, stream, {"Content-Type": "text/event-stream"})
        status = "running" if path.endswith("/content") else "completed"
        prompt = {"id": "p", "status": status, "userPrompt": "Go", "events": events(there)}
        return json_reply({"id": "t1234567", "status": status, "prompts": [prompt]})

    with RawServer(script) as server:
        aim(server)
        done = inside("logs", "t1234567", "-f", "--tail", "1", "-o", "jsonl")
        texts = [line.get("payload", {}).get("content") for line in lines(done.out)]
        assert "".join(filter(None, texts)) == shown
