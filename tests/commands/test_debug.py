"""`--dry-run`, `-v` and `--debug`: what was asked of whom, and never a key."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done, need_tool

Run = Callable[..., Done]
KEY = "rbk_secret_0123456789"
PROMPT = 'It\'s $(touch pwned) `touch pwned` \\n "é" \x1b[31m\u202e @file\nsecond line'


def test_verbose_is_one_line_a_request(inside_local: Run) -> None:
    done = inside_local("-v", "create", "x", "--wait", "-q", "-o", "id")
    assert done.err == ""  # quiet wins
    done = inside_local("create", "x", "-v", "-o", "id")
    first = done.err.splitlines()[0]
    assert re.fullmatch(r"POST /tasks 201 \d+ms", first)
    done = inside_local("list", "--limit", "2", "--no-status", "--verbose")
    assert re.fullmatch(r"GET /tasks\?limit=2&offset=0 200 \d+ms\n", done.err)


def test_verbose_tells_each_try(inside_local: Run) -> None:
    done = inside_local("-v", "create", "Too many [[http=429*2]]", "-o", "id")
    tries = [line for line in done.err.splitlines() if line.startswith("POST")]
    assert [re.sub(r" \d+ms", "", line).split()[2:] for line in tries] == [
        ["429"],
        ["429", "retry", "1"],
        ["201", "retry", "2"],
    ]


def test_debug_tells_all_but_the_key(
    inside_local: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REBYTE_API_KEY", KEY)
    (home / "notes.txt").write_text("Some notes")
    done = inside_local("create", PROMPT, "-f", "notes.txt", "--debug", "--wait")
    assert done.status == 0
    assert KEY not in done.err
    assert re.search(r"uploadUrl\": \"[^\"?]*\?\[hidden\]", done.err)
    assert "signature=" not in done.err
    assert "> API_KEY: [hidden]" in done.err
    assert "< Content-Type: application/json" in done.err
    assert "\x1b" not in done.err
    assert "\u202e" not in done.err
    assert json.loads(done.out)["status"] == "completed"


def test_the_curl_line_repeats_the_call(
    inside_local: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in the prompt: the shell runs none of it, and the API gets the same bytes."""
    need_tool("curl")
    monkeypatch.setenv("REBYTE_API_KEY", KEY)
    first = inside_local("create", PROMPT, "-s", "pdf", "-m", "lite", "--debug")
    line = next(line[2:] for line in first.err.splitlines() if line.startswith("$ curl"))
    assert KEY not in line
    again = _shell(line, home)
    assert again["id"] != first.json["id"]
    assert not (home / "pwned").exists()
    assert _asked(inside_local, again["id"]) == _asked(inside_local, first.json["id"]) == PROMPT
    # An ended task reads the same twice.
    inside_local("wait", str(first.json["id"]), str(again["id"]))
    listed = inside_local("list", "--limit", "1", "--no-status", "--debug")
    line = next(line[2:] for line in listed.err.splitlines() if line.startswith("$ curl"))
    assert _shell(line, home) == listed.json


def _shell(line: str, home: Path) -> Any:
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        capture_output=True,
        check=True,
        cwd=home,
        env={**os.environ, "REBYTE_API_KEY": KEY},
    )
    return json.loads(done.stdout)


def _asked(run: Run, task: str) -> str:
    content = run("api", "GET", f"/tasks/{task}/content").json
    return str(content["prompts"][0]["userPrompt"])


def test_dry_run_needs_no_key_and_sends_nothing(inside: Run, home: Path) -> None:
    """Also with a profile that cannot be reached and files that are not uploaded."""
    (home / "a.txt").write_text("a")
    inside("profile", "set", "default", "base_url=http://127.0.0.1:9/v1", "executor=codex")
    done = inside("create", "x", "--dry-run", "-f", "a.txt", "--wait", "--once", "k", "-v")
    assert (done.status, done.err) == (0, "")
    assert done.json == {"prompt": "x", "executor": "codex", "files": [{"path": "a.txt"}]}
    assert not (home / ".local" / "state" / "rebyte").exists()
    follow_up = inside("follow-up", "some-task", "x", "-s", "pdf", "--dry-run")
    assert follow_up.json == {"prompt": "x", "skills": ["pdf"]}
    for words in (["create", "x", "-f", "none.txt"], ["create", ""], ["create", "x", "-b", "main"]):
        assert inside(*words, "--dry-run").status in (2, 4), words
