"""`rebyte open`: a page in the browser, and nothing but a page."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import RawServer, json_reply
from tests.waiting import eventually

Run = Callable[..., Done]
Aim = Callable[[Any], Any]


@pytest.fixture
def browser(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that writes down what it is told to open, in the returned file."""
    seen = home / "opened"
    script = home / "browser.py"
    script.write_text("import sys; open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + '\\n')")
    words = [sys.executable, str(script), str(seen), "%s"]
    monkeypatch.setenv("BROWSER", shlex.join(words[:3]) + " %s")
    return seen


def test_opens_the_page_of_the_task(inside: Run, service: Any, browser: Path) -> None:
    url = inside("create", "Say hello [[run=1ms]]").json["url"]
    done = inside("open", "@last")
    assert (done.status, done.out) == (0, "")
    assert f"Opened {url}" in done.err
    assert browser.read_text() == f"{url}\n"


@pytest.mark.parametrize("ending", ["", " %s", " %s &", ":firefox"])
def test_the_browser_may_have_arguments(
    inside_local: Run, home: Path, browser: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", os.environ["BROWSER"].removesuffix(" %s") + " --new" + ending)
    url = inside_local("create", "Say hello [[run=1ms]]").json["url"]
    assert inside_local("open", "@last").status == 0
    eventually(lambda: browser.exists() and browser.read_text())  # it may run in the background
    assert browser.read_text() == f"--new {url}\n"


def test_a_program_alone_may_run_in_the_background(
    inside_local: Run, home: Path, browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = home / "browser"
    program.write_text(
        f'#!/bin/sh\necho "$@" > "{browser}.part"\nmv "{browser}.part" "{browser}"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} &")
    url = inside_local("create", "Say hello [[run=1ms]]").json["url"]
    assert inside_local("open", "@last").status == 0
    eventually(browser.exists)
    assert browser.read_text() == f"{url}\n"


def test_a_browser_that_fails_is_told(inside_local: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "false --new-window")
    inside_local("create", "Say hello [[run=1ms]]")
    done = inside_local("open", "@last")
    assert done.status == 1
    assert "could not start a browser" in done.err
    assert "Open" not in done.err


def test_create_does_not_lose_its_task_to_a_link_that_is_none(
    inside: Run, aim: Aim, browser: Path
) -> None:
    with RawServer(json_reply({"id": "abcd1234", "url": "javascript:alert(1)"}, 201)) as server:
        aim(server)
        done = inside("create", "Say hello", "--open", "-o", "json")
    assert (done.status, done.json["id"]) == (0, "abcd1234")
    assert "not a web page" in done.err
    assert not browser.exists()


def test_create_opens_it_too(inside_local: Run, browser: Path) -> None:
    done = inside_local("create", "Say hello [[run=1ms]]", "--open")
    assert browser.read_text() == f"{done.json['url']}\n"


def test_output_of_a_browser_stays_out_of_stdout(
    rebyte: Run, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", "echo existing session %s")
    done = rebyte("create", "Say hello [[run=1ms]]", "--open")
    assert done.json["status"] == "running"
    assert "existing session" in done.err
    assert rebyte("open", "@last").out == ""


def test_print_only_prints(inside_local: Run, browser: Path) -> None:
    url = inside_local("create", "Say hello [[run=1ms]]").json["url"]
    assert inside_local("open", "@last", "--print").out == f"{url}\n"
    assert not browser.exists()


def test_the_history_answers_without_a_call(inside: Run, service: Any) -> None:
    url = inside("create", "Say hello [[run=1ms]]").json["url"]
    service.stop()
    assert inside("open", "@last", "--print").out == f"{url}\n"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "--help",
        "https:///nowhere",
        "https://a/\x1b[2J",
        "https://a/ b",
        "https://a/`id`",
        "steam://run/1",
        "https://app.rebyte.ai@evil.example/",
    ],
)
def test_only_web_pages_are_opened(inside: Run, aim: Aim, browser: Path, url: str) -> None:
    with RawServer(json_reply({"id": "abcd1234", "url": url})) as server:
        aim(server)
        done = inside("open", "abcd1234")
    assert (done.status, done.out) == (1, "")
    assert "not a web page" in done.err
    assert "\x1b" not in done.err
    assert not browser.exists()


def test_no_browser_is_an_error_with_a_way_out(
    inside_local: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside_local("create", "Say hello [[run=1ms]]")
    monkeypatch.setenv("BROWSER", "/nonexistent/browser")
    monkeypatch.setenv("PATH", "/nonexistent")
    done = inside_local("open", "@last")
    assert done.status == 1
    assert "--print" in done.err
