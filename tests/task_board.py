"""A server that only lists and shows tasks, exactly as a test tells it to, and counts requests.

The local service is too honest for some tests of waiting: it cannot forget `completedAt`, leave
tasks out of its list, or be down for five minutes of a clock that is not the real one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import RebyteError
from rebyte_cli.system.deadline import Deadline

ENDED = "2026-02-09T10:05:00.000Z"


class Board:
    """Tasks by id, newest last, and the `contents` of those that have any.

    `requests` are the paths asked for so far.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, dict[str, Any]] = {}
        self.unlisted: set[str] = set()
        self.stale: set[str] = set()  # ids whose rows always show the same old end
        self.rows_tell = True  # whether rows of the list have their `completedAt`
        self.page = 100  # the most rows of one page
        self.answers: Callable[[str], int] = lambda _path: 200  # the status for a path
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self) -> RebyteClient:
        url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        transport = Transport(url, "rbk_test", sleep=lambda _seconds: None)
        return RebyteClient(transport=transport)

    def add(self, *ids: str) -> None:
        for task_id in ids:
            self.tasks[task_id] = {"id": task_id, "status": "running", "completedAt": None}

    def end(self, *ids: str, status: str = "completed") -> None:
        for task_id in ids:
            self.tasks[task_id].update(status=status, completedAt=ENDED)

    def answer(self, target: str) -> tuple[int, Any]:
        self.requests.append(target)
        status = self.answers(target)
        if status != 200:
            return status, {"error": {"code": "told", "message": f"told to say {status}"}}
        parts = urlsplit(target)
        if parts.path != "/v1/tasks":
            task_id, _, part = parts.path.removeprefix("/v1/tasks/").partition("/")
            found = (self.contents if part == "content" else self.tasks).get(task_id)
            missing = {"error": {"code": "not_found", "message": "Task not found"}}
            return (404, missing) if found is None else (200, found)
        query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        limit, offset = min(query["limit"], self.page), query["offset"]
        rows = [
            {"id": task["id"], "completedAt": self._completed_at(task)}
            for task in reversed(self.tasks.values())
            if task["id"] not in self.unlisted
        ]
        page = rows[offset : offset + limit]
        return 200, {"data": page, "total": len(rows), "limit": limit, "offset": offset}

    def _completed_at(self, task: dict[str, Any]) -> str | None:
        if task["id"] in self.stale:
            return "2026-02-09T09:00:00.000Z"
        return task["completedAt"] if self.rows_tell else None


def _handler(board: Board) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, document = board.answer(self.path)
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(ConnectionError):  # a client that has heard enough hangs up
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as in the base
            """Nothing: the test's output is for pytest."""

    return Handler


class Time:
    """A clock that moves only while a caller sleeps; `at[5.0] = fn` runs fn five seconds in."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: dict[float, Callable[[], object]] = {}
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def deadline(self, seconds: float | None = None) -> Deadline:
        """A limit on this clock."""
        return Deadline(seconds, clock=self.clock)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        assert len(self.slept) < 5000, "it waits for ever"
        self.slept.append(seconds)
        self.now += seconds
        for moment in sorted(self.at):
            if moment <= self.now:
                self.at.pop(moment)()

    def pause(self, seconds: float, _pending: object) -> dict[str, RebyteError]:
        """Sleep between two rounds of a wait."""
        self.sleep(seconds)
        return {}
