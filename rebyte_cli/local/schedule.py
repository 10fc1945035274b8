"""What is the case at a given moment: a pure function of recorded times and the clock.

The derivation rules are the seed document's: a task is `running` while any prompt is pending or
running, otherwise its latest prompt decides. Prompts of one task run one after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import agent

if TYPE_CHECKING:
    from .agents.runs import Run

NEVER = 1 << 62
TASK_WORDS = {"succeeded": "completed", "failed": "failed", "canceled": "canceled"}
SUB_RUN_LAG_MS = 200


class Prompt(NamedTuple):
    """One prompt as recorded; times in milliseconds, None where nothing happened."""

    id: str
    task: str
    text: str
    executor: str
    model: str
    submitted: int
    plan: agent.Plan
    answer: str
    canceled: int | None
    replied: int | None
    reply: dict[str, Any] | None
    run: Run | None = None  # of a real agent; without one the prompt is simulated


class Span(NamedTuple):
    """When a prompt runs. `end` is NEVER while a question has no answer."""

    start: int
    end: int
    outcome: str

    def status(self, now: int) -> str:
        """Prompt status at `now`, in the words of the wire."""
        if now >= self.end:
            return self.outcome
        return "running" if now >= self.start else "pending"


def spans(prompts: list[Prompt]) -> list[Span]:
    """The span of each prompt of one task, oldest first; prompts queue one behind the other."""
    free, result = 0, []
    for prompt in prompts:
        if prompt.run is not None:
            result.append(_recorded(prompt.run))
            free = result[-1].end
            continue
        plan = prompt.plan
        start = max(prompt.submitted + plan["delay"], free)
        end, outcome = start + plan["run"], plan["outcome"]
        if plan["ask"]:
            rest = plan["run"] - plan["run"] // 2
            end = NEVER if prompt.replied is None else prompt.replied + rest
        if prompt.canceled is not None and prompt.canceled < end:
            start, end, outcome = min(start, prompt.canceled), prompt.canceled, "canceled"
        result.append(Span(start, end, outcome))
        free = end
    return result


def _recorded(run: Run) -> Span:
    """The span of a real run: nothing of it follows from the clock."""
    end = NEVER if run.ended is None else run.ended
    start = end if run.started is None else run.started
    return Span(start, end, run.outcome or "")


def parked_at(prompt: Prompt, span: Span) -> int:
    """When the run asks its question, NEVER if it asks none."""
    return span.start + prompt.plan["run"] // 2 if prompt.plan["ask"] else NEVER


def is_parked(prompt: Prompt, span: Span, now: int) -> bool:
    """Whether a question of this prompt waits for its answer at `now`."""
    return prompt.replied is None and parked_at(prompt, span) <= now < span.end


def task_status(times: list[Span], now: int) -> str:
    """`running`, `completed`, `failed` or `canceled`."""
    if any(now < span.end for span in times):
        return "running"
    return TASK_WORDS[times[-1].outcome]


def completed_at(times: list[Span], now: int) -> int | None:
    """When the task reached its terminal status; None while it is running."""
    end = max(span.end for span in times)
    return end if now >= end else None


def readable_answer(prompt: Prompt, span: Span, now: int) -> str | None:
    """The answer's text, or None as long as it cannot be read (or if there is none)."""
    if span.outcome == "canceled" or now < span.end + prompt.plan["late"]:
        return None
    if prompt.run is not None:
        return prompt.run.answer
    return agent.with_reply(prompt.answer, prompt.reply)


class Written(NamedTuple):
    """One event and the moment at which it becomes visible; `order` is its stable place."""

    order: int
    at: int
    kind: str
    payload: dict[str, Any]


def writings(prompt: Prompt, span: Span) -> list[Written]:
    """Every event that this prompt writes or will write, in logical order."""
    answer = agent.with_reply(prompt.answer, prompt.reply)
    events = agent.script(prompt.plan, prompt.id, answer, prompt.executor, prompt.model)
    result = []
    for order, event in enumerate(events):
        at = _wall(prompt, span.start, event.at)
        if event.late:
            at = span.end + prompt.plan["late"]
        stopped = span.outcome == "canceled" and prompt.plan["outcome"] != "canceled"
        if at < NEVER and (at < span.end or not stopped):
            result.append(Written(order, at, event.kind, event.payload))
    return result


def sub_writings(prompt: Prompt, span: Span) -> list[Written]:
    """The events of the delegated sub-prompt: from its `tool_use` to just after its result."""
    sub = prompt.plan["delegate"]
    ends = [
        written.at for written in writings(prompt, span)
        if written.payload.get("subPromptId") == sub
    ]  # fmt: skip
    if not ends:
        return []
    events = agent.sub_script(prompt.executor)
    first, length = ends[0], max(ends[-1] - ends[0], 1)
    last = len(events) - 1
    return [
        Written(order, first + length * order // last + SUB_RUN_LAG_MS * (order == last), *event)
        for order, event in enumerate(events)
    ]


def _wall(prompt: Prompt, start: int, at: int) -> int:
    """The moment at which `at` milliseconds of running time have passed since `start`."""
    half = prompt.plan["run"] // 2
    if not prompt.plan["ask"] or at <= half:
        return start + at
    return NEVER if prompt.replied is None else prompt.replied + at - half
