"""Runs of agents without the service around them: what a supervisor does, seen from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents import config
from rebyte_cli.local.agents.adapters.adapter import Adapter
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.agents.supervision import recovery, run_lock, runs, spawn
from rebyte_cli.local.agents.supervision.runs import RunRecord
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
from rebyte_cli.local.run_interface import ScheduledEvent
from rebyte_cli.local.store import Store, new_id
from tests.tools import need_jail as need_jail  # for the tests in this folder
from tests.waiting import eventually

PATIENCE = 90.0
# How an agent sleeps, more digits to follow: tests of another checkout have other processes.
NAP = f"77.{os.getpid():08}"
PYTHON = os.path.realpath(sys.executable)


class Bench:
    """A state folder, and runs in it that a real supervisor looks after."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.folder = folder

    def start(
        self,
        agent: Adapter | list[str],
        prompt: str = "Say hello",
        *,
        workspace: str = "ws",
        task: str | None = None,
        **options: Any,
    ) -> str:
        """Queue a run and start its supervisor; the id of its prompt."""
        adapter = (
            ProgramAdapter(command=tuple(agent), label="mine") if isinstance(agent, list) else agent
        )
        now, prompt_id, task = self.store.now(), new_id(), task or new_id()
        chosen = {
            "parallel": 2, "adapter": config.describe(adapter), "uploads": [],
            "source": [None, None, False], "skills": [], "model": None, "jail": True, "limit": 600,
            "stall": 600, **options,
        }  # fmt: skip
        lock = run_lock.take_new(self.folder, workspace, prompt_id)
        with self.store.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO tasks (id, workspace, created, executor, model, title)"
                " VALUES (?, ?, ?, ?, '', 'null')",
                (task, workspace, now, adapter.title),
            )
            db.execute(
                "INSERT INTO prompts (id, task, text, executor, model, submitted, plan, answer)"
                " VALUES (?, ?, ?, ?, '', ?, '{}', '')",
                (prompt_id, task, prompt, adapter.title, now),
            )
            runs.add(db, (task, workspace, prompt_id), adapter.title, now, chosen)
            before = run_lock.locks_before(db, self.folder, prompt_id)
        spawn.start(self.folder, prompt_id, lock, chosen, before)
        return prompt_id

    def look(self, prompt: str) -> RunRecord:
        """The run as it is now."""
        recovery.recover(self.store)
        with self.store.read() as db:
            return runs.load(db, [prompt])[prompt]

    def events(self, prompt: str) -> list[ScheduledEvent]:
        with self.store.read() as db:
            return runs.events(db, prompt)

    def said(self, prompt: str) -> str:
        """What the agent has said so far, one event after another."""
        return "\n".join(e.payload["content"] for e in self.events(prompt) if e.kind == "text")

    def wait(self, prompt: str) -> RunRecord:
        """The run when it has ended and its supervisor has gone."""

        def over() -> RunRecord | None:
            run = self.look(prompt)
            return None if run.ended is None or run_lock.is_held(self.folder, run) else run

        def state() -> object:
            return self.look(prompt), self.log()

        run = eventually(over, seconds=PATIENCE, what="the end", told=state)
        assert run is not None
        return run

    def until_started(self, prompt: str) -> RunRecord:
        """The run when its agent has said something (a line in its raw output)."""

        def said() -> bool:
            output = self.run_folder(prompt) / "output"
            return output.exists() and output.stat().st_size > 0

        eventually(said, seconds=PATIENCE, what="a word of the agent", told=self.log)
        return self.look(prompt)

    def cancel(self, prompt: str) -> None:
        """Record the cancel first and kill then, as the service does."""
        with self.store.write() as db:
            runs.end(db, prompt, self.store.now(), "canceled", "")
        recovery.stop(self.folder, self.look(prompt))

    def run(
        self, agent: Adapter | list[str], prompt: str = "Say hello", **options: Any
    ) -> RunRecord:
        return self.wait(self.start(agent, prompt, **options))

    def workspace(self, name: str = "ws") -> Workspace:
        return Workspace(self.folder, name)

    def run_folder(self, prompt: str) -> Path:
        return self.workspace(self.look(prompt).workspace).run_folder(prompt)

    def supervisor(self, prompt: str) -> int:
        """The process id of the run's supervisor."""
        lock = self.run_folder(prompt) / "lock"
        return int(eventually(lambda: lock.read_text().split())[0])

    def artifact(self, name: str, workspace: str = "ws") -> str | None:
        with self.store.read() as db:
            row = db.execute(
                "SELECT object FROM artifacts WHERE workspace = ? AND filename = ?",
                (workspace, name),
            ).fetchone()
        return None if row is None else (self.store.objects / row[0]).read_text()

    def log(self) -> str:
        path = self.folder / "service.log"
        return path.read_text() if path.exists() else ""


def script(folder: Path, name: str, text: str, interpreter: str = "/bin/sh") -> str:
    """A program with this text; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!{interpreter}\n{text}")
    path.chmod(0o755)
    return str(path)


def python(code: str, model: str = "") -> ProgramAdapter:
    """An agent that is this Python with `code`; the API of its `model`, if it has one."""
    return ProgramAdapter(
        command=(PYTHON, "-I", "-c", code),
        label="mine",
        own_model=(model, "", "") if model else (),
        extra_paths=(sys.base_prefix,),
    )


def processes(word: str) -> list[str]:
    """The command lines of running processes that contain `word`, except this one's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line and int(folder.name) != os.getpid():
            found.append(line)
    return found


def gone(word: str) -> bool:
    """Whether no process with `word` in its command line is left, after a moment to die in."""
    with suppress(AssertionError):
        return eventually(lambda: not processes(word), seconds=PATIENCE)
    return False


def kinds(events: Iterable[ScheduledEvent]) -> list[str]:
    return [event.kind for event in events]


def have(*programs: str) -> bool:
    return all(map(shutil.which, programs))


def with_mounts(folder: Path, mounting: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in the folder once a script has mounted there, or skip the test."""
    words = ["sh", "-c", mounting, "sh", sys.executable, "-c", code]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 9 or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted in user namespaces here")
    return done
