"""Land the changes of many tasks on one branch, one after the other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..errors import APIError, BadUsage, Interrupted, RebyteError, RowOrError
from ..output.records import LAND, RecordList, Records
from ..system.deadline import NO_LIMIT
from ._base import define
from ._check import CheckOptions, no_check_option, protection_options, repository_says
from ._options import Number, chosen_tasks, completer, uploaded
from ._stdin import read_bytes
from ._wait import question_watcher

if TYPE_CHECKING:
    from ..land.land_journal import LandJournal, LandLine
    from ..land.landing import Landing
    from ..tasks.check import CheckCommand, CheckOutcome
    from ..tasks.question_watch import QuestionWatcher

LARGEST_RESULTS = 256 << 20
SHORT = 10  # characters of a commit's id that people are shown


class LandOptions(NamedTuple):
    """What the command was told besides the tasks."""

    branch: str
    onto: str
    reruns: int
    push: str | None
    report: str | None
    force: bool
    checks: CheckOptions


@define("land", kind=LAND, statuses=(3, 4, 5, 6, 10, 12))
@click.argument("tasks", metavar="[TASK…]", nargs=-1, shell_complete=completer("tasks"))
@click.option(
    "--results",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Land the tasks in the results of a batch, in the order of its lines.",
)
@click.option("--branch", metavar="NAME", required=True, help="The branch to make.")
@click.option(
    "--onto",
    metavar="REV",
    default="HEAD",
    show_default=True,
    help="The commit that the branch begins on.",
)
@click.option(
    "--rerun",
    "reruns",
    metavar="N",
    type=Number(0, 10),
    default=1,
    show_default=True,
    help="Run a task that conflicts or fails the check again on the tip, up to N times.",
)
@click.option(
    "--check",
    metavar="CMD",
    help="Land only what passes this shell command on the tip; see `check`.",
)
@no_check_option
@protection_options
@click.option("--no-jail", is_flag=True, help="Run the check without a sandbox, with your files.")
@click.option(
    "--push",
    metavar="REMOTE",
    help="Push the branch to this remote before a rerun; a service elsewhere clones it there.",
)
@click.option(
    "--report", metavar="PATH", type=click.Path(), help="Write a report in Markdown, .md."
)
@click.option(
    "--status", "only_status", is_flag=True, help="Show what has landed, from the journal."
)
@click.option("--force", is_flag=True, help="Start over: replace the branch and its journal.")
def command(
    app: App,
    tasks: tuple[str, ...],
    results: str | None,
    only_status: bool,
    **options: Any,
) -> Any:
    """Land the changes of each TASK on a new branch, one after the other, as a commit each.

    The branch begins on --onto. The changes of each task are merged into its tip, as `git apply
    --3way` does, and committed as `rebyte apply --commit` does: you are author and committer, and
    trailers name the task. Tasks that still run are waited for. No working tree, index or HEAD is
    read or changed, and no hook or program runs that the repository's own configuration names:
    what signs, merges and pushes is what your own names (`git config --global`), or git's own
    program. Whether and with which key commits are signed is as for `git commit` here. Of the
    repository's settings, a push obeys the remote's address, `http.*.extraHeader`, `postBuffer` and
    `version`, and `credential.*.username` and `useHttpPath`: set a proxy in your own. Nothing is
    fetched into a partial clone: an error says what brings what it lacks.

    --check runs a shell command on each new tip before it is committed, as `rebyte check` does: in
    a sandbox. Protected paths are those of --onto for every task: what a task on the branch has
    changed there decides about none. Its row and the report name them; the commit has the change.

    Files that tools run or read by themselves are named, as `rebyte apply` does, also in the row
    ("risks") and the report: look at them before you merge the branch.

    If changes conflict or the check fails, the prompt of the task runs again, in a new workspace
    that begins at the tip, and the result is landed instead. After --rerun attempts the task is
    left out and named, and the status is 10; so is a task that failed or left no patch. The order
    is that of the arguments.

    An agent on this machine clones the branch from here. A service elsewhere has to clone it from
    the repository's remote: --push REMOTE pushes the branch there before a rerun. Without it,
    nothing runs again there. In a remote that is a folder on this machine, its hooks do not run.

    What was decided is in a journal in the state folder, on disk before anything follows from it.
    After an interrupt or a crash, the same command resumes: no prompt runs twice, and the branch is
    the same as without. It prints the row of each task again; tasks added at the end are landed
    too. To start over, delete the branch or use --force.

    Examples:

      rebyte land @3 @2 @1 --branch week-48 --check "make test" --protect tests
      rebyte land --results results.jsonl --branch all --onto origin/main
      rebyte land - --branch all --report all.md < ids.txt
      rebyte land --branch all --status
    """
    from ..tasks import patch

    checks = CheckOptions.of(options)
    if checks.command() is None and (checks.no_check or checks.no_jail):
        checks.require_check()
        if checks.no_jail:
            raise BadUsage("--no-jail requires --check")
    chosen = LandOptions(checks=checks, **options)
    if chosen.report is not None:
        _check_report(chosen.report)
    branch = TargetBranch(app, chosen, patch.top_level())
    if app.format == "json":
        app.auto = "jsonl"
    rows = branch.status() if only_status else branch.land(_lines(app, tasks, results))
    if app.format != "table":
        return Records(LAND, rows)
    shorten = app.history.shortest_prefixes
    return RecordList(LAND, rows, below=branch.summary, shorten=shorten)


def _check_report(path: str) -> None:
    if not path.lower().endswith(".md"):
        raise BadUsage(f"--report {path}: the name must end with .md")
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise BadUsage(f"--report {path}: cannot be written there")


def _journal_of(app: App, root: Path, branch: str) -> tuple[Path, Mapping[str, str]]:
    """Where the journal of a branch is, and what it begins with."""
    from ..system import trust
    from ..system.permissions import private_folder
    from ..tasks.patch import own_repository

    header = {
        "origin": app.settings.origin,
        "repository": trust.key_of(root, own_repository()),
        "branch": branch,
    }
    name = hashlib.sha256(json.dumps(header).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    folder = app.state_dir / "land"
    private_folder(folder)
    return folder / f"{name}.journal", header


# What is to land


def _lines(app: App, tasks: tuple[str, ...], results: str | None) -> list[LandLine]:
    from ..land.land_journal import LandLine

    if not tasks and results is None:
        raise BadUsage("no tasks: name them, or use --results FILE")
    if tasks and results is not None:
        raise BadUsage("TASK and --results cannot be used together")
    if results is not None:
        return _of_results(results, app.settings.profile)
    ids = chosen_tasks(app, tasks)
    return [LandLine(number, task_id) for number, task_id in enumerate(ids, 1)]


def _of_results(file: str, place: str) -> list[LandLine]:
    """The tasks of a batch; lines without one are left out and named, those that failed too."""
    from ..land.land_journal import LandLine

    rows = []
    data = read_bytes(file, limit=LARGEST_RESULTS)
    for number, text in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("status"), str):
            raise BadUsage(f"{file}, line {number}: not a result of a batch")
        rows.append(row)
    if all(isinstance(row.get("line"), int) for row in rows):
        rows.sort(key=lambda row: int(row["line"]))
    lines = []
    for number, row in enumerate(rows, 1):
        title = str(row.get("title") or row.get("key") or "")
        line = LandLine(number, str(row.get("id") or ""), title)
        if not line.task or row["status"] not in ("completed", "running", "waiting"):
            line.problem = f"its line of the batch is {row['status']}"
        elif row.get("place", place) != place:
            line.problem = f"it is at {row['place']}, so only -P {row['place']} can land it"
        lines.append(line)
    return lines


# Landing


class TargetBranch:
    """The branch to make in the repository at `root`, and what lands tasks on it.

    `summary` is what is printed below a table once the rows have been.
    """

    def __init__(self, app: App, options: LandOptions, root: Path) -> None:
        self._app = app
        self._options = options
        self._root = root
        self._path, self._header = _journal_of(app, root, options.branch)
        self.summary: list[str] = []

    def status(self) -> Iterator[RowOrError]:
        """The row of each task, as the journal has it."""
        from ..land.land_journal import read

        return (line.row() for line in read(self._path, self._header).lines)

    def land(self, lines: list[LandLine]) -> Iterator[RowOrError]:
        """Land what has not landed yet, and yield the row of each task, or the error with it."""
        from ..land.landing import Landing, Steps
        from ..output.land_board import land_board

        app, options = self._app, self._options
        journal = self._opened(lines)
        try:
            onto = journal.state.started_at
            how = self._how(onto)
            with question_watcher(app, NO_LIMIT) as questions:
                steps = Steps(
                    partial(self._ended, questions),
                    self._patch,
                    self._rerun,
                    None if how is None else partial(self._checked, how, onto),
                )
                can_rerun = app.settings.is_own_service or options.push is not None
                reruns = options.reruns if can_rerun else 0
                landing = Landing(self._root, options.branch, journal, steps, reruns=reruns)
                try:
                    with land_board(app.console, partial(_board, landing)):
                        yield from self._told(landing)
                except (KeyboardInterrupt, Interrupted) as stop:
                    hint = f"Resume with `{join(['rebyte', *app.argv])}`"
                    raise Interrupted(Interrupted.of(stop).exit_status, hint=hint) from None
                finally:
                    self._finish(landing, journal.state.started_at)
        finally:
            journal.close()

    def _opened(self, lines: list[LandLine]) -> LandJournal:
        """The journal, for a branch that may be made or was begun with it."""
        from ..land.land_journal import LandJournal, forget
        from ..tasks import commit

        root, options, path = self._root, self._options, self._path
        onto = commit.revision(root, options.onto)
        is_begun = path.exists() and not options.force
        old = commit.check_branch(root, options.branch, force=options.force or is_begun)
        if not (old and is_begun):  # a branch that was deleted begins again
            forget(path)
        if options.force and old:
            commit.set_branch(root, options.branch, onto, old, "rebyte land --force")
        return LandJournal(path, self._header, lines, onto)

    def _told(self, landing: Landing) -> Iterator[RowOrError]:
        """The rows, with a note for each that has just landed where nothing else shows it.

        Another one names the files that tools run or read by themselves.
        """
        from ..tasks.patch import RISKS

        app = self._app
        over = {line.number for line in landing.lines if line.is_over}
        for row in landing.run():
            if not isinstance(row, RebyteError) and row["line"] not in over:
                title = row["title"]
                if row["risks"]:
                    heading = f"{title}: {RISKS[0].lower()}{RISKS[1:]}"
                    app.note("\n  ".join([heading, *row["risks"]]))
                if not app.console.live:
                    what = f" as {row['commit'][:SHORT]}" if row["commit"] else ": nothing new"
                    app.note(f"{row['line']}/{len(landing.lines)} {title}{what}")
            yield row

    def _finish(self, landing: Landing, onto: str) -> None:
        """Print the counts, and write the report."""
        from ..land import land_report

        every = [line.row() for line in landing.lines]
        said = land_report.counts(every)
        (self.summary.append if self._app.format == "table" else self._app.note)(said)
        if self._options.report is not None:
            land_report.write(self._options.report, self._options.branch, onto, every)

    def _how(self, commit: str) -> CheckCommand | None:
        """How tips are checked: as the options say, or `.rebyte.toml` where the branch begins."""
        checks = self._options.checks
        if not checks.no_check:
            file = repository_says(self._app, checks).at(str(self._root), commit)
            checks = checks.with_file(file)
        checks.require_check()
        return checks.usable_command()

    # The steps of a landing

    def _ended(self, questions: QuestionWatcher, task_id: str) -> Mapping[str, Any]:
        """The document of a task that has completed. Raises how it ended otherwise."""
        from ..tasks.wait import WaitTarget, patient, watch

        client = self._app.client
        patience = patient(client, NO_LIMIT)
        outcomes = watch(client, [WaitTarget(task_id)], patience=patience, pause=questions.pause)
        for outcome in outcomes:
            if isinstance(outcome, RebyteError):
                raise outcome
            return self._app.known.update(outcome)
        raise AssertionError("a wait ends with an outcome")

    def _patch(self, task_id: str) -> bytes:
        from ..tasks import patch

        client = self._app.client
        return patch.fetch(
            client, patch.source(client, task_id, self._app.known.workspace_of(task_id))
        )

    def _checked(
        self, how: CheckCommand, onto: str, tip: str, patch: bytes, name: str
    ) -> CheckOutcome:
        """Check a tip with a patch, and protected paths of the commit that the branch begins on."""
        from ..tasks import check
        from ..tasks.check_tree import Base

        return check.run(
            Base(self._root, tip),
            patch,
            how,
            state_dir=self._app.state_dir,
            config_file=self._app.config_path,
            name=name,
            trusted=onto,
        )

    def _rerun(self, task_id: str, key: str) -> str:
        """Run the prompt of a task on the tip of the branch, once per key; the new task's id."""
        from ..land.landing import Unlandable
        from ..tasks import create as engine
        from ..tasks import rerun
        from ..tasks.push import push_branch

        app, branch, push = self._app, self._options.branch, self._options.push
        created = engine.created_before(app.history, key)
        if created is not None:
            return str(created["id"])
        try:
            earlier = rerun.remembered(app.history, task_id) or rerun.Earlier({})
            rerun.check_files(task_id, earlier.files)
            prompt = rerun.first_prompt(app.client, app.history, task_id).text
        except RebyteError as error:
            if error.exit_status in (1, 4, 6):
                raise Unlandable(f"it cannot be run again: {error.message}") from None
            raise
        fields = {name: value for name, value in earlier.fields.items() if name != "workspaceId"}
        fields["branchName"] = branch
        if app.settings.is_own_service:
            fields["networkOf"] = task_id  # it gets no more than the earlier task had
            fields["localRepository"] = str(self._root)
            fields.setdefault("githubUrl", str(self._root))
        elif "githubUrl" not in fields:
            raise Unlandable("it cannot be run again: the history does not know its repository")
        if push is not None:
            push_branch(self._root, branch, push)
        body = {"prompt": prompt, **fields, **uploaded(app, earlier.files)}
        try:
            made = engine.create(
                app.client,
                app.history,
                body,
                prompt=prompt,
                key=key,
                labels=earlier.labels,
                files=earlier.files,
                note=app.note,
                warn=app.warn,
                pace=app.pace,
            )
        except APIError as error:
            if error.exit_status in (1, 4):
                raise Unlandable(f"it cannot be run again: {error.message}") from None
            raise
        return str(made["id"])


def _board(landing: Landing) -> list[Any]:
    from ..output.land_board import BoardRow

    rows = []
    for line in landing.lines:
        reason = str((line.error or {}).get("message") or "").partition("\n")[0]
        more = line.commit[:SHORT] if line.commit else reason
        rows.append(BoardRow(line.status, line.title or line.task, more))
    return rows
