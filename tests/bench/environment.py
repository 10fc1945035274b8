"""The environment that is measured: clean, with the built wheel in it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv" / "bench"
PYTHON = str(PLACE / "bin" / "python")
REBYTE = str(PLACE / "bin" / "rebyte")
SOURCES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
FOLDERS = ("rebyte_cli", "man", "completions")


def ready() -> None:
    """Build the wheel and install it as a user would, unless that was done for these sources.

    Nothing else is in the environment, no pip and no `.pth` file: whatever stands in front of
    the interpreter would be measured too, and would flatter every ratio.
    """
    mark = PLACE / ".sources"
    digest = _digest()
    if mark.exists() and mark.read_text() == digest:
        return
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE, symlinks=True)
    wheels = PLACE / "wheel"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    pip = [sys.executable, "-m", "pip", "--python", PYTHON, "--disable-pip-version-check"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    install = [*pip, "install", "--quiet", *map(str, wheels.glob("*.whl"))]
    subprocess.run(install, env=environment, check=True)
    strangers = list(PLACE.glob("lib/python*/site-packages/*.pth"))
    if strangers:
        raise RuntimeError(f"not a clean environment: {strangers[0]}")
    mark.write_text(digest)


def _digest() -> str:
    """One word for everything that the wheel is made of, and for this Python."""
    found = hashlib.sha256(sys.version.encode())
    files = [ROOT / name for name in SOURCES]
    for folder in FOLDERS:
        files += sorted((ROOT / folder).rglob("*"))
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            found.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return found.hexdigest()


def variables(home: Path, **more: str) -> dict[str, str]:
    """The environment of a newcomer: an empty home, no proxy, no setting of Python or of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    state = {"XDG_CONFIG_HOME": str(home / "config"), "XDG_STATE_HOME": str(home / "state")}
    return {
        **kept,
        **state,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        **more,
    }
