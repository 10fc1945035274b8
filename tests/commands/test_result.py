"""`rebyte result`: the answer's text alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.output.test_safety import JOINED
from tests.servers import RawServer, error_reply, json_reply, reply
from tests.waiting import with_time

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
NOW = "[[run=1ms]]"


def test_prints_the_text_alone_with_one_newline(inside_local: Run) -> None:
    inside_local("create", f"Say hello {NOW}", "--wait")
    done = inside_local("result", "@last")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("This is a simulation")
    assert done.out.endswith("Skills: none\n")


def test_the_same_in_every_format(inside_local: Run) -> None:
    inside_local("create", f"Say hello {NOW}", "--wait")
    text = inside_local("result", "@last").out
    assert inside_local("result", "@last", "-o", "json").out == text


def test_prints_the_answer_to_the_latest_prompt(inside_local: Run) -> None:
    inside_local("create", f"One {NOW}", "--wait")
    inside_local("follow-up", "@last", f"Two {NOW}", "--wait")
    assert "Prompt: Two" in inside_local("result", "@last").out


def test_several_answers_come_in_the_order_given(inside_local: Run) -> None:
    for name in ("One", "Two", "Three"):
        inside_local("create", f"{name} {NOW}", "--wait")
    ids = inside_local("list", "-o", "id").out
    done = inside_local("result", "@2", "-", stdin=ids)
    found = [line.split()[1] for line in done.out.splitlines() if line.startswith("Prompt: ")]
    assert found == ["Two", "Three", "One"]
    assert "\n\n\n" not in done.out


def test_an_error_leaves_the_other_answers(inside_local: Run) -> None:
    inside_local("create", f"One {NOW}", "--wait")
    inside_local("create", f"Stop [[cancel]] {NOW}")
    inside_local("create", "Long [[run=1h]]")
    for words, status in ((["@1", "@2", "@3"], 1), (["nosuch12", "@2", "@3"], 4)):
        done = inside_local("result", *words)
        assert (done.status, done.out.count("Prompt: ")) == (status, 1)
        assert done.err.count("Error: ") == 2

    def check(limit: float) -> None:
        done = inside_local("result", "@2", "@1", "@3", "--wait", "--timeout", str(limit))
        assert (done.status, done.out.count("Prompt: One")) == (11, 1)
        assert "1 of 3 tasks is still running" in done.err

    with_time(check, 1)


def test_a_running_task_ends_in_1(inside_local: Run) -> None:
    inside_local("create", "Say hello [[run=1m]]")
    done = inside_local("result", "@last")
    assert (done.status, done.out) == (1, "")
    assert "--wait" in done.err


def test_wait_waits_and_gives_up_in_124(inside_local: Run) -> None:
    inside_local("create", "Say hello [[run=100ms]]")
    assert inside_local("result", "@last", "--wait").out.startswith("This is a simulation")
    inside_local("create", "Say hello [[run=1m]]")
    assert inside_local("result", "@last", "--wait", "--timeout", "0.1").status == 124


@pytest.mark.parametrize("more", [[], ["--wait"], ["-o", "json"]], ids=" ".join)
def test_a_failed_task_has_no_answer_but_a_reason(inside_local: Run, more: list[str]) -> None:
    """What it said before it failed must not pass for the answer in `result > file`."""
    inside_local("create", f"Go [[fail]] {NOW}")
    done = inside_local("result", "@last", *more)
    assert (done.status, done.out) == (10, "")
    assert " failed: The prompt contains [[fail]]." in done.err
    assert "rebyte logs" in done.err


@pytest.mark.parametrize("more", [[], ["--wait"], ["-o", "json"]], ids=" ".join)
def test_a_canceled_task_has_no_answer(inside_local: Run, more: list[str]) -> None:
    inside_local("create", f"Go [[cancel]] {NOW}")
    done = inside_local("result", "@last", *more)
    assert (done.status, done.out) == (11, "")
    assert " was canceled" in done.err


@pytest.mark.parametrize(("status", "exit_status"), [("failed", 10), ("canceled", 11)])
def test_the_partial_text_of_a_task_that_did_not_complete_stays_off_stdout(
    inside: Run, aim: Aim, status: str, exit_status: int
) -> None:
    prompts = [{"id": "p", "status": status}]
    task = {"id": "abcd1234", "status": status, "prompts": prompts, "finalResult": "Half of it\n"}
    with RawServer(json_reply(task)) as server:
        aim(server)
        done = inside("result", "abcd1234")
    assert (done.status, done.out) == (exit_status, "")


def test_an_answer_that_can_be_read_only_later_is_found(inside_local: Run) -> None:
    inside_local("create", f"Say hello [[late-answer=400ms]] {NOW}")
    assert inside_local("result", "@last").out.startswith("This is a simulation")


def test_every_field_that_may_hold_the_text_is_read(inside: Run, aim: Aim) -> None:
    task = {
        "id": "abcd1234",
        "status": "completed",
        "prompts": [{"id": "p", "status": "succeeded"}],
    }
    told = 'event: done\ndata: {"status": "succeeded", "finalResult": "From the end"}\n\n'
    said = 'data: {"seq": 0, "eventType": "text", "payload": {"text": "x"}}\n\n' + told
    places = {
        "task": json_reply({**task, "finalResult": "From the task"}),
        "content": json_reply({"id": "abcd1234", "prompts": [{"response": "From the content"}]}),
        "events": reply(200, said, {"Content-Type": "text/event-stream"}),
    }
    for has, text in (
        ("task", "From the task"),
        ("content", "From the content"),
        ("events", "From the end"),
    ):

        def script(request: Any, has: str = has) -> bytes:
            place = request.path.partition("?")[0].rpartition("/")[2]
            if place == has or (place == "abcd1234" and has == "task"):
                return places[has]
            return json_reply(task) if place == "abcd1234" else error_reply(404, "not_found", "No")

        with RawServer(script) as server:
            aim(server)
            assert inside("result", "abcd1234").out == f"{text}\n", has


ODD = f"a\x1b]52;c;AAAA\x07b\u202e\tc\r\nd \ufeff\u200b {JOINED}"


@pytest.mark.parametrize("end", ["", "\n", "\n\n"], ids=ascii)
def test_an_answer_is_unaltered_in_a_pipe(inside: Run, aim: Aim, end: str) -> None:
    task = {"id": "abcd1234", "status": "completed", "finalResult": ODD + end}
    with RawServer(json_reply(task)) as server:
        aim(server)
        for words in ([], ["-o", "json"], ["--color", "always"]):
            assert inside("result", "abcd1234", *words).out == ODD + (end or "\n")


def test_an_answer_is_utf_8_in_any_locale(rebyte: Run, aim: Aim) -> None:
    task = {"id": "abcd1234", "status": "completed", "finalResult": "é\u200d日"}
    with RawServer(json_reply(task)) as server:
        aim(server)
        done = rebyte("result", "abcd1234", env={"PYTHONIOENCODING": "ascii"})
        assert done.out == "é\u200d日\n"


def test_half_a_character_is_spelled_out(inside: Run, aim: Aim) -> None:
    task = {"id": "abcd1234", "status": "completed", "finalResult": "x\ud83d"}
    with RawServer(json_reply(task)) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "x\\ud83d\n"


def test_a_task_that_contradicts_itself_is_no_endless_wait(
    inside: Run, aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = {"id": "p", "status": "running"}
    task = json_reply({"id": "abcd1234", "status": "completed", "prompts": [prompt]})
    empty = reply(200, "event: done\ndata: {}\n\n", {"Content-Type": "text/event-stream"})

    def script(request: Any) -> bytes:
        return empty if request.path.endswith("/events") else task

    def check(limit: float) -> None:
        monkeypatch.setenv("REBYTE_REQUEST_TIMEOUT", str(limit))
        assert inside("result", "abcd1234").status == 1
        assert inside("logs", "abcd1234").status == 0

    with RawServer(script) as server:
        aim(server)
        with_time(check, 1.5)
