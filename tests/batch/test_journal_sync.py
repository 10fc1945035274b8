"""When a journal has a record on the disk, and who is told when it cannot have it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.batch import journal as journal_module
from rebyte_cli.batch import journal as journals
from rebyte_cli.batch.journal import Journal, JournalFailed, sync
from rebyte_cli.config.atomic import sync_folder
from tests.keyring_daemon import eventually

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


@pytest.mark.parametrize("being_written", [True, False])
def test_to_settle_waits_for_what_was_appended(
    journal: Journal, disk: Disk, being_written: bool
) -> None:
    disk.free.clear()
    before = disk.syncs
    journal.append({"line": 1})
    eventually(lambda: disk.syncs > before)
    if not being_written:
        journal.append({"line": 2})  # waits for its turn behind the first
    settle = begun(journal.settle)
    settle.join(0.1)
    assert settle.is_alive()
    disk.free.set()
    settle.join(20)
    assert not settle.is_alive()
    journal.settle()
    journal.close()


def test_what_was_appended_is_synced_when_it_is_closed(journal: Journal, disk: Disk) -> None:
    journal.append({"line": 1})
    before = disk.syncs
    journal.close()
    assert disk.syncs >= max(before, 2)  # the first was of the header
    assert journal.path.read_bytes().endswith(b'{"line":1}\n')
    journal.settle()  # nothing is left to wait for


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
        begun(lambda: hears(journal.settle)),
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
        journal.settle()
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
    assert asked[1:] == (["fsync"] if os.name == "posix" else [])


def test_a_new_journal_has_a_name_that_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []
    monkeypatch.setattr(journals, "sync_folder", folders.append)
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


def test_one_that_cannot_be_begun_is_let_go_of_too(tmp_path: Path, disk: Disk) -> None:
    disk.broken = True
    with pytest.raises(JournalFailed, match="No space left on device"):
        Journal(tmp_path / "j", HEADER, run={})
    Journal(tmp_path / "j", HEADER, run={}).close()  # nobody has it


def test_one_of_the_first_format_is_read_for_ever(tmp_path: Path) -> None:
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
