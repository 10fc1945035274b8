"""Whatever commands a user combines, and whatever is killed meanwhile: what holds afterwards.

1. What models have served is counted, also for what was killed, canceled and deleted, and budgets
   are passed by no more than the requests under way.
2. No run reaches or uses more than its task, or the one that it repeats, was given.
3. A check has passed only if its command does.
4. Everything ends: runs, processes, locks; what was deleted is gone.
5. Every command ends with a documented status, and without a traceback.

A few sequences by default; REBYTE_TEST_COMBINATIONS=50 makes as many, and REBYTE_TEST_SEED moves on
to others. REBYTE_TEST_LOG names a file that gets the figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rebyte_cli.system.locks import is_locked
from tests.commands.test_usage_campaign import processes
from tests.conftest import COMMAND, Done
from tests.repositories import git, introduce
from tests.tools import need_jail
from tests.waiting import eventually

from . import combinations
from .bench import PYTHON
from .combinations import EACH, KEY, LoggingModel, Outside, tag_of

SEQUENCES = int(os.environ.get("REBYTE_TEST_COMBINATIONS", "2"))
FIRST = int(os.environ.get("REBYTE_TEST_SEED", "0"))
LOG = os.environ.get("REBYTE_TEST_LOG")
WIDTH = {"none": 0, "list": 1, "host": 2}
HOSTS = ("one.example", "two.example", "three.example")
AT_ONCE = 2  # runs at work
TASK = "task"
UNDER_WAY = 2  # requests of a run: its own, and those of a child
CHECK = "test ! -e bad && test -e ok || {{ echo mend {tag}; exit 3; }}"
STATUSES = {0, 1, 2, 4, 10, 11, 13, 124}
BROKEN = {5, 6}  # when a service is killed that is just asked
Run = Callable[..., Done]
Step = list[Any]


class Given(NamedTuple):
    """The options of a command that starts a run."""

    network: str | None = None
    allow: frozenset[str] = frozenset()
    tokens: int = 0  # of --budget, 0 without
    group: str = TASK  # what shares the budget: the runs of a task, or the batch of this name
    setup: bool = True


class Grant(NamedTuple):
    """What a run may reach, and use together with what else is in a `group`."""

    network: str = "list"
    allow: frozenset[str] = frozenset()
    group: str | None = None
    tokens: int = 0
    setup: bool = True

    def with_options(self, given: Given) -> Grant:
        """What a run may that follows one with this grant, or repeats it."""
        is_list = bool(given.allow) and given.network is None
        return Grant(
            "list" if is_list else given.network or self.network,
            self.allow | given.allow,
            given.group if given.tokens else self.group,
            given.tokens or self.tokens,
            self.setup and given.setup,
        )

    def or_also(self, other: Grant) -> Grant:
        """As much as one or the other."""
        has_limit = self.group is not None and self.group == other.group
        return Grant(
            max(self.network, other.network, key=WIDTH.__getitem__),
            self.allow | other.allow,
            self.group if has_limit else None,
            max(self.tokens, other.tokens) if has_limit else 0,
            self.setup or other.setup,
        )


class RunRow(NamedTuple):
    """One run in the database, and the tag of its prompt."""

    prompt: str
    task: str
    workspace: str
    tag: str | None
    started: int | None
    ended: int | None
    outcome: str | None
    options: dict[str, Any]
    used: dict[str, Any]


class Combination:
    """One seed: the commands of a user, and what they may come to."""

    def __init__(self, seed: int, run: Run, home: Path, model: LoggingModel, outside: Outside):
        self.luck = random.Random(seed)
        self.run, self.home, self.model, self.outside = run, home, model, outside
        self.state = home / ".local/state/rebyte/local"
        self.repository = home / "shop"
        self.day: int | None = None  # the budget of a day in tokens
        self.opened = frozenset[str]()  # hosts that the repository asks for
        # By tag: the options that were given, what was repeated (a task), and the options of
        # further commands that repeat the prompt itself.
        self.given: dict[str, Given] = {}
        self.repeats: dict[str, str] = {}
        self.again: defaultdict[str, list[Given]] = defaultdict(list)
        self.by_hand_in: dict[str, str] = {}  # the workspace of a command there
        self.plans: dict[str, list[Step]] = {}
        self.said: list[str] = []  # the commands and how they ended, for a failure
        self.wrong: list[str] = []
        self.service: subprocess.Popen[bytes] | None = None
        self.may_break = False  # a service was killed
        self.was_killed = False  # a command was
        self.behind: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self.deleted_workspaces: set[str] = set()
        self.branches: list[tuple[str, str]] = []
        self.count = 0

    # What there is

    def rows(self, sql: str, *values: Any) -> list[Any]:
        file = self.state / "service.db"
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as db:
            return db.execute(sql, values).fetchall()

    def runs(self) -> list[RunRow]:
        found = self.rows(
            "SELECT runs.prompt, runs.task, workspace, text, started, ended, outcome, options, used"
            " FROM runs JOIN prompts ON prompts.id = runs.prompt ORDER BY runs.seq"
        )
        return [
            RunRow(
                prompt,
                task,
                workspace,
                tag_of(text),
                started,
                ended,
                outcome,
                json.loads(options),
                json.loads(used or "{}"),
            )
            for prompt, task, workspace, text, started, ended, outcome, options, used in found
        ]

    def tasks(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT id FROM tasks WHERE deleted IS NULL")]

    def grants(self, runs: list[RunRow]) -> dict[str, Grant]:
        """What each run may, by its prompt."""
        found: dict[str, Grant] = {}
        of_task: dict[str, Grant] = {}  # the last one's
        ever: dict[str, Grant] = {}  # of a task: that of any of its runs
        begun_by: defaultdict[str, list[str]] = defaultdict(list)  # the tasks of a first prompt

        def any_of(grants: list[Grant]) -> Grant:
            return reduce(Grant.or_also, grants)

        for run in runs:
            given = self.given.get(run.tag or "", Given())
            if run.task in of_task:
                grant = of_task[run.task].with_options(given)
            elif run.tag and begun_by[run.tag]:
                before = any_of([ever[task] for task in begun_by[run.tag]])
                others = [before.with_options(options) for options in self.again[run.tag]]
                grant = any_of([before, *others])
            elif run.tag in self.repeats:
                grant = ever[self.repeats[run.tag]].with_options(given)
            else:
                grant = Grant().with_options(given)
            if run.task not in of_task:
                begun_by[run.tag or ""].append(run.task)
            found[run.prompt] = of_task[run.task] = grant
            ever[run.task] = any_of([grant, ever.get(run.task, grant)])
        return found

    # Commands

    def command(self, *words: str, cwd: Path | None = None) -> Done | None:
        """Run one command to its end."""
        try:
            done = self.run("-P", "local", *words, cwd=cwd or self.repository, timeout=120)
        except subprocess.TimeoutExpired:
            self.said.append(f"{' '.join(words)} -> still running")
            self.wrong.append(f"did not end: {words}")
            return None
        self.judge(" ".join(words), done.status, done.err)
        return done

    def start(self, *words: str) -> None:
        """Run one command in the background."""
        self.count += 1
        errors = self.home / f"errors-{self.count}"
        with errors.open("wb") as err, open(os.devnull, "wb") as out:
            process = subprocess.Popen(
                [*COMMAND, "-P", "local", *words], cwd=self.repository, stdout=out, stderr=err
            )
        self.said.append(f"{' '.join(words)} &")
        self.behind.append((" ".join(words), process, errors))

    def judge(self, words: str, status: int, err: str, sent: int = 0) -> None:
        self.said.append(f"{words} -> {status} {err.strip()[-300:]}")
        # A time limit may pass while a request is under way.
        allowed = STATUSES | (BROKEN if self.may_break or "--timeout" in words else set())
        self.was_killed |= status in BROKEN
        allowed |= {-sent, 128 + sent} if sent else set()
        if status not in allowed or "Traceback" in err:
            self.wrong.append(f"{words}: status {status}: {err}")

    def new_tag(self) -> str:
        return f"t{len(self.given)}"

    def steps(self, tag: str) -> list[Step]:
        """What a run does: it asks its model, and more."""
        luck, steps = self.luck, [["ask"] for _ in range(self.luck.randint(1, 6))]
        port = self.outside.server_port
        more: list[Step] = [["write", "ok", tag], ["write", f"{tag}.txt", tag]]
        more += [["write", "list.txt", tag]] if luck.random() < 0.5 else []
        more += [["visit", luck.choice(HOSTS)]] if luck.random() < 0.5 else []
        more += [["connect", port]] if luck.random() < 0.4 else []
        more += [["child", luck.choice([0, 3, 30])]] if luck.random() < 0.3 else []
        more += [["write", "bad", tag]] if luck.random() < 0.15 else []
        more += [["limit", 11]] if luck.random() < 0.06 else []
        steps += more
        luck.shuffle(steps)
        if luck.random() < 0.35:
            steps.append(luck.choice([["hang"], ["fail"], ["hang"]]))
        self.plans[tag] = steps
        return steps

    def options(self) -> tuple[list[str], Given]:
        """Options of a task."""
        given, luck, words = Given(), self.luck, list[str]()
        which = luck.random()
        if which < 0.3:
            host = luck.choice(HOSTS)
            words += ["--allow", host]
            given = given._replace(allow=frozenset({host}))
        elif which < 0.5:
            network = luck.choice(["none", "list", "host"])
            words += ["--network", network]
            given = given._replace(network=network)
        if luck.random() < 0.35:
            given = given._replace(tokens=luck.randint(1, 5) * EACH)
            words += ["--budget", f"{given.tokens}tok"]
        if luck.random() < 0.1:
            words += ["--on-limit", luck.choice(["stop", "wait"])]
        return words, given

    def prompt(self, given: Given) -> tuple[str, str]:
        """A new tag, and a prompt that has it."""
        tag = self.new_tag()
        self.given[tag] = given
        return tag, combinations.prompt(tag, self.steps(tag))

    def until(self, tag: str) -> list[str]:
        """How a command waits and checks."""
        if self.luck.random() < 0.5:
            return []
        words = ["--wait", "--timeout", f"{self.luck.choice([1, 2, 6])}s"]
        if self.luck.random() < 0.5:
            return words
        return [*words, "--check", CHECK.format(tag=tag), "--tries", "2"]

    def create(self) -> None:
        words, given = self.options()
        if self.luck.random() < 0.3:
            words, given = [*words, "--no-setup"], given._replace(setup=False)
        tag, text = self.prompt(given)
        more = self.until(tag)
        tasks = self.tasks()
        if self.luck.random() < 0.25 and tasks:
            words += ["-w", self.luck.choice(tasks)]
        else:
            words += ["-g", "."]
        words = ["create", text, "-x", "mine", *words, *more]
        if more and self.luck.random() < 0.4:
            self.start(*words)
            return
        done = self.command(*words, "-o", "json")
        if done is not None and "--check" in more and "-g" in words and done.status == 0:
            self.verify(done.json, tag)

    def verify(self, document: dict[str, Any], tag: str) -> None:
        """Repeat a check that has passed."""
        if (document.get("check") or {}).get("status") != "passed":
            return
        diff = self.run("-P", "local", "diff", document["id"], cwd=self.repository)
        if diff.status != 0:
            return
        clone = self.home / f"clone-{len(self.said)}"
        git(self.home, "clone", "-q", str(self.repository), str(clone))
        git(clone, "checkout", "-q", document.get("baseCommit") or "HEAD")
        words = ["git", "apply"]
        applied = subprocess.run(words, cwd=clone, input=diff.out, text=True, capture_output=True)
        if applied.returncode:
            self.wrong.append(f"passed, but cannot be applied: {document}: {applied.stderr}")
            return
        check = subprocess.run(["sh", "-c", CHECK.format(tag=tag)], cwd=clone, check=False)
        if check.returncode:
            self.wrong.append(f"passed, but does not: {document}")

    def one(self) -> str | None:
        tasks = self.tasks()
        return self.luck.choice(tasks) if tasks else None

    def follow_up(self) -> None:
        if task := self.one():
            words, given = self.options()
            tag, text = self.prompt(given)
            more = self.until(tag)
            words = ["follow-up", task, text, *words, *more]
            if more and self.luck.random() < 0.4:
                self.start(*words)
            else:
                self.command(*words)

    def sync(self) -> None:
        """A commit here, and a follow-up that has it."""
        if task := self.one():
            (self.repository / f"own-{len(self.said)}").write_text("x\n")
            git(self.repository, "add", ".")
            git(self.repository, "commit", "-qm", "More")
            _, text = self.prompt(Given())
            self.command("follow-up", task, text, "--sync")

    def rerun(self) -> None:
        if task := self.one():
            words, given = self.options()
            first = next((run.tag for run in self.runs() if run.task == task), None)
            if self.luck.random() < 0.5 or first is None:
                first, text = self.prompt(given)
                self.repeats[first] = task
                words += ["-p", text]
            else:
                self.again[first].append(given)
            words += ["--new-workspace"] if self.luck.random() < 0.5 else []
            self.command("rerun", task, *words, *self.until(first))

    def cancel(self) -> None:
        if task := self.one():
            self.command("cancel", task)

    def delete(self) -> None:
        if task := self.one():
            done = self.command("delete", task, "--yes")
            if done is not None and done.status == 0:
                shown = self.run("-P", "local", "get", task, cwd=self.repository)
                if shown.status != 4:
                    self.wrong.append(f"deleted, but shown: {task}")

    def delete_workspace(self) -> None:
        if task := self.one():
            rows = self.rows("SELECT workspace FROM tasks WHERE id = ?", task)
            done = self.command("workspace", "delete", rows[0][0], "--yes")
            if done is not None and done.status == 0:
                self.deleted_workspaces.add(rows[0][0])
                if (self.state / "workspaces" / rows[0][0] / "code").exists():
                    self.wrong.append(f"workspace {rows[0][0]} was deleted, and is there")

    def working(self) -> RunRow | None:
        """A run at work."""
        found = [run for run in self.runs() if run.started and not run.ended]
        return self.luck.choice(found) if found else None

    def kill_run(self) -> None:
        """Kill processes of a run at work."""
        if run := self.working():
            self.kill(run)

    def race(self) -> None:
        """End a run at work, and kill what ends it, or what is ended."""
        run = self.working()
        if run is None:
            return
        words = self.luck.choice(
            [
                ["cancel", run.task],
                ["delete", run.task, "--yes"],
                ["workspace", "delete", run.workspace, "--yes"],
            ]
        )
        self.start(*words)
        time.sleep(self.luck.uniform(0.1, 0.8))
        if self.luck.random() < 0.5:
            self.end_command(-1, signal.SIGKILL)
        if self.luck.random() < 0.5:
            self.kill(run)

    def kill(self, run: RunRow) -> None:
        found = processes(self.state / "workspaces" / run.workspace / "runs" / run.prompt)
        names = list(found)
        self.luck.shuffle(names)
        names = names[: self.luck.randint(1, 3)]
        for name in names:
            with suppress(ProcessLookupError):
                os.kill(found[name], signal.SIGKILL)
        self.said.append(f"kill -9 {names} of {run.tag}")

    def kill_command(self) -> None:
        """End a command in the background, one way or another."""
        if self.behind:
            numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
            self.end_command(self.luck.randrange(len(self.behind)), self.luck.choice(numbers))

    def end_command(self, place: int, number: signal.Signals) -> None:
        words, process, errors = self.behind.pop(place)
        self.was_killed |= number == signal.SIGKILL
        process.send_signal(number)
        status = process.wait(120)
        self.judge(f"kill -{number} of {words}", status, errors.read_text(), number)

    def toggle_service(self) -> None:
        """Start `local serve`, or kill it."""
        if self.service is None:
            self.service = subprocess.Popen(
                [*COMMAND, "-P", "local", "local", "serve", "--port", "0"],
                cwd=self.home,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self.service.stdout is not None
            assert self.service.stdout.readline()
            self.said.append("local serve &")
            return
        number = self.luck.choice([signal.SIGKILL, signal.SIGTERM])
        self.may_break = True
        self.service.send_signal(number)
        self.service.communicate(timeout=60)
        self.service = None
        self.said.append(f"kill -{number} of local serve")

    def land(self) -> None:
        ids = self.luck.sample(self.tasks(), min(len(self.tasks()), self.luck.randint(1, 3)))
        if not ids:
            return
        self.was_killed = True  # a time limit ends it below
        branch = f"b{len(self.said)}"
        words = ["land", *ids, "--branch", branch, "--rerun", "1"]
        if self.luck.random() < 0.6:
            words += ["--check", "test ! -e bad"]
            self.branches.append((branch, "test ! -e bad"))
        self.start(*words)

    def batch(self) -> None:
        """Two lines or three, some in one workspace, with a budget for all."""
        name, limit = f"batch-{len(self.said)}", self.luck.randint(2, 6) * EACH
        has_budget = self.luck.random() < 0.6
        lines = []
        words, given = self.options()
        while "--budget" in words or "host" in words:
            words, given = self.options()
        if has_budget:
            given = given._replace(group=name, tokens=limit)
            words += ["--budget", f"{limit}tok"]
        for number in range(self.luck.randint(2, 3)):
            line = {"key": f"k{number}", "prompt": self.prompt(given)[1]}
            if number and self.luck.random() < 0.5:
                line["workspaceId"] = "@k0"
            else:
                line["githubUrl"] = str(self.repository)
            lines.append(json.dumps(line))
        file = self.home / f"{name}.jsonl"
        file.write_text("\n".join(lines) + "\n")
        self.start("batch", str(file), "-x", "mine", "--wait", *words)

    def by_hand(self) -> None:
        """A command in the sandbox of a task."""
        if task := self.one():
            tag = self.new_tag()
            self.given[tag] = Given()
            self.by_hand_in[tag] = self.rows("SELECT workspace FROM tasks WHERE id = ?", task)[0][0]
            code = f"import sys; sys.argv = ['']; visit('{tag}', '{self.luck.choice(HOSTS)}')"
            code += f"; connect('{tag}', {self.outside.server_port})"
            program = str(self.home / "agent.py")
            self.command("workspace", "run", task, "--", PYTHON, "-I", program, code)

    def look(self) -> None:
        task = self.one()
        words = self.luck.choice(
            [
                ["usage"], ["list"], ["local", "status"], ["get", "T"], ["diff", "T"],
                ["logs", "T"],
                ["workspace", "git", "T", "--", "status", "--short"], ["attach", "T"],
                ["result", "T"], ["logs", "T", "--network"], ["local", "prune", "--older", "0s"],
                ["wait", "T", "--timeout", "2s"], ["apply", "T", "--yes", "--force"],
                ["apply", "T", "--branch", f"a{len(self.said)}"], ["workspace", "list"],
            ]
        )  # fmt: skip
        if task or "T" not in words:
            words = [str(task) if word == "T" else word for word in words]
            copy = self.home / "copy"
            done = self.command(*words, cwd=copy if words[0] == "apply" else None)
            if words[:2] == ["local", "prune"] and done is not None:
                self.said.append(done.out[:200])

    def pause(self) -> None:
        time.sleep(self.luck.choice([0.05, 0.3, 1]))

    def go(self) -> None:
        """Run the commands, and let everything end."""
        self.model.seconds = self.luck.choice([0.02, 0.1, 0.5])
        choices = {
            self.create: 6, self.follow_up: 4, self.rerun: 3, self.cancel: 2, self.delete: 2,
            self.delete_workspace: 1, self.kill_run: 3, self.kill_command: 2, self.pause: 2,
            self.toggle_service: 1, self.land: 2, self.batch: 1, self.by_hand: 2, self.look: 4,
            self.sync: 1, self.race: 4,
        }  # fmt: skip
        self.create()
        for _ in range(self.luck.randint(12, 24)):
            self.luck.choices(list(choices), list(choices.values()))[0]()
        self.settle()

    def settle(self) -> None:
        def ended() -> bool:
            for task in {run.task for run in self.runs() if not run.ended} & set(self.tasks()):
                self.command("cancel", task)
            for each in list(self.behind):
                words, process, errors = each
                if process.poll() is not None:
                    self.behind.remove(each)
                    self.judge(words, process.returncode, errors.read_text())
            return not self.behind and not any(not run.ended for run in self.runs())

        if self.tasks():
            self.command("wait", *self.tasks(), "--timeout", "3s")
        try:
            eventually(ended, seconds=120, told=self.runs)
        except AssertionError as error:
            self.wrong.append(f"not ended: {error}, {self.behind}")
        if self.service is not None:
            self.service.terminate()
            self.service.communicate(timeout=60)

    # What holds

    def check(self) -> str:
        """Compare what has happened with what may; the figures."""
        self.check_ends()
        listed = self.command("list", "--all", "-o", "json")
        assert listed is not None
        assert listed.status == 0, listed.err
        documents = {task["id"]: task for task in listed.json["data"]}
        for task in documents.values():
            is_final = task["status"] in ("completed", "failed", "canceled")
            self.hold(is_final, f"not final: {task}")
        runs = self.runs()
        self.check_usage(runs, documents)
        grants = self.grants(runs)
        self.check_budgets(runs, grants)
        self.check_reach(runs, grants)
        self.check_branches()
        assert not self.wrong, "\n".join([*self.wrong, "", *self.said])
        kinds = Counter(said.split()[0] for said in self.said)
        return (
            f"{len(self.said)} commands, {len(runs)} runs, {len(self.model.asked)} requests,"
            f" {len(self.outside.visits)} visits: {dict(kinds)}"
        )

    def hold(self, fact: object, what: str) -> None:
        if not fact:
            self.wrong.append(what)

    def check_ends(self) -> None:
        mine = {os.getpid()}
        try:
            eventually(
                lambda: not combinations.processes_below(self.home).keys() - mine,
                seconds=30,
                told=lambda: combinations.processes_below(self.home),
            )
        except AssertionError as error:
            self.wrong.append(f"left: {error}")
        locked = [str(file) for file in self.state.rglob("*") if file.is_file() and is_locked(file)]
        self.hold(not locked, f"locked: {locked}")
        log = self.state / "service.log"
        text = log.read_text() if log.exists() else ""
        self.hold("Traceback" not in text, f"service.log: {text[-3000:]}")
        for run in self.runs():
            ends = [
                step[0] for step in self.plans.get(run.tag or "", []) if step[0] in ("hang", "fail")
            ]
            self.hold(run.outcome != "succeeded" or not ends, f"did not succeed: {run}")
        if not self.was_killed:
            left = os.listdir(self.home / "tmp")
            self.hold(not left, f"in the folder for temporary files: {left}")
        for workspace in self.deleted_workspaces:
            later = self.rows(
                "SELECT 1 FROM runs WHERE workspace = ? AND started IS NOT NULL", workspace
            )
            folder = self.state / "workspaces" / workspace
            self.hold(later or not folder.exists(), f"{folder} is there")

    def check_usage(self, runs: list[RunRow], documents: dict[str, Any]) -> None:
        served = Counter(asked.tag for asked in self.model.asked if not asked.inside)
        counted, uncounted, tokens = Counter[str](), Counter[str](), Counter[str]()
        by_task: defaultdict[str, int] = defaultdict(int)
        for run in runs:
            tag = run.tag or "none"
            hidden = run.used.get("uncounted", {}).get("requests", 0)
            counted[tag] += run.used.get("requests", 0)
            uncounted[tag] += hidden
            tokens[tag] += run.used.get("input_tokens", 0) + run.used.get("output_tokens", 0)
            by_task[run.task] += run.used.get("requests", 0)
        for tag in served.keys() | counted.keys():
            sure = counted[tag] - uncounted[tag]
            what = f"{tag}: served {served[tag]}, counted {counted[tag]}, {uncounted[tag]} unknown"
            self.hold(sure <= served[tag] <= counted[tag], what)
            self.hold(tokens[tag] == EACH * sure, f"{what}, {tokens[tag]} tokens")
        for task, document in documents.items():
            shown = (document.get("usage") or {}).get("requests", 0)
            self.hold(shown == by_task[task], f"{task}: {shown} shown, {by_task[task]} recorded")
        done = self.command("usage", "-o", "json")
        assert done is not None
        sums = done.json["data"]
        said = sums[0]["requests"] if sums else 0
        # The history may not know a task whose command was killed.
        least = 0 if self.was_killed else sum(by_task[task] for task in documents)
        self.hold(least <= (said or 0) <= sum(by_task.values()), f"usage says {said} of {least}")

    def check_budgets(self, runs: list[RunRow], grants: dict[str, Grant]) -> None:
        """What shares tags or budgets has used no more than all of their budgets, and a little."""
        parts: list[tuple[set[str], dict[str, int], bool]] = []
        for run in runs:
            if run.tag is None:
                continue
            grant = grants[run.prompt]
            group = run.task if grant.group in (TASK, None) else str(grant.group)
            tags, limits, is_limited = {run.tag}, {group: grant.tokens}, grant.group is not None
            for part in [p for p in parts if p[0] & tags or p[1].keys() & limits.keys()]:
                parts.remove(part)
                tags |= part[0]
                limits = {g: max(limits.get(g, 0), part[1].get(g, 0)) for g in limits | part[1]}
                is_limited &= part[2]
            parts.append((tags, limits, is_limited))
        served = Counter(asked.tag for asked in self.model.asked)
        for tags, limits, is_limited in parts:
            used = EACH * sum(served[tag] for tag in tags)
            most = sum(limits.values()) + EACH * AT_ONCE * UNDER_WAY * len(limits)
            self.hold(not is_limited or used <= most, f"{tags}: {used} tokens of {limits}")
        if self.day is not None:
            used = EACH * len(self.model.asked)
            most = self.day + EACH * AT_ONCE * UNDER_WAY
            self.hold(used <= most, f"{used} tokens of {self.day} a day")

    def check_reach(self, runs: list[RunRow], grants: dict[str, Grant]) -> None:
        of_tag: dict[str, Grant] = {}
        for run in runs:
            grant, options = grants[run.prompt], run.options
            tags = [run.tag or "none"]
            tags += [tag for tag, place in self.by_hand_in.items() if place == run.workspace]
            for tag in tags:
                of_tag[tag] = grant.or_also(of_tag.get(tag, grant))
            self.hold(options["jail"], f"{run} has no jail")
            is_less = WIDTH[options["network"]] <= WIDTH[grant.network]
            is_less &= set(options["allow"]) <= grant.allow
            self.hold(is_less, f"{run} reaches more than {grant}")
            limits = [each["tokens"] for each in options["budgets"] if each["of"] != "day"]
            is_limited = grant.group is None or (limits and max(limits) <= grant.tokens)
            self.hold(is_limited, f"{run} has not the budget of {grant}")
            sql = 'SELECT 1 FROM run_events WHERE prompt = ? AND payload LIKE \'%"id": "setup"%\''
            self.hold(grant.setup or not self.rows(sql, run.prompt), f"{run} had a setup")
        for host, tag in self.outside.visits:
            grant = of_tag[tag]
            allow = grant.allow | self.opened
            may = grant.network == "host" or (grant.network == "list" and host in allow)
            self.hold(may, f"{tag} reached {host}, with {grant}")
        for asked in self.model.asked:
            may = not asked.inside or of_tag[asked.tag].network == "host"
            self.hold(may, f"{asked.tag} had the key")

    def check_branches(self) -> None:
        for branch, check in self.branches:
            found = git(self.repository, "for-each-ref", f"refs/heads/{branch}").strip()
            names = git(self.repository, "ls-tree", "--name-only", branch).split() if found else []
            self.hold("bad" not in names, f"{branch} does not pass {check}: {names}")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoggingModel]:
    with LoggingModel(0.1) as server:
        combinations.serve(server)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        yield server
        server.shutdown()


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    with Outside() as server:
        combinations.serve(server)
        yield server
        server.shutdown()


@pytest.fixture
def user(
    rebyte: Run, home: Path, model: LoggingModel, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Combination]:
    """The user of a seed, with an agent, a repository and a clone of it."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_LOCAL_QUIET", "1")
    for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, outside.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    (home / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    introduce(home)
    shop = home / "shop"
    shop.mkdir()
    git(shop, "init", "-qb", "main")
    (shop / "list.txt").write_text("first\n")
    git(shop, "add", ".")
    git(shop, "commit", "-qm", "Begin")
    git(home, "clone", "-q", str(shop), str(home / "copy"))

    def make(seed: int) -> Combination:
        made = Combination(seed, rebyte, home, model, outside)
        local = f"[local]\nparallel = {AT_ONCE}\nlimit = '5m'\n"
        if made.luck.random() < 0.2:
            made.day = made.luck.randint(5, 40) * EACH
            local += f'budget_per_day = "{made.day}tok"\n'
        configure(home, local)
        if made.luck.random() < 0.5:
            made.opened = frozenset({HOSTS[2]})
            file = f'setup = "echo x > made"\nallow = ["{HOSTS[2]}"]\n'
            (shop / ".rebyte.toml").write_text(file)
            git(shop, "add", ".")
            git(shop, "commit", "-qm", "Say how")
            assert rebyte("-P", "local", "local", "trust", "--yes", cwd=shop).status == 0
        return made

    return make


def configure(home: Path, local: str) -> None:
    program = home / "agent.py"
    program.write_text(combinations.AGENT)
    folders = [str(program), os.path.dirname(os.path.dirname(PYTHON))]
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f"{local}[local.agents.mine]\ncommand = {[PYTHON, '-I', str(program)]}\n"
        f'read = {folders}\nmodel = "anthropic"\n'
    )
    config.chmod(0o600)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEQUENCES))
def test_whatever_is_combined(user: Callable[[int], Combination], seed: int) -> None:
    combination = user(seed)
    combination.go()
    said = combination.check()
    if LOG:
        with open(LOG, "a") as log:
            log.write(f"seed {seed}: {said}\n")
