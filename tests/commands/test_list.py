"""`rebyte list`: a status is always true, and is read once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.list import moment
from tests.conftest import Done
from tests.servers import Answer, RawServer, Request, error_reply, json_reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]

ENDS = ("completed", "failed", "canceled")


def task_id(number: int) -> str:
    """Unlike its neighbours' from the first character on, as a UUID is."""
    return f"{number * 2654435761 % 2**32:08x}-0000-4000-8000-{number:012d}"


class Tasks:
    """A service with `count` tasks, newest first, of which every fifth runs unless `all_ended`."""

    def __init__(self, count: int, *, all_ended: bool = True) -> None:
        self.count = count
        self.all_ended = all_ended
        self.ends = dict.fromkeys(map(task_id, range(count)), "2026-02-09T10:15:00.000Z")
        self.numbers = {task_id(number): number for number in range(count)}
        self.broken: set[str] = set()
        self.statuses: dict[int, str] = {}  # other than they would be

    def status(self, number: int) -> str:
        running = not self.all_ended and number % 5 == 0
        return self.statuses.get(number, "running" if running else ENDS[number % 3])

    def row(self, number: int) -> dict[str, Any]:
        name, running = task_id(number), self.status(number) == "running"
        return {
            "id": name,
            "title": f"Task {number}",
            "createdAt": "2026-02-09T10:05:00.000Z",
            "completedAt": None if running else self.ends[name],
        }

    def __call__(self, request: Request) -> bytes:
        url = urlsplit(request.path)
        name = url.path.rpartition("/")[2]
        if name in self.broken:
            return error_reply(400, "odd", "Not today")
        if name in self.numbers:
            number = self.numbers[name]
            return json_reply({**self.row(number), "status": self.status(number), "prompts": []})
        if name != "tasks":
            return error_reply(404, "not_found", f"Task not found: {name}")
        query = {key: int(value[0]) for key, value in parse_qs(url.query).items()}
        limit, offset = query["limit"], query["offset"]
        rows = [self.row(n) for n in range(offset, min(offset + limit, self.count))]
        return json_reply({"data": rows, "total": self.count, "limit": limit, "offset": offset})


def reads(server: RawServer) -> tuple[int, int]:
    """How many pages and how many tasks were asked for since the last call."""
    paths = [request.path for request in server.requests if "/content" not in request.path]
    server.requests.clear()
    pages = sum("?" in path for path in paths)
    return pages, len(paths) - pages


def test_the_second_list_of_fifty_finished_tasks_makes_one_request(inside: Run, aim: Aim) -> None:
    tasks = Tasks(50)
    expected = [tasks.status(number) for number in range(50)]
    with RawServer(tasks) as server:
        aim(server)
        first = inside("list", "-o", "json")
        assert [row["status"] for row in first.json["data"]] == expected
        assert reads(server) == (1, 50)
        for form in ("json", "jsonl", "table", "csv", "tsv"):
            done = inside("list", "-o", form)
            assert (done.status, done.err) == (0, "")
            words = re.findall("completed(?!At)|failed|canceled", done.out)
            assert words == expected, form
            assert reads(server) == (1, 0), form
        assert inside("list", "--status", "failed", "-o", "id").out.split() == [
            task_id(number) for number in range(50) if tasks.status(number) == "failed"
        ]
        assert reads(server) == (1, 0)


def test_a_task_without_an_end_is_running_and_not_read(inside: Run, aim: Aim) -> None:
    tasks = Tasks(10, all_ended=False)
    with RawServer(tasks) as server:
        aim(server)
        rows = inside("list").json["data"]
        assert [row["status"] for row in rows] == [tasks.status(number) for number in range(10)]
        assert reads(server) == (1, 8)


def test_a_changed_end_of_a_task_is_read_again(inside: Run, aim: Aim) -> None:
    """A follow-up may fail what was completed: the end that was seen says nothing about it."""
    tasks = Tasks(3)
    with RawServer(tasks) as server:
        aim(server)
        inside("list")
        assert reads(server) == (1, 3)
        tasks.ends[task_id(0)] = "2026-02-09T11:00:00.000Z"
        tasks.statuses[0] = "failed"
        assert inside("list").json["data"][0]["status"] == "failed"
        assert reads(server) == (1, 1)


def test_a_task_that_was_waited_for_is_not_read_again(inside_local: Run) -> None:
    inside_local("create", "Bad [[fail]]", "--wait")
    done = inside_local("list", "-v")
    assert done.json["data"][0]["status"] == "failed"
    assert len(done.err.splitlines()) == 1, done.err


def test_a_long_list_reads_a_hundred_tasks_or_all_on_request(inside: Run, aim: Aim) -> None:
    tasks = Tasks(230)
    with RawServer(tasks) as server:
        aim(server)
        rows = [
            json.loads(line) for line in inside("list", "--all", "-o", "jsonl").out.splitlines()
        ]
        statuses = [row["status"] for row in rows]
        assert statuses == [*map(tasks.status, range(100)), *[None] * 130]
        assert reads(server) == (3, 100)
        asked = inside("list", "--all", "--fields", "status", "-o", "tsv").out.split()[1:]
        assert asked == list(map(tasks.status, range(230)))
        assert reads(server) == (3, 130)


