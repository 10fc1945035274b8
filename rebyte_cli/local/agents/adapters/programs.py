"""Finding an agent's program, and what of the disk it needs to run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .adapter import Adapter

SYSTEM_FOLDERS = ("/usr", "/nix/store", "/gnu/store")
# What a program needs of its virtual environment, whose folder may be HOME or that of a project.
ENVIRONMENT = ("pyvenv.cfg", "bin", "lib", "lib64", "include", "share")
WORK_TREES = (".git", ".hg", ".jj")
# Where version managers, which may be clones themselves, install: nvm and pyenv, asdf, Homebrew.
INSTALLED = ("versions", "installs", "Cellar")
VERSION_SECONDS = 20
# Where a program keeps things of the user's, which asking for its version must not touch.
OF_HOME = (
    *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("CLAUDE_CONFIG_DIR", "CODEX_HOME", "GEMINI_CLI_HOME", "OPENCODE_CONFIG_DIR"),
)
OF_ASDF = ".tool-versions"  # in HOME: which version of each program asdf is to start
# What version managers take for their folder, and where below HOME that is by default.
MANAGERS = {
    "ASDF_DATA_DIR": ".asdf",
    "MISE_DATA_DIR": ".local/share/mise",
    "MISE_CONFIG_DIR": ".config/mise",
    "NODENV_ROOT": ".nodenv",
    "PROTO_HOME": ".proto",
    "VOLTA_HOME": ".volta",
}


class AgentProgram(NamedTuple):
    """A program that was found.

    `command` starts it, `needs` are the paths outside the system folders that it reads, `named`
    those of them that the user has named, and `folders` go first in its PATH.
    """

    path: str
    command: list[str]
    needs: list[str]
    folders: list[str]
    named: list[str]

    @property
    def own(self) -> list[str]:
        """What it needs that the user has not named, and may not know of."""
        return [path for path in self.needs if path not in self.named]


def find(adapter: Adapter, environment: Mapping[str, str]) -> AgentProgram | None:
    """Find the adapter's program on PATH; None when it is not there."""
    found = shutil.which(os.path.expanduser(adapter.program), path=environment.get("PATH"))
    if found is None:
        return None
    # By its real path: node looks for an agent's modules beside the file, not beside the link.
    real = os.path.realpath(found)
    search = environment.get("PATH", os.defpath)
    runs_it = interpreter(Path(real), search)
    needs = dict.fromkeys([own_files(Path(real))])
    folders = dict.fromkeys([os.path.dirname(real)])
    if runs_it is not None:
        needs |= dict.fromkeys(interpreter_files(runs_it))
        folders[os.path.dirname(runs_it)] = None
    named = [os.path.realpath(os.path.expanduser(path)) for path in adapter.extra_paths]
    needs |= dict.fromkeys(named)
    return AgentProgram(
        os.path.abspath(found),
        [real, *adapter.command[1:]],
        [path for path in needs if not in_system(path)],
        [folder for folder in folders if not folder.startswith(("/usr/bin", "/bin"))],
        [path for path in named if not in_system(path)],
    )


def why_missing(adapter: Adapter) -> str:
    """Why `find` found no program."""
    path = os.path.expanduser(adapter.program)
    if not os.path.dirname(path):
        return f"{adapter.program} is not on PATH"
    return f"{adapter.program} {'is not executable' if os.path.exists(path) else 'does not exist'}"


class NoVersion(NamedTuple):
    """A program that does not say its version: `reason` is what it said instead."""

    reason: str


def version(program: AgentProgram, environment: Mapping[str, str]) -> str | NoVersion | None:
    """The version that `PROGRAM --version` prints; None when a busy machine takes too long.

    Agents make folders in their HOME even for that, so it is one that is removed. A version
    manager finds what it has installed by its own variables, or else where it is by default.
    """
    home = environment.get("HOME", "")
    outside = {name: value for name, value in environment.items() if name not in OF_HOME}
    managers = {name: f"{home}/{folder}" for name, folder in MANAGERS.items() if home}
    try:
        with tempfile.TemporaryDirectory(prefix="rebyte-", ignore_cleanup_errors=True) as empty:
            os.symlink(f"{home}/{OF_ASDF}", f"{empty}/{OF_ASDF}")
            done = subprocess.run(
                [*program.command, "--version"],
                env={**managers, **outside, "HOME": empty, "TMPDIR": empty},
                cwd="/",  # not in the user's repository, whose settings some agents load at once
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=VERSION_SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        return NoVersion(str(error))
    if done.returncode == 0:
        for word in done.stdout.split():
            if word.lstrip("v")[:1].isdigit():
                return word.lstrip("v")
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return NoVersion(lines[0] if lines else f"it exited with status {done.returncode}")


def is_between(version: str, versions: tuple[str, str]) -> bool:
    """Whether a version is one of the range, whose ends belong to it."""
    oldest, this, newest = (
        [int(number) for number in re.findall(r"\d+", each)]
        for each in (versions[0], version, versions[1])
    )
    return oldest <= this <= newest


def in_system(path: str) -> bool:
    """Whether the jail shows the path anyway."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in SYSTEM_FOLDERS)


def own_files(real: Path) -> str:
    """The program's file, or the packages that it is one of: in /opt, the folder of its package."""
    modules = [parent for parent in real.parents if parent.name == "node_modules"]
    if not modules and real.parts[:2] == ("/", "opt"):
        return str(Path(*real.parts[:3]))
    return str(modules[-1] if modules else real)


def interpreter_files(interpreter: str) -> Iterator[str]:
    """The interpreter itself, its virtual environment, and the installation it belongs to."""
    real = Path(os.path.realpath(interpreter))
    yield from environment_files(Path(interpreter).parent)
    yield installation(real.parent) or str(real)


def environment_files(folder: Path) -> list[str]:
    """The parts of the virtual environment whose programs are in `folder`; none for others."""
    prefix = folder.parent
    if not (prefix / "pyvenv.cfg").exists():
        return []
    return [str(prefix / name) for name in ENVIRONMENT if (prefix / name).exists()]


def installation(folder: Path) -> str | None:
    """The folder above one with programs, if that is what they are installed in.

    That of a virtual environment is not shown whole: see `environment_files`.
    """
    prefix, homes = folder.parent, (Path.home(), Path.home().resolve())
    # Never a folder that holds much else, such as HOME itself or ~/.local, nor a work tree.
    alone = prefix != Path("/opt") and not any(
        prefix in (home, home / ".local", *home.parents) for home in homes
    )
    has_more = (prefix / "pyvenv.cfg").exists() or _in_work_tree(prefix, homes)
    return str(prefix) if alone and (prefix / "lib").exists() and not has_more else None


def _in_work_tree(prefix: Path, homes: Sequence[Path]) -> bool:
    """Whether a folder is a part of a project, such as a package that is linked from there."""
    for above in (prefix, *prefix.parents):
        if above in homes or above.name in INSTALLED or (above / "conda-meta").exists():
            return False
        if any((above / name).exists() for name in WORK_TREES):
            return True
    return False


def interpreter(script: Path, search: str) -> str | None:
    """The program in the script's first line, `env NAME` resolved on PATH; None for a binary."""
    try:
        with script.open("rb") as source:
            head = source.readline(512)
    except OSError:
        return None
    words = head[2:].decode("utf-8", "replace").split() if head.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return shutil.which(names[0], path=search) if names else None
    return words[0] if words else None
