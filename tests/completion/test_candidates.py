"""What TAB offers, asked as the scripts ask; and what an answer may cost."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rebyte_cli.app import App
from rebyte_cli.commands.man import TOPICS
from rebyte_cli.completion.candidates import offers
from rebyte_cli.completion.main import CommandLine
from rebyte_cli.completion.values import SETTINGS
from rebyte_cli.config.fields import FIELDS
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from rebyte_cli.manual.builder import hand_written
from tests.conftest import Done
from tests.repositories import git, small_repository

TASK = "550e8400-e29b-41d4-a716-446655440000"


def never(_options: dict[str, str]) -> NoReturn:
    raise AssertionError("nothing on this machine had to be looked up")


def offered(*words: str, look_up: Callable[..., Any] = never) -> list[str]:
    """What stands in the list for a line whose last word is being typed."""
    *before, word = words
    return [item.value for item in offers(before, word, look_up).items]


def test_options_given_before_are_not_offered_again() -> None:
    """Unless they may be repeated, as `-s` may."""
    assert "--wait" in offered("create", "--")
    assert "--wait" not in offered("create", "--wait", "--")
    assert "--skill" in offered("create", "-s", "pdf", "--")
    assert "--output" not in offered("-o", "json", "create", "--")


def test_words_after_two_dashes_are_no_options() -> None:
    """As Click reads it."""
    assert offered("create", "--", "--") == []
    assert offered("-P", "--", "create", "--wai") == ["--wait"]  # here it is the profile's name


def test_an_alias_is_not_offered_but_completed() -> None:
    assert "ls" not in offered("")
    assert offered("ls", "--stat") == offered("list", "--stat") == ["--status"]
    assert offered("workspace", "rm", "--ye") == ["--yes"]


def test_statuses_are_completed_after_a_comma() -> None:
    assert offered("list", "--status", "fail") == ["failed"]
    assert offered("list", "--status", "failed,run") == ["failed,running"]
    assert "failed,failed" not in offered("list", "--status=failed,")


def test_branches_of_the_repository_here(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    folder = small_repository(tmp_path / "repository")
    git(folder, "branch", "fix/login")
    git(folder, "update-ref", "refs/remotes/origin/far", "HEAD")
    monkeypatch.chdir(folder)

    def look_up(_options: dict[str, str]) -> None:
        """Branches need no App."""

    offers_both = offered("create", "-g", ".", "-b", "f", look_up=look_up)
    assert offers_both == ["fix/login", "far"]
    monkeypatch.chdir("/")
    assert offered("create", "-g", ".", "-b", "f", look_up=look_up) == []


def test_the_value_of_an_option_is_no_command() -> None:
    """Whether it stands in the same word or in the next."""
    assert offered("-o", "json", "wor") == ["workspace"]
    assert offered("-ojson", "wor") == ["workspace"]
    assert offered("--output=json", "wor") == ["workspace"]
    assert offered("-qvo", "js") == ["json", "jsonl"]
    assert offered("-p", "workspace", "cre") == ["create"]  # an unknown option takes nothing


def test_fields_are_those_of_the_command() -> None:
    """The last one of a list is completed, and none is offered twice."""
    assert offered("get", "--fields", "prom") == ["prompts"]
    assert offered("webhook", "list", "--fields", "url,eve") == ["url,events"]
    assert offered("get", "--fields", "id,i") == []
    assert offered("get", "--fields=status,tit") == ["--fields=status,title"]


def test_the_pages_that_are_about_no_command_are_offered() -> None:
    """`rebyte man tutorial` is what a newcomer is told to type."""
    assert offered("man", "tut") == ["tutorial"]
    assert offered("man", "lo") == ["local", "logs", "local-agents", "local(7)"]
    assert offered("help", "tut") == []
    assert "tutorial" not in offered("man", "workspace", "")
    pages = {name.removeprefix("rebyte-") for name in hand_written()} - {"rebyte.1"}
    shown = {re.sub(r"\(\d\)", "", name) for name in TOPICS}
    assert shown == {page[:-2] for page in pages}


def test_a_setting_is_completed_up_to_its_value_and_then_the_value() -> None:
    """Never one that was given already."""
    assert offered("profile", "set", "work", "mo") == ["model="]
    assert offered("profile", "set", "work", "output=j") == ["output=json", "output=jsonl"]
    assert offered("profile", "set", "work", "model=x", "mo") == []
    assert offered("profile", "create", "work", "history=") == ["history=true", "history=false"]
    assert offered("profile", "set", "work", "timeout=") == []
    files = offers(["profile", "set", "work"], "ca_bundle=/e", never)
    assert (files.files, files.before) == ("file", "ca_bundle=")
    assert set(SETTINGS) <= set(FIELDS)


def test_the_profile_that_is_built_in_is_not_offered_to_be_changed(
    home: Path, rebyte: Callable[..., Done]
) -> None:
    rebyte("profile", "create", "work")
    for command in ("set", "unset", "delete"):
        told = complete(rebyte, "profile", command, "")
        words = [line.partition("\t")[0] for line in told.out.splitlines()[1:]]
        assert "work" in words, command
        assert "local" not in words, command


def test_places_are_profiles_with_commas_and_numbers(
    home: Path, rebyte: Callable[..., Done]
) -> None:
    (home / ".config/rebyte").mkdir(parents=True)
    (home / ".config/rebyte/config.toml").write_text('[profiles.box]\nssh = "box"\n')

    def names(*words: str) -> list[str]:
        said = complete(rebyte, *words).out.splitlines()
        return sorted(line.split("\t")[0] for line in said if line.strip())

    assert names("batch", "t.jsonl", "--on", "") == ["box", "default", "local"]
    assert names("list", "--on", "local,") == ["local,box", "local,default"]
    assert names("batch", "t.jsonl", "--on", "local:2,b") == ["local:2,box"]
    assert names("batch", "t.jsonl", "--on=local:2,box:8,") == ["--on=local:2,box:8,default"]


def test_before_anything_is_typed_a_few_ids_are_offered(home: Path) -> None:
    """A screen of them at most, and names come first."""
    known = History(
        home / ".local" / "state" / "rebyte" / "history.db", origin="https://api.rebyte.ai"
    )
    for number in range(30):
        task, workspace = (f"{number:02}{letter}" + TASK[3:] for letter in "ab")
        known.add_tasks([NewTask({"id": task, "workspaceId": workspace}, prompt="x")])
    known.name_workspace(f"05b{TASK[3:]}", "shop")
    known.close()

    def look_up(_options: dict[str, str]) -> App:
        return App({"HOME": str(home)})

    tasks = offered("get", "", look_up=look_up)
    assert (tasks[0][:2], len(tasks)) == ("29", 20)
    assert len(offered("get", "0", look_up=look_up)) == 10
    workspaces = offered("workspace", "show", "", look_up=look_up)
    assert (workspaces[0], len(workspaces)) == ("shop", 20)


def test_unknown_commands_have_nothing_to_offer() -> None:
    """Nothing is guessed, and nothing outside of the tables is read."""
    assert offered("nonsense", "") == []
    assert offered("../../etc/passwd", "") == []
    assert offered("workspace", "nonsense", "--") == []


@pytest.mark.parametrize(
    ("text", "words", "word", "quote"),
    [
        ("rebyte get ab", ["rebyte", "get"], "ab", ""),
        ("rebyte get 'a b' \"c d", ["rebyte", "get", "a b"], "c d", '"'),
        (r"rebyte get a\ b\$", ["rebyte", "get"], "a b$", ""),
        (r'rebyte get "a\$b\n', ["rebyte", "get"], r"a$b\n", '"'),
        ("rebyte get '' x", ["rebyte", "get", ""], "x", ""),
        ("ls | rebyte wait a", ["rebyte", "wait"], "a", ""),
        ("rebyte get a\\", ["rebyte", "get"], "a", ""),
        ("rebyte get <in 2>err a", ["rebyte", "get"], "a", ""),
    ],
)
def test_bash_lines_are_read_as_bash_does(
    text: str, words: list[str], word: str, quote: str
) -> None:
    """Without running or expanding anything in them."""
    line = CommandLine(text)
    assert (line.words, line.word, line.quote) == (words, word, quote)


def complete(rebyte: Callable[..., Done], *words: str, **env: str) -> Done:
    return rebyte(*words, env={"_REBYTE_COMPLETE": "zsh", **env})


def test_a_broken_history_or_configuration_says_nothing(
    home: Path, rebyte: Callable[..., Done]
) -> None:
    """The user is typing a command line at that moment."""
    state, config = home / ".local/state/rebyte", home / ".config/rebyte"
    state.mkdir(parents=True)
    config.mkdir(parents=True)
    (state / "history.db").write_bytes(b"no database")
    assert complete(rebyte, "get", "") == (0, "\t\n", "")
    (config / "config.toml").write_text("[profiles")
    done = complete(rebyte, "get", "")
    assert (done.out, done.err) == ("", "")


def test_no_history_is_made_by_looking(home: Path, rebyte: Callable[..., Done]) -> None:
    """TAB leaves no trace."""
    assert complete(rebyte, "get", "").status == 0
    assert list(home.rglob("*")) == []


def test_nothing_is_asked_of_the_service(home: Path, rebyte: Callable[..., Done]) -> None:
    """A server that is named in the environment hears nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        known = History(home / ".local/state/rebyte/history.db", origin=url.removesuffix("/v1"))
        known.add_tasks([NewTask({"id": TASK, "status": "running"}, prompt="Say hello")])
        known.close()
        for line in (["get", ""], ["create", "-w", ""], ["create", "-s", ""], ["-P", ""]):
            done = complete(rebyte, *line, REBYTE_API_URL=url, REBYTE_API_KEY="rbk_local")
            assert done.status == 0
        done = complete(rebyte, "get", "55", REBYTE_API_URL=url)
        assert done.out == f"\t\n{TASK}\t{TASK}\trunning, Say hello\n"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


HEAVY = ("click", "requests", "rich", "keyring", "urllib3", "werkzeug")


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        (["crea"], (*HEAVY, "sqlite3", "json", "pathlib")),
        (["create", "--"], (*HEAVY, "sqlite3", "json", "pathlib")),
        (["get", ""], HEAVY),
        (["-P", ""], (*HEAVY, "sqlite3")),
    ],
)
def test_an_answer_imports_little(home: Path, words: list[str], budget: tuple[str, ...]) -> None:
    """The price of a key press: no Click ever, the database only for what is in it."""
    code = (
        "import sys; from rebyte_cli.completion.main import respond; before = set(sys.modules);"
        "respond('zsh', sys.argv[1:]); print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert {name.split(".")[0] for name in done.stderr.split()}.isdisjoint(budget)
