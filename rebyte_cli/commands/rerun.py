"""Run the prompts of earlier tasks again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, KeyProblem, KeyRejected, Next, RebyteError, RowOrError, WaitTimeout
from ..output.records import CREATED, TASK, Records
from ..system.deadline import NO_LIMIT, Deadline
from ..tasks.prompt import check_prompt
from ._base import define
from ._create import CreateOptions, checks_of, create, create_options, note_created, split
from ._notice import EndNotice
from ._options import TaskOptions, WaitOptions, chosen_tasks, refuse, task_options, tasks_argument
from ._prompts import PromptSource, prompt_source_options, read_prompt

if TYPE_CHECKING:
    from ..tasks.rerun import Earlier


@define("rerun", kind=CREATED, statuses=(3, 4, 5, 6, 10, 11, 12, 13, 124))
@tasks_argument
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
    tasks: Sequence[str],
    prompt_option: str | None,
    prompt_file: str | None,
    edit: bool,
    new_workspace: bool,
    **options: Any,
) -> Any:
    """Create a new task with the prompt and the options of each TASK, and print the new tasks.

    Takes over the prompt that TASK was created with (not its follow-ups), its executor, model,
    skills, repository and branch, files, labels, and its workspace if it was created with -w.
    Options replace these values: -s replaces all skills, -f all files, and -g the repository and
    its branch. --label adds labels. Files are uploaded again from where they were.

    The history of this machine stores these values. From a task that was created elsewhere, only
    the prompt, the executor and the model are taken over. The service is asked for the prompt; if
    it shows it differently from what was sent (shortened or masked), nothing is created and the
    status is 6.

    Several tasks are created one after another; an error of one leaves the others. --wait then
    waits for all of them. `rebyte batch` creates many tasks at a time.

    Examples:

      rebyte rerun @last --wait
      rebyte rerun @last -x codex --edit
      rebyte list --all --status failed -o id | rebyte rerun -
    """
    given, choices = split(options)
    refuse({"--new-workspace and --workspace": new_workspace and given.workspace})
    if prompt_file == "-" and "-" in tasks:
        raise BadUsage("stdin cannot be both the prompt and the tasks")
    has_prompt = prompt_option is not None or prompt_file is not None
    ids = chosen_tasks(app, tasks)
    written = read_prompt(app, (), prompt_option, prompt_file) if has_prompt else None
    rerun = partial(_rerun, app, given, new_workspace=new_workspace)
    if len(ids) == 1:
        return rerun(choices, ids[0], written=written, edit=edit)
    for_one = {
        "--prompt": has_prompt,
        "--edit": edit,
        "--stream": choices.waiting.stream,
        "--attempts": choices.attempts > 1,
        "--once": choices.once,
        "--dry-run": choices.dry_run,
    }
    refuse(for_one, "can be used with one TASK only")
    if choices.waiting.wait:
        ends = _ends(app, ids, choices, rerun)
        notice = EndNotice(app, is_wanted=choices.waiting.notify)
        return Records(TASK, notice.of_outcomes(ends))
    return Records(CREATED, _created(ids, choices, rerun, NO_LIMIT))


def _rerun(
    app: App,
    given: TaskOptions,
    choices: CreateOptions,
    task_id: str,
    *,
    new_workspace: bool,
    written: PromptSource | None = None,
    edit: bool = False,
) -> Any:
    """Create a task like another one, and return what to print; `written` replaces its prompt."""
    from ..tasks import rerun

    earlier = _earlier(app, task_id)
    fields = dict(earlier.fields)
    if new_workspace:
        fields.pop("workspaceId", None)
    if not given.github_url:
        rerun.check_repository(task_id, fields)
    if not choices.files:
        rerun.check_files(task_id, earlier.files)
        choices = choices._replace(files=earlier.files)
    if app.settings.is_own_service:
        fields["networkOf"] = task_id  # it gets no more than the earlier task had, unless asked
    choices = choices._replace(labels={**earlier.labels, **choices.labels})
    if written is None:
        written = _first_prompt(app, task_id, with_changes=choices.with_changes)
    if edit:
        written.edit()
    return create(app, written, given, choices, earlier=fields)


# Several tasks


def _created(
    ids: Sequence[str], choices: CreateOptions, rerun: Callable[..., Any], deadline: Deadline
) -> Iterator[RowOrError]:
    """The new tasks, each as soon as it is created, and the errors of those that cannot be."""
    alone = choices._replace(checks=choices.checks._replace(check=None, no_check=True))
    for done, task_id in enumerate(ids):
        if deadline.has_passed:
            left = f"{len(ids) - done} of {len(ids)} tasks were not created in"
            raise deadline.error(left, hint="Continue with " + Next("rerun", task_id, "…"))
        try:
            waiting = WaitOptions(False, deadline.for_call(), False, False)
            yield from rerun(alone._replace(waiting=waiting), task_id).rows
        except (KeyProblem, KeyRejected, WaitTimeout):
            raise
        except RebyteError as error:
            yield error.about(task_id)


def _ends(
    app: App, ids: Sequence[str], choices: CreateOptions, rerun: Callable[..., Any]
) -> Iterator[RowOrError]:
    """How each of the new tasks ends, once all are created."""
    from ..tasks.wait import WaitTarget
    from ._wait import finished

    deadline = Deadline(choices.waiting.timeout)
    checks = checks_of(app, choices, deadline)
    targets = []
    for task in _created(ids, choices, rerun, deadline):
        if isinstance(task, RebyteError):
            yield task
            continue
        targets.append(WaitTarget(str(task["id"])))
        if app.format == "table":  # in other formats, creating a task has said so
            note_created(app, task)
    if targets:
        wait = partial(finished, app, targets, deadline=deadline)
        yield from checks.ends(wait, targets) if checks else wait()


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
    return rerun.Earlier({}) if app.settings.is_own_service else found


def _first_prompt(app: App, task_id: str, *, with_changes: bool) -> PromptSource:
    from ..tasks import rerun

    found = rerun.first_prompt(app.client, app.history, task_id)
    if not found.is_certain:
        app.note(
            f"What task {task_id} was sent is not known here; its prompt is taken as the service"
            " shows it"
        )
    if found.follow_ups:
        them = "follow-up is" if found.follow_ups == 1 else f"{found.follow_ups} follow-ups are"
        app.note(f"Its {them} not sent again")
    if found.had_changes and not with_changes:
        app.note(
            "Its uncommitted changes are not sent again; `-g . --with-changes` sends those of now"
        )
    return PromptSource(app, check_prompt(found.text))
