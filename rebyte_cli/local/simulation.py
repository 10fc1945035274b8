"""The simulated agent: what a run will do, decided when its prompt arrives.

No agent runs and no model is asked. A plan is made once and stored; the run's progress follows
from the plan and the clock.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

from .http import stamp
from .run_interface import NEVER, PendingQuestion, Run, RunUsage, ScheduledEvent, prompt_of
from .simulated_changes import parse
from .steering import Words, plain
from .store import Store

RUN_MS = 500
SUB_RUN_LAG_MS = 200
TITLE_LENGTH = 60
NOTICE = (
    "This is a simulation: the local Rebyte service ran no agent and asked no model. "
    "It repeats what it received."
)


class SimulationPlan(TypedDict):
    """How one run will go. Durations in milliseconds; kept as JSON beside the prompt.

    `run` is how long it takes, `delay` how long after its submission it starts, `late` how long
    after its end the answer becomes readable; `message` and `action` identify its question.
    `writes` are the files that it leaves, and `base` what they are changes of (see
    `simulated_changes`).
    """

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
    usage: NotRequired[tuple[int, int, float | None] | None]  # tokens read, written, dollars
    limit: NotRequired[int]  # how long it waits for a usage limit, after a quarter of the run
    ended_by: NotRequired[str]
    writes: NotRequired[list[tuple[str, str]]]
    base: NotRequired[list[str] | None]


class InputFile(NamedTuple):
    """An uploaded input file."""

    filename: str
    size: int
    sha256: str


class PlannedEvent(NamedTuple):
    """One event to come: `at` is milliseconds of running time, `late` waits for the answer."""

    at: int
    kind: str
    payload: dict[str, Any]
    late: bool = False


def make_plan(prompt: str, sub_prompt: str) -> SimulationPlan:
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
        "usage": words.usage(),
        "limit": words.duration("limit", 0),
        "writes": list(map(parse, words.writes)),
    }


def limit(plan: SimulationPlan, answer: str, used: int, most: float | None) -> str:
    """Have a run end for its budget of `most` tokens if it uses them up; its answer then.

    Its task has used so many before. A run whose task has used them up does not begin.
    """
    read, written, _ = plan.get("usage") or (0, 0, None)
    if most is None or used + read + written < most:
        return answer
    if used >= most:
        plan["usage"] = None
    plan["outcome"], plan["ended_by"] = "failed", "budget"
    return f"The run was stopped: the budget of {most:,.0f} tokens is used up"


def at_limit(plan: SimulationPlan, answer: str, on_limit: str) -> str:
    """Have a run that meets a usage limit end there (`stop`), or continue at once; its answer."""
    if not plan.get("limit") or on_limit == "wait":
        return answer
    plan["limit"] = 0
    if on_limit == "stop":
        plan["outcome"], plan["ended_by"], plan["run"] = "failed", "limit", plan["run"] // 4
        return "The run was stopped: the simulated usage limit is reached"
    return answer


def make_title(prompt: str) -> str:
    """The title that a task gets: the prompt's first line without steering, 60 characters."""
    explicit = Words(prompt).text("title")
    if explicit is not None:
        return explicit
    line = plain(prompt).split("\n", 1)[0].strip()
    if not line:
        return "Simulated task"
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def make_answer(
    prompt: str,
    outcome: str,
    worker: tuple[str, str],
    skills: Iterable[str],
    repository: tuple[str | None, str | None],
    files: Iterable[InputFile],
) -> str:
    """The text of the answer: a notice that it is a simulation, and what was received.

    That is the prompt, its `worker` (executor, model), and with what it was sent: `repository` is
    an address and a branch. A failed run says why before that. A prompt may say what the answer is
    instead.
    """
    if outcome == "canceled":
        return ""
    said = Words(prompt).text("say")
    if said is not None and outcome != "failed":
        return said
    lines = [NOTICE, ""]
    if outcome == "failed":
        lines[:0] = ["The prompt contains [[fail]].", ""]
    lines.append(f"Prompt: {prompt.strip().split(chr(10), 1)[0].strip()}")
    executor, model = worker
    lines.append(f"Executor: {executor}")
    lines.append(f"Model: {model}")
    lines.append(f"Skills: {', '.join(skills) or 'none'}")
    address, branch = repository
    if address is not None:
        lines.append(f"Repository: {address}, branch {branch or 'main'}")
    lines.extend(
        f"File: /code/{file.filename}, {file.size} bytes, SHA-256 {file.sha256}" for file in files
    )
    return "\n".join(lines)


def with_reply(answer: str, reply: dict[str, Any] | None) -> str:
    """The answer of a run that had asked a question, with the answer it got."""
    if reply is None or not answer:
        return answer
    selections = reply.get("answers", [reply])
    chosen = "; ".join(_selected(selection) for selection in selections)
    return f"{answer}\nAnswered: {chosen}"


