"""Deliveries of webhooks: POSTs to loopback addresses, each event once, from one live process."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

from .access import is_private
from .database import Store
from .origin import is_loopback
from .records import TaskRecord, load_tasks
from .schedule import NEVER, TASK_STATUS

POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 5.0


class DueDelivery(NamedTuple):
    """One claimed delivery."""

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
        ran = run.outcome != "canceled" or run.start < run.end
        if ran and run.prompt.submitted >= busy_until and run.start < NEVER:
            result.append((run.start, "task.running"))
        busy_until = run.end
        later = task.runs[index + 1 :]
        if run.end < NEVER and not any(one.prompt.submitted < run.end for one in later):
            result.append((run.end, f"task.{TASK_STATUS[run.outcome]}"))
    return [(at, event) for at, event in result if at <= now]


class Deliverer:
    """A daemon thread that sends what is due, until it is stopped."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = threading.Event()
        self._ending = False
        self._has_hooks = True  # as far as was seen
        self._seen, self._next = -1, NEVER
        self._tried: set[tuple[int, DueDelivery]] = set()
        self._thread = threading.Thread(target=self._run, name="rebyte-webhooks", daemon=True)

    def start(self) -> None:
        """Start polling every tenth of a second."""
        self._thread.start()

    def wake(self) -> None:
        """Poll now, unless the last poll found no webhook: the next one comes soon enough."""
        if self._has_hooks:
            self._wake.set()

    def stop(self) -> None:
        """Send what is due at this moment, then end."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_SECONDS)

    def _run(self) -> None:
        ending, pause = False, POLL_SECONDS
        with self._store.read() as db:
            while not ending:
                self._wake.wait(pause)
                self._wake.clear()
                ending = self._ending
                began = time.monotonic()
                try:
                    for due in self._poll(db):
                        self._settle(due, _send(due))
                except (OSError, sqlite3.Error, ValueError, KeyError, TypeError):
                    continue  # locked too long, or the folder is gone: try again later
                # Thousands of running tasks must not keep a core busy.
                pause = max(POLL_SECONDS, 4 * (time.monotonic() - began))

    def _poll(self, db: sqlite3.Connection) -> list[DueDelivery]:
        """What is due now and was claimed for this process, in order of time."""
        now = self._store.now()
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen and now < self._next:
            return []
        hooks = db.execute("SELECT * FROM webhooks ORDER BY seq").fetchall()
        self._has_hooks = bool(hooks)
        self._seen, self._next = version, NEVER
        if not hooks:
            return []
        rows = db.execute("SELECT * FROM tasks WHERE unsettled = 1").fetchall()
        found: set[tuple[int, DueDelivery]] = set()
        over: list[tuple[str, int]] = []
        for task in load_tasks(db, rows):
            until = now if task.deleted is None else min(now, task.deleted)
            private = is_private(db, task.workspace)
            told = [hook for hook in hooks if hook["own"] or not private]
            for at, event in occurrences(task, until):
                found |= {
                    (at, DueDelivery(hook["id"], hook["url"], hook["secret"], event, task.id))
                    for hook in told
                    if at >= hook["created"] and event in json.loads(hook["events"])
                }
            coming = [at for run in task.runs for at in (run.start, run.end) if at > now]
            if task.deleted is not None or not coming:
                over.append((task.id, len(task.runs)))
            self._next = min([self._next, *coming])
        fresh, self._tried = found - self._tried, found
        return self._claim(sorted(fresh), over) if fresh or over else []

    def _claim(
        self, fresh: list[tuple[int, DueDelivery]], over: list[tuple[str, int]]
    ) -> list[DueDelivery]:
        with self._store.write() as db:
            claimed = [
                due
                for at, due in fresh
                if db.execute(
                    "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)",
                    (due.webhook, due.task, due.event, at),
                ).rowcount
            ]
            # Unless a follow-up arrived since the poll, these tasks have nothing left to report.
            db.executemany(
                "UPDATE tasks SET unsettled = 0 WHERE id = ?"
                " AND ? = (SELECT count(*) FROM prompts WHERE task = tasks.id)",
                over,
            )
        return claimed

    def _settle(self, due: DueDelivery, arrived: bool) -> None:
        with self._store.write() as db:
            db.execute(
                "UPDATE webhooks SET triggered = ?, failures = failures + ? WHERE id = ?",
                (self._store.now(), not arrived, due.webhook),
            )


def _send(due: DueDelivery) -> bool:
    """POST one delivery; whether a 2xx came back."""
    parts = urlsplit(due.url)
    if parts.scheme != "http" or not is_loopback(parts.hostname):
        return False
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json", "User-Agent": "rebyte-local"}
    if due.secret:
        headers["X-Webhook-Secret"] = due.secret
    body = json.dumps({"event": due.event, "taskId": due.task})
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        return 200 <= connection.getresponse().status < 300
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
