"""The simulated agent: what a run will do, decided when its prompt arrives.

No agent runs and no model is asked. A plan is made once and stored; the run's progress follows
from the plan and the clock (see `timeline`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, NotRequired, TypedDict

# -- Words in a prompt that steer the simulation, as test card numbers steer a payment sandbox.

STEERING: dict[str, str] = {
    "[[run=2s]]": "the run takes this long (ms, s, m, h; half a second without it)",
    "[[fail]]": "the run ends as failed; an agent computer named so ends in error",
    "[[cancel]]": "the run ends as canceled, with no answer",
    "[[events=50]]": "the run writes this many events (0 to 10000)",
    "[[title=TEXT]]": "the task's title, with \\uXXXX for any character, so that hostile ones fit",
    "[[ask]]": "the run parks on a question at half time until it is answered; "
    "[[ask=2]] asks two at once",
    "[[delegate]]": "the run hands a part to a sub-prompt that has events of its own",
    "[[late-answer=1s]]": "the status is terminal this long before the answer can be read",
    "[[early-done]]": "the first event comes late, and a stream opened before it is told `done`",
    "[[renumber]]": "one event becomes visible late and moves the `seq` of those after it",
    "[[no-keys]]": "events carry no `eventKey`, as older servers send them",
    "[[cut=3]]": "while the run goes on, streams end without `done` after this many events",
    "[[slow-create=2s]]": "the call makes its task at once and answers this much later",
    "[[drop]]": "the call does its work, then the connection closes with no answer",
    "[[drop-before]]": "the connection closes with no answer and nothing was done",
    "[[http=503]]": "the call is refused with this status (400 to 599) and nothing is done; "
    "[[http=429*2]]: only the first two calls with this prompt",
    "[[html=502]]": "as http, but answered with an HTML page, as a gateway does",
}

_WORD = re.compile(r"\[\[([a-z]+(?:-[a-z]+)*)(?:=((?:(?!\]\]).)*))?\]\]")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)?", re.ASCII)
_UNITS = {"ms": 1, "s": 1000, None: 1000, "m": 60_000, "h": 3_600_000}
_LONGEST = 24 * 3_600_000
_REFUSAL = re.compile(r"([45]\d\d)(?:\*(\d{1,3}))?", re.ASCII)
_KNOWN = {re.sub(r"\W*([a-z-]+).*", r"\1", word) for word in STEERING}


class Words:
    """The steering words of one prompt. The accessors raise ValueError for a value that is wrong.

    When a word stands twice the first one counts.
    """

    def __init__(self, prompt: str) -> None:
        self._found: dict[str, str] = {}
        for match in _WORD.finditer(prompt):
            if match[1] in _KNOWN:
                self._found.setdefault(match[1], match[2] or "")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def duration(self, name: str, otherwise: int) -> int:
        """Milliseconds; at most a day."""
        if name not in self._found:
            return otherwise
        match = _DURATION.fullmatch(self._found[name])
        length = int(float(match[1]) * _UNITS[match[2]]) if match else _LONGEST + 1
        if length > _LONGEST:
            raise ValueError(f"[[{name}]] needs a duration such as 500ms, 2s or 1m, at most 24h")
        return length

    def number(self, name: str, otherwise: int, *, bare: int, low: int, high: int) -> int:
        """An integer between `low` and `high`; `bare` when the word has no value."""
        if name not in self._found:
            return otherwise
        text = self._found[name] or str(bare)
        if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
            raise ValueError(f"[[{name}]] needs a number from {low} to {high}")
        return int(text)

    def refusal(self, name: str) -> tuple[int, int | None] | None:
        """(HTTP status, how many times or None for always) of `http` or `html`."""
        if name not in self._found:
            return None
        match = _REFUSAL.fullmatch(self._found[name])
        if match is None:
            raise ValueError(f"[[{name}]] needs an HTTP status from 400 to 599, as in {name}=503")
        return int(match[1]), int(match[2]) if match[2] else None

    def title(self) -> str | None:
        """The value of `title`, its \\uXXXX escapes decoded (pairs of surrogates joined)."""
        if "title" not in self._found:
            return None
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), self._found["title"])
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def plain(prompt: str) -> str:
    """The prompt without its steering words."""
    return _WORD.sub(lambda match: "" if match[1] in _KNOWN else match[0], prompt).strip()


__all__ = ["RUN_MS", "STEERING", "Event", "File", "Plan", "Received"]

RUN_MS = 500
TITLE_LENGTH = 60
NOTICE = (
    "This is a simulation: the local Rebyte service ran no agent and asked no model. "
    "It repeats what it received."
)


class Plan(TypedDict):
    """How one run will go. Durations in milliseconds; kept as JSON beside the prompt."""

    run: int
    outcome: str
    delay: int
    late: int
    early: bool
    events: int
    ask: int
    delegate: str
    message: str
    action: int
    renumber: bool
    keys: bool
    cut: int
    real: NotRequired[bool]  # nothing is simulated: a real agent runs


class File(NamedTuple):
    """An uploaded input file."""

    filename: str
    size: int
    sha256: str


class Received(NamedTuple):
    """What the service was told for one prompt."""

    prompt: str
    executor: str
    model: str
    skills: list[str]
    github_url: str | None
    branch: str | None
    files: list[File]


class Event(NamedTuple):
    """One event of a run: `at` is milliseconds of running time, `late` waits for the answer."""

    at: int
    kind: str
    payload: dict[str, Any]
    late: bool = False


def make_plan(prompt: str, sub_prompt: str) -> Plan:
    """Read the steering words of `prompt`. Raises ValueError for a word with a bad value.

    `sub_prompt` is the id that a delegated sub-prompt will have, if there is one.
    """
    words = Words(prompt)
    outcome = "failed" if "fail" in words else "canceled" if "cancel" in words else "succeeded"
    return {
        "run": words.duration("run", RUN_MS),
        "outcome": outcome,
        "delay": words.duration("slow-create", 0),
        "late": words.duration("late-answer", 0),
        "early": "early-done" in words,
        "events": words.number("events", -1, bare=6, low=0, high=10_000),
        "ask": words.number("ask", 0, bare=1, low=1, high=5),
        "delegate": sub_prompt if "delegate" in words else "",
        "message": f"am_{os.urandom(4).hex()}",
        "action": int.from_bytes(os.urandom(2), "big") + 1,
        "renumber": "renumber" in words,
        "keys": "no-keys" not in words,
        "cut": words.number("cut", 0, bare=1, low=1, high=10_000),
    }


def make_title(prompt: str) -> str:
    """The title that a task gets: the prompt's first line without steering, 60 characters."""
    explicit = Words(prompt).title()
    if explicit is not None:
        return explicit
    line = plain(prompt).split("\n", 1)[0].strip()
    if not line:
        return "Simulated task"
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def make_answer(received: Received, outcome: str) -> str:
    """The text of the answer: a notice that it is a simulation, and what was received."""
    if outcome == "canceled":
        return ""
    lines = [NOTICE, ""]
    if outcome == "failed":
        lines[1:1] = ["", "The run failed, because [[fail]] in the prompt asked for it."]
    lines.append(f"Prompt: {received.prompt.strip().split(chr(10), 1)[0].strip()}")
    lines.append(f"Executor: {received.executor}")
    lines.append(f"Model: {received.model}")
    lines.append(f"Skills: {', '.join(received.skills) or 'none'}")
    if received.github_url is not None:
        lines.append(f"Repository: {received.github_url}, branch {received.branch or 'main'}")
    lines.extend(
        f"File: /code/{file.filename}, {file.size} bytes, SHA-256 {file.sha256}"
        for file in received.files
    )
    return "\n".join(lines)


