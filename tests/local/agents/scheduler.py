"""A scheduler of jobs that, as real ones do, keeps a job alive whose client was killed."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from rebyte_cli.local.agents import config
from tests.waiting import is_running

from .bench import script

MANUAL = Path(config.__file__).parents[2] / "manual/pages/rebyte-local-agents.7.md"


def recipe(word: str) -> dict[str, Any]:
    """The options of runs whose launcher is the one with this word in the manual."""
    blocks = [block.partition("```")[0] for block in MANUAL.read_text().split("```toml\n")]
    (found,) = (block for block in blocks if f'launcher = ["{word}"' in block)
    table = tomllib.loads(found)["local"]
    return {"launcher": table["launcher"], "launcherStop": table["launcher_stop"]}


# FOLDER NAME COMMAND…: start a job, and be connected to it until it ends.
RUN = """
import os, shutil, subprocess, sys, threading
folder, name, *words = sys.argv[1:]
def copy(source, target):
    while piece := os.read(source, 65536):
        try:
            while piece:
                piece = piece[os.write(target, piece):]
        except OSError:
            pass  # the client is gone
with open(f"{folder}/started", "a") as file:
    file.write(f"{name}\\n")
with open(f"{folder}/{name}.client", "w") as file:
    file.write(str(os.getpid()))
print("job queued", file=sys.stderr, flush=True)
while os.path.exists(f"{folder}/drained"):
    threading.Event().wait(0.02)
print("a banner", flush=True)
take, give = os.pipe()
told, tell = os.pipe()
if not os.fork():
    os.setsid()  # the job has its own daemon, which keeps its input open
    job = subprocess.Popen(words, stdin=take, stdout=subprocess.PIPE)
    with open(f"{folder}/{name}.new", "w") as file:
        file.write(str(job.pid))
    os.rename(f"{folder}/{name}.new", f"{folder}/{name}")
    copy(job.stdout.fileno(), 1)
    os.write(tell, bytes([job.wait() % 256]))
    os._exit(0)
os.close(take)
os.close(tell)
threading.Thread(target=copy, args=(0, give), daemon=True).start()
status = os.read(told, 1)
if not status or status[0] > 128:
    print("node failure", file=sys.stderr)
os._exit(status[0] if status else 1)
"""
# FOLDER NAME: end a job, if there is one.
STOP = """
import os, signal, sys, time
folder, name = sys.argv[1:]
with open(f"{folder}/stopped", "a") as file:
    file.write(f"{name}\\n")
with open(f"{folder}/environment", "w") as file:
    file.write(repr(dict(os.environ)))
if os.path.exists(f"{folder}/broken"):
    sys.exit("the scheduler is down")
try:
    job = int(open(f"{folder}/{name}").read())
    os.kill(job, signal.SIGTERM)
except (FileNotFoundError, ProcessLookupError):
    pass
"""


class Scheduler:
    """Its commands, and what it was asked for. The name of a job is that of its run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.options = {
            name: [script(folder, name, code, sys.executable), str(folder), "{prompt}"]
            for name, code in (("launcher", RUN), ("launcherStop", STOP))
        }

    def names(self, file: str) -> list[str]:
        """The jobs that were `started` or `stopped`, one after another."""
        path = self.folder / file
        return path.read_text().split() if path.exists() else []

    def pid(self, name: str) -> int:
        """The process of a job, or of its client (`NAME.client`); 0 before there is one."""
        path = self.folder / name
        return int(path.read_text()) if path.exists() else 0

    def is_at_work(self, name: str) -> bool:
        """Whether a job that has begun has not ended."""
        return is_running(self.pid(name))
