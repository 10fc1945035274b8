"""A run whose agent the user operates: its own screen, in the terminal of the command."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

from ....system import process_identity
from ...http import Refusal
from ...store import Store
from ...task_store import add_prompt
from ..adapters.adapter import Adapter, Invocation, Outcome, Parser, end_of_process
from ..sandbox import relay
from ..workspaces.workspace_folder import Workspace
from . import run_lock, runs, supervisor
from .admission import Admission
from .by_hand import busy, last_run

PROMPT = "(attached: the agent's own screen)"
QUIT = (0, 130)  # a program that Ctrl-C ends may say so


def attach(state_dir: Path, config_file: Path | None, task: str) -> tuple[int, str]:
    """Open the agent's own screen on the session of a task, as a run of it.

    Returns the exit status of the agent, and why it was stopped. Raises Refusal when it has no
    screen or no session, when a run is at work, or what a new run raises.
    """
    with Store(state_dir) as store:
        with store.read() as db:
            found = runs.last_options(db, task)
            if found is None:
                raise Refusal(409, "no_screen", f"task {task} is simulated: no agent works on it")
            agent, options = found
            (workspace,) = db.execute(
                "SELECT workspace FROM tasks WHERE id = ?", (task,)
            ).fetchone()
            session = runs.last_session(db, task, agent)
        admitted = Admission(store, config_file).admit(agent, {}, options, on_screen=True)
        if not admitted.adapter.screen(Invocation(None, session, "", "")):
            raise Refusal(409, "no_screen", f"{agent} is a program without a screen and sessions")
        if session is None or not Workspace(state_dir, workspace).is_there:
            raise Refusal(409, "no_screen", f"{agent} has left no session in task {task}")
        last_run(store, workspace)
        with store.write() as db:
            now = store.now()
            prompt = add_prompt(db, task, PROMPT, (agent, admitted.model), now)
            admitted.record(db, (task, workspace, prompt), now, ())
            db.execute("UPDATE tasks SET unsettled = 1 WHERE id = ?", (task,))
            lock = admitted.lock()
            if lock is None:
                raise busy(workspace)
        return _Screen(store, prompt, lock).open()


class _Screen(supervisor.Supervisor):
    """A run whose agent the user operates, in the process of the command."""

    on_screen = True

    def __init__(self, store: Store, prompt: str, lock: int) -> None:
        super().__init__(store, prompt, lock)
        run_lock.say(lock, process_identity.identity(os.getpid()))
        self._status: int | None = None
        self._reason = ""
        signal.signal(signal.SIGINT, self._on_term)  # from elsewhere: Ctrl-C is the agent's

    def open(self) -> tuple[int, str]:
        """Work to the recorded end: the agent's exit status, or why it came to none."""
        self.run()
        return (1, self._reason) if self._status is None else (self._status, "")

    def _agent(self, adapter: Adapter, session: str | None) -> tuple[Outcome, bool]:
        outcome, _ = super()._agent(adapter, session)
        if self._status is None:  # it was stopped
            return outcome, False
        if self._status not in QUIT:
            reason = f"{self._run.agent} {end_of_process(self._status)}"
            return Outcome(False, "", reason, {}), False
        with self._store.read() as db:
            return Outcome(True, runs.last_answer(db, self._run.task), "", {}), False

    def _execute(
        self, start: supervisor.AgentStart, prompt: str, parser: Parser
    ) -> tuple[int, str]:
        watch = partial(self._watch, start.egress)
        status, reason = relay.lend(start.program, watch, start.logins.passed)
        self._status = None if reason else status
        return status, reason

    def _record(self, outcome: Outcome) -> None:
        self._reason = outcome.reason
        super()._record(outcome)
