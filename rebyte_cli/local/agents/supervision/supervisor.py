"""The process that looks after one run: it waits its turn, starts the agent and records it all.

It outlives the command that started it, the terminal and `local serve`. It imports little: it is
started for every run, and waits in memory for as long as the agent works.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple, NoReturn

from ....system import git
from ....system.deadline import Deadline
from ....system.files import tail
from ....system.git import GitFailed
from ....system.repository_file import RepositoryFileError
from ...artifact_store import PATCH_FILE
from ...gateway.model_prices import ModelPrices
from ...http import stamp
from ...store import StateError, Store, new_id
from .. import config
from ..adapters import programs
from ..adapters.adapter import Adapter, AgentEvent, Invocation, Outcome, Parser, User
from ..adapters.lines import TimeLimits, pump
from ..adapters.model_access import LoginExpired
from ..cluster import launcher, node
from ..cluster.launched_group import LaunchedGroup
from ..limits import usage_limit
from ..limits.run_meter import NOTHING, RunMeter
from ..limits.usage_limit import REACHED, LimitWatch, UsageLimitReached
from ..sandbox import jail, user_tools
from ..sandbox.egress import LIST, Egress, RunStopped, access_of, egress_for, network_of
from ..sandbox.jail_group import JailGroup, end_rest
from ..sandbox.jailed_program import JailedProgram, prepare, prompt_file
from ..sandbox.login_copies import LoginCopies
from ..sources import lenders
from ..workspaces import tryout
from ..workspaces.agent_home import AgentHome, LinkInTheWay
from ..workspaces.disarm import remember_origin
from ..workspaces.restore import restore
from ..workspaces.setup_cache import CacheFailed, SetupCache
from ..workspaces.sync import complete_merge
from ..workspaces.workspace_folder import UploadedFile, Workspace, WorkspaceSource
from . import outbox, recovery, repository_asks, run_lock, runs, spawn
from .disk_space import sweep
from .outbox import Outbox, patient_store, patiently
from .repository_asks import RepositoryAsks
from .run_budget import RunBudgets, why_uncounted
from .run_results import bury, collect, make_git_safe, put_aside
from .transcript_writer import TranscriptWriter

RAW_FILE, STDERR_FILE = "output", "stderr"
STDERR_READ = 20_000
MOST_READ = 16  # MiB of the record of requests, before anything else is looked after
LOOK_SECONDS = 1.0  # between two looks whether the run was canceled
CLONE_SECONDS = 5.0  # before the transcript says that a clone takes time
LONGEST_ANSWER = 1_000_000
CONTINUE = "A usage limit interrupted you, and is reset now. Continue with what you were asked:"


class Phase(Enum):
    """What SIGTERM does, which a cancel and a shutdown send."""

    WORKING = "stop the run"
    STARTING = "stop the run once a `with` has the jail: before, that would be left alive"
    ENDING = "nothing: the run is ending"
    RECORDING = "give up what the database does not take; the next look at the run records its end"


class RunFailed(Exception):
    """The run cannot succeed; the text says why."""


class AgentStart(NamedTuple):
    """An agent that is about to start, its way to the network, its logins, and the variables that a
    launcher does not get."""

    program: JailedProgram
    egress: Egress
    logins: LoginCopies
    hidden: frozenset[str]


def look_after(state_dir: str, prompt_id: str, lock: int, probe: int | None = None) -> None:
    """Look after one run, whose turn it is, to its end.

    `probe` is the lock of the run that tries whether a usage limit is reset.
    """
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A shell's background process ignores these, and so would the agent and its tools.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    Supervisor(patient_store(state_dir), prompt_id, lock, probe).run()


class Supervisor:
    """One run, from its turn to its recorded end.

    Where the agent is `on_screen`, with a terminal instead of a prompt, screen_run.py replaces
    `_agent`, `_execute` and `_record`.
    """

    on_screen = False

    def __init__(self, store: Store, prompt_id: str, lock: int, probe: int | None = None) -> None:
        self._store = store
        self._state_dir = store.folder
        self._lock = lock
        self._phase = Phase.WORKING
        self._was_signaled = False
        with store.read() as db:
            row = db.execute(
                "SELECT runs.*, prompts.text FROM runs JOIN prompts ON prompts.id = runs.prompt"
                " WHERE prompt = ?",
                (prompt_id,),
            ).fetchone()
        self._run = runs.RunRecord(*(row[name] for name in runs.RunRecord._fields))
        self._seq = row["seq"]
        self._prompt: str = row["text"]
        self._options: dict[str, Any] = json.loads(row["options"])
        self._workspace = Workspace(self._state_dir, self._run.workspace)
        self._folder = self._workspace.run_folder(prompt_id)
        self._began = 0
        self._outbox = Outbox(self._folder / outbox.FILE, self._write)
        self._transcript = TranscriptWriter(store, prompt_id, self._outbox)
        prices = ModelPrices.of_options(self._options)
        limited = self._options.get("limitedModel"), self._options.get("limitedRoute")
        self._meter = RunMeter(self._folder, prices, *limited)
        self._budgets = RunBudgets(store, self._run, self._options)
        self._limit = LimitWatch(store.folder, self._options, self._meter, probe)
        self._ended_by = ""  # `budget` or `limit`
        self._has_ended = False  # as another process recorded it
        self._next_look = Deadline(LOOK_SECONDS)
        self._parser: Parser | None = None

    def run(self) -> None:
        """Work, and record the end, whatever happens."""
        if self._run.ended is not None:
            return
        try:
            signal.signal(signal.SIGTERM, self._on_term)
            self._run_to_end()
        except RunStopped:  # the database cannot be written; the next look records the end
            return

    def _run_to_end(self) -> None:
        outcome = self._try(self._begin)
        self._phase = Phase.ENDING
        with contextlib.suppress(launcher.JobStays):  # it is told of below
            launcher.end_job(self._state_dir, self._folder)
        run_lock.say(self._lock, run_lock.AGENT_IS_GONE)
        found, problem = collect(self._workspace, self._run.prompt, self._options, self._tell_late)
        if found is not None:
            problem = put_aside(self._workspace, self._run.prompt, found) or problem
        self._record(_with_note(outcome, problem) if problem else outcome)
        self._tell_webhooks()
        with contextlib.suppress(OSError):
            self._workspace.measure()
        sweep(self._store)

    def _try(self, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of `work`; every failure is one, with its reason."""
        try:
            return work()
        except RunStopped:
            reason = "The run was stopped by a signal"
        except UsageLimitReached:
            return self._try(self._wait_or_end)
        except (RunFailed, LinkInTheWay, GitFailed, config.ConfigError, LoginExpired) as error:
            reason = str(error)
        except OSError as error:
            reason = f"The run was stopped by an error: {error}"
        except Exception as error:
            reason = f"The run's supervisor failed: {error!r}"
            import traceback

            traceback.print_exc()
        return Outcome(False, "", reason, {})

    def _begin(self) -> Outcome:
        self._clean_up_before()
        if reason := self._budgets.reached():
            self._ended_by = "budget"
            raise RunFailed(f"{self._run.agent} was not started: {reason}")
        self._began = self._store.now()
        if not patiently(self._record_start):
            raise RunStopped
        self._tell_webhooks()
        self._limit.check()
        return self._work()

    def _wait_or_end(self) -> Outcome:
        """What is done at a usage limit: another process waits for its reset, or the run ends."""
        resumes, now = self._limit.resumes_at, self._store.now()
        if self._options.get("onLimit") == usage_limit.STOP:
            self._ended_by = "limit"
            return Outcome(False, "", self._stopped(f"{REACHED} until {stamp(resumes)}"), {})
        if elsewhere := self._options.get("elsewhere"):
            name = config.adapter_of(elsewhere["adapter"]).title
            message = f"{name} continues for {self._run.agent}: {REACHED}"
            options = {**self._options, "elsewhere": None, **elsewhere, "begunBy": self._run.agent}
            self._outbox.add([["moved", name, json.dumps(options)]])
            self._options = options
        else:
            message = f"{self._run.agent} waits: {REACHED}"
        event = AgentEvent("limited", {"resumesAt": stamp(resumes), "message": message})
        self._transcript.add(event)
        worked = self._run.worked + now - self._began
        self._outbox.add([["parked", now, worked]], synced=True)
        self._outbox.finish()
        return self._begin_again()

    def _begin_again(self, before: Iterable[Path] = ()) -> NoReturn:
        """Wait for the turn of this run once more, without the slot that it has."""
        spawn.begin_again(self._state_dir, self._run.prompt, self._lock, self._options, before)

    def _record_start(self) -> bool:
        """Record that the run works now; false when it was canceled."""
        with self._store.write() as db:
            return runs.begin(db, self._run.prompt, self._began)

    def _tell_webhooks(self) -> None:
        """Let webhooks know what has happened: the command that would may be days away."""
        with contextlib.suppress(OSError, sqlite3.Error):
            with self._store.read() as db:
                told = db.execute("SELECT 1 FROM webhooks LIMIT 1").fetchone()
            if told:
                from ...deliveries import send_aside

                send_aside(self._store.folder)

    def _clean_up_before(self) -> None:
        """Clean up after runs of this workspace whose supervisors were killed."""
        launcher.end_job(self._state_dir, self._folder)
        with self._store.read() as db:
            earlier = runs.find(db, "workspace = ? AND seq < ?", self._run.workspace, self._seq)
        for run in earlier:
            with run_lock.held(self._state_dir, run) as lock:
                if self._is_waiting(run, lock):
                    with self._store.read() as db:
                        before = run_lock.locks_before(db, self._state_dir, self._run.prompt)
                    self._begin_again(before)
                launcher.end_job(self._state_dir, self._workspace.run_folder(run.prompt))
                bury(self._store, run)
        if earlier:
            make_git_safe(self._workspace, self._transcript.tell)
            end_rest(self._workspace.folder)  # nothing may be left that could read a login

    def _is_waiting(self, run: runs.RunRecord, lock: int) -> bool:
        """Whether an earlier run waits for a usage limit, so that this one has to wait for it."""
        with self._store.read() as db:
            has_ended = runs.has_ended(db, run.prompt)
        return not has_ended and recovery.restart_if_waiting(self._store, run, lock)

    # The work

    def _work(self) -> Outcome:
        adapter = config.adapter_of(self._options["adapter"])
        try:
            self._prepare_workspace()
        except OSError as error:
            raise RunFailed(f"The workspace cannot be prepared: {error}") from None
        with self._store.read() as db:
            session = runs.last_session(db, self._run.task, self._run.agent)
        outcome, lost = self._agent(adapter, session)
        if lost:
            # The session went with a crash or an older HOME; the files are all there.
            outcome, _ = self._agent(adapter, None)
        return outcome

    def _prepare_workspace(self) -> None:
        """Make the folder, if no run has, put the uploads in it and set it up."""
        options, place, run = self._options, self._workspace, self._run
        with self._store.read() as db:
            # The first run's, which may have failed before it had made the workspace.
            made_from = runs.source(db, run.workspace)
            begun = runs.begun(db, run.workspace)
            if runs.is_gone(db, self._state_dir, run.workspace):
                raise RunFailed(f"{runs.GONE}. {runs.GONE_HINT}")
        assert made_from is not None  # at least this run is recorded
        full = self._full_disk
        restored = restore(place, made_from, begun, run.prompt, jailed=options["jail"], watch=full)
        self._transcript.tell(*filter(None, [restored]))
        complete_merge(place, full)
        # After a usage limit they were there before, and may have been changed.
        new = options["uploads"] if self._run.parked is None else []
        uploads = [UploadedFile(name, Path(path), *more) for name, path, *more in new]
        with self._telling_of_the_clone(), git.watched(self._full_disk):
            share = options["jail"] and not self._launcher
            lacks = self._workspace.prepare(made_from, uploads, share=share)
            if self._launcher:  # what is lent is in no folder that is shared
                lenders.complete(self._workspace.code, self._workspace.base)
        self._transcript.tell(*lacks)
        remember_origin(self._workspace, made_from.repository)
        self._set_up(made_from)

    def _set_up(self, made_from: WorkspaceSource) -> None:
        """Do what the repository asks for, if the user trusts it and no agent has worked yet."""
        fresh = self._workspace.is_fresh
        is_set_up = fresh and self._options.get("setup", True)
        wanted = ["setup", "cache"] if is_set_up else []
        if network_of(self._options) == LIST:
            wanted.append("allow")
        asks = self._asks(made_from.repository, wanted)
        if asks is not None:
            hosts = [*self._options.get("hosts", ()), *asks.file.allow]
            self._options["hosts"] = list(dict.fromkeys(hosts))
            if is_set_up and asks.file.setup:
                # What the commit does not have must not reach other runs.
                with self._store.read() as db:
                    has_uploads = runs.has_uploads(db, self._run.workspace)
                is_clean = not made_from.with_changes and not has_uploads
                with self._cached(asks, keep=is_clean):
                    self._run_setup(asks.file.setup)
        self._workspace.begin()

    @contextlib.contextmanager
    def _cached(self, asks: RepositoryAsks, *, keep: bool) -> Iterator[None]:
        """The folders that are kept are there for the setup in the block, and kept after it.

        Without `keep`, they stay as they were kept. Where that fails, the setup does without.
        """
        cache = SetupCache(
            self._workspace,
            (asks.repository, asks.file.setup, asks.file.cache),
            held=self._hold_signals,
            problem=self._full_disk,
        )
        for name in cache.own:
            self._transcript.tell(f"Not kept, since the repository has it: {name}")
        if not cache.names:
            yield
            return
        for name in cache.names:
            self._workspace.exclude(name)
        try:
            if commit := cache.take():
                self._transcript.tell(f"From the cache of {commit[:10]}: {', '.join(cache.names)}")
        except (CacheFailed, GitFailed, OSError) as error:
            self._transcript.tell(f"The cache is not used: {error}")
        yield
        try:
            if keep:
                cache.keep()
        except (CacheFailed, GitFailed, OSError) as error:
            self._transcript.tell(f"The cache is not kept: {error}")

    def _asks(self, repository: str | None, wanted: Sequence[str]) -> RepositoryAsks | None:
        """What the repository asks for, if it is to be obeyed; the transcript says which it is."""
        try:
            found = repository_asks.of_workspace(self._workspace, repository)
        except (RepositoryFileError, GitFailed) as error:
            self._transcript.tell(f"Not used: {error}")
            return None
        described = found.file.described(wanted) if found is not None else ""
        if found is None or not described:
            return None
        is_used = found.is_trusted and self._options["jail"]
        if is_used:
            self._transcript.tell(f"From {found.file.name}: {described}")
        elif found.is_trusted:
            self._transcript.tell(f"Not without a sandbox, of {found.file.name}: {described}")
        else:
            self._transcript.tell(
                f"This repository's {found.file.name} asks for: {described}\n"
                f"It is not obeyed until you trust it: `rebyte local trust {self._run.task}`"
            )
        return found if is_used else None

    def _run_setup(self, command: str) -> None:
        """Run the setup; the run fails with it, and says why. Raises RunFailed and OSError."""
        call = {"id": "setup", "name": "setup", "input": {"command": command}}
        self._transcript.append([AgentEvent("tool_use", call)])
        end = tryout.run_setup(
            self._workspace,
            command,
            self._options,
            self._folder,
            held=self._hold_signals,
            problem=self._problem,
        )
        output = tryout.last_lines(self._folder / tryout.SETUP_LOG)
        failed = {"is_error": True} if end.status else {}
        result = {"id": "setup", "output": output, **failed}
        self._transcript.append([AgentEvent("tool_result", result)])
        refused = tryout.refused_in_setup(self._folder)
        if end.status == 0:
            self._transcript.tell(*refused)
            return
        why = end.reason or f"it exited with status {end.status}"
        notes = [f"The setup of the repository failed: {why}", *refused]
        notes += self._transcript.hints(os.environ)
        raise RunFailed("\n".join([*notes, *filter(None, [output])]))

    @contextlib.contextmanager
    def _telling_of_the_clone(self) -> Iterator[None]:
        """Say in the transcript how far a clone is, after five seconds and ever less often."""
        over = Event()

        def watch() -> None:
            pause = CLONE_SECONDS
            while not over.wait(pause):
                pause *= 2
                if said := self._workspace.cloning():
                    self._transcript.tell(said[:1].upper() + said[1:])

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _agent(self, adapter: Adapter, session: str | None) -> tuple[Outcome, bool]:
        """Run the agent once: the outcome, and whether it did not know `session`."""
        user = adapter.surroundings(User(os.environ, Path.home()))
        program = programs.find(adapter, user.variables)
        if program is None:
            raise RunFailed(f"{adapter.program} is no longer on PATH")
        with contextlib.ExitStack() as stack:
            start = self._prepare_agent(adapter, program, session, user, stack)
            self._parser = parser = adapter.parser()
            self._meter.sees_models = start.egress.sees_models
            stdin = adapter.stdin(self._words_for(session))
            status, reason = self._execute(start, stdin, parser)
        stderr = tail(self._folder / STDERR_FILE, STDERR_READ).decode("utf-8", "replace")
        # Once its model has been asked, a program can say so in its place.
        has_begun = self._meter.has_asked or parser.has_worked
        if not (session is None or reason or has_begun) and adapter.lost_session(status, stderr):
            return Outcome(False, "", "", {}), True
        self._transcript.append(parser.flush())
        if start.program.layout.jailed:
            self._transcript.tell(*self._transcript.hints(user.variables))
        if reason:
            outcome = Outcome(False, "", reason, parser.usage)
        else:
            outcome = parser.finish(status, stderr)
        self._meter.look()
        if outcome.succeeded and not self._meter.was_refused_last:
            self._limit.pass_on()
        elif not self.on_screen:
            self._limit.raise_if_refused(parser, outcome.reason)
        refused = start.egress.refused()
        if outcome.succeeded:
            self._transcript.tell(*refused)
        else:
            fault = start.egress.fault()
            notes = [*([] if fault in outcome.reason else [fault]), *refused]
            outcome = _with_note(outcome, "\n".join(notes)) if notes else outcome
        return outcome._replace(usage=self._used(parser)), False

    def _words_for(self, session: str | None) -> str:
        """The prompt; after a usage limit, so that the agent continues what was begun."""
        if session is not None and session == self._run.session:
            return f"{CONTINUE}\n\n{self._prompt}"
        if (other := self._options.get("begunBy")) and self._run.parked is not None:
            return f"{other} has begun with this, and you find its changes:\n\n{self._prompt}"
        return self._prompt

    def _prepare_agent(
        self,
        adapter: Adapter,
        program: programs.AgentProgram,
        session: str | None,
        user: User,
        stack: contextlib.ExitStack,
    ) -> AgentStart:
        """Furnish the jail. What has to be closed after the run is closed with the `stack`."""
        options, outside = self._options, user.variables
        layout = jail.layout_of(self._workspace.folder, jailed=options["jail"])
        access = access_of(adapter, options, user)
        # The user may have logged in since the run was admitted.
        if reason := why_uncounted(adapter, options, access):
            raise RunFailed(reason)
        # At once: the gateway loads its modules while the rest is prepared.
        egress = stack.enter_context(
            egress_for(
                options,
                access,
                outside,
                self._folder,
                self._budgets.left(),
                self._budgets.reached,
                is_away=bool(self._launcher),
            )
        )
        seen = user._replace(variables=access.seen(outside, adapter.keys(user)))
        home = AgentHome(self._workspace, adapter, on_screen=self.on_screen)
        try:
            room = self._workspace.room(options)
            self._transcript.tell(*home.furnish(layout.code, seen, access, options["skills"], room))
            logins = LoginCopies(adapter, access, user.home, layout)
        except OSError as error:
            raise RunFailed(f"The private home directory cannot be prepared: {error}") from None
        stack.enter_context(logins)
        folder = layout.code.inside
        invocation = Invocation(options["model"], session, new_id(), folder)
        words = adapter.screen if self.on_screen else adapter.arguments
        own = user_tools.own_folders(options.get("configDir"), self._state_dir)
        problem = user_tools.why_not_all([*program.own, *egress.needs], own)
        if problem and layout.jailed:
            raise RunFailed(f"{adapter.title} cannot be sandboxed: {problem}")
        prepared = prepare(
            layout,
            adapter.started([*program.command, *words(invocation)]),
            egress,
            options,
            seen.variables,
            program=program,
            own=own,
            variables={**adapter.let_through(seen), **adapter.environment()},
            more=logins.arguments,
            hidden=home.hidden_folders(),
            blank=home.hidden_files(self._folder),
            terminal=self.on_screen,
        )
        keys = config.secret_variables(adapter, user.home)
        hidden = launcher.hidden(os.environ, keys, egress.secrets())
        return AgentStart(prepared, egress, logins, hidden)

    def _used(self, parser: Parser) -> dict[str, Any]:
        """What this run used, where the agent reports the total of its session."""
        used = dict(parser.usage)
        if not parser.of_session.isdisjoint(used):
            with self._store.read() as db:
                before = runs.used_before(db, self._run.prompt, str(parser.session))
            for name in parser.of_session & used.keys():
                more = round(used[name] - before.get(name, 0), 9)
                if more >= 0:  # otherwise the session began again at zero
                    used[name] = more + 0  # not -0.0
        return used

    def _execute(self, start: AgentStart, prompt: str, parser: Parser) -> tuple[int, str]:
        """Start the agent and read it to its end: its exit status, and why it was stopped."""
        # The agent gets no file of this folder as a stream: it could open that again, to write.
        with (
            (self._folder / RAW_FILE).open("ab", buffering=0) as raw,
            (self._folder / STDERR_FILE).open("wb", buffering=0) as errors,
        ):
            self._meter.look(afresh=True)
            with self._started(start, prompt) as group:
                reason, limits = "", TimeLimits(self._time_left(), self._options["stall"])
                if isinstance(group, LaunchedGroup):
                    watch = partial(self._watch, start.egress)
                    reason = group.until_ready(watch, self._transcript.tell)
                else:
                    watch = partial(self._watch, start.egress, group)
                agent, record = group.agent, self._transcript.append
                reason = reason or pump(
                    agent, parser, record, raw, errors, limits, watch, group.has_new
                )
                status = agent.poll()
                # An agent can take what its model said until then for the whole answer.
                self._meter.look()
                self._note_spent()
                problem = group.problem() if isinstance(group, LaunchedGroup) else ""
                problem = self._no_model() or start.egress.problem() or problem
                reason = reason or self._stopped(problem)
        return (status if status is not None else agent.poll()) or 0, reason

    @contextlib.contextmanager
    def _started(self, start: AgentStart, prompt: str) -> Iterator[JailGroup | LaunchedGroup]:
        """The agent at work while the block runs: here, or where the launcher starts it."""
        self._hold_signals(True)
        if not self._launcher:
            with (
                prompt_file(prompt) as stdin,
                start.program.start(
                    passed=start.logins.passed,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                ) as group,
            ):
                self._hold_signals(False)
                yield group
            return
        plan = node.plan(start.program, start.egress, start.logins, prompt)
        with LaunchedGroup(
            (self._launcher, self._options["launcherStop"]),
            plan,
            places=(self._state_dir, self._folder),
            hidden=start.hidden,
            budget=start.egress.why_used_up,
        ) as launched:
            self._hold_signals(False)
            yield launched

    @property
    def _launcher(self) -> list[str]:
        """The command that starts the agent elsewhere; nothing for here."""
        return [] if self.on_screen else list(self._options.get("launcher", ()))

    def _watch(self, egress: Egress, group: JailGroup | None = None) -> str:
        """Why the agent has to be stopped, or an empty text."""
        # First, and not after all that is to be read: that may be what fills the disk.
        if full := self._full_disk():
            return self._stopped(full)
        if self._meter.look(most=MOST_READ):
            self._outbox.add([["used", self._meter.used({})]])
        self._note_spent()
        return self._stopped(
            self._no_model()
            or ("" if self.on_screen else self._limit.reason_to_stop(self._parser))
            or egress.problem()
            or (group.overdue() if group is not None else "")
            or self._ended_elsewhere()
        )

    def _problem(self) -> str:
        """Why the agent, or the setup, has to be stopped whatever it does, or an empty text."""
        return self._full_disk() or self._ended_elsewhere()

    def _full_disk(self) -> str:
        return self._workspace.full_disk(self._options)

    def _ended_elsewhere(self) -> str:
        """That the end is recorded, or an empty text; asked once a second.

        The command that canceled the run may have been killed before it told this process.
        """
        if self._next_look.has_passed:
            self._next_look = Deadline(LOOK_SECONDS)
            with contextlib.suppress(StateError), self._store.read() as db:
                self._has_ended = runs.has_ended(db, self._run.prompt)
        return "its end is recorded" if self._has_ended else ""

    def _no_model(self) -> str:
        """Why no request to a model passes any more, or an empty text."""
        return self._meter.spent or self._meter.login_refused

    def _note_spent(self) -> None:
        """Note that it is a budget that ends the run, if it fails now."""
        self._ended_by = "budget" if self._meter.spent else ""

    def _time_left(self) -> float:
        """What is left of the time limit: what the run waited for a usage limit does not count."""
        limit: float = self._options["limit"]
        return max(limit - self._run.worked / 1000, 0.001) if limit else 0

    def _stopped(self, problem: str) -> str:
        return f"{self._run.agent} was stopped: {problem}" if problem else ""

    # What is recorded

    def _write(self, records: list[outbox.Record]) -> None:
        with self._store.write() as db:
            runs.record(db, self._state_dir, self._run, records)

    def _tell_late(self, note: str) -> None:
        """As `tell`, once there is no agent to stop: on a full disk, the note waits in memory."""
        with contextlib.suppress(OSError):
            self._transcript.tell(note)

    def _record(self, outcome: Outcome) -> None:
        """Record artifacts, the result event and the end, as soon as the database takes them."""
        now = self._store.now()
        # A job that stays uses more, which is recorded once it has ended.
        used = ["used", self._used_in_all(outcome), not launcher.has_job(self._folder)]
        ends = ["end", self._transcript.next_place, now, self._result(outcome, now)]
        with contextlib.suppress(OSError):  # the disk is full: what it cannot keep is in memory
            self._outbox.add([used, ends], synced=True)
        self._phase = Phase.RECORDING
        self._outbox.finish()
        self._phase = Phase.ENDING
        (self._folder / PATCH_FILE).unlink(missing_ok=True)

    def _used_in_all(self, outcome: Outcome) -> dict[str, Any]:
        """What budgets count of the run, once its gateway has ended."""
        self._meter.look()
        told = outcome.usage or (self._used(self._parser) if self._parser else {})
        used = self._meter.used(told, has_ended=True)
        if not used and self._options.get("budgets"):  # which need a gateway: it saw no request
            return dict(NOTHING)
        return used

    def _result(self, outcome: Outcome, now: int) -> dict[str, Any]:
        """The payload of the result event."""
        word = "succeeded" if outcome.succeeded else "failed"
        answer = _storable(outcome.answer if outcome.succeeded else outcome.reason)
        payload: dict[str, Any] = {"status": word, "result": answer}
        if self._began:
            payload["duration_ms"] = self._run.worked + now - self._began
        usage = dict(outcome.usage)
        cost = usage.pop("cost_usd", None)
        if usage:
            payload["usage"] = usage
        if self._ended_by and not outcome.succeeded:
            payload["ended_by"] = self._ended_by
        if cost is not None:
            payload["cost_usd"] = cost
        return payload

    # Signals

    def _on_term(self, _number: int, _frame: object) -> None:
        """Stop the run, as its phase says. This alone notes the signal, and sets no phase."""
        is_first, self._was_signaled = not self._was_signaled, True
        if self._phase is Phase.RECORDING or (self._phase is Phase.WORKING and is_first):
            raise RunStopped

    def _hold_signals(self, is_held: bool) -> None:
        """Have signals wait while a jail starts; then raise what one meant that has arrived."""
        self._phase = Phase.STARTING if is_held else Phase.WORKING
        if self._was_signaled and not is_held:
            raise RunStopped


def _storable(text: str) -> str:
    """The text without what no database takes (half a surrogate pair), and not endless."""
    if len(text) > LONGEST_ANSWER:
        text = f"{text[:LONGEST_ANSWER]}\n[{len(text) - LONGEST_ANSWER} more characters]"
    return text.encode("utf-8", "replace").decode()


def _with_note(outcome: Outcome, note: str) -> Outcome:
    if outcome.succeeded:
        return outcome._replace(answer=f"{outcome.answer}\n\n{note}".strip())
    return outcome._replace(reason=f"{outcome.reason}\n\n{note}")
