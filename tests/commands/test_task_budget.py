"""Budgets of real agents on this machine: of a batch while its tasks run, and of a day."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.local.agents.bench import PYTHON
from tests.local.agents.test_run_meter import ASK, CountingModel, serving
from tests.tools import need_jail
from tests.waiting import eventually

Run = Callable[..., Done]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingModel]:
    """The user's model: each answer uses 1000 tokens."""
    yield from serving(CountingModel(), monkeypatch)


@pytest.fixture
def asking(home: Path, local_inside: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with an agent `mine` that runs its prompt; `ask()` there asks the model."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    configure(home)
    return local_inside


def configure(home: Path, local: str = "") -> None:
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    agent = home / "agent.py"
    agent.write_text(ASK + "exec(sys.stdin.read())\n")
    folders = [str(home / "agent.py"), os.path.dirname(os.path.dirname(PYTHON))]
    config.write_text(
        f"{local}\n[local.agents.mine]\ncommand = {[PYTHON, '-I', str(agent)]}\n"
        f'read = {folders}\nmodel = "anthropic"\n'
    )
    config.chmod(0o600)


def created(run: Run) -> list[Any]:
    found: list[Any] = run("-P", "local", "list", "--all", "-o", "json").json["data"]
    return found


@pytest.mark.slow
def test_tasks_of_a_batch_end_when_they_have_used_its_budget_together(
    asking: Run, home: Path, model: CountingModel
) -> None:
    lines = ["while True: ask(); time.sleep(0.2)\n"] * 3
    (home / "in.txt").write_text("".join(lines))
    batch = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl", "-x", "mine"]
    done = asking(*batch, "--max-running", "2", "--budget", "15ktok", cwd=home)
    assert done.status == 13
    rows = sorted(done.documents, key=lambda row: int(row["line"]))
    assert [row["status"] for row in rows] == ["failed", "failed", "pending"]
    assert rows[0]["error"]["code"] == "budget_reached"
    assert "the budget of 15,000 tokens is used up" in rows[0]["error"]["message"]
    assert 15 <= model.served < 30
    assert sum(row["usage"]["requests"] for row in rows[:2]) == model.served


@pytest.mark.slow
@pytest.mark.parametrize(("local", "option"), [("", "1.5ktok"), ("1.5ktok", None)])
def test_lines_whose_task_the_budget_did_not_let_begin_are_pending(
    asking: Run, home: Path, model: CountingModel, local: str, option: str | None
) -> None:
    """Their tasks wait in the service's queue, while the one that begins uses up the budget."""
    asks = 'ask(b"wait"); [ask() or time.sleep(0.2) for _ in range(3)]'

    def budget(of_day: str) -> str:
        return "[local]\nparallel = 1\n" + (f'budget_per_day = "{of_day}"\n' if local else "")

    def let_go() -> None:
        eventually(lambda: is_queued(f"{asks} # four"), seconds=20)
        model.may_answer.set()

    def is_queued(prompt: str) -> bool:
        sql = "SELECT 1 FROM prompts WHERE text = ?"
        with closing(sqlite3.connect(home / ".local/state/rebyte/local/service.db")) as db:
            return bool(db.execute(sql, (prompt,)).fetchall())

    configure(home, budget(local))
    asking("-P", "local", "list")  # which makes the database
    model.may_answer.clear()
    (home / "in.txt").write_text(f"{asks}\n" * 3 + f"{asks} # four\n")
    batch = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl", "-x", "mine"]
    waiting = threading.Thread(target=let_go)
    waiting.start()
    limit = ["--budget", option] if option else []
    done = asking(*batch, "--jobs", "1", "--max-running", "4", *limit, cwd=home)
    waiting.join()
    assert (done.status, model.served) == (13, 2)
    # Of those that wait at the same time, any may be the first to begin.
    assert sorted(row["status"] for row in done.documents) == ["failed", *["pending"] * 3]
    assert "3 lines were not created" in done.err
    configure(home, budget("1Mtok"))
    done = asking(*batch, *(["--budget", "1Mtok"] if option else []), cwd=home)
    assert sorted(row["status"] for row in done.documents) == [*["completed"] * 3, "failed"]
    assert model.served == 2 + 3 * 4


@pytest.mark.slow
def test_the_tasks_of_a_killed_batch_share_its_budget_with_those_created_later(
    asking: Run, home: Path, model: CountingModel
) -> None:
    """The first one works on, whatever happens to the batch."""
    model.may_answer.clear()
    asks = "[ask() for _ in range(9)]"
    (home / "in.txt").write_text(f'ask(); ask(b"wait"); {asks}\n{asks}\n')
    batch = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl", "-x", "mine", "--jobs", "1"]
    batch += ["--budget", "5ktok"]
    with subprocess.Popen([*COMMAND, *batch], cwd=home, stdout=subprocess.DEVNULL) as first:
        eventually(lambda: model.served == 1)
        first.kill()

    def let_go() -> None:
        eventually(lambda: model.served >= 5)
        model.may_answer.set()

    waiting = threading.Thread(target=let_go)
    waiting.start()
    done = asking(*batch, "--max-running", "2", cwd=home)
    waiting.join()
    assert [row["status"] for row in done.documents] == ["failed", "failed"]
    assert {row["error"]["code"] for row in done.documents} == {"budget_reached"}
    assert model.served == 6  # of which one was under way when the fifth answer used it up


@pytest.mark.slow
def test_nothing_more_begins_on_a_day_whose_budget_is_used_up(
    asking: Run, home: Path, model: CountingModel
) -> None:
    configure(home, '[local]\nbudget_per_day = "1.5ktok"\n')
    create = ["-P", "local", "create", "-x", "mine", "-o", "json"]
    done = asking(*create, "--wait", "ask(); ask(); ask()")
    assert (done.status, model.served) == (13, 2)
    says = "the budget of 1,500 tokens a day ([local] budget_per_day) is used up"
    assert says in done.err
    done = asking(*create, "ask()")
    assert done.status == 13
    assert says[1:] in done.err
    assert len(created(asking)) == 1
    (home / "in.txt").write_text("ask()\nask()\n")
    batch = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl", "-x", "mine"]
    done = asking(*batch, cwd=home)
    assert done.status == 13
    assert [row["status"] for row in done.documents] == ["pending", "pending"]
    configure(home, '[local]\nbudget_per_day = "1Mtok"\n')
    done = asking(*batch, cwd=home)
    assert (done.status, model.served) == (0, 4)


@pytest.mark.parametrize(
    ("amount", "more", "says"),
    [
        ("1ktok", ["--network", "host"], "A budget cannot be kept without the gateway"),
        ("1usd", [], "A budget in dollars needs the price of the default model of mine"),
        ("much", [], "must be an amount such as"),
    ],
)
def test_a_budget_of_the_day_that_cannot_be_kept_is_refused(
    asking: Run, home: Path, model: CountingModel, amount: str, more: list[str], says: str
) -> None:
    configure(home, f'[local]\nbudget_per_day = "{amount}"\n')
    done = asking("-P", "local", "create", "-x", "mine", "ask()", *more)
    assert done.status != 0
    assert says in done.err
    assert created(asking) == []


@pytest.mark.parametrize("limit", ["--budget", "budget_per_day"])
def test_a_key_in_the_sandbox_has_no_budget(
    asking: Run, home: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """The gateway does not see what the agent asks with it."""
    program = home / "bin/claude"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 2.1.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", "1")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "x")
    more = ["--budget", "9Mtok"] if limit == "--budget" else []
    if not more:
        configure(home, '[local]\nbudget_per_day = "9Mtok"\n')
    done = asking("-P", "local", "create", "-x", "claude", "x", *more)
    assert done.status != 0
    assert "has the key of its model in the sandbox" in done.err
    assert created(asking) == []
