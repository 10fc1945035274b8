"""The search for a lost create: how far the list is read, and which transcripts.

A server of our own, since the local service has neither hundreds of tasks nor a list that moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.tasks.search import PAGES, READS, LostRequest, Search, digest_of
from tests.servers import KEY, Answer, RawServer, Request, drip, json_reply, reply, stall

NOW = datetime(2026, 2, 9, 10, tzinfo=UTC)
PROMPT = "Mend the login test, then say what was wrong"


def sent(doubt: timedelta | None = None) -> LostRequest:
    window = (NOW - timedelta(minutes=1), NOW + timedelta(minutes=1))
    return LostRequest(digest_of(PROMPT), lambda: window, PROMPT, doubt=doubt)


def row(name: str, ago: float = 0, **more: Any) -> dict[str, Any]:
    """A row of the list whose task was created `ago` minutes before NOW."""
    return {"id": name, "createdAt": (NOW - timedelta(minutes=ago)).isoformat(), **more}


class Tasks:
    """Tasks, newest first; `prompts` are what those with a transcript were asked.

    `moved` is called after each page, which has at most `page` rows. Without `counts` the list does
    not tell how many there are.
    """

    def __init__(self, rows: list[dict[str, Any]], prompts: dict[str, Any], **more: Any) -> None:
        self.rows, self.prompts = rows, prompts
        self.counts: bool = more.get("counts", True)
        self.page: int = more.get("page", 100)
        self.moved: Callable[[], None] = more.get("moved", lambda: None)
        self.offsets: list[int] = []
        self.reads: list[str] = []

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        if parts.path == "/v1/tasks":
            offset = int(parse_qs(parts.query).get("offset", ["0"])[0])
            self.offsets.append(offset)
            page: dict[str, Any] = {"data": self.rows[offset : offset + self.page]}
            if self.counts:
                page["total"] = len(self.rows)
            self.moved()
            return json_reply(page)
        name = parts.path.split("/")[3]
        self.reads.append(name)
        asked = self.prompts.get(name)
        if asked is None:
            return reply(404)
        return json_reply({"prompts": asked if asked == [] else [{"userPrompt": asked}]})


@pytest.fixture
def look() -> Iterator[Callable[..., Search]]:
    servers = []

    def start(tasks: Tasks | Callable[[Request], Answer], known: Iterable[str] = ()) -> Search:
        server = RawServer(tasks.answer if isinstance(tasks, Tasks) else tasks)
        server.__enter__()
        servers.append(server)
        client = RebyteClient(transport=Transport(server.base_url, KEY))
        return Search(client, lambda ids: set(known) & set(ids))

    yield start
    for server in servers:
        server.__exit__(None, None, None)


Start = Callable[..., Search]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in rows]


def test_the_list_is_read_until_it_is_too_old(look: Start) -> None:
    young = [row(f"young{at}") for at in range(150)]
    tasks = Tasks([*young, *(row(f"old{at}", ago=5) for at in range(300))], {"young149": PROMPT})
    sight = look(tasks, names(young[:149]))(sent())
    assert (names(sight.same), names(sight.unsure), sight.whole) == (["young149"], [], True)
    assert len(tasks.offsets) == 2
    assert tasks.reads == ["young149"]


def test_a_task_deleted_meanwhile_hides_none(look: Start) -> None:
    """The later rows move up between two pages."""
    rows = [row(f"t{at}") for at in range(150)]
    tasks = Tasks(rows, {"t101": PROMPT}, moved=lambda: rows.pop(0))
    sight = look(tasks, set(names(rows)) - {"t101"})(sent())
    assert (names(sight.same), sight.whole) == (["t101"], True)
    assert tasks.offsets == [0, 95]


def test_a_list_that_does_not_count_is_read_to_its_end(look: Start) -> None:
    rows = [row(f"t{at}") for at in range(120)]
    tasks = Tasks(rows, {"t119": PROMPT}, counts=False)
    sight = look(tasks, names(rows[:-1]))(sent())
    assert (names(sight.same), sight.whole) == (["t119"], True)
    assert tasks.offsets == [0, 95, 115]


def test_small_pages_are_read_too(look: Start) -> None:
    rows = [row(f"t{at}") for at in range(9)]
    tasks = Tasks(rows, {"t8": PROMPT}, page=4)
    sight = look(tasks, names(rows[:-1]))(sent())
    assert (names(sight.same), sight.whole) == (["t8"], True)


def test_a_list_that_knows_no_offset_is_not_read_for_ever(look: Start) -> None:
    asked = []

    def answer(request: Request) -> Answer:
        asked.append(request.path)
        return json_reply({"data": [row("t")]})

    assert look(answer, ["t"])(sent()).whole
    assert len(asked) == 2


def test_a_last_row_without_a_time_hides_not_how_old_the_page_is(look: Start) -> None:
    rows = [*(row(f"old{at}", ago=5) for at in range(99)), {"id": "timeless"}]
    tasks = Tasks(rows * 3, {})
    sight = look(tasks)(sent())
    assert (names(sight.unsure), sight.whole) == (["timeless"], True)
    assert tasks.offsets == [0]


def test_more_strangers_than_are_read_leave_it_open(look: Start) -> None:
    rows = [row(f"t{at}") for at in range(READS + 1)]
    prompts = dict.fromkeys(names(rows), "Something else") | {"t0": PROMPT}
    tasks = Tasks(rows, prompts)
    sight = look(tasks)(sent())
    assert (names(sight.same), sight.whole) == (["t0"], False)
    assert len(tasks.reads) == READS
    del rows[-1]
    assert look(tasks)(sent()).whole


def test_a_list_without_an_end_leaves_it_open(look: Start) -> None:
    rows = [row(f"t{at}") for at in range(PAGES * 100)]
    tasks = Tasks(rows, {"t0": PROMPT})
    sight = look(tasks, names(rows[1:]))(sent())
    assert (names(sight.same), sight.whole) == (["t0"], False)
    assert len(tasks.offsets) == PAGES


def test_what_was_read_once_is_not_asked_again_and_what_was_absent_is(look: Start) -> None:
    tasks = Tasks([row("a"), row("b"), row("c")], {"a": "Something else", "b": " "})
    again = look(tasks)
    assert names(again(sent()).unsure) == ["b", "c"]
    tasks.prompts.update(b=PROMPT, c="Another")
    sight = again(sent())
    assert (names(sight.same), names(sight.unsure)) == (["b"], [])
    assert tasks.reads == ["a", "b", "c", "b", "c"]
    assert tasks.offsets == [0, 0]  # the list said that there is no more of it


@pytest.mark.parametrize("asked", [7, []])
def test_a_transcript_without_a_text_leaves_it_open(look: Start, asked: Any) -> None:
    assert names(look(Tasks([row("a")], {"a": asked}))(sent()).unsure) == ["a"]


def test_a_look_is_over_in_time(look: Start) -> None:
    """Transcripts that never come cost what is left, those that are slow are waited for."""

    def answer(request: Request) -> Answer:
        if request.path.startswith("/v1/tasks?"):
            return json_reply({"data": [row("mute"), row("slow")], "total": 2})
        if "mute" in request.path:
            return stall
        return drip(json_reply({"prompts": [{"userPrompt": PROMPT}]}), 0.1, size=60)

    begun = time.monotonic()
    sight = look(answer)(sent(), seconds=0.2)
    assert time.monotonic() - begun < 5
    assert names(sight.unsure) == ["mute", "slow"]
    assert names(look(answer, ["mute"])(sent(), seconds=20).same) == ["slow"]


def test_outside_its_time_a_match_is_no_more_than_doubtful(look: Start) -> None:
    rows = [row("before", ago=3), row("silent", ago=4), row("long ago", ago=30)]
    tasks = Tasks(rows, {"before": PROMPT})
    sight = look(tasks)(sent(doubt=timedelta(minutes=5)))
    assert (names(sight.same), names(sight.unsure)) == ([], ["before"])
    assert tasks.reads == ["before", "silent"]
    assert look(tasks)(sent()).candidates == []


def test_the_edges_of_its_time_are_part_of_it(look: Start) -> None:
    edges = [row("last", ago=-1), row("first", ago=1)]
    sight = look(Tasks(edges, {"last": PROMPT, "first": PROMPT}))(sent())
    assert names(sight.same) == ["last", "first"]
