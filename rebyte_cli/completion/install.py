"""Installs the completion script where its shell finds it, and removes it.

Fish reads a folder in the user's home, and so does bash with the bash-completion package. Zsh and
plain bash need a block between two marks in the shell's start file; on a Mac, in that of a login
shell, which is what terminals there run. Only files with our mark are overwritten or removed, and
only the block between the marks is changed in a start file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..config.paths import home_dir, xdg_dir
from ..errors import BadUsage, RebyteError
from ..system.files import write_shared
from ..system.permissions import private_folder

# The script of each shell

BASH = r"""# Completion of rebyte for bash. Printed by `rebyte completion bash`.

_rebyte() {
    local program=$1 files= before= line
    COMPREPLY=()
    type -P -- "$program" >/dev/null || program=rebyte
    {
        IFS=$'\t' read -r files before || return 0
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done
    } < <(_REBYTE_COMPLETE=bash command "$program" "${COMP_LINE:0:COMP_POINT}" "$2" \
        </dev/null 2>/dev/null)
    case $files in
        file) compopt -o default 2>/dev/null ;;
        dir) compopt -o dirnames 2>/dev/null ;;
        nospace) compopt -o nospace 2>/dev/null ;;
    esac
    return 0
}

# Bash before 4.4 sorts what it shows.
complete -o nosort -F _rebyte rebyte rebyte-cli 2>/dev/null ||
    complete -F _rebyte rebyte rebyte-cli
"""

ZSH = r"""#compdef rebyte rebyte-cli
# Completion of rebyte for zsh. Printed by `rebyte completion zsh`.

