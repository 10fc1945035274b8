"""TAB pressed in real shells: the right words appear, and hostile ones stay words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.completion.install import script_of
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from tests.shells import Shell

FIRST = "550e8400-e29b-41d4-a716-446655440000"
SECOND = "661e8400-e29b-41d4-a716-446655440001"
WORKSPACE = "770e8400-e29b-41d4-a716-446655440002"

# What is typed, and the word that must come out of it. `touch pwned` runs where quoting fails.
HOSTILE = {
    r"\$": "$(touch pwned)",
    r'"\$': "$(touch pwned)",
    "'$": "$(touch pwned)",
    r"\`": "`touch pwned`",
    "star": "star*",
    "it": "it's",
    '"it': "it's",
    "dou": 'dou"ble',
    "bac": "bac\\slash",
    "sp": "sp ace",
    "bang": "bang!ls",
    r"\~": "~root",
    "bra": "bra{1..3}",
    "colon:": "colon:x=y",
    "github:h": "github:https://github.com/x/y",
    "pdf,col": "pdf,colon:x=y",
}
FOLDER = ("@fold er/", "@fold er/the $body.json")
SKILLS = ["pdf", "brace{a,b}", *dict.fromkeys(HOSTILE.values()), "es\x1b[31mcape", "new\nline"]


def remember(home: Path) -> None:
    """Two tasks, the older one hostile in every text that a server or a user could choose."""
    known = History(home / ".local/state/rebyte/history.db", origin="https://api.rebyte.ai")
    title = "$(touch pwned) `touch pwned` \x1b[41mred\x07\nnew line 'quoted'"
    tasks = [("$(touch pwned)", "not an id"), (SECOND, title), (FIRST, "Fix: the login")]
    for task, about in tasks:
        created = {"id": task, "workspaceId": WORKSPACE, "status": "completed", "title": about}
        skills = [skill for skill in SKILLS if not skill.startswith("pdf,")]
        known.add_tasks([NewTask(created, prompt=about, sent={"skills": skills})])
    known.name_workspace(WORKSPACE, "shop")
    known.close()


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    """Each shell, with its completion script read and a history to complete from."""
    folder = tmp_path_factory.mktemp(request.param)
    remember(folder)
    running = Shell(request.param, folder)
    script = folder / "script"
    script.write_text(script_of(request.param), encoding="utf-8")
    running.run(f"source {script}")
    yield running
    running.close()


@pytest.mark.slow
def test_commands_options_and_choices_are_completed(shell: Shell) -> None:
    """The names of the tree, wherever they may stand."""
    typed = {
        "rebyte crea": ["create"],
        "rebyte workspace na": ["workspace", "name"],
        "rebyte -q get --fie": ["-q", "get", "--fields"],
        "rebyte get --color alw": ["get", "--color", "always"],
        "rebyte get --output=jsonl": ["get", "--output=jsonl"],
        "rebyte get -ocs": ["get", "-ocsv"],
        "rebyte get --fields id,sta": ["get", "--fields", "id,status"],
        "rebyte create -x claud": ["create", "-x", "claude"],
        "rebyte -P loc": ["-P", "local"],
        "rebyte nonsense cre": ["nonsense", "cre"],
        "rebyte man loca": ["man", "local"],
        "rebyte man 'local(": ["man", "local(7)"],
        "rebyte profile set work history=t": ["profile", "set", "work", "history=true"],
    }
    for line, words in typed.items():
        assert shell.completed(line) == ["rebyte", *words], line


@pytest.mark.slow
def test_the_value_of_a_setting_follows_without_a_space(shell: Shell) -> None:
    """`model=` is half a word."""
    assert shell.completed("rebyte profile set work mod", then="x")[-1] == "model=x"


@pytest.mark.slow
def test_values_come_from_the_history(shell: Shell) -> None:
    """Tasks, workspaces and their aliases."""
    typed = {
        "rebyte get 55": FIRST,
        'rebyte get "66': SECOND,
        "rebyte get @las": "@last",
        f"rebyte wait {FIRST} 66": SECOND,
        "rebyte create -w sho": "shop",
        "rebyte create --workspace=77": f"--workspace={WORKSPACE}",
    }
    for line, word in typed.items():
        assert shell.completed(line)[-1] == word, line
    # A task of the real service is none of the local one.
    assert shell.completed("rebyte -P local get 55") == ["rebyte", "-P", "local", "get", "55"]


def test_files_are_completed_where_files_belong(shell: Shell) -> None:
    """By the shell itself, and nowhere else."""
    (shell.folder / "notes and more.txt").write_text("x")
    for before in ("rebyte create -f ", "rebyte create --prompt-file="):
        words = shell.completed(f"{before}note")
        assert words[-1].removeprefix("--prompt-file=") == "notes and more.txt", before
    (shell.folder / "body.json").write_text("{}")
    for before in ("--data @", "-d @", "-d@", "--data=@"):
        words = shell.completed(f"rebyte api POST /tasks {before}bod")
        assert " ".join(words[4:]) == f"{before}body.json", before
    (shell.folder / "fold er").mkdir()
    (shell.folder / "fold er" / "the $body.json").write_text("{}")
    for typed in (
        "-d @fold\\ er/the",
        "-d '@fold er/the $b",
        '"--data=@fold er/th',
        "--data=@fold\\ er/",
    ):
        word = shell.completed(f"rebyte api POST /tasks {typed}")[-1]
        assert word.removeprefix("--data=") == "@fold er/the $body.json", typed
    # Zsh takes the slash away again where the word ends.
    assert shell.completed("rebyte api POST /tasks -d @fo")[-1].rstrip("/") == "@fold er"
    assert shell.completed("rebyte api POST /tasks -d @fo", tabs=2)[-1] in FOLDER
    for line in ("rebyte get note", "rebyte api POST /tasks -d bod"):
        assert shell.completed(line) == line.split()


@pytest.mark.slow
def test_case_49_hostile_values_stay_words(shell: Shell) -> None:
    """Nothing runs, nothing expands, whatever quote is open (case 49)."""
    for typed, word in HOSTILE.items():
        words = shell.completed(f"rebyte create -s {typed}")
        assert words == ["rebyte", "create", "-s", word], typed
    assert not (shell.folder / "pwned").exists()


def test_tasks_are_listed_newest_first_and_safely(shell: Shell) -> None:
    """With status and title where the shell has room for them; no control character is sent."""
    described = shell.name != "bash"
    tabs = 1 if described else 2
    text = shell.shown("rebyte get ", "\\x07 new line" if described else SECOND, tabs)
    assert text.index(FIRST) < text.index(SECOND)
    assert ("completed, Fix: the login" in text) == described
    assert "\x1b[41m" not in text
    assert "red\x07" not in text
    assert "not an id" not in text
    assert not (shell.folder / "pwned").exists()
