"""A 404, a 410 or an answer of another shape ends every command in one clear line."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.app import App
from rebyte_cli.cli import root, run
from rebyte_cli.errors import RebyteError
from rebyte_cli.presenter import Presenter
from tests.conftest import Done
from tests.servers import RawServer, error_reply, json_reply, reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]

HTML = "<!doctype html><html><head><title>Bad gateway</title></head></html>"
ANSWERS = {
    "404": error_reply(404, "not_found", "Nothing here"),
    "410": reply(410, HTML, {"Content-Type": "text/html"}),
    "list": json_reply([]),
    "list of text": json_reply(["a", None]),
    "null": json_reply(None),
    "text": json_reply("x"),
    "number": json_reply(7),
    "object": json_reply({}),
    "html": reply(200, HTML, {"Content-Type": "text/html"}),
    "wrong inside": json_reply({"data": {"a": 1}, "id": 7, "status": [], "prompts": 3, "url": {}}),
    "nothing": reply(200),
}
# One line per command that calls the API. A limit where a run with no end would be waited for.
CALLS = """
answer abcd1234 --option 1
apply abcd1234
api GET /tasks
api GET /tasks --paginate
artifact delete abcd1234 a.txt
artifact delete abcd1234 --all --yes
artifact get abcd1234 b.txt
artifact get abcd1234 b.txt -O -
artifact get abcd1234 --all -d out
artifact list abcd1234
artifact put abcd1234 a.txt
cancel abcd1234
check abcd1234 true
credits
delete abcd1234
diff abcd1234
file upload a.txt
get abcd1234
label abcd1234 run=7
list
list --status running
list --all
logs abcd1234
logs abcd1234 -f --timeout 0.1
logs abcd1234 -o jsonl
logs abcd1234 -o json
logs abcd1234 --full
logs abcd1234 --network
open abcd1234
result abcd1234
result abcd1234 --wait --timeout 0.1
share abcd1234 --private
wait abcd1234 --timeout 0.1
wait abcd1234 efgh5678 ijkl9012 --timeout 0.1
webhook create https://hooks.example.com/a --event task.failed
webhook delete abcd1234
webhook list
webhook public-key
webhook show abcd1234
workspace create --name shop
workspace create --wait --timeout 0.1
workspace delete abcd1234 --yes
workspace list
workspace show abcd1234
"""
# These look for a lost task for a while, which their own tests cover with a clock in hand, ...
LOOKING = {"batch", "create", "follow-up", "rerun", "land"}
# ... these report what is wrong line by line (doctor), or call nothing.
QUIET = {
    "completion", "doctor", "help", "local agents", "local connect", "local key", "local prune",
    "local trust", "skill list",
    "attach", "workspace git", "workspace path", "workspace run",
    "man", "schema", "skill", "webhook listen", "workspace forget",
    "workspace name", "auth logout", "profile create", "profile delete", "profile list",
    "profile set", "profile show", "profile unset", "profile use", "local reset", "local serve",
    "local status", "auth login", "auth status", "mcp", "usage",
}  # fmt: skip


def leaves(group: click.Group, path: str = "") -> Iterator[str]:
    """The name of every command, in full."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        whole = f"{path} {name}".strip()
        if isinstance(found, click.Group):
            yield from leaves(found, whole)
        else:
            yield whole


def test_no_command_is_left_out() -> None:
    tried = set(CALLS.strip().splitlines())
    missing = {
        leaf
        for leaf in leaves(root)
        if leaf not in LOOKING | QUIET
        and not any(f"{line} ".startswith(f"{leaf} ") for line in tried)
    }
    assert not missing


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_command_ends_in_one_clear_line(
    answer: str, inside: Run, aim: Aim, home: Path
) -> None:
    (home / "a.txt").write_text("a")
    with RawServer(ANSWERS[answer]) as server:
        aim(server)
        for line in CALLS.strip().splitlines():
            done = inside(*line.split())
            said = [text for text in done.err.splitlines() if text]
            assert done.status in (0, 1, 2, 3, 4, 5, 6, 10, 11, 124), (line, done)
            assert "Traceback" not in done.err, (line, done)
            assert "<html" not in done.err, (line, done)
            errors = [text for text in said if text.startswith(('{"error"', "Error: "))]
            assert bool(errors) == bool(done.status), (line, done)
            assert len(errors) <= 3, (line, done)
            for text in errors:
                if text.startswith("{"):
                    assert 0 < len(json.loads(text)["error"]["message"]) < 200, (line, done)


@pytest.mark.parametrize("answer", [reply(204), reply(200)], ids=["204", "empty"])
@pytest.mark.parametrize(
    "words",
    [["get", "abcd1234"], ["cancel", "abcd1234"], ["credits"], ["workspace", "show", "abcd1234"],
     ["webhook", "show", "abcd1234"], ["result", "abcd1234"], ["open", "abcd1234"]],
    ids=" ".join,
)  # fmt: skip
def test_a_read_that_is_answered_with_nothing_is_no_success(
    words: list[str], answer: bytes, inside: Run, aim: Aim
) -> None:
    with RawServer(answer) as server:
        aim(server)
        done = inside(*words)
    assert (done.status, done.out) == (5, "")
    assert "the answer is empty" in done.err


@pytest.mark.parametrize("task_id", ["a.b", "a:b~c", "org%2Ftask", "..x", "run+7", "é", "x" * 512])
def test_case_72_an_id_of_any_shape_works_everywhere(
    task_id: str, inside: Run, aim: Aim, tmp_path: Path
) -> None:
    """Ids are opaque: a task is created, listed, read and waited for under the id it was given."""
    task = {"id": task_id, "status": "completed", "createdAt": "2026-02-09T10:00:00.000Z"}
    asked = f"/v1/tasks/{quote(task_id, safe='')}"

    def answer(request: Any) -> Any:
        path = request.path.partition("?")[0]
        if request.method == "POST":
            return json_reply(task, 201)
        if path == "/v1/tasks":
            row = {"id": task_id, "completedAt": "2026-02-09T10:00:00.000Z"}
            return json_reply({"data": [row], "total": 1})
        return json_reply(task) if path == asked else error_reply(404, "not_found", path)

    lines = tmp_path / "tasks.jsonl"
    lines.write_text('{"prompt": "Hi"}\n')
    with RawServer(answer) as server:
        aim(server)
        for words in (
            ["create", "Hi", "--wait", "-o", "id"],
            ["list", "--status", "completed", "-o", "id"],
            ["get", task_id, "-o", "id"],
            ["wait", task_id, "-o", "id"],
        ):
            done = inside(*words)
            assert (done.status, done.out) == (0, f"{task_id}\n"), done.err
        done = inside("batch", str(lines), "-o", "jsonl")
        assert (done.status, json.loads(done.out)["id"]) == (0, task_id), done.err


@pytest.mark.usefixtures("home")
def test_a_lack_of_memory_is_no_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what filled the memory is gone when the error is printed."""
    alive: list[Any] = []
    told: list[tuple[Any, str]] = []

    def fill(_client: RebyteClient) -> Any:
        large = RebyteClient(api_key="rbk_x")  # anything that a weak reference can name
        alive.append(weakref.ref(large))
        raise MemoryError

    def fail(_presenter: Presenter, error: RebyteError) -> int:
        told.append((alive[0](), str(error)))
        return error.exit_status

    monkeypatch.setattr(RebyteClient, "credits", fill)
    monkeypatch.setattr(Presenter, "fail", fail)
    assert run(["credits"], App({**os.environ, "REBYTE_API_KEY": "rbk_x"}, ["credits"])) == 1
    assert told == [(None, "out of memory")]
