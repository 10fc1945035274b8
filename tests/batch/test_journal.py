"""The journal: what survives a crash, what is refused, who may write, when a record is on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.batch import journal as journal_module
from rebyte_cli.batch.journal import Journal, JournalFailed, JournalHeld, holder, sync
from rebyte_cli.batch.journal_format import SECTOR, encode, parse, replay
from rebyte_cli.errors import BadUsage
from rebyte_cli.system.files import sync_folder
from tests.waiting import eventually

HEADER = {"input": "digest-1", "profile": "work", "origin": "https://api.example"}


def opened(path: Path, **header: Any) -> tuple[Journal, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    journal = Journal(path, {**HEADER, **header}, run={"jobs": 8}, each=records.append)
    return journal, [record for record in records if "run" not in record]


def test_records_are_there_in_the_next_run(tmp_path: Path) -> None:
    journal, earlier = opened(tmp_path / "j")
    assert earlier == []
    journal.commit({"line": 1, "is": "sending"})
    journal.append({"line": 1, "is": "created", "id": "t1"})
    journal.close()
    journal, earlier = opened(tmp_path / "j")
    journal.close()
    assert [record["is"] for record in earlier] == ["sending", "created"]
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_committed_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 5, "is": "sending"})
    assert json.loads((tmp_path / "j").read_text().splitlines()[-1])["line"] == 5
    journal.append({"line": 5, "is": "unsent"})
    journal.sync()
    assert json.loads((tmp_path / "j").read_text().splitlines()[-1])["is"] == "unsent"
    journal.sync()  # nothing to wait for
    journal.close()


def test_many_threads_lose_nothing_and_share_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counts syncs; the real one still runs.
    from rebyte_cli.batch.journal import sync

    syncs, real = [], sync
    monkeypatch.setattr(journal_module, "sync", lambda handle: (syncs.append(1), real(handle)))
    journal, _ = opened(tmp_path / "j")
    start = threading.Barrier(16)

    def work(worker: int) -> None:
        start.wait()
        for number in range(50):
            journal.commit({"line": worker * 50 + number, "is": "sending"})

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    _, earlier = opened(tmp_path / "j")
    assert sorted(record["line"] for record in earlier) == list(range(800))
    assert len(syncs) < 800


def test_a_journal_that_is_deleted_is_put_back(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 1, "is": "sending"})
    (tmp_path / "j").unlink()
    journal.commit({"line": 2, "is": "sending"})
    assert holder(tmp_path / "j")  # it is locked as before
    (tmp_path / "j").unlink()
    journal.close()
    journal, earlier = opened(tmp_path / "j")
    journal.close()
    assert [record["line"] for record in earlier] == [1, 2]
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_journal_that_another_process_writes_stops_this_one(tmp_path: Path) -> None:
    """A lock that locks would have kept it away. What was committed has not been sent yet."""
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 1, "is": "sending"})
    with (tmp_path / "j").open("ab") as other:
        other.write(encode([{"line": 2, "is": "sending"}]))
    with pytest.raises(JournalFailed, match="another run is writing the journal"):
        journal.commit({"line": 2, "is": "sending"})
    assert [parse(line) for line in (tmp_path / "j").read_bytes().splitlines(keepends=True)][
        2:
    ] == [
        {"line": 1, "is": "sending"},
        {"line": 2, "is": "sending"},
    ]


def test_a_journal_that_grows_while_it_is_read_is_held(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 1, "is": "sending"})
    journal.close()

    def each(_record: dict[str, Any]) -> None:
        with (tmp_path / "j").open("ab") as other:
            other.write(encode([{"line": 2, "is": "sending"}]))

    with pytest.raises(JournalHeld):
        Journal(tmp_path / "j", HEADER, run={}, each=each)


def test_a_journal_that_is_cut_short_stops_the_run(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 1, "is": "sending"})
    os.truncate(tmp_path / "j", 0)
    with pytest.raises(JournalFailed, match="was cut short during this run"):
        journal.commit({"line": 2, "is": "sending"})
    assert (tmp_path / "j").stat().st_size == 0


def test_a_journal_that_is_replaced_is_kept_beside_the_other(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 1, "is": "sending"})
    (tmp_path / "other").write_text("mine\n")
    os.replace(tmp_path / "other", tmp_path / "j")
    with pytest.raises(JournalFailed, match="was replaced by another file") as caught:
        journal.commit({"line": 2, "is": "sending"})
    with pytest.raises(JournalFailed):
        journal.commit({"line": 3, "is": "sending"})
    with pytest.raises(JournalFailed):
        journal.close()
    assert (tmp_path / "j").read_text() == "mine\n"
    kept = tmp_path / f"j.{journal.name}"
    assert f"What this run did is in {kept}" in str(caught.value.hint)
    os.replace(kept, tmp_path / "j")
    journal, earlier = opened(tmp_path / "j")
    journal.close()
    assert [record["line"] for record in earlier] == [1, 2]


def test_a_journal_behind_a_link_is_synced_and_put_back_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "j").symlink_to(tmp_path / "disk" / "j")
    synced: list[Path] = []
    monkeypatch.setattr(journal_module, "sync_folder", synced.append)
    journal, _ = opened(tmp_path / "j")
    assert synced == [tmp_path / "disk"]
    (tmp_path / "disk" / "j").unlink()
    journal.commit({"line": 1, "is": "sending"})
    journal.close()
    assert (tmp_path / "j").is_symlink()
    assert b'"line":1' in (tmp_path / "disk" / "j").read_bytes()


@pytest.mark.parametrize("torn", [b'{"line":2,"is":"sen', b'{"line":2}', b"\0\0\0\0", b'{"a\n\0\0'])
def test_a_torn_end_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "j"
    journal, _ = opened(path)
    journal.commit({"line": 1, "is": "sending"})
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    journal, earlier = opened(path)
    journal.commit({"line": 3, "is": "sending"})
    journal.close()
    assert [record["line"] for record in earlier] == [1]
    assert path.read_bytes().startswith(whole)
    _, earlier = opened(path)
    assert [record["line"] for record in earlier] == [1, 3]


def test_every_cut_of_a_journal_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal, _ = opened(path)
    for number in range(3):
        journal.commit({"line": number, "is": "sending"})
    journal.close()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        records: list[dict[str, Any]] = []
        size = replay(path, HEADER, records.append)
        assert size <= length
        assert len(records) <= 4


def test_damage_in_the_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal, _ = opened(path)
    journal.commit({"line": 1}, {"line": 2})
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"line": 1,,}\n'
    path.write_bytes(b"".join(lines))
    with pytest.raises(BadUsage, match=r"line 3 of the journal .* is damaged"):
        opened(path)
    assert path.read_bytes() == b"".join(lines)


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, int]:
    """A journal with a long last group, and where that group begins."""
    path = tmp_path / "j"
    journal, _ = opened(path)
    journal.commit(*({"line": number, "is": "sending", "at": "then"} for number in range(1, 60)))
    size = path.stat().st_size
    journal.commit(*({"line": number, "is": "sending", "at": "then"} for number in range(60, 160)))
    journal.close()
    return path, size


def zeroed(path: Path, begin: int, end: int) -> None:
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["its first sector", "one in its middle", "all but its last"])
def test_a_create_whose_record_was_not_synced_was_not_sent(
    grown: tuple[Path, int], where: str
) -> None:
    """A power cut may write the sectors of the last group in any order, or only some of them."""
    path, size = grown
    next_sector = -(-size // SECTOR) * SECTOR
    last_sector = (path.stat().st_size - 1) // SECTOR * SECTOR
    begin, end = {
        "its first sector": (size, next_sector),
        "one in its middle": (next_sector + SECTOR, next_sector + 2 * SECTOR),
        "all but its last": (size, last_sector),
    }[where]
    zeroed(path, begin, end)
    journal, earlier = opened(path)
    journal.commit({"line": 7, "is": "unsent"})
    journal.close()
    lines = [record["line"] for record in earlier]
    assert lines == list(range(1, len(lines) + 1))
    assert len(lines) >= 59
    _, earlier = opened(path)
    assert earlier[-1] == {"line": 7, "is": "unsent"}


@pytest.mark.parametrize("what", ["a sector", "a byte of the last group", "an unmarked group"])
def test_a_gap_that_no_crash_leaves_is_damage(grown: tuple[Path, int], what: str) -> None:
    path, size = grown
    if what == "a sector":  # of a group that was synced
        zeroed(path, SECTOR, 2 * SECTOR)
    elif what == "a byte of the last group":
        zeroed(path, size + 200, size + 201)
    else:  # by an older version: where the last group begins cannot be seen
        path.write_bytes(path.read_bytes().replace(b'"groups":true,', b"").replace(b"\n ", b"\n"))
        zeroed(path, 4 * SECTOR, 5 * SECTOR)
    before = path.read_bytes()
    with pytest.raises(BadUsage, match="is damaged"):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"input": "digest-2"},
            "belongs to a different input: lines that were there, the template or a schema have"
            " changed",
        ),
        ({"profile": "home"}, "belongs to a different profile: work, not home"),
        ({"origin": "local"}, "belongs to a different origin: https://api.example, not local"),
    ],
)
def test_a_journal_of_something_else_is_refused(
    tmp_path: Path, change: dict[str, str], says: str
) -> None:
    journal, _ = opened(tmp_path / "j")
    journal.commit({"line": 1, "is": "created", "id": "t1"})
    journal.close()
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(BadUsage, match=says):
        opened(tmp_path / "j", **change)
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize(
    ("records", "is_free"),
    [
        ([], True),
        ([{"line": 1, "is": "sending"}, {"line": 1, "is": "unsent"}], True),
        ([{"line": 1, "is": "sending"}], False),
        ([{"line": 1, "is": "sending"}, {"line": 2, "is": "unsent"}], False),
        ([{"line": 1, "is": "refused"}], False),
        ([{"line": 1}], False),
    ],
)
def test_a_journal_without_a_task_belongs_to_any_batch(
    tmp_path: Path, records: list[dict[str, Any]], is_free: bool
) -> None:
    """A file that is fixed after a refused first run is accepted."""
    journal, _ = opened(tmp_path / "j")
    journal.commit(*records)
    journal.close()
    if not is_free:
        with pytest.raises(BadUsage, match="belongs to a different input"):
            opened(tmp_path / "j", input="digest-2")
        return
    journal, earlier = opened(tmp_path / "j", input="digest-2")
    journal.commit({"line": 1, "is": "created", "id": "t1"})
    journal.close()
    assert earlier == []
    with pytest.raises(BadUsage, match="belongs to a different input"):
        opened(tmp_path / "j")
    _, earlier = opened(tmp_path / "j", input="digest-2")
    assert [record["is"] for record in earlier] == ["created"]


@pytest.mark.slow
def test_asking_for_the_holder_does_not_lock_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    opened(path)[0].close()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            holder(path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(50):
            opened(path)[0].close()
    finally:
        stop.set()
        asking.join()


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"prompt": "mine"}\n')
    with pytest.raises(BadUsage, match="not the journal of a batch"):
        opened(tmp_path / "j")
    assert (tmp_path / "j").read_text() == '{"prompt": "mine"}\n'


def test_a_journal_of_a_later_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"rebyteBatch":99}\n')
    with pytest.raises(BadUsage, match="format 99"):
        opened(tmp_path / "j")


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    script = (
        "import sys; from pathlib import Path\n"
        "from rebyte_cli.batch.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}), {HEADER!r}, run={{}})\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(JournalHeld, match=rf"pid {other.pid} on .+, since 20"):
            opened(path)
        assert f"pid {other.pid}" in str(holder(path))
        other.kill()
        other.wait()
        assert holder(path) is None
        opened(path)[0].close()


def test_what_a_killed_run_was_starting_may_still_hold_it_for_a_moment(tmp_path: Path) -> None:
    """A child has the lock too until it has become the program that it was started for."""
    path = tmp_path / "j"
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from rebyte_cli.batch.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}), {HEADER!r}, run={{}})\n"
        "if os.fork() == 0:\n"
        "    time.sleep(1); os._exit(0)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert holder(path)
    opened(path)[0].close()


def test_a_full_disk_fails_every_later_write_and_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "j"
    script = f"""
