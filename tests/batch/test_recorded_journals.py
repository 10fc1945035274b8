"""Journals of an earlier version, one per state of a line, resumed: nothing is sent twice or lost.

They do not tell where the list stood, so that nothing proves that a lost line made nothing.

`journals.json` has, by state: the lines of the input, the tasks that the service had in the end,
and the journal. ORIGIN stands for the service, and all times are moved to an hour ago.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import Answer, Request, json_reply

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("journals.json").read_text())
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}Z|\+00:00)")

# By state: the status of each line after the next run, and the prompts that this run sends.
RESUMED: dict[str, tuple[list[str], list[str]]] = {
    "refused, and new behind it": (["refused", "completed"], ["Two"]),
    "sending, with tasks": (["completed", "completed"], []),
    "sending, without tasks": (["unknown", "unknown"], []),
    "unsent": (["completed", "completed"], ["One <401>", "Two"]),
    "running": (["completed", "completed"], []),
    "found": (["completed"], []),
    "ended": (["completed", "failed", "canceled"], []),
    "gone": (["gone"], []),
    "refused by a fault": (["refused"], []),
    "unknown, with candidates": (["completed", "completed"], []),
    "unknown, without candidates": (["unknown"], []),
    "resolved by hand": (["completed"], []),
    "resolved with none": (["completed"], ["One <cut-before>"]),
    "sent again": (["completed"], []),
    "running, with a line that follows": (["completed", "completed"], ["Two"]),
}


def an_hour_ago(state: str) -> dict[str, Any]:
    """What was recorded of a state, as if it had happened an hour ago."""
    text = json.dumps(RECORDED[state])
    moments = [datetime.fromisoformat(found[0]) for found in _TIME.finditer(text)]
    moved = datetime.now(UTC) - timedelta(hours=1) - max(moments)

    def move(found: re.Match[str]) -> str:
        moment = datetime.fromisoformat(found[0]) + moved
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    recorded: dict[str, Any] = json.loads(_TIME.sub(move, text))
    return recorded


def put(home: Path, farm: Farm, recorded: dict[str, Any]) -> None:
    """Write the input and the journal, and give the service its tasks, which have ended by now."""
    lines = "".join(json.dumps(line) + "\n" for line in recorded["lines"])
    (home / "t.jsonl").write_text(lines)
    journal = "".join(f"{record}\n" for record in recorded["journal"])
    (home / "t.jsonl.journal").write_text(journal.replace("ORIGIN", farm.server.origin))
    for task in recorded["tasks"]:
        farm.tasks[task["id"]] = {**task, "ends": 0.0}
    # The first create of each prompt was tried when this was recorded.
    farm.tried.update(line["prompt"] for line in recorded["lines"])
    farm.hook = partial(with_a_right_key, farm)


def with_a_right_key(farm: Farm, request: Request) -> Answer | None:
    """What was turned away with 401 is made now."""
    if request.method != "POST" or "<401>" not in request.json["prompt"]:
        return None
    farm.tried[request.json["prompt"]] += 1
    task = farm._make(request.json)
    return json_reply({"id": task["id"], "createdAt": task["createdAt"], "status": "running"}, 201)


@pytest.mark.parametrize("state", RECORDED)
def test_a_batch_that_an_earlier_version_began_is_resumed(
    state: str, home: Path, pace: Callable[..., None]
) -> None:
    # Three scans have to fit into a search, also on a busy machine.
    pace(look_for=4.0, first_pause=0.1, later=30.0, skew=0.1)
    recorded = an_hour_ago(state)
    statuses, sent = RESUMED[state]
    with Farm() as farm:
        put(home, farm, recorded)
        before = farm.tried.copy()
        shown = inside("batch", "t.jsonl", "--status", cwd=home, env=farm.env)
        assert len(lines_of(shown.out)) == len(recorded["lines"])
        done = inside("batch", "t.jsonl", "--timeout", "60", cwd=home, env=farm.env)
        rows = {row["line"]: row for row in lines_of(done.out)}
        assert [rows[number]["status"] for number in sorted(rows)] == statuses, done.err
        assert sorted((farm.tried - before).elements()) == sorted(sent)
        for number, row in rows.items():  # each has its own task
            prompt = recorded["lines"][number - 1]["prompt"]
            assert row["id"] not in farm.tasks or farm.tasks[row["id"]]["prompt"] == prompt
        again = inside("batch", "t.jsonl", cwd=home, env=farm.env)
        if done.status in (0, 10):  # what it wrote can be read again
            assert again.status == done.status
            assert lines_of(again.out) == [rows[number] for number in sorted(rows)]


def test_every_kind_of_record_is_among_them() -> None:
    records = chain.from_iterable(recorded["journal"] for recorded in RECORDED.values())
    kinds = re.findall(r'"is":"(\w+)"', "".join(records))
    assert set(kinds) == {"sending", "unsent", "created", "ended", "refused", "unknown"}
