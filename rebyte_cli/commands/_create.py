"""From a prompt to its task: what the commands that create one share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..errors import (
    APIError,
    BadUsage,
    KeyRejected,
    NetworkError,
    Next,
    NotFound,
    RebyteError,
    ResourceNotFound,
    did_you_mean,
    lines,
)
from ..output.records import CREATED, TASK, Document, Records
from ..system.deadline import Deadline
from ..tasks import browser
from ._check import CheckOptions, mending, mending_options, repository_says
from ._local import (
    AgentOptions,
    agent_options,
    fields_for_agents,
    local_refusals,
    no_setup_option,
    shown_page,
)
from ._notice import EndNotice
from ._options import (
    Number,
    Option,
    TaskOptions,
    WaitOptions,
    check_executor,
    check_files,
    chosen_fields,
    dry_run_option,
    files_option,
    imply_wait,
    label_option,
    on_question_option,
    refuse,
    take,
    together,
    uploaded,
    waiting_options,
)
from ._prompts import PromptSource
from ._repository import RepositorySays

if TYPE_CHECKING:
    from ..tasks.mending import Mending

SHOWN_WORKSPACES = 8
SHORT_ID = 8  # characters of an id that usually stand for it alone
MOST_ATTEMPTS = 20


class CreateOptions(NamedTuple):
    """What else is sent for a new task and what to do with it: the values of `create_options`."""

    files: Sequence[str]
    labels: Mapping[str, str]
    once: str | None
    dry_run: bool
    open_page: bool
    with_changes: bool
    attempts: int
    executors: Sequence[str]
    waiting: WaitOptions
    agent: AgentOptions
    checks: CheckOptions


def _check_attempts(ctx: click.Context) -> None:
    """How `--attempts` goes with the options that are about one task."""
    given = ctx.params
    attempts, executors = given["attempts"], given["executors"]
    if len(executors) > attempts:
        raise BadUsage(
            f"{len(executors)} executors require --attempts {len(executors)} or more",
            hint="Without --attempts, a task has one executor",
        )
    if attempts == 1:
        return
    imply_wait(ctx, "attempts")
    for_one = {"--stream": "stream", "--once": "once", "--open": "open_page"}
    refuse({f"--attempts and {name}": given[option] for name, option in for_one.items()})


# The options of `CreateOptions`.
create_options = together(
    files_option,
    waiting_options,
    click.option(
        "--attempts",
        cls=Option,
        check=_check_attempts,
        type=Number(1, MOST_ATTEMPTS),
        default=1,
        metavar="N",
        help="Create N tasks, print the first that completes, and cancel the others.",
    ),
    label_option,
    on_question_option,
    mending_options,
    click.option(
        "--once", metavar="KEY", help="Create at most one task for KEY, even across retries."
    ),
    dry_run_option(),
    click.option("--open", "open_page", is_flag=True, help="Open the task's page in the browser."),
    click.option(
        "--with-changes",
        is_flag=True,
        help="With `-g .`: send uncommitted changes, new files included.",
    ),
    click.option(
        "--no-jail",
        is_flag=True,
        help="With -P local: run the agent, and --check, without a sandbox, on your own files.",
    ),
    agent_options,
    no_setup_option,
)


def split(options: dict[str, Any]) -> tuple[TaskOptions, CreateOptions]:
    """The values of `task_options` and `create_options`, as Click passes them."""
    options["executor"] = next(iter(options["executors"]), None)
    task = take(TaskOptions, options)
    return task, CreateOptions(
        waiting=take(WaitOptions, options),
        agent=take(AgentOptions, options),
        checks=CheckOptions.of(options),
        **options,
    )


def create(
    app: App,
    prompt: PromptSource,
    options: TaskOptions,
    choices: CreateOptions,
    *,
    earlier: Mapping[str, Any] | None = None,
) -> Any:
    """Create a task and print what the choices ask for. The editor opens after all checks.

    `earlier` is as in `chosen_fields`; its `networkOf` is sent, too.
    """
    fields = _fields(app, options, choices, earlier)
    files = check_files(choices.files)
    base = _base_commit(app, options.github_url, fields, choices.checks)
    if not choices.dry_run:
        choices = _with_repository(app, fields, base, choices)
    with _patch(app, options.github_url, wanted=choices.with_changes) as patch:
        paths = [*files, *([patch] if patch else [])]
        if choices.dry_run:
            return _planned(app, prompt, fields, choices, paths, patch)
        from ..tasks import create as engine

        created = None
        if choices.once:
            choices = choices._replace(once=engine.name_of_key(app.history, choices.once))
            created = engine.created_before(app.history, str(choices.once))
        is_new = created is None
        if created is not None and prompt.is_unwritten:
            engine.tell_repeated(
                app.history,
                str(choices.once),
                str(created["id"]),
                note=app.note,
                warn=app.warn,
            )
            return _followed(app, created, choices, Deadline(choices.waiting.timeout), is_new=False)
        if prompt.is_unwritten:
            _check_service(app)
            _check_agents(app, [fields.get("executor"), *choices.executors], fields.get("jail"))
        with prompt.kept("create") as text:
            body = _body(choices.checks.ask(text), fields, patch)
            body |= uploaded(app, paths) if is_new else {}
            deadline = Deadline(choices.waiting.timeout)
            checks = checks_of(app, choices, deadline)
            create_one = partial(
                engine.create,
                app.client,
                app.history,
                prompt=body["prompt"],
                labels=choices.labels,
                files=list(map(os.path.abspath, files)),
                base=base,
                on_created=prompt.sent,
                note=app.note,
                warn=app.warn,
                deadline=deadline,
                pace=app.pace,
            )
            if choices.attempts > 1:
                from ._attempts import create_attempts

                bodies = _of_attempts(body, choices)
                ends = create_attempts(app, bodies, create_one, deadline, checks)
                notice = EndNotice(app, is_wanted=choices.waiting.notify)
                return Records(TASK, notice.of_outcomes(ends))
            waiting = app.spinner("Creating the task (waiting for its VM)")
            with waiting, _naming_workspace(app, body, is_given=bool(options.workspace)):
                created = create_one(body, key=choices.once)
    return _followed(app, created, choices, deadline, is_new=is_new)


def _base_commit(
    app: App, given: str | None, fields: Mapping[str, Any], checks: CheckOptions
) -> str | None:
    """The commit that the task starts from, if it is known here; noted for `rebyte check`.

    BadUsage if it is not, and has to be checked.
    """
    commit = None
    if given is not None or "localRepository" in fields:
        from ..tasks.repository import base_commit

        commit = base_commit(given, fields)
    has_workspace = app.settings.is_local and "executor" in fields
    if checks.check is not None and not (commit or checks.base or has_workspace):
        raise BadUsage(
            "--check: the commit that the task starts from is not known here",
            hint="Use -g . for the repository here, or name the commit with --base",
        )
    return commit


def _with_repository(
    app: App, fields: Mapping[str, Any], base: str | None, choices: CreateOptions
) -> CreateOptions:
    """The choices with what the repository's `.rebyte.toml` asks for, if the user trusts it."""
    checks = choices.checks
    is_checked = choices.waiting.has_wait and not checks.no_check
    # A workspace has its own start; of a clone that is still to be made, it is not known yet.
    has_workspace = app.settings.is_local and "workspaceId" in fields
    is_cloned_here = app.settings.is_local and {"executor", "githubUrl"} <= fields.keys()
    is_known_later = has_workspace or (base is None and is_cloned_here)
    of_run = _of_run(app, fields)
    if base is not None and (of_run or is_checked) and not has_workspace:
        says = RepositorySays(app, of_run, no_jail=checks.no_jail)
        if is_checked:
            says = repository_says(app, checks, of_run)
        found = says.of_body(fields, base)
        checks = checks.with_file(found) if is_checked else checks
    if is_checked and checks.check is None and not is_known_later:
        checks.require_check()
        if base is None and RepositorySays(app).may_check(fields):
            raise BadUsage(
                "its repository's check: the commit that the task starts from is not known here",
                hint="Use -g . for the repository here, or --no-check",
            )
        checks = checks._replace(no_check=True)
    return choices._replace(checks=checks)


