"""Recorded streams of the real agents, and what each parser makes of them.

`samples/index.json` has the command and the exit status of each recording.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents import config
from rebyte_cli.local.agents.adapters.adapter import AgentEvent, Outcome, Parser
from rebyte_cli.local.agents.adapters.lines import (
    ErrorCopy,
    LineSplitter,
    TimeLimits,
    pump,
)
from rebyte_cli.local.agents.adapters.program import ProgramAdapter, ProgramParser
from rebyte_cli.system.untrusted import read_json

ID = "107dce9a-f250-4a65-b15e-8ec1ea297048"
# How each agent says which session it is.
SESSIONS = {
    "claude": {"type": "system", "subtype": "init", "session_id": ID, "model": "\udfff"},
    "codex": {"type": "thread.started", "thread_id": "\ud800"},
    "gemini": {"type": "init", "session_id": "\ud800", "model": "\udfff"},
    "opencode": {"type": "step_start", "sessionID": "\ud800", "part": {"\ud800": 1}},
}
SAMPLES = Path(__file__).parent / "samples"
INDEX: dict[str, Any] = json.loads((SAMPLES / "index.json").read_text())
AGENTS = config.load(None).agents
DONE = "Done: the scripted model wrote hello.txt."

# What each recording comes to: the answer, or how the reason begins.
ANSWERS = {
    "claude-SIGTERM", "claude-denied", "claude-followup", "claude-partial",
    "claude-think", "claude-write", "codex-followup", "codex-readonly", "codex-think",
    "codex-write", "gemini-followup", "gemini-think", "gemini-write", "opencode-followup",
    "opencode-think", "opencode-write",
}  # fmt: skip
REASONS = {
    "claude-SIGINT": "claude failed: ",
    "claude-http400": "claude failed: API Error: 400 scripted failure 400",
    "claude-http401": "claude was killed by signal 9 before it answered: the API answered 401",
    "claude-http429": "claude was killed by signal 9 before it answered: the API answered 429",
    "claude-http500": "claude was killed by signal 9 before it answered: the API answered 500",
    "codex-SIGINT": "codex exited with status 1 before it answered",
    "codex-SIGTERM": "codex was killed by signal 15 before it answered",
    "codex-http400": "codex failed: scripted failure 400",
    "codex-http401": "codex failed: unexpected status 401 Unauthorized: scripted failure 401",
    "codex-http429": "codex failed: exceeded retry limit, last status: 429 Too Many Requests",
    "codex-http500": "codex failed: ",
    "gemini-SIGINT": "gemini was killed by signal 9 before it answered",
    "gemini-SIGTERM": "gemini was killed by signal 9 before it answered",
    "gemini-http400": "gemini failed: scripted failure 400",
    "gemini-http401": "gemini failed: scripted failure 401",
    "gemini-http429": "gemini was killed by signal 9 before it answered",
    "gemini-http500": "gemini was killed by signal 9 before it answered",
    "gemini-untrusted": "gemini exited with status 55 before it answered",
    "opencode-SIGINT": "opencode was killed by signal 2 before it answered",
    "opencode-SIGTERM": "opencode was killed by signal 15 before it answered",
    "opencode-connection-dropped": "opencode failed: Cannot connect to API: The socket",
    "opencode-http400": "opencode failed: scripted failure 400",
    "opencode-http401": "opencode failed: scripted failure 401",
    "opencode-http429": "opencode failed: scripted failure 429",
    "opencode-http500": "opencode failed: scripted failure 500",
    "opencode-rejected-permission": "opencode failed: it stopped without an answer after: The user",
}


def parser_of(name: str) -> Parser:
    return AGENTS[name.split("-")[0]].parser()


def replay(name: str, parser: Parser, text: str | None = None) -> tuple[list[AgentEvent], Outcome]:
    """Everything that the parser says to a recording."""
    content = (SAMPLES / f"{name}.jsonl").read_bytes() if text is None else text.encode()
    splitter, events = LineSplitter(parser), []
    for start in range(0, len(content), 7):  # cut anywhere, in the middle of characters too
        events += splitter.feed(content[start : start + 7])
    events += splitter.end() + parser.flush()
    return events, parser.finish(INDEX[name]["exit"], "")


def fed(agent: str, *lines: dict[str, Any]) -> Parser:
    """The parser of an agent that has printed these lines."""
    parser = parser_of(agent)
    for line in lines:
        parser.feed(json.dumps(line))
    return parser


def test_every_recording_is_expected_to_end_somehow() -> None:
    assert set(INDEX) == ANSWERS | set(REASONS)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_run_that_answered(name: str) -> None:
    _, outcome = replay(name, parser_of(name))
    assert (outcome.succeeded, outcome.answer, outcome.reason) == (True, DONE, "")
    assert outcome.usage["input_tokens"] > 0


@pytest.mark.parametrize("name", sorted(REASONS))
def test_a_run_that_did_not_says_why(name: str) -> None:
    _, outcome = replay(name, parser_of(name))
    assert not outcome.succeeded
    assert outcome.reason.startswith(REASONS[name])
    assert "{" not in outcome.reason  # an API's JSON is no reason that a person can read


@pytest.mark.parametrize("status", [1, -9])
@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_run_that_answered_and_then_ended_badly(name: str, status: int) -> None:
    """Claude Code, for one, answers before the commands that it left in the background end."""
    parser = parser_of(name)
    replay(name, parser)
    outcome = parser.finish(status, "x: cannot be read")
    how = "was killed by signal 9" if status < 0 else f"exited with status {status}"
    assert not outcome.succeeded
    assert outcome.reason == f"{parser.agent} {how} after it answered: x: cannot be read"


WRITE_INPUT = {
    "claude": ("Write", {"file_path": "/code/hello.txt"}),
    "gemini": ("write_file", {"file_path": "/code/hello.txt"}),
    "opencode": ("write", {"filePath": "/code/hello.txt"}),
    "codex": ("shell", {}),
}


@pytest.mark.parametrize("agent", sorted(WRITE_INPUT))
def test_events_of_a_run_with_a_tool_call(agent: str) -> None:
    events, _ = replay(f"{agent}-write", parser_of(agent))
    kinds = [event.kind for event in events if event.kind != "thinking"]
    said = [] if agent == "codex" else ["text"]
    assert kinds == ["init", *said, "tool_use", "tool_result", "text"]
    by_kind = {event.kind: event.payload for event in events}
    name, given = WRITE_INPUT[agent]
    use, result = by_kind["tool_use"], by_kind["tool_result"]
    assert use["name"] == name
    assert given.items() <= use["input"].items()
    assert use["id"] == result["id"]
    assert by_kind["init"]["session_id"]
    assert by_kind["text"]["content"] == DONE  # gemini's deltas are one text


@pytest.mark.parametrize("agent", ["claude", "codex", "opencode"])
def test_thinking_is_told(agent: str) -> None:
    events, _ = replay(f"{agent}-think", parser_of(agent))
    assert AgentEvent("thinking", {"content": "I think about it first."}) in events


@pytest.mark.parametrize("agent", sorted(WRITE_INPUT))
def test_a_follow_up_is_the_same_session(agent: str) -> None:
    first, second = parser_of(agent), parser_of(agent)
    replay(f"{agent}-write", first)
    replay(f"{agent}-followup", second)
    assert first.session == second.session is not None


@pytest.mark.parametrize("forged", ["evil", "", f"{ID}\n", f"{ID} --settings=x", 5, None])
def test_a_session_of_claude_that_no_program_can_resume_is_not_believed(forged: object) -> None:
    """Any program in the sandbox can write such a line, and each follow-up would fail."""
    parser = parser_of("claude")
    parser.feed(json.dumps(SESSIONS["claude"]))
    assert parser.feed(json.dumps({**SESSIONS["claude"], "session_id": forged})) == []
    assert parser.session == ID


@pytest.mark.parametrize("name", sorted(INDEX))
def test_a_stream_that_is_cut_anywhere_never_counts_as_a_success(name: str) -> None:
    """Only the line that ends the work may say that it succeeded."""
    lines = (SAMPLES / f"{name}.jsonl").read_text().splitlines()
    for count in range(len(lines)):
        cut = "\n".join(lines[:count])
        if name.startswith("opencode") and '"reason":"stop"' in cut:
            continue  # its last line but one says that it stopped
        _, outcome = replay(name, parser_of(name), cut)
        assert not outcome.succeeded
        assert outcome.reason


@pytest.mark.parametrize("agent", sorted(WRITE_INPUT))
@pytest.mark.parametrize(
    "line",
    [
        "", "not json", "[]", "null", "7", '"text"', "{}", '{"type": null}', '{"type": "future"}',
        '{"type": "result"', '{"type": "assistant", "message": {"content": 5}}',
        '{"type": "user", "message": null}', '{"type": "item.completed", "item": []}',
        '{"type": "step_start", "part": 1}', '{"type": "message", "role": "assistant"}',
        '{"type": "system"}', '{"type": "turn.failed"}', '{"type": "error"}',
        "[" * 100_000, '{"type": ' + "[" * 700 + "]" * 700 + "}",
    ],
)  # fmt: skip
def test_a_line_that_is_not_understood_is_skipped(agent: str, line: str) -> None:
    content = (SAMPLES / f"{agent}-write.jsonl").read_text()
    parser = parser_of(agent)
    # Before the first line, and between all others.
    text = f"{line}\n" + content.replace("\n", f"\n{line}\n")
    events, _ = replay(f"{agent}-write", parser, text)
    plain, _ = replay(f"{agent}-write", parser_of(agent))
    assert [event for event in events if event in plain] == plain


def test_a_rejected_key_need_not_be_tried_ten_times() -> None:
    parser = parser_of("claude")
    lines = (SAMPLES / "claude-http401.jsonl").read_text().splitlines()
    for line in lines[:3]:
        parser.feed(line)
    assert parser.hopeless == "the API answered 401 (authentication_failed)"


def retries(events: list[AgentEvent]) -> list[tuple[int, str]]:
    return [(e.payload["attempt"], e.payload["error"]) for e in events if e.kind == "retry"]


def test_retries_are_events() -> None:
    events, _ = replay("claude-http429", parser_of("claude"))
    assert retries(events) == [(number, "429 (rate_limit)") for number in range(1, 8)]
    events, _ = replay("codex-http500", parser_of("codex"))
    busy = "We’re currently experiencing high demand, which may cause temporary errors."  # noqa: RUF001
    assert retries(events) == [(1, busy)]


def test_retries_that_are_told_on_stderr_are_events() -> None:
    parser = parser_of("gemini")
    error = '{"type":"error","error":{"type":"x","code":429,"message":"No quota"}}'
    events = [
        event
        for line in (
            f"Attempt 1 failed with status 429. Retrying with backoff... _ApiError: {error}",
            "    at throwErrorIfNotOK (file:///chunk.js:267833:24)",
            "Attempt 2 failed with status 503. Retrying with backoff...",
            "Attempt 3 failed. Retrying with backoff... TypeError: fetch failed",
        )
        for event in parser.complain(line)
    ]
    assert retries(events) == [(1, "No quota (429)"), (2, "503"), (3, "TypeError: fetch failed")]
    assert parser.unfinished(1, "").reason.endswith("answered: TypeError: fetch failed")
    parser = parser_of("opencode")
    line = (
        'timestamp=2026-11-27T17:50:38.996Z level=ERROR run=e0949219 message="stream error"'
        ' providerID=x mode=primary error.error="AI_APICallError: Too many requests"'
    )
    events = [*parser.complain(line), *parser.complain("Error: else"), *parser.complain(line)]
    assert retries(events) == [(1, "Too many requests"), (2, "Too many requests")]


def test_trouble_ends_when_the_agent_goes_on() -> None:
    parser = parser_of("claude")
    lines = (SAMPLES / "claude-http429.jsonl").read_text().splitlines()
    for line in lines:
        parser.feed(line)
    assert parser.trouble == "the API answered 429 (rate_limit)"
    parser.feed(lines[0])
    assert parser.trouble == parser.last_error() == ""


def test_an_answer_that_breaks_off_again_and_again_is_not_waited_for() -> None:
    """OpenCode was seen to ask 496 times."""
    parser = parser_of("opencode")
    cut = json.dumps({"type": "step_finish", "part": {"reason": "unknown"}})
    done = json.dumps({"type": "step_finish", "part": {"reason": "stop"}})
    for _ in range(4):
        parser.feed(cut)
    assert not parser.hopeless
    parser.feed(done)
    events = [event for _ in range(5) for event in parser.feed(cut)]
    broken = "the model's answer broke off"
    assert retries(events) == [(number, broken) for number in range(1, 6)]
    assert parser.hopeless == f"{broken} 5 times in a row"


def test_an_overloaded_api_is_tried_further() -> None:
    parser = parser_of("claude")
    replay("claude-http429", parser)
    assert not parser.hopeless


COUNTED = {
    "claude": {
        "type": "result",
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 1,
            "output_tokens": 7,
            "service_tier": "standard",
        },
    },
    "codex": {
        "type": "turn.completed",
        "usage": {
            "input_tokens": 10,
            "cached_input_tokens": 4,
            "cache_write_input_tokens": 1,
            "output_tokens": 7,
            "reasoning_output_tokens": 3,
        },
    },
    "gemini": {
        "type": "result",
        "stats": {
            "total_tokens": 17,
            "input_tokens": 10,
            "output_tokens": 4,
            "cached": 4,
            "input": 6,
            "tool_calls": 2,
        },
    },
    "opencode": {
        "type": "step_finish",
        "part": {
            "reason": "stop",
            "tokens": {
                "total": 17,
                "input": 5,
                "output": 4,
                "reasoning": 3,
                "cache": {"write": 1, "read": 4},
            },
        },
    },
}


@pytest.mark.parametrize("agent", sorted(COUNTED))
def test_all_agents_count_tokens_in_the_same_words(agent: str) -> None:
    """Some leave the cached or the reasoning tokens out of the others, some count them twice."""
    parser = parser_of(agent)
    parser.feed(json.dumps(COUNTED[agent]))
    used = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 7, "reasoning_tokens": 3}
    if agent == "claude":
        del used["reasoning_tokens"]
    assert parser.usage == used


def step(reason: str, message: str, text: str, **more: object) -> list[dict[str, Any]]:
    """A step of OpenCode in which its model says something."""
    part = {"messageID": message, "text": text, **more}
    return [
        {"type": "step_start", "part": {"messageID": message}},
        {"type": "text", "part": part},
        {"type": "step_finish", "part": {"messageID": message, "reason": reason}},
    ]


COMPACTED = [
    *step("tool-calls", "m1", "I look at it."),
    *step("stop", "m2", "SUMMARY: all work is done."),
    # What OpenCode itself then tells its model.
    {"type": "text", "part": {"messageID": "m3", "text": "Continue if you", "synthetic": True}},
]
REFUSED = {"type": "error", "error": {"name": "APIError", "data": {"message": "out of credit"}}}


def test_the_summary_of_a_compaction_is_no_answer_of_opencode() -> None:
    """Its step ends as that of an answer does."""
    for status, how in ((0, "exited with status 0"), (-9, "was killed by signal 9")):
        outcome = fed("opencode", *COMPACTED).finish(status, "")
        assert outcome.reason == f"opencode {how} before it answered"
    assert not fed("opencode", *COMPACTED).finish(0, "").succeeded
    done = fed("opencode", *COMPACTED, *step("stop", "m4", "It is done."))
    assert done.finish(0, "").answer == "It is done."
    silent = fed("opencode", *COMPACTED, *step("stop", "m4", "")[::2])
    assert silent.finish(0, "") == Outcome(True, "", "", {})


def test_an_error_of_opencode_after_an_answer_is_the_reason() -> None:
    for lines in (COMPACTED, COMPACTED[:-1]):
        outcome = fed("opencode", *lines, REFUSED).finish(1, "")
        assert (outcome.succeeded, outcome.reason) == (False, "opencode failed: out of credit")
    more = fed("opencode", *COMPACTED, REFUSED, *step("stop", "m4", "It is done."))
    assert more.finish(0, "").answer == "It is done."


SAYS = {"type": "message", "role": "assistant", "content": "I run it."}
USES = {"type": "tool_use", "tool_id": "t", "tool_name": "run_shell_command"}
USED = {"type": "tool_result", "tool_id": "t", "status": "success", "output": "hi"}
GIVES_UP = {"type": "error", "severity": "warning", "message": "Loop detected, stopping execution"}
ENDS = {"type": "result", "status": "success"}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([SAYS, USES, USED, GIVES_UP], GIVES_UP["message"], id="calls in a loop"),
        pytest.param([SAYS, SAYS, GIVES_UP], GIVES_UP["message"], id="text in a loop"),
        pytest.param([SAYS, USES, USED], "it stopped without an answer", id="its context is full"),
    ],
)
def test_gemini_gives_up_and_calls_that_a_success(lines: list[dict[str, Any]], reason: str) -> None:
    outcome = fed("gemini", *lines, ENDS).finish(0, "")
    assert (outcome.succeeded, outcome.reason) == (False, f"gemini failed: {reason}")
    done = fed("gemini", *lines, SAYS, ENDS).finish(0, "")
    assert (done.succeeded, done.answer[-9:]) == (True, "I run it.")


def test_an_answer_of_claude_before_its_last_turn_is_not_the_end() -> None:
    """A command in the background that ends makes it continue after its `result`."""
    said = {"content": [{"type": "text", "text": "I look at it."}]}
    turn = {"type": "assistant", "message": said}
    ends = {"type": "result", "result": "I started it.", "is_error": False}
    for more in (SESSIONS["claude"], turn):
        outcome = fed("claude", turn, ends, more).finish(0, "")
        assert outcome.reason == "claude exited with status 0 before it answered"
        last = fed("claude", turn, ends, more, ends | {"result": "It is done."})
        assert last.finish(0, "").answer == "It is done."
    helper = turn | {"parent_tool_use_id": "t"}
    assert fed("claude", turn, ends, helper).finish(0, "").answer == "I started it."


def test_the_cost_of_a_run_is_kept() -> None:
    _, outcome = replay("claude-write", parser_of("claude"))
    assert outcome.usage["cost_usd"] == 0.00035
    assert (outcome.usage["input_tokens"], outcome.usage["output_tokens"]) == (20, 10)


def test_a_command_of_codex_that_failed_is_marked() -> None:
    parser = parser_of("codex")
    item = {"id": "i", "type": "command_execution", "command": "false", "aggregated_output": ""}
    for more, failed in (
        ({"exit_code": 1, "status": "failed"}, True),
        ({"exit_code": None, "status": "declined"}, True),
        ({"exit_code": 0, "status": "completed"}, False),
    ):
        (event,) = parser.feed(json.dumps({"type": "item.completed", "item": item | more}))
        assert event.payload.get("is_error", False) is failed
    change = {"id": "c", "type": "file_change", "changes": [], "status": "failed"}
    use, result = parser.feed(json.dumps({"type": "item.completed", "item": change}))
    assert (use.kind, result.payload["is_error"]) == ("tool_use", True)


def test_the_text_of_gemini_comes_in_paragraphs_while_it_is_written() -> None:
    parser = parser_of("gemini")

    def say(*deltas: str) -> list[str]:
        for delta in deltas:
            line = {"type": "message", "role": "assistant", "content": delta, "delta": True}
            assert parser.feed(json.dumps(line)) == []
        return [event.payload["content"] for event in parser.pause()]

    assert say("One ", "paragraph.") == []
    assert say("\n", "\nAnother ") == ["One paragraph."]
    assert say("one.\n\n```sh\nls\n\n") == ["Another one."]
    assert say("pwd\n```\n\nThe e") == ["```sh\nls\n\npwd\n```"]
    parser.feed('{"type": "message", "role": "assistant", "content": "nd"}')
    (last,) = parser.feed('{"type": "result", "status": "success"}')
    assert last.payload["content"] == "The end"
    answer = parser.finish(0, "").answer
    assert answer == "One paragraph.\n\nAnother one.\n\n```sh\nls\n\npwd\n```\n\nThe end"


def test_a_long_output_of_a_tool_is_cut() -> None:
    parser = parser_of("claude")
    block = {"type": "tool_result", "tool_use_id": "t", "content": "x" * 100_000}
    line = json.dumps({"type": "user", "message": {"content": [block]}})
    (event,) = parser.feed(line)
    assert len(event.payload["output"]) < 66_000
    assert event.payload["output"].endswith("[34464 more characters]")


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    parser = parser_of("codex")
    splitter = LineSplitter(parser)
    for _ in range(40):
        assert splitter.feed(b"x" * 1_000_000) == []
    # Parsed, a line of empty JSON objects takes thirty times its size.
    assert len(splitter._begun) < 10_000_000
    (event,) = splitter.feed(b'\n{"type":"thread.started","thread_id":"t"}\n')
    assert event.kind == "init"


def printed(*pieces: str) -> str:
    """A Python expression for a line with the type of Claude Code's lines."""
    return "+".join([repr(b'{"type":"assistant","x":['), *pieces, repr(b"1]}\n")])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        printed("b'[],' * 2_700_000"),
        printed("b'1,' * 4_000_000"),
        printed("b'\"' + rb'\\n' * 4_000_000 + b'\",'"),
    ],
)
def test_a_run_is_looked_after_whatever_the_agent_prints(text: str, tmp_path: Path) -> None:
    code = f"import sys\nwhile True: sys.stdout.buffer.write({text})"
    looks = [time.process_time()]

    def watch() -> str:
        looks.append(time.process_time())
        return "enough" if len(looks) > 20 else ""

    pipe = subprocess.PIPE
    with (
        (tmp_path / "raw").open("wb", buffering=0) as raw,
        (tmp_path / "errors").open("wb", buffering=0) as errors,
        subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe) as agent,
    ):
        limits = TimeLimits(0, 0)
        parser = parser_of("claude")
        why = pump(agent, parser, lambda _: None, raw, errors, limits, watch, lambda _: False)
        agent.kill()
    assert why == "enough"
    # In time of this process alone: other tests run beside it.
    assert max(after - before for before, after in pairwise(looks)) < 1


