"""`rebyte batch --budget`: what is used up stops creates, and no crash resets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.api.token_usage import TokenPrice, TokenUsage
from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.budget import Budget, Spending
from tests.conftest import Done
from tests.farm import statuses
from tests.waiting import eventually

Run = Callable[..., Done]
USING = "[[run=0s]] [[usage=900:100]]"
BATCH = ("-P", "local", "batch", "in.txt", "--text", "-o", "jsonl", "--jobs", "1")


@pytest.fixture
def lines(home: Path) -> Path:
    """Five lines of which each uses 1000 tokens."""
    file = home / "in.txt"
    file.write_text("".join(f"Line {number} {USING}\n" for number in range(1, 6)))
    return file


def tasks(run: Run) -> list[Any]:
    found: list[Any] = run("-P", "local", "list", "--all", "-o", "json").json["data"]
    return found


def price(home: Path) -> None:
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[prices."m"]\ninput = 100\noutput = 100\n')
    config.chmod(0o600)


def test_lines_stay_pending_once_the_budget_is_used_up(inside_local: Run, lines: Path) -> None:
    for _ in range(2):  # the second time, nothing is created
        done = inside_local(*BATCH, "--budget", "2500tok", cwd=lines.parent)
        assert done.status == 13
        assert statuses(done) == ["completed"] * 3 + ["pending"] * 2
        assert "the budget of 2,500 tokens is used up: 3,000 tokens" in done.err
        assert "2 lines were not created" in done.err
        assert len(tasks(inside_local)) == 3
    done = inside_local(*BATCH, "--budget", "4ktok", cwd=lines.parent)
    assert (done.status, len(tasks(inside_local))) == (13, 4)
    done = inside_local(*BATCH, "--budget", "1Mtok", cwd=lines.parent)
    assert (done.status, statuses(done)) == (0, ["completed"] * 5)


def test_a_budget_that_suffices_is_no_error(inside_local: Run, lines: Path) -> None:
    done = inside_local(*BATCH, "--budget", "5ktok", cwd=lines.parent)
    assert (done.status, statuses(done)) == (0, ["completed"] * 5)


def test_a_budget_in_dollars(inside_local: Run, lines: Path) -> None:
    price(lines.parent)
    done = inside_local(*BATCH, "-m", "m", "--budget", "0.25usd", cwd=lines.parent)
    assert (done.status, len(tasks(inside_local))) == (13, 3)
    assert "the budget of $0.25 is used up: 3,000 tokens, $0.30" in done.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--budget", "5usd"], "line 1 names no model, so its price is not known"),
        (["--budget", "5usd", "-m", "x"], "line 1 uses x, whose price is not known"),
        (["--budget", "5usd", "-m", "m", "--no-wait"], "--budget requires --wait"),
        (["--budget", "5"], "'5' is not a budget (5usd, 0.50usd, 300ktok, 2Mtok)"),
        (["--budget", "0tok"], "is not a budget"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_runs(
    inside_local: Run, lines: Path, more: list[str], says: str
) -> None:
    price(lines.parent)
    done = inside_local(*BATCH, *more, cwd=lines.parent)
    assert done.status == 2
    assert says in done.err
    assert tasks(inside_local) == []


def test_what_replaced_tasks_used_counts(inside_local: Run, home: Path) -> None:
    (home / "in.txt").write_text(f"One [[fail]] {USING}\nTwo {USING}\n")
    assert inside_local(*BATCH, "--fail-fast", cwd=home).status == 10
    done = inside_local(*BATCH, "--retry-failed", "--budget", "2ktok", cwd=home)
    assert done.status == 13
    assert len(tasks(inside_local)) == 2
    assert "used up: 2,000 tokens" in done.err


def test_what_runs_counts_before_it_ends(inside_local: Run, home: Path) -> None:
    (home / "in.txt").write_text(f"One [[run=1h]] [[usage=900:100]]\nTwo {USING}\nThree {USING}\n")
    done = inside_local(
        *BATCH, "--max-running", "2", "--budget", "1500tok", "--timeout", "5s", cwd=home
    )
    assert done.status == 124
    assert len(tasks(inside_local)) == 2  # the second one used the rest
    inside_local("-P", "local", "cancel", tasks(inside_local)[-1]["id"])
    done = inside_local(*BATCH, "--budget", "1500tok", cwd=home)
    assert (done.status, statuses(done)) == (13, ["canceled", "completed", "pending"])
    assert "used up: 2,000 tokens" in done.err


@pytest.mark.parametrize("end", ["", "[[fail]]", "[[cancel]]"])
def test_without_a_known_use_no_budget_can_be_kept(inside_local: Run, home: Path, end: str) -> None:
    (home / "in.txt").write_text(f"One [[run=0s]] {end}\nTwo {USING}\n")
    done = inside_local(*BATCH, "--budget", "1Mtok", cwd=home)
    assert done.status == 1
    assert "the service does not say what it used" in done.err
    assert len(tasks(inside_local)) == 1


@pytest.mark.slow
def test_a_crash_does_not_reset_the_budget(inside_local: Run, lines: Path) -> None:
    """Killed after each line; together, the runs create as many tasks as one run would."""
    rebyte = [sys.executable, "-m", "rebyte_cli"]
    journal = lines.with_name("in.txt.journal")

    def ended() -> int:
        return journal.read_bytes().count(b'"ended"') if journal.exists() else 0

    text = lines.read_text().replace("[[run=0s]]", "[[run=1s]]")
    lines.write_text(text)
    for count in (1, 2):
        process = subprocess.Popen(
            [*rebyte, *BATCH, "--budget", "2500tok"],
            cwd=lines.parent,
            env=os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda count=count: ended() >= count)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = inside_local(*BATCH, "--budget", "2500tok", cwd=lines.parent)
    assert done.status == 13
    assert len(tasks(inside_local)) == 3


def test_the_newest_use_of_a_task_counts_once() -> None:
    priced = {"m": TokenPrice(1.0, 1.0, 1.0)}
    spending = Spending(Budget(None, 2.0), lambda usage, model: usage.priced(priced.get(model)))
    for count in (500_000, 900_000, 1_200_000):
        spending.note("a", TokenUsage(None, count, 0, 0, None), "other", "m")
    assert not spending.is_reached
    spending.note("b", TokenUsage(None, 1, 0, 0, 0.8), "")
    assert spending.is_reached
    with pytest.raises(BadUsage, match="whose price is not known"):
        spending.note("c", TokenUsage(None, 1, 0, 0, None), "other")


def test_a_journal_of_before_has_no_use(inside_local: Run, lines: Path) -> None:
    """One that a version without usage wrote can be resumed."""
    done = inside_local(*BATCH, cwd=lines.parent)
    journal = lines.with_name("in.txt.journal")
    records = [json.loads(line) for line in journal.read_text().splitlines() if line]
    for record in records:
        record.pop("usage", None)
    journal.write_text("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in records))
    done = inside_local(*BATCH, "--budget", "1tok", cwd=lines.parent)
    assert (done.status, statuses(done)) == (0, ["completed"] * 5)


# What earlier runs used, by whatever they left of a line

SPENT = "[[usage=900:100:0.10]] [[say=x]]"  # does not fit the schema
OVER_HTTP = ("batch", "in.txt", "--text", "-o", "jsonl", "--schema", "s.json")


@pytest.fixture
def unfit(home: Path) -> Path:
    """Four lines that use 1000 tokens each, for an answer that fits the schema at the second try.

    They run over HTTP, so that no service keeps the budget.
    """
    schema = {"type": "integer", "$comment": "[[say=7]]"}
    (home / "s.json").write_text(json.dumps(schema))
    file = home / "in.txt"
    file.write_text("".join(f"Line {number} {SPENT}\n" for number in range(1, 5)))
    price(home)
    return home


def sent(run: Run) -> list[int]:
    """How many prompts each task on the service got, the newest task first."""
    found = run("list", "--all", "-o", "json").json["data"]
    contents = [run("api", "GET", f"/tasks/{each['id']}/content").json for each in found]
    return [len(content["prompts"]) for content in contents]


@pytest.mark.parametrize("budget", ["900tok", "0.09usd"])
def test_what_is_unchecked_counts_in_every_later_run(
    inside_local: Run, unfit: Path, budget: str
) -> None:
    for most in ("1", "2", "4"):
        words = ("-m", "m", "--budget", budget, "--max-running", most)
        done = inside_local(*OVER_HTTP, *words, cwd=unfit)
        assert statuses(done) == ["unchecked"] + ["pending"] * 3
        row = next(each for each in done.documents if each["line"] == 1)
        assert (row["usage"]["inputTokens"], row["usage"]["outputTokens"]) == (900, 100)
        assert sent(inside_local) == [1]  # what a check says costs as much as a line
        assert "used up: 1,000 tokens" in done.err
        assert "Used 1,000 tokens" in done.err
    done = inside_local(*OVER_HTTP, "-m", "m", "--budget", "1Mtok", cwd=unfit)
    assert (done.status, statuses(done)) == (0, ["completed"] * 4)


def test_a_check_of_before_has_no_use(inside_local: Run, unfit: Path) -> None:
    """A version that did not record it left the line: its task is read before any is created."""
    words = (*OVER_HTTP, "--budget", "900tok", "--max-running")
    inside_local(*words, "1", cwd=unfit)
    journal = unfit / "in.txt.journal"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert records[-1]["is"] == "mending"
    kept = [{name: each[name] for name in each if name != "usage"} for each in records[:-1]]
    journal.write_text("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in kept))
    done = inside_local(*words, "4", cwd=unfit)
    assert statuses(done) == ["unchecked"] + ["pending"] * 3
    assert sent(inside_local) == [1]


def test_what_runs_is_read_before_anything_is_sent(inside_local: Run, unfit: Path) -> None:
    lines = [f"Long [[run=1h]] {SPENT}", f"Unfit {SPENT}", f"New {SPENT}"]
    (unfit / "in.txt").write_text("".join(f"{line}\n" for line in lines))
    words = (*OVER_HTTP, "--timeout", "3s", "--budget")
    inside_local(*words, "1500tok", "--max-running", "2", cwd=unfit)
    done = inside_local(*words, "1600tok", "--max-running", "3", cwd=unfit)
    assert statuses(done) == ["running", "unchecked", "pending"]
    assert sent(inside_local) == [1, 1]
    done = inside_local(*words, "1Mtok", "--max-running", "3", cwd=unfit)
    assert statuses(done) == ["running", "completed", "completed"]


def test_what_has_used_nothing_yet_holds_nothing_up(inside_local: Run, home: Path) -> None:
    (home / "in.txt").write_text(f"Long [[run=1h]]\nTwo {USING}\n")
    words = ("batch", "in.txt", "--text", "-o", "jsonl", "--timeout", "3s", "--budget", "1Mtok")
    for most, second in (("1", "pending"), ("2", "completed")):
        done = inside_local(*words, "--max-running", most, cwd=home)
        assert statuses(done) == ["running", second]
