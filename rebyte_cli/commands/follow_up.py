"""Send another prompt to a task."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from ..app import App
from ..errors import BadUsage, Next, RebyteError
from ..output.records import PROMPT, Document, Records
from ..system.deadline import Deadline
from ._base import define
from ._check import (
    CheckOptions,
    TaskChecks,
    mending,
    mending_options,
    unjailed_check_option,
)
from ._local import AgentOptions, agent_options, local_refusals
from ._options import (
    WaitOptions,
    check_files,
    chosen_task,
    dry_run_option,
    files_option,
    on_question_option,
    skills_option,
    take,
    task_argument,
    uploaded,
    waiting_options,
)
from ._prompts import prompt_options, read_prompt


@define("follow-up", kind=PROMPT, statuses=(3, 4, 5, 6, 10, 11, 12, 13, 124))
@task_argument
@prompt_options
@skills_option
@files_option
@click.option("--sync", is_flag=True, help="First merge new commits of the repository here.")
@waiting_options
@on_question_option
@agent_options
@mending_options
@unjailed_check_option
@dry_run_option()
def command(
    app: App,
    task: str,
    prompt: tuple[str, ...],
    prompt_option: str | None,
    prompt_file: str | None,
    skills: list[str],
    files: tuple[str, ...],
    sync: bool,
    dry_run: bool,
    **options: Any,
) -> Any:
    """Send PROMPT to TASK, which may be running or finished.

    Prints the id of the new prompt. With --wait, waits for this prompt to end (the task can still
    be `completed` from the previous one) and prints the finished task.

    With --sync, brings new commits of the repository from which the task's workspace on this
    machine was cloned into it first: of the branch named at creation, or else the current one. What
    the agent has done stays, and is what `diff` shows. Conflicts are named, and nothing is changed
    or sent.

    What the task's agent may reach stays as it was: --allow adds to it, --network replaces it.
    --budget replaces the budget of the task, in which what its runs have used so far counts.

    Examples:

      rebyte follow-up @last "Now fix the critical findings" --wait
      rebyte follow-up 550e8400 -f notes.md -p "Take these notes into account"
    """
    written = read_prompt(app, prompt, prompt_option, prompt_file)
    paths = check_files(files)
    agent, waiting = take(AgentOptions, options), take(WaitOptions, options)
    task_id = chosen_task(app, task)
    model = None
    if agent.budget is not None and agent.budget.cost is not None and app.settings.is_own_service:
        model = app.client.get_task(task_id).get("model")
    fields = agent.fields(app, model)
    if written.is_unwritten and not dry_run:
        app.client.get_task(task_id)  # whether it is there, before the editor opens
    asked = CheckOptions.of(options)
    with written.kept("follow-up") as text:
        body = {"prompt": asked.ask(text), **({"skills": skills} if skills else {}), **fields}
        if dry_run:
            if paths:
                body["files"] = [{"path": path} for path in paths]
            return Document(body)
        body |= uploaded(app, paths)
        deadline = Deadline(waiting.timeout)
        checks = mending(app, asked, deadline, asks_repository=waiting.has_wait)
        if asked.check is not None:
            TaskChecks(app, asked).start_of(app.client.get_task(task_id))
        if sync:
            _sync(app, task_id)
        from ..tasks import create

        with app.spinner("Sending the prompt (waiting for the VM)"):
            answer = create.follow_up(
                app.client,
                app.history,
                task_id,
                body,
                on_created=written.sent,
                note=app.note,
                deadline=deadline,
                pace=app.pace,
            )
    if waiting.has_wait:
        from ..tasks.wait import WaitTarget
        from ._wait import followed

        target = WaitTarget(task_id, str(answer["promptId"]))
        app.note(f"Sent prompt {target.prompt_id} to task {task_id}")
        return followed(app, target, waiting, deadline, checks)
    return Records(PROMPT, [answer])


def _sync(app: App, task_id: str) -> None:
    """Merge new commits into the task's workspace. RebyteError if that is impossible."""
    if not app.settings.is_local:
        raise BadUsage("--sync: the workspace of this task is not on this machine")
    from ..local.agents import bring_commits
    from ..system.git import GitFailed

    app.client.get_task(task_id)  # whether it is there
    try:
        at_work = "Wait for it with " + Next("wait", task_id)
        with app.spinner("Merging new commits"), local_refusals("--sync: ", run_at_work=at_work):
            applied = partial(app.history.applied, task_id)
            place = bring_commits(app.local_folder(), task_id, applied)
    except GitFailed as error:
        raise RebyteError(
            f"the new commits cannot be merged: {error}",
            hint="Nothing was changed or sent. Leave out --sync, or apply the task's changes, and"
            " start a new task",
            code="conflict",
        ) from None
    app.note(f"Merged the new commits of {place}" if place else "There are no new commits")
