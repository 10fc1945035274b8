"""Commands beside a history of 200,000 tasks, as a machine in CI has after a year."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from tests.servers import RawServer, Request, json_reply

from .environment import REBYTE, variables
from .measure import Row, ratio

COUNT = 200_000


def rows(home: Path) -> Iterator[Row]:
    """TAB on an id, a task by a prefix of its id, and another task."""
    with RawServer(_answer) as server:
        env = variables(home, REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=server.base_url)
        remember(home, COUNT, server.base_url.removesuffix("/v1"))
        prefix = _id(COUNT // 2)[:8]
        asked = {**env, "_REBYTE_COMPLETE": "bash"}
        tab = ratio([REBYTE, f"rebyte get {prefix}", prefix], asked, 21)
        yield Row(f"{COUNT:,} tasks in the history: TAB on an id", tab, "5 x")
        words = [REBYTE, "get", prefix, "-o", "json"]
        yield Row("  get by a prefix", ratio(words, env), "10.5 x")
        yield Row("  create", ratio([REBYTE, "create", "Say hello"], env), "11.3 x")


def remember(home: Path, count: int, origin: str) -> None:
    """Write a history of so many tasks of one service."""
    history = History(home / "state" / "rebyte" / "history.db", origin=origin)
    history.add_tasks(
        NewTask({"id": _id(number), "workspaceId": f"ws-{number}"}, f"Prompt {number}", {})
        for number in range(count)
    )
    history.close()


def _id(number: int) -> str:
    # The first eight digits differ from task to task, as those of random ids do.
    return f"{number * 20021 % 0xFFFFFFFF:08x}-0000-4000-8000-{number:012d}"


def _answer(request: Request) -> Any:
    task = {"id": request.path.rpartition("/")[2], "status": "completed"}
    if request.method == "POST":
        return json_reply({**task, "id": "new", "status": "running"}, 201)
    return json_reply(task)