@pytest.mark.parametrize("words", [["--no-status"], ["--fields", "id,title"], ["-o", "id"]])
def test_no_task_is_read_for_a_status_that_is_not_shown(
    inside: Run, aim: Aim, words: list[str]
) -> None:
    with RawServer(Tasks(20)) as server:
        aim(server)
        done = inside("list", *words)
        assert (done.status, reads(server)) == (0, (1, 0))
        assert "status" not in done.out
        assert inside("list", "--no-status", "--status", "failed").status == 2
        assert inside("list", "--no-status", "--fields", "status").status == 2


def test_a_status_that_cannot_be_read_is_null_and_told_once(inside: Run, aim: Aim) -> None:
    tasks = Tasks(4)
    tasks.broken = {task_id(1), task_id(2)}
    with RawServer(tasks) as server:
        aim(server)
        done = inside("list", "-o", "json")
        assert [row["status"] for row in done.json["data"]] == [
            "completed",
            None,
            None,
            "completed",
        ]
        assert done.status == 0
        assert done.err.startswith("Could not read the status of 2 tasks: ")
        table = inside("list", "-o", "table").out.splitlines()
        assert [line.split()[1] for line in table[1:]] == [
            "completed",
            "ended",
            "ended",
            "completed",
        ]
        assert inside("list", "--status", "failed").status == 1  # what matches is not known


@pytest.mark.slow
def test_running_tasks_are_checked_for_questions_where_they_are_shown(
    inside: Run, aim: Aim
) -> None:
    tasks = Tasks(510, all_ended=False)  # 102 of them run
    with RawServer(tasks) as server:
        aim(server)
        inside("list", "--all", "--fields", "status", "-o", "json")
        for words, most in (
            (["-o", "json"], 100),
            (["-o", "table"], 100),
            (["-o", "csv"], 100),
            (["--fields", "question", "-o", "jsonl"], 102),
            (["--status", "waiting"], 102),
            (["--fields", "id,status", "-o", "json"], 0),
            (["--no-status", "-o", "csv"], 0),
            (["--no-status"], 0),
            (["-o", "id"], 0),
            (["--fields", "title"], 0),
        ):
            server.requests.clear()
            done = inside("list", "--all", *words)
            looks = [request for request in server.requests if "/content" in request.path]
            left_out = "running tasks were not checked for a question" in done.err
            # A busy machine may not ask about a hundred in the five seconds that there are.
            assert len(looks) == most or (most == 100 and 0 < len(looks) < most), words
            assert left_out == (most == 100), words


def test_a_service_that_is_slow_to_tell_questions_holds_nothing_up(inside: Run, aim: Aim) -> None:
    tasks = Tasks(40)
    tasks.statuses = dict.fromkeys(range(40), "running")

    def mute(request: Request) -> Answer:
        return tasks(request) if "/content" not in request.path else lambda line: line.wait(60)

    with RawServer(mute) as server:
        aim(server)
        done = inside("list", "-o", "table")
    assert done.out.count("running") == 40
    assert "40 running tasks were not checked for a question" in done.err


@pytest.mark.parametrize("form", ["table", "csv", "tsv"])
def test_a_run_that_waits_behind_many_that_run_is_shown_as_waiting(
    inside_local: Run, form: str
) -> None:
    inside_local("create", "Asks [[ask]] [[run=1ms]]")
    inside_local("batch", "-", "--text", "--no-wait", "--journal", "j", stdin="[[run=1h]]\n" * 25)
    rows = inside_local("list", "-o", form, "--fields", "status").out.split()
    assert rows == ["STATUS" if form == "table" else "status", *["running"] * 25, "waiting"]
    assert inside_local("list", "-o", "json").json["data"][-1]["status"] == "running"
    only = inside_local("list", "-o", form, "--status", "waiting").out.splitlines()
    assert len(only) == 2
    assert "waiting" in only[1]
    assert "running" not in only[1]
    assert "question" not in only[0]


def test_the_total_is_that_of_what_matches(inside: Run, aim: Aim) -> None:
    tasks = Tasks(213)
    failed = sum(tasks.status(number) == "failed" for number in range(213))
    with RawServer(tasks) as server:
        aim(server)

        def envelope(*words: str) -> tuple[Any, Any, int]:
            found = inside("list", "-o", "json", *words).json
            return found["total"], found["limit"], len(found["data"])

        assert envelope("--no-status") == (213, 50, 50)
        assert envelope("--no-status", "--all") == (213, 213, 213)
        assert envelope("--status", "failed", "--all") == (failed, failed, failed)
        assert envelope("--status", "failed", "-n", "100") == (failed, 100, failed)
        assert envelope("--status", "failed", "-n", "3") == (None, 3, 3)  # not read to its end
        assert envelope("--no-status", "--search", "task 21") == (4, 50, 4)
        assert envelope("--no-status", "--search", "task 21", "--offset", "100") == (None, 50, 3)


