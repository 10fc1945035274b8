"""Outbound webhooks: registering them (rebyte-api 2.14, docs). Sending is in `deliveries`.

As in the docs a known URL gives the existing webhook, and three is the limit. `http` is taken
for loopback addresses, since that is the only place where anything is delivered.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

from . import http
from .database import Store, new_id
from .http import Context, Document
from .records import Task, load_tasks
from .schedule import NEVER, task_status

LIMIT = 3
EVENTS = ("task.created", "task.running", "task.completed", "task.failed", "task.canceled")


def create(context: Context, request: Request) -> Response:
    """POST /webhooks: 201, or 200 with the webhook that has this URL already."""
    body = http.body_of(request)
    url = http.text(body, "url", most=2000)
    if not _acceptable(url):
        http.invalid("url must use https (http is taken for loopback addresses only)")
    events = http.strings(body, "events")
    if not events:
        http.invalid("events must name at least one event")
    if not set(events) <= set(EVENTS):
        http.invalid(f"events must be among {', '.join(EVENTS)}")
    description = http.optional_text(body, "description", most=500)
    secret = http.optional_text(body, "secret", most=500)
    if secret and not (secret.isascii() and secret.isprintable()):
        http.invalid("secret must be printable ASCII, since it is sent in a header")
    with context.store.write() as db:
        known = db.execute("SELECT * FROM webhooks WHERE url = ?", (url,)).fetchone()
        if known is not None:
            return http.reply(_shown(known))
        if db.execute("SELECT count(*) FROM webhooks").fetchone()[0] >= LIMIT:
            raise http.Refusal(400, "limit_exceeded", f"Webhook limit reached ({LIMIT})")
        webhook = new_id()
        db.execute(
            "INSERT INTO webhooks (id, url, events, description, secret, created)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (webhook, url, json.dumps(events), description, secret, context.store.now()),
        )
        row = _load(db, webhook)
    return http.reply(_shown(row), 201)


def list_all(context: Context, _request: Request) -> Response:
    """GET /webhooks: under `webhooks`, oldest first."""
    with context.store.read() as db:
        rows = db.execute("SELECT * FROM webhooks ORDER BY seq").fetchall()
    return http.reply({"webhooks": [_shown(row) for row in rows]})


def get(context: Context, _request: Request, webhook: str) -> Response:
    """GET /webhooks/{id}; never with the secret."""
    with context.store.read() as db:
        return http.reply(_shown(_load(db, webhook)))


def delete(context: Context, _request: Request, webhook: str) -> Response:
    """DELETE /webhooks/{id}."""
    with context.store.write() as db:
        _load(db, webhook)
        db.execute("DELETE FROM webhooks WHERE id = ?", (webhook,))
    return http.empty()


def public_key(_context: Context, _request: Request) -> Response:
    """GET /webhooks/public_key: 404, since nothing here is signed."""
    message = "there is none, since the local service does not sign what it delivers"
    raise http.Refusal(404, "not_found", message)


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address means this machine."""
    if host in ("localhost", "::1"):
        return True
    parts = (host or "").split(".")
    digits = len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts)
    return digits and parts[0] == "127"


def _acceptable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def _load(db: sqlite3.Connection, webhook: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM webhooks WHERE id = ?", (webhook,)
    ).fetchone()
    if row is None:
        raise http.missing("Webhook")
    return row


def _shown(row: sqlite3.Row) -> Document:
    return {
        "id": row["id"],
        "url": row["url"],
        "events": json.loads(row["events"]),
        "description": row["description"],
        "hasSecret": bool(row["secret"]),
        "isActive": True,
        "createdAt": http.stamp(row["created"]),
        "lastTriggeredAt": http.maybe_stamp(row["triggered"]),
        "failureCount": row["failures"],
    }


# -- Sending webhooks: POSTs to loopback addresses, each event once, by whoever is alive.

LOOK_SECONDS = 0.1
TIMEOUT_SECONDS = 5.0


