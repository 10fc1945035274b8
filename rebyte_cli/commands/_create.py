"""From a prompt to its task: what the commands that create one share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import click

from ..app import App
from ..deadline import Deadline
from ..errors import (
    APIError,
    BadUsage,
    KeyRejected,
    NetworkError,
    NotFound,
    RebyteError,
    ResourceNotFound,
    did_you_mean,
)
from ..output.records import CREATED, TASK, Document, Records
from ._options import (
    check_files,
    dry_run_option,
    files_option,
    label_option,
    on_question_option,
    stream_option,
    timeout_option,
    wait_option,
)
from ._prompts import PromptSource

F = TypeVar("F", bound=Any)
SHOWN_WORKSPACES = 8


class CreateOptions(NamedTuple):
    """What to do with a new task, as the options of `create_options` say it."""

    files: Sequence[str]
    wait: bool
    timeout: float | None
    stream: bool
    labels: Mapping[str, str]
    once: str | None
    dry_run: bool
    open_page: bool


def create_options(function: F) -> F:
    """Add the options of `CreateOptions` to a command."""
    decorators = (
        files_option,
        wait_option,
        timeout_option,
        stream_option,
        label_option,
        on_question_option,
        click.option(
            "--once", metavar="KEY", help="Create at most one task for KEY, even across retries."
        ),
        dry_run_option(),
        click.option(
            "--open", "open_page", is_flag=True, help="Open the task's page in the browser."
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def create(
    app: App,
    prompt: PromptSource,
    fields: Mapping[str, Any],
    choices: CreateOptions,
    *,
    patch: str | None = None,
) -> Any:
    """Create a task and print what the choices ask for. The editor opens after all checks.

    `fields` are those of POST /tasks besides the prompt and files. `patch` is a file with
    uncommitted changes that the agent is to apply.
    """
    paths = [*check_files(choices.files), *([patch] if patch else [])]
    if choices.dry_run:
        with prompt.kept("create") as text:
            body = _body(text, fields, patch)
            return Document(
                {**body, **({"files": [{"path": path} for path in paths]} if paths else {})}
            )
    from ..tasks import create as engine

    created = engine.created_before(app.history, choices.once) if choices.once else None
    is_new = created is None
    if created is not None and prompt.is_unwritten:
        app.note(f"Key {choices.once!r} already created task {created['id']}")
        deadline = Deadline(choices.timeout)
    else:
        if prompt.is_unwritten:
            _check_service(app)
        with prompt.kept("create") as text:
            body = _body(text, fields, patch)
            if paths and is_new:
                from ..tasks.upload import upload

                body["files"] = upload(app.client, paths, app.progress_bar)
            deadline = Deadline(choices.timeout)
            waiting = app.spinner("Creating the task (waiting for its VM)")
            with waiting, _naming_workspace(app, body):
                created = engine.create(
                    app.client,
                    app.history,
                    body,
                    prompt=body["prompt"],
                    key=choices.once,
                    labels=choices.labels,
                    on_created=prompt.sent,
                    note=app.note,
                    deadline=deadline,
                )
    return _followed(app, created, choices, deadline, is_new=is_new)


def _followed(
    app: App,
    created: Mapping[str, Any],
    choices: CreateOptions,
    deadline: Deadline,
    *,
    is_new: bool,
) -> Any:
    """What is printed of a task that exists: itself, its output, or its end."""
    app.keep_workspace(created)
    task_id = str(created["id"])
    if is_new and (choices.wait or choices.stream or app.format != "table"):
        app.note(f"Created task {task_id}\n{created.get('url', '')}".rstrip())
    if choices.open_page and created.get("url"):
        _open(app, created["url"])
    if choices.stream:
        from ._wait import streamed

        return streamed(app, task_id, deadline=deadline)
    if choices.wait:
        from ..tasks.wait import WaitTarget
        from ._wait import finished

        return Records(TASK, finished(app, [WaitTarget(task_id)], deadline=deadline))
    return Records(CREATED, [created])


def _body(text: str, fields: Mapping[str, Any], patch: str | None) -> dict[str, Any]:
    if patch is not None:
        from ..tasks.checkout import APPLY
        from ..tasks.prompt import check_prompt

        text = check_prompt(text + APPLY)
    return {"prompt": text, **fields}


@contextmanager
def _naming_workspace(app: App, body: Mapping[str, Any]) -> Iterator[None]:
    """Raise a 404 of a create as what it means: the workspace does not exist."""
    try:
        yield
    except ResourceNotFound:
        if "workspaceId" not in body:
            raise
        raise no_such_workspace(app, body["workspaceId"]) from None


def _check_service(app: App) -> None:
    """Raise what a create would certainly fail with, before the user writes a prompt for it."""
    with app.spinner("Connecting"):
        try:
            app.client.list_tasks(limit=1)
        except KeyRejected as error:
            if error.status_code == 401:  # a 403 is about reading
                raise
        except NetworkError:
            raise
        except APIError:
            pass  # it answers


def check_workspace(app: App, reference: str | None, workspace_id: str | None) -> str | None:
    """The id of a workspace that was given as `reference`, resolved from the history so far.

    A name that the history does not know is searched for among the account's agent computers, by
    id and name. Raises NotFound if it is none of them. An unknown UUID passes: workspaces of tasks
    that were created elsewhere are on no list.
    """
    import re

    if reference is None or workspace_id is None or reference != workspace_id:
        return workspace_id
    if re.fullmatch(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", reference):
        return workspace_id
    if app.history.workspace(workspace_id) is not None:
        return workspace_id
    try:
        computers = list(app.client.iter_computers())
    except NetworkError:
        raise
    except APIError:
        return workspace_id  # they cannot be listed; the service decides
    named = [str(one["id"]) for one in computers if reference in (one.get("id"), one.get("name"))]
    if len(named) > 1:
        raise BadUsage(
            f"{reference!r} is the name of {len(named)} workspaces", hint="\n".join(named[:10])
        )
    if not named:
        raise no_such_workspace(app, reference, [str(one.get("name") or "") for one in computers])
    return named[0]


def no_such_workspace(app: App, reference: str, names: Sequence[str] = ()) -> NotFound:
    """The error for a workspace that does not exist, with those that do."""
    known = app.history.workspaces()
    aliases = [*(each["name"] for each in known if each["name"]), *filter(None, names)]
    shown = list(dict.fromkeys([*aliases, *(str(each["id"]) for each in known)]))
    near = did_you_mean(reference, aliases)
    more = ", …" if len(shown) > SHOWN_WORKSPACES else ""
    there = f"Workspaces: {', '.join(shown[:SHOWN_WORKSPACES])}{more}" if shown else None
    see = "See `rebyte workspace list`; without -w, the task gets a new one"
    return NotFound(
        f"no such workspace: {reference}", hint="\n".join(filter(None, (near, there, see)))
    )


def _open(app: App, url: object) -> None:
    """Open the task's page. A failure is only a note, since the task exists."""
    from ..tasks import browser

    try:
        if not browser.open_page(url):
            app.note("Could not start a browser")
    except RebyteError as error:
        app.note(f"Page not opened: {error.message}")
