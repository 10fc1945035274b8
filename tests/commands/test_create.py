"""`rebyte create`, as a user and a script meet it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.servers import RawServer, Request, json_reply
from tests.waiting import with_time

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
UNREAD = "Standard input was not read; add `-` after the prompt to send it too"


@pytest.fixture
def local(inside_local: Run) -> Run:
    """The command against a service of the test's own, without a process for each call."""
    return inside_local


def test_prints_the_created_task_alone_on_stdout(local: Run) -> None:
    done = local("create", "Say hello")
    assert done.status == 0
    task = done.json
    assert set(task) == {"id", "workspaceId", "url", "status", "createdAt"}
    assert task["status"] == "running"
    assert task["id"] in done.err
    assert task["url"] in done.err


def test_wait_prints_one_document_the_finished_task_with_its_workspace(local: Run) -> None:
    created_at_once = local("create", "Say hello", "--wait", "-o", "json")
    assert created_at_once.status == 0
    assert len(created_at_once.documents) == 1
    task = created_at_once.json
    assert task["status"] == "completed"
    assert task["workspaceId"]
    assert [prompt["status"] for prompt in task["prompts"]] == ["succeeded"]


def test_a_task_that_fails_is_printed_and_ends_in_10(local: Run) -> None:
    done = local("create", "Break [[fail]]", "--wait")
    assert done.status == 10
    assert done.json["status"] == "failed"
    assert json.loads(done.err.strip().splitlines()[-1])["error"]["exit"] == 10


def test_a_task_that_is_canceled_ends_in_11(local: Run) -> None:
    done = local("create", "Stop [[cancel]]", "--wait")
    assert done.status == 11
    assert done.json["status"] == "canceled"


def test_the_time_limit_ends_in_124_and_says_how_to_go_on(local: Run) -> None:
    def check(limit: float) -> None:
        done = local("create", f"Slow {limit} [[run=2m]]", "--wait", "--timeout", str(limit))
        assert done.status == 124
        assert done.out == ""
        assert "rebyte wait" in done.err

    with_time(check)


def test_quiet_leaves_stderr_empty(local: Run) -> None:
    assert local("create", "Say hello", "-q").err == ""


def test_id_prints_the_id_alone(local: Run) -> None:
    done = local("create", "Say hello", "-o", "id")
    assert done.out == json.loads(local("get", "@last").out)["id"] + "\n"


def test_dry_run_prints_the_body_and_sends_nothing(local: Run) -> None:
    done = local(
        *("create", "Do it", "--dry-run", "-s", "pdf,deep-research", "--skills", "pdf"),
        *("-x", "claude", "-m", "lite", "-g", "acme/shop", "-b", "main", "-w", "ws-1"),
    )
    assert done.status == 0
    assert done.json == {
        "prompt": "Do it",
        "executor": "claude",
        "model": "lite",
        "skills": ["pdf", "deep-research"],
        "githubUrl": "acme/shop",
        "branchName": "main",
        "workspaceId": "ws-1",
    }
    assert local("list").json["data"] == []


def test_nothing_is_sent_that_was_not_chosen(local: Run) -> None:
    assert local("create", "Do it", "--dry-run").json == {"prompt": "Do it"}


def test_reuses_a_workspace_by_task_alias_and_last(local: Run) -> None:
    first = local("create", "One").json
    local("workspace", "name", "@last", "shop")
    for reference in ("@last", "shop", first["workspaceId"], first["id"], first["id"][:8]):
        again = local("create", "Two", "-w", reference)
        assert again.status == 0, again.err
        assert again.json["workspaceId"] == first["workspaceId"]


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("-p", "Say hello"), ""),
        (("--prompt", "Say hello"), ""),
        (("--prompt-file", "prompt.md"), ""),
        (("--prompt-file", "-"), "Say hello"),
        (("-",), "Say hello"),
    ],
)
def test_a_prompt_comes_from_where_it_is_said(
    local: Run, home: Path, arguments: tuple[str, ...], stdin: str
) -> None:
    (home / "prompt.md").write_text("Say hello")
    done = local("create", *arguments, "--dry-run", stdin=stdin)
    assert done.json == {"prompt": "Say hello"}


@pytest.mark.parametrize(
    "words", [["Review this", "-"], ["-", "-p", "Review this"], ["--prompt-file", "task.md", "-"]]
)
def test_a_dash_adds_stdin_to_the_prompt(local: Run, home: Path, words: list[str]) -> None:
    (home / "task.md").write_text("Review this")
    done = local("create", *words, "--dry-run", stdin="diff --git a b\n")
    assert done.json == {"prompt": "Review this\n\ndiff --git a b\n"}


def test_a_prompt_of_several_words_wants_quotes(local: Run) -> None:
    done = local("create", "Fix", "the", "bug")
    assert (done.status, "3 arguments" in done.err) == (2, True)


