"""A service that makes tasks and counts them, for tests of batches: it cuts, refuses and stalls.

    with Farm(delay=0.05) as farm:
        farm.made["Say hello"]          # how many tasks were made with this prompt

Words in a prompt steer it: `<cut>` makes the task and closes the line, `<cut-before>` closes it
with nothing done, each for the first create of that prompt; `<429>` turns the first away,
`<400>` and `<500>` refuse; `<fail>`, `<cancel>` end so; `<run 2>` takes two seconds.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import Answer, Hangup, Line, RawServer, Request, error_reply, json_reply

if TYPE_CHECKING:
    from tests.conftest import Done

_TASK = re.compile(r"/v1/tasks/([\w-]+)(/content)?$")


class Farm:
    """`delay`: seconds a create takes, after its task was made. `cuts`: the part of the creates
    whose answer is lost at random, half of them before anything was done. `run`: how long tasks
    run. `silent`: content does not tell prompts. `hook` is called for each request first. `until`:
    creates are not answered before it holds.

    What a test may change besides: `shift`, by which its clocks are later than the real one;
    `skew`, by which `Date` is ahead of `createdAt`; `is_naive`, whether `createdAt` has no zone;
    `tells_time`, whether there is a `Date`; `is_sorted`, whether the list is in the order of
    `createdAt` rather than of the creates; `shows`, what becomes of a prompt; `page`, what becomes
    of an answer of the list. All in seconds.
    """

    def __init__(
        self,
        *,
        delay: float = 0.0,
        cuts: float = 0.0,
        run: float = 0.0,
        silent: bool = False,
        hook: Callable[[Request], Answer | None] = lambda _request: None,
        until: Callable[[], object] = lambda: True,
    ) -> None:
        self.delay, self.cuts, self.run, self.silent, self.hook = delay, cuts, run, silent, hook
        self.until = until
        self.made: Counter[str] = Counter()  # prompts to tasks
        self.tried: Counter[str] = Counter()  # prompts to creates
        self.bodies: list[dict[str, Any]] = []  # of creates that made a task
        self.at: list[float] = []  # when creates came in (monotonic)
        self.under_way = 0
        self.most_under_way = 0
        self.tasks: dict[str, dict[str, Any]] = {}
        self.shift = self.skew = 0.0
        self.is_naive, self.tells_time = False, True
        self.is_sorted = False
        self.shows: Callable[[str], str] = lambda prompt: prompt
        self.page: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._random = random.Random(7)
        self.server = RawServer(self._answer)

    def __enter__(self) -> Farm:
        self.server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.server.__exit__(*error)

    @property
    def env(self) -> dict[str, str]:
        """What points the command here."""
        return {"REBYTE_API_URL": self.server.base_url, "REBYTE_API_KEY": "rbk_farm"}

    def _answer(self, request: Request) -> Answer:
        special = self.hook(request)
        if special is not None:
            return special
        url = urlsplit(request.path)
        self.calls[f"{request.method} {'list' if url.query else url.path.count('/')}"] += 1
        if request.method == "POST" and url.path == "/v1/tasks":
            return self._create(request.json)
        if url.path == "/v1/tasks":
            return self._list(parse_qs(url.query))
        found = _TASK.match(url.path)
        if found is None or found[1] not in self.tasks:
            return error_reply(404, "not_found", "Task not found")
        task = self.tasks[found[1]]
        if found[2]:
            asked = None if self.silent else self.shows(task["prompt"])
            return self._reply({"id": task["id"], "prompts": [{"id": "p1", "userPrompt": asked}]})
        return self._reply({**_shown(task), "status": _status(task)})

    def _create(self, body: dict[str, Any]) -> Answer:
        prompt = body["prompt"]
        with self._lock:
            self.tried[prompt] += 1
            first = self.tried[prompt] == 1
            self.at.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            luck = self._random.random()
        if "<429>" in prompt and first:
            return self._after(0, self._refusal(429, "Retry-After: 1"))
        for status in (400, 401, 500):
            if f"<{status}>" in prompt:
                return self._after(0, error_reply(status, f"code_{status}", "No <b>way</b>"))
        if ("<cut-before>" in prompt and first) or luck < self.cuts / 2:
            return self._after(0, None)
        task = self._make(body)
        cut = ("<cut>" in prompt and first) or luck < self.cuts
        answer = {name: task[name] for name in ("id", "workspaceId", "url", "createdAt")}
        return self._after(
            self.delay, None if cut else self._reply({**answer, "status": "running"}, 201)
        )

    def _make(self, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            number = len(self.tasks) + 1
            found = re.search(r"<run ([\d.]+)>", body["prompt"])
            now = time.time()
            task = {
                "id": f"task-{number:05d}",
                "workspaceId": body.get("workspaceId") or f"ws-{number:05d}",
                "url": f"https://app.example/run/task-{number:05d}",
                "prompt": body["prompt"],
                "createdAt": stamp(now + self.shift).removesuffix("Z" if self.is_naive else ""),
                "ends": now + (float(found[1]) if found else self.run),
            }
            self.made[body["prompt"]] += 1
            self.bodies.append(body)
            self.tasks[task["id"]] = task
        return task

    def _after(self, seconds: float, answer: bytes | None) -> Callable[[Line], None]:
        def act(line: Line) -> None:
            if seconds:
                line.wait(seconds)
            end = time.monotonic() + 60  # what the test waits for does not happen: let it end
            while not (self.until() or line.stopped.is_set() or time.monotonic() > end):
                line.wait(0.01)
            with self._lock:
                self.under_way -= 1
            if answer is None:
                raise Hangup(abrupt=True)
            line.send(answer)

        return act

    def _list(self, query: dict[str, list[str]]) -> bytes:
        limit, offset = (int(query.get(name, ["0"])[0]) for name in ("limit", "offset"))
        with self._lock:
            newest = list(self.tasks.values())[::-1]
        if self.is_sorted:
            newest.sort(key=lambda task: str(task["createdAt"]), reverse=True)
        rows = [_shown(task) for task in newest[offset : offset + limit]]
        answer = {"data": rows, "total": len(newest), "limit": limit, "offset": offset}
        return self._reply(self.page(answer))

    def _reply(
        self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> bytes:
        date = formatdate(time.time() + self.shift + self.skew, usegmt=True)
        time_told = {"Date": date} if self.tells_time else {}
        return json_reply(document, status, {**time_told, **(headers or {})})

    def _refusal(self, status: int, header: str) -> bytes:
        name, _, value = header.partition(": ")
        document = {"error": {"code": "rate_limited", "message": "Slow down"}}
        return self._reply(document, status, {name: value})


def _shown(task: dict[str, Any]) -> dict[str, Any]:
    row = {name: task[name] for name in ("id", "url", "createdAt")}
    return {**row, "completedAt": None if _status(task) == "running" else stamp(task["ends"])}


def _status(task: dict[str, Any]) -> str:
    if time.time() < task["ends"]:
        return "running"
    words = {"<fail>": "failed", "<cancel>": "canceled"}
    return next((status for word, status in words.items() if word in task["prompt"]), "completed")


def stamp(seconds: float) -> str:
    """A time as the API writes it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def statuses(done: Done) -> list[str]:
    """The statuses in the results of a batch, in the order of its lines."""
    rows = sorted(done.documents, key=lambda row: int(row["line"]))
    return [row["status"] for row in rows]


def lines_of(text: str) -> list[dict[str, Any]]:
    """JSONL as records."""
    return [json.loads(line) for line in text.splitlines()]
