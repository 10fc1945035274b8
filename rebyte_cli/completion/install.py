"""Installs the completion script where its shell finds it, and removes it; which shell that is.

Fish reads a folder in the user's home, and so does bash with the bash-completion package. Zsh and
plain bash need a block between two marks in the shell's start file; on a Mac, in that of a login
shell, which is what terminals there run. Only files with our mark are overwritten or removed, and
only the block between the marks is changed in a start file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..config.paths import home_dir, xdg_dir
from ..system import marked_files
from ..system.files import content_of, write_shared
from ..system.permissions import private_folder

# The name of each shell's script, here and where the shell looks for it.
FILES = {"bash": "rebyte.bash", "zsh": "_rebyte", "fish": "rebyte.fish"}
MARK = "Printed by `rebyte completion"
BEGIN = "# >>> rebyte completion >>>"
END = "# <<< rebyte completion <<<"
_MADE = "# This file was made for these lines."

# Where the bash-completion package is read from, by the system or by Homebrew.
_BASH_COMPLETION = (
    "/usr/share/bash-completion/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/usr/local/etc/profile.d/bash_completion.sh",
    "/opt/homebrew/etc/profile.d/bash_completion.sh",
)
# What bash reads before the user's own start file: under Debian, and elsewhere.
_BASH_STARTS = ("/etc/bash.bashrc", "/etc/bashrc")


# What bash reads as a login shell: the first of these that is there, and no other.
_BASH_LOGIN = (".bash_profile", ".bash_login", ".profile")


def script_of(shell: str) -> str:
    """The completion script of a shell, a file of `completions/`; the wheel has them in here."""
    from importlib.resources import files  # not at the top: TAB has no use for it

    scripts = files(__package__) / "scripts"
    if not scripts.is_dir():  # this is a checkout
        scripts = Path(__file__).parents[2] / "completions"
    return (scripts / FILES[shell]).read_text(encoding="utf-8")


def install(shell: str, environment: Mapping[str, str]) -> list[tuple[Path, bool]]:
    """Install the script of `shell`; returns each file and whether it changed.

    Raises BadUsage if a file that rebyte did not write is in the way, RebyteError if one cannot be
    written.
    """
    scripts, start_file = _places(shell, environment)
    done = marked_files.install(dict.fromkeys(scripts, script_of(shell).encode()), MARK.encode())
    if start_file is not None:
        text = _read(start_file)
        before = _without_block(text)
        made = _MADE in text or not start_file.exists()
        gap = "" if not before or before.endswith("\n") else "\n"
        block = _block(start_file, scripts[0], made)
        done.append((start_file, _write(start_file, text, before + gap + block)))
    return done


def uninstall(shell: str, environment: Mapping[str, str]) -> list[tuple[Path, bool]]:
    """Undo `install`: each file, and whether it changed (a script of ours is deleted)."""
    scripts, _ = _places(shell, environment)
    done = marked_files.uninstall(scripts, MARK.encode())
    for script, changed in done:
        if changed:
            remove_empty(script.parent.parent, environment)
    starts = _start_files(shell, environment)
    for start_file in list(filter(Path.exists, starts)) or starts[:1]:
        text = _read(start_file)
        left = _without_block(text)
        changed = _write(start_file, text, left)
        if changed and not left and _MADE in text:
            with suppress(OSError):  # an empty file does no harm
                start_file.unlink()
        done.append((start_file, changed))
    return done


def fresh(shell: str) -> str:
    """The command for a shell that reads what was installed."""
    return "bash -l" if shell == "bash" and sys.platform == "darwin" else shell


def remove_empty(folder: Path, environment: Mapping[str, str]) -> None:
    """Remove the folder and those above it, inside of the home, that have nothing in them."""
    home = home_dir(environment)
    with suppress(OSError):  # it has something in it
        while home in folder.parents:
            folder.rmdir()
            folder = folder.parent


def _places(shell: str, environment: Mapping[str, str]) -> tuple[list[Path], Path | None]:
    """The script's files, and the start file that must read the first where nothing else does.

    Fish and bash-completion look for a file with the name of the command, which has two names.
    """
    data = xdg_dir(environment, "XDG_DATA_HOME", ".local/share")
    config = xdg_dir(environment, "XDG_CONFIG_HOME", ".config")
    if shell == "fish":
        folder = config / "fish" / "completions"
        return [folder / FILES[shell], folder / "rebyte-cli.fish"], None
    if shell == "zsh":
        script = data / "zsh" / "site-functions" / FILES[shell]
        return [script], _start_files(shell, environment)[0]
    own = environment.get("BASH_COMPLETION_USER_DIR")
    folder = Path(own) if own and os.path.isabs(own) else data / "bash-completion"
    scripts = [folder / "completions" / name for name in ("rebyte", "rebyte-cli")]
    starts = _start_files(shell, environment)
    start_file = next(filter(Path.exists, starts), starts[0])
    return scripts, None if _loads_completion(start_file) else start_file


def _loads_completion(start_file: Path) -> bool:
    """Whether bash reads the bash-completion package: it is there, and a start file names it."""
    return any(os.path.exists(path) for path in _BASH_COMPLETION) and any(
        "bash_completion" in line.partition("#")[0]
        for start in (*_BASH_STARTS, start_file)
        for line in _without_block(_read(Path(start))).splitlines()
    )


def _start_files(shell: str, environment: Mapping[str, str]) -> list[Path]:
    """Where the block may stand: in the first that is there, or will be made."""
    home = home_dir(environment)
    if shell == "zsh":
        return [Path(os.path.abspath(environment.get("ZDOTDIR") or home)) / ".zshrc"]
    if shell == "bash":
        names = _BASH_LOGIN if sys.platform == "darwin" else (".bashrc",)
        return [home / name for name in names]
    return []


def _block(start_file: Path, script: Path, made: bool) -> str:
    import shlex

    lines = [f"source {shlex.quote(str(script))}"]
    if start_file.name == ".profile":  # other shells read it too, and cannot read the script
        readable = "command -v shopt >/dev/null && ! shopt -oq posix"
        lines[0] = f"if {readable}; then {lines[0]}; fi"
    if start_file.name == ".zshrc":
        lines.insert(0, "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }")
    if made:
        lines.insert(0, _MADE)
    return "\n".join([BEGIN, *lines, END, ""])


def _without_block(text: str) -> str:
    import re  # not at the top: TAB has no use for it

    # Half a block was edited by hand: it stays as it is, with whatever follows it.
    inside = f"(?:(?!{re.escape(BEGIN)}).)*?"
    return re.sub(f"{re.escape(BEGIN)}{inside}{re.escape(END)}\n?", "", text, flags=re.DOTALL)


def _read(path: Path) -> str:
    # A start file in another encoding, or with a CR in it, comes back byte for byte.
    return content_of(path).decode("utf-8", "surrogateescape")


def _write(path: Path, present: str, wanted: str) -> bool:
    """Replace a file in one step, keeping its mode; a link stays a link. Whether it changed."""
    if present == wanted:
        return False
    private_folder(Path(os.path.realpath(path)).parent)
    write_shared(path, wanted.encode("utf-8", "surrogateescape"))
    return True


class ProcessEntry(NamedTuple):
    """What is known of a process: its parent, its process group, the name of its program."""

    parent: int
    group: int
    name: str


def process_entry(pid: int, proc: Path = Path("/proc")) -> ProcessEntry:
    """The process `pid`, from `proc` or, as on a Mac, from ps(1)."""
    try:
        # The name is in parentheses and may hold any character; see proc_pid_stat(5).
        name, _, rest = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")
        _state, parent, group = rest.split()[:3]
        return ProcessEntry(int(parent), int(group), name.partition("(")[2])
    except FileNotFoundError:
        ps = ["ps", "-o", "ppid=,pgid=,comm=", "-p", str(pid)]
        done = subprocess.run(ps, capture_output=True, text=True, check=True, timeout=5)
        parent, group, name = done.stdout.split(maxsplit=2)
        # Of a login shell it is `-zsh`; on a Mac it is a path.
        return ProcessEntry(int(parent), int(group), name.strip().rpartition("/")[2].lstrip("-"))


def parent_shell(
    shells: Collection[str], read: Callable[[int], ProcessEntry] = process_entry
) -> str | None:
    """The nearest interactive shell of `shells` above this process, or None.

    `$SHELL` names the login shell, which may be another. An interactive shell gives each command
    its own process group. One that runs a script does not, and is passed over: an installer written
    in bash is started from other shells too. None as well where processes cannot be read.
    `read` is for tests.
    """
    try:
        entry = read(os.getpid())
        while entry.parent > 1:
            above = read(entry.parent)
            if above.name in shells and above.group != entry.group:
                return above.name
            entry = above
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    return None