import resource
from pathlib import Path
from rebyte_cli.batch.journal import Journal, JournalFailed
journal = Journal(Path({str(path)!r}), {HEADER!r}, run={{}})
size = Path({str(path)!r}).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        journal.commit({{"line": written, "is": "sending"}})
        written += 1
except JournalFailed as error:
    print(written, error.message)
try:
    journal.append({{"line": 99}})
except JournalFailed:
    print("still failed")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    written = int(first.split()[0])
    assert 0 < written < 5
    assert "cannot write the journal" in first
    assert "File too large" in first
    assert second == "still failed"
    _, earlier = opened(path)
    assert [record["line"] for record in earlier] == list(range(written))


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="cannot write the journal"):
        opened(tmp_path / "absent" / "j")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_journal_that_is_not_a_file_is_refused_before_it_is_read(
    tmp_path: Path, kind: str
) -> None:
    """A device can be read for ever, and a pipe waits for ever."""
    path = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    script = (
        "import sys, resource; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from rebyte_cli.batch.journal import Journal\n"
        f"Journal(Path(sys.argv[1]), {HEADER!r}, run={{}})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, timeout=60, check=False
    )
    assert f"UnsafeFile: {path} is not a regular file".encode() in done.stderr


HEADER = {"input": "d", "profile": "work", "origin": "https://api.example"}
# As version 1 of the format has it. A later version that cannot read this strands its users.
WRITTEN_LONG_AGO = b"""\
{"rebyteBatch":1,"input":"d","profile":"work","origin":"https://api.example"}
{"run":{"pid":7,"host":"vm","since":"2026-02-09T10:30:00+00:00","jobs":8}}
{"line":1,"is":"sending","at":"2026-02-09T10:30:00.000+00:00"}
{"line":1,"is":"created","id":"t1","workspaceId":"w1","url":"u","createdAt":"c"}
"""


