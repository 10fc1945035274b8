"""`make agents`: install the real agents, then run their tests offline in a clean environment.

Where something is missing, say what, and succeed without a test; with CI=true, fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..surroundings import ENTERED
from .install import BIN, CACHE, HERE, install
from .offline import go_offline

ROOT = HERE.parent.parent
PROGRAMS = ("npm", "node", "git", "bwrap", "strace")
BWRAP = ("bwrap", "--unshare-user", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")


def main() -> None:
    """Check, install, cut the network, and become pytest (arguments are passed on to it)."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        give_up(f"not installed: {', '.join(missing)}")
    sandbox = subprocess.run([*BWRAP, "--unshare-pid", "true"], capture_output=True, text=True)
    if sandbox.returncode != 0:
        give_up(f"bubblewrap does not work here: {sandbox.stderr.strip()}")
    install()
    try:
        go_offline()
    except OSError as error:
        give_up(f"no network namespace: {error.strerror}")
    os.chdir(ROOT)
    pytest = [sys.executable, "-m", "pytest", "-n", "2", str(HERE), *sys.argv[1:]]
    os.execve(pytest[0], pytest, environment())


def give_up(reason: str) -> None:
    """Say why there is no test, and end: without harm, except in CI."""
    failing = os.environ.get("CI") == "true"
    print(f"make agents: {'FAILED' if failing else 'skipped'}, {reason}", file=sys.stderr)
    sys.exit(1 if failing else 0)


def environment() -> dict[str, str]:
    """What the tests see: the agents on PATH, an empty HOME, and nothing of the user's."""
    home = CACHE / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    path = os.pathsep.join((str(BIN), str(Path(sys.executable).parent), os.environ["PATH"]))
    return {
        "PATH": path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CI": os.environ.get("CI", ""),
        ENTERED: str(home),  # where these tests have their agents
    }


if __name__ == "__main__":
    main()