def test_an_agent_does_not_fill_the_disk_with_its_errors(tmp_path: Path) -> None:
    """Of very many, the last are kept: they say why it failed."""
    code = """
import sys
for _ in range(40): sys.stderr.write("x" * (1 << 20) + chr(10))
print("the end", file=sys.stderr)
"""
    pipe, limits = subprocess.PIPE, TimeLimits(0, 0)
    with (
        (tmp_path / "raw").open("wb", buffering=0) as raw,
        (tmp_path / "errors").open("wb", buffering=0) as errors,
        subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe) as agent,
    ):
        parser = parser_of("opencode")
        pump(agent, parser, lambda _: None, raw, errors, limits, lambda: "", lambda _: False)
    kept = (tmp_path / "errors").read_bytes()
    assert 500_000 < len(kept) < 20_000_000
    assert kept.endswith(b"x\nthe end\n")


def test_each_of_few_lines_after_very_many_is_read_once(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb", buffering=0) as file:
        errors = ErrorCopy(file, parser_of("opencode"))
        told = list[str]()
        for attempt in range(3):
            for _ in range(100):
                errors.add(b"x" * 60_000 + b"\n")
            errors.add(b'level=ERROR message="stream error" error.error="busy %d"\n' % attempt)
            for _ in range(200):
                told += [each.payload["error"] for each in errors.events()]
    assert told == ["busy 0", "busy 1", "busy 2"]


def test_a_line_with_a_picture_is_read() -> None:
    parser = parser_of("claude")
    picture = {"type": "image", "source": {"data": "iVBOR" * 1_000_000}}
    content = [picture, *({"type": "text", "text": f'"{n}",'} for n in range(5_000))]
    block = {"type": "tool_result", "tool_use_id": "t", "content": content}
    (event,) = parser.feed(json.dumps({"type": "user", "message": {"content": [block]}}))
    assert event.payload["output"].endswith('"4999",')


def test_a_line_of_opencode_is_searched_once_whatever_it_repeats() -> None:
    parser = parser_of("opencode")
    line = "level=ERROR " * 100 + 'message="stream error"' * 125 + ' error.error="'
    began = time.process_time()
    assert not any(parser.complain(line) for _ in range(100))
    assert time.process_time() - began < 1


def test_an_answer_says_how_much_of_it_is_left_out() -> None:
    parser = ProgramParser("mine")
    splitter = LineSplitter(parser)
    for piece in [b"x" * 1_000_000] * 34:  # a line that is longer than any that is read
        splitter.feed(piece)
    splitter.feed(b"\nend\n")
    assert parser.finish(0, "").answer == "end\n[34000000 more characters]"
    splitter.feed(b"y" * 2_000_000 + b"\n")
    answer = parser.finish(0, "").answer
    assert len(answer) < 1_000_000
    assert answer.endswith(f"y\n[{34_000_000 + 2_000_000 - answer.count('y')} more characters]")


def test_a_failure_has_no_colours() -> None:
    """In the text of an error, and escaped in the JSON around it."""
    parser = AGENTS["gemini"].parser()
    message = '\x1b[31m{"error": {"code": 429, "message": "\\u001b[1mNo quota\\u001b[0m"}}\x1b[0m'
    parser.feed(json.dumps({"type": "result", "status": "error", "error": {"message": message}}))
    assert parser.finish(41, "").reason == "gemini failed: No quota (429)"


def test_the_text_of_a_program_has_no_colours() -> None:
    parser = ProgramAdapter(command=("x",), label="x").parser()
    parser.feed("\x1b[31mred\x1b[0m")
    assert [event.payload for event in parser.pause()] == [{"content": "red"}]
    assert parser.finish(0, "").answer == "red"


HUGE = "9" * 4300  # the most digits that Python reads and writes


@pytest.mark.parametrize(
    "number", [HUGE, "9" * 400, "1e400", "NaN", "-Infinity", "1" + "0" * 16, "-1e400"]
)
def test_numbers_that_cannot_be_added_up_are_not_counted(number: str) -> None:
    usage = f'{{"input_tokens": {number}, "cache_read_input_tokens": {number}, "output_tokens": 1}}'
    parser = parser_of("claude")
    parser.feed(f'{{"type": "result", "total_cost_usd": {number}, "usage": {usage}}}')
    assert parser.finish(0, "").usage == {"output_tokens": 1}
    parser = parser_of("opencode")
    tokens = f'{{"input": {number}, "output": 2}}'
    step = f'{{"reason": "stop", "cost": {number}, "tokens": {tokens}}}'
    for _ in range(2):
        parser.feed(f'{{"type": "step_finish", "part": {step}}}')
    assert parser.finish(0, "").usage == {"output_tokens": 4}


def test_counts_below_zero_are_not_counted() -> None:
    parser = parser_of("claude")
    parser.feed('{"type": "result", "usage": {"input_tokens": -5, "output_tokens": 1}}')
    assert parser.finish(0, "").usage == {"output_tokens": 1}


def test_what_is_nested_deeply_is_left_out() -> None:
    parser = parser_of("claude")
    deep = '{"a": ' * 700 + "1" + "}" * 700
    block = f'{{"type": "tool_use", "id": "1", "name": "x", "input": {deep}}}'
    (event,) = parser.feed(f'{{"type": "assistant", "message": {{"content": [{block}]}}}}')
    assert json.dumps(event.payload).count("{") < 200
    parser.feed(f'{{"type": "result", "is_error": true, "errors": [{deep}]}}')
    assert "nested too deeply" in parser.finish(1, "").reason


def test_a_retry_of_any_number_is_told(tmp_path: Path) -> None:
    line = "Attempt {} failed with status 429. Retrying... x\n"
    said = line.format("1" * 5000) + line.format("1" * 3000) + line.format(2)
    with (tmp_path / "stderr").open("wb", buffering=0) as file:
        errors = ErrorCopy(file, parser_of("gemini"))
        errors.add(said.encode())
        events = errors.events()
    assert retries(events)[-1] == (2, "429 x")
    assert json.dumps([event.payload for event in events])


def test_a_block_of_code_without_end_is_read_once() -> None:
    """A supervisor that searches it again and again keeps to no limit."""
    parser = parser_of("gemini")
    began = time.process_time()
    for text in ("```" + "\n\n" * 1_000_000, "x" * 100, "\n\n```" * 200_000):
        parser.feed(json.dumps({"type": "message", "role": "assistant", "content": text}))
        parser.pause()
    assert time.process_time() - began < 10  # it was minutes
    for _ in range(30):
        parser.feed(json.dumps({"type": "message", "role": "assistant", "content": "y" * 100_000}))
    parser.feed('{"type": "result", "status": "success"}')
    answer = parser.finish(0, "").answer
    assert len(answer) < 1_000_000
    assert answer.endswith(" more characters]")


@pytest.mark.parametrize("message", [{"code": 5}, 5, None, ["x"]])
def test_a_reason_of_codex_that_is_no_text(message: object) -> None:
    for kind, field in (("error", message), ("turn.failed", {"message": message})):
        name = "message" if kind == "error" else "error"
        parser = parser_of("codex")
        parser.feed(json.dumps({"type": kind, name: field}))
        outcome = parser.finish(1, "")
        assert not outcome.succeeded
        assert str(message) in outcome.reason


@pytest.mark.parametrize("agent", SESSIONS)
def test_half_a_surrogate_pair_is_text_that_can_be_stored(agent: str) -> None:
    parser = parser_of(agent)
    parser.feed(json.dumps(SESSIONS[agent]))
    assert (parser.session or "").encode() in (b"?", ID.encode())
    assert (parser.model or "").encode() in (b"?", b"")
    assert read_json('{"\\ud800": ["\\ud83d\\ude00", "\\udfff"]}') == {"?": ["😀", "?"]}


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["claude", "codex", "gemini"])  # which tell of both ends
def test_tools_without_end_do_not_fill_the_memory(agent: str) -> None:
    parser = parser_of(agent)
    for number in range(3000):
        parser.feed(line_with_tool(agent, f"{number}{'x' * 60_000}"))
    assert 0 < sum(map(len, parser.tools)) < 1_000_000


