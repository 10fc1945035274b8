"""Which task is taken for a line whose answer was lost, and when nobody can tell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.batch.input import Checker, Fields, Input, read_input
from rebyte_cli.batch.search import Finder, Lost, Verdict
from rebyte_cli.local.server import LOCAL_KEY, Service


class Desk:
    """A service with tasks in it, a file of lines, and a finder that knows some of both."""

    def __init__(self, service: Service) -> None:
        self.client = RebyteClient(LOCAL_KEY, base_url=service.base_url)
        self.flying: set[int] = set()
        self.sought: set[int] = set()
        self.ours: set[str] = set()
        self.history: set[str] = set()
        self.rivals: dict[str, list[str]] = {}
        self.client.list_tasks()  # from here on the service's clock is known
        self.now = self.client.transport.server_now() or datetime.now(UTC)

    def make(self, prompt: str = "Same", **fields: Any) -> str:
        return str(self.client.create_task(prompt, **fields)["id"])

    def find(
        self, *lines: dict[str, Any] | str, lost: Iterable[int] = (0,), mine: Any = None
    ) -> list[Verdict]:
        batch = read(*lines)
        finder = Finder(
            self.client,
            batch,
            mine=range(len(lines)) if mine is None else mine,
            flying=self.flying,
            sought=self.sought,
            ours=self.ours,
            knows=lambda ids: set(ids) & self.history,
            rivals=lambda: self.rivals,
        )
        return finder.find([Lost(at, self.sent(at), 900.0) for at in lost])

    def sent(self, at: int) -> str:
        """The lines were sent in the order of the file, a moment ago."""
        return (self.now - timedelta(seconds=1) + timedelta(milliseconds=at)).isoformat()


def read(*lines: dict[str, Any] | str) -> Input:
    records = [line if isinstance(line, dict) else {"prompt": line} for line in lines]
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return read_input(
        iter(BytesIO(data).readline, b""),
        "t",
        form="jsonl",
        template=None,
        checker=Checker(Fields({}), fresh=False, find_files=lambda path: [path]),
    )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Service(tmp_path / "service") as service:
        yield Desk(service)


def taken(verdicts: list[Verdict]) -> list[str | None]:
    return [None if task is None else task["id"] for _, task, _, _ in verdicts]


def test_the_one_with_its_prompt_is_taken(desk: Desk) -> None:
    desk.make("Other")
    made = desk.make()
    (verdict,) = desk.find("Same", "Other")
    assert (taken([verdict]), verdict.absent, verdict.candidates) == ([made], False, [])


def test_where_there_is_none_it_is_absent(desk: Desk) -> None:
    desk.make("Other")
    assert desk.find("Same") == [Verdict(0, None, True, [])]


def test_a_twin_under_way_may_have_made_it(desk: Desk) -> None:
    made = desk.make()
    desk.flying.add(1)
    assert desk.find("Same", "Same") == [Verdict(0, None, False, [made])]
    desk.flying.clear()
    assert taken(desk.find("Same", "Same")) == [made]


def test_a_twin_that_was_lost_meanwhile_may_have_made_it(desk: Desk) -> None:
    made = desk.make()
    desk.sought.update({0, 1})
    assert desk.find("Same", "Same") == [Verdict(0, None, False, [made])]
    assert taken(desk.find("Same", "Other")) == [made]


def test_others_under_way_and_the_line_itself_cast_no_doubt(desk: Desk) -> None:
    made = desk.make()
    desk.flying.update({0, 1})
    assert taken(desk.find("Same", "Other")) == [made]


def test_a_twin_on_another_machine_may_have_made_it(desk: Desk) -> None:
    made = desk.make()
    assert desk.find("Same", "Other", "Same", mine=[0, 1]) == [Verdict(0, None, False, [made])]
    assert taken(desk.find("Same", "Other", "Other", mine=[0, 1])) == [made]


def test_equal_lines_get_a_task_each_the_first_sent_the_oldest(desk: Desk) -> None:
    first, second = desk.make(), desk.make()
    assert taken(desk.find("Same", "Same", lost=[1, 0])) == [first, second]
    # With one task for two of them, the first has it, and the second has none.
    desk.ours.add(second)
    assert desk.find("Same", "Same", lost=[0, 1])[1] == Verdict(1, None, True, [])


def test_lines_that_differ_beside_their_prompt_are_not_told_apart(desk: Desk) -> None:
    made = {desk.make(), desk.make()}
    verdicts = desk.find({"prompt": "Same", "skills": ["pdf"]}, "Same", lost=[0, 1])
    assert taken(verdicts) == [None, None]
    assert all(set(verdict.candidates) == made for verdict in verdicts)


def test_more_tasks_than_lines_are_not_told_apart(desk: Desk) -> None:
    made = {desk.make(), desk.make()}
    (verdict,) = desk.find("Same")
    assert verdict.task is None
    assert set(verdict.candidates) == made


def test_what_the_journal_names_is_somebodys_already(desk: Desk) -> None:
    desk.ours.add(desk.make())
    assert desk.find("Same") == [Verdict(0, None, True, [])]


def test_what_only_the_history_knows_is_neither_taken_nor_ruled_out(desk: Desk) -> None:
    made = desk.make()
    desk.history.add(made)
    assert desk.find("Same") == [Verdict(0, None, False, [made])]


def test_one_made_before_it_was_sent_is_not_it(desk: Desk) -> None:
    desk.make()
    desk.now += timedelta(minutes=1)
    assert desk.find("Same") == [Verdict(0, None, True, [])]


def test_the_age_of_a_create_counts_by_the_clock_of_the_service(desk: Desk) -> None:
    nobody: dict[str, Any] = {"flying": (), "sought": (), "ours": (), "knows": set, "rivals": dict}
    finder = Finder(desk.client, read("Same"), mine=[0], **nobody)
    sent = desk.now - timedelta(seconds=600)
    # At the least: the few seconds by which clocks may differ are not counted.
    assert 590 <= finder.age(sent.isoformat()) <= 605
