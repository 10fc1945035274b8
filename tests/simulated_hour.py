"""An hour that passes in seconds, and a service that fails one call in five during it.

`SimulatedHour` is a clock that moves on only while no request is under way, so that a busy machine
never turns into a late one: its threads wait on it instead of on the real clock.

    with SimulatedHour() as hour, FaultyService(hour) as service:
        ...
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from datetime import datetime, tzinfo
from email.utils import formatdate
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.farm import stamp
from tests.servers import Answer, RawServer, Request, error_reply, json_reply, reply, then_close

STEP = 4.0  # seconds of the hour ...
TICK = 0.0025  # ... in so many real ones, on a machine that wakes threads in time
PATIENCE = 8  # times as long as a thread was late to wake, which is how busy the machine is


class SimulatedHour:
    """Seconds since its beginning, for any number of threads."""

    def __init__(self) -> None:
        self.now = 0.0
        self._began = time.time()
        self.under_way = 0  # requests that the service is answering
        self.last_request = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._pass, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _pass(self) -> None:
        late = 0.0
        while True:
            pause, since = TICK + PATIENCE * late, time.monotonic()
            if self._over.wait(pause):
                return
            late = max(time.monotonic() - since - pause, late * 0.8)
            if not self.under_way and time.monotonic() - self.last_request >= TICK:
                self.now += STEP

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return self._began + self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            time.sleep(TICK)

    def wait(self, condition: threading.Condition, seconds: float | None = None) -> bool:
        """As `threading.Condition.wait`, and like that it may end early; the caller checks again.

        It does so at every tick: a notification that meets the end of a tick would be lost.
        """
        if seconds is not None and seconds <= 0:
            return False
        return threading.Condition.wait(condition, TICK)

    def modules(self) -> dict[str, Any]:
        """What a module finds under these names during this hour."""
        hour = self

        class Condition(threading.Condition):
            def wait(self, timeout: float | None = None) -> bool:
                return hour.wait(self, timeout)

        class Datetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return cls.fromtimestamp(hour.wall(), tz)

        class Queue(SimpleQueue[Any]):
            def get(self, block: bool = True, timeout: float | None = None) -> Any:
                until = hour.now + (float("inf") if timeout is None else timeout)
                while True:
                    try:
                        return super().get(block, TICK)
                    except Empty:
                        if hour.now >= until:
                            raise

        return {
            "time": SimpleNamespace(monotonic=self.clock, sleep=self.sleep),
            "threading": SimpleNamespace(Condition=Condition, Thread=threading.Thread),
            "SimpleQueue": Queue,
            "datetime": Datetime,
        }


def _before(kind: str) -> bool:
    return not kind.endswith("after")


class FaultyService:
    """Makes tasks that run for `[N]` seconds, as their prompt says, and then complete, or fail
    with `!`. One call in five goes wrong, in the ways of `KINDS` in turn; a create that goes
    wrong `after` has made its task.
    """

    KINDS = (
        "reset before", "reset after", "closed before", "closed after", "stall before",
        "stall after", "502 before", "502 after", "503 before", "504 after", "429 before",
        "429 before long", "cut after", "html after", "broken after", "not http after",
    )  # fmt: skip

    def __init__(self, hour: Any, *, faults: float = 0.2) -> None:
        self.hour = hour
        self.faults = faults
        self.tasks: dict[str, dict[str, Any]] = {}
        self.made: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.calls = 0
        self._turn = 0
        self._luck = random.Random(11)
        self._lock = threading.Lock()
        self.server = RawServer(self._answer)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.__exit__(None, None, None)

    def add(self, prompt: str) -> dict[str, Any]:
        """Make a task."""
        length = float(re.findall(r"\[(\d+)\]", prompt)[0])
        with self._lock:
            number = len(self.tasks) + 1
            now = self.hour.wall()
            task = {"id": f"task-{number:05d}", "workspaceId": f"ws-{number}", "prompt": prompt,
                    "url": f"https://app.example/run/{number}", "createdAt": stamp(now),
                    "ends": now + length}  # fmt: skip
            self.tasks[str(task["id"])] = task
            self.made[prompt] += 1
        return task

    def _answer(self, request: Request) -> Answer:
        self.server.requests.clear()  # an hour of them would be most of the memory
        with self._lock:
            self.calls += 1
            kind = "" if self._luck.random() >= self.faults else self.KINDS[self._turn]
            if kind:
                self._turn = (self._turn + 1) % len(self.KINDS)
                self.failed[kind] += 1
        self.hour.under_way += 1
        self.hour.last_request = time.monotonic()
        try:
            answer = json_reply({}) if kind and _before(kind) else self._healthy(request)
        finally:
            self.hour.under_way -= 1
        return answer if not kind else self._wrong(kind, answer)

    def _wrong(self, kind: str, answer: bytes) -> Answer:
        date = {"Date": formatdate(self.hour.wall(), usegmt=True)}
        if kind.startswith("reset"):
            return then_close(b"", abrupt=True)
        if kind.startswith("closed"):
            return then_close(b"")
        if kind.startswith("stall"):
            return lambda line: line.wait(20)
        if kind.startswith("cut"):
            return then_close(answer[:-3])
        if kind.startswith("html"):
            return reply(200, "<html>Sign in</html>", {"Content-Type": "text/html", **date})
        if kind.startswith("broken"):
            return reply(200, '{"id": "task-', date)
        if kind.startswith("not http"):
            return then_close(b"SSH-2.0-OpenSSH\r\n")
        after = {"Retry-After": "40"} if kind.endswith("long") else {}
        document = {"error": {"code": "told", "message": "Not now"}}
        return json_reply(document, int(kind[:3]), {**date, **after})

    def _healthy(self, request: Request) -> bytes:
        url = urlsplit(request.path)
        date = {"Date": formatdate(self.hour.wall(), usegmt=True)}
        if request.method == "POST":
            task = self.add(request.json["prompt"])
            names = ("id", "workspaceId", "url", "createdAt")
            return json_reply(
                {**{name: task[name] for name in names}, "status": "running"}, 201, date
            )
        if url.path == "/v1/tasks":
            query = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            with self._lock:
                rows = list(self.tasks.values())[::-1]
            page = [self._row(row) for row in rows[query["offset"] :][: query["limit"]]]
            return json_reply({"data": page, "total": len(rows), **query}, 200, date)
        found = self.tasks.get(url.path.split("/")[3])
        if found is None:
            return error_reply(404, "not_found", "Task not found")
        if url.path.endswith("/content"):
            prompts = [{"id": "p1", "userPrompt": found["prompt"]}]
            return json_reply({"id": found["id"], "prompts": prompts}, 200, date)
        return json_reply({**self._row(found), "status": self.status(found)}, 200, date)

    def _row(self, task: dict[str, Any]) -> dict[str, Any]:
        over = self.hour.wall() >= task["ends"]
        row = {name: task[name] for name in ("id", "url", "createdAt")}
        return {**row, "completedAt": stamp(task["ends"]) if over else None}

    def status(self, task: dict[str, Any]) -> str:
        if self.hour.wall() < task["ends"]:
            return "running"
        return "failed" if task["prompt"].endswith("!") else "completed"