def _of_run(app: App, fields: Mapping[str, Any]) -> list[str]:
    """The settings of `.rebyte.toml` that the run of an agent on this machine uses."""
    is_real = app.settings.is_local and app.environment.get("REBYTE_LOCAL_AGENTS") != "0"
    if not is_real or not {"executor", "localRepository"} <= fields.keys():
        return []
    is_set_up = "workspaceId" not in fields and fields.get("setup") != "off"
    has_hosts = fields.get("network", "list") == "list"
    return [*(["setup", "cache"] if is_set_up else []), *(["allow"] if has_hosts else [])]


def checks_of(app: App, choices: CreateOptions, deadline: Deadline) -> Mending | None:
    """What becomes of the tasks that these choices create and wait for."""
    asks_repository = choices.checks.check is None and choices.waiting.has_wait
    return mending(app, choices.checks, deadline, asks_repository=asks_repository)


def _of_attempts(body: Mapping[str, Any], choices: CreateOptions) -> list[Mapping[str, Any]]:
    """The body of each attempt: the executors take turns."""
    if not choices.executors:
        return [body] * choices.attempts
    turns = islice(cycle(choices.executors), choices.attempts)
    return [{**body, "executor": executor} for executor in turns]


def _fields(
    app: App, options: TaskOptions, choices: CreateOptions, earlier: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The fields of POST /tasks besides the prompt and files, checked."""
    fields = chosen_fields(app, options, with_changes=choices.with_changes, earlier=earlier)
    for executor in choices.executors[1:]:
        check_executor(app, executor)
    if choices.attempts > 1 and "workspaceId" in fields:
        raise BadUsage(
            "--attempts needs a workspace for each attempt, so -w cannot be used",
            hint="Leave -w out, or, with rerun, add --new-workspace",
        )
    if not choices.dry_run and options.workspace:
        fields["workspaceId"] = check_workspace(app, options.workspace, fields.get("workspaceId"))
    like = {name: earlier[name] for name in ("networkOf",) if earlier and name in earlier}
    return fields | like | _local_fields(app, fields, choices)


def _planned(
    app: App,
    prompt: PromptSource,
    fields: Mapping[str, Any],
    choices: CreateOptions,
    paths: Sequence[str],
    patch: str | None,
) -> Document:
    """What would be sent, with paths instead of uploaded files."""
    if choices.attempts > 1:
        turns = ", ".join(choices.executors[1:])
        also = f"; executors take turns, and the next are {turns}" if turns else ""
        app.note(f"This is the first of {choices.attempts} attempts{also}")
    with prompt.kept("create") as text:
        files = {"files": [{"path": path} for path in paths]} if paths else {}
        return Document({**_body(choices.checks.ask(text), fields, patch), **files})


def _local_fields(app: App, fields: Mapping[str, Any], choices: CreateOptions) -> dict[str, Any]:
    """The fields that the local service alone understands. BadUsage for any other service."""
    found = choices.agent.fields(app, fields.get("model"))
    is_own = app.settings.is_own_service
    if choices.checks.no_jail and (is_own or choices.checks.check is None):
        found |= fields_for_agents(app, "--no-jail", {"jail": "off"})
    if choices.with_changes and is_own:
        if not ("localRepository" in fields and "executor" in fields):
            raise BadUsage("--with-changes requires -g . and, with -P local, an executor (-x)")
        if not app.settings.is_local:
            raise BadUsage("--with-changes: only commits travel over ssh", hint="Commit them first")
        found["withChanges"] = True
    return found


@contextmanager
def _patch(app: App, github_url: str | None, *, wanted: bool) -> Iterator[str | None]:
    """The file with the uncommitted changes here while the block runs, or None.

    Agents on this machine get them with the clone.
    """
    if not wanted or app.settings.is_own_service:
        yield None
        return
    if github_url != ".":
        raise BadUsage("--with-changes requires -g .")
    import tempfile
    from pathlib import Path

    from ..tasks import checkout

    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        path = Path(folder) / checkout.PATCH_NAME
        changes = checkout.write_patch(".", path)
        app.note(checkout.described(changes))
        yield str(path) if changes.files else None


def note_created(app: App, created: Mapping[str, Any]) -> None:
    """Say which task was created, so that an interrupt of what follows loses nothing."""
    app.note(f"Created task {created['id']}\n{app.link_to(created)}".rstrip())


def _followed(
    app: App,
    created: Mapping[str, Any],
    choices: CreateOptions,
    deadline: Deadline,
    *,
    is_new: bool,
) -> Any:
    """What is printed of a task that exists: itself, its output, or its end."""
    app.known.keep_workspace(created)
    task_id = str(created["id"])
    if is_new and (choices.waiting.has_wait or app.format != "table"):
        note_created(app, created)
    if choices.open_page and created.get("url"):
        _open(app, created["url"])
    if choices.waiting.has_wait:
        from ..tasks.wait import WaitTarget
        from ._wait import followed

        if choices.once and not is_new:
            _check_exists(app, task_id, choices.once)
        checks = checks_of(app, choices, deadline)
        return followed(app, WaitTarget(task_id), choices.waiting, deadline, checks)
    return Records(CREATED, [created])


def _check_exists(app: App, task_id: str, key: str) -> None:
    """Raise ResourceNotFound if the task of a key was deleted, with what frees the key.

    Of a task that was deleted from here, a warning has said so.
    """
    from ..tasks.create import how_to_forget

    try:
        app.client.get_task(task_id)
    except ResourceNotFound as error:
        is_told = app.history.is_deleted(task_id)
        hint = None if is_told else "It was deleted; " + how_to_forget(key)
        raise error.copy_with(hint=hint) from None
    except APIError:
        pass  # the wait is patient


def _body(text: str, fields: Mapping[str, Any], patch: str | None) -> dict[str, Any]:
    if patch is not None:
        from ..tasks.checkout import APPLY
        from ..tasks.prompt import check_prompt

        text = check_prompt(text + APPLY)
    return {"prompt": text, **fields}


@contextmanager
def _naming_workspace(app: App, body: Mapping[str, Any], *, is_given: bool) -> Iterator[None]:
    """Raise a 404 of a create as what it means: the workspace does not exist."""
    try:
        yield
    except ResourceNotFound:
        if "workspaceId" not in body:
            raise
        raise no_such_workspace(app, body["workspaceId"], is_given=is_given) from None


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


def _check_agents(app: App, executors: Sequence[str | None], jail: str | None) -> None:
    """Raise what the local service would refuse these executors with."""
    if not app.settings.is_local or app.environment.get("REBYTE_LOCAL_AGENTS") == "0":
        return
    for executor in dict.fromkeys(filter(None, executors)):
        from ..local.agents import usable_agent

        with local_refusals():
            usable_agent(executor, app.config.path, app.local_folder(), jail)


def check_workspace(app: App, reference: str | None, workspace_id: str | None) -> str | None:
    """The id of a workspace that was given as `reference`, resolved from the history so far.

    A name that the history does not know is searched for among the account's agent computers, by
    id and name. Raises NotFound if it is none of them. An unknown UUID passes: workspaces of tasks
    that were created elsewhere are on no list.
    """
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


def no_such_workspace(
    app: App, reference: str, names: Sequence[str] = (), *, is_given: bool = True
) -> NotFound:
    """The error for a workspace that does not exist, with those that do.

    `is_given`: it was named with -w, not taken over from an earlier task.
    """
    known = app.history.workspaces()
    aliases = [*(each["name"] for each in known if each["name"]), *filter(None, names)]
    ids = (str(each["id"])[:SHORT_ID] for each in known if not each["name"])
    shown = list(dict.fromkeys([*aliases, *ids]))
    near = did_you_mean(reference, aliases)
    more = ", …" if len(shown) > SHOWN_WORKSPACES else ""
    there = f"Workspaces: {', '.join(shown[:SHOWN_WORKSPACES])}{more}" if shown else None
    how = "without -w" if is_given else "with --new-workspace"
    see = "See " + Next("workspace", "list") + f"; {how}, the task gets a new one"
    return NotFound(f"no such workspace: {reference}", hint=lines(near, there, see))


def _open(app: App, url: object) -> None:
    """Open the task's page. A failure is only a note, since the task exists."""
    try:
        link = shown_page(app, browser.check_page(url))
        if not browser.open_page(link):
            app.note(f"Could not start a browser for {link}")
    except RebyteError as error:
        app.note(f"Page not opened: {error.message}")
    except OSError as error:
        app.note(f"Page not opened: {error}")
