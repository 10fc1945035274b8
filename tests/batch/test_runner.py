"""What a batch does with each line: the order, lines with a past, limits, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch import journal as journal_module
from rebyte_cli.batch import runner
from rebyte_cli.batch.journal import Journal, JournalFailed
from rebyte_cli.history.intents import Intents
from rebyte_cli.output import progress
from tests.conftest import COMMAND, IN_BACKGROUND, Done
from tests.farm import Farm, lines_of, stamp, statuses
from tests.inside import inside
from tests.servers import Answer, Line, Request, closed_port, error_reply, json_reply, reset
from tests.waiting import eventually

Batch = Callable[..., Done]


@pytest.fixture
def batch(home: Path) -> Batch:
    def run(farm: Farm, lines: list[str] | None, *options: str) -> Done:
        if lines is not None:
            (home / "t.txt").write_text("".join(f"{line}\n" for line in lines))
        return inside("batch", "t.txt", "--text", *options, cwd=home, env=farm.env)

    return run


def printed(stream: Any) -> str:
    """What the command has printed so far, to the streams of Click's test runner."""
    stream.flush()
    return str(stream.buffer.getvalue().decode())


def test_a_line_that_fails_keeps_no_other_from_being_created(batch: Batch) -> None:
    with Farm() as farm:
        done = batch(farm, ["One <400>", "Two <fail>", "Three"], "--jobs", "1")
    assert statuses(done) == ["refused", "failed", "completed"]


def test_no_wait_prints_a_row_once_its_task_is_created(batch: Batch) -> None:
    def hook(request: Request) -> None:
        if len(farm.tasks) == 1 and request.method == "POST":
            eventually(lambda: '"line":1' in printed(sys.stdout))
            came.append(request.json["prompt"])

    came: list[str] = []
    with Farm(run=60, hook=hook) as farm:
        done = batch(farm, ["One", "Two"], "--no-wait", "--jobs", "1")
    assert came == ["Two"]
    assert statuses(done) == ["running", "running"]


def refuses(reads_of: str, *, after: str) -> Callable[[Request], Answer | None]:
    """Refuse reads of a task once another one was read: that ends the batch at a known point."""
    read: set[str] = set()

    def hook(request: Request) -> Answer | None:
        name = request.path.rpartition("/")[2]
        if request.method == "GET":
            if name == reads_of and after in read:
                return error_reply(401, "invalid_api_key", "No")
            read.add(name)
        return None

    return hook


def test_a_follower_that_runs_already_is_not_made_again(batch: Batch) -> None:
    with Farm(hook=refuses("task-00002", after="task-00002")) as farm:
        lines = ["One", "Two <run 60>", "Three"]
        first = batch(farm, lines, "-w", "ws-7")
        farm.hook = lambda _request: None
        assert statuses(first) == ["completed", "running", "pending"]
        farm.tasks["task-00002"]["ends"] = 0.0
        assert statuses(batch(farm, None, "-w", "ws-7")) == ["completed"] * 3
        assert list(farm.made.values()) == [1, 1, 1]