@pytest.mark.slow
def test_a_pipe_that_is_left_unread_is_pointed_out(rebyte: Run) -> None:
    """In a process, whose standard input is a pipe; the note does not read it."""
    for command in (["create", "Review this"], ["follow-up", "abcd1234", "Review this"]):
        done = rebyte("-P", "local", *command, "--dry-run", stdin="diff")
        assert done.json == {"prompt": "Review this"}
        assert done.err == f"Warning: {UNREAD}\n"
        quiet = rebyte("-P", "local", *command, "--dry-run", "-q", stdin="diff")
        assert quiet.err == done.err
        empty = rebyte("-P", "local", *command, "--dry-run", stdin="")
        assert (empty.status, empty.err) == (0, "")


def test_a_pipe_that_is_filled_during_the_request_is_pointed_out(aim: Aim) -> None:
    source, sink = os.pipe()

    def script(request: Request) -> Any:
        if request.method == "POST":
            os.write(sink, b"diff")
        return json_reply({"id": "abcd1234", "status": "running"}, 201)

    with RawServer(script) as server:
        aim(server)
        words = [*COMMAND, "create", "Review this", "-q", "-o", "id"]
        done = subprocess.run(
            words, env=os.environ, stdin=source, capture_output=True, text=True, timeout=60
        )
        os.close(source)
        os.close(sink)
    assert (done.returncode, done.stdout) == (0, "abcd1234\n")
    assert done.stderr == f"Warning: {UNREAD}\n"


@pytest.mark.parametrize("text", [" \n", "\0\n"])
def test_a_pipe_without_text_is_pointed_out(local: Run, text: str) -> None:
    done = local("create", "Review this", "-", "--dry-run", stdin=text)
    assert (done.status, done.json) == (0, {"prompt": "Review this"})
    assert done.err == "Standard input has no text; the prompt is sent without it\n"
    alone = local("create", "-", "--dry-run")
    assert (alone.status, "standard input has no text" in alone.err) == (2, True)


def test_two_prompts_are_refused(local: Run) -> None:
    done = local("create", "One", "-p", "Two", "--dry-run")
    assert done.status == 2
    assert "once" in done.err


def test_without_a_prompt_standard_input_is_the_prompt(local: Run) -> None:
    body = local("create", "--dry-run", stdin="Say hello\n").json
    assert body["prompt"].strip() == "Say hello"
    done = local("create", "--dry-run")
    assert done.status == 2
    assert "no prompt: standard input has no text" in done.err


@pytest.mark.parametrize("text", ["  \n", "\0\0\0", "\0 \n\0"])
def test_an_empty_prompt_is_refused(local: Run, home: Path, text: str) -> None:
    (home / "prompt").write_text(text)
    for words in (["create"], ["follow-up", "abcd1234"]):
        done = local(*words, "--prompt-file", "prompt")
        assert (done.status, json.loads(done.err)["error"]["message"]) == (2, "the prompt is empty")
        done = local(*words, "-", stdin=text)
        assert (done.status, "standard input has no text" in done.err) == (2, True)


def test_the_limit_counts_characters_not_bytes(local: Run) -> None:
    at_limit = "ä" * 100_000
    assert local("create", "--prompt-file", "-", "--dry-run", stdin=at_limit).status == 0
    over = local("create", "--prompt-file", "-", stdin=at_limit + "ä")
    assert over.status == 2
    assert "100,001" in over.err
    assert "100,000" in over.err
    assert local("list").json["data"] == []


def test_bytes_that_are_not_text_are_named_by_their_place(local: Run) -> None:
    done = local("create", "--prompt-file", "-", stdin=b"Say \xff hello")
    assert done.status == 2
    assert "invalid UTF-8 at byte 4 (0xff)" in done.err


def test_a_missing_prompt_file_ends_in_4(local: Run) -> None:
    assert local("create", "--prompt-file", "nowhere.md").status == 4


def test_an_unknown_field_is_refused_before_anything_is_created(local: Run) -> None:
    done = local("create", "Say hello", "--fields", "stauts")
    assert done.status == 2
    assert "status" in done.err
    assert local("list").json["data"] == []


@pytest.mark.slow
def test_the_repository_here(local: Run, home: Path) -> None:
    repo = home / "repo"
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-qb", "topic", str(repo)], check=True)
    subprocess.run([*git, "commit", "-qm", "first", "--allow-empty"], check=True)
    assert "no remote" in local("create", "x", "-g", ".", "--dry-run", cwd=repo).err
    for url in (
        "git@github.com:acme/shop.git",
        "https://github.com/acme/shop",
        "https://user:secret@github.com/acme/shop.git",
        "ssh://git@github.com:22/acme/shop.git",
    ):
        subprocess.run([*git, "remote", "remove", "origin"], check=False, capture_output=True)
        subprocess.run([*git, "remote", "add", "origin", url], check=True)
        subprocess.run([*git, "update-ref", "refs/remotes/origin/topic", "HEAD"], check=True)
        body = local("create", "x", "-g", ".", "--dry-run", cwd=repo).json
        assert body == {"prompt": "x", "githubUrl": "acme/shop", "branchName": "topic"}
    tree = home / "tree"
    subprocess.run([*git, "worktree", "add", "-qb", "other", str(tree)], check=True)
    subprocess.run([*git, "update-ref", "refs/remotes/origin/other", "HEAD"], check=True)
    assert local("create", "x", "-g", ".", "--dry-run", cwd=tree).json["branchName"] == "other"
    subprocess.run([*git, "checkout", "-q", "--detach"], check=True)
    detached = local("create", "x", "-g", ".", "--dry-run", cwd=repo)
    assert detached.status == 2
    assert "detached" in detached.err
    named = local("create", "x", "-g", ".", "-b", "main", "--dry-run", cwd=repo)
    assert named.json["branchName"] == "main"
    subprocess.run([*git, "remote", "set-url", "origin", "git@gl.example:acme/shop"], check=True)
    other = local("create", "x", "-g", ".", "--dry-run", cwd=tree)
    assert other.json["githubUrl"] == "acme/shop"
    assert "without gl.example" in other.err
    outside = local("create", "x", "-g", ".", "--dry-run", cwd=home)
    assert outside.status == 2
    assert "not inside a git repository" in outside.err


