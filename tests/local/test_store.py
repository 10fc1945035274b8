"""A state folder that cannot be used, and one that several services share."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from rebyte_cli.local import background
from rebyte_cli.local.agents.supervision.disk_space import sweep
from rebyte_cli.local.local_service import Service, reset, status
from rebyte_cli.local.store import StateError, Store
from rebyte_cli.system.permissions import make_folder
from tests.waiting import eventually
from tests.witness import Caller


def serving(folder: Path) -> str | None:
    """The base URL of a service that answers for a folder."""
    with Store(folder) as store:
        found = background.find(store)
    return None if found is None else f"{found.origin}/v1"


def test_a_service_whose_file_is_damaged_under_it_says_so(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        caller = Caller(service)
        caller.create()
        db = sqlite3.connect(tmp_path / "service.db")
        db.execute("DROP TABLE prompts")
        db.close()
        refused = caller.call("GET", "/tasks", check=False)
        assert refused.status == 500
        assert "it is damaged" in refused.message


def test_folders_are_private_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Store(tmp_path / "a" / "b" / "local").close()
        make_folder(tmp_path / "c" / "d")
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/local", "a/b/local/objects", "c", "c/d"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700, name


@pytest.mark.parametrize("place", [".", "local"])
def test_case_66_a_folder_that_others_can_write_is_refused(tmp_path: Path, place: str) -> None:
    """They could put a database there whose tasks run what they like."""
    Store(tmp_path / "x" / "local").close()
    loose = tmp_path / "x" / place
    loose.chmod(0o777)
    with pytest.raises(StateError) as refused:
        Store(tmp_path / "x" / "local")
    assert f"chmod {'o' if place == '.' else 'go'}-w {loose}" in str(refused.value)
    loose.chmod(0o755)
    Store(tmp_path / "x" / "local").close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["", "service.db"])
def test_a_folder_or_a_database_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    """Its owner can change it whatever its mode is."""
    Store(tmp_path / "local").close()
    os.chown(tmp_path / "local" / name, 12345, -1)
    (tmp_path / "local").chmod(0o755)
    with pytest.raises(StateError, match="run: sudo chown"):
        Store(tmp_path / "local")


@pytest.mark.skipif(os.getuid() != 0, reason="the group of root has no other member")
def test_a_group_that_has_only_this_user_is_no_other_user(tmp_path: Path) -> None:
    Store(tmp_path / "local").close()
    (tmp_path / "local").chmod(0o770)
    Store(tmp_path / "local").close()


def test_status_after_two_services_on_one_folder(tmp_path: Path) -> None:
    """Each counts as long as it runs, whichever ends first; one that was killed does not."""
    first, second = Service(tmp_path).start(), Service(tmp_path).start()
    assert serving(tmp_path) == second.base_url
    second.stop()
    assert serving(tmp_path) == first.base_url
    third = Service(tmp_path).start()
    first.stop()
    assert serving(tmp_path) == third.base_url
    third.stop()
    assert serving(tmp_path) is None
    store = Store(tmp_path)
    store.remember("served gone", "http://127.0.0.1:9")
    store.close()
    assert serving(tmp_path) is None


def test_reset_leaves_a_served_folder_served(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        Caller(service).create()
        reset(tmp_path)
        assert status(tmp_path)["tasks"] == 0
        assert serving(tmp_path) == service.base_url


def test_writers_of_one_process_do_not_meet_in_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would have them sleep, and under load one of them until its time is up."""
    impatient = partial(sqlite3.connect, isolation_level=None, check_same_thread=False, timeout=0)
    monkeypatch.setattr(sqlite3, "connect", lambda file, **_: impatient(file))
    monkeypatch.setattr(Store, "_retried", lambda _store, action: action())
    with closing(Store(tmp_path)) as store, ThreadPoolExecutor(8) as pool:
        names = [f"name {number}" for number in range(200)]
        list(pool.map(lambda name: store.remember(name, "kept"), names))
        assert {store.recall(name) for name in names} == {"kept"}


def test_a_write_that_never_ends_holds_no_other_for_ever(tmp_path: Path) -> None:
    impatient = Store(tmp_path, busy_seconds=0.01)
    with closing(impatient) as store, ThreadPoolExecutor(1) as pool, store.write():
        refused = pool.submit(store.remember, "name", "value").exception()
    assert isinstance(refused, StateError)
    assert "has been writing for 0.01 s" in str(refused)


def where(thread: int) -> str:
    """The line of Python that a thread is in."""
    return traceback.extract_stack(sys._current_frames()[thread])[-1].line or ""


def test_a_signal_while_another_process_writes_leaves_no_transaction_open(tmp_path: Path) -> None:
    """A canceled run still writes its patch, and keeps no other writer waiting."""

    def stop(_number: int, _frame: object) -> None:
        raise InterruptedError

    file = tmp_path / "service.db"
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with (
            closing(Store(tmp_path)) as store,
            closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other,
        ):
            other.execute("BEGIN IMMEDIATE")

            def signal_and_commit() -> None:
                eventually(lambda: "BEGIN IMMEDIATE" in where(main))
                signal.pthread_kill(main, signal.SIGALRM)
                time.sleep(0.02)
                other.execute("COMMIT")

            helper = threading.Thread(target=signal_and_commit)
            helper.start()
            with pytest.raises(InterruptedError), store.write():
                pass  # SQLite does not notice the signal before it has the lock
            helper.join()
            store.remember("name", "value")
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
    finally:
        signal.signal(signal.SIGALRM, before)


def filled(folder: Path, megabytes: int) -> Store:
    """A store with so much of a task that was deleted long ago, and a value that is kept."""
    store = Store(folder)
    store.remember("name", "kept")
    with store.write() as db:
        db.execute(
            "INSERT INTO tasks (id, workspace, created, executor, model, title, deleted)"
            " VALUES ('t', 'w', 1, 'x', '', 'null', 1)"
        )
        db.execute(
            "INSERT INTO runs (task, workspace, prompt, agent, options, queued, ended)"
            " VALUES ('t', 'w', 'p', 'x', '{}', 1, 1)"
        )
        rows = (("p", number, 1, "text", "x" * 1_000_000) for number in range(megabytes))
        db.executemany("INSERT INTO run_events VALUES (?, ?, ?, ?, ?)", rows)
    make_folder(folder / "workspaces")
    return store


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("service.db*"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [sweep, lambda store: reset(store.folder)], ids=["delete", "reset"])
def test_what_is_forgotten_leaves_its_space_to_the_disk(
    tmp_path: Path, how: Callable[[Store], None]
) -> None:
    with filled(tmp_path, 40) as store:
        assert size(tmp_path) > 40 << 20
        how(store)
        assert store.recall("name") == "kept"
        assert size(tmp_path) < 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("why", ["another writes", "a full disk", "little is free"])
def test_a_file_stays_as_large_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    with filled(tmp_path, 40) as store, filled(tmp_path / "other", 1) as other:
        with store.write() as db:
            db.execute("DELETE FROM run_events WHERE seq < ?", (18 if why[0] == "l" else 40,))
        before = size(tmp_path)
        if why == "a full disk":
            free = shutil._ntuple_diskusage(1 << 30, 1 << 30, 1000)
            monkeypatch.setattr(shutil, "disk_usage", lambda _place: free)
        with (store if why == "another writes" else other).write():
            Store(tmp_path).shrink()
        assert size(tmp_path) == before
        monkeypatch.undo()
        store.shrink()
        assert (size(tmp_path) == before) == (why == "little is free")
        assert store.recall("name") == "kept"