_rebyte() {
    local program=${(Q)words[1]} line files before value shown
    local -a lines values listed suffix
    integer width=0
    [[ $program == rebyte-cli || $program == */* && -x $program ]] || program=rebyte
    lines=("${(@f)$(_REBYTE_COMPLETE=zsh command $program \
        "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" </dev/null 2>/dev/null)}")
    files=${lines[1]%%$'\t'*}
    before=${lines[1]#*$'\t'}
    if [[ -n $files ]]; then
        [[ -z $before ]] || compset -P "${(b)before}"
        if [[ $files == dir ]]; then _files -/; else _files; fi
        return
    fi
    shift lines
    for line in $lines; do
        shown=${${line#*$'\t'}%%$'\t'*}
        (( ${#shown} > width )) && width=${#shown}
    done
    for line in $lines; do
        value=${line%%$'\t'*}
        line=${line#*$'\t'}
        shown=${line%%$'\t'*}
        line=${line#*$'\t'}
        [[ -z $line ]] || shown="${(r:width:)shown}  -- $line"
        [[ $value != *= ]] || suffix=(-S '')
        values+=("$value")
        listed+=("${shown[1,COLUMNS-1]}")
    done
    (( $#values )) && compadd -V rebyte -l -d listed "${suffix[@]}" -a -- values
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _rebyte "$@"
else
    compdef _rebyte rebyte rebyte-cli
fi
"""

FISH = r"""# Completion of rebyte for fish. Printed by `rebyte completion fish`.

function __rebyte_complete
    set -l words (commandline --tokens-expanded --cut-at-cursor --current-process 2>/dev/null
        or commandline --tokenize --cut-at-cursor --current-process)
    set -l word (commandline --current-token --cut-at-cursor)
    set -l program $words[1]
    command --query -- "$program"; or set program rebyte
    set -l plain (string unescape -- "$word"; or echo -- "$word")
    set -l lines (env _REBYTE_COMPLETE=fish $program $words[2..] "$plain" </dev/null 2>/dev/null)
    set -l head (string split \t -- $lines[1])
    if test -n "$head[1]"
        # A quote in front of the path would be cut off with what stands before it.
        if test -n "$head[2]"; and string match --quiet --regex '^["\']' -- "$word"
            set word (string escape --no-quoted -- "$plain")
        end
        set -l path (string sub --start (math 1 + (string length -- "$head[2]")) -- "$word")
        if test "$head[1]" = dir
            printf '%s\n' "$head[2]"(__fish_complete_directories "$path")
        else
            printf '%s\n' "$head[2]"(__fish_complete_path "$path")
        end
        return
    end
    for line in $lines[2..]
        set -l parts (string split \t -- $line)
        printf '%s\t%s\n' "$parts[1]" "$parts[3]"
    end
end

complete --command rebyte --command rebyte-cli --no-files --keep-order \
    --arguments '(__rebyte_complete)'
"""

# Each shell's script and the name of its file, as the shell wants to find it.
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
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
    "/etc/bash_completion",
)
# What bash reads before the user's own start file: under Debian, and elsewhere.
_BASH_STARTS = ("/etc/bash.bashrc", "/etc/bashrc")


# What bash reads as a login shell: the first of these that is there, and no other.
_BASH_LOGIN = (".bash_profile", ".bash_login", ".profile")


def install(
    shell: str, environment: Mapping[str, str], *, platform: str = sys.platform
) -> list[tuple[Path, bool]]:
    """Install the script of `shell`; returns each file and whether it changed.

    Raises BadUsage if a file that rebyte did not write is in the way, RebyteError if one cannot be
    written.
    """
    scripts, start_file = _places(shell, environment, platform)
    present = {script: _read(script) for script in scripts}
    for script, text in present.items():
        if text and MARK not in text:
            hint = "Move it away, then try again"
            raise BadUsage(f"{script} was not written by rebyte", hint=hint)
    done = [(script, _write(script, text, SCRIPTS[shell])) for script, text in present.items()]
    if start_file is not None:
        text = _read(start_file)
        before = _without_block(text)
        made = _MADE in text or not start_file.exists()
        gap = "" if not before or before.endswith("\n") else "\n"
        block = _block(start_file, scripts[0], made)
        done.append((start_file, _write(start_file, text, before + gap + block)))
    return done


def uninstall(
    shell: str, environment: Mapping[str, str], *, platform: str = sys.platform
) -> list[tuple[Path, bool]]:
    """Undo `install`: each file, and whether it changed (a script of ours is deleted)."""
    scripts, _ = _places(shell, environment, platform)
    done = [(script, _remove(script, environment)) for script in scripts]
    starts = _start_files(shell, environment, platform)
    for start_file in list(filter(Path.exists, starts)) or starts[:1]:
        text = _read(start_file)
        left = _without_block(text)
        changed = _write(start_file, text, left)
        if changed and not left and _MADE in text:
            with suppress(OSError):  # an empty file does no harm
                start_file.unlink()
        done.append((start_file, changed))
    return done


def _remove(script: Path, environment: Mapping[str, str]) -> bool:
    """Delete a script, and folders that are empty without it; False if it is not ours."""
    # We make no links; pipx does, to the script in its environment of the command.
    if MARK not in _read(script) or script.is_symlink():
        return False
    try:
        script.unlink()
    except OSError as error:
        raise RebyteError(f"cannot remove {script}: {error.strerror}") from None
    remove_empty(script.parent, environment)
    return True


def fresh(shell: str, *, platform: str = sys.platform) -> str:
    """The command for a shell that reads what was installed."""
    return "bash -l" if shell == "bash" and platform == "darwin" else shell


def remove_empty(folder: Path, environment: Mapping[str, str]) -> None:
    """Remove the folder and those above it, inside of the home, that have nothing in them."""
    home = home_dir(environment)
    with suppress(OSError):  # it has something in it
        while home in folder.parents:
            folder.rmdir()
            folder = folder.parent


def _places(
    shell: str, environment: Mapping[str, str], platform: str
) -> tuple[list[Path], Path | None]:
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
        return [script], _start_files(shell, environment, platform)[0]
    own = environment.get("BASH_COMPLETION_USER_DIR")
    folder = Path(own) if own and os.path.isabs(own) else data / "bash-completion"
    scripts = [folder / "completions" / name for name in ("rebyte", "rebyte-cli")]
    starts = _start_files(shell, environment, platform)
    start_file = next(filter(Path.exists, starts), starts[0])
    return scripts, None if _loads_completion(start_file) else start_file


def _loads_completion(start_file: Path) -> bool:
    """Whether bash reads the bash-completion package: it is there, and a start file names it."""
    return any(os.path.exists(path) for path in _BASH_COMPLETION) and any(
        "bash_completion" in line.partition("#")[0]
        for start in (*_BASH_STARTS, start_file)
        for line in _without_block(_read(Path(start))).splitlines()
    )


def _start_files(shell: str, environment: Mapping[str, str], platform: str) -> list[Path]:
    """Where the block may stand: in the first that is there, or will be made."""
    home = home_dir(environment)
    if shell == "zsh":
        return [Path(os.path.abspath(environment.get("ZDOTDIR") or home)) / ".zshrc"]
    if shell == "bash":
        return [home / name for name in (_BASH_LOGIN if platform == "darwin" else (".bashrc",))]
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
    try:
        # A start file in another encoding, or with a CR in it, comes back byte for byte.
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RebyteError(f"cannot read {path}: {error.strerror}") from None


def _write(path: Path, present: str, wanted: str) -> bool:
    """Replace a file in one step, keeping its mode; a link stays a link. Whether it changed."""
    if present == wanted:
        return False
    private_folder(Path(os.path.realpath(path)).parent)
    write_shared(path, wanted.encode("utf-8", "surrogateescape"))
    return True