class Due(NamedTuple):
    """One claimed delivery."""

    webhook: str
    url: str
    secret: str | None
    event: str
    task: str


def occurrences(task: Task, now: int) -> list[tuple[int, str]]:
    """What happened to a task until `now`: (moment, event name), in order."""
    result = [(task.created, "task.created")]
    busy_until = -1
    for index, (prompt, span) in enumerate(zip(task.prompts, task.times, strict=True)):
        ran = prompt.canceled is None or prompt.canceled > span.start
        if ran and prompt.submitted >= busy_until and span.start < NEVER:
            result.append((span.start, "task.running"))
        busy_until = span.end
        later = task.prompts[index + 1 :]
        if span.end < NEVER and not any(one.submitted < span.end for one in later):
            word = task_status([span], span.end)
            result.append((span.end, f"task.{word}"))
    return [(at, event) for at, event in result if at <= now]


class Deliverer:
    """A daemon thread that sends what is due, until it is stopped."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = threading.Event()
        self._ending = False
        self._seen, self._next = -1, NEVER
        self._tried: set[tuple[int, Due]] = set()
        self._thread = threading.Thread(target=self._run, name="rebyte-webhooks", daemon=True)

    def start(self) -> None:
        """Start looking every tenth of a second."""
        self._thread.start()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def stop(self) -> None:
        """Send what is due at this moment, then end."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_SECONDS)

    def _run(self) -> None:
        ending, pause = False, LOOK_SECONDS
        with self._store.read() as db:
            while not ending:
                self._wake.wait(pause)
                self._wake.clear()
                ending = self._ending
                began = time.monotonic()
                try:
                    for due in self._look(db):
                        self._settle(due, _send(due))
                except sqlite3.Error:
                    continue  # busy beyond patience, or the folder is gone: look again later
                # Thousands of running tasks must not keep a core busy.
                pause = max(LOOK_SECONDS, 4 * (time.monotonic() - began))

    def _look(self, db: sqlite3.Connection) -> list[Due]:
        """What is due now and was claimed for this process, in order of time."""
        now = self._store.now()
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen and now < self._next:
            return []
        hooks = db.execute("SELECT * FROM webhooks ORDER BY seq").fetchall()
        rows = db.execute("SELECT * FROM tasks WHERE unsettled = 1").fetchall() if hooks else []
        self._seen, self._next = version, NEVER
        found: set[tuple[int, Due]] = set()
        over: list[tuple[str, int]] = []
        for task in load_tasks(db, rows):
            until = now if task.deleted is None else min(now, task.deleted)
            for at, event in occurrences(task, until):
                found |= {
                    (at, Due(hook["id"], hook["url"], hook["secret"], event, task.id))
                    for hook in hooks
                    if at >= hook["created"] and event in json.loads(hook["events"])
                }
            coming = [at for span in task.times for at in span[:2] if at > now]
            if task.deleted is not None or not coming:
                over.append((task.id, len(task.prompts)))
            self._next = min([self._next, *coming])
        fresh, self._tried = found - self._tried, found
        return self._claim(sorted(fresh), over) if fresh or over else []

    def _claim(self, fresh: list[tuple[int, Due]], over: list[tuple[str, int]]) -> list[Due]:
        with self._store.write() as db:
            claimed = [
                due
                for at, due in fresh
                if db.execute(
                    "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)",
                    (due.webhook, due.task, due.event, at),
                ).rowcount
            ]
            # Unless a follow-up arrived since the look, these tasks have nothing left to tell.
            db.executemany(
                "UPDATE tasks SET unsettled = 0 WHERE id = ?"
                " AND ? = (SELECT count(*) FROM prompts WHERE task = tasks.id)",
                over,
            )
        return claimed

    def _settle(self, due: Due, arrived: bool) -> None:
        with self._store.write() as db:
            db.execute(
                "UPDATE webhooks SET triggered = ?, failures = failures + ? WHERE id = ?",
                (self._store.now(), not arrived, due.webhook),
            )


def _send(due: Due) -> bool:
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