def test_the_rate_of_a_resumed_batch_is_that_of_its_own_lines(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that ended before it looked, and failed lines that it repeats, say nothing of it."""
    boards: list[Any] = []

    @contextmanager
    def board(_console: Any, standing: Callable[[int], Any], **_: Any) -> Iterator[None]:
        boards.append(standing)
        yield

    monkeypatch.setattr(progress, "batch_board", board)
    with Farm(run=60) as farm:
        batch(farm, ["One", "Two", "Three <400>"], "--no-wait")
        for task in farm.tasks.values():
            task["ends"] = 0.0
        batch(farm, ["One", "Two", "Three <400>", "Four <run 0>"], "--retry-failed")
    now = boards[-1](0)
    assert (now.total, now.ended, now.ended_here) == (4, 4, 2)


def test_retrying_what_failed_leaves_alone_what_runs(batch: Batch) -> None:
    with Farm(hook=refuses("task-00001", after="task-00002")) as farm:
        batch(farm, ["One <run 60>", "Two <fail>"], "--jobs", "1")
        farm.hook = refuses("task-00001", after="task-00003")
        done = batch(farm, None, "--retry-failed")
    assert statuses(done) == ["running", "failed"]
    assert farm.made == {"One <run 60>": 1, "Two <fail>": 2}


def test_retried_after_a_fault_it_is_sent_once_a_task_can_no_longer_appear(
    batch: Batch, one_clock: None
) -> None:
    with Farm() as farm:
        assert batch(farm, ["One <500>"]).status == 5
        tried = farm.tried["One <500>"]
        done = batch(farm, None, "--retry-failed", "--timeout", "60")
        assert (done.status, statuses(done)) == (6, ["unknown"]), "it may be listed late"
        assert farm.tried["One <500>"] == tried
        done = batch(farm, None, "--retry-failed", "--resend-after", "0.1", "--timeout", "60")
        assert farm.tried["One <500>"] > tried
        assert "no task was created; sending it again" in done.err
    assert statuses(done) == ["refused"]


@pytest.mark.slow
def test_a_line_costs_one_request_and_one_more_to_see_its_end(batch: Batch) -> None:
    with Farm() as farm:
        lines = [f"Task {number}" for number in range(200)]
        done = batch(farm, lines, "--no-wait", "--jobs", "16")
        assert (done.status, dict(farm.calls)) == (0, {"GET list": 1, "POST 2": 200})
        farm.calls.clear()
        assert batch(farm, None).status == 0
        assert farm.calls["GET 3"] == 200
        assert farm.calls.total() < 220


def test_retried_after_a_fault_it_is_unknown_until_it_is_found(batch: Batch) -> None:
    with Farm() as farm:
        batch(farm, ["One <500>"])
        done = batch(farm, None, "--retry-failed", "--timeout", "0.3")
    assert (done.status, statuses(done)) == (6, ["unknown"])


def test_the_task_that_failed_is_not_taken_for_the_next_one(
    batch: Batch, home: Path, one_clock: None
) -> None:
    """Not even where the history is gone, and the clock of the service is behind."""
    prompt = "One <fail>"

    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and farm.made and not lost:
            lost.append(request.json)
            return reset
        return None

    lost: list[Any] = []
    with Farm(hook=hook) as farm:
        assert batch(farm, [prompt]).status == 10
        next(home.rglob("history.db")).unlink()
        farm.tasks["task-00001"]["createdAt"] = stamp(time.time() + 0.05)
        done = batch(farm, None, "--retry-failed", "--resend-after", "0.1")
        assert lost
        assert farm.made == {prompt: 2}
    assert lines_of(done.out)[0]["id"] == "task-00002"


# Lines that share a workspace, follow one another, or bring files.


def test_one_workspace_for_all_runs_one_after_another(batch_of: Callable[..., Done]) -> None:
    with Farm(run=0.05) as farm:
        done = batch_of(farm, [{"prompt": f"Step {n}"} for n in range(3)], "-w", "ws-7")
        assert done.status == 0
        assert [body["prompt"] for body in farm.bodies] == ["Step 0", "Step 1", "Step 2"]
        assert {body["workspaceId"] for body in farm.bodies} == {"ws-7"}
        tasks = list(farm.tasks.values())
        for first, second in pairwise(tasks):
            assert first["ends"] <= second["ends"] - farm.run + 0.001
        assert farm.most_under_way == 1


def test_a_line_follows_another_into_its_workspace(batch_of: Callable[..., Done]) -> None:
    lines = [
        {"prompt": "Test", "key": "test", "workspaceId": "@build"},
        {"prompt": "Build", "key": "build"},
        {"prompt": "Else"},
    ]
    with Farm() as farm:
        done = batch_of(farm, lines)
        assert done.status == 0
        rows = {row["key"]: row for row in lines_of(done.out)}
        assert rows["test"]["workspaceId"] == rows["build"]["workspaceId"]
        bodies = {body["prompt"]: body for body in farm.bodies}
        assert bodies["Test"]["workspaceId"] == rows["build"]["workspaceId"]
        assert "workspaceId" not in bodies["Build"]
        order = [body["prompt"] for body in farm.bodies]
        assert order.index("Build") < order.index("Test")


def test_those_who_follow_a_failed_line_are_skipped_and_say_why(
    batch_of: Callable[..., Done],
) -> None:
    lines = [
        {"prompt": "Build <fail>", "key": "build"},
        {"prompt": "Test", "key": "test", "workspaceId": "@build"},
        {"prompt": "Ship", "key": "ship", "workspaceId": "@test"},
    ]
    with Farm() as farm:
        done = batch_of(farm, lines)
        assert done.status == 10
        rows = {row["key"]: row for row in lines_of(done.out)}
        assert [rows[key]["status"] for key in ("build", "test", "ship")] == [
            "failed",
            "skipped",
            "skipped",
        ]
        assert rows["test"]["error"]["message"] == (
            "not created: line 1 (build), which it follows, ended as failed"
        )
        assert rows["ship"]["error"]["message"].endswith("which it follows, was skipped")
        assert farm.made == {"Build <fail>": 1}
        again = batch_of(farm, None)
        assert lines_of(again.out) == lines_of(done.out)


def test_a_chain_continues_in_the_next_run(batch_of: Callable[..., Done]) -> None:
    lines = [
        {"prompt": "Build <run 60>", "key": "build"},
        {"prompt": "Test", "key": "test", "workspaceId": "@build"},
    ]
    with Farm(hook=refuses("task-00001", after="task-00001")) as farm:
        done = batch_of(farm, lines)
        assert done.status == 3
        statuses = {row["key"]: row["status"] for row in lines_of(done.out)}
        assert statuses == {"build": "running", "test": "pending"}
        farm.hook = lambda _request: None
        farm.tasks["task-00001"]["ends"] = 0.0
        done = batch_of(farm, None, "--no-wait")
        statuses = {row["key"]: row["status"] for row in lines_of(done.out)}
        # The last one is not waited for; the first had to be.
        assert statuses == {"build": "completed", "test": "running"}
        assert farm.bodies[1]["workspaceId"] == "ws-00001"


def test_a_circle_stops_it_before_anything_is_sent(batch_of: Callable[..., Done]) -> None:
    lines = [
        {"prompt": "a", "key": "a", "workspaceId": "@b"},
        {"prompt": "b", "key": "b", "workspaceId": "@a"},
    ]
    with Farm() as farm:
        done = batch_of(farm, lines)
        assert done.status == 2
        assert "line 1: workspaceId: goes in a circle: a → b → a" in done.err
        assert not farm.calls


def test_files_go_up_before_the_task_and_a_shared_one_once(service: Any, home: Path) -> None:
    (home / "shared.txt").write_text("for all")
    (home / "own.txt").write_text("for one")
    lines = [
        {"prompt": "One [[run=1ms]]"},
        {"prompt": "Two [[run=1ms]]"},
        {"prompt": "Three [[run=1ms]]", "files": ["own.txt"]},
    ]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = inside("batch", "t.jsonl", "-f", "shared.txt", "-v", cwd=home)
    assert done.status == 0, done.err
    assert done.err.count("POST /files") == 2
    answers = [inside("result", row["id"], cwd=home).out for row in lines_of(done.out)]
    assert sum("shared" in answer for answer in answers) == 2
    assert sum("own" in answer for answer in answers) == 1


def test_a_rate_is_kept_over_all_workers(batch_of: Callable[..., Done]) -> None:
    with Farm() as farm:
        lines = [{"prompt": f"n {number}"} for number in range(8)]
        begun = time.monotonic()
        assert batch_of(farm, lines, "--rate", "20", "--no-wait").status == 0
        # Seven pauses of a twentieth of a second; how they lie is tested on the gate itself.
        assert time.monotonic() - begun >= 0.35


def test_jobs_bound_the_creates_under_way(batch_of: Callable[..., Done]) -> None:
    with Farm(delay=0.1, until=lambda: farm.most_under_way >= 3) as farm:
        batch_of(
            farm, [{"prompt": f"n {number}"} for number in range(12)], "--jobs", "3", "--no-wait"
        )
        assert farm.most_under_way == 3


def test_a_429_of_one_create_slows_all_of_them(batch_of: Callable[..., Done]) -> None:
    # The answer to the first asks for a pause of one second: no line may be created during it.
    lines = [{"prompt": "<429>"}, *({"prompt": f"n {number}"} for number in range(8))]
    came: list[tuple[str, float]] = []

    def hook(request: Request) -> None:
        if request.method == "POST":
            came.append((request.json["prompt"], time.monotonic()))

    with Farm(delay=0.1, hook=hook) as farm:
        done = batch_of(farm, lines, "--jobs", "2", "--no-wait")
        assert done.status == 0
        assert farm.tried["<429>"] == 2
        assert set(farm.made.values()) == {1}
        refused = dict(reversed(came))["<429>"]
        meanwhile = [prompt for prompt, at in came if 0 < at - refused < 0.9]
        assert len(meanwhile) <= 1, "the one that was on its way"


def test_a_service_that_is_not_available_gets_one_create_at_a_time(batch_of: Any) -> None:
    """A 503 leaves the outcome unknown, so as few lines as can be are spent on it."""
    sent: list[float] = []

    def busy(line: Line) -> None:
        eventually(lambda: len(sent) >= 4)
        line.send(json_reply({"error": {"message": "Busy"}}, 503, {"Retry-After": "3"}))

    def refuse(line: Line) -> None:
        line.wait(0.5)  # time for others
        line.send(error_reply(401, "invalid_api_key", "No"))

    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        sent.append(time.monotonic())
        return busy if len(sent) <= 4 else refuse

    lines = [{"prompt": f"n {number}"} for number in range(60)]
    with Farm(hook=hook) as farm:
        done = batch_of(farm, lines, "--jobs", "4")
    assert len(sent) == 5, "the first four, and one that tried again"
    assert sent[4] - sent[3] >= 2.9
    rows = [row["status"] for row in lines_of(done.out)]
    assert (rows.count("unknown"), rows.count("pending")) == (4, 56)
    assert "The service is not available (503): pausing creates for 3 s" in done.err


# Signals.


def test_a_signal_that_another_thread_takes_is_heard(home: Path) -> None:
    """Of two that come at one moment the system may hand both to a thread that only works."""
    (home / "t.txt").write_text("Task <run 60>\n")
    sent: list[str] = []

    def hook(request: Request) -> None:
        quiet = farm.at and time.monotonic() - farm.at[0] > 0.6  # nothing but looks at the task
        if quiet and not sent:
            sent.append(request.path)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    with Farm(hook=hook) as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
    assert sent
    assert done.status == 130
    assert [row["status"] for row in lines_of(done.out)] == ["running"]


def test_afterwards_signals_are_whose_they_were_before(home: Path) -> None:
    (home / "t.txt").write_text("Task\n")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Farm() as farm:
        assert inside("batch", "t.txt", "--text", cwd=home, env=farm.env).status == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# Stopping: Ctrl-C, SIGTERM, a lost network, a closed pipe

PROMPTS = [f"Task {number}" for number in range(40)]


@contextmanager
def started(
    home: Path, farm: Farm, *options: str, by: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    (home / "t.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    with subprocess.Popen(
        [*by, *COMMAND, "batch", "t.txt", "--text", "--jobs", "2", *options],
        cwd=home,
        env={**os.environ, **farm.env},
        stdout=subprocess.PIPE,
        stderr=(home / "told").open("wb"),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(home: Path) -> str:
    """What a batch that was `started` has printed to stderr so far."""
    return (home / "told").read_text()


def finish(home: Path, farm: Farm) -> None:
    """Run it again to its end: each line has one task."""
    farm.until = lambda: True
    done = inside("batch", "t.txt", "--text", "--resend-after", "0.1", cwd=home, env=farm.env)
    assert done.status == 0, done.err
    assert sorted(row["line"] for row in lines_of(done.out)) == list(range(1, 41))
    assert dict(farm.made) == dict.fromkeys(PROMPTS, 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_waits_for_creates_under_way_and_says_how_to_go_on(
    home: Path, number: signal.Signals, status: int
) -> None:
    is_told: list[bool] = []
    with Farm(until=lambda: farm.made.total() < 3 or is_told) as farm:
        with started(home, farm) as process:
            eventually(lambda: farm.under_way == 2 and farm.made.total() >= 3)
            process.send_signal(number)
            eventually(lambda: "Stopping: waiting for 2 creates under way" in told(home))
            is_told.append(True)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == status
        made = farm.made.total()
        assert made <= 4
        rows = lines_of(out.decode())
        assert len([row for row in rows if row["id"]]) == made
        assert len(rows) == 40
        assert "Resume with `rebyte batch t.txt --text --jobs 2`" in told(home)
        finish(home, farm)


def test_ctrl_c_is_ignored_where_the_shell_has_it_ignored(home: Path) -> None:
    """As `rebyte batch FILE &` does in a script: Ctrl-C is for what runs in the foreground."""
    is_told: list[bool] = []
    with Farm(until=lambda: farm.made.total() < 3 or is_told) as farm:
        with started(home, farm, by=IN_BACKGROUND) as process:
            eventually(lambda: farm.under_way == 2 and farm.made.total() >= 3)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            is_told.append(True)
            process.communicate(timeout=60)
        assert (process.returncode, "Stopping" in told(home)) == (0, False)
        assert dict(farm.made) == dict.fromkeys(PROMPTS, 1)


def test_a_second_signal_leaves_at_once_and_nothing_is_lost(home: Path) -> None:
    with Farm(until=lambda: False) as farm:
        with started(home, farm) as process:
            eventually(lambda: farm.made.total() >= 2)
            process.send_signal(signal.SIGINT)
            eventually(lambda: "Stopping" in told(home))
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=runner.GRACE[signal.SIGINT] * 2 / 3)
        assert process.returncode == 130
        finish(home, farm)


def test_a_second_signal_is_heard_wherever_it_comes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs while the history is written, which survives its own faults."""
    (home / "t.txt").write_text("One\nTwo\n")

    def twice(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    def hook(request: Request) -> Answer | None:
        is_second = request.method == "POST" and request.json["prompt"] == "Two"
        return (lambda line: line.wait(60)) if is_second else None

    monkeypatch.setattr(Intents, "release", twice)
    with Farm(hook=hook) as farm:
        begun = time.monotonic()
        done = inside("batch", "t.txt", "--text", "--jobs", "2", cwd=home, env=farm.env)
        assert done.status == 130
        assert time.monotonic() - begun < runner.GRACE[signal.SIGINT] * 2 / 3


def test_a_create_that_outlasts_the_patience_of_a_stop_is_called_unknown(home: Path) -> None:
    """Not pending: it was sent, and may have made its task."""
    (home / "t.txt").write_text("One\nTwo\n")

    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        os.kill(os.getpid(), signal.SIGTERM)  # whose patience is the shortest
        return lambda line: line.wait(60)

    with Farm(hook=hook) as farm:
        done = inside("batch", "t.txt", "--text", "--jobs", "1", cwd=home, env=farm.env)
        assert done.status == 143
        assert [row["status"] for row in lines_of(done.out)] == ["unknown", "pending"]
        assert "Stopping: waiting for 1 create under way; a second Ctrl-C exits at once" in done.err


def test_a_batch_resumes_after_a_network_outage(
    home: Path, one_clock: None, quick_retries: None
) -> None:
    (home / "t.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))

    lost: set[str] = set()

    def hook(request: Request) -> Answer | None:
        """Gone from the fourth task on, until the pause has been told.

        Then nothing new is created before the fate of what was lost is clear: where scans take
        long, the list must not change more than it does in theirs.
        """
        if len(farm.tasks) >= 4 and "Paused: " not in printed(sys.stderr):
            if request.method == "POST":
                lost.add(request.json["prompt"])
            return reset
        if request.method == "POST" and lost and request.json["prompt"] not in lost:
            return lambda line: after_the_lost(line, request)
        return None

    def after_the_lost(line: Line, request: Request) -> None:
        eventually(lambda: printed(sys.stderr).count("sending it again") >= len(lost))
        create = farm._create(request.json)
        assert callable(create)
        create(line)

    with Farm(delay=0.05, hook=hook) as farm:
        command = ("batch", "t.txt", "--text", "--jobs", "2", "--resend-after", "0.1")
        done = inside(*command, cwd=home, env=farm.env)
        assert done.status == 0, done.err
        assert done.err.index("Paused: ") < done.err.index("The network is back")
        assert len(lines_of(done.out)) == 40
        assert dict(farm.made) == dict.fromkeys(PROMPTS, 1)


def test_a_service_that_was_never_there_ends_it(home: Path, quick_retries: None) -> None:
    (home / "t.txt").write_text("One\nTwo\n")
    env = {"REBYTE_API_URL": f"http://127.0.0.1:{closed_port()}/v1", "REBYTE_API_KEY": "rbk_x"}
    done = inside("batch", "t.txt", "--text", cwd=home, env=env)
    assert done.status == 5
    assert {row["status"] for row in lines_of(done.out)} == {"pending"}
    assert "refused the connection" in done.err


def test_a_reader_that_goes_away_ends_it_quietly(home: Path) -> None:
    with Farm() as farm:
        with started(home, farm) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(timeout=60) == 141
        assert "Traceback" not in told(home)
        finish(home, farm)


def test_a_disk_that_is_full_after_the_last_create_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch, since no limit of the system comes at a moment: of the sync, as elsewhere."""
    (home / "t.txt").write_text("One <run 0.3>\n")

    def sync(_handle: int) -> None:
        if farm.tasks:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module, "sync", sync)
    with Farm() as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
    assert done.status == 1
    assert done.err.count("cannot write the journal t.txt.journal: No space left on device") == 1
    assert [row["status"] for row in lines_of(done.out)] == ["completed"]


def test_a_system_without_threads_ends_it_with_one_message(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch, since the limit of the system would stop the service of this test as well."""
    (home / "t.txt").write_text("One\nTwo\nThree\n")
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("create-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Farm() as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
        assert farm.tried == {}
    assert (done.status, done.err.count("cannot start a thread")) == (1, 1)
    assert [row["status"] for row in lines_of(done.out)] == ["pending"] * 3


@pytest.mark.parametrize("word", ["", " <400>", " <500>"])
def test_a_journal_that_fails_at_an_answer_ends_it_and_the_line_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """A patch, since no disk is full at a certain record."""
    (home / "t.txt").write_text(f"One{word}\nTwo\n")
    append = Journal.append

    def fail(journal: Journal, *records: dict[str, Any]) -> None:
        if records[0]["line"] == 1 and records[0]["is"] in ("created", "refused"):
            raise JournalFailed("cannot write the journal")
        append(journal, *records)

    monkeypatch.setattr(Journal, "append", fail)
    with Farm(run=60) as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
    assert done.err.count("cannot write the journal") == 1, done.err
    rows = {row["line"]: row["status"] for row in lines_of(done.out)}
    assert rows[1] == ("refused" if word else "running")
