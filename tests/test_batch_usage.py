"""What a batch refuses before it sends anything: odd files, odd options, odd wishes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch import input as batch_input

from .conftest import COMMAND, Done
from .farm import Farm, lines_of
from .inside import inside
from .servers import Answer, Request, error_reply

Batch = Callable[..., Done]


@pytest.fixture
def farm() -> Any:
    with Farm() as running:
        yield running


@pytest.fixture
def batch(farm: Farm, home: Path) -> Batch:
    def run(*arguments: str, **more: Any) -> Done:
        return inside("batch", *arguments, cwd=home, env=farm.env, **more)

    return run


def test_a_file_that_is_no_file(batch: Batch, farm: Farm, home: Path) -> None:
    (home / "folder").mkdir()
    assert batch("folder").status == 2
    assert batch("absent").status == 4
    assert batch("absent/absent").status == 4
    done = batch("/dev/zero", "--journal", "j")
    assert done.status == 2
    assert "line 1: is longer than 16 MiB" in done.err
    assert not farm.calls
    assert not (home / "j").exists()


def test_a_pipe_is_read_to_its_end(batch: Batch, farm: Farm, home: Path) -> None:
    os.mkfifo(home / "pipe")
    text = '{"prompt": "One"}\n'
    writer = threading.Thread(target=(home / "pipe").write_text, args=(text,), daemon=True)
    writer.start()
    assert batch("pipe").status == 0
    assert farm.made == {"One": 1}
    assert (home / "pipe.journal").exists()


def test_standard_input_needs_a_journal_before_it_is_read(batch: Batch, home: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "batch", "-"], cwd=home, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # and nothing is ever written to it
        assert process.wait(timeout=20) == 2
        assert process.stderr is not None
        assert b"needs --journal PATH" in process.stderr.read()
    line = b'{"prompt": "One"}\n'
    done = batch("-", "--journal", "j", stdin=line)
    assert done.status == 0
    assert batch("-", "--journal", "j", stdin=line).out == done.out
    closed = subprocess.run(
        ["sh", "-c", f"exec {' '.join(COMMAND)} batch - --dry-run <&-"],
        cwd=home,
        capture_output=True,
        check=False,
    )
    assert (closed.returncode, b"standard input is closed" in closed.stderr) == (2, True)


def test_another_kind_of_file_is_not_listed_whole(
    batch: Batch, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_input, "MOST_NAMED", 50)  # of a thousand, for the test's speed
    (home / "picture").write_bytes(b"\x89PNG\r\n" * 400)
    done = batch("picture", "-o", "table")
    assert done.status == 2
    assert "picture has at least 50 bad lines; nothing was sent" in done.err
    assert len(done.err.splitlines()) < 60


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf", b"\n \r\n\n"])
def test_nothing_to_do_is_done(batch: Batch, farm: Farm, home: Path, text: bytes) -> None:
    (home / "t.jsonl").write_bytes(text)
    done = batch("t.jsonl")
    assert (done.status, done.out) == (0, "")
    assert batch("t.jsonl", "-o", "table").err == "no lines (0s)\n"
    (home / "t.jsonl").write_text('{"prompt": "One"}')
    assert batch("t.jsonl").status == 0  # the file of no lines is not held against it
    assert farm.made == {"One": 1}


@pytest.mark.parametrize(
    "options",
    [
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--rate", "0"],
        ["--jobs", "0"],
        ["--jobs", "257"],
        ["--shard", "0/2"],
        ["--shard", "3/2"],
        ["--shard", "1/" + "9" * 5000],
        ["--timeout", "-1"],
        ["--resend-after", "nan"],
        ["--text", "--csv"],
        ["--fields", "nope"],
        ["--report", ""],
        ["--report", "r.pdf"],
        ["--report", "absent/r.html"],
        ["--status", "--resolve", "1=none"],
        ["--dry-run", "--resolve", "1=none"],
        ["-w", "ws-1", "--workspace-per-line"],
    ],
)
def test_a_wish_that_makes_no_sense(
    batch: Batch, farm: Farm, home: Path, options: list[str]
) -> None:
    (home / "t.jsonl").write_text('{"prompt": "One"}')
    done = batch("t.jsonl", *options)
    assert done.status == 2, done.err
    assert json.loads(done.err)["error"]["exit"] == 2
    assert not farm.calls
    assert not (home / "t.jsonl.journal").exists()


def test_a_report_never_takes_the_place_of_what_is_read(batch: Batch, home: Path) -> None:
    (home / "prompts.md").write_text("One\n")
    (home / "link.md").symlink_to("prompts.md")
    (home / "letter.md").write_text("Hello {{prompt}}\n")
    for report in ("prompts.md", "link.md"):
        done = batch("prompts.md", "--text", "--report", report)
        assert (done.status, "would overwrite prompts.md" in done.err) == (2, True)
    done = batch("prompts.md", "--text", "--template", "letter.md", "--report", "letter.md")
    assert done.status == 2
    assert (home / "prompts.md").read_text() == "One\n"


def test_a_key_that_is_taken_back_ends_it_and_what_was_sent_is_kept(
    batch: Batch, farm: Farm, home: Path
) -> None:
    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and len(farm.tasks) >= 5:
            return error_reply(401, "invalid_api_key", "Key revoked")
        return None

    farm.hook = hook
    (home / "t.txt").write_text("".join(f"Task {number}\n" for number in range(20)))
    done = batch("t.txt", "--text", "--jobs", "2")
    assert done.status == 3
    assert "rebyte auth login" in done.err
    made = [row for row in lines_of(done.out) if row["id"]]
    assert len(made) == len(farm.tasks) <= 6
    assert {row["status"] for row in lines_of(done.out)} <= {"pending", "running", "completed"}
    farm.hook = lambda _request: None
    assert batch("t.txt", "--text").status == 0
    assert set(farm.made.values()) == {1}
    assert len(farm.made) == 20


def test_a_first_run_that_made_nothing_does_not_bind_the_file(
    batch: Batch, farm: Farm, home: Path
) -> None:
    farm.hook = lambda request: error_reply(401, "invalid_api_key", "No such key")
    (home / "t.txt").write_text("One\n")
    assert batch("t.txt", "--text").status == 3
    farm.hook = lambda _request: None
    (home / "t.txt").write_text("One, and better\n")
    assert batch("t.txt", "--text").status == 0
    (home / "t.txt").write_text("One, and best\n")
    assert batch("t.txt", "--text").status == 2
    assert farm.made == {"One, and better": 1}


def test_resolving_twice_is_a_slip_and_resolving_again_is_not(
    batch: Batch, farm: Farm, home: Path
) -> None:
    farm.silent = True
    (home / "t.txt").write_text("One <cut>\nTwo <cut>\n")
    run = ("t.txt", "--text", "--timeout", "0.5")
    assert batch(*run).status == 6
    one, two = farm.tasks
    for pair in ((f"1={one}", f"2={one}"), (f"1={one}", f"1={two}"), ("1=none", "1=none")):
        done = batch(*run, "--resolve", pair[0], "--resolve", pair[1])
        assert (done.status, "was named twice" in done.err) == (2, True)
    both = ("--resolve", f"1={one}", "--resolve", f"2={two}")
    assert batch(*run, *both).status == 0
    assert batch(*run, *both).status == 0
    assert batch(*run, "--resolve", f"1={two}").status == 2
    assert farm.made == {"One <cut>": 1, "Two <cut>": 1}


def test_a_file_that_goes_away_meanwhile_refuses_its_line_and_pauses_nothing(
    batch: Batch, farm: Farm, home: Path
) -> None:
    def hook(request: Request) -> Answer | None:
        if request.method == "POST":
            (home / "f").unlink(missing_ok=True)
        return None

    farm.hook = hook
    (home / "f").write_text("x")
    (home / "t.jsonl").write_text('{"prompt": "One"}\n{"prompt": "Two", "files": ["f"]}\n')
    done = batch("t.jsonl", "--jobs", "1")
    ends = {row["line"]: row["status"] for row in lines_of(done.out)}
    assert ends == {1: "completed", 2: "refused"}
    assert done.status not in (0, 2), "the batch itself was no bad usage"
    assert "Paused" not in done.err
    assert farm.made == {"One": 1}