def test_the_editor_writes_the_prompt_on_a_terminal(home: Path) -> None:
    editor = home / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "From the editor" > "$1"\n')
    editor.chmod(0o755)
    output = _on_a_terminal(["-P", "local", "create", "--dry-run"], {"EDITOR": str(editor)})
    assert '"prompt": "From the editor"' in output


def _on_a_terminal(arguments: list[str], env: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, **env},
        close_fds=True,
    )
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait(60)
    os.close(leader)
    return b"".join(chunks).decode()


def test_the_task_of_a_lost_answer_is_found(local: Run) -> None:
    done: Any = local("create", "Lose the answer [[drop]]")
    assert done.status == 0, done.err
    assert "lost" in done.err
    assert len(local("list").json["data"]) == 1
    assert done.json["id"] == local("list").json["data"][0]["id"]


def test_once_makes_one_task_per_key(local: Run) -> None:
    first = local("create", "Nightly", "--once", "nightly-1").json
    second = local("create", "Nightly", "--once", "nightly-1").json
    assert first["id"] == second["id"]
    assert len(local("list").json["data"]) == 1
    assert local("create", "--once", "nightly-1", "--forget").status == 0
    assert local("create", "Nightly", "--once", "nightly-1").json["id"] != first["id"]


def test_a_key_with_another_prompt_is_refused(local: Run) -> None:
    first = local("create", "Audit", "--once", "night 1")
    same = local("-q", "create", "Audit", "--once", "night 1")
    other = local("-q", "create", "Deploy", "--once", "night 1", "-o", "table")
    assert first.json["id"] == same.json["id"]
    assert same.err == ""
    assert (other.status, other.out) == (2, "")
    assert other.err == (
        "Error: --once: key 'night 1' is that of another prompt, so nothing was sent\n"
        "Hint: Use another key, or forget this one: `rebyte create --once 'night 1' --forget`\n"
    )
    assert len(local("list").json["data"]) == 1


def test_a_key_whose_task_was_deleted_says_how_to_use_it_again(local: Run, service: Any) -> None:
    """Deleted from here, which the history knows, or elsewhere, which a wait finds out."""
    forget = "`rebyte create --once k --forget` lets the key create another"
    task = local("create", "Audit", "--once", "k", "--wait").json["id"]
    assert local("delete", task, env={"REBYTE_STATE_DIR": "elsewhere"}).status == 0
    for follow in ("--wait", "--stream"):
        done = local("create", "Audit", "--once", "k", follow)
        assert done.status == 4
        assert f"It was deleted; {forget}" in done.err
    local("delete", task, "--ignore-missing")
    done = local("create", "Audit", "--once", "k", "-q")
    assert done.status == 0
    assert (
        done.err == f"Warning: key 'k' already created task {task}, which was deleted; {forget}\n"
    )
    done = local("create", "Audit", "--once", "k", "--wait")
    assert (done.status, done.err.count(forget)) == (4, 1)
    assert local("create", "Deploy", "--once", "k").status == 2
    assert local("create", "--once", "k", "--forget").status == 0
    assert local("create", "Audit", "--once", "k").json["id"] != task


@pytest.mark.parametrize(
    "key",
    [
        "rbk_0123456789abcdef", "night-rbk_0123456789abcdef-x", "https://me:hunter2@ci.example/42",
        "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n",
    ],
)  # fmt: skip
def test_a_secret_as_a_key_works_and_is_neither_kept_nor_shown(
    local: Run, home: Path, key: str
) -> None:
    done = [
        local("create", "Audit", "--once", key),
        local("create", "Audit", "--once", key),
        local("create", "Deploy", "--once", key, "-o", "table"),
    ]
    task = done[0].json["id"]
    assert [one.json["id"] for one in done[:2]] == [task] * 2
    assert done[2].status == 2
    for each in (home / ".local").rglob("*"):
        assert each.is_dir() or not re.search(SECRET_PARTS, each.read_bytes())
    done += [local("create", "--once", key, "--forget"), local("create", "Audit", "--once", key)]
    assert done[4].json["id"] != task
    assert not re.search(SECRET_PARTS, "".join(one.err for one in done).encode())


SECRET_PARTS = rb"0123456789abcdef|hunter2|MIIEpAIB"