def _selected(selection: dict[str, Any]) -> str:
    labels = [option["label"] for option in OPTIONS]
    parts = [labels[index] for index in selection["selectedOptions"]]
    return ", ".join([*parts, *filter(None, [selection.get("customResponse")])]) or "nothing"


OPTIONS = [
    {"label": "Go on", "description": "Take the default."},
    {"label": "Stop here", "description": "Answer with what there is."},
]


def question(plan: SimulationPlan) -> dict[str, Any]:
    """The payload of `ask_user_question`; the action id is text there, as real servers send it."""
    one = {
        "question": "How should the simulation continue?",
        "options": OPTIONS,
        "multiSelect": False,
    }
    payload = {"actionId": str(plan["action"]), "messageId": plan["message"], **one}
    if plan["ask"] > 1:
        payload["questions"] = [
            {**one, "question": f"Question {number} of {plan['ask']}"}
            for number in range(1, plan["ask"] + 1)
        ]
    return payload


class Dialect:
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


def script(
    plan: SimulationPlan, prompt_id: str, answer: str, executor: str, model: str
) -> list[PlannedEvent]:
    """All events that the run will write, in order. `answer` is its final text."""
    dialect = Dialect(executor)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("init", {"session_id": prompt_id[:8], "model": model, "cwd": "/code"}),
        ("thinking", {dialect.thought: "Reading the prompt."}),
        ("tool_use", dialect.use("call_1", "Bash", {"command": "ls /code"})),
        ("tool_result", dialect.outcome("call_1", "README.md")),
    ]
    sub = plan["delegate"]
    if sub:
        steps += [
            ("tool_use", dialect.use("call_2", "Task", {"prompt": "Help"}, subPromptId=sub)),
            ("tool_result", dialect.outcome("call_2", "Helped.", subPromptId=sub)),
        ]
    ending: list[tuple[str, dict[str, Any]]] = []
    if answer:
        result: dict[str, Any] = {"status": plan["outcome"], "duration_ms": plan["run"]}
        result["text" if dialect.text == "text" else "result"] = answer
        used = _used(plan)
        if used is not None:
            counts = used._asdict()
            cost = counts.pop("cost_usd")
            result |= {"usage": counts} if cost is None else {"usage": counts, "cost_usd": cost}
        ending = [(dialect.text_kind, {dialect.text: answer}), ("result", result)]
    total = plan["events"] if plan["events"] >= 0 else len(steps) + len(ending)
    missing = total - len(steps) - len(ending)
    steps += [
        ("thinking", {dialect.thought: f"Step {number} of {missing}."})
        for number in range(1, missing + 1)
    ]
    steps = (steps[: max(0, total - len(ending))] + ending)[-total:] if total else []
    return list(_timed(plan, steps, len(ending)))


def _used(plan: SimulationPlan) -> RunUsage | None:
    read, written, cost = plan.get("usage") or (None, 0, None)
    return None if read is None else RunUsage(1, read, 0, written, cost)


def _timed(
    plan: SimulationPlan, steps: list[tuple[str, dict[str, Any]]], endings: int
) -> Iterator[PlannedEvent]:
    run, asked = plan["run"], not plan["ask"]
    first = run * 2 // 5 if plan["early"] else 0
    half = run // 2
    limited = not plan.get("limit")
    for index, (kind, payload) in enumerate(steps):
        at = first + (run - first) * index // len(steps)
        if not limited and not run // 4 >= at < run:
            limited = True
            yield PlannedEvent(
                run // 4, "limited", {"message": "the simulated usage limit is reached"}
            )
        if not asked and at > half:
            asked = True
            yield PlannedEvent(half, "ask_user_question", question(plan))
        if plan["renumber"] and kind == "tool_result":
            at = run * 95 // 100
        yield PlannedEvent(
            at, kind, payload, late=index >= len(steps) - endings and plan["late"] > 0
        )
    if not asked:
        yield PlannedEvent(half, "ask_user_question", question(plan))