def with_reply(answer: str, reply: dict[str, Any] | None) -> str:
    """The answer of a run that had asked a question, with what it was told."""
    if reply is None or not answer:
        return answer
    selections = reply.get("answers", [reply])
    told = "; ".join(_told(selection) for selection in selections)
    return f"{answer}\nAnswered: {told}"


def _told(selection: dict[str, Any]) -> str:
    labels = [option["label"] for option in OPTIONS]
    parts = [labels[index] for index in selection["selectedOptions"]]
    return ", ".join([*parts, *filter(None, [selection.get("customResponse")])]) or "nothing"


OPTIONS = [
    {"label": "Go on", "description": "Take the default."},
    {"label": "Stop here", "description": "Answer with what there is."},
]


def question(plan: Plan) -> dict[str, Any]:
    """The payload of `ask_user_question`; the action id is text there, as real servers send it."""
    one = {"question": "How should the simulation go on?", "options": OPTIONS, "multiSelect": False}
    payload = {"actionId": str(plan["action"]), "messageId": plan["message"], **one}
    if plan["ask"] > 1:
        payload["questions"] = [
            {**one, "question": f"Question {number} of {plan['ask']}"}
            for number in range(1, plan["ask"] + 1)
        ]
    return payload


class Speech:
    """Payload field names, which vary by executor (seen in clients: read the alternatives)."""

    def __init__(self, executor: str) -> None:
        other = executor in ("gemini", "codex")
        self.text_kind = "message" if executor == "codex" else "text"
        self.text = "text" if other else "content"
        self.thought = "thinking" if other else "content"
        self.id, self.name, self.input, self.output = (
            ("tool_id", "tool_name", "params", "content")
            if other
            else ("id", "name", "input", "output")
        )

    def use(self, call: str, name: str, given: object, **more: str) -> dict[str, Any]:
        """Payload of a `tool_use`."""
        return {self.id: call, self.name: name, self.input: given, **more}

    def outcome(self, call: str, output: object, **more: str) -> dict[str, Any]:
        """Payload of a `tool_result`."""
        return {self.id: call, self.output: output, **more}


