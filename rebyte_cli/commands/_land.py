"""What `rebyte land` does, once its command line is understood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from shlex import join
from typing import Any, NamedTuple

from ..app import App
from ..errors import (
    APIError,
    BadUsage,
    Interrupted,
    NotFound,
    PromptChanged,
    RebyteError,
    RowOrError,
    too_busy,
)
from ..land import land_report
from ..land.land_journal import LandJournal, LandLine, forget, read
from ..land.landing import Landing, Steps, Unlandable
from ..output.land_board import BoardRow, land_board
from ..system import trust
from ..system.deadline import NO_LIMIT
from ..system.permissions import private_folder
from ..tasks import check, commit, patch, rerun
from ..tasks import create as engine
from ..tasks.check import CheckCommand, CheckOutcome
from ..tasks.check_tree import Base
from ..tasks.push import push_branch
from ..tasks.question_watch import QuestionWatcher
from ..tasks.risks import HEADING
from ..tasks.wait import WaitTarget, patient, watch
from ._check import CheckOptions, repository_says
from ._options import chosen_tasks, refuse, uploaded
from ._stdin import read_bytes
from ._wait import question_watcher

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


def _journal_of(app: App, root: Path, branch: str) -> tuple[Path, Mapping[str, str]]:
    """Where the journal of a branch is, and what it begins with."""
    header = {
        "origin": app.settings.origin,
        "repository": trust.key_of(root, patch.own_repository()),
        "branch": branch,
    }
    name = hashlib.sha256(json.dumps(header).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    folder = app.state_dir / "land"
    private_folder(folder)
    return folder / f"{name}.journal", header


# What is to land


def lines_to_land(app: App, tasks: tuple[str, ...], results: str | None) -> list[LandLine]:
    """The tasks that were named, or those in the results of a batch. Raises BadUsage for none."""
    if not tasks and results is None:
        raise BadUsage("no tasks: name them, or use --results FILE")
    refuse({"TASK and --results": tasks and results is not None})
    if results is not None:
        return _of_results(results, app.settings.profile)
    try:
        ids = chosen_tasks(app, tasks)
    finally:  # whatever a name stood for, if it could not be looked up
        app.history.check()
    return [LandLine(number, task_id) for number, task_id in enumerate(ids, 1)]


def _of_results(file: str, place: str) -> list[LandLine]:
    """The tasks of a batch; lines without one are left out and named, those that failed too."""
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
        return (line.row() for line in read(self._path, self._header).lines)

    def land(self, lines: list[LandLine]) -> Iterator[RowOrError]:
        """Land what has not landed yet, and yield the row of each task, or the error with it."""
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
                    app.history.check,
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
        app = self._app
        over = {line.number for line in landing.lines if line.is_over}
        for row in landing.run():
            if not isinstance(row, RebyteError) and row["line"] not in over:
                title = row["title"]
                if row["risks"]:
                    heading = f"{title}: {HEADING[0].lower()}{HEADING[1:]}"
                    app.note("\n  ".join([heading, *row["risks"]]))
                if not app.console.live:
                    what = f" as {row['commit'][:SHORT]}" if row["commit"] else ": nothing new"
                    app.note(f"{row['line']}/{len(landing.lines)} {title}{what}")
            yield row

    def _finish(self, landing: Landing, onto: str) -> None:
        """Print the counts, and write the report."""
        every = [line.row() for line in landing.lines]
        said = land_report.counts(every)
        (self.summary.append if self._app.format == "table" else self._app.note)(said)
        if self._options.report is not None:
            land_report.write(self._options.report, self._options.branch, onto, every)

    def _how(self, onto: str) -> CheckCommand | None:
        """How tips are checked: as the options say, or `.rebyte.toml` where the branch begins."""
        checks = self._options.checks
        if not checks.no_check:
            file = repository_says(self._app, checks).at(str(self._root), onto)
            checks = checks.with_file(file)
        checks.require_check()
        return checks.usable_command()

    # The steps of a landing

    def _ended(self, questions: QuestionWatcher, task_id: str) -> Mapping[str, Any]:
        """The document of a task that has completed. Raises how it ended otherwise."""
        client = self._app.client
        patience = patient(client, NO_LIMIT)
        outcomes = watch(client, [WaitTarget(task_id)], patience=patience, pause=questions.pause)
        for outcome in outcomes:
            if isinstance(outcome, RebyteError):
                raise outcome
            return self._app.known.update(outcome)
        raise AssertionError("a wait ends with an outcome")

    def _patch(self, task_id: str, workspace: str | None) -> bytes:
        client, known = self._app.client, self._app.known
        return patch.fetch(
            client, patch.source(client, task_id, workspace or known.workspace_of(task_id))
        )

    def _checked(
        self, how: CheckCommand, onto: str, tip: str, changes: bytes, name: str
    ) -> CheckOutcome:
        """Check a tip with a patch, and protected paths of the commit that the branch begins on."""
        return check.run(
            Base(self._root, tip),
            changes,
            how,
            state_dir=self._app.state_dir,
            config_file=self._app.config_path,
            name=name,
            trusted=onto,
        )

    def _rerun(self, task_id: str, key: str) -> Mapping[str, Any]:
        """Run the prompt of a task on the tip of the branch, once per key; the new task.

        Raises Unlandable if that is refused, or if what it needs of the first one is gone.
        """
        try:
            created = engine.created_before(self._app.history, key)
            return self._created(task_id, key) if created is None else created
        except (APIError, NotFound, PromptChanged) as error:
            is_refused = error.exit_status in (1, 4) or isinstance(error, PromptChanged)
            if not is_refused or (isinstance(error, APIError) and too_busy(error)):
                raise
            raise Unlandable(f"it cannot be run again: {error.message}") from None

    def _created(self, task_id: str, key: str) -> Mapping[str, Any]:
        app, branch, push = self._app, self._options.branch, self._options.push
        earlier = rerun.remembered(app.history, task_id) or rerun.Earlier({})
        rerun.check_files(task_id, earlier.files)
        prompt = rerun.first_prompt(app.client, app.history, task_id).text
        app.history.check()  # before anything is made of what it could not tell
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
        return engine.create(
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


def _board(landing: Landing) -> list[Any]:
    rows = []
    for line in landing.lines:
        reason = str((line.error or {}).get("message") or "").partition("\n")[0]
        more = line.commit[:SHORT] if line.commit else reason
        rows.append(BoardRow(line.status, line.title or line.task, more))
    return rows
