"""What tasks used of their models, summed up for people and for `rebyte usage`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..api.token_usage import TokenUsage, described, total

if TYPE_CHECKING:
    from ..history.history import History
    from .logs import Step


def summary(several: Iterable[TokenUsage]) -> str:
    """What tasks used together: `Used 1,234 tokens, $0.02`; empty if nothing is known.

    The cost is what is known of it, with the number of tasks that it leaves out.
    """
    used = list(several)
    if not used:
        return ""
    cost, unpriced = _known_cost(used), sum(one.cost is None for one in used)
    words = f"Used {described(total(used)._replace(cost=cost))}"
    if cost is not None and unpriced:
        words += f" (without {unpriced} of {len(used)} tasks, whose price is not known)"
    return words


def of_documents(documents: Iterable[Any]) -> list[TokenUsage]:
    """What the `usage` documents of tasks say."""
    return [usage for usage in map(TokenUsage.of, documents) if usage is not None]


def sums(tasks: Iterable[Mapping[str, Any]], group: str | None) -> list[dict[str, Any]]:
    """Sums of tasks as `UsedTokens.every` has them, each as a record: `usage-sum`.

    `group` is `executor`, `model`, `repository`, `day` (in the zone of this machine) or
    `label:NAME`; without one, there is one sum, or none if there are no tasks. Days come in order,
    others with the largest sum first.
    """
    parts: dict[str | None, list[TokenUsage]] = {}
    for task in tasks:
        parts.setdefault(_name(task, group), []).append(task["usage"])
    records = [
        {
            "name": name,
            "tasks": len(used),
            "requests": (whole := total(used)).requests,
            "inputTokens": whole.input,
            "cachedInputTokens": whole.cached,
            "outputTokens": whole.output,
            "tokens": whole.tokens,
            "costUsd": _known_cost(used),
            "unpriced": sum(one.cost is None for one in used),
            **({"uncountedRequests": whole.uncounted} if whole.uncounted else {}),
        }
        for name, used in parts.items()
    ]
    if group == "day":
        return sorted(records, key=lambda record: str(record["name"] or ""))
    return sorted(records, key=lambda record: -int(record["tokens"] or 0))


def _name(task: Mapping[str, Any], group: str | None) -> str | None:
    if group is None:
        return None
    kind, _, label = group.partition(":")
    if kind == "label":
        found = task["labels"].get(label)
    elif kind == "day":
        with suppress(ValueError):
            return datetime.fromisoformat(str(task["createdAt"])).astimezone().date().isoformat()
        return None
    else:
        found = task[{"repository": "githubUrl"}.get(kind, kind)]
    return None if found is None else str(found)


def _known_cost(used: Iterable[TokenUsage]) -> float | None:
    known = [one for one in used if one.cost is not None]
    return total(known).document["costUsd"] if known else None


def noted(steps: Iterable[Step], history: History, task_id: str) -> Iterator[Step]:
    """The steps of a transcript; the history learns what the results among them say was used.

    Not every service tells it elsewhere.
    """
    for step in steps:
        for event in step.events:
            usage = TokenUsage.of_result(event.payload) if event.kind == "result" else None
            if usage is not None:
                prompt = event.prompt_id or (step.prompt.id if step.prompt else "")
                history.used.note_prompt(task_id, prompt, usage)
        yield step
