"""Run a prompt as a new task."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..engines.waiting import Target
from ..errors import BadUsage
from ..output.kinds import CREATED, TASK, Document, Records
from ._base import completer, define
from ._options import (
    files_option,
    skills_option,
    stream_option,
    timeout_option,
    wait_option,
)
from ._prompt import prompt_options, read_prompt


@define("create", kind=TASK, statuses=(3, 4, 5, 6, 10, 11, 124))
@prompt_options
@skills_option
@click.option(
    "-x",
    "--executor",
    metavar="NAME",
    shell_complete=completer("executors"),
    help="opencode, claude, gemini or codex; the service chooses when left out.",
)
@click.option(
    "-m",
    "--model",
    metavar="NAME",
    shell_complete=completer("models"),
    help="A model or tier; any string is passed on.",
)
@click.option(
    "-g",
    "--github-url",
    metavar="REPO",
    help="owner/repo, a clone URL, or `.` for the repository here and its branch.",
)
@click.option("-b", "--branch", metavar="NAME", help="The branch of --github-url.")
@click.option(
    "-w",
    "--workspace",
    metavar="WS",
    shell_complete=completer("workspaces"),
    help="Run in this workspace: an id, an alias, @last, or a task.",
)
@files_option
@wait_option
@timeout_option
@stream_option
@click.option(
    "--once", metavar="KEY", help="Make at most one task for KEY, whatever is interrupted."
)
@click.option("--forget", is_flag=True, help="With --once: drop KEY, so that it can be used anew.")
@click.option("--dry-run", is_flag=True, help="Print the request body and send nothing.")
@click.option("--open", "open_page", is_flag=True, help="Open the task's page in the browser.")
def command(
    app: App,
    prompt: str | None,
    prompt_option: str | None,
    prompt_file: str | None,
    files: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    stream: bool,
    once: str | None,
    forget: bool,
    dry_run: bool,
    open_page: bool,
    **choices: Any,
) -> Any:
    """Run PROMPT as a new task and print it.

    The call returns when the VM is up; with --wait it returns when the task has ended, and
    prints the finished task alone. The id and the link are on stderr as soon as they are known.

    A create whose answer was lost is looked for, and never sent twice. With --once KEY a script
    can repeat the whole command after any interrupt and still make one task.

    Examples:

      rebyte create "Fix the login test" -g . --wait
      rebyte create -p "Summarise" -f report.pdf -s pdf --wait -o json | jq .status
      git diff | rebyte create --prompt-file - -w @last
      rebyte create "Nightly audit" --once "audit-$(date +%F)" --wait
    """
    if forget:
        return _forget(app, once)
    text = read_prompt(app, prompt, prompt_option, prompt_file)
    body = _body(app, text, **choices)
    if dry_run:
        if files:
            body["files"] = [{"path": path} for path in files]
        return Document(body)
    from ..engines import once as engine

    if files:
        from ..engines.uploads import upload

        body["files"] = upload(app.client, files, app.screen)
    with app.spinner("Creating the task: the service answers when the VM is up"):
        created = engine.create(app.client, app.history, body, prompt=text, key=once, note=app.note)
    task_id = str(created["id"])
    if wait or stream or app.format != "table":
        app.note(f"Created task {task_id}\n{created.get('url', '')}".rstrip())
    if open_page and created.get("url"):
        click.launch(str(created["url"]))
    if stream:
        from ._stream import streamed

        return streamed(app, task_id, timeout=timeout)
    if wait:
        from ._finish import finished

        return Records(TASK, finished(app, [Target(task_id)], timeout=timeout))
    return Records(CREATED, [created])


def _forget(app: App, key: str | None) -> None:
    if key is None:
        raise BadUsage("--forget needs --once KEY")
    from ..engines import once as engine

    known = engine.forget(app.history, key)
    app.note(f"Forgot {key!r}" if known else f"{key!r} was not known")


def _body(
    app: App,
    text: str,
    *,
    skills: list[str],
    executor: str | None,
    model: str | None,
    github_url: str | None,
    branch: str | None,
    workspace: str | None,
) -> dict[str, Any]:
    """The body of POST /tasks: what the user chose here or in the profile, and nothing else."""
    settings = app.settings
    if branch and not github_url:
        raise BadUsage("--branch needs --github-url")
    if github_url:
        from ..engines.checkout import repository

        github_url, here = repository(github_url)
        branch = branch or here
    if workspace:
        from ..profiles import references

        workspace = references.workspace(app.history, workspace)
    body: dict[str, Any] = {"prompt": text}
    chosen = {
        "executor": executor or settings.executor.value,
        "model": model or settings.model.value,
        "skills": skills or list(settings.skills.value or ()),
        "githubUrl": github_url,
        "branchName": branch,
        "workspaceId": workspace,
    }
    body.update({name: value for name, value in chosen.items() if value})
    return body
