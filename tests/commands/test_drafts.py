"""A prompt written in the editor is never lost: checked before, kept until its task exists."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.history.drafts import unsent
from tests.conftest import COMMAND, Done
from tests.fork_server import commands
from tests.servers import RawServer, Request, closed_port, error_reply, json_reply, stall
from tests.terminals import Session
from tests.waiting import eventually

MADE = {"id": "task-0001", "workspaceId": "ws-1", "url": "http://x/run/task-0001"}
PAGE = {"data": [], "total": 0, "limit": 1, "offset": 0}


@pytest.fixture
def drafts(home: Path) -> Path:
    return home / ".local" / "state" / "rebyte" / "drafts"


@pytest.fixture
def editor(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a shell script the editor: `$1` is the file. It leaves `opened` behind."""

    def make(script: str) -> Path:
        path = home / "editor"
        path.write_text(f"#!/bin/sh\ntouch {home}/opened\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("EDITOR", str(path))
        return home / "opened"

    return make


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run the command on a terminal: its exit status, and all that was shown."""
    monkeypatch.chdir(home)

    def on_a_terminal(*words: str, **environment: str) -> tuple[int, str]:
        session = Session([str(commands() / "rebyte"), *words], columns=400, **environment)
        status = session.finish()
        return status, "\n".join(session.everything)

    return on_a_terminal


def answering(create: Any) -> Callable[[Request], Any]:
    """A service that lists nothing and answers a create like this."""

    def answer(request: Request) -> Any:
        return create if request.method == "POST" else json_reply(PAGE)

    return answer


WRITES = "printf 'Fix the\\nlogin' > \"$1\""
Aim = Callable[[Any], Any]
Run = Callable[..., tuple[int, str]]


def test_a_prompt_is_sent_and_its_draft_deleted(
    aim: Aim, run: Run, editor: Callable[[str], Path], drafts: Path
) -> None:
    editor(f'test -f "$1" && case "$1" in {drafts}/create-*.md) {WRITES};; esac')
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        status, shown = run("create", "-x", "claude")
        assert status == 0, shown
        assert server.seen("POST")[0].json == {"prompt": "Fix the\nlogin", "executor": "claude"}
    assert list(drafts.iterdir()) == []
    assert drafts.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error_reply(400, "validation_error", "No such skill"), 1),
        (error_reply(401, "invalid_api_key", "Bad key"), 3),
        (json_reply("not an object"), 6),
    ],
)
def test_a_create_that_failed_leaves_the_draft_and_names_it(
    aim: Aim,
    run: Run,
    editor: Callable[[str], Path],
    drafts: Path,
    inside: Callable[..., Done],
    answer: bytes,
    expected: int,
) -> None:
    editor(WRITES)
    unlisted = error_reply(403, "insufficient_scopes", "No list")  # ends the search for a lost task
    with RawServer(lambda request: answer if request.method == "POST" else unlisted) as server:
        aim(server)
        status, shown = run("create", "--wait")
        (draft,) = drafts.glob("*.md")
        assert (status, draft.read_text()) == (expected, "Fix the\nlogin"), shown
        assert draft.stat().st_mode & 0o777 == 0o600
        assert f"The prompt is kept: repeat the command with --prompt-file {draft}" in shown
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        done = inside("create", "--prompt-file", str(draft), "-o", "id")
        assert done.out == "task-0001\n"
        assert server.seen("POST")[0].json["prompt"] == "Fix the\nlogin"
    assert list(drafts.glob("*.md")) == []


def test_a_file_of_the_user_is_never_deleted(
    aim: Aim, inside: Callable[..., Done], home: Path
) -> None:
    (home / "mine.md").write_text("Hello")
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        assert inside("create", "--prompt-file", str(home / "mine.md")).status == 0
    assert (home / "mine.md").read_text() == "Hello"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_prompt_outlives_its_command(
    aim: Aim,
    run: Run,
    editor: Callable[[str], Path],
    drafts: Path,
    name: str,
) -> None:
    editor(WRITES)
    with RawServer(answering(stall)) as server:
        aim(server)
        session = Session([*COMMAND, "create"], columns=400)
        session.until(lambda _lines: server.seen("POST"))
        os.kill(session.child.pid, getattr(signal, name))
        end = time.monotonic() + 60
        while session.read(1):
            assert time.monotonic() < end
        eventually(lambda: unsent(drafts))  # the process that held it has ended
        shown = "\n".join(session.everything)
        (draft,) = drafts.glob("*.md")
        assert draft.read_text() == "Fix the\nlogin"
        assert (f"--prompt-file {draft}" in shown) == (name != "SIGKILL")
        # The next time that the editor opens, the prompt is pointed out.
        editor("true")
        _, shown = run("create")
        assert f"An earlier prompt may not have been sent: {draft}" in shown
        assert draft.exists()


@pytest.mark.parametrize(
    ("script", "said", "kept"),
    [
        ("exit 3", "the editor exited with status 3; nothing was sent", None),
        (
            f"{WRITES}; exit 1",
            "the editor exited with status 1; nothing was sent",
            "Fix the\nlogin",
        ),
        ("true", "the editor saved no prompt; nothing was sent", None),
        ("printf ' \\n' > \"$1\"", "the prompt from the editor is empty; nothing was sent", None),
        ("printf '\\0' > \"$1\"", "the prompt from the editor is empty; nothing was sent", None),
        ('rm "$1"', "the editor deleted the file of the prompt; nothing was sent", None),
        ("printf 'a\\377' > \"$1\"", "invalid UTF-8 at byte 1 (0xff)", "a\udcff"),
        ("head -c 100001 /dev/zero | tr '\\0' x > \"$1\"", "100,001 characters", "x" * 100_001),
    ],
)
def test_every_result_of_an_editor_has_a_clear_outcome(
    aim: Aim,
    run: Run,
    editor: Callable[[str], Path],
    drafts: Path,
    script: str,
    said: str,
    kept: str | None,
) -> None:
    editor(script)
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        status, shown = run("create")
        assert status == 2
        assert said in shown
        assert server.seen("POST") == []
    found = [path.read_text(errors="surrogateescape") for path in drafts.glob("*.md")]
    assert found == ([] if kept is None else [kept])
    assert ("--prompt-file" in shown) == (kept is not None)


@pytest.mark.slow
def test_an_editor_with_a_window_is_told_to_wait(
    aim: Aim, run: Run, home: Path, drafts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "code").write_text(
        f'#!/bin/sh\n[ "$1" = --wait ] || exit 0\n{WRITES.replace("$1", "$2")}\n'
    )
    (home / "code").chmod(0o755)
    monkeypatch.setenv("VISUAL", str(home / "code"))
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        status, shown = run("create")
        assert status == 2
        assert "the editor did not wait for its window to be closed" in shown
        assert f"export EDITOR='{home}/code --wait'" in shown
        (draft,) = drafts.glob("*.md")
        assert f"What you save in the window goes to {draft}" in shown
        status, shown = run("create", VISUAL=f"{home}/code --wait")
        assert status == 0, shown
        assert server.seen("POST")[0].json["prompt"] == "Fix the\nlogin"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-P", "nosuch"], 4, "nosuch"),
        (["-w", "@last"], 4, "@last"),
        (["-w", "nosuch"], 4, "no such workspace: nosuch"),
        (["-f", "missing.txt"], 4, "missing.txt"),
        (["-g", "."], 2, "not inside a git repository"),
        (["--label", "x"], 2, "NAME=VALUE"),
        (["--timeout", "soon", "--wait"], 2, "not a duration"),
        (["--fields", "nosuch"], 2, "nosuch"),
        (["--with-changes"], 2, "--with-changes requires -g ."),
    ],
)
def test_everything_else_is_checked_before_the_editor_opens(
    aim: Aim,
    run: Run,
    editor: Callable[[str], Path],
    words: list[str],
    status: int,
    said: str,
) -> None:
    opened = editor(WRITES)
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        done, shown = run("create", *words)
        assert (done, said in shown) == (status, True), shown
        assert server.seen("POST") == []
    assert not opened.exists()


@pytest.mark.slow
def test_the_service_is_asked_before_the_editor_opens(
    aim: Aim, run: Run, editor: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = editor(WRITES)
    with RawServer(error_reply(401, "invalid_api_key", "Bad key")) as server:
        aim(server)
        assert run("create")[0] == 3
    with RawServer(error_reply(404, "not_found", "No such task")) as server:
        aim(server)
        assert run("follow-up", "abcd1234")[0] == 4
    monkeypatch.setenv("REBYTE_API_URL", f"http://127.0.0.1:{closed_port()}/v1")
    monkeypatch.setenv("REBYTE_REQUEST_TIMEOUT", "1")
    assert run("create")[0] == 5
    monkeypatch.delenv("REBYTE_API_KEY")
    monkeypatch.delenv("REBYTE_API_URL")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    assert run("create")[0] == 3
    assert not opened.exists()


def test_a_follow_up_keeps_its_prompt_too(
    aim: Aim, run: Run, editor: Callable[[str], Path], drafts: Path
) -> None:
    editor(WRITES)
    task = json_reply({**MADE, "status": "completed", "prompts": []})
    refusal = error_reply(400, "validation_error", "Not now")
    with RawServer(lambda request: refusal if request.method == "POST" else task) as server:
        aim(server)
        status, shown = run("follow-up", "task-0001")
        (draft,) = drafts.glob("follow-up-*.md")
        assert status == 1
        assert f"--prompt-file {draft}" in shown


@pytest.mark.parametrize(
    ("words", "before"),
    [(["-"], ""), (["Review this", "-"], "Review this\n\n"), (["--prompt-file", "-"], "")],
)
def test_a_prompt_that_was_typed_is_kept_too(
    aim: Aim, drafts: Path, words: list[str], before: str
) -> None:
    with RawServer(answering(error_reply(400, "validation_error", "No"))) as server:
        aim(server)
        session = Session([*COMMAND, "create", *words], columns=400)
        session.until(lambda lines: any("Type the prompt" in line for line in lines))
        session.child.send("Fix the\nlogin\n")
        session.child.sendeof()
        assert session.finish() == 1
        (draft,) = drafts.glob("*.md")
        assert draft.read_text() == f"{before}Fix the\nlogin\n"
        assert server.seen("POST")[0].json["prompt"] == draft.read_text()
        assert f"--prompt-file {draft}" in "\n".join(session.everything)


@pytest.mark.parametrize("typed", ["Fix the\n", ""])
def test_an_interrupt_keeps_what_was_typed(aim: Aim, drafts: Path, typed: str) -> None:
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        session = Session([*COMMAND, "create", "-"], columns=400, echo=True)
        session.until(lambda lines: any("Type the prompt" in line for line in lines))
        session.child.send(typed)
        (draft,) = drafts.glob("*.md")
        session.until(lambda _lines: draft.read_text() == typed)
        session.child.sendintr()
        assert session.finish() == 130
        assert server.seen("POST") == []
    assert draft.read_text() == typed
    assert ("is kept" in "\n".join(session.everything)) == bool(typed)


def test_a_prompt_is_typed_only_after_everything_was_checked(
    aim: Aim, run: Run, drafts: Path, home: Path
) -> None:
    with RawServer(error_reply(401, "invalid_api_key", "Bad key")) as server:
        aim(server)
        assert run("create", "-", "-f", "missing.txt")[0] == 4
        status, shown = run("follow-up", "abcd1234", "-")
        assert (status, "Type the prompt" in shown) == (3, False)
    assert not drafts.exists()


@pytest.mark.slow
def test_nothing_is_kept_where_nothing_was_written(
    aim: Aim, run: Run, drafts: Path, home: Path
) -> None:
    (home / "bin").mkdir()
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        status, shown = run("create", PATH=str(home / "bin"))
        assert (status, "no editor found" in shown, "is kept" in shown) == (2, True, False)
        status, shown = run("create", EDITOR=str(home))
        assert (status, "cannot start the editor" in shown, "is kept" in shown) == (2, True, False)
    assert list(drafts.glob("*.md")) == []


def test_ctrl_c_belongs_to_the_editor(aim: Aim, editor: Callable[[str], Path], home: Path) -> None:
    listens = f"trap 'touch {home}/heard' INT; touch {home}/listens"
    waits = f"until [ -e {home}/heard ]; do sleep 0.1; done"
    editor(f"{listens}; {waits}; {WRITES}")
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        session = Session([*COMMAND, "create"], columns=400)
        session.until(lambda _lines: (home / "listens").exists())
        session.child.sendintr()
        assert session.finish() == 0, session.everything
        assert (home / "heard").exists()
        assert server.seen("POST")[0].json["prompt"] == "Fix the\nlogin"


def test_an_editor_that_ctrl_c_ends_interrupts_the_command(
    aim: Aim, editor: Callable[[str], Path], home: Path
) -> None:
    editor("kill -INT $$")
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        session = Session([*COMMAND, "create"])
        assert session.finish() == 130
        assert session.everything == []
        assert not server.seen("POST")


def test_a_key_that_has_its_task_opens_no_editor(
    aim: Aim, run: Run, editor: Callable[[str], Path], inside: Callable[..., Done]
) -> None:
    opened = editor(WRITES)
    with RawServer(answering(json_reply(MADE, 201))) as server:
        aim(server)
        assert inside("create", "Hello", "--once", "k").status == 0
        status, shown = run("create", "--once", "k")
        assert (status, "Key 'k' already created task task-0001" in shown) == (0, True)
        assert len(server.seen("POST")) == 1
    assert not opened.exists()


def test_a_lost_answer_whose_task_is_found_needs_no_draft(
    run: Run, editor: Callable[[str], Path], drafts: Path, service: Any
) -> None:
    del service
    editor(WRITES)
    status, shown = run("create", "--wait")
    assert status == 0, shown
    assert list(drafts.glob("*.md")) == []


def test_a_state_folder_that_cannot_be_written_costs_no_prompt(
    aim: Aim, run: Run, editor: Callable[[str], Path], home: Path
) -> None:
    editor(WRITES)
    (home / ".local").write_text("in the way")
    with RawServer(answering(error_reply(400, "validation_error", "No"))) as server:
        aim(server)
        status, shown = run("create")
        assert status == 1
        path = shown.split("--prompt-file ")[1].split()[0]
        assert Path(path).read_text() == "Fix the\nlogin"


@pytest.mark.parametrize("executor", ["missing", "nowhere"])
def test_an_agent_that_cannot_run_here_is_refused_before_the_editor_opens(
    run: Callable[..., tuple[int, str]],
    editor: Callable[[str], Path],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
) -> None:
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS", raising=False)
    folder = home / ".config" / "rebyte"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "config.toml").write_text('[local.agents.missing]\ncommand = ["no-such-program"]\n')
    opened = editor("echo Fix it > $1")
    status, shown = run("-P", "local", "create", "-x", executor)
    assert status == (3 if executor == "missing" else 1)
    why = "no-such-program is not on PATH" if executor == "missing" else "executor must be one of"
    assert why in shown
    assert not opened.exists()


def test_a_simulated_agent_need_not_be_here(
    run: Callable[..., tuple[int, str]], editor: Callable[[str], Path]
) -> None:
    opened = editor("echo Fix it > $1")
    words = ("-P", "local", "create", "-x", "codex", "-o", "id")
    assert run(*words, REBYTE_LOCAL_AGENTS="0", PATH="/usr/bin:/bin")[0] == 0
    assert opened.exists()
