"""The pages of the local service, as its server sends them (see tests/browser for the script)."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rebyte_cli.api import sse
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.request_record import RequestEntry, RequestRecord
from tests.witness import Answer, Caller, Clock, serving

PATCH = b"""\
diff --git a/a.txt b/a.txt
--- a/a.txt
+++ b/a.txt
@@ -1 +1 @@
-<old>
+new
"""


def nested(levels: int, value: object) -> object:
    for _ in range(levels):
        value = [value]
    return value


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


def place(answer: Answer) -> str:
    """Where a link with a key leads, without what stays in the browser."""
    where, _, rest = answer.headers["location"].partition("#")
    assert re.fullmatch("enter=[0-9a-f]{48}", rest)
    return where


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
    assert '<a href="/">Newer</a>' in second
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
    assert "Go on Take the default." not in shown  # for a browser that may answer only


HOSTILE = """# <script>alert(1)</script>
[a](javascript:alert(1)) [b](https://x.example/"onclick=alert(1)) ![c](https://x.example/c.png)
<img src=x onerror=alert(1)> <https://x.example/"> [d](/run/x) `<b>` \u202e
```<i>
</pre><script>
```
| a |
|:-:|
| <b> |"""


class Tags(HTMLParser):
    """What a browser makes of HTML: its tags, attributes and links."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value for name, value in attrs if name == "href"]


def test_what_an_agent_says_is_markdown_and_never_more(caller: Caller, clock: Clock) -> None:
    said = re.sub(r"[\n\]\u202e]", lambda one: f"\\u{ord(one[0]):04x}", HOSTILE)
    task = caller.create(f"[[title=<b>\\u202e]] [[run=0]] [[say={said}]]")
    clock.advance(1)
    html = page(caller, f"/run/{task['id']}").partition("<h3>Answer</h3>")[2]
    assert html.startswith('<div class="markdown"><h4>&lt;script&gt;alert(1)&lt;/script&gt;</h4>')
    tags = Tags()
    tags.feed(html.partition("</section>")[0])
    expected = "div h4 p br a code pre table thead tbody tr th td"
    assert " ".join(sorted(tags.names)) == " ".join(sorted(expected.split()))
    assert tags.attributes == {"class", "tabindex", "href", "rel", "id", "data-changes"}
    quoted = "https://x.example/%22"
    assert tags.links == [f"{quoted}onclick=alert(1)", "https://x.example/c.png", quoted]
    assert "[a](javascript:alert(1))" in text("<main" + html)
    assert "\u202e" not in html


def test_files_of_a_patch_are_folded_and_counted(caller: Caller) -> None:
    second = b"diff --git a/<b> b/<b>\nnew file mode 100644\n--- /dev/null\n+++ b/<b>\n"
    hunk = b"@@ -0,0 +1,2 @@\n+++ b/x\n+y\r\ndiff --git a/gone b/gone\n--- a/gone\n+++ /dev/null\n"
    task = caller.create("Change it [[run=0]]")
    patch = PATCH + second + hunk + b"@@ -1 +0,0 @@\n--- old\n"
    caller.put_artifact(task["workspaceId"], "changes.patch", patch)
    html = page(caller, f"/run/{task['id']}")
    assert re.findall(r"<summary><code>.*?</summary>", html) == [
        f'<summary><code>{name}</code> <ins class="count">+{added}</ins>'
        f' <del class="count">−{removed}</del></summary>'  # noqa: RUF001
        for name, added, removed in (("a.txt", 1, 1), ("&lt;b&gt;", 2, 0), ("gone", 0, 1))
    ]
    assert "3 files +3 −2" in text(html)  # noqa: RUF001
    assert "<ins>+y\n</ins>" in html
    assert '<details class="file" id="file-1">' in html  # folded


def test_usage_and_cost(caller: Caller, clock: Clock) -> None:
    task = caller.create("Hello [[run=0]] [[usage=1200:80:0.02]]")
    more = {"prompt": "More [[run=0]] [[usage=34:6:0.005]]"}
    caller.call("POST", f"/tasks/{task['id']}/prompts", more)
    clock.advance(1)
    shown = text(page(caller, f"/run/{task['id']}"))
    assert "· 2 requests, 1,234 tokens in, 86 out, $0.025" in shown
    assert "1 request, 34 tokens in, 6 out, $0.005" in shown


def test_hosts_that_were_refused(caller: Caller, tmp_path: Path) -> None:
    task = caller.create("Real [[run=0]]")
    prompt = caller.task(task["id"])["prompts"][0]["id"]
    pretend_real(tmp_path / "state", task)
    folder = Workspace(tmp_path / "state", task["workspaceId"]).run_folder(prompt)
    folder.mkdir(parents=True)
    record = RequestRecord(str(folder / request_record.FILE))
    for _ in range(2):
        refused = "it is not allowed"
        record.add(
            RequestEntry(
                1, "<evil>.example", 443, "CONNECT", "", refused=refused, option="--allow x"
            )
        )
    record.add(RequestEntry(1, "fine.example", 443, "CONNECT", ""))
    shown = text(browse(caller, f"/run/{task['id']}"))
    assert "Network refused Host Requests Reason Allowed by" in shown
    assert "<evil>.example 2 it is not allowed --allow x" in shown
    assert "fine.example" not in shown


def test_search_and_filter(caller: Caller, clock: Clock) -> None:
    one = caller.create("Fix the Löwe [[run=0]]")
    caller.create("Fix the cat [[run=1h]]")
    caller.create("Ask <me> [[ask]] [[run=0]]")
    clock.advance(1)

    def titles(query: str) -> list[str]:
        return re.findall(r'<span id="title-[^>]*>(.*?)</span>', page(caller, f"/?{query}"))

    assert titles("q=FIX") == ["Fix the cat", "Fix the Löwe"]
    assert titles("q=L%C3%B6we") == titles(f"q={one['id'][:9]}") == ["Fix the Löwe"]
    assert titles("status=waiting") == titles("q=%3Cme") == ["Ask &lt;me&gt;"]
    assert titles("status=running&q=L%C3%B6we") == []
    assert titles("batch=none") == []
    html = page(caller, "/")
    assert "All waiting 1 running 1 completed 1" in text(html)
    assert "<title>1 waiting, 1 running, Tasks - rebyte local</title>" in html
    evil = page(caller, "/?q=%22%3E%3Cscript%3E&status=%22%3E&batch=%22%3E")
    assert "<script>" not in evil
    assert '">"' not in evil


def test_batch_with_its_progress(caller: Caller, clock: Clock) -> None:
    batch = {"id": "b1", "title": "<tasks>.jsonl", "lines": 4}
    caller.create("Alone [[run=0]]")
    caller.create("One [[run=0]] [[usage=5:6]]", batch=batch)
    caller.create("Two [[run=1h]]", batch=batch)
    clock.advance(1)
    home = page(caller, "/")
    assert "Batches <tasks>.jsonl 1 of 4 ended" in text(home)
    assert '<a href="/?batch=b1">&lt;tasks&gt;.jsonl</a>' in home
    html = page(caller, "/?batch=b1")
    shown = text(html)
    assert "<tasks>.jsonl 1 to 2 of 2" in shown
    assert "1 of 4 ended 1 request, 5 tokens in, 6 out" in shown
    assert "Alone" not in shown
    assert re.findall(r'<rect class="(\w+)" x="(\d)" width="(\d)"', html) == [
        ("completed", "0", "1"),
        ("running", "1", "1"),
    ]


def browse(caller: Caller, path: str) -> str:
    """The HTML of a page in a browser that has opened a link."""
    return caller.call("GET", f"/{path}", headers=caller.page_headers(), check=False).raw.decode()


def test_follow_up_answer_and_cancel_from_the_page(caller: Caller, clock: Clock) -> None:
    task = caller.create("Ask [[ask]] [[run=0]]")["id"]
    clock.advance(1)
    caller.key = None
    headers = caller.page_headers()
    html = browse(caller, f"/run/{task}")
    message, action = re.findall(r'data-message="(\w+)" data-action="(\d+)"', html)[0]
    assert "Go on Take the default." in text(html)
    body = {"messageId": message, "actionId": int(action), "answer": {"selectedOptions": [1]}}
    for path, given in (
        ("answer", body),
        ("prompts", {"prompt": "More [[run=1h]]", "executor": "codex"}),
        ("cancel", {}),
    ):
        done = caller.call("POST", f"//run/{task}/{path}", given, headers=headers, check=False)
        assert done.status in (200, 201), done
    html = browse(caller, f"/run/{task}")
    assert "Answered: Stop here" in text(html)
    assert "Prompt 2 canceled More" in text(html)
    assert "codex" not in text(html)  # a page chooses nothing but the text
    assert 'data-confirm="' not in html  # there is nothing left to cancel


def test_only_a_page_of_this_port_acts(caller: Caller) -> None:
    """Forms of foreign pages, names that lead here, and a cookie that another port has seen."""
    task = caller.create("Go on [[run=1h]]")["id"]
    path, host = f"//run/{task}/cancel", caller.service.origin.removeprefix("http://")
    caller.key = None
    good = caller.page_headers()
    link = caller.service.pages_url.partition("?")[2]
    once = caller.call("GET", f"//?{link}", check=False).headers["location"].partition("=")[2]
    for status, headers in ((403, {}), (200, good), (403, good)):  # with the cookie, and once
        answer = caller.call("POST", "//actions", data=once.encode(), headers=headers, check=False)
        assert answer.status == status
    assert caller.call("GET", path, headers=good, check=False).status == 405
    for status, changed in (
        (403, {"Rebyte-Actions": ""}),
        (403, {"Rebyte-Actions": good["Cookie"].partition("=")[2]}),
        (403, {"Cookie": ""}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (403, {"Sec-Fetch-Site": "same-site"}),
        (403, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
        (421, {"Host": "evil.example"}),
        (421, {"Host": f"evil.example:{host.rpartition(':')[2]}"}),
    ):
        answer = caller.call("POST", path, {}, headers={**good, **changed}, check=False)
        assert (answer.status, "set-cookie" in answer.headers) == (status, False), changed
    shown = browse(caller, f"/run/{task}")
    assert "running" in text(shown)
    assert good["Rebyte-Actions"] not in shown
    for name in ("prompts", "answer"):
        body = {"prompt": "x", "messageId": "x", "actionId": 1}
        given = {**good, "Rebyte-Actions": "0" * 64}
        answer = caller.call("POST", f"//run/{task}/{name}", body, headers=given, check=False)
        assert answer.status == 403
    origin = {**good, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert caller.call("POST", path, {}, headers=origin, check=False).status == 200


def test_a_shared_page_has_no_forms(caller: Caller) -> None:
    task = caller.create("Go on [[run=1h]]")["id"]
    caller.call("PATCH", f"/tasks/{task}/visibility", {"visibility": "public"})
    assert "data-post" in browse(caller, f"/run/{task}")
    assert "data-post" not in browse(caller, f"/share/{task}")


def test_patch_and_its_file(caller: Caller) -> None:
    task = caller.create("Change it [[run=0]]")
    path = f"/run/{task['id']}"
    assert "Changes" not in text(page(caller, path))
    assert caller.call("GET", f"/{path}/changes.patch", check=False).status == 404
    caller.put_artifact(task["workspaceId"], "changes.patch", PATCH)
    html = page(caller, path)
    assert "<del>-&lt;old&gt;\n</del><ins>+new\n</ins></pre>" in html
    assert "1 file +1 −1" in text(html)  # noqa: RUF001
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
    assert (answer.status, place(answer)) == (303, "/")
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
    assert (answer.status, place(answer)) == (303, f"/run/{task}?a=1+2")
    odd = caller.service.pages_url.partition("?")[2]
    answer = caller.call("GET", f"//run/%5C%5Celsewhere?{odd}", check=False)
    assert place(answer) == "/run/%5C%5Celsewhere"


AS_ANOTHER = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
with socket.socket() as wire:
    wire.connect(("127.0.0.1", int(sys.argv[1])))
    head = f"GET {sys.argv[2]} HTTP/1.0\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n"
    head += f"Cookie: {sys.argv[3]}\\r\\n\\r\\n"
    wire.sendall(head.encode())
    while piece := wire.recv(65536):
        sys.stdout.buffer.write(piece)
"""


def as_another(port: str, path: str, cookie: str = "") -> str:
    """What another user of this machine gets at a path."""
    command = [sys.executable, "-I", "-S", "-c", AS_ANOTHER, port, path, cookie]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


only_root = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can be another user"
)


@only_root
def test_a_link_that_another_user_read_from_a_command_line_is_of_no_use(caller: Caller) -> None:
    """A browser is started with it, and everyone may read the arguments of a process."""
    origin, _, key = caller.service.pages_url.partition("/?")
    tried = as_another(origin.rpartition(":")[2], f"/?{key}")
    assert tried.startswith("HTTP/1.1 403 ")
    assert "This link is for another user of this machine" in tried
    caller.key = None
    assert caller.call("GET", f"//?{key}", check=False).status == 303


@only_root
def test_a_cookie_that_a_server_of_another_user_was_sent_is_of_no_use(
    caller: Caller, tmp_path: Path
) -> None:
    """A browser sends it to every port of this address."""
    real = caller.create("Real [[run=0]]")
    pretend_real(tmp_path / "state", real)
    origin, _, key = caller.service.pages_url.partition("/?")
    caller.key = None
    given = caller.call("GET", f"//?{key}", check=False).headers["set-cookie"].partition(";")[0]
    shown = as_another(origin.rpartition(":")[2], f"/run/{real['id']}", given)
    assert shown.startswith("HTTP/1.1 404 ")
    assert "Real" not in shown
    shown = caller.call("GET", f"//run/{real['id']}", headers={"Cookie": given}, check=False)
    assert shown.status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "payload",
    [
        ("tool_use", {"name": "x", "input": nested(98, [1] * 20_000)}),  # each on 196 blanks
        ("text", {"content": "*a* b " * 10_000}),  # of which some are not read as Markdown
    ],
)
def test_a_page_takes_no_more_than_its_bounds(
    caller: Caller, tmp_path: Path, payload: tuple[str, object]
) -> None:
    task = caller.create("Real [[run=0]]")
    pretend_real(tmp_path / "state", task)
    kind, content = payload
    with sqlite3.connect(tmp_path / "state/service.db") as db:
        (prompt,) = db.execute("SELECT prompt FROM runs").fetchone()
        rows = [(prompt, seq, 2, kind, json.dumps(content)) for seq in range(50)]
        rows += [(prompt, 50, 2, "text", '{"content": "the *end*"}')]
        db.executemany("INSERT INTO run_events VALUES (?, ?, ?, ?, ?)", rows)
    db.close()
    shown = browse(caller, f"/run/{task['id']}")
    assert shown.count("<em>a</em>") < 200_000
    assert 1_000_000 < len(shown) < 45_000_000
    assert ("the *end*" in shown) == (kind == "text")
    assert ("rebyte logs" in shown) == (kind != "text")


def test_the_largest_event_can_be_streamed(caller: Caller, tmp_path: Path) -> None:
    """A line of an agent has up to 8 MB, of which JSON's escapes make 24."""
    task = caller.create("Real [[run=0]]")
    pretend_real(tmp_path / "state", task)
    payload = {"name": "x", "input": {str(number): "\xe9" * 65_536 for number in range(60)}}
    with sqlite3.connect(tmp_path / "state/service.db") as db:
        row = "SELECT prompt, 0, 2, 'tool_use', ? FROM runs"
        db.execute(f"INSERT INTO run_events {row}", (json.dumps(payload),))
    db.close()
    own = Caller(caller.service, caller.service.key)
    found = list(sse.parse([own.call("GET", f"/tasks/{task['id']}/events").raw]))
    assert [name for name, _ in found] == ["event", "done"]
    assert json.loads(found[0][1])["payload"] == payload


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
