"""Create a task, or send a follow-up, at most once: see `once.operation`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, Next, Term
from ..once.operation import Operation
from ..once.request_kinds import PromptRequest, TaskRequest
from ..once.search import PACE, Pace
from ..once.server_clock import LIFE
from ..system.deadline import NO_LIMIT, Deadline

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History
    from ..history.rows import Intent


def create(
    client: RebyteClient,
    history: History,
    body: Mapping[str, Any],
    *,
    prompt: str,
    key: str | None = None,
    labels: Mapping[str, str] | None = None,
    files: Sequence[str] | None = None,
    base: str | None = None,
    on_created: Callable[[], None] = lambda: None,
    on_attempt: Callable[[str, bool], None] = lambda _name, _is_new: None,
    note: Callable[[str], None],
    warn: Callable[[str], None] | None = None,
    deadline: Deadline = NO_LIMIT,
    sleep: Callable[[float], None] = time.sleep,
    pace: Pace = PACE,
) -> dict[str, Any]:
    """POST /tasks with `body`, at most once, and return what was created.

    The answer has `id`, `url`, `status`, `createdAt`, and `workspaceId` if it is known: a task
    that was found after its answer was lost has none. The history keeps `labels`, `files`
    (paths that were uploaded) and `base` (the commit that it starts from) with the task.
    `on_created` is called once it is certain that a task with this very prompt exists, also if the
    call is interrupted then.
    `on_attempt` is called with the name of the attempt that this call makes, and True, before its
    request is sent; and with that of an earlier one, and False, if what that made is returned.
    `note` is called with progress for a person to read, and `warn` (`note` if it is None) with
    what a person must not miss. `pace` is how a lost task is searched for. The request and the
    search end by `deadline`, except that one scan of the list always follows a lost request.

    With `key`, no two calls create two tasks, in whatever process and however they end. A later
    call returns the first task; it waits while another process is at work on the key. If an
    earlier outcome is not known it searches again, and sends again only when that attempt is over
    15 minutes old and certainly made no task. The key decides, not the prompt: a different
    prompt under the same key returns the first task, with a warning.

    Without a key, an attempt with the same body that was cut off in the last 15 minutes (a crash,
    an interrupt) is searched for first, and its task returned if it is certain.

    Raises OutcomeUnknown with the candidates if it cannot be known what was created, Interrupted
    with a hint that says whether a task exists, and what `create_from` raises if the request was
    refused or never sent; the key can then be used again.
    """
    request = TaskRequest(client, history, body, prompt, labels, files, base, skew=pace.skew)

    def repeated(earlier: Intent) -> dict[str, Any]:
        task = _task_of(history, earlier)
        tell_repeated(history, str(earlier.key), str(task["id"]), note=note, warn=warn or note)
        return task

    if key is not None and not key.strip():
        raise BadUsage(Term("--once: KEY", "`once`") + " is empty")
    operation = Operation(
        request,
        note,
        deadline,
        sleep,
        pace=pace,
        repeated=repeated,
        on_created=on_created,
        on_attempt=on_attempt,
        warn=warn,
    )
    return operation.run(None if key is None else name_of_key(history, key))


def follow_up(
    client: RebyteClient,
    history: History,
    task_id: str,
    body: Mapping[str, Any],
    *,
    key: str | None = None,
    send_again_after: timedelta = LIFE,
    on_created: Callable[[], None] = lambda: None,
    note: Callable[[str], None],
    deadline: Deadline = NO_LIMIT,
    sleep: Callable[[float], None] = time.sleep,
    pace: Pace = PACE,
) -> dict[str, Any]:
    """POST /tasks/{id}/prompts with `body`, once, and return its answer: `promptId`.

    If the answer is lost, the prompt is searched for in the task's `content`: one prompt with
    this text, submitted since the call began, is returned. Otherwise as `create`, with a key or
    without. What a key has sent is sent again only `send_again_after` the first attempt.
    """
    request = PromptRequest(client, history, task_id, body, skew=pace.skew)
    operation = Operation(
        request,
        note,
        deadline,
        sleep,
        pace=pace,
        repeated=lambda earlier: {"promptId": str(earlier.task_id)},
        on_created=on_created,
        send_again_after=send_again_after,
    )
    return operation.run(key)


def name_of_key(history: History, key: str) -> str:
    """What a key of `--once` is called in the history and in messages.

    That is the key itself, unless it holds a secret, such as a pasted API key: then its beginning
    and a digest. A key that an earlier version kept as it is keeps its name.
    """
    import hashlib

    from ..system.redaction import redact_keys

    shown = redact_keys(key)
    if shown == key or history.intents.of(key) is not None:
        return key
    return f"{shown} {hashlib.sha256(key.encode()).hexdigest()[:16]}"


def created_before(history: History, key: str) -> dict[str, Any] | None:
    """The task that a key has created already, as it was created; None if there is none.

    For callers with something costly to do before `create`, such as uploads.
    """
    earlier = history.intents.of(key)
    return _task_of(history, earlier) if earlier is not None and earlier.state == "done" else None


def tell_repeated(
    history: History,
    key: str,
    task_id: str,
    *,
    note: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Say that a key has created a task before; warn if that task was deleted."""
    said, is_deleted = f"key {key!r} already created task {task_id}", history.is_deleted(task_id)
    if is_deleted:
        warn(f"{said}, which was deleted; " + how_to_forget(key))
    else:
        note(said[0].upper() + said[1:])


def how_to_forget(key: str) -> str:
    """The command that lets a key create another task, as the end of a sentence."""
    import shlex

    return (
        Next("create", "--once", f"{shlex.quote(key)}", "--forget") + " lets the key create another"
    )


def _task_of(history: History, intent: Intent) -> dict[str, Any]:
    return dict(intent.task or history.task(str(intent.task_id)) or {"id": intent.task_id})
