"""Run a prompt as a new task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import CREATED
from ._base import define
from ._create import CreateOptions, check_workspace, create, create_options
from ._options import chosen_fields, task_options
from ._prompts import prompt_options, read_prompt


@define("create", kind=CREATED, statuses=(3, 4, 5, 6, 10, 11, 12, 124))
@prompt_options
@task_options
@create_options
@click.option("--forget", is_flag=True, help="With --once: forget KEY, so that it can be reused.")
@click.option(
    "--with-changes",
    is_flag=True,
    help="With `-g .`: send uncommitted changes, new files included.",
)
@click.option(
    "--no-jail", is_flag=True, help="With -P local: run the agent unconfined, on your own files."
)
def command(
    app: App,
    prompt: tuple[str, ...],
    prompt_option: str | None,
    prompt_file: str | None,
    skills: list[str],
    executor: str | None,
    model: str | None,
    github_url: str | None,
    branch: str | None,
    workspace: str | None,
    forget: bool,
    with_changes: bool,
    no_jail: bool,
    **choices: Any,
) -> Any:
    """Run PROMPT as a new task and print the task.

    Returns when the VM is up. With --wait, returns when the task has ended and prints only the
    finished task. The id and the link appear on stderr as soon as they are known. Without PROMPT,
    $EDITOR opens on a terminal; what it saved is kept in a file until the task exists.

    If the response to a create is lost, rebyte looks for the task instead of creating it again.
    With --once KEY, a script can repeat the whole command after any interruption and still create
    only one task.

    `-g .` says what the remote lacks: uncommitted changes, commits that are not pushed. With
    --with-changes, uncommitted changes are uploaded as a patch for the agent to apply.

    Examples:

      rebyte create "Fix the login test" -g . --wait
      rebyte create "Finish what I began" -g . --with-changes
      rebyte create -p "Summarise" -f report.pdf -f data/*.csv --wait -o json | jq .status
      git diff | rebyte create "Review this diff" - -w @last
      rebyte create "Nightly audit" --once "audit-$(date +%F)" --label run=nightly --wait
    """
    chosen = CreateOptions(**choices)
    if forget:
        return _forget(app, chosen.once)
    written = read_prompt(app, prompt, prompt_option, prompt_file)
    fields = chosen_fields(
        app,
        skills=skills,
        executor=executor,
        model=model,
        github_url=github_url,
        branch=branch,
        workspace=workspace,
        with_changes=with_changes,
    )
    if not chosen.dry_run and workspace:
        fields["workspaceId"] = check_workspace(app, workspace, fields.get("workspaceId"))
    fields |= _local_fields(app, fields, with_changes=with_changes, no_jail=no_jail)
    with _patch(app, github_url, wanted=with_changes) as patch:
        return create(app, written, fields, chosen, patch=patch)


def _local_fields(
    app: App, fields: Mapping[str, Any], *, with_changes: bool, no_jail: bool
) -> dict[str, Any]:
    """The fields that the local service alone understands. BadUsage for any other service."""
    if not app.settings.is_local:
        if no_jail:
            raise BadUsage("--no-jail requires -P local: it is for agents on this machine")
        return {}
    if with_changes and not ("localRepository" in fields and "executor" in fields):
        raise BadUsage("--with-changes requires -g . and, with -P local, an executor (-x)")
    return {
        **({"withChanges": True} if with_changes else {}),
        **({"jail": "off"} if no_jail else {}),
    }


@contextmanager
def _patch(app: App, github_url: str | None, *, wanted: bool) -> Iterator[str | None]:
    """The file with the uncommitted changes here while the block runs, or None.

    Agents on this machine get them with the clone.
    """
    if not wanted or app.settings.is_local:
        yield None
        return
    if github_url != ".":
        raise BadUsage("--with-changes requires -g .")
    import tempfile

    from ..tasks import checkout

    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        path = Path(folder) / checkout.PATCH_NAME
        changes = checkout.write_patch(".", path)
        app.note(checkout.described(changes))
        yield str(path) if changes.files else None


def _forget(app: App, key: str | None) -> None:
    if key is None:
        raise BadUsage("--forget requires --once KEY")
    from ..tasks import create as engine

    known = engine.forget(app.history, key)
    app.note(f"Forgot key {key!r}" if known else f"Unknown key {key!r}")
