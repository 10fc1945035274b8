"""A batch run again: by two at once, with another file, in shards, from a torn journal."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch.journal import Journal
from rebyte_cli.once.search import Pace
from tests.conftest import COMMAND, Done
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.paces import paced_command
from tests.servers import Answer, Request, reset
from tests.tools import need_jail
from tests.waiting import eventually


@pytest.fixture
def batch(home: Path) -> Callable[..., Done]:
    def run(farm: Farm, *options: str, **more: Any) -> Done:
        env = {**farm.env, **more.pop("env", {})}
        return inside("batch", "t.txt", "--text", *options, cwd=home, env=env, **more)

    return run


def write(home: Path, count: int, word: str = "Task") -> None:
    (home / "t.txt").write_text("".join(f"{word} {number}\n" for number in range(count)))


def test_two_at_once_and_the_second_is_told_who_has_it(
    batch: Callable[..., Done], home: Path
) -> None:
    write(home, 6)
    is_told: list[bool] = []
    with Farm(until=lambda: is_told) as farm:
        command = [*COMMAND, "batch", "t.txt", "--text", "--jobs", "2"]
        with subprocess.Popen(
            command, cwd=home, env={**os.environ, **farm.env}, stdout=subprocess.PIPE
        ) as first:
            eventually(lambda: bool(farm.made))
            second = batch(farm)
            assert second.status == 1
            assert second.out == ""
            assert (
                f"another run is using the journal t.txt.journal: pid {first.pid} on" in second.err
            )
            shown = batch(farm, "--status")
            assert shown.status == 0
            assert f"Running now: pid {first.pid}" in shown.err
            is_told.append(True)
            assert first.stdout is not None
            assert len(first.stdout.read().splitlines()) == 6
        assert first.returncode == 0
        assert set(farm.made.values()) == {1}


def test_changed_lines_are_refused_before_anything_is_sent(
    batch: Callable[..., Done], home: Path
) -> None:
    write(home, 2)
    with Farm() as farm:
        assert batch(farm).status == 0
        calls = sum(farm.calls.values())
        write(home, 2, "Other")
        done = batch(farm)
        assert done.status == 2
        assert "belongs to a different input" in done.err
        assert "Lines can only be added at the end. To start over" in done.err
        assert "pass a new --journal" in done.err
        write(home, 2)
        done = inside("-P", "local", "batch", "t.txt", "--text", cwd=home)
        assert done.status == 2
        assert "belongs to a different profile: default, not local" in done.err
        assert sum(farm.calls.values()) == calls
        assert batch(farm, "--journal", "second").status == 0
        assert farm.made == {"Task 0": 2, "Task 1": 2}


def test_lines_added_at_the_end_are_created_by_the_next_run(
    batch: Callable[..., Done], home: Path
) -> None:
    (home / "t.txt").write_text("Task 0\nTask 1")  # and no end of the line
    with Farm() as farm:
        assert batch(farm).status == 0
        with (home / "t.txt").open("a") as file:
            file.write("\nTask 2\nTask 3\n")
        shown = batch(farm, "--status")
        assert [row["status"] for row in lines_of(shown.out)] == [
            *["completed"] * 2,
            *["pending"] * 2,
        ]
        done = batch(farm)
        assert done.status == 0
        assert "2 of 4 lines are done, 2 added since" in done.err
        assert [row["line"] for row in lines_of(done.out)[:2]] == [1, 2]
        assert farm.made == {f"Task {number}": 1 for number in range(4)}
        # What the second run made is as fixed as what the first one made.
        for text in ("Task 0\nTask 1\n", "Task 0\nTask 1\nTask 2\nOther\nTask 4\n"):
            (home / "t.txt").write_text(text)
            assert "belongs to a different input" in batch(farm).err
        write(home, 5)
        assert batch(farm).status == 0
        assert farm.made == {f"Task {number}": 1 for number in range(5)}


def test_added_lines_keep_the_others_in_their_shards(
    batch: Callable[..., Done], home: Path
) -> None:
    with Farm() as farm:
        for count in (3, 8):
            write(home, count)
            for number in (1, 2):
                assert batch(farm, "--shard", f"{number}/2").status == 0
        assert farm.made == {f"Task {number}": 1 for number in range(8)}


@pytest.mark.parametrize("history", ["on", "off"])
@pytest.mark.parametrize("kept", ["run", "two lines"])
def test_an_older_copy_of_the_journal_creates_no_line_again(
    batch: Callable[..., Done], home: Path, history: str, kept: str
) -> None:
    """The history knows whose tasks they are, by the name of the journal."""
    write(home, 4)
    journal = home / "t.txt.journal"
    with Farm() as farm:
        assert batch(farm, env={"REBYTE_HISTORY": history}).status == 0
        records = journal.read_bytes().splitlines(keepends=True)
        count = 2 if kept == "run" else 6
        journal.write_bytes(b"".join(records[:count]))
        done = batch(farm, env={"REBYTE_HISTORY": history})
        assert done.status == 0, done.err
        assert "is an older copy, or was cut short: the history knows more of" in done.err
        assert sorted(row["id"] for row in lines_of(done.out)) == sorted(farm.tasks)
        assert farm.made == {f"Task {number}": 1 for number in range(4)}
        assert "older copy" not in batch(farm).err


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["run", "answered"])
def test_what_an_older_journal_may_have_sent_is_searched_for(
    batch: Callable[..., Done], home: Path, kept: str
) -> None:
    write(home, 3)
    journal = home / "t.txt.journal"
    with Farm() as farm:

        def hook(request: Request) -> Answer | None:
            if request.method != "POST" or request.json["prompt"] != "Task 2":
                return None
            eventually(lambda: journal.read_bytes().count(b'"created"') == 2)
            farm._make(request.json)
            return reset

        farm.hook, farm.silent = hook, True
        assert batch(farm, "--jobs", "1").status == 6
        records = journal.read_bytes().splitlines(keepends=True)
        older = [record for record in records if b'"line":3' not in record]
        journal.write_bytes(b"".join(records[:2] if kept == "run" else older))
        farm.silent, farm.hook = False, lambda _request: None
        done = batch(farm)
        assert done.status == 0, done.err
        assert farm.made == {f"Task {number}": 1 for number in range(3)}


def test_a_retried_line_is_not_taken_for_an_older_copy(
    batch: Callable[..., Done], home: Path
) -> None:
    (home / "t.txt").write_text("Task <fail>\n")
    with Farm() as farm:
        assert batch(farm).status == 10
        assert batch(farm, "--retry-failed").status == 10
        done = batch(farm)
        assert "older copy" not in done.err
        assert farm.made == {"Task <fail>": 2}


def test_a_journal_of_a_version_without_marks_is_taken_up(
    batch: Callable[..., Done], home: Path
) -> None:
    write(home, 2)
    with Farm() as farm:
        assert batch(farm).status == 0
        journal = home / "t.txt.journal"
        text = re.sub(r',"input":\{[^}]*\}', "", journal.read_text())
        journal.write_text(text)
        assert batch(farm).status == 0
        journal.write_text(text)
        write(home, 3)
        assert "belongs to a different input" in batch(farm).err
        assert farm.made == {"Task 0": 1, "Task 1": 1}


@pytest.mark.parametrize("how", ["link", "file"])
def test_a_link_to_a_file_is_the_same_batch(
    batch: Callable[..., Done], home: Path, how: str
) -> None:
    (home / "data").mkdir()
    (home / "data" / "real.txt").write_text("Task 0\nTask 1\n")
    (home / "t.txt").symlink_to("data/real.txt")
    with Farm() as farm:
        names = ["t.txt", "data/real.txt"] if how == "link" else ["data/real.txt", "t.txt"]
        for name in names:
            done = inside("batch", name, "--text", cwd=home, env=farm.env)
            assert done.status == 0
        assert farm.made == {"Task 0": 1, "Task 1": 1}
        assert (home / "data" / "real.txt.journal").exists()
        done = inside("batch", "t.txt", "--text", "--shard", "1/2", cwd=home, env=farm.env)
        assert "was started with another --shard" in done.err


def test_a_journal_that_was_begun_beside_a_link_stays_in_use(
    batch: Callable[..., Done], home: Path
) -> None:
    (home / "data").mkdir()
    (home / "data" / "real.txt").write_text("Task 0\nTask 1\n")
    (home / "t.txt").symlink_to("data/real.txt")
    with Farm() as farm:
        assert batch(farm, "--journal", "t.txt.journal").status == 0  # where it used to be
        assert batch(farm).status == 0
        assert farm.made == {"Task 0": 1, "Task 1": 1}


def test_other_options_are_no_other_batch(batch: Callable[..., Done], home: Path) -> None:
    write(home, 2)
    with Farm() as farm:
        batch(farm, "--jobs", "1")
        assert batch(farm, "--jobs", "4", "--rate", "5", "--no-wait").status == 0
        assert farm.made == {"Task 0": 1, "Task 1": 1}


def test_a_torn_journal_resumes_and_searches_for_what_it_lost(
    batch: Callable[..., Done], home: Path, one_clock: None
) -> None:
    write(home, 3)
    journal = home / "t.txt.journal"
    with Farm() as farm:
        batch(farm, "--jobs", "1")
        lines = journal.read_bytes().splitlines(keepends=True)
        torn = next(at for at, line in enumerate(lines) if b'"created"' in line)
        journal.write_bytes(b"".join(lines[:torn]) + lines[torn][:30])
        next(home.rglob("history.db")).unlink()  # what was torn off was never told to it
        done = batch(farm, "--resend-after", "0.1")
        assert done.status == 0
        assert "searching for 1 with unknown outcome" in done.err
        # Of the other two nothing was left: for the journal they were never begun.
        assert farm.made == {"Task 0": 1, "Task 1": 2, "Task 2": 2}


def test_a_resume_counts_what_still_runs(batch: Callable[..., Done], home: Path) -> None:
    """Or it looks as if nothing had been done."""
    write(home, 3)
    journal = home / "t.txt.journal"
    with Farm() as farm:
        batch(farm)
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(line for line in lines if b'"ended"' not in line))
        assert "0 of 3 lines are done, 3 running\n" in batch(farm).err
        assert "all 3 lines had ended before" in batch(farm).err


def test_a_task_that_only_the_history_knows_is_never_doubled(
    batch: Callable[..., Done], home: Path, one_clock: None
) -> None:
    """One that an earlier version kept without the name of its journal."""
    write(home, 1)
    journal = home / "t.txt.journal"
    history = home / ".local" / "state" / "rebyte" / "history.db"
    with Farm() as farm:
        batch(farm)
        with sqlite3.connect(history) as connection:
            connection.execute("UPDATE tasks SET line = NULL")
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:3]))  # up to its `sending`
        done = batch(farm, "--resend-after", "0.1", "--timeout", "60")
        assert done.status == 6
        assert "it could be task-00001" in lines_of(done.out)[0]["error"]["message"]
        assert farm.made == {"Task 0": 1}


def test_shards_run_each_line_once(batch: Callable[..., Done], home: Path) -> None:
    write(home, 7)
    with Farm() as farm:
        rows = []
        for number in (1, 2, 3):
            done = batch(farm, "--shard", f"{number}/3")
            assert done.status == 0
            rows += lines_of(done.out)
        assert sorted(row["line"] for row in rows) == [1, 2, 3, 4, 5, 6, 7]
        assert set(farm.made.values()) == {1}
        assert (home / "t.txt.2-of-3.journal").exists()
        for options in ([], ["--shard", "1/2"]):
            done = batch(farm, *options)
            assert done.status == 2
            assert "was started with another --shard: t.txt." in done.err
        assert batch(farm, "--shard", "4/3").status == 2
        assert batch(farm, "--shard", "0/3").status == 2
        assert sum(farm.made.values()) == 7


def test_status_makes_no_request_and_needs_no_key(batch: Callable[..., Done], home: Path) -> None:
    write(home, 2, "Task <fail>")
    with Farm() as farm:
        no_key = {"REBYTE_API_KEY": ""}
        before = batch(farm, "--status", env=no_key)
        assert [row["status"] for row in lines_of(before.out)] == ["pending", "pending"]
        assert "Nothing has run yet" in before.err
        assert not (home / "t.txt.journal").exists()
        batch(farm)
        calls = sum(farm.calls.values())
        done = batch(farm, "--status", "-o", "table", env=no_key)
        assert done.status == 0
        assert done.out.count("failed") >= 2
        assert done.err.splitlines()[-1] == "2 lines: 2 failed"
        assert sum(farm.calls.values()) == calls


@pytest.mark.slow
def test_a_full_disk_stops_new_creates_and_says_so(batch: Callable[..., Done], home: Path) -> None:
    write(home, 80)
    # `ulimit -f` counts blocks of 512 or 1024 bytes: some 8 to 16 records fit.
    script = f"ulimit -f 4; exec {' '.join(COMMAND)} batch t.txt --text --jobs 4"
    with Farm(delay=0.02) as farm:
        environment = {**os.environ, **farm.env, "REBYTE_CONFIG_DIR": str(home / "c")}
        done = subprocess.run(
            ["sh", "-c", script], cwd=home, env=environment, capture_output=True, check=False
        )
        assert done.returncode not in (0, 2)
        assert b"cannot write the journal t.txt.journal: File too large" in done.stderr
        assert 0 < sum(farm.made.values()) < 60
        told = {row["id"] for row in lines_of(done.stdout.decode()) if row["id"]}
        again = batch(farm, "--resend-after", "0.1", env={"REBYTE_CONFIG_DIR": str(home / "c")})
        assert again.status == 0, again.err
        rows = lines_of(again.out)
        assert told <= {row["id"] for row in rows}
        assert set(farm.made.values()) == {1}
        assert len(farm.made) == 80


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limits of other systems differ")
@pytest.mark.parametrize(
    ("limit", "lack"),
    [
        ("ulimit -n 256", "open files (ulimit -n)"),
        ("ulimit -n 64", "open files (ulimit -n)"),
        ("ulimit -v 700000", "memory (ulimit -v)"),
    ],
)
def test_more_jobs_than_the_system_allows(home: Path, limit: str, lack: str) -> None:
    """Each create takes a connection and a thread; too many of them failed at a late import."""
    count = 300 if limit.endswith(" 256") else 20
    write(home, count)
    script = f"{limit}; exec {' '.join(COMMAND)} batch t.txt --text --jobs 256"
    with Farm(delay=0.05) as farm:
        environment = {**os.environ, **farm.env}
        done = subprocess.run(
            ["sh", "-c", script], cwd=home, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert f"jobs instead of 256, for lack of {lack}" in done.stderr.decode()
        rows = lines_of(done.stdout.decode())
        assert [row["status"] for row in rows] == ["completed"] * count
        assert set(farm.made.values()) == {1}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limits of other systems differ")
def test_the_service_in_the_same_process_shares_its_limits(home: Path) -> None:
    write(home, 200, "Task [[run=1ms]]")
    script = f"ulimit -n 256; exec {' '.join(COMMAND)} -P local batch t.txt --text --jobs 256"
    done = subprocess.run(["sh", "-c", script], cwd=home, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rows = lines_of(done.stdout.decode())
    assert [row["status"] for row in rows] == ["completed"] * 200


def test_results_go_to_a_file_that_only_the_run_with_the_journal_replaces(
    batch: Callable[..., Done], home: Path
) -> None:
    write(home, 3, "Task <fail>")
    results = home / "r.jsonl"
    with Farm() as farm:
        done = batch(farm, "--results", "r.jsonl")
        assert (done.status, done.out) == (10, "")
        assert done.err.count("task_failed") == 3
        rows = lines_of(results.read_text())
        assert sorted(row["line"] for row in rows) == [1, 2, 3]
        holding = Journal(home / "held", {}, run={})
        second = batch(farm, "--results", "r.jsonl", "--journal", "held")
        holding.close()
        assert (second.status, "another run is using the journal held" in second.err) == (1, True)
        assert lines_of(results.read_text()) == rows
        again = batch(farm, "--results", "r.jsonl", "--fields", "line,status")
        assert again.status == 10
        assert sorted(results.read_text().splitlines())[0] == '{"line":1,"status":"failed"}'


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--results", "absent/r"], "--results absent/r: cannot be written: No such file"),
        (["--results", "."], "--results .: not a file"),
        (["--results", "t.txt"], "--results t.txt: would overwrite t.txt"),
        (["--results", "r", "--status"], "--results cannot be used with --status or --dry-run"),
        (["--results", "r.md", "--report", "r.md"], "--report and --results name the same file"),
    ],
)
def test_results_that_cannot_be_written_are_refused(
    batch: Callable[..., Done], home: Path, options: list[str], says: str
) -> None:
    write(home, 1)
    with Farm() as farm:
        done = batch(farm, *options)
        assert (done.status, says in done.err) == (2, True)
        assert not farm.calls
    assert (home / "t.txt").read_text() == "Task 0\n"


def test_results_that_cannot_be_written_any_more_do_not_end_the_batch(
    batch: Callable[..., Done], home: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    write(home, 2)
    with Farm() as farm:
        done = batch(farm, "--results", "/dev/full")
        assert farm.made == {"Task 0": 1, "Task 1": 1}
    assert (done.status, "cannot write /dev/full: No space left" in done.err) == (1, True)


def test_a_journal_that_cannot_be_made_costs_nothing(
    batch: Callable[..., Done], home: Path
) -> None:
    write(home, 1)
    with Farm() as farm:
        done = batch(farm, "--journal", "absent/j")
        assert done.status == 2
        assert "cannot write the journal absent/j" in done.err
        assert not farm.calls


def test_an_empty_file_is_nothing_to_do(batch: Callable[..., Done], home: Path) -> None:
    (home / "t.txt").write_text("\n\n")
    with Farm() as farm:
        done = batch(farm)
        assert (done.status, done.out) == (0, "")
        assert "no lines" in done.err
        assert not farm.calls


@pytest.mark.slow
def test_the_history_never_knows_more_than_the_journal(home: Path) -> None:
    """Killed right after a create: what the history has, the journal has, so nothing is doubled."""
    import sqlite3

    def known() -> set[str]:
        """The tasks in the history."""
        for database in home.rglob("history.db"):
            with suppress(sqlite3.OperationalError), sqlite3.connect(database) as connection:
                return {row[0] for row in connection.execute("SELECT id FROM tasks")}
        return set()

    write(home, 1000)
    with Farm(delay=0.05) as farm:
        command = [*COMMAND, "batch", "t.txt", "--text", "--jobs", "4"]
        with subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, **farm.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            eventually(lambda: farm.made.total() >= 50 and known())
            process.kill()
        records = [json.loads(line) for line in (home / "t.txt.journal").read_text().splitlines()]
        assert known() <= {record.get("id") for record in records}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-m", "new", "-w", "ws-1"), "model"),
        (("-m", "old"), "workspaceId"),
        (("-m", "old", "-w", "ws-1", "--check", "true", "--base", "HEAD"), "check"),
    ],
)
def test_other_options_than_those_that_lines_were_sent_with_are_refused(
    batch: Callable[..., Done], home: Path, words: tuple[str, ...], named: str
) -> None:
    """Such as `-w @last` or `-g .`, which may mean another thing by then."""
    if named == "check":
        need_jail()
    (home / "t.txt").write_text("first\n<400> second\nthird\n")
    with Farm() as farm:
        begun = batch(farm, "--jobs", "1", "--fail-fast", "-m", "old", "-w", "ws-1")
        assert [row["status"] for row in begun.documents] == ["completed", "refused", "pending"]
        other = batch(farm, *words)
        assert other.status == 2
        assert f"lines were sent with another {named} by an earlier run" in other.err
        assert "--fresh" in other.err
        assert batch(farm, "-m", "old", "-w", "ws-1", "--jobs", "2").status == 1
        assert farm.made == {"first": 1, "third": 1}


def test_options_may_differ_as_long_as_no_line_has_a_task(
    batch: Callable[..., Done], home: Path
) -> None:
    (home / "t.txt").write_text("<400> first\nsecond\n")
    with Farm() as farm:
        batch(farm, "--jobs", "1", "--fail-fast", "-m", "old", "-w", "ws-1")
        batch(farm, "-m", "new", "-w", "ws-1")
        assert farm.bodies[-1]["model"] == "new"


@pytest.mark.parametrize("words", [(), ("-q",)])
def test_a_batch_that_has_nothing_to_do_says_so(
    batch: Callable[..., Done], home: Path, words: tuple[str, ...]
) -> None:
    write(home, 2)
    with Farm() as farm:
        assert "nothing to run" not in batch(farm).err
        again = batch(farm, *words)
        assert again.status == 0
        assert re.search(
            r"nothing to run: all 2 lines had ended before, the last \d+s ago;"
            " --fresh runs every line again",
            again.err,
        )
        assert [row["status"] for row in again.documents] == ["completed"] * 2


def test_fresh_runs_every_line_again_and_keeps_the_journal(
    batch: Callable[..., Done], home: Path
) -> None:
    write(home, 2)
    with Farm() as farm:
        assert batch(farm, "--fresh").status == 0  # there is no journal yet
        first = (home / "t.txt.journal").read_bytes()
        for number in (1, 2):
            assert batch(farm, "--fresh", "-m", f"other {number}").status == 0
            assert set(farm.made.values()) == {1 + number}
        assert (home / "t.txt.journal.1").read_bytes() == first
        assert (home / "t.txt.journal.2").exists()
        assert batch(farm, "--fresh", "--status").status == 2


def test_fresh_is_refused_while_a_line_has_not_ended(
    batch: Callable[..., Done], home: Path
) -> None:
    """Whoever repeats an interrupted command with --fresh would create every line again."""
    (home / "t.txt").write_text("first\n<400> second\nthird\n")
    with Farm() as farm:
        batch(farm, "--jobs", "1", "--fail-fast", "-w", "ws-1")
        done = batch(farm, "--fresh", "-w", "ws-1")
        assert (done.status, farm.made["first"]) == (2, 1)
        assert "--fresh: 1 of 3 lines of the last run have not ended" in done.err
        assert not (home / "t.txt.journal.1").exists()


def test_after_failures_the_summary_names_the_way_to_repeat_them(
    batch: Callable[..., Done], home: Path
) -> None:
    (home / "t.txt").write_text("<fail> first\nsecond\n")
    with Farm() as farm:
        assert "--retry-failed creates a new task" in batch(farm).err


@pytest.mark.parametrize("history", ["on", "off"])
def test_a_journal_that_was_emptied_is_refused(home: Path, history: str) -> None:
    """Emptied under a run that is then killed: the next one would send every line again."""
    (home / "t.txt").write_text("One\nTwo\n")
    journal = home / "t.txt.journal"
    with Farm(run=60.0) as farm:
        words = [*COMMAND, "batch", "t.txt", "--text"]
        env = {**farm.env, "REBYTE_HISTORY": history}
        with subprocess.Popen(words, cwd=home, env={**os.environ, **env}) as process:
            eventually(lambda: journal.exists() and journal.read_text().count('"created"') == 2)
            os.truncate(journal, 0)
            process.kill()
        done = inside("batch", "t.txt", "--text", cwd=home, env=env)
        assert done.status == 2
        assert "t.txt.journal is empty or damaged, but line 1 was sent before" in done.err
        assert farm.made == {"One": 1, "Two": 1}
        journal.unlink()
        again = inside("batch", "t.txt", "--text", "--no-wait", cwd=home, env=env)
        assert again.status == 0
        assert farm.made == {"One": 2, "Two": 2}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda data: bytes(len(data)),
    "torn header": lambda data: data[:30],
    "header": lambda data: b"".join(data.splitlines(keepends=True)[:1]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_journal_that_lost_its_lines_is_refused_and_left_as_it_is(
    batch: Callable[..., Done], home: Path, damage: str
) -> None:
    write(home, 2)
    journal = home / "t.txt.journal"
    with Farm() as farm:
        assert batch(farm).status == 0
        left = DAMAGE[damage](journal.read_bytes())
        journal.write_bytes(left)
        done = batch(farm)
        assert done.status == 2
        assert "t.txt.journal is empty or damaged, but line 1 was sent before" in done.err
        assert farm.made == {"Task 0": 1, "Task 1": 1}
    assert journal.read_bytes() == left


def test_an_empty_file_as_journal_of_new_lines_is_used(home: Path) -> None:
    (home / "t.txt").write_text("One\n")
    (home / "new").touch()
    with Farm() as farm:
        done = inside("batch", "t.txt", "--text", "--journal", "new", cwd=home, env=farm.env)
    assert done.status == 0


# kill -9 at random moments: every line still creates exactly one task

# One run by default; REBYTE_TEST_KILLS=20 runs them all.
RUNS = int(os.environ.get("REBYTE_TEST_KILLS", "1"))
LINES = 200 if RUNS > 1 else 60
KILLS = 3


@pytest.mark.slow
@pytest.mark.parametrize("run", range(RUNS))
def test_case_50_kill_9_and_run_again_until_done(run: int, home: Path) -> None:
    file = home / "tasks.jsonl"
    file.write_text("".join(f'{{"prompt": "Task {n}", "key": "k{n}"}}\n' for n in range(LINES)))
    luck = random.Random(run)
    words = ["batch", str(file), "--jobs", "8", "--resend-after", "1s"]
    # The farm has a task at once or never, so a second is long enough to know that there is none.
    again = [*paced_command(Pace(look_for=1.0)), *words]
    with Farm(delay=0.05, cuts=0.02, run=0.3) as farm:
        environment = {**os.environ, **farm.env}
        for _ in range(KILLS):
            before = sum(farm.made.values())
            with subprocess.Popen(
                again, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                # At any moment from the first import to some way into the work.
                time.sleep(luck.uniform(0.05, 1.2) if luck.random() < 0.7 else 0.0)
                process.kill()
            assert before <= sum(farm.made.values()) <= LINES
        for _ in range(8):  # a lost create may need another run
            done = subprocess.run(again, env=environment, capture_output=True, check=False)
            if done.returncode != 6:
                break
        assert done.returncode == 0, done.stderr.decode()
        rows = lines_of(done.stdout.decode())
        assert sorted(row["key"] for row in rows) == sorted(f"k{n}" for n in range(LINES))
        assert {row["status"] for row in rows} == {"completed"}
        assert len({row["id"] for row in rows}) == LINES
        for row in rows:  # each line has its own task, not that of another
            assert farm.tasks[row["id"]]["prompt"] == f"Task {row['key'][1:]}"
        assert dict(farm.made) == {f"Task {n}": 1 for n in range(LINES)}
        journal = (home / "tasks.jsonl.journal").read_text()
        assert all(json.loads(line) for line in journal.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("answered", [0, 1, 12])
@pytest.mark.parametrize("kept", [0.25, 0.5, 0.75])
def test_a_journal_that_was_cut_early_in_a_run_doubles_nothing(
    home: Path, kept: float, answered: int
) -> None:
    """What the killed run had answered, and what it had sent, is in the history as well."""
    file, journal = home / "tasks.jsonl", home / "tasks.jsonl.journal"
    file.write_text("".join(f'{{"prompt": "Task {n}"}}\n' for n in range(20)))
    words = [*paced_command(Pace(look_for=0.5)), "batch", str(file), "--timeout", "20"]
    with Farm(run=60.0) as farm:
        # The others get no answer before the kill.
        farm.until = lambda: len(farm.tasks) <= answered
        with subprocess.Popen(
            words,
            env={**os.environ, **farm.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            eventually(lambda: len(farm.tasks) >= answered + 8 * (answered < 12))
            process.kill()
        farm.until = lambda: True
        records = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(records[: max(1, int(len(records) * kept))]))
        made = dict(farm.made)
        done = subprocess.run(
            words, env={**os.environ, **farm.env}, capture_output=True, check=False
        )
        text = done.stderr.decode()
        assert "is an older copy, or was cut short" in text
        assert {prompt for prompt, count in farm.made.items() if count > 1} == set(), text
        assert farm.made.keys() >= made.keys()


@pytest.mark.slow
def test_the_first_task_of_a_local_service_is_found_after_a_kill(
    inside_local: Callable[..., Done], home: Path
) -> None:
    """Nothing was answered yet that shows how prompts are shown; but this service is ours."""
    file, journal = home / "t.jsonl", home / "t.jsonl.journal"
    words = ["-P", "local", "batch", str(file)]
    file.write_text('{"prompt": "Task 1 [[slow-create=1h]]"}\n')
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        rows = lambda: inside_local("-P", "local", "list", "-o", "id").out.split()  # noqa: E731
        eventually(lambda: len(rows()) == 1)
        process.kill()
    (first,) = rows()
    inside_local("-P", "local", "cancel", first)
    # As if the other lines had been sent at the same moment, and made nothing. A service that
    # leaves out the middle of prompts could show them as it shows the first.
    (sent,) = (line for line in journal.read_text().splitlines() if '"sending"' in line)
    with file.open("a") as lines, journal.open("a") as records:
        for number in (2, 3):
            prompt = f"Task 1{number} [[slow-create=1s]], not 1 [[slow-create=1h]]"
            lines.write(f'{{"prompt": "{prompt}"}}\n')
            records.write(sent.strip().replace('"line":1', f'"line":{number}') + "\n")
    done = inside_local(*words)
    found = {row["line"]: row for row in lines_of(done.out)}
    assert (found[1]["id"], found[1]["status"]) == (first, "canceled"), done
    assert (found[2]["status"], found[3]["status"], done.status) == ("completed",) * 2 + (11,)
    assert len({row["id"] for row in found.values()}) == len(rows()) == 3