class Disk:
    """Stands in for the sync of the journal, the one thing that cannot be seen from outside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.free = threading.Event()
        self.free.set()
        self.broken = False
        monkeypatch.setattr(journal_module, "sync", self._sync)

    def _sync(self, _handle: int) -> None:
        self.syncs += 1
        self.free.wait(20)
        if self.broken:
            self.broken = False  # a disk may be well again a moment later
            raise OSError(28, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def journal(tmp_path: Path, disk: Disk) -> Journal:
    return Journal(tmp_path / "j", HEADER, run={})


def begun(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_commit_returns_after_its_sync_and_not_before(journal: Journal, disk: Disk) -> None:
    disk.free.clear()
    before = disk.syncs
    commit = begun(lambda: journal.commit({"line": 1}))
    eventually(lambda: disk.syncs > before)
    assert commit.is_alive()
    disk.free.set()
    commit.join(20)
    assert not commit.is_alive()
    assert disk.syncs == before + 1
    journal.close()


def test_records_that_can_wait_share_the_next_sync(tmp_path: Path, disk: Disk) -> None:
    """A worker appends what became of one create right before it commits the next one."""
    journal = Journal(tmp_path / "j", HEADER, run={}, linger=600.0)
    before = disk.syncs
    for number in range(50):
        journal.commit({"line": number, "is": "sending"})
        journal.append({"line": number, "is": "created", "id": "t"})
    assert disk.syncs == before + 50
    journal.close()
    assert disk.syncs == before + 51
    assert journal.path.read_bytes().count(b"\n") == 102


def test_appended_records_are_synced_without_a_commit(journal: Journal, disk: Disk) -> None:
    before = disk.syncs
    journal.append({"line": 1})
    eventually(lambda: disk.syncs > before)
    assert journal.path.read_bytes().endswith(b'{"line":1}\n')
    journal.close()


@pytest.mark.parametrize("being_written", [True, False])
def test_to_sync_waits_for_what_was_appended(
    journal: Journal, disk: Disk, being_written: bool
) -> None:
    disk.free.clear()
    before = disk.syncs
    journal.append({"line": 1})
    eventually(lambda: disk.syncs > before)
    if not being_written:
        journal.append({"line": 2})  # waits for its turn behind the first
    sync = begun(journal.sync)
    sync.join(0.1)
    assert sync.is_alive()
    disk.free.set()
    sync.join(20)
    assert not sync.is_alive()
    journal.sync()
    journal.close()


def test_appended_records_are_synced_on_close(journal: Journal, disk: Disk) -> None:
    journal.append({"line": 1})
    before = disk.syncs
    journal.close()
    assert disk.syncs >= max(before, 2)  # the first was of the header
    assert journal.path.read_bytes().endswith(b'{"line":1}\n')
    journal.sync()  # nothing is left to wait for


def test_everybody_who_waits_is_told_of_a_full_disk(journal: Journal, disk: Disk) -> None:
    """Those of the write that failed, and those whose records gathered behind it."""
    size = journal.path.stat().st_size
    told = []

    def hears(work: Callable[[], object]) -> None:
        try:
            work()
        except JournalFailed as error:
            told.append(error.message)

    disk.free.clear()
    before = disk.syncs
    first = begun(lambda: hears(lambda: journal.commit({"line": 1})))
    eventually(lambda: disk.syncs > before)
    later = [
        begun(lambda: hears(lambda: journal.commit({"line": 2}))),
        begun(lambda: hears(journal.sync)),
    ]
    eventually(lambda: journal._group.data)
    disk.broken = True
    disk.free.set()
    for thread in (first, *later):
        thread.join(20)
        assert not thread.is_alive()
    assert len(told) == 3
    assert "No space left on device" in told[0]
    with pytest.raises(JournalFailed):
        journal.append({"line": 3})
    with pytest.raises(JournalFailed):
        journal.sync()
    with pytest.raises(JournalFailed):
        journal.close()
    assert journal.path.stat().st_size == size, "nothing of what was said to have failed is left"


def test_a_sync_is_one_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda handle, name=name: asked.append(name), raising=False)
    with (tmp_path / "j").open("w") as file:
        sync(file.fileno())
        assert len(asked) == 1
        sync_folder(tmp_path)
    assert asked[1:] == ["fsync"]


def test_a_new_journal_has_a_name_that_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []
    monkeypatch.setattr(journal_module, "sync_folder", folders.append)
    Journal(tmp_path / "j", HEADER, run={}).close()
    assert folders == [tmp_path]


def test_a_refused_journal_is_let_go_of(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("something else\n")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        with pytest.raises(Exception, match="not the journal"):
            Journal(tmp_path / "j", HEADER, run={})
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after <= before


def test_a_journal_that_cannot_be_started_is_unlocked(tmp_path: Path, disk: Disk) -> None:
    disk.broken = True
    with pytest.raises(JournalFailed, match="No space left on device"):
        Journal(tmp_path / "j", HEADER, run={})
    Journal(tmp_path / "j", HEADER, run={}).close()  # not held


def test_a_journal_of_the_first_format_can_still_be_read(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(WRITTEN_LONG_AGO)
    found: list[dict[str, object]] = []
    Journal(path, HEADER, run={}, each=found.append).close()
    assert [record.get("is") for record in found] == [None, "sending", "created"]
    assert found[2]["id"] == "t1"
    assert path.read_bytes().startswith(WRITTEN_LONG_AGO)
    new = tmp_path / "new"
    Journal(new, HEADER, run={}).close()
    assert new.read_bytes().split(b"\n")[0] == WRITTEN_LONG_AGO.split(b"\n")[0]


def test_a_writer_that_runs_out_of_memory_is_not_waited_for(journal: Journal) -> None:
    def run_out(_records: object) -> None:
        raise MemoryError

    journal.after_write = run_out
    told: list[str] = []

    def commit() -> None:
        try:
            journal.commit({"line": 1})
        except JournalFailed as error:
            told.append(error.message)

    thread = begun(commit)
    thread.join(20)
    assert told == [f"cannot write the journal {journal.path}: out of memory"]
    with pytest.raises(JournalFailed):
        journal.close()
