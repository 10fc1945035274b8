"""What a task is made with, besides its prompt: the options that `create` and `batch` share."""

from __future__ import annotations

from typing import Any, TypeVar

import click

from ..app import App
from ..errors import BadUsage, did_you_mean
from ._options import EXECUTORS, skills_option
from ._shared import completer

F = TypeVar("F", bound=Any)


def task_options(function: F) -> F:
    """Add `-s`, `-x`, `-m`, `-g`, `-b` and `-w` to a command; `chosen_fields` reads them."""
    decorators = (
        skills_option,
        click.option(
            "-x",
            "--executor",
            metavar="NAME",
            shell_complete=completer("executors", EXECUTORS),
            help="opencode, claude, gemini or codex; the service chooses when left out.",
        ),
        click.option(
            "-m",
            "--model",
            metavar="NAME",
            shell_complete=completer("models"),
            help="A model or tier; any string is passed on.",
        ),
        click.option(
            "-g",
            "--github-url",
            metavar="REPO",
            shell_complete=completer("repositories"),
            help="owner/repo, a clone URL, or `.` for the repository here and its branch.",
        ),
        click.option("-b", "--branch", metavar="NAME", help="The branch of --github-url."),
        click.option(
            "-w",
            "--workspace",
            metavar="WS",
            shell_complete=completer("workspaces"),
            help="Run in this workspace: an id, an alias, @last, or a task.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def chosen_fields(
    app: App,
    *,
    skills: list[str],
    executor: str | None,
    model: str | None,
    github_url: str | None,
    branch: str | None,
    workspace: str | None,
) -> dict[str, Any]:
    """The body of POST /tasks but for the prompt: what was chosen here or in the profile."""
    settings = app.settings
    for option, text in (
        ("--executor", executor),
        ("--model", model),
        ("--github-url", github_url),
        ("--branch", branch),
        ("--workspace", workspace),
    ):
        # A variable that was not set must not become another machine or another branch.
        if text is not None and not text.strip():
            raise BadUsage(f"{option} names nothing")
    if executor and executor not in EXECUTORS and (near := did_you_mean(executor, EXECUTORS)):
        app.note(f"{executor} is passed on as it is; {near}")
    if branch and not github_url:
        raise BadUsage("--branch needs --github-url")
    if github_url:
        from ..engines.checkout import repository

        github_url, branch = repository(github_url, branch, note=app.note)
    if workspace:
        from ..profiles import references

        workspace = references.workspace(app.history, workspace)
    chosen = {
        "executor": executor or settings.executor.value,
        "model": model or settings.model.value,
        "skills": skills or list(settings.skills.value or ()),
        "githubUrl": github_url,
        "branchName": branch,
        "workspaceId": workspace,
    }
    return {name: value for name, value in chosen.items() if value}
