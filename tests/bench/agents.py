"""A run of a real agent: what its supervisor costs, and how late a line of the agent is seen.

The agent is a shell script that prints the time, as Claude Code prints text, for two seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from .environment import REBYTE, variables
from .measure import MIB, Row

AGENT = """#!/bin/sh
say() {
  printf '{"type":"assistant","message":{"content":[{"type":"text","text":"at %s"}]}}\\n' \\
    "$(date +%s.%N)"
}
cat > /dev/null
for number in 1 2 3 4 5 6 7 8 9 10; do say; sleep 0.2; done
say
echo '{"type":"result","subtype":"success","is_error":false,"result":"done"}'
"""
RUNS = 3
_AT = re.compile(r"^at (\d+\.\d+)")


class SupervisorWatch:
    """The most memory and the CPU time of the supervisors below a state folder, while it runs."""

    def __init__(self, state: Path) -> None:
        self.peak = 0  # bytes
        self.cpu = 0.0  # seconds, with those of processes that ended
        self._state = str(state)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> SupervisorWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    words = (process / "cmdline").read_bytes().decode(errors="replace")
                    if "rebyte_cli.local.agents" in words and self._state in words:
                        self._read(process)

    def _read(self, process: Path) -> None:
        found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        if found:
            self.peak = max(self.peak, int(found[1]) * 1024)
        # man 5 proc: utime, stime, cutime, cstime are the 14th to 17th field.
        times = (process / "stat").read_text().rpartition(")")[2].split()[11:15]
        self.cpu = max(self.cpu, sum(map(int, times)) / os.sysconf("SC_CLK_TCK"))


def rows(home: Path) -> Iterator[Row]:
    """Time, memory and delay; nothing where no jail can be made."""
    if not shutil.which("bwrap") or not Path("/proc/self/stat").exists():
        return
    agent = home / "agent"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    config = home / "config" / "rebyte" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"[local.agents.claude]\ncommand = [{json.dumps(str(agent))}]\n")
    env = variables(home) | {"ANTHROPIC_API_KEY": "not a real key"}
    extra, late = [], []
    with SupervisorWatch(home / "state" / "rebyte" / "local") as watch:
        for _ in range(RUNS):
            over, delays = _run(env)
            extra.append(over)
            late += delays
    yield Row("a real agent's run: over the agent alone", f"{median(extra):.2f} s", "0.4 s")
    yield Row("  memory of the supervisor", f"{watch.peak / MIB:.0f} MiB", "45 MiB")
    yield Row("  CPU time of the supervisor, and of git", f"{watch.cpu:.2f} s")
    figure = f"{median(late):.2f} s  at most {max(late):.2f} s"
    yield Row("  a line of the agent is on --stream after", figure, "0.3 s")


def _run(env: dict[str, str]) -> tuple[float, list[float]]:
    """Seconds that a run took besides its agent, and how late each line was (seconds)."""
    command = [REBYTE, "-P", "local", "create", "Tell the time", "-x", "claude"]
    command += ["--stream", "-q"]
    said, late = [], []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := _AT.match(line):
                said.append(float(found[1]))
                late.append(time.time() - said[-1])
    assert process.returncode == 0
    assert len(said) == 11
    listing = [REBYTE, "-P", "local", "get", "@last", "-o", "json"]
    task = json.loads(subprocess.run(listing, env=env, check=True, capture_output=True).stdout)
    begin, end = (datetime.fromisoformat(task[name]) for name in ("createdAt", "completedAt"))
    return (end - begin).total_seconds() - (said[-1] - said[0]), late
