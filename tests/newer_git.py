"""A git that seems to be 2.54, and tells of each hook that such a git would run."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

HOOK = "reference-transaction"  # which is run for whatever moves a reference
# Its own options come before the command. What receives a push is told nothing of them.
_PROGRAM = r"""#!/bin/bash
all=("$@") options=()
while [[ $1 == -* && $1 != --version ]]; do
    [[ $1 == -[cC] || $1 == --git-dir ]] && { options+=("$1"); shift; }
    options+=("$1"); shift
done
sender() { @git@ "${options[@]}" "$@"; }
receiver() {
    env -u GIT_CONFIG_PARAMETERS -u GIT_CONFIG_COUNT GIT_DIR=@receiver@ \
        sh -c "$program"' "$@"' program "$@"
}
tell() {
    "$2" config -z --name-only --list | while IFS= read -rd '' key; do
        [[ $key == hook.*.command ]] || continue
        is_on=$("$2" config --type=bool --get "${key%.command}.enabled")
        [[ $is_on == false ]] || printf '%s: %s\n' "$1" "$key" >>@log@
    done
}
case $1 in
    --version) echo git version 2.54.0; exit ;;
    add|apply|clone|fetch|init|push|read-tree|symbolic-ref|update-index|update-ref|write-tree)
        tell "$1" sender
        for word; do
            program=${word#--receive-pack=}
            [[ $program == "$word" ]] && continue
            program=${program% receive-pack}
            tell receive receiver
        done ;;
esac
exec @git@ "${all[@]}"
"""


def install(folder: Path, receiver: Path = Path("/nowhere")) -> Path:
    """Make it in a new folder, for the PATH; the file where it tells `COMMAND: hook.NAME.command`.

    Where `push` names a program that receives, `receive` is that, in the repository `receiver`.
    """
    folder.mkdir()
    log = folder / "log"
    program = folder / "git"
    text = _PROGRAM
    for name, value in (("git", shutil.which("git")), ("log", log), ("receiver", receiver)):
        text = text.replace(f"@{name}@", shlex.quote(str(value)))
    program.write_text(text)
    program.chmod(0o755)
    return log


def name_hook(repository: Path, name: str, mark: Path, *, file: str = "config") -> None:
    """Let a file of settings in a repository's own folder name a hook that makes a file."""
    with (repository / file).open("a") as config:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        config.write(f'[hook "{escaped}"]\n\tevent = {HOOK}\n\tcommand = touch {mark}\n')
