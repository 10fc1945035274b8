"""Run a prompt as a new task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..app import App
from ..deadline import Deadline
from ..errors import BadUsage, RebyteError
from ..output.records import CREATED, TASK, Document, Records
from ._base import define
from ._options import (
    check_files,
    chosen_fields,
    dry_run_option,
    files_option,
    label_option,
    on_question_option,
    stream_option,
    task_options,
    timeout_option,
    wait_option,
)
from ._prompts import prompt_options, read_prompt


@define("create", kind=CREATED, statuses=(3, 4, 5, 6, 10, 11, 12, 124))
@prompt_options
@task_options
@files_option
@wait_option
@timeout_option
@stream_option
@label_option
@on_question_option
@click.option("--once", metavar="KEY", help="Create at most one task for KEY, even across retries.")
@click.option("--forget", is_flag=True, help="With --once: forget KEY, so that it can be reused.")
@click.option(
    "--with-changes",
    is_flag=True,
    help="With -P local and -g: bring uncommitted changes along.",
)
@click.option(
    "--no-jail", is_flag=True, help="With -P local: run the agent unconfined, on your own files."
)
@dry_run_option()
@click.option("--open", "open_page", is_flag=True, help="Open the task's page in the browser.")
def command(
    app: App,
    prompt: tuple[str, ...],
    prompt_option: str | None,
    prompt_file: str | None,
    files: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    stream: bool,
    labels: Mapping[str, str],
    once: str | None,
    forget: bool,
    with_changes: bool,
    no_jail: bool,
    dry_run: bool,
    open_page: bool,
    **choices: Any,
) -> Any:
    """Run PROMPT as a new task and print the task.

    Returns when the VM is up. With --wait, returns when the task has ended and prints only the
    finished task. The id and the link appear on stderr as soon as they are known.

    If the response to a create is lost, rebyte looks for the task instead of creating it again.
    With --once KEY, a script can repeat the whole command after any interruption and still create
    only one task.

    Examples:

      rebyte create "Fix the login test" -g . --wait
      rebyte create -p "Summarise" -f report.pdf -f data/*.csv --wait -o json | jq .status
      git diff | rebyte create "Review this diff" - -w @last
      rebyte create "Nightly audit" --once "audit-$(date +%F)" --wait
    """
    if forget:
        return _forget(app, once)
    text = read_prompt(app, prompt, prompt_option, prompt_file)
    paths = check_files(files)
    body = {"prompt": text, **chosen_fields(app, **choices)}
    body |= _local_fields(app, body, with_changes=with_changes, no_jail=no_jail)
    if dry_run:
        if paths:
            body["files"] = [{"path": path} for path in paths]
        return Document(body)
    from ..tasks import create as engine

    earlier = engine.created_before(app.history, once) if once else None
    if paths and earlier is None:
        from ..tasks.upload import upload

        body["files"] = upload(app.client, paths, app.progress_bar)
    deadline = Deadline(timeout)
    with app.spinner("Creating the task (waiting for its VM)"):
        created = engine.create(
            app.client,
            app.history,
            body,
            prompt=text,
            key=once,
            labels=labels,
            note=app.note,
            deadline=deadline,
        )
    app.keep_workspace(created)
    task_id = str(created["id"])
    if earlier is None and (wait or stream or app.format != "table"):
        app.note(f"Created task {task_id}\n{created.get('url', '')}".rstrip())
    if open_page and created.get("url"):
        _open(app, created["url"])
    if stream:
        from ._wait import streamed

        return streamed(app, task_id, deadline=deadline)
    if wait:
        from ..tasks.wait import Target
        from ._wait import finished

        return Records(TASK, finished(app, [Target(task_id)], deadline=deadline))
    return Records(CREATED, [created])


def _local_fields(
    app: App, body: Mapping[str, Any], *, with_changes: bool, no_jail: bool
) -> dict[str, Any]:
    """The fields that the local service alone understands. BadUsage for any other service."""
    for option, given in (("--with-changes", with_changes), ("--no-jail", no_jail)):
        if given and not app.settings.is_local:
            raise BadUsage(f"{option} requires -P local: it is for agents on this machine")
    if with_changes and "localRepository" not in body:
        raise BadUsage("--with-changes requires -g . and an executor (-x)")
    return {
        **({"withChanges": True} if with_changes else {}),
        **({"jail": "off"} if no_jail else {}),
    }


def _open(app: App, url: object) -> None:
    """Open the task's page. A failure is only a note, since the task exists."""
    from ..tasks import browser

    try:
        if not browser.open_page(url):
            app.note("Could not start a browser")
    except RebyteError as error:
        app.note(f"Page not opened: {error.message}")


def _forget(app: App, key: str | None) -> None:
    if key is None:
        raise BadUsage("--forget requires --once KEY")
    from ..tasks import create as engine

    known = engine.forget(app.history, key)
    app.note(f"Forgot key {key!r}" if known else f"Unknown key {key!r}")
