"""Run the prompt of an earlier task again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import CREATED
from ..tasks.prompt import check_prompt
from ._base import define
from ._create import create, create_options, split
from ._options import task_argument, task_options
from ._prompts import PromptSource, prompt_source_options, read_prompt

if TYPE_CHECKING:
    from ..tasks.rerun import Earlier


@define("rerun", kind=CREATED, statuses=(3, 4, 5, 6, 10, 11, 12, 124))
@task_argument
@prompt_source_options
@click.option("-e", "--edit", is_flag=True, help="Change the prompt in $EDITOR before it is sent.")
@click.option(
    "--new-workspace",
    is_flag=True,
    help="Run in a new workspace, even if TASK was created with -w.",
)
@task_options(executors=True)
@create_options
def command(
    app: App,
    task: str,
    prompt_option: str | None,
    prompt_file: str | None,
    edit: bool,
    new_workspace: bool,
    **options: Any,
) -> Any:
    """Create a new task with the prompt and the options of TASK, and print the new task.

    Takes over the prompt that TASK was created with (not its follow-ups), its executor, model,
    skills, repository and branch, files, labels, and its workspace if it was created with -w.
    Options replace these values: -s replaces all skills, -f all files, and -g the repository and
    its branch. --label adds labels. Files are uploaded again from where they were.

    The history of this machine stores these values. From a task that was created elsewhere, only
    the prompt, the executor and the model are taken over.

    Examples:

      rebyte rerun @last --wait
      rebyte rerun @last -x codex --edit
      rebyte list --all --status failed -o id | xargs -n 1 rebyte rerun
    """
    from ..history import references
    from ..tasks import rerun

    given, choices = split(options)
    if new_workspace and given.workspace:
        raise BadUsage("--new-workspace and --workspace cannot be used together")
    has_prompt = prompt_option is not None or prompt_file is not None
    written = read_prompt(app, (), prompt_option, prompt_file) if has_prompt else None
    task_id = references.task(app.history, task)
    earlier = _earlier(app, task_id)
    fields = dict(earlier.fields)
    if new_workspace:
        fields.pop("workspaceId", None)
    if not given.github_url:
        rerun.check_repository(task_id, fields)
    if not choices.files:
        rerun.check_files(task_id, earlier.files)
        choices = choices._replace(files=earlier.files)
    choices = choices._replace(labels={**earlier.labels, **choices.labels})
    if written is None:
        written = _first_prompt(app, task_id, with_changes=choices.with_changes)
    if edit:
        written.edit()
    return create(app, written, given, choices, earlier=fields)


def _earlier(app: App, task_id: str) -> Earlier:
    from ..tasks import rerun

    known = rerun.remembered(app.history, task_id)
    if known is not None:
        return known
    found = rerun.shown(app.client, task_id)
    app.note(
        f"The history of this machine does not have task {task_id}; if it needs them, add its"
        " skills (-s), repository (-g), workspace (-w) and files (-f)"
    )
    # The executor that the local service shows for a simulated run would start a real agent.
    return rerun.Earlier({}) if app.settings.is_local else found


def _first_prompt(app: App, task_id: str, *, with_changes: bool) -> PromptSource:
    from ..tasks import rerun

    found = rerun.first_prompt(app.client, task_id)
    if found.follow_ups:
        them = "follow-up is" if found.follow_ups == 1 else f"{found.follow_ups} follow-ups are"
        app.note(f"Its {them} not sent again")
    if found.had_changes and not with_changes:
        app.note(
            "Its uncommitted changes are not sent again; `-g . --with-changes` sends those of now"
        )
    return PromptSource(app, check_prompt(found.text))
