"""What was typed wrong is refused before anything is sent, in a line that says what to type."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done

Run = Callable[..., Done]


def error(done: Done) -> dict[str, Any]:
    """The error object on stderr of a run whose stdout is JSON."""
    found: dict[str, Any] = json.loads(done.err.strip().splitlines()[-1])["error"]
    return found


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["craete", "x"], "`rebyte create`"),
        (["Create", "x"], "`rebyte create`"),
        (["workspace", "lst"], "'list'"),
        (["wait", "x", "--timout", "3"], "'--timeout'"),
        (["--ouput", "json", "list"], "'--output'"),
        (["list", "--lmit", "3"], "'--limit'"),
        (["list", "--fields", "titel"], "'title'"),
        (["list", "--fields", "STATUS"], "'status'"),
        (["list", "--fields", "workspace_id"], "'workspaceId'"),
        (["-P", "locla", "list"], "'local'"),
        (["-P", "LOCAL", "list"], "'local'"),
        (["profile", "set", "default", "outptu=id"], "'output'"),
        (["help", "craete"], "'create'"),
    ],
)
def test_the_nearest_word_is_the_hint(inside: Run, words: list[str], hint: str) -> None:
    done = inside(*words)
    assert done.status in (2, 4)
    first = done.err.partition("Did you mean ")[2].partition("?")[0]
    assert first.startswith(hint), done.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["login"], "Did you mean `rebyte auth login`?"),
        (["kill", "@last"], "Did you mean `rebyte cancel TASK`?"),
        (["Status"], "Did you mean `rebyte get TASK`?"),
        (["tail", "-f", "x"], "Did you mean `rebyte logs -f TASK`?"),
        (["tial"], "Did you mean `rebyte logs -f TASK`?"),
        (["logni"], "Did you mean `rebyte auth login` or `rebyte logs`?"),
        (["tasks", "get", "x"], "Commands for tasks have no noun: `rebyte get`"),
        (["task"], "Commands for tasks have no noun: `rebyte list`"),
        (["Say hello"], "To run a prompt as a task, use `rebyte create PROMPT`"),
        (["zzzzz"], "See `rebyte --help`"),
        (["workspace", "view"], "Did you mean `rebyte workspace show`?"),
        (["auth", "whoami"], "Did you mean `rebyte auth status`?"),
        (["list", "--json"], "Use -o json; --fields id,title picks keys"),
        (["list", "--jq", ".id"], "Pipe the output to jq: rebyte … -o json | jq .id"),
        (["list", "-L", "5"], "Use -n N"),
        (["logs", "x", "-o", "jsonl", "-n", "5"], "Use --tail N"),
        (["create", "-e"], "Leave out PROMPT: on a terminal, $EDITOR opens"),
        (["list", "-A"], "Use --all"),
        (["creat", "x"], "Did you mean `rebyte create`?"),
        (["followup", "x"], "Did you mean `rebyte follow-up`?"),
        (["create", "x", "--follow"], "Use --stream, or `rebyte logs -f TASK`"),
        (
            ["create", "x", "--retries", "3"],
            "Leave it out: requests are retried where that is safe. --attempts N creates N tasks"
            " at once",
        ),
        (
            ["--api-key", "x", "list"],
            "Set REBYTE_API_KEY, or store the key with `rebyte auth login`",
        ),
    ],
)
def test_a_word_of_another_tool_is_answered_with_ours(
    inside: Run, words: list[str], hint: str
) -> None:
    done = inside(*words)
    assert (done.status, error(done)["hint"]) == (2, hint)


def test_several_near_words_are_listed_as_in_prose(inside: Run) -> None:
    hint = error(inside("list", "--statu", "id"))["hint"]
    assert hint == "Did you mean '--status' or '--no-status'?"


def test_dashes_make_no_option_near(inside: Run) -> None:
    assert error(inside("credits", "--foo"))["hint"] == "See `rebyte credits --help`"
    hint = error(inside("list", "--fileds", "id"))["hint"]
    assert hint == "Did you mean '--fields' or '--profile'?"


def test_no_synonym_is_a_command_itself(inside: Run) -> None:
    from rebyte_cli.commands._synonyms import _COMMANDS

    words = " ".join(_COMMANDS).split()
    assert [word for word in words if inside(word, "--help").status == 0] == []


def test_every_synonym_means_a_command_that_exists(inside: Run) -> None:
    """With options that it takes: help of it succeeds."""
    from rebyte_cli.commands._synonyms import _COMMANDS

    for meant in _COMMANDS.values():
        words = [word for word in meant.split() if not word.isupper() and "=" not in word]
        if words == ["--version"]:
            continue
        helped = inside(*(word for word in words if not word.startswith("-")), "--help")
        assert helped.status == 0, meant
        assert all(word in helped.out for word in words if word.startswith("-")), meant


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        (["ls"], ["list"]),
        (["rm"], ["delete"]),
        (["show"], ["get"]),
        (["run"], ["create"]),
        (["workspace", "ls"], ["workspace", "list"]),
        (["webhook", "rm"], ["webhook", "delete"]),
    ],
)
def test_an_alias_is_the_command_itself(inside: Run, alias: list[str], name: list[str]) -> None:
    """Its help, too, is that of the command, and no help page lists it."""
    helped = inside(*alias, "--help")
    assert helped.out == inside(*name, "--help").out
    assert helped.out.startswith(f"Usage: rebyte {' '.join(name)} ")
    assert inside("help", *alias).out == helped.out
    group = inside(*name[:-1], "--help").out
    assert f"  {alias[-1]} " not in group


def test_aliases_take_every_option(inside_local: Run) -> None:
    made = inside_local("run", "Say hello", "--wait", "-o", "json")
    assert made.json["status"] == "completed"
    assert inside_local("show", "@last", "-o", "id").out == inside_local("ls", "-o", "id").out
    assert inside_local("rm", "@last", "--ignore-missing").json["deleted"] is True


def test_an_executor_near_a_known_one_is_passed_on_with_a_word(inside: Run) -> None:
    done = inside("create", "x", "-x", "calude", "--dry-run")
    assert (done.status, done.json["executor"]) == (0, "calude")
    assert "'claude'" in done.err
    assert inside("create", "x", "-x", "my-own", "--dry-run").err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["create", "x", "-w", ""],
        ["create", "x", "-g", " "],
        ["create", "x", "-g", "a/b", "-b", ""],
        ["create", "x", "-x", ""],
        ["create", "x", "-m", ""],
        ["create", "x", "-s", ""],
        ["create", "x", "--once", ""],
        ["-P", "", "create", "x"],
        ["list", "--fields", ""],
        ["list", "--fields", " , "],
    ],
)
def test_an_empty_value_is_refused(inside_local: Run, words: list[str]) -> None:
    """A variable that was not set must not become another workspace, or another account."""
    done = inside_local(*words)
    assert done.status == 2, done.out
    assert inside_local("list").json["total"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["create", "Say \udcff"],
        ["create", "-p", "Say \udcff"],
        ["create", "x", "-s", "pdf,\udcff"],
        ["create", "x", "-m", "\udcff"],
        ["create", "x", "--once", "\udcff"],
        ["create", "x", "-g", "a/b", "-b", "\udcff"],
        ["list", "--search", "\udcff"],
        ["profile", "set", "default", "executor=\udcff"],
    ],
)
def test_an_argument_that_is_not_text_is_refused(inside_local: Run, words: list[str]) -> None:
    done = inside_local(*words)
    assert done.status == 2, done.err
    assert "UTF-8" in error(done)["message"]
    assert inside_local("list").json["total"] == 0


def test_an_argument_is_named_as_the_help_names_it(inside_local: Run) -> None:
    assert error(inside_local("create", "x\udcff"))["message"] == "PROMPT: not valid UTF-8"
    assert error(inside_local("get", "x\udcff"))["message"] == "TASK…: not valid UTF-8"


def test_a_file_may_have_any_name(inside_local: Run, home: Path) -> None:
    (home / "caf\udce9.md").write_text("Say hello")
    done = inside_local("create", "--prompt-file", "caf\udce9.md", "--dry-run")
    assert done.json == {"prompt": "Say hello"}


def test_a_stdin_without_an_end_is_not_read_to_its_end(inside: Run) -> None:
    done = inside("create", "-", "--dry-run", stdin=b"x" * ((16 << 20) + 1))
    assert done.status == 2
    assert "100,000" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["auth", "login", "rbk_0123456789secret"],
        ["auth", "login", "--with-key", "rbk_0123456789secret"],
        ["auth", "login", "--with-key=rbk_0123456789secret"],
        ["rbk_0123456789secret"],
        ["-P", "rbk_0123456789secret", "list"],
        ["profile", "set", "default", "rbk_0123456789secret"],
        ["list", "--fields", "rbk_0123456789secret"],
        ["list", "--limit", "rbk_0123456789secret"],
    ],
)
def test_a_key_that_was_typed_in_a_wrong_place_is_not_repeated(
    inside: Run, words: list[str]
) -> None:
    done = inside(*words)
    assert done.status in (2, 4)
    assert "0123456789secret" not in done.err + done.out


@pytest.mark.parametrize("noun", ["profile", "auth", "workspace", "local", "webhook", "artifact"])
def test_a_noun_alone_shows_its_verbs(inside: Run, noun: str) -> None:
    done = inside(noun)
    assert (done.status, done.err) == (0, "")
    assert done.out == inside(noun, "--help").out


def test_the_command_alone_shows_its_help(inside: Run) -> None:
    done = inside()
    assert (done.status, done.err) == (0, "")
    assert done.out == inside("--help").out


def test_shared_options_work_before_and_after_and_the_last_one_wins(inside_local: Run) -> None:
    task = inside_local("create", "x", "-o", "id", "-q").out
    for words in (
        ["-o", "id", "list"],
        ["list", "-o", "id"],
        ["-o", "json", "list", "-o", "id"],
        ["-q", "list", "-oid", "-v", "--color", "never", "--no-input"],
    ):
        assert inside_local(*words).out == task, words
    assert inside_local("profile", "-o", "id", "list").out.split() == ["default", "local"]
    assert inside_local("-o", "id", "profile", "list", "-o", "tsv", "--fields", "name").out == (
        "name\ndefault\nlocal\n"
    )


MEMORY = 1 << 30  # bytes; a run that holds all it reads would need more


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(*words: str, stdin: str = os.devnull) -> subprocess.CompletedProcess[str]:
    with open(stdin, "rb") as source:
        return subprocess.run(
            [*COMMAND, "-P", "local", *words],
            stdin=source,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            preexec_fn=_limit,
        )


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (
            ("api", "POST", "/tasks", "-d", "@/dev/zero"),
            os.devnull,
            "/dev/zero has more than 64 MiB",
        ),
        (("api", "POST", "/tasks", "-d", "-"), "/dev/zero", "standard input has more than 64 MiB"),
        (("create", "--prompt-file", "/dev/zero"), os.devnull, "/dev/zero has more than 16 MiB"),
        (("create", "-"), "/dev/zero", "standard input has more than 16 MiB"),
        (("get", "-"), "/dev/zero", "stdin, line 1: over 10000 characters"),
        (("delete", "-"), "/dev/urandom", "stdin, line "),  # the first may be empty
    ],
)
def test_case_75_a_device_as_input_is_refused(
    home: object, words: tuple[str, ...], stdin: str, said: str
) -> None:
    done = run(*words, stdin=stdin)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_without_an_end_are_refused(home: object) -> None:
    yes = subprocess.Popen(["yes", "@last-but-one"], stdout=subprocess.PIPE)
    assert yes.stdout is not None
    with yes:
        done = run("get", "-", stdin=f"/dev/fd/{yes.stdout.fileno()}")
        yes.kill()
    assert done.returncode in (2, 4)
    assert "line 1" in done.stderr


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["list", "--limit", "0"], "-n/--limit: 0 is less than 1", "See `rebyte list --help`"),
        (["batch", "-", "--rate", "0"], "--rate: 0.0 is not greater than 0",
         "See `rebyte batch --help`"),
        (["list", "--limit", "x"], "-n/--limit: 'x' is not a number", "See `rebyte list --help`"),
        (["list", "--limit"], "--limit requires a value", None),
        (["list", "--all=3"], "--all takes no value", None),
        (["list", "a", "b"], "unexpected argument: a b", "See `rebyte list --help`"),
        (["list", "--status", "faild"],
         "--status: 'faild' is not one of running, queued, limited, waiting, completed, failed,"
         " canceled",
         "Did you mean 'failed'?"),
        (["get"], "missing argument: TASK…", "See `rebyte get --help`"),
        (["webhook", "create", "x"], "missing option: --event",
         "See `rebyte webhook create --help`"),
        (["completion", "tcsh"], "SHELL: 'tcsh' is not one of bash, zsh, fish",
         "See `rebyte completion --help`"),
        (["local", "serve", "--port", "99999"], "--port: 99999 is not between 0 and 65535",
         "See `rebyte local serve --help`"),
        (["wait", "x", "--timeout", "soon"],
         "--timeout: 'soon' is not a duration (90, 90s, 15m, 1h30m)", "See `rebyte wait --help`"),
        (["-o", "yaml", "list"],
         "-o/--output: 'yaml' is not one of auto, table, json, jsonl, csv, tsv, id",
         "See `rebyte --help`"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_form(
    inside: Run, words: list[str], message: str, hint: str | None
) -> None:
    done = inside(*words)
    text = f"Error: {message}\n" + (f"Hint: {hint}\n" if hint else "")
    found = error(done) if done.err.startswith("{") else {}
    assert done.status == 2
    assert done.err == text or (found["message"], found["hint"]) == (message, hint)


@pytest.mark.parametrize("command", ["get", "wait", "cancel", "delete"])
def test_a_pipe_full_of_tasks_is_told_the_dash(home: Path, command: str) -> None:
    """In a process, whose standard input is a pipe."""
    done = subprocess.run(
        [*COMMAND, command, "-o", "table"], input=b"t1\n", capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Hint: Pass `-` to read tasks from standard input\n" in done.stderr


@pytest.mark.parametrize("words", ["-P local create x", "batch tasks.txt --text"])
def test_too_few_open_files_are_an_error_before_anything_is_done(home: Path, words: str) -> None:
    (home / "tasks.txt").write_text("One\n")
    script = f"ulimit -n 8; exec {' '.join(COMMAND)} {words} -o json"
    done = subprocess.run(["sh", "-c", script], cwd=home, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    found = json.loads(done.stderr)["error"]
    assert found["message"] == "this process may open only 8 files at a time, and rebyte needs 32"
    assert "ulimit -n" in found["hint"]
    assert [path.name for path in home.iterdir()] == ["tasks.txt"]
