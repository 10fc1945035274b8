"""The two requests that create something: what is sent, and how the result is recognised.

Both have the same members; `operation.Operation` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..api.views import ContentView
from ..errors import (
    AGAIN,
    APIError,
    KeyRejected,
    Next,
    OutcomeUnknown,
    Redirected,
    ResourceNotFound,
    Term,
    Unsent,
)
from ..history.rows import NewTask, body_digest_of, digest_of
from .judge import Owner, Place, Row, Seen, Verdict, any_of, judge, share
from .ledger import SentFromHere
from .scan import LostRequest, Scanner, current_baseline
from .server_clock import SKEW, Baseline, ServerClock

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History
    from ..system.deadline import Deadline

BASELINE = 10.0  # seconds in which the service may tell its newest task
RECENT = 3  # tasks from here that an up-to-date list must show
_CREATED = ("id", "workspaceId", "url", "status", "createdAt")
_CANDIDATE = ("id", "url", "createdAt", "title")


@contextmanager
def _without_answer() -> Iterator[None]:
    """Go on without a baseline, unless it is certain that the request cannot be sent either."""
    try:
        yield
    except (Unsent, KeyRejected, Redirected):
        raise
    except APIError:
        pass


class TaskRequest:
    """POST /tasks, and how its result is recognised: in the list, by the prompt in its content.

    `digest` identifies the request, `prompt_digest` its prompt, `body_digest` all of its fields;
    `target` is the task that it is for, None for a new one. `server_clock` tells when, and
    `history` what else was sent from here. `send` sends it once, with `timeout` in seconds; its
    answer names what was created.
    """

    target = None

    def __init__(
        self,
        client: RebyteClient,
        history: History,
        body: Mapping[str, Any],
        prompt: str,
        labels: Mapping[str, str] | None = None,
        files: Sequence[str] | None = None,
        base: str | None = None,
        *,
        skew: float = SKEW,
    ) -> None:
        """`labels`, `files` and `base` are for the history; see `history.rows.NewTask`.

        `skew` is as in `Pace`.
        """
        self.client = client
        self.history = history
        self._new = NewTask({}, prompt, body, labels or {}, files, base=base)
        self.server_clock = ServerClock(client, skew)
        self.rivals = SentFromHere(history, self.server_clock, None)
        self.scan = Scanner(
            client,
            self.server_clock,
            owned=lambda ids, _digest: (history.knows(ids), set()),
            expected=lambda: (str(task["id"]) for task in history.tasks(RECENT)),
            is_contested=self.rivals.contest,
        ).scan
        self.body = body
        self.prompt = prompt
        self.digest = self.prompt_digest = digest_of(prompt)
        self.body_digest = body_digest_of(body)
        self.send: Callable[..., Mapping[str, Any]] = partial(client.create_from, body)

    def baseline(self, limit: Deadline) -> Baseline | None:
        """Where the list of tasks stands before this request, which costs a request.

        None if the service does not tell: what is lost is then never sent again. Raises Unsent,
        KeyRejected and Redirected.
        """
        with _without_answer():
            return current_baseline(self.client, timeout=limit.within(BASELINE).for_call())
        return None

    def answer_from(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the list in the shape of a create's answer. Its status has to be fetched."""
        task = {"status": "running", **row}
        with suppress(APIError):  # the id is what matters, and it is known
            task.update(self.client.get_task(row["id"], timeout=10))
        return {name: task[name] for name in _CREATED if task.get(name) is not None}

    def remember(self, answer: Mapping[str, Any]) -> str:
        """Add the task to the history; returns its id."""
        self.history.add_tasks([self._new._replace(created=answer)])
        return str(answer["id"])

    def describe(self, answer: Mapping[str, Any]) -> str:
        """What was created, for a person."""
        link = f" ({answer['url']})" if answer.get("url") else ""
        return f"task {answer['id']}{link}"

    def stop_hint(self, answer: Mapping[str, Any]) -> str:
        """How to stop what was created, as the end of a sentence."""
        return "; stop it with " + Next("cancel", f"{answer['id']}")

    def unknown(
        self, candidates: list[Row], key: str | None, failure: str | None = None
    ) -> OutcomeUnknown:
        """The error if it cannot be known what was created."""
        shown = [{name: row[name] for name in _CANDIDATE if name in row} for row in candidates]
        message = "the create request was sent, but its outcome is unknown"
        message += _guess(any_of([row["id"] for row in shown]), failure)
        if key is None:
            hint = (
                "See "
                + Next("list")
                + "; "
                + Term("`--once KEY`", "`once`")
                + " makes a create safe to repeat"
            )
        else:
            hint = (
                AGAIN + ": it looks for the task first, and sends the request again only if that"
                " certainly made none, 15 minutes after the first attempt; "
                + Term("--forget", "`create --once KEY --forget` in a shell")
                + " drops the key instead"
            )
        return OutcomeUnknown(message, candidates=shown, hint=hint)


