"""Install the agents of `package.json` from npm into `.agents-cache/`, once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".agents-cache"
BIN = CACHE / "node_modules" / ".bin"
AGENTS = ("opencode", "codex", "claude", "gemini")

# Run by hand: npm 11 runs no install script without approval, and the others' would compile.
POSTINSTALL = (
    "node_modules/@anthropic-ai/claude-code/install.cjs",
    "node_modules/opencode-ai/postinstall.mjs",
)


def install() -> None:
    """Make `CACHE` hold exactly the pinned versions; do nothing when it does already.

    Raises subprocess.CalledProcessError when npm or an installed program fails.
    """
    wanted, done = HERE / "package.json", CACHE / "installed.json"
    if done.exists() and done.read_bytes() == wanted.read_bytes():
        return
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir()
    shutil.copy(wanted, CACHE / "package.json")
    print("Installing the agents from npm (about 350 MB)", flush=True)
    npm = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
    subprocess.run([*npm, "--loglevel=error"], cwd=CACHE, check=True)
    for script in POSTINSTALL:
        subprocess.run(["node", script], cwd=CACHE, check=True)
    for agent in AGENTS:
        subprocess.run([BIN / agent, "--version"], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(wanted, done)  # last: an interrupted installation starts over
