"""Deliveries of webhooks: POSTs to loopback addresses, from one process at a time.

`send_aside` has a process send what is due: for a run of an agent, which begins and ends while no
command runs.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..system import python_process
from ..system.addresses import is_loopback
from ..system.deadline import NO_LIMIT, Deadline
from .agents import facade
from .http import is_private
from .run_interface import NEVER, TASK_STATUS
from .store import Store
from .task_store import TaskRecord, load_tasks

POLL_SECONDS = 0.1
# For all of one delivery: a receiver may send a byte of its answer now and then.
TIMEOUT_SECONDS = 5.0
LARGEST_ANSWER = 65_536
# The database was locked too long, its folder is gone, or there may be no more threads.
TRY_LATER = (OSError, sqlite3.Error, RuntimeError, ValueError, KeyError, TypeError)


class DueDelivery(NamedTuple):
    """One delivery, and since when it is due."""

    at: int
    webhook: str
    url: str
    secret: str | None
    event: str
    task: str


def occurrences(task: TaskRecord, now: int) -> list[tuple[int, str]]:
    """What happened to a task until `now`: (moment, event name), in order."""
    result = [(task.created, "task.created")]
    busy_until = -1
    for index, run in enumerate(task.runs):
        seen = run.horizon(now)
        ran = run.outcome != "canceled" or run.start < run.end
        if ran and run.prompt.submitted >= busy_until and run.start <= seen:
            result.append((run.start, "task.running"))
        busy_until = run.end
        later = task.runs[index + 1 :]
        if run.end <= seen and not any(one.prompt.submitted < run.end for one in later):
            result.append((run.end, f"task.{TASK_STATUS[run.outcome]}"))
    return [each for each in result if task.deleted is None or each[0] <= task.deleted]


class Deliverer:
    """A daemon thread that sends what is due, until it is stopped.

    One process at a time sends, each webhook's events in order and on a thread for that webhook. A
    delivery is recorded when it has ended: one that ended with its process is sent again. Each may
    take `seconds`, and so may all that is left when the thread is stopped.
    """

    def __init__(self, store: Store, seconds: float = TIMEOUT_SECONDS) -> None:
        self._store = store
        self._seconds = seconds
        self._wake = threading.Event()
        self._ending = False
        self._deadline = NO_LIMIT  # when to leave the rest to another process
        self._has_unsent = False
        self._hooks: set[str] | None = None  # as far as was seen
        self._seen, self._next = -1, NEVER
        self._due: list[DueDelivery] = []  # by the time at which they became due
        self._recorded: set[DueDelivery] = set()
        self._ended: dict[DueDelivery, bool] = {}  # what could not be recorded: whether it arrived
        self._thread = threading.Thread(target=self._run, name="rebyte-webhooks", daemon=True)

    def start(self) -> None:
        """Start polling every tenth of a second."""
        self._thread.start()

    def wake(self) -> None:
        """Poll now, unless the last poll found no webhook: the next one comes soon enough."""
        if self._hooks is None or self._hooks:
            self._wake.set()

    def stop(self) -> None:
        """Send what is due at this moment, then end; after a while, leave it to another process."""
        self._deadline = Deadline(self._seconds)
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(self._seconds + 1)
        if self._has_unsent:
            with contextlib.suppress(OSError):
                send_aside(self._store.folder)

    def send_due(self) -> None:
        """Send what is due at this moment, without a thread."""
        self._ending = True
        self._wake.set()
        self._run()

    def _run(self) -> None:
        ending, pause = False, POLL_SECONDS
        with self._store.read() as db:
            while not ending:
                self._wake.wait(pause)
                self._wake.clear()
                ending = self._ending
                began = time.monotonic()
                # What becomes due while this process sends is left to it by the others, even at the
                # last moment: it looks once more.
                with contextlib.suppress(*TRY_LATER):
                    while self._poll(db) and self._send_all(db):
                        began = time.monotonic()
                pause = _pause(began)

    def _poll(self, db: sqlite3.Connection) -> list[DueDelivery]:
        """What is due now and was not sent, in order of time."""
        version = db.execute("PRAGMA data_version").fetchone()[0]
        now = self._store.now()  # after that: what is seen already has happened by now
        if version == self._seen and now < self._next:
            return self._due
        hooks = db.execute("SELECT * FROM webhooks ORDER BY seq").fetchall()
        self._hooks = {hook["id"] for hook in hooks}
        self._seen, self._next, self._due = -1, NEVER, []
        found: set[DueDelivery] = set()
        over: list[tuple[str, int]] = []
        if hooks:
            facade.recover(self._store)
        query = "SELECT * FROM tasks WHERE unsettled = 1 ORDER BY seq"
        rows = db.execute(query).fetchall() if hooks else []
        for task in load_tasks(db, rows):
            private = is_private(db, task.workspace)
            told = [hook for hook in hooks if hook["own"] or not private]
            its = [
                DueDelivery(at, hook["id"], hook["url"], hook["secret"], event, task.id)
                for at, event in occurrences(task, now)
                for hook in told
                if at >= hook["created"] and event in json.loads(hook["events"])
            ]
            found.update(its)
            unsent = [due for due in its if not self._is_recorded(db, due)]
            self._due += unsent
            coming = [
                at for run in task.runs for at in (run.start, run.end) if at > run.horizon(now)
            ]
            if not unsent and (task.deleted is not None or not coming):
                over.append((task.id, len(task.runs)))
            self._next = min([self._next, *coming])
        self._due.sort(key=attrgetter("at"))
        self._recorded &= found
        self._mark_over(over)
        self._seen = version
        return self._due

    def _is_recorded(self, db: sqlite3.Connection, due: DueDelivery) -> bool:
        if (
            due not in self._recorded
            and db.execute(
                "SELECT 1 FROM deliveries WHERE webhook = ? AND task = ? AND event = ? AND at = ?",
                (due.webhook, due.task, due.event, due.at),
            ).fetchone()
        ):
            self._recorded.add(due)
        return due in self._recorded

    def _mark_over(self, over: list[tuple[str, int]]) -> None:
        """Unless a follow-up arrived since the poll, these tasks have nothing left to deliver."""
        if not over:
            return
        with self._store.write() as db:
            db.executemany(
                "UPDATE tasks SET unsettled = 0 WHERE id = ?"
                " AND ? = (SELECT count(*) FROM prompts WHERE task = tasks.id)",
                over,
            )

    def _send_all(self, db: sqlite3.Connection) -> bool:
        """Send until nothing is due; whether it was this process's turn and it came to an end."""
        senders: dict[str, threading.Thread] = {}
        with _turn(self._store.folder) as is_mine:
            while is_mine:
                began = time.monotonic()
                # Before the poll: what a sender records during it would still count as due.
                senders = {name: one for name, one in senders.items() if one.is_alive()}
                waiting: dict[str, list[DueDelivery]] = {}
                for due in self._poll(db):
                    waiting.setdefault(due.webhook, []).append(due)
                if not waiting and not senders:
                    return True
                if self._deadline.has_passed:
                    self._has_unsent = True
                    return False
                for webhook in waiting.keys() - senders.keys():
                    sender = threading.Thread(
                        target=self._send_in_order, args=(waiting[webhook],), daemon=True
                    )
                    sender.start()
                    senders[webhook] = sender
                self._wake.wait(self._deadline.cap(_pause(began)))
                self._wake.clear()
        return False

    def _send_in_order(self, batch: list[DueDelivery]) -> None:
        """Send what is due for one webhook, while there is time and the webhook exists."""
        with contextlib.suppress(*TRY_LATER):
            for due in batch:
                if due.webhook not in (self._hooks or ()):
                    break
                arrived = self._ended.get(due)
                if arrived is None:
                    arrived = _send(due, self._deadline.within(self._seconds))
                    if not arrived and self._deadline.has_passed:
                        break
                self._ended[due] = arrived
                self._record(due, arrived)
                del self._ended[due]
            self._wake.set()

    def _record(self, due: DueDelivery, arrived: bool) -> None:
        with self._store.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)",
                (due.webhook, due.task, due.event, due.at),
            )
            db.execute(
                "UPDATE webhooks SET triggered = ?, failures = failures + ? WHERE id = ?",
                (self._store.now(), not arrived, due.webhook),
            )