def test_runs_that_wait_are_found_by_that_status(inside_local: Run) -> None:
    inside_local("create", "Quick [[fail]] [[run=1ms]]")
    asks = inside_local("create", "Asks [[ask]] [[run=2ms]]")
    runs = inside_local("create", "Runs [[run=60s]]").json["id"]

    def listed(status: str) -> list[str]:
        return inside_local("list", "--status", status, "-o", "id").out.split()

    assert listed("waiting") == [asks.json["id"]]
    assert listed("running") == [runs, asks.json["id"]]  # as the API calls both
    assert len(listed("waiting,failed")) == 2
    assert inside_local("list", "--status", "waiting").json["data"][0]["question"] is True


def test_a_status_may_be_spelled_as_the_british_do(inside_local: Run) -> None:
    made = inside_local("create", "Stop [[cancel]] [[run=1ms]]", "--wait").json["id"]
    assert inside_local("list", "--status", "Cancelled", "-o", "id").out.split() == [made]


@pytest.mark.parametrize(
    ("text", "start"),
    [("today", "2026-02-09T00:00:00"), ("Yesterday", "2026-02-08T00:00:00")],
)
def test_days_begin_at_midnight_here(text: str, start: str) -> None:
    now = datetime.fromisoformat("2026-02-09T10:35:00").astimezone()
    assert moment(text, now=now) == datetime.fromisoformat(start).astimezone()


@pytest.mark.parametrize("text", ["0001-01-01", "99999999d", "soon"])
def test_a_time_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(BadUsage, match="is not a time"):
        moment(text)


def test_several_statuses_are_taken(inside: Run, aim: Aim) -> None:
    tasks = Tasks(10, all_ended=False)
    wanted = [task_id(n) for n in range(10) if tasks.status(n) in ("running", "failed")]
    with RawServer(tasks) as server:
        aim(server)
        for words in (
            ["--status", "running", "--status", "failed"],
            ["--status", "failed,running"],
        ):
            assert inside("list", *words, "-o", "id").out.split() == wanted
        mistyped = inside("list", "--status", "failed,complete")
        assert (mistyped.status, "complete" in mistyped.err) == (2, True)


def test_ids_that_were_listed_answer_by_prefix(inside: Run, aim: Aim) -> None:
    with RawServer(Tasks(20)) as server:
        aim(server)
        assert inside("get", task_id(7)[:8]).status == 4  # shown nowhere so far
        inside("list", "-o", "id")
        assert inside("get", task_id(7)[:8]).json["id"] == task_id(7)


def test_an_id_that_was_read_answers_by_prefix(inside: Run, aim: Aim) -> None:
    with RawServer(Tasks(3)) as server:
        aim(server)
        inside("get", task_id(2))
        assert inside("get", task_id(2)[:6]).json["id"] == task_id(2)


def test_a_list_writes_nothing_with_the_history_off(inside: Run, aim: Aim, home: Path) -> None:
    config = home / ".config" / "rebyte"
    config.mkdir(parents=True)
    (config / "config.toml").write_text("[profiles.default]\nhistory = false\n")
    (config / "config.toml").chmod(0o600)
    with RawServer(Tasks(5)) as server:
        aim(server)
        for _ in range(2):
            assert inside("list").json["data"][1]["status"] == "failed"
            assert reads(server) == (1, 5)
    assert not list(home.rglob("history.db"))


def test_a_table_of_a_part_says_how_much_there_is(inside: Run, aim: Aim) -> None:
    with RawServer(Tasks(213)) as server:
        aim(server)
        words = ["list", "-o", "table", "--no-status"]
        assert inside(*words).err == "50 of 213 tasks; --all shows all\n"
        assert inside(*words, "--limit", "120").err == "120 of 213 tasks; --all shows all\n"
        assert inside(*words, "-q").err == ""
        for more in (["--all"], ["--offset", "200"], ["-o", "json"]):
            assert inside(*words, *more).err == "", more


def test_a_part_of_the_list_in_a_pipe_says_so_too(inside: Run, aim: Aim) -> None:
    """A loop over the ids would take the part for the whole."""
    with RawServer(Tasks(213)) as server:
        aim(server)
        for form in ("id", "csv", "tsv", "jsonl"):
            assert inside("list", "-o", form, "--no-status").err == (
                "50 of 213 tasks; --all shows all\n"
            )
        assert not inside("list", "-o", "json", "--no-status").err  # its `total` says so
        assert not inside("list", "-o", "id", "--limit", "20").err  # asked for
        assert not inside("list", "-o", "id", "--all").err


def test_a_filtered_part_of_the_list_says_so(inside: Run, aim: Aim) -> None:
    with RawServer(Tasks(213)) as server:
        aim(server)
        words = ["list", "--since", "2000-01-01", "--no-status"]
        note = "The first 50 that match; --all shows all\n"
        for form in ("id", "table"):
            done = inside(*words, "-o", form)
            assert done.err == note
            assert not inside(*words, "-o", form, "--all").err
        assert not inside("list", "--search", "nothing such", "-o", "id").err