def _guess(could_be: str, failure: str | None) -> str:
    """What is known of a lost request, as the end of a sentence."""
    if could_be:
        return f"; it may be {could_be}"
    return f"; looking for it failed: {failure}" if failure else ""


class PromptRequest:
    """POST /tasks/{id}/prompts, and how its result is recognised: in the task's content.

    The members are those of `TaskRequest`.
    """

    def __init__(
        self,
        client: RebyteClient,
        history: History,
        task_id: str,
        body: Mapping[str, Any],
        *,
        skew: float = SKEW,
    ) -> None:
        self.client = client
        self.history = history
        self.server_clock = ServerClock(client, skew)
        self.target = task_id
        self.rivals = SentFromHere(history, self.server_clock, task_id)
        self.body = body
        self.prompt = str(body.get("prompt", ""))
        self.prompt_digest = digest_of(self.prompt)
        self.digest = digest_of(f"{task_id}\n{self.prompt}")
        self.body_digest = body_digest_of(body)
        self.send: Callable[..., Mapping[str, Any]] = partial(client.follow_up_from, task_id, body)

    def baseline(self, limit: Deadline) -> Baseline | None:
        """Where the prompts of the task stand before this request; as that of a `TaskRequest`."""
        with _without_answer():
            timeout = limit.within(BASELINE).for_call()
            task = ContentView(self.client.get_task(self.target, timeout=timeout))
            if task.prompts and len(task.prompts) == task.prompt_count:
                return Baseline(task.prompts[-1].id, task.prompt_count)
        return None

    def scan(self, lost: Sequence[LostRequest], limit: Deadline) -> list[Verdict]:
        """Look once for what the request created."""
        try:
            content: Mapping[str, Any] = self.client.task_content(
                self.target, timeout=limit.for_call()
            )
        except ResourceNotFound:  # no content here; the task at least names its prompts
            content = self.client.get_task(self.target, timeout=limit.for_call())
        (request,) = lost
        verdict = self._judge(ContentView(content), request)
        return share([verdict], (), is_contested=bool(verdict.same) and self.rivals.contest())

    def _judge(self, content: ContentView, request: LostRequest) -> Verdict:
        """Judge every prompt of the task but the first, which created it. The oldest is first."""
        before, ids = request.baseline, [prompt.id for prompt in content.prompts]
        newest = before.newest if before is not None else None
        last = ids.index(newest) if newest in ids else -1  # that was there before
        known, seen = self.history.knows(ids), list[Seen]()
        for at, prompt in enumerate(content.prompts[1:], start=1):
            place: Place = "unknown" if before is None else "above" if at > last else "below"
            owner: Owner = "another" if prompt.id in known else "none"
            is_timely = self.server_clock.is_timely(prompt.submitted_at, request.sent)
            shown = digest_of(prompt.text) if prompt.text.strip() else None
            seen.append(Seen(prompt.raw, place, owner, is_timely, shown=shown))
        is_whole = len({*ids}) == content.prompt_count > 0 and "" not in ids
        is_same = content.id in ("", self.target)
        return judge(
            request.digest,
            seen,
            is_complete=is_whole and is_same and {*request.candidates} <= {*ids},
            is_counted=before is not None and last + 1 == before.total,
        )

    def answer_from(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A prompt of the task in the shape of a follow-up's answer."""
        return {"promptId": row["id"]}

    def remember(self, answer: Mapping[str, Any]) -> str:
        """Note in the history that the task runs again; returns the prompt's id."""
        self.history.update_tasks([{"id": self.target, "status": "running", "completedAt": None}])
        return str(answer["promptId"])

    def describe(self, answer: Mapping[str, Any]) -> str:
        """What was created, for a person."""
        return f"prompt {answer['promptId']} of task {self.target}"

    def stop_hint(self, answer: Mapping[str, Any]) -> str:
        """Nothing: a single prompt cannot be stopped."""
        return ""

    def unknown(
        self, candidates: list[Row], key: str | None, failure: str | None = None
    ) -> OutcomeUnknown:
        """The error if it cannot be known whether the prompt arrived."""
        message = f"the prompt was sent to task {self.target}, but its outcome is unknown"
        shown = [
            {"id": self.target, "promptId": row["id"], "createdAt": row.get("submittedAt")}
            for row in candidates
        ]
        could_be = " or ".join(row["promptId"] for row in shown)
        message += _guess(could_be and f"prompt {could_be}", failure)
        hint = Next("logs", self.target) + " shows what the task was told"
        return OutcomeUnknown(message, candidates=shown, hint=hint)
