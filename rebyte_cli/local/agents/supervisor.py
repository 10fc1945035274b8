"""The process that looks after one run: it waits its turn, starts the agent and records it all.

    python -I -S -c BOOT PACKAGE_FOLDER STATE_DIR PROMPT_ID LOCK_DESCRIPTOR SLOTS [LOCK_FILE]…

It outlives the command that started it, the terminal and `local serve`. It imports little: it is
started for every run, and waits in memory for as long as the agent works.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...system import git
from ...system.git import GitFailed
from ...system.process_group import ProcessGroup
from ..database import Store, new_id
from . import changes, config, confined, credentials, jail, programs, runs, skills, spool
from .adapter import Adapter, AgentEvent, Invocation, Outcome, Parser
from .disarm import disarm
from .lines import RunLimits, pump
from .spool import Spool, patiently
from .sweep import sweep
from .workspace import UploadedFile, Workspace, WorkspaceSource

BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    " from rebyte_cli.local.agents.turn import main; main()"
)
PROMPT_FILE, RAW_FILE, STDERR_FILE = "prompt", "output", "stderr"
STDERR_READ = 20_000
EXCHANGE_SECONDS = 2.0
LONGEST_ANSWER = 1_000_000
# The next run passes it as an argument, and an agent can print anything.
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class RunStopped(BaseException):
    """SIGTERM arrived: the run was canceled, or the machine shuts down."""


class RunFailed(Exception):
    """The run cannot succeed; the text says why."""


def start(
    state_dir: Path,
    prompt_id: str,
    lock: int,
    slots: int,
    before: Iterable[Path],
    login: Mapping[str, str] | None = None,
) -> None:
    """Start the supervisor of a recorded run, detached, and hand it the run's lock.

    `before` are the lock files of earlier runs to wait for (see turn.py), `login` the variables
    that have the login of the clone. The lock's descriptor is closed here. Raises OSError when no
    process can be made.
    """
    package = Path(__file__).parents[3]
    python = [sys.executable, "-I", "-S", "-c", BOOT, str(package)]
    words = [*python, str(state_dir), prompt_id, str(lock), str(slots), *map(str, before)]
    try:
        with (state_dir / "supervisors.log").open("ab") as log:
            # Through a shell that ends at once, so that `local serve` has no children to reap.
            subprocess.run(
                ["sh", "-c", '"$@" &', "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(login or {})},
                pass_fds=(lock,),
                start_new_session=True,
                cwd="/",
                check=False,
            )
    finally:
        os.close(lock)


def look_after(state_dir: str, prompt_id: str, lock: int) -> None:
    """Look after one run, whose turn it is, to its end."""
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A shell's background process ignores these, and so would the agent and its tools.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    busy = spool.ATTEMPT_SECONDS
    store = patiently(lambda: Store(Path(state_dir), busy_seconds=busy))
    Supervisor(store, prompt_id, lock).run()


class Supervisor:
    """One run, from its turn to its recorded end."""

    def __init__(self, store: Store, prompt_id: str, lock: int) -> None:
        self._store = store
        self._state_dir = store.folder
        self._lock = lock
        self._ending = False
        self._holding = False
        signal.signal(signal.SIGTERM, self._on_term)
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
        self._next_event = 0
        self._next_exchange = 0.0
        self._spool = Spool(self._folder / spool.FILE, self._write)

    def run(self) -> None:
        """Work, and record the end, whatever happens."""
        if self._run.ended is not None:
            return
        outcome = self._try(self._begin)
        self._ending = True
        with contextlib.suppress(OSError):  # the next look tries again
            self._tell(credentials.take_back(self._folder))
        self._say(runs.AGENT_IS_GONE)
        try:
            found = self._changes()
        except (GitFailed, OSError) as error:
            found, outcome = None, _with_note(outcome, f"changes.patch was not created: {error}")
        try:
            disarm(self._workspace)
        except (GitFailed, OSError) as error:  # `workspace path` tries again
            self._tell([f"git is not safe in the folder of the workspace: {error}"])
        self._record(outcome, found)
        sweep(self._store)

    def _try(self, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of `work`; every failure is one, with its reason."""
        try:
            return work()
        except RunStopped:
            reason = "The run was stopped by a signal"
        except (RunFailed, GitFailed, config.ConfigError) as error:
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
        self._began = self._store.now()
        if not patiently(self._start):
            raise RunStopped
        return self._work()

    def _start(self) -> bool:
        """Record that the run works now; false when it was canceled."""
        with self._store.write() as db:
            changed = db.execute(
                "UPDATE runs SET started = ? WHERE prompt = ? AND ended IS NULL",
                (self._began, self._run.prompt),
            )
        return bool(changed.rowcount)

    def _clean_up_before(self) -> None:
        """Clean up after runs of this workspace whose supervisors were killed."""
        with self._store.read() as db:
            rows = db.execute(
                f"SELECT {runs.COLUMNS} FROM runs"  # noqa: S608 - names of our own fields
                " WHERE workspace = ? AND seq < ? ORDER BY seq",
                (self._run.workspace, self._seq),
            ).fetchall()
        for row in rows:
            runs.wait_for(self._state_dir, runs.RunRecord(*row))

    # The work

    def _work(self) -> Outcome:
        options = self._options
        adapter = config.adapter_of(options["adapter"])
        uploads = [UploadedFile(name, Path(path)) for name, path in options["uploads"]]
        try:
            with self._store.read() as db:
                # The first run's, which may have failed before it had made the workspace.
                source = runs.source(db, self._run.workspace)
            self._workspace.prepare(WorkspaceSource(*(source or options["source"])), uploads)
        except OSError as error:
            raise RunFailed(f"The workspace cannot be prepared: {error}") from None
        with self._store.read() as db:
            session = runs.last_session(db, self._run.task, self._run.agent)
        outcome, lost = self._agent(adapter, session)
        if lost:
            # The session went with a crash or an older HOME; the files are all there.
            outcome, _ = self._agent(adapter, None)
        return outcome

    def _agent(self, adapter: Adapter, session: str | None) -> tuple[Outcome, bool]:
        """Run the agent once: the outcome, and whether it did not know `session`."""
        options, outside = self._options, dict(os.environ)
        program = programs.find(adapter, outside)
        if program is None:
            raise RunFailed(f"{adapter.program} is no longer on PATH")
        user_home = Path.home()
        confinement = jail.confine(self._workspace.folder, jailed=options["jail"])
        try:
            self._furnish(adapter, confinement.code.inside, outside, user_home)
        except OSError as error:
            raise RunFailed(f"The private home directory cannot be prepared: {error}") from None
        invocation = Invocation(options["model"], session, new_id())
        line = jail.command(
            confinement,
            [*program.command, *adapter.arguments(invocation)],
            needs=[*program.needs, *jail.certificates(outside)],
            hidden=self._hidden(adapter),
        )
        variables = jail.environment(confinement, outside, program.folders)
        variables |= adapter.let_through(outside, user_home) | adapter.environment(outside)
        parser = adapter.parser()
        status, reason = self._execute(line, variables, adapter.stdin(self._prompt), parser)
        stderr = _tail(self._folder / STDERR_FILE)
        if session is not None and not reason and adapter.lost_session(status, stderr):
            return Outcome(False, "", "", {}), True
        self._append(parser.flush())
        if reason:
            return Outcome(False, "", reason, parser.usage), False
        return parser.finish(status, stderr), False

    def _furnish(
        self, adapter: Adapter, code: str, outside: Mapping[str, str], user_home: Path
    ) -> None:
        """Make HOME a new one but for the agents' sessions.

        An earlier run, even of another agent, may have left what this one would obey.
        """
        home = self._workspace.home
        confined.keep_only(home, config.SESSIONS)
        adapter.clean_sessions(home, code)
        skills.install(home, self._options["skills"])
        for name, text in adapter.files(outside, user_home).items():
            confined.write(home, name, text.encode())
        confined.write(home, ".gitconfig", _git_config().encode())
        credentials.lend(user_home, home, self._folder, adapter.credentials)

    def _hidden(self, adapter: Adapter) -> list[str]:
        """The folders to hide, made where they are missing: git keeps no empty folder."""
        for name in adapter.hidden:
            place = self._workspace.code / name
            if place.is_symlink():
                raise RunFailed(f"{name} is a link: {adapter.title} would obey settings through it")
            with contextlib.suppress(FileExistsError):
                place.mkdir(mode=0o700)
        return [name for name in adapter.hidden if (self._workspace.code / name).is_dir()]

    def _execute(
        self, line: list[str], variables: dict[str, str], prompt: str, parser: Parser
    ) -> tuple[int, str]:
        """Start the agent and read it to its end: its exit status, and why it was stopped."""
        prompt_file = self._folder / PROMPT_FILE
        prompt_file.write_text(prompt, encoding="utf-8", errors="surrogatepass")
        with (
            (self._folder / RAW_FILE).open("ab") as raw,
            (self._folder / STDERR_FILE).open("wb") as stderr,
        ):
            self._holding = True  # a signal between the start and the `with` would leave it alive
            with ProcessGroup(
                line,
                folder=self._workspace.code,
                variables=variables,
                stdin=prompt_file,
                stdout=subprocess.PIPE,
                stderr=stderr,
            ) as group:
                self._release()
                limits = RunLimits(self._options["limit"], self._options["stall"])
                reason = pump(group.process, parser, self._append, raw, limits, self._watch)
                status = group.process.poll()
        return group.process.returncode if status is None else status, reason

    def _watch(self) -> str:
        """Keep the login files current; why the agent has to be stopped, or an empty text."""
        now = time.monotonic()
        if now >= self._next_exchange:
            self._next_exchange = now + EXCHANGE_SECONDS
            with contextlib.suppress(OSError):
                self._tell(credentials.exchange(self._folder))
        problem = self._full_disk()
        return f"{self._run.agent} was stopped: {problem}" if problem else ""

    def _full_disk(self) -> str:
        """What is wrong with the disk, or an empty text."""
        free = shutil.disk_usage(self._workspace.folder).free
        if free >= self._options.get("keep_free", 0):
            return ""
        return f"the disk has only {free // 10**6} MB left ([local] keep_free)"

    # What is recorded

    def _append(self, events: list[AgentEvent]) -> None:
        """Record events, and what still waits to be recorded."""
        records: list[spool.Record] = []
        for event in events:
            records.append(["event", self._next_event, self._store.now(), *event])
            self._next_event += 1
            if event.kind == "init":
                records += self._session(event.payload)
        self._spool.add(records)

    def _write(self, records: list[spool.Record]) -> None:
        with self._store.write() as db:
            runs.record(db, self._state_dir, self._run, records)

    def _tell(self, notes: list[str]) -> None:
        """Show in the transcript what the service has to say."""
        self._append([AgentEvent("text", {"content": note}) for note in notes])

    def _session(self, payload: dict[str, Any]) -> Iterator[spool.Record]:
        """The agent's session, known at once: it can be resumed after a cancel or a crash too."""
        if SESSION_ID.fullmatch(str(payload.get("session_id") or "")):
            yield ["session", payload["session_id"]]
        if payload.get("model"):
            yield ["model", _storable(str(payload["model"]))]

    def _changes(self) -> bytes | None:
        """The patch of this run, or None when the workspace was not even made."""
        if not self._workspace.base.exists():
            return None
        return changes.patch(self._workspace, jailed=self._options["jail"], watch=self._full_disk)

    def _record(self, outcome: Outcome, found: bytes | None) -> None:
        """Record artifacts, the result event and the end, as soon as the database takes them."""
        word = "succeeded" if outcome.succeeded else "failed"
        answer = _storable(outcome.answer if outcome.succeeded else outcome.reason)
        payload: dict[str, Any] = {"status": word, "result": answer}
        now = self._store.now()
        if self._began:
            payload["duration_ms"] = now - self._began
        usage = dict(outcome.usage)
        cost = usage.pop("cost_usd", None)
        payload |= {"usage": usage} if usage else {}
        payload |= {"cost_usd": cost} if cost is not None else {}
        patch = self._folder / runs.PATCH
        with contextlib.suppress(OSError):  # the disk is full: what it cannot keep is in memory
            if found is not None:
                patch.write_bytes(found)
            self._spool.add([["end", self._next_event, now, payload]], synced=True)
        self._spool.finish()
        patch.unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        """Write into the lock's file what `runs.stop` reads there."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)

    def _on_term(self, _number: int, _frame: object) -> None:
        already, self._ending = self._ending, True
        if not already and not self._holding:
            raise RunStopped

    def _release(self) -> None:
        """Raise what a signal meant that arrived while it was held back."""
        self._holding = False
        if self._ending:
            raise RunStopped


def _git_config() -> str:
    """So that the agent can commit, in the user's name, and git takes /code for its own."""
    text = "[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[user]\n"
    for key in ("name", "email"):
        try:
            value = git.run(["config", "--global", "--get", f"user.{key}"]).decode().strip()
        except (GitFailed, ValueError):
            value = "agent" if key == "name" else "agent@localhost"
        text += f"\t{key} = {json.dumps(value)}\n"
    return text


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - STDERR_READ))
        return file.read().decode("utf-8", "replace")
    return ""


def _storable(text: str) -> str:
    """The text without what no database takes (half a surrogate pair), and not endless."""
    if len(text) > LONGEST_ANSWER:
        text = f"{text[:LONGEST_ANSWER]}\n[{len(text) - LONGEST_ANSWER} more characters]"
    return text.encode("utf-8", "replace").decode()


def _with_note(outcome: Outcome, note: str) -> Outcome:
    if outcome.succeeded:
        return outcome._replace(answer=f"{outcome.answer}\n\n{note}".strip())
    return outcome._replace(reason=f"{outcome.reason}\n\n{note}")