def sub_script(executor: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a delegated sub-prompt; the last comes after its result in the parent."""
    dialect = Dialect(executor)
    return [
        ("thinking", {dialect.thought: "Helping."}),
        ("tool_use", dialect.use("sub_1", "Read", {"path": "/code/README.md"})),
        ("tool_result", dialect.outcome("sub_1", "# README")),
        (dialect.text_kind, {dialect.text: "Helped. This is a simulation."}),
    ]


class SimulatedRun(Run):
    """A run that follows from its plan and the clock. `row` is one of the table `prompts`.

    `free` is when the prompt before it ends, since prompts of a task run one after another.
    """

    def __init__(self, row: sqlite3.Row, free: int) -> None:
        self.prompt = prompt_of(row)
        self._plan = plan = cast(SimulationPlan, json.loads(row["plan"]))
        self._replied: int | None = row["replied"]
        reply = None if row["reply"] is None else json.loads(row["reply"])
        self._answer = with_reply(row["answer"], reply)
        self.has_event_keys = plan["keys"]
        self.writes, self.base = plan.get("writes") or [], plan.get("base")
        self.cut_after = plan["cut"]
        self.is_done_early = plan["early"]
        self.start = self._begins = max(self.prompt.submitted + plan["delay"], free)
        self.end, self.outcome = self._moment(plan["run"]), plan["outcome"]
        if plan["ask"]:
            rest = plan["run"] - plan["run"] // 2
            self.end = NEVER if self._replied is None else self._replied + rest
        canceled: int | None = row["canceled"]
        if canceled is not None and canceled < self.end:
            self.start, self.end = min(self.start, canceled), canceled
            self.outcome = "canceled"

    def answer(self, now: int) -> str | None:
        """The answer's text, as late as the plan says."""
        if self.outcome == "canceled" or now < self.end + self._plan["late"]:
            return None
        return self._answer

    def events(self, _db: sqlite3.Connection, first: int = 0) -> list[ScheduledEvent]:
        """Every event that this run writes or will write, from place `first` on."""
        steps = script(
            self._plan, self.prompt.id, self._answer, self.prompt.executor, self.prompt.model
        )
        stopped = self.outcome == "canceled" and self._plan["outcome"] != "canceled"
        result = []
        for order, step in enumerate(steps[first:], first):
            at = self.end + self._plan["late"] if step.late else self._moment(step.at)
            payload = step.payload
            if step.kind == "limited":
                at, resumes = self._limited
                payload = {"resumesAt": stamp(resumes), **payload}
            if at < NEVER and (at < self.end or not stopped):
                result.append(ScheduledEvent(order, at, step.kind, payload))
        return result

    def usage(self, now: int) -> RunUsage | None:
        """What the prompt says, from the moment that the run begins; nothing if it never did."""
        return _used(self._plan) if self._begins <= min(now, self.end) else None

    def ended_by(self, db: sqlite3.Connection) -> str | None:
        """What its plan says, if it ended as planned."""
        return self._plan.get("ended_by") if self.outcome == "failed" else None

    def resumes_at(self, store: Store, now: int) -> int | None:
        """When the limit is reset that it meets after a quarter of the run."""
        limited, resumes = self._limited
        return resumes if limited <= now < min(resumes, self.end) else None

    @property
    def _limited(self) -> tuple[int, int]:
        """When it meets the usage limit of its plan, and when that is reset."""
        limited = self.start + self._plan["run"] // 4
        return limited, limited + self._plan.get("limit", 0)

    def cancel(self, db: sqlite3.Connection, now: int) -> None:
        """Record that the run was canceled."""
        db.execute("UPDATE prompts SET canceled = ? WHERE id = ?", (now, self.prompt.id))

    def sub_events(self, db: sqlite3.Connection, sub_prompt: str) -> list[ScheduledEvent] | None:
        """The events of the sub-prompt: from its `tool_use` to just after its result."""
        if self._plan["delegate"] != sub_prompt:
            return None
        moments = [
            event.at for event in self.events(db) if event.payload.get("subPromptId") == sub_prompt
        ]
        if not moments:
            return []
        steps = sub_script(self.prompt.executor)
        first, length = moments[0], max(moments[-1] - moments[0], 1)
        last = len(steps) - 1
        return [
            ScheduledEvent(
                order, first + length * order // last + SUB_RUN_LAG_MS * (order == last), *step
            )
            for order, step in enumerate(steps)
        ]

    def question(self, now: int) -> PendingQuestion | None:
        """The question that the run asks halfway, until it has its answer."""
        plan = self._plan
        asked_at = self._moment(plan["run"] // 2)
        if not plan["ask"] or self._replied is not None or not asked_at <= now < self.end:
            return None
        return PendingQuestion(plan["message"], plan["action"], plan["ask"])

    def reply(self, db: sqlite3.Connection, now: int, reply: dict[str, Any]) -> None:
        """Record the answer to the question; the run continues from now on."""
        db.execute(
            "UPDATE prompts SET replied = ?, reply = ? WHERE id = ?",
            (now, json.dumps(reply), self.prompt.id),
        )

    def _moment(self, at: int) -> int:
        """When `at` milliseconds of running time have passed; what it waits for does not count."""
        half = self._plan["run"] // 2
        if not self._plan["ask"] or at <= half:
            is_later = not self._plan["run"] // 4 >= at < self._plan["run"]
            return self.start + at + (self._plan.get("limit", 0) if is_later else 0)
        return NEVER if self._replied is None else self._replied + at - half
