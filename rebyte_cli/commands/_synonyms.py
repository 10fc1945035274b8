"""What to type for a command or an option that other tools have under another name.

Imported only after a word was refused, so that it costs nothing at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TypeVar

from ..errors import Next, alternatives, did_you_mean

T = TypeVar("T")

# A word that is no command of `rebyte`, and what is meant by it.
_COMMANDS = {
    "again redo repeat restart retry": "rerun TASK",
    "abort kill stop terminate end": "cancel TASK",
    "add exec new start submit task-create": "create PROMPT",
    "ask continue chat reply resume send prompt": "follow-up TASK PROMPT",
    "follow tail": "logs -f TASK",
    "balance billing": "credits",
    "cat output print": "result TASK",
    "diagnose health ping": "doctor",
    "clean destroy remove": "delete TASK",
    "commands": "help",
    "config configure settings": "profile set NAME KEY=VALUE",
    "computer computers project ws vm": "workspace list",
    "describe details info inspect status view": "get TASK",
    "docs guide manual": "man tutorial",
    "download": "artifact get WS --all",
    "history ps queue": "list",
    "top": "list --watch",
    "init login setup signin": "auth login",
    "logout signout": "auth logout",
    "patch": "diff TASK",
    "profiles": "profile list",
    "publish": "share TASK --public",
    "serve server": "local serve",
    "switch use": "profile use NAME",
    "token whoami": "auth status",
    "transcript": "logs TASK",
    "version": "--version",
    "upload": "file upload PATH",
    "watch": "wait TASK",
    "web browse browser": "open TASK",
}
# The same in every group, where the group has such a command.
_IN_GROUPS = {
    "add new init make": "create set",
    "change configure edit update": "set create",
    "destroy kill remove unset": "delete unset forget stop",
    "download fetch": "get",
    "get describe info inspect status view whoami": "show status get",
    "put push": "upload put",
    "rename alias": "name",
    "show": "get status",
    "signin": "login",
    "signout": "logout",
    "start": "serve create",
    "switch select": "use",
    "upload": "put",
    "watch": "listen",
}
_SHELL = (
    "rebyte has no shell into a VM. "
    + Next("follow-up", "TASK", "PROMPT")
    + " asks the agent there; "
    + Next("artifact", "get", "WS", "--all")
    + " fetches its files"
)

# Options that other tools have: the option that the command must have for the hint to hold (empty
# for any command), and the hint.
_OPTIONS = {
    "--json": ("", "Use -o json; --fields id,title picks keys"),
    "--jsonl": ("", "Use -o jsonl"),
    "--csv": ("", "Use -o csv"),
    "--tsv": ("", "Use -o tsv"),
    "--yaml": ("", "Use -o json; rebyte prints no YAML"),
    "--format": ("", "Use -o json, or another format of --output"),
    "--output-format": ("", "Use --output"),
    "--jq --template": ("", "Pipe the output to jq: rebyte … -o json | jq .id"),
    "--columns": ("", "Use --fields"),
    "--no-color --no-colour": ("", "Use --color never, or set NO_COLOR=1"),
    "--silent": ("", "Use --quiet"),
    "--trace": ("", "Use --debug"),
    "--no-interactive --non-interactive": ("", "Use --no-input"),
    "--account --context": ("", "Use -P NAME"),
    "--local": ("", "Use -P local"),
    "--api-key --key --token": (
        "",
        "Set REBYTE_API_KEY, or store the key with " + Next("auth", "login"),
    ),
    "--api-url --base-url --host --url": (
        "",
        "Set REBYTE_API_URL, or use " + Next("profile", "set", "NAME", "base_url=URL"),
    ),
    "--async --background --detach --no-wait": (
        "--wait",
        "Leave it out: without --wait or --stream, the command returns at once",
    ),
    "--agent --engine": ("--executor", "Use -x NAME"),
    "--retries --retry --tries": (
        "--attempts",
        "Leave it out: requests are retried where that is safe."
        " --attempts N creates N tasks at once",
    ),
    "--repo -R": ("--github-url", "Use -g owner/repo"),
    "--follow": ("--stream", "Use --stream, or " + Next("logs", "-f", "TASK")),
    "--watch": ("--wait", "Use --wait, or " + Next("wait", "TASK")),
    "--web": ("", "Use " + Next("open", "TASK")),
    "-L": ("--limit", "Use -n N"),
    "-e --edit": ("--prompt-file", "Leave out PROMPT: on a terminal, $EDITOR opens"),
    "-A -a": ("--all", "Use --all"),
    "-y --yes --force": ("", "Leave it out: this command asks for no confirmation"),
    "-n": ("--tail", "Use --tail N"),  # where it is not --limit
}
CERTAIN = 0.85  # similarity from which on other words of similar letters are not meant


def for_command(path: str, words: Sequence[str], known: Iterable[str]) -> str:
    """The hint for the first of `words`, which is no command of the group `path`.

    `known` are the group's commands. A synonym wins over a word of similar letters.
    """
    known = list(known)
    word = words[0]
    if path != "rebyte":
        found = _in_group(word, known)
        hint = (
            "Did you mean " + Next(*path.split()[1:], found) + "?"
            if found
            else did_you_mean(word, known)
        )
        return hint or f"See `{path} --help`"
    if " " in word.strip():
        return "To run a prompt as a task, use " + Next("create", "PROMPT")
    if word in ("ssh", "shell", "sh", "bash", "terminal"):
        return _SHELL
    if word in ("update", "upgrade"):
        from ..installation import Installation

        return Installation.find().upgrade()
    if word in ("task", "tasks"):
        verb = words[1] if words[1:] and words[1] in known else "list"
        return "Commands for tasks have no noun: " + Next(verb)
    shown = {name: Next(name) for name in known}
    for others, meant in _COMMANDS.items():
        shown.update(dict.fromkeys(others.split(), Next(meant)))
    word = word.casefold()
    near = (
        [word]
        if word in shown
        else get_close_matches(word, shown, n=1, cutoff=CERTAIN)
        or get_close_matches(word, shown, n=3, cutoff=0.66)
    )
    likely = list(dict.fromkeys(shown[name] for name in near))
    return "Did you mean " + alternatives(likely) + "?" if likely else "See `rebyte --help`"


def for_page(word: str, topics: Sequence[str]) -> str:
    """The hint for a word that has no manual page; `topics` are those that have one."""
    meant = (_lookup(_COMMANDS, word.casefold()) or "").partition(" ")[0]
    if meant in topics:
        return "Did you mean " + Next("man", meant) + "?"
    return did_you_mean(word, topics) or f"The pages are {', '.join(sorted(topics))}"


def for_option(option: str, taken: Iterable[str]) -> str | None:
    """The hint for an option that does not exist; `taken` are the names that the command takes.

    None when no option is near.
    """
    taken = list(taken)
    needed, hint = _lookup(_OPTIONS, option) or ("", "")
    if hint and (not needed or needed in taken):
        return hint
    long = [name for name in taken if name.startswith("--")]
    return did_you_mean(option, long, prefix="--")


def _in_group(word: str, known: Sequence[str]) -> str | None:
    meant = _lookup(_IN_GROUPS, word.casefold())
    fitting = [name for name in (meant or "").split() if name in known]
    return fitting[0] if fitting else None


def _lookup(table: dict[str, T], word: str) -> T | None:
    return next((meant for words, meant in table.items() if word in words.split()), None)