def _pause(began: float) -> float:
    """Seconds until the next poll: thousands of running tasks must not keep a core busy."""
    return max(POLL_SECONDS, 4 * (time.monotonic() - began))


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Whether this process may send for a state folder: one may, until it ends the block or dies.

    The lock is SQLite's, which every platform has.
    """
    file = folder / "sending.lock"
    with contextlib.closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as lock:
        is_mine = False
        with contextlib.suppress(sqlite3.OperationalError):
            lock.execute("BEGIN EXCLUSIVE")
            is_mine = True
        yield is_mine


def send_aside(state_dir: Path) -> None:
    """Send what is due from another process, which the caller does not wait for. Raises OSError."""
    subprocess.Popen(
        python_process.command(__name__, state_dir),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def main() -> None:
    """Send what is due in STATE_DIR, the argument, at this moment."""
    Deliverer(Store(Path(sys.argv[1]))).send_due()


def _send(due: DueDelivery, deadline: Deadline) -> bool:
    """POST one delivery; whether a 2xx came back, with all its headers, before `deadline`."""
    parts = urlsplit(due.url)
    if parts.scheme != "http" or not is_loopback(parts.hostname):
        return False
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    body = json.dumps({"event": due.event, "taskId": due.task})
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "User-Agent: rebyte-local",
        "Connection: close",
        *([f"X-Webhook-Secret: {due.secret}"] if due.secret else []),
    ]
    answer = b""
    try:
        address = (parts.hostname or "", parts.port or 80)
        with socket.create_connection(address, timeout=deadline.left()) as connection:
            connection.settimeout(deadline.left())
            connection.sendall("\r\n".join([*lines, "", body]).encode())
            while b"\r\n\r\n" not in answer and len(answer) < LARGEST_ANSWER:
                connection.settimeout(deadline.left())
                piece = connection.recv(LARGEST_ANSWER)
                if not piece:
                    break
                answer += piece
    except (OSError, ValueError):
        return False
    return re.match(rb"HTTP/1\.[01] 2\d\d\b", answer) is not None
