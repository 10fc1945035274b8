"""Runs of one file at the same time: shards of one division side by side, anything else refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from rebyte_cli.batch.session import InputHeld, input_lock
from tests.conftest import COMMAND, Done
from tests.farm import Farm, lines_of
from tests.fork_server import commands
from tests.inside import inside
from tests.waiting import eventually

LINES = 30


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "t.txt"
    path.write_text("One\n")
    return str(path)


def test_who_may_run_beside_whom(tmp_path: Path, file: str) -> None:
    def held(number: int, of: int, name: str = file, origin: str = "o") -> bool:
        try:
            with input_lock(tmp_path / "locks", name, (number, of), origin):
                return False
        except InputHeld:
            return True

    with input_lock(tmp_path / "locks", file, (1, 3), "o"):
        assert [held(2, 3), held(3, 3)] == [False, False]
        assert [held(1, 3), held(1, 1), held(2, 2), held(2, 30)] == [True] * 4
        assert not held(1, 1, origin="another service")
        (tmp_path / "link").symlink_to(file)
        os.link(file, tmp_path / "hard")
        (tmp_path / "copy").write_text("One\n")
        names = [str(tmp_path / name) for name in ("link", "hard", "copy")]
        assert [held(1, 1, name) for name in names] == [True, True, False]
    assert not held(1, 1)
    assert os.listdir(tmp_path / "locks") == ["lock"]


@pytest.mark.parametrize(
    ("shard", "leaves"),
    [
        ((1, 1), ""),
        # A child has the lock too until it has become the program that it was started for.
        ((1, 2), "    if os.fork() == 0:\n        time.sleep(1)\n"),
    ],
)
def test_a_run_that_was_killed_is_in_no_ones_way(
    tmp_path: Path, file: str, shard: tuple[int, int], leaves: str
) -> None:
    script = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from rebyte_cli.batch.session import input_lock\n"
        "with input_lock(Path(sys.argv[1]), sys.argv[2], (1, 2), 'o'):\n"
        f"{leaves}    os._exit(0)\n"
    )
    locks = tmp_path / "locks"
    subprocess.run([COMMAND[0], "-c", script, str(locks), file], check=True)
    assert len(os.listdir(locks)) == 2
    with input_lock(locks, file, shard, "o"):
        pass


def test_an_input_that_can_be_read_only_once_has_no_lock(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(input_lock(tmp_path / "locks", "-", (1, 1), "o"))
    assert not (tmp_path / "locks").exists()


# Whole runs


class Place:
    """A file of thirty lines, runs of it in separate processes, and runs inside the test.

    From the `held_from`-th on, creates make their task and get no answer.
    """

    def __init__(self, home: Path, farm: Farm) -> None:
        self.home, self.farm = home, farm
        self.held_from = 2
        farm.until = lambda: farm.made.total() < self.held_from
        (home / "t.txt").write_text("".join(f"Task {n}\n" for n in range(LINES)))

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A run that has begun to create, and does not end before it may."""
        said = self.home / "said"
        with (
            said.open("wb") as errors,
            subprocess.Popen(
                [*COMMAND, "batch", "t.txt", "--text", "--jobs", "1", *options],
                cwd=self.home,
                env={**os.environ, **self.farm.env},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            ) as process,
        ):
            try:
                eventually(lambda: self.farm.made or process.poll() is not None)
                assert self.farm.made, said.read_text()
                yield process
            finally:
                process.kill()

    def release(self) -> None:
        """Have all creates answered."""
        self.farm.until = lambda: True

    def run(self, *options: str, file: str = "t.txt") -> Done:
        return inside("batch", file, "--text", *options, cwd=self.home, env=self.farm.env)


@pytest.fixture
def place(home: Path) -> Iterator[Place]:
    with Farm() as farm:
        yield Place(home, farm)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["--shard", "1/2"], ["--shard", "1/3", "--journal", "other"]),
        (["--shard", "1/2"], ["--journal", "other"]),
        ([], ["--journal", "other"]),
        (["--journal", "other"], ["--shard", "2/2"]),
    ],
)
def test_case_83_a_run_that_would_create_lines_twice_is_refused(
    place: Place, first: list[str], second: list[str]
) -> None:
    with place.running(*first):
        done = place.run(*second)
        assert done.status == 1
        assert "another run is creating tasks from t.txt" in done.err
        assert done.out == ""
    assert set(place.farm.made.values()) == {1}


def test_through_a_link_it_is_the_same_file(place: Place) -> None:
    (place.home / "link.txt").symlink_to("t.txt")
    with place.running():
        assert place.run(file="link.txt").status == 1
    assert not (place.home / "link.txt.journal").exists()
    assert set(place.farm.made.values()) == {1}


def test_a_journal_that_was_deleted_under_a_run_opens_no_door(place: Place) -> None:
    with place.running():
        (place.home / "t.txt.journal").unlink()
        done = place.run()
        assert done.status == 1
        assert "another run is " in done.err
    assert set(place.farm.made.values()) == {1}


def test_a_run_whose_journal_was_deleted_puts_it_back(place: Place) -> None:
    with place.running():
        eventually(lambda: place.farm.made.total() == 2)
        (place.home / "t.txt.journal").unlink()
        place.held_from = 5
        eventually(lambda: place.farm.made.total() == 5)
    place.release()
    assert place.run().status == 0
    assert place.farm.made == {f"Task {n}": 1 for n in range(LINES)}


def test_the_journal_says_who_has_it(place: Place) -> None:
    with place.running() as process:
        done = place.run()
        assert f"another run is using the journal t.txt.journal: pid {process.pid} on " in done.err


def test_shards_of_one_division_run_side_by_side(place: Place) -> None:
    with place.running("--shard", "1/2") as process:
        place.release()
        done = place.run("--shard", "2/2")
        assert done.status == 0, done.err
        process.wait(60)
    assert place.farm.made == {f"Task {n}": 1 for n in range(LINES)}


@pytest.mark.slow
def test_case_83_started_together_every_line_is_created_once(
    home: Path, place: Place, tmp_path: Path
) -> None:
    place.release()
    place.farm.delay = 0.01
    parts = [[], ["--shard", "1/2"], ["--shard", "2/2"], ["--shard", "1/3"], ["--shard", "3/3"]]
    started = [
        subprocess.Popen(
            [commands() / "rebyte", "batch", "t.txt", "--text", *part],
            cwd=home,
            env={**os.environ, **place.farm.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for part in parts
    ]
    for process in started:
        process.wait(60)
    assert set(place.farm.made.values()) <= {1}
    assert place.farm.made


def test_locks_that_cannot_be_had_cost_a_word_and_no_more(place: Place) -> None:
    folder = place.home / ".local" / "state"
    folder.mkdir(parents=True)
    (folder / "rebyte").write_text("")
    place.release()
    done = place.run()
    assert done.status == 0
    assert "a second run with another journal cannot be prevented" in done.err
    assert len(lines_of(done.out)) == LINES


def test_a_journal_started_by_another_machine_is_noticed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks are its own; but each looks again once its journal is there."""
    from rebyte_cli.batch import journal

    before = journal.sync_folder

    def began(folder: Path) -> None:
        before(folder)
        (place.home / "t.txt.1-of-3.journal").write_text("")

    monkeypatch.setattr(journal, "sync_folder", began)
    done = place.run("--shard", "1/2")
    assert done.status == 2
    assert "was started with another --shard" in done.err
    assert not (place.home / "t.txt.1-of-2.journal").exists()
    assert place.farm.made == {}