def line_with_tool(agent: str, call: str) -> str:
    """A line of an agent that begins a tool call with this id."""
    block = {"type": "tool_use", "id": call, "name": "x", "input": {}}
    lines: dict[str, Any] = {
        "claude": {"type": "assistant", "message": {"content": [block]}},
        "gemini": {"type": "tool_use", "tool_id": call, "tool_name": "x"},
        "codex": {"type": "item.started", "item": {"type": "command_execution", "id": call}},
    }
    return json.dumps(lines[agent])


@pytest.mark.parametrize("text", [{"a": 1}, ["a"], 1, None])
def test_an_answer_of_codex_that_is_no_text(text: object) -> None:
    parser = parser_of("codex")
    item = {"type": "agent_message", "id": "1", "text": text}
    parser.feed(json.dumps({"type": "item.completed", "item": item}))
    parser.feed(json.dumps({"type": "turn.completed", "usage": {}}))
    outcome = parser.finish(0, "")
    assert (outcome.succeeded, type(outcome.answer)) == (True, str)


@pytest.mark.slow
def test_a_line_that_comes_in_tiny_pieces_does_not_fill_the_memory() -> None:
    splitter = LineSplitter(parser_of("claude"))
    tracemalloc.start()
    try:
        for _ in range(500_000):
            splitter.feed(bytes((97, 98)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10_000_000
