"""The pages of the local service, as its server sends them (see tests/browser for the script)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from tests.witness import Caller, Clock, serving

PATCH = b"""\
diff --git a/a.txt b/a.txt
--- a/a.txt
+++ b/a.txt
@@ -1 +1 @@
-<old>
+new
"""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def caller(tmp_path: Path, clock: Clock) -> Iterator[Caller]:
    with serving(tmp_path, clock) as running:
        yield running


def page(caller: Caller, path: str) -> str:
    """The HTML of a page; pages need no key."""
    caller.key = None
    try:
        answer = caller.call("GET", f"/{path}", check=False)
    finally:
        caller.key = "rbk_test"
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.raw.decode()


def text(html: str) -> str:
    """What a reader sees, spaces joined."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html.partition("<main")[2])).split())


def test_list_of_tasks(caller: Caller, clock: Clock) -> None:
    assert "No tasks" in page(caller, "/")
    done = caller.create("Fix <b>it</b> [[run=2s]]")
    clock.advance(65)
    caller.create("Run on [[run=1h]]", executor="codex")
    caller.create("Ask me [[ask]]")
    clock.advance(20)
    html = page(caller, "/")
    assert f'href="/run/{done["id"]}"' in html
    assert "1 to 3 of 3" in text(html)
    assert re.findall(r"(\S+ \S+) (\w+) (\w+) \S+ \S+ UTC (\d[\w. ]*?s)\b", text(html)) == [
        ("Ask me", "waiting", "opencode", "20s"),
        ("Run on", "running", "codex", "20s"),
        ("Fix <b>it</b>", "completed", "opencode", "2.0s"),
    ]


def test_list_in_pages(caller: Caller, clock: Clock) -> None:
    for number in range(51):
        caller.create(f"Task {number} [[run=0]]")
    clock.advance(1)
    first, second = page(caller, "/"), page(caller, "/?offset=50")
    assert "1 to 50 of 51" in text(first)
    assert '<a href="/?offset=50">Older</a>' in first
    assert "51 to 51 of 51" in text(second)
    assert '<a href="/?offset=0">Newer</a>' in second
    assert "Task 0" in text(second)


def test_transcript_answer_and_follow_up(caller: Caller, clock: Clock) -> None:
    task = caller.create("Say hello\nand goodbye [[run=10s]]")
    path = f"/run/{task['id']}"
    clock.advance(4)
    running = page(caller, path)
    assert 'data-running="true"' in running
    assert f'data-stream="{path}/events"' in running
    assert "Reading the prompt. Bash ls /code" in text(running)
    assert "Answer" not in text(running)
    clock.advance(6)
    caller.call("POST", f"/tasks/{task['id']}/prompts", {"prompt": "And now? [[run=0]]"})
    html = page(caller, path)
    assert 'data-running="false"' in html
    assert "Say hello\nand goodbye" in html
    assert "Prompt 2 succeeded And now?" in text(html)
    assert "Output, 1 line README.md" in text(html)
    assert html.count("This is a simulation") == 2  # in the answers, and not in the transcripts
    assert re.search(r"took .*10s", text(html))


@pytest.mark.parametrize("executor", ["opencode", "claude", "gemini", "codex"])
def test_transcript_of_every_executor(caller: Caller, clock: Clock, executor: str) -> None:
    task = caller.create("Go [[run=0]]", executor=executor)
    clock.advance(1)
    shown = text(page(caller, f"/run/{task['id']}"))
    assert "Reading the prompt. Bash ls /code" in shown
    assert "Output, 1 line README.md Answer This is a simulation" in shown


def test_question(caller: Caller, clock: Clock) -> None:
    task = caller.create("[[ask=2]]")
    clock.advance(1)
    shown = text(page(caller, f"/run/{task['id']}"))
    assert shown.count("waiting") == 2
    assert "Question 1 of 2 Question 2 of 2" in shown
    assert f"rebyte answer {task['id']}" in shown


def test_patch_and_its_file(caller: Caller) -> None:
    task = caller.create("Change it [[run=0]]")
    path = f"/run/{task['id']}"
    assert "Changes" not in text(page(caller, path))
    assert caller.call("GET", f"/{path}/changes.patch", check=False).status == 404
    caller.put_artifact(task["workspaceId"], "changes.patch", PATCH)
    html = page(caller, path)
    assert "<del>-&lt;old&gt;</del>\n<ins>+new</ins>\n</pre>" in html
    whole = caller.call("GET", f"/{path}/changes.patch", check=False)
    assert whole.raw == PATCH
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"


def test_long_patch_is_cut(caller: Caller) -> None:
    task = caller.create("Change it [[run=0]]")
    caller.put_artifact(task["workspaceId"], "changes.patch", b"+line\n" * 100_000)
    html = page(caller, f"/run/{task['id']}")
    assert len(html) < 1_000_000
    assert "Only the beginning is shown" in html


def test_nothing_from_elsewhere(caller: Caller) -> None:
    task = caller.create("Say hello [[run=0]]")
    for path in ("/", f"/run/{task['id']}", "/static/pages.js", "/static/pages.css"):
        answer = caller.call("GET", f"/{path}", check=False)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert b"//" not in re.sub(rb"(?m)^\s*// .*$", b"", answer.raw)
        assert not re.search(rb"<(script|style)>| style=| on\w+=|http:", answer.raw)
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert caller.call("GET", "//static/..%2fpages.py", check=False).status == 404
    assert caller.call("GET", "//static/nothing.js", check=False).status == 404


def test_pages_of_what_is_not_there(caller: Caller) -> None:
    for path in ("/run/none", "/run/none/events", "/run/none/changes.patch", "/share/none"):
        assert caller.call("GET", f"/{path}", check=False).status == 404
    task = caller.create("Delete me")
    caller.call("DELETE", f"/tasks/{task['id']}")
    assert caller.call("GET", f"//run/{task['id']}", check=False).status == 404
    assert "No tasks" in page(caller, "/")
