"""The job that a launcher has started (see node.py), as the supervisor of its run sees it."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from ....system.files import tail, write_all
from ....system.process_group import ProcessGroup
from ....system.untrusted import read_json
from ..sandbox.egress import RunStopped
from . import launcher, node

LOG = "launcher"  # of the folder of a run: the stderr of the launcher
WAIT_SECONDS = 5.0  # before the transcript says that the launcher takes time
LOOK_SECONDS = 0.2
LONGEST_LINE = 1 << 20  # bytes; ten times what a node sends at once
BUSY_SECONDS = 5.0  # for a node to say what its agent does


class LaunchedAgent:
    """An agent elsewhere, as `lines.pump` reads it."""

    def __init__(self, poll: Callable[[], int | None]) -> None:
        """`poll` says how it ended."""
        self.poll = poll
        self._writing: dict[str, int] = {}
        reading = {}
        for name in ("out", "err"):
            reading[name], self._writing[name] = os.pipe()
        self.stdout: IO[bytes] | None = os.fdopen(reading["out"], "rb", buffering=0)
        self.stderr: IO[bytes] | None = os.fdopen(reading["err"], "rb", buffering=0)

    def say(self, name: str, piece: bytes) -> None:
        """Let it print `piece`, unless nothing reads any more. Raises KeyError after `finish`."""
        end = self._writing[name]
        with suppress(OSError):
            write_all(end, piece)

    def finish(self) -> None:
        """Let it print no more."""
        while self._writing:
            os.close(self._writing.popitem()[1])

    def close(self) -> None:
        """Read no more."""
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


class LaunchedGroup(ProcessGroup):
    """A launcher and the job that it has started. The end of the block ends both for certain."""

    def __init__(
        self,
        words: tuple[Sequence[str], Sequence[str]],
        plan: Mapping[str, Any],
        *,
        places: tuple[Path, Path],
        hidden: frozenset[str],
        budget: Callable[[], str],
    ) -> None:
        """Start the launcher. `words` are those of `launcher` and of `launcher_stop`.

        `plan` is for the node, `places` are the state folder and that of the run, `hidden` the
        variables that neither gets, and `budget` says why a budget that is shared is used up.
        Raises OSError.
        """
        self._state_dir, self._folder = places
        self._budget = budget
        self._name = words[0][0]
        self._end: dict[str, Any] | None = None
        self._ended_since = math.inf
        self._ready, self._over = threading.Event(), threading.Event()
        self._busy = SimpleQueue[bool]()
        self._to_node = SimpleQueue[bytes | None]()
        self.agent = LaunchedAgent(self._poll)
        launcher.begin_job(self._folder, words[1], hidden)
        line = [*launcher.filled(words[0], self._folder), *node.command()]
        self._theirs, feeding = os.pipe()
        reading, printing = os.pipe()
        self._log = (self._folder / LOG).open("wb", buffering=0)
        try:
            super().__init__(
                line,
                folder="/",
                variables=launcher.environment(hidden),
                stdin=f"/proc/{os.getpid()}/fd/{self._theirs}",
                stdout=printing,
                stderr=self._log,
            )
        finally:
            os.close(printing)
        self._tell({**plan, "mark": str(self._folder / launcher.NODE)})
        for work, end in ((self._feed, feeding), (self._read, reading)):
            threading.Thread(target=work, args=(end,), daemon=True).start()

    def until_ready(self, watch: Callable[[], str], tell: Callable[[str], None]) -> str:
        """Return when the agent has started, or cannot: a queue of jobs may be long.

        `watch` says why it has to be ended before, which is returned; `tell` is told of a wait.
        """
        begun, told = time.monotonic(), False
        while not self._ready.wait(LOOK_SECONDS) and self._poll() is None:
            if reason := watch():
                return reason
            if not told and time.monotonic() - begun > WAIT_SECONDS:
                told = True
                tell(f"Waiting for `{self._name}`{self._said()}")
        return ""

    def has_new(self, seconds: float) -> bool:
        """Whether the agent has started a process within so many seconds."""
        self._tell({"busy": seconds})
        try:
            return self._busy.get(timeout=BUSY_SECONDS)
        except Empty:
            return False

    def problem(self) -> str:
        """Why there is no end of the agent, or an empty text."""
        if self._end is not None:
            return str(self._end["reason"])
        status = self._poll()
        if status is None:
            return ""
        return f"the launcher `{self._name}` ended with status {status}{self._said()}"

    def __exit__(self, *error: object) -> None:
        if RunStopped in error:
            self._tell({"canceled": True})
        self.kill()

    def kill(self) -> None:
        """End the job, whatever it does, and the launcher. `launcher.has_job` if that fails."""
        if self._ours < 0:
            return
        self._to_node.put(None)
        if self._end is not None and self._end["status"] is not None and self._is_gone():
            launcher.forget_job(self._folder)
        else:
            with suppress(launcher.JobStays):  # which is in the log
                launcher.end_job(self._state_dir, self._folder)
                self._is_gone()
        super().kill()
        self.agent.close()
        os.close(self._theirs)  # nothing waits for room in that pipe any more
        self._over.wait(launcher.END_SECONDS)
        self._log.close()

    def _is_gone(self) -> bool:
        """Whether the launcher ends by itself within a while."""
        try:
            self.process.wait(launcher.END_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _poll(self) -> int | None:
        if self._end is not None:
            status = self._end["status"]
            return 1 if status is None else int(status)
        status = self.process.poll()
        if status is None:
            return None
        # First what it has printed, unless something keeps its output open.
        self._ended_since = min(self._ended_since, time.monotonic())
        if not self._over.is_set() and time.monotonic() - self._ended_since < WAIT_SECONDS:
            return None
        return 128 - status if status < 0 else status

    def _said(self) -> str:
        """The last line that the launcher itself printed, behind a colon, or an empty text."""
        return launcher.last_said(tail(self._folder / LOG, launcher.SAID))

    def _tell(self, message: Mapping[str, Any]) -> None:
        self._to_node.put(json.dumps(message).encode() + b"\n")

    def _feed(self, descriptor: int) -> None:
        """Write what the node is told, as it takes it; the end of all ends the node."""
        with suppress(OSError), open(descriptor, "wb", buffering=0) as stream:
            while (line := self._to_node.get()) is not None:
                write_all(stream.fileno(), line)

    def _read(self, descriptor: int) -> None:
        """Take the lines of the node until the launcher and what it has started are gone."""
        with open(descriptor, "rb") as lines:
            for line in iter(partial(lines.readline, LONGEST_LINE), b""):
                if line.startswith(node.MARK):  # others are the launcher's
                    kind, _, content = line.removeprefix(node.MARK).partition(b" ")
                    with suppress(ValueError, LookupError, TypeError):
                        self._take(kind.decode("ascii"), content)
        self.agent.finish()
        self._over.set()

    def _take(self, kind: str, content: bytes) -> None:
        """Do what a line of the node says. Raises ValueError, LookupError or TypeError."""
        if kind in ("out", "err"):
            self.agent.say(kind, base64.b64decode(content))
        elif kind == "ask":
            self._tell({"budget": self._budget()})
        elif kind == "busy":
            self._busy.put(bool(read_json(content.decode())))
        elif kind == "end":
            end = read_json(content.decode())
            self._end = self._end or {"status": end["status"], "reason": end["reason"]}
            self.agent.finish()
        elif kind == "ready":
            self._ready.set()
