"""`rebyte attach`: an agent's own screen, here that of a shell script in Claude Code's place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.agents.limits.account_limit import AccountLimit
from rebyte_cli.local.agents.supervision.runs import last_options
from rebyte_cli.local.store import Store
from tests.conftest import COMMAND
from tests.repositories import git, small_repository
from tests.terminals import Session
from tests.waiting import eventually, kill_supervisor

from .conftest import SCRIPT, Run

# With a prompt, it answers; on a terminal, it does what is typed.
AGENT = r"""#!/bin/sh
case " $* " in
*" -p "*)
    session=6f9a9c1e-2f0b-4c5e-9a53-0d6f3b1c7a42
    printf '{"type":"system","subtype":"init","session_id":"%s"}\n' $session
    sh >&2
    printf '{"type":"result","is_error":false,"result":"Done."}\n'
    ;;
*)
    printf '\033[?2004hscreen: %s\n' "$*"
    while printf '> '; read -r line; do eval "$line"; done
    ;;
esac
"""


@pytest.fixture
def run(home: Path, with_agents: Callable[[str], Run]) -> Run:
    """The command, where `claude` has worked on a task in a jail."""
    program = home / "agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    (home / ".claude").mkdir()
    (home / ".claude/.credentials.json").write_text('{"claudeAiOauth": {"accessToken": "secret"}}')
    repository = small_repository(home / "repository")
    run = with_agents(f'[local.agents.claude]\ncommand = ["{program}"]\n{SCRIPT}')
    done = run("create", "echo two >> code.txt", "-x", "claude", "-g", str(repository), "--wait")
    assert done.status == 0, done.err
    return run


def attached() -> Session:
    """`rebyte attach @last` on a terminal, when the screen is there."""
    session = Session([*COMMAND, "attach", "@last"], columns=140, echo=True)
    session.until(lambda lines: lines and lines[-1] == ">")
    return session


def login(run: Run) -> Path:
    code = Path(run("workspace", "path", "@last", "--running").out.strip())
    return code.parent / "home/.claude/.credentials.json"


@pytest.mark.slow
def test_the_screen_is_that_of_the_session_and_what_it_changes_is_in_the_patch(
    run: Run, home: Path
) -> None:
    assert run("apply", "@last", "--yes", cwd=home / "repository").status == 0
    git(home / "repository", "commit", "-q", "-m", "Two")
    session = attached()
    assert any("screen: " in line and "--resume 6f9a9c1e" in line for line in session.lines)
    assert "sk-ant-oat01-" in login(run).read_text()
    assert "secret" not in login(run).read_text()
    assert run("get", "@last").json["status"] == "running"
    session.child.sendline("pwd; echo three >> code.txt; git config core.fsmonitor trap")
    session.until(lambda lines: "/code" in lines)
    session.child.sendline("exit")
    assert session.finish() == 0
    assert "\x1b[?2004l" in session.raw
    task = run("get", "@last").json
    assert (task["status"], task["finalResult"], len(task["prompts"])) == ("completed", "Done.", 2)
    assert "+three\n" in run("diff", "@last", "--run").out
    assert "+two" not in run("diff", "@last", "--run").out
    assert run("apply", "@last", "--yes", cwd=home / "repository").status == 0
    assert (home / "repository/code.txt").read_text() == "one\ntwo\nthree\n"
    config = login(run).parents[2] / "code/.git/config"
    assert "fsmonitor" not in config.read_text()


@pytest.mark.slow
def test_its_status_is_that_of_the_agent(run: Run) -> None:
    session = attached()
    session.child.sendline("exit 7")
    assert session.finish() == 7
    done = run("wait", "@last")
    assert done.status == 10
    assert "claude exited with status 7" in done.err


@pytest.mark.slow
def test_the_task_is_at_work_meanwhile(run: Run) -> None:
    session = attached()
    second = Session([*COMMAND, "attach", "@last"])
    assert second.finish() == 1
    assert "is at work in workspace" in second.raw
    assert run("workspace", "run", "@last", "--", "true").status == 1
    run("follow-up", "@last", "echo four >> code.txt")
    assert run("get", "@last").json["prompts"][-1]["status"] != "succeeded"
    session.child.sendline("exit")
    assert session.finish() == 0
    assert run("wait", "@last").status == 0
    assert "+four\n" in run("diff", "@last", "--run").out


@pytest.mark.slow
def test_a_usage_limit_keeps_no_screen_closed(run: Run) -> None:
    """What the user does there is for the agent to refuse."""
    task, state = run("get", "@last").json["id"], login(run).parents[4]
    with Store(state).read() as db:
        found = last_options(db, task)
    assert found is not None
    AccountLimit(str(state), found[1]["account"]).reach(3600)
    session = attached()
    session.child.sendline("exit")
    assert session.finish() == 0
    assert run("get", task).json["status"] == "completed"
    run("follow-up", task, "true")
    eventually(lambda: "resumesAt" in run("get", task).json)
    run("cancel", task, "--yes")


@pytest.mark.slow
def test_it_can_be_canceled_from_elsewhere(run: Run) -> None:
    session = attached()
    session.child.sendline("echo three >> code.txt")
    session.until(lambda lines: lines[-2:] == ["> echo three >> code.txt", ">"])
    assert run("cancel", "@last").status == 0
    assert session.finish() == 1
    assert "stopped by a signal" in session.raw
    assert "\x1b[?2004l" in session.raw
    assert run("wait", "@last").status == 11
    assert "+three\n" in run("diff", "@last", "--run").out


@pytest.mark.slow
def test_when_it_is_killed_the_work_is_kept(run: Run) -> None:
    session = attached()
    session.child.sendline("echo three >> code.txt")
    session.until(lambda lines: lines[-2:] == ["> echo three >> code.txt", ">"])
    folder = login(run).parents[2]
    (lock,) = (one for one in folder.glob("runs/*/lock") if "gone" not in one.read_text())
    kill_supervisor(lock)
    eventually(lambda: run("get", "@last").json["status"] == "failed")
    assert "+three\n" in run("diff", "@last", "--run").out
    session.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("simulated",), "is simulated: no agent works on it"),
        (("true", "-x", "mine"), "mine is a program without a screen and sessions"),
    ],
)
def test_what_has_no_screen(run: Run, words: tuple[str, ...], said: str) -> None:
    run("create", *words, "--wait")
    session = Session([*COMMAND, "attach", "@last"], columns=200)
    assert session.finish() == 1
    assert said in session.raw
    assert "Continue with `rebyte follow-up" in session.raw


@pytest.mark.slow
def test_it_needs_a_terminal(run: Run) -> None:
    done = run("attach", "@last")
    assert done.status == 2
    assert "attach requires a terminal" in done.err
