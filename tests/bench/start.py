"""What every run costs, before it does anything: the version, help, and the answer to TAB."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask

from .environment import REBYTE, variables
from .measure import Row, ratio

PEERS: dict[str, Sequence[Sequence[str]]] = {
    "version": [
        ("jq", "--version"),
        ("curl", "--version"),
        ("gh", "--version"),
        ("http", "--version"),
        ("hf", "version"),
    ],
    "help": [("gh", "--help"), ("http", "--help"), ("hf", "--help")],
    "completion": [("gh", "__complete", "pr", "")],
}


def rows(home: Path) -> Iterator[Row]:
    """One row per kind of start."""
    env = variables(home)
    yield Row("rebyte --version", ratio([REBYTE, "--version"], env, 31), "1.7 x")
    yield from _peers("version", home)
    for words in (["--help"], ["create", "--help"]):
        yield Row(f"rebyte {' '.join(words)}", ratio([REBYTE, *words], env, 21), "4.2 x")
    yield from _peers("help", home)
    _remember(home / "state" / "rebyte" / "history.db")
    asked = {
        "a command": "rebyte wor",
        "an option": "rebyte create --wa",
        "a task id": "rebyte get ",
    }
    for what, line in asked.items():
        env = variables(home, _REBYTE_COMPLETE="bash")
        yield Row(f"TAB for {what}", ratio([REBYTE, line, line.split(" ")[-1]], env, 21), "4.5 x")
    yield from _peers("completion", home)


def _peers(kind: str, home: Path) -> Iterator[Row]:
    for words in PEERS[kind]:
        if shutil.which(words[0]):
            yield Row("  " + " ".join(words).strip(), ratio(words, variables(home), 7))


def _remember(file: Path) -> None:
    """A history of three hundred tasks, as a user has after a month."""
    history = History(file, origin="https://api.rebyte.ai")
    history.add_tasks(
        NewTask(
            {"id": f"00000000-0000-4000-8000-{n:012d}", "workspaceId": f"ws-{n}"}, f"Prompt {n}", {}
        )
        for n in range(300)
    )
    history.close()
