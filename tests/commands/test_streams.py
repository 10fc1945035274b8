"""Streams that are closed, full or left: one clear line, and never a status of 0 for lost data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Done

Run = Callable[..., Done]


def shell(script: str) -> Done:
    """A line of shell in which `$REBYTE` is the command, and the status it ends with."""
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "REBYTE": " ".join(COMMAND)},
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "words", ["get -", "create -", "create --prompt-file -", "auth login --with-key"]
)
def test_a_closed_stdin_is_named_by_what_wants_to_read_it(home: Path, words: str) -> None:
    done = shell(f"export REBYTE_API_KEY=rbk_x; $REBYTE {words} --insecure-storage <&-")
    done = done if "auth" in words else shell(f"REBYTE_API_KEY=rbk_x $REBYTE {words} <&-")
    assert done.status == 2
    assert json.loads(done.err)["error"]["message"] == "standard input is closed"


def test_a_closed_stdin_is_fine_where_nothing_is_read(home: Path) -> None:
    assert shell("$REBYTE profile list -o id <&-").out.split() == ["default", "local"]


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--version", "--help", "create --help", "", "profile"])
def test_help_and_version_that_cannot_be_written_are_no_success(home: Path, words: str) -> None:
    for redirect in (">&-", ">/dev/full"):
        done = shell(f"$REBYTE {words} {redirect}")
        assert done.status == 1, (redirect, done.err)
        assert "stdout" in done.err
        assert "Traceback" not in done.err


def test_version_ends_quietly_when_its_reader_is_gone(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, "--version"], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("module", ["click", "rebyte_cli.app", "rebyte_cli.commands.list"])
def test_an_interrupt_while_modules_load_is_no_traceback(home: Path, module: str) -> None:
    """The signal arrives just when the module is being imported."""
    code = f"""
import os, signal, sys
from rebyte_cli.__main__ import main
class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "list"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_errors_follow_the_output_that_was_asked_for(
    inside: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON beside JSON, plain beside ids and tables, also when the settings are the fault."""
    monkeypatch.setenv("REBYTE_API_URL", "nonsense")
    assert json.loads(inside("list").err)["error"]["exit"] == 2
    assert json.loads(inside("list", "-o", "jsonl").err)["error"]["exit"] == 2
    for form in ("id", "table", "csv", "tsv"):
        assert inside("list", "-o", form).err.startswith("Error: REBYTE_API_URL")
        assert inside("-o", form, "list").err.startswith("Error: REBYTE_API_URL")


def test_a_command_that_prints_text_has_plain_errors_in_a_pipe_too(inside: Run) -> None:
    for words in (["result"], ["result", "a", "b"], ["logs", "--nope"], ["result", "../x"]):
        assert inside(*words).err.startswith("Error: "), words


def test_a_broken_configuration_stops_no_page_and_no_script(inside: Run, home: Path) -> None:
    """Commands that explain the configuration, or that a shell runs at its start, still work."""
    folder = home / ".config" / "rebyte"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("x = [")
    for words in (["man"], ["help", "profile"], ["completion", "bash"], ["skill"], ["--help"]):
        done = inside(*words)
        assert (done.status, done.err) == (0, ""), words
        assert done.out
    assert inside("list").status == 2
