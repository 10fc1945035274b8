"""The search for a lost create: what proves that it is ours, and how far the list is read.

A server of our own, since the local service has neither hundreds of tasks nor a list that moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.engines.looking import (
    PAGES,
    READS,
    Look,
    Sent,
    Sight,
    contradicts,
    digest_of,
    find_prompts,
    is_prompt,
    pauses,
)

from .servers import KEY, Answer, RawServer, Request, json_reply, reply

NOW = datetime(2026, 2, 9, 10, tzinfo=UTC)
PROMPT = "Mend the login test, then say what was wrong"


def sent(prompt: str | None = PROMPT, **more: Any) -> Sent:
    window = (NOW - timedelta(minutes=1), NOW + timedelta(minutes=1))
    return Sent(digest_of(PROMPT), lambda: window, prompt, **more)


def row(name: str, ago: float = 0, **more: Any) -> dict[str, Any]:
    """A row of the list whose task was created `ago` minutes before NOW."""
    return {"id": name, "createdAt": (NOW - timedelta(minutes=ago)).isoformat(), **more}


class Tasks:
    """Tasks, newest first; `prompts` are what those with a transcript were asked.

    `moved` is called after each page. Without `counts` the list does not tell how many there are.
    """

    def __init__(self, rows: list[dict[str, Any]], prompts: dict[str, Any], **more: Any) -> None:
        self.rows, self.prompts = rows, prompts
        self.counts: bool = more.get("counts", True)
        self.moved: Callable[[], None] = more.get("moved", lambda: None)
        self.offsets: list[int] = []
        self.reads: list[str] = []

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        if parts.path == "/v1/tasks":
            offset = int(parse_qs(parts.query).get("offset", ["0"])[0])
            self.offsets.append(offset)
            page: dict[str, Any] = {"data": self.rows[offset : offset + 100]}
            if self.counts:
                page["total"] = len(self.rows)
            self.moved()
            return json_reply(page)
        name = parts.path.split("/")[3]
        self.reads.append(name)
        asked = self.prompts.get(name)
        return reply(404) if asked is None else json_reply({"prompts": [{"userPrompt": asked}]})


@pytest.fixture
def look() -> Iterator[Callable[[Tasks], Look]]:
    servers = []

    def start(tasks: Tasks, known: frozenset[str] = frozenset()) -> Look:
        server = RawServer(tasks.answer)
        server.__enter__()
        servers.append(server)
        client = RebyteClient(transport=Transport(server.base_url, KEY))
        return Look(client, lambda ids: known & set(ids))

    yield start
    for server in servers:
        server.__exit__(None, None, None)


Start = Callable[..., Look]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in rows]


def test_the_list_is_read_until_it_is_too_old(look: Start) -> None:
    young = [row(f"young{at}") for at in range(150)]
    tasks = Tasks([*young, *(row(f"old{at}", ago=5) for at in range(300))], {"young149": PROMPT})
    known = frozenset(names(young[:149]))
    sight = look(tasks, known)(sent())
    assert (names(sight.same), names(sight.unsure), sight.whole) == (["young149"], [], True)
    assert len(tasks.offsets) == 2
    assert tasks.reads == ["young149"]


def test_a_task_deleted_meanwhile_hides_none(look: Start) -> None:
    """The later rows move up between two pages."""
    rows = [row(f"t{at}") for at in range(150)]
    tasks = Tasks(rows, {"t101": PROMPT}, moved=lambda: rows.pop(0))
    sight = look(tasks, frozenset(names(rows)) - {"t101"})(sent())
    assert (names(sight.same), sight.whole) == (["t101"], True)


def test_a_list_that_does_not_count_is_read_to_its_end(look: Start) -> None:
    rows = [row(f"t{at}") for at in range(120)]
    tasks = Tasks(rows, {"t119": PROMPT}, counts=False)
    sight = look(tasks, frozenset(names(rows[:-1])))(sent())
    assert (names(sight.same), sight.whole) == (["t119"], True)
    assert tasks.offsets[:2] == [0, 95]


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
    sight = look(tasks, frozenset(names(rows[1:])))(sent())
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


def test_outside_its_time_a_match_is_no_more_than_doubtful(look: Start) -> None:
    tasks = Tasks([row("before", ago=3), row("long ago", ago=30)], {"before": PROMPT})
    sight = look(tasks)(sent(doubt=timedelta(minutes=5)))
    assert (names(sight.same), names(sight.unsure)) == ([], ["before"])
    assert tasks.reads == ["before"]
    assert look(tasks)(sent()).candidates == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (PROMPT, True),
        (f"\r\n {PROMPT}\r\n", True),
        (None, None),
        (f"Be brief.\n\n{PROMPT}", None),
        (PROMPT[:20], None),
        (f"{PROMPT[:20]}…", None),
        (PROMPT[:19], False),
        (f"{PROMPT[:19]}.....", False),
        ("Mend the logout test, then say what was wrong", False),
    ],
)
def test_what_a_prompt_proves(asked: str | None, expected: bool | None) -> None:
    assert is_prompt(asked, sent()) is expected


def test_without_its_text_only_the_same_prompt_counts() -> None:
    assert is_prompt(PROMPT, sent(prompt=None)) is True
    assert is_prompt(PROMPT + " now", sent(prompt=None)) is False


@pytest.mark.parametrize(
    ("has", "wanted", "expected"),
    [
        ({"executor": "gemini"}, {"executor": "claude"}, True),
        ({"executor": "claude"}, {"executor": "claude"}, False),
        ({"executor": None}, {"executor": "claude"}, False),
        ({"executor": ""}, {"executor": "claude"}, False),
        ({"executor": "claude"}, {}, False),
        ({"model": "sonnet-4"}, {"model": "opus-4.5"}, True),
        ({"model": "sonnet-4"}, {"model": "lite"}, False),
        ({"executor": "claude", "model": "sonnet-4"}, {"model": "opus-4.5"}, True),
    ],
)
def test_what_contradicts(has: dict[str, Any], wanted: dict[str, Any], expected: bool) -> None:
    assert contradicts(has, wanted) is expected


def test_prompts_of_a_follow_up() -> None:
    def prompt(name: str, asked: Any, ago: float | None = 0) -> dict[str, Any]:
        at = None if ago is None else (NOW - timedelta(minutes=ago)).isoformat()
        return {"id": name, "userPrompt": asked, "submittedAt": at}

    rows = [
        prompt("old", PROMPT, ago=5),
        prompt("other", "Something else"),
        prompt("ours", PROMPT),
        prompt("longer", PROMPT + " now"),
        prompt("empty", " "),
        prompt("timeless", PROMPT, ago=None),
        {"userPrompt": PROMPT},
    ]
    sight = find_prompts({"prompts": rows}, sent())
    assert names(sight.same) == ["ours"]
    assert names(sight.unsure) == ["longer", "empty", "timeless"]
    assert sight.whole
    assert find_prompts({"prompts": None}, sent()).candidates == []


def test_a_prompt_that_no_encoding_has_is_known_again() -> None:
    assert digest_of("half of \ud83d") != digest_of("half of \ud83e")


def test_another_look_may_settle_what_is_unsure() -> None:
    ours, twin, unsure = row("ours"), row("twin"), row("unsure")
    assert Sight([ours], [], True).is_settled
    assert Sight([ours, twin], [unsure], True).is_settled  # two are two, whatever the third is
    assert not Sight([ours], [unsure], True).is_settled
    assert not Sight([], [], True).is_settled


def test_looks_are_close_together_at_first() -> None:
    assert list(islice(pauses(), 7)) == pytest.approx([0.5, 0.8, 1.28, 2.048, 3.2768, 4, 4])
