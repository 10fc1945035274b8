"""The pages of the local service, as its server sends them (see tests/browser for the script)."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
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


def test_a_task_that_waits_for_a_usage_limit(caller: Caller, clock: Clock) -> None:
    task = caller.create("Hello [[limit=1h]]")
    clock.advance(20)
    assert " limited opencode" in text(page(caller, "/"))
    assert "limited" in text(page(caller, f"/run/{task['id']}"))
    assert "Waits for its usage limit until 20" in text(page(caller, f"/run/{task['id']}"))
    clock.advance(3600)
    assert "limited" not in text(page(caller, "/"))
    assert "Waits for" not in text(page(caller, f"/run/{task['id']}"))


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


def test_link_that_serve_prints_lets_one_browser_in(caller: Caller, clock: Clock) -> None:
    caller.key = None
    link = caller.service.pages_url
    path = "//?" + link.partition("?")[2]
    wrong = caller.call("GET", "//?key=guess", check=False)
    assert wrong.status == 403
    assert "set-cookie" not in wrong.headers
    assert caller.call("HEAD", path, check=False).status == 200  # a preview of the link
    answer = caller.call("GET", path, check=False)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert caller.service.key not in cookie + link  # it shows pages, and starts nothing
    again = caller.call("GET", path, check=False)
    assert (again.status, "set-cookie" in again.headers) == (403, False)
    assert b"This link was used before, or has expired" in again.raw
    # The browser that it let in may reload it.
    headers = {"Cookie": cookie.partition(";")[0]}
    assert caller.call("GET", path, headers=headers, check=False).status == 303
    late = caller.service.pages_url.partition("?")[2]
    clock.advance(3601)
    assert caller.call("GET", f"//?{late}", check=False).status == 403


def test_a_key_lets_a_browser_in_on_any_page_and_leaves_its_address(caller: Caller) -> None:
    task = caller.create("Say hello [[run=0]]")["id"]
    caller.key = None
    key = caller.service.pages_url.partition("?")[2]
    answer = caller.call("GET", f"//run/{task}?a=1%202&{key}", check=False)
    assert (answer.status, answer.headers["location"]) == (303, f"/run/{task}?a=1+2")
    odd = caller.service.pages_url.partition("?")[2]
    answer = caller.call("GET", f"//run/%5C%5Celsewhere?{odd}", check=False)
    assert answer.headers["location"] == "/run/%5C%5Celsewhere"


AS_ANOTHER = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
with socket.socket() as wire:
    wire.connect(("127.0.0.1", int(sys.argv[1])))
    head = f"GET /?{sys.argv[2]} HTTP/1.0\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n\\r\\n"
    wire.sendall(head.encode())
    while piece := wire.recv(65536):
        sys.stdout.buffer.write(piece)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can be another user"
)
def test_a_link_that_another_user_read_from_a_command_line_is_of_no_use(caller: Caller) -> None:
    """A browser is started with it, and everyone may read the arguments of a process."""
    origin, _, key = caller.service.pages_url.partition("/?")
    command = [sys.executable, "-I", "-S", "-c", AS_ANOTHER, origin.rpartition(":")[2], key]
    tried = subprocess.run(command, capture_output=True, text=True, check=True)
    assert tried.stdout.startswith("HTTP/1.1 403 ")
    assert "This link is for another user of this machine" in tried.stdout
    caller.key = None
    assert caller.call("GET", f"//?{key}", check=False).status == 303


def test_tasks_of_real_agents_need_the_cookie(caller: Caller, tmp_path: Path) -> None:
    task = caller.create("Simulated [[run=0]]")
    real = caller.create("Real [[run=0]]")
    pretend_real(tmp_path / "state", real)
    path = f"/run/{real['id']}"
    html = page(caller, "/")
    assert task["id"] in html
    assert real["id"] not in html
    assert "rebyte local status prints one" in text(html)
    caller.key = None
    for hidden in (path, f"{path}/events", f"{path}/changes.patch"):
        answer = caller.call("GET", f"/{hidden}", check=False)
        assert answer.status == 404
        assert b"Real" not in answer.raw
        assert b"Task not found, or not for this browser" in answer.raw
        assert f"<code>rebyte -P local open {real['id']}</code> opens one".encode() in answer.raw
    link = caller.service.pages_url.partition("?")[2]
    given = caller.call("GET", f"//?{link}", check=False).headers["set-cookie"].partition(";")[0]
    shown = caller.call("GET", f"/{path}", headers={"Cookie": given}, check=False)
    assert shown.status == 200
    assert b"what the agent said" in shown.raw
    listed = caller.call("GET", "//", headers={"Cookie": given}, check=False)
    assert real["id"].encode() in listed.raw
    gone = caller.call("GET", "//run/nowhere", headers={"Cookie": given}, check=False)
    assert b"not for this browser" not in gone.raw
    # The cookie is for pages alone.
    api = caller.call("GET", "/tasks", headers={"Cookie": given}, check=False)
    assert api.status == 401
    api = caller.call("GET", "/tasks", headers={"Cookie": given, "API_KEY": "rbk_x"}, check=False)
    assert [each["id"] for each in api.document["data"]] == [task["id"]]


def pretend_real(state: Path, task: dict[str, str]) -> None:
    """Make the store say that a real agent ran this task."""
    with sqlite3.connect(state / "service.db") as db:
        (prompt,) = db.execute("SELECT id FROM prompts WHERE task = ?", (task["id"],)).fetchone()
        db.execute(
            "INSERT INTO runs (prompt, task, workspace, agent, queued, started, ended, outcome,"
            " answer, options) VALUES (?, ?, ?, 'claude', 1, 2, 3, 'succeeded', ?, '{}')",
            (prompt, task["id"], task["workspaceId"], "what the agent said"),
        )
    db.close()