def script(plan: Plan, prompt_id: str, answer: str, executor: str, model: str) -> list[Event]:
    """All events that the run will write, in order. `answer` is its final text."""
    speech = Speech(executor)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("init", {"session_id": prompt_id[:8], "model": model, "cwd": "/code"}),
        ("thinking", {speech.thought: "Reading the prompt."}),
        ("tool_use", speech.use("call_1", "Bash", {"command": "ls /code"})),
        ("tool_result", speech.outcome("call_1", "README.md")),
    ]
    sub = plan["delegate"]
    if sub:
        steps += [
            ("tool_use", speech.use("call_2", "Task", {"prompt": "Help"}, subPromptId=sub)),
            ("tool_result", speech.outcome("call_2", "Helped.", subPromptId=sub)),
        ]
    ending: list[tuple[str, dict[str, Any]]] = []
    if answer:
        result: dict[str, Any] = {"status": plan["outcome"], "duration_ms": plan["run"]}
        result["text" if speech.text == "text" else "result"] = answer
        ending = [(speech.text_kind, {speech.text: answer}), ("result", result)]
    total = plan["events"] if plan["events"] >= 0 else len(steps) + len(ending)
    missing = total - len(steps) - len(ending)
    steps += [
        ("thinking", {speech.thought: f"Step {number} of {missing}."})
        for number in range(1, missing + 1)
    ]
    steps = (steps[: max(0, total - len(ending))] + ending)[-total:] if total else []
    return list(_timed(plan, steps, len(ending)))


def _timed(plan: Plan, steps: list[tuple[str, dict[str, Any]]], endings: int) -> Iterable[Event]:
    run, asked = plan["run"], not plan["ask"]
    first = run * 2 // 5 if plan["early"] else 0
    half = run // 2
    for index, (kind, payload) in enumerate(steps):
        at = first + (run - first) * index // len(steps)
        if not asked and at > half:
            asked = True
            yield Event(half, "ask_user_question", question(plan))
        if plan["renumber"] and kind == "tool_result":
            at = run * 95 // 100
        yield Event(at, kind, payload, late=index >= len(steps) - endings and plan["late"] > 0)
    if not asked:
        yield Event(half, "ask_user_question", question(plan))


def sub_script(executor: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a delegated sub-prompt; the last comes after its result in the parent."""
    speech = Speech(executor)
    return [
        ("thinking", {speech.thought: "Helping."}),
        ("tool_use", speech.use("sub_1", "Read", {"path": "/code/README.md"})),
        ("tool_result", speech.outcome("sub_1", "# README")),
        (speech.text_kind, {speech.text: "Helped. This is a simulation."}),
    ]
