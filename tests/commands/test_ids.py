"""Ids become words of other commands (`rebyte list -o id | xargs rebyte wait`), so a server must
not be able to put options or further words there."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import OutcomeUnknown, RebyteClient
from tests.conftest import COMMAND, Done, need_tool
from tests.servers import RawServer, Request, json_reply, transport_to

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
GOOD = "0b9d4e6e-3f8a-4f0c-9f51-6c2f6f1d2a7b"
HOSTILE = [
    "--exec=touch pwned",
    "-q",
    "-",
    "@last",
    "a --exec=touch\tpwned",
    'a" "--exec=touch',
    "a' '--exec=touch",
    "a\\ b",
    "a\n--exec=touch",
    "$(touch pwned)",
    "a;touch",
    "*",
    "~root",
    "=ls",
    "\u202ea",
    "",
    ["x", "--exec=touch pwned"],
    -7,
]


def ended(name: Any) -> dict[str, Any]:
    return {
        "id": name,
        "url": "https://app.rebyte.ai/run/x",
        "status": "completed",
        "title": "A task",
        "createdAt": "2026-02-09T10:05:00.000Z",
        "completedAt": "2026-02-09T10:15:00.000Z",
    }


def page_of(*names: Any) -> dict[str, Any]:
    rows = [ended(name) for name in names]
    return {"data": rows, "total": len(rows), "limit": 50, "offset": 0}


def test_a_server_cannot_give_wait_options_by_way_of_xargs(home: Path, aim: Aim) -> None:
    need_tool("xargs")

    def hostile(request: Request) -> bytes:
        is_list = request.path.split("?")[0] == "/v1/tasks"
        name = request.path.rpartition("/")[2]
        return json_reply(page_of("--exec=touch pwned", GOOD) if is_list else ended(name))

    command = shlex.join(COMMAND)
    with RawServer(hostile) as server:
        aim(server)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{command} list -o id | xargs -r {command} wait"],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert not (home / "pwned").exists()
    assert done.returncode == 5
    assert "--exec=touch pwned" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
@pytest.mark.parametrize(
    "words",
    [("list", "-o", "id"), ("list", "-o", "json"), ("list", "--all", "-o", "id"), ("list",)],
    ids=" ".join,
)
def test_a_list_with_such_an_id_is_refused(
    words: tuple[str, ...], name: Any, inside: Run, aim: Aim
) -> None:
    with RawServer(json_reply(page_of(GOOD, name))) as server:
        aim(server)
        done = inside(*words)
    if name == "":  # no id at all, which prints nothing
        assert done.status == 0
    else:
        assert done.status == 5
        assert "is not a usable id" in done.err
        assert not done.out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("get", GOOD), ended("--exec=touch")),
        (("get", GOOD), {**ended(GOOD), "workspaceId": "--exec=touch"}),
        (("get", GOOD), {**ended(GOOD), "prompts": [{"id": "--x", "status": "succeeded"}]}),
        (("cancel", GOOD), ended("--exec=touch")),
        (("webhook", "list"), {"webhooks": [{"id": "--yes", "url": "https://a.example"}]}),
        (("webhook", "list"), [{"id": "--yes", "url": "https://a.example"}]),
        (("webhook", "show", GOOD), {"id": "--yes", "url": "https://a.example"}),
        (("workspace", "show", GOOD), {"id": "--yes", "status": "ready"}),
        (
            ("file", "upload", "a.txt"),
            {"id": "-x", "filename": "a", "uploadUrl": "https://store.example/a"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value)[:40],
)
def test_no_command_prints_such_an_id(
    words: tuple[str, ...], answer: Any, inside: Run, aim: Aim, home: Path
) -> None:
    (home / "a.txt").write_text("a")
    with RawServer(json_reply(answer)) as server:
        aim(server)
        for form in ("id", "json"):
            done = inside(*words, "-o", form)
            assert done.status == 5, done
            assert not done.out
            assert "is not a usable id" in done.err


def test_workspaces_of_the_history_are_listed_without_those_of_such_an_answer(
    inside: Run, aim: Aim
) -> None:
    with RawServer(json_reply({"data": [{"id": "a --yes", "status": "ready"}]})) as server:
        aim(server)
        done = inside("workspace", "list", "-o", "id")
    assert (done.status, done.out) == (0, "")
    assert "is not a usable id" in done.err


def test_a_create_that_is_answered_with_such_an_id_is_unknown() -> None:
    odd = ended("--exec=touch"), {**ended(GOOD), "workspaceId": "-x"}, {"promptId": "a b"}
    with RawServer([json_reply(answer, 201) for answer in odd]) as server:
        client = RebyteClient(transport=transport_to(server))
        for send in (client.create_task, client.create_task, partial(client.follow_up, GOOD)):
            with pytest.raises(OutcomeUnknown, match="is not a usable id"):
                send("Say hello")
        assert len(server.seen("POST")) == 3


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if isinstance(name, str) and name not in ("", "-")]
)
def test_such_an_id_is_not_taken_either(name: str, inside: Run) -> None:
    done = inside("get", "--", name)
    assert done.status in (2, 4), done  # 4: @last, of which there is none
