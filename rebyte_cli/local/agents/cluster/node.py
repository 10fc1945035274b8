"""The gateway and the jail of a run, started by the user's launcher, maybe on another machine.

Standard input brings one line of JSON, the plan, with the key and the prompt: no list of processes
and no environment shows them. Further lines are the supervisor's answers and, when the run is
canceled, `{"canceled": true}`; without that, the end of all is one that the agent may have brought
about. Standard output takes lines to the supervisor, `rebyte:KIND CONTENT`:

    ready           the jail has started
    out, err        a piece of what the agent printed, in base64
    ask             whether a budget that others share is used up: `{"budget": REASON}` answers
    busy            `true` or `false`, as the answer to `{"busy": SECONDS}`: see `has_new`
    end             JSON: `status` of the agent, or the `reason` why there is none. All is dead.

Other lines are the launcher's. There is no file between the two but the folder of the workspace: in
the folder of the run, which the jail does not show, the gateway keeps its record. No database is
opened here. A file beside the record, locked while this process lives, keeps a second one out.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ....system import python_process
from ....system.deadline import Deadline
from ....system.locks import flock
from ...gateway.jail_port import moved
from ..adapters.lines import DRAIN_SECONDS, LOOK_SECONDS
from ..exposed import Mount
from ..sandbox.egress import Egress, RunStopped
from ..sandbox.jail import JailLayout
from ..sandbox.jail_group import JailGroup
from ..sandbox.jailed_program import JailedProgram, prompt_file
from ..sandbox.login_copies import LoginCopies, in_memory

MARK = b"rebyte:"
PIECE = 32_768  # bytes: some launchers pass on whole lines, and have little room for one
CANCEL_SECONDS = 2.0  # for the supervisor to say why it has the job ended
HIGHEST_LEFT = 256  # descriptor that a launcher is likely to have left open


def command() -> list[str]:
    """The words that start this: the same Python and package have to be there."""
    return python_process.command(__name__)


def plan(
    program: JailedProgram, egress: Egress, logins: LoginCopies, prompt: str
) -> dict[str, Any]:
    """What a node is told, as JSON. Its line has the numbers of descriptors: it uses the same."""
    folders = (program.layout.code, program.layout.home)
    return {
        "folders": [(str(mount.outside), mount.inside) for mount in folders],
        "jailed": program.layout.jailed,
        "line": program.line,
        "variables": program.variables,
        "egress": egress.plan(),
        "files": {
            number: base64.b64encode(content).decode()
            for number, content in logins.contents.items()
        },
        "prompt": prompt,
    }


class NodeStopped(Exception):
    """A signal arrived, or the supervisor is gone, and nothing says that the user wants it so."""


class NodeRun:
    """One run on a node."""

    def __init__(self) -> None:
        self._answers = SimpleQueue[str | None]()
        self._sending = threading.Lock()
        self._stopped = threading.Event()
        self._is_canceled = False
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._group: JailGroup | None = None

    def run(self) -> int:
        """Work to the end; the exit status of this process."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stopped.set())
        line = sys.stdin.buffer.readline()
        if not line.endswith(b"\n"):
            return 1  # the supervisor ended before
        self._listening.start()
        end: dict[str, Any] = {"status": None, "reason": ""}
        try:
            end["status"], end["reason"] = self._work(json.loads(line))
        except (NodeStopped, RunStopped):
            return 128 + signal.SIGTERM
        except OSError as error:
            end["reason"] = f"{error} (on {socket.gethostname()})"
        self._send("end", json.dumps(end))
        status = end["status"]
        if status is None:
            return 1
        return int(128 - status if status < 0 else status)

    def _work(self, plan: dict[str, Any]) -> tuple[int | None, str]:
        """Run the agent in its jail: its exit status, or why it had to be ended."""
        _claim(plan["mark"])
        for number, content in plan["files"].items():
            in_memory(base64.b64decode(content), int(number))
        code, home = (Mount(Path(outside), inside) for outside, inside in plan["folders"])
        egress = Egress.planned(plan["egress"], self._ask)
        layout = JailLayout(code, home, plan["jailed"])
        program = JailedProgram(layout, plan["line"], plan["variables"], egress)
        with (
            prompt_file(plan["prompt"]) as stdin,
            egress,
            program.start(
                passed=tuple(map(int, plan["files"])),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as self._group,
        ):
            self._send("ready")
            return self._pass_on(egress, self._group)

    def _pass_on(self, egress: Egress, group: JailGroup) -> tuple[int | None, str]:
        """Send what the agent prints until it ends."""
        assert group.process.stdout is not None
        assert group.process.stderr is not None
        drain = None
        with selectors.DefaultSelector() as selector:
            selector.register(group.process.stdout, selectors.EVENT_READ, "out")
            selector.register(group.process.stderr, selectors.EVENT_READ, "err")
            while drain is None or (selector.get_map() and not drain.has_passed):
                if self._stopped.is_set():
                    # The signal of `launcher_stop` can be faster than what the supervisor says.
                    self._listening.join(CANCEL_SECONDS)
                    raise RunStopped if self._is_canceled else NodeStopped
                if reason := egress.problem() or group.overdue():
                    return None, reason
                if drain is None and group.process.poll() is not None:
                    drain = Deadline(DRAIN_SECONDS)
                for key, _ in selector.select(LOOK_SECONDS):
                    piece = os.read(key.fd, PIECE)
                    if not piece:
                        selector.unregister(key.fileobj)
                    else:
                        self._send(key.data, base64.b64encode(piece).decode())
        return group.process.returncode, ""

    def _ask(self) -> str:
        """Ask the supervisor why a budget is used up. Raises OSError when it is gone."""
        self._send("ask")
        answer = self._answers.get()
        if answer is None:
            raise BrokenPipeError("the supervisor is gone")
        return answer

    def _listen(self) -> None:
        """Take what the supervisor says until it is gone."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "budget" in message:
                self._answers.put(message["budget"])
            elif "canceled" in message:
                self._is_canceled = True
            elif self._group is not None:
                busy = self._group.has_new(message["busy"])
                self._send("busy", json.dumps(busy))
        self._stopped.set()
        self._answers.put(None)

    def _send(self, kind: str, content: str = "") -> None:
        """Send a line. Where it cannot arrive, the supervisor is gone."""
        with self._sending:
            try:
                sys.stdout.buffer.write(b"%b%b %b\n" % (MARK, kind.encode(), content.encode()))
                sys.stdout.buffer.flush()
            except OSError:
                self._stopped.set()


def _claim(mark: str) -> None:
    """Let this be the only process that works on the job. Raises OSError when another has begun."""
    try:
        made = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise OSError("the launcher starts the run twice, as srun without --ntasks=1 may") from None
    with suppress(OSError):  # a file system without locks
        flock(moved(made, HIGHEST_LEFT))  # until the end


def main() -> None:
    """Run the plan of standard input, and end with the status of the agent."""
    os.umask(0o077)
    os.closerange(3, HIGHEST_LEFT)  # what the launcher left open has the numbers of the plan
    os._exit(NodeRun().run())  # a thread still waits for the supervisor
