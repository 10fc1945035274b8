"""The search for a lost create: how far the list is read, which transcripts, what proves what.

A server of our own, since the local service has neither hundreds of tasks nor a list that moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.api.views import ContentView
from rebyte_cli.errors import (
    APIError,
    BadUsage,
    BrokenAnswer,
    NetworkError,
    OutcomeUnknown,
    RebyteError,
    Redirected,
    ServerFault,
    Unsent,
)
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask, body_digest_of, digest_of
from rebyte_cli.once.listing import BEFORE_ALL, PAGES, newest_task
from rebyte_cli.once.scan import (
    READS,
    LostRequest,
    Matches,
    Scanner,
    contradicts,
    find_prompts,
    is_lost,
)
from rebyte_cli.once.server_clock import ServerClock, Window
from rebyte_cli.system.deadline import NO_LIMIT, Deadline
from tests.servers import (
    KEY,
    Answer,
    RawServer,
    Request,
    drip,
    error_reply,
    json_reply,
    reply,
    stall,
)
from tests.task_board import Time

NOW = datetime(2026, 2, 9, 10, tzinfo=UTC)
PROMPT = "Mend the login test, then say what was wrong"


def lost(room: float = 0) -> LostRequest:
    """A request of NOW, give or take a minute; `room` minutes before are possible, too."""
    first, last = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
    window = Window(first, last, first - timedelta(minutes=room), last)
    return LostRequest(digest_of(PROMPT), lambda: window, PROMPT, body_digest=body_digest_of({}))


def scan(
    scanner: Scanner, request: LostRequest | None = None, limit: Deadline = NO_LIMIT
) -> Matches:
    return scanner.scan([request or lost()], limit)[0]


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
def start(tmp_path: Path) -> Iterator[Callable[..., Scanner]]:
    """A scanner of these tasks. `twins` were asked the same before, the newest first."""
    servers = []

    def start(
        tasks: Tasks | Callable[[Request], Answer],
        known: Iterable[str] = (),
        **more: Any,
    ) -> Scanner:
        server = RawServer(tasks.answer if isinstance(tasks, Tasks) else tasks)
        server.__enter__()
        servers.append(server)
        client = RebyteClient(transport=Transport(server.base_url, KEY))
        created = more.get("created", [])
        history = History(tmp_path / f"{len(servers)}.db", origin=server.base_url)
        for twin in reversed(more.get("twins", ())):
            history.add_tasks([NewTask({"id": twin}, prompt=PROMPT)])
        return Scanner(
            client,
            history,
            known=lambda ids: set(known) & set(ids),
            created=lambda: created,
            clock=ServerClock(client),
        )

    yield start
    for server in servers:
        server.__exit__(None, None, None)


Start = Callable[..., Scanner]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in rows]


def test_the_list_is_read_until_it_is_too_old(start: Start) -> None:
    young = [row(f"young{at}") for at in range(150)]
    tasks = Tasks([*young, *(row(f"old{at}", ago=5) for at in range(300))], {"young149": PROMPT})
    found = scan(start(tasks, names(young[:149])))
    assert (names(found.same), names(found.unsure), found.is_complete) == (["young149"], [], True)
    assert len(tasks.offsets) == 2
    assert tasks.reads == ["young149"]


def test_only_several_rows_that_are_too_old_end_the_list(start: Start) -> None:
    """One row's time may be wrong, and a row of the very first moment may be followed by others."""

    def offsets(rows: list[dict[str, Any]], page: int) -> list[int]:
        tasks = Tasks(rows, {})
        tasks.page = page
        scan(start(tasks, names(rows)))
        return tasks.offsets

    old = [row(f"old{at}", ago=5) for at in range(50)]
    assert offsets(old, 5) == [0]
    assert offsets(old, 4) == [0, 2]
    edge = [row(f"edge{at}", ago=1) for at in range(5)]
    assert offsets([*edge, *old], 5) == [0, 3, 6]


def test_a_request_of_an_unknown_time_may_be_anywhere_in_the_list(start: Start) -> None:
    rows = [row(f"old{at}", ago=5) for at in range(20)]
    tasks = Tasks(rows, {"old19": PROMPT}, page=5)
    request = LostRequest(digest_of(PROMPT), lambda: Window(NOW, NOW, None, None), PROMPT)
    found = scan(start(tasks, names(rows[:-1])), request)
    assert (names(found.unsure), found.is_complete) == (["old19"], True)
    early = lost()
    for pair in ([early, request], [request, early]):
        of_both = start(tasks, names(rows[:-1])).scan(pair)
        assert names(of_both[pair.index(request)].unsure) == ["old19"]


def test_the_list_is_read_for_the_earliest_of_several_requests(start: Start) -> None:
    rows = [*(row(f"old{at}", ago=5) for at in range(20)), row("first", ago=8)]
    tasks = Tasks(rows, {"first": PROMPT}, page=5)
    for pair in ([lost(), lost(room=10)], [lost(room=10), lost()]):
        found = start(tasks, names(rows[:-1])).scan(pair)
        assert sorted(names(one.unsure) for one in found) == [[], ["first"]]


def test_a_task_deleted_meanwhile_hides_none(start: Start) -> None:
    """The later rows move up between two pages."""
    rows = [row(f"t{at}") for at in range(150)]
    tasks = Tasks(rows, {"t101": PROMPT}, moved=lambda: rows.pop(0))
    found = scan(start(tasks, set(names(rows)) - {"t101"}))
    assert (names(found.same), found.is_complete) == (["t101"], True)
    assert tasks.offsets == [0, 95, 145]


def test_a_list_that_does_not_count_is_read_to_its_end(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(120)]
    tasks = Tasks(rows, {"t119": PROMPT}, counts=False)
    found = scan(start(tasks, names(rows[:-1])))
    assert (names(found.same), found.is_complete) == (["t119"], True)
    assert tasks.offsets == [0, 95, 115]


def test_small_pages_are_read_too(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(9)]
    tasks = Tasks(rows, {"t8": PROMPT}, page=4)
    found = scan(start(tasks, names(rows[:-1])))
    assert (names(found.same), found.is_complete) == (["t8"], True)


def pages(*answers: dict[str, Any]) -> Callable[[Request], Answer]:
    """A list that gives these pages one after the other, whatever is asked for; the last stays."""
    left = list(answers)
    return lambda _request: json_reply(left.pop(0) if len(left) > 1 else left[0])


RECENT = [row(f"t{at}") for at in range(100)]
ENDS = {"data": [], "total": 100}


@pytest.mark.parametrize(
    "answers",
    [
        [{"data": RECENT}],  # `offset` is ignored: the same page again
        [{"data": RECENT[:1]}],
        [{"data": RECENT, "total": 200}, {"data": RECENT, "total": 200}],
        [{"data": RECENT, "total": 200, "offset": 0}, {"data": RECENT, "offset": 0}],
        [{"data": RECENT, "total": 100}, {"data": RECENT[95:], "offset": 90}],
        # `total` is that of the page
        [{"data": RECENT, "total": 100}, {"data": [*RECENT[95:], row("more")], "total": 6}],
        [{"data": RECENT, "total": 100}, {"data": RECENT[95:], "total": 99}],
        # rows out of order
        [{"data": [row("old", ago=9), row("new")], "total": 2}, {"data": [row("new")], "total": 2}],
        [{"data": [row("t0"), row("old", ago=9), row("t2", ago=3)]}, {"data": [row("t2")]}],
        [{"data": [{"id": "t0"}, row("old", ago=9), row("new")]}, {"data": [row("new")]}],
        [{"data": [row(f"t{at}", ago=-at / 60) for at in range(9)]}],
        # rows that the list counts and does not show
        [{"data": RECENT[1:3], "total": 3}, {"data": RECENT[2:3], "total": 3}],
        [{"data": [], "total": 3}],
        # a page that does not follow the one before it
        [{"data": RECENT[:50]}, {"data": RECENT[70:]}],
        [{"data": RECENT[:50]}, {"data": []}],
        [{"data": RECENT[:2]}, {"data": RECENT[2:4]}, {"data": RECENT[3:4]}],
        [{"data": RECENT[:2]}, {"data": []}],
        # more than was asked for, the same twice, no row at all
        [{"data": [*RECENT, row("more")]}, {"data": [*RECENT[96:], row("more")]}],
        [{"data": RECENT[:7], "limit": 5}, {"data": RECENT[4:7]}],
        [{"data": [RECENT[0], RECENT[0]]}],
        [{"data": [{"title": "no id"}]}, {"data": []}],
        # a page without a row that it should have, and enough old ones to stop
        [{"data": [row(f"t{at}", ago=9) for at in range(9)], "limit": 10, "total": 10}],
        [{"data": [row(f"t{at}", ago=9) for at in range(9)], "limit": 10, "total": 99}],
        [{"data": [row(f"t{at}", ago=9) for at in range(99)], "limit": 200, "total": 300}],
    ],
)
def test_a_list_that_contradicts_the_notes_proves_nothing(
    start: Start, answers: list[dict[str, Any]]
) -> None:
    found = scan(start(pages(*answers), names(RECENT)))
    assert not found.is_complete
    assert not found.shows_none


@pytest.mark.parametrize(
    "answers",
    [
        [{"data": RECENT, "total": 100}, {"data": RECENT[95:], "total": 100}],
        [{"data": [], "total": 0}],
        [{"data": RECENT[:1], "total": 1}, {"data": []}],
        [{"data": RECENT[:2], "total": 2}, {"data": RECENT[1:2]}],
        [{"data": RECENT[:1]}, {"data": RECENT[1:2]}, {"data": []}],
        [{"data": RECENT[:7], "limit": 7}, {"data": RECENT[4:7], "limit": 7}],
        [{"data": [row(f"t{at}", ago=9) for at in range(9)], "limit": 10, "total": 9}],
        [{"data": [row(f"t{at}", ago=9) for at in range(9)], "limit": 9, "total": 99}],
        # one was created between the two pages
        [{"data": RECENT[1:50], "total": 49}, {"data": RECENT[44:50], "total": 50}],
        # the times of two machines differ a little
        [{"data": [row("t1"), row("t2", ago=-2 / 60)], "total": 2}, {"data": [row("t2")]}],
    ],
)
def test_a_list_that_keeps_to_them_is_complete(start: Start, answers: list[dict[str, Any]]) -> None:
    assert scan(start(pages(*answers), names(RECENT))).is_complete


def test_a_list_without_a_task_that_was_answered_is_not_up_to_date(start: Start) -> None:
    there = {name: json_reply(row(name)) for name in ("t0", "late", "ancient")}

    def answer(request: Request) -> Answer:
        if "?" in request.path:
            return json_reply({"data": [] if "offset=1" in request.path else [row("t0")]})
        return there.get(request.path.split("/")[3], reply(404))

    created = [row("ancient", ago=60), {"id": "timeless"}, row("late", ago=1), row("t0")]
    reused = start(answer, ["t0"], created=created)
    assert not scan(reused).is_complete
    there["late"] = error_reply(400, "odd", "Not this one")
    assert not scan(reused).is_complete
    del there["late"]  # deleted since, so the list is right
    assert scan(reused).is_complete


def test_a_list_without_the_newest_task_of_before_the_send_is_not_up_to_date(
    start: Start,
) -> None:
    """It is a stale copy, or the list of another account."""
    there = {"newest": json_reply(row("newest"))}
    rows = [row("t0", ago=1)]

    def answer(request: Request) -> Answer:
        if "?" in request.path:
            return json_reply({"data": [] if "offset=1" in request.path else rows})
        return there.get(request.path.split("/")[3], reply(404))

    window = lost().window()._replace(newest="newest")
    request = lost()._replace(window=lambda: window)
    reused = start(answer, ["t0"])
    assert not scan(reused, request).is_complete
    assert [one.is_complete for one in reused.scan([lost(), request])] == [False, False]
    rows[:] = [row("newest")]
    assert scan(reused, request).is_complete
    rows[:] = [row("t0", ago=1)]
    del there["newest"]  # deleted since, so the list is right
    assert scan(reused, request).is_complete
    # Another account has no such task, either.
    assert not scan(start(answer), request).is_complete
    assert scan(start(answer, created=[row("t0", ago=99)]), request).is_complete
    rows.clear()
    assert not scan(start(answer, ["t0"]), request).is_complete
    assert scan(start(answer, ["t0"])).is_complete


def test_a_list_is_up_to_date_for_all_requests_or_none(start: Start) -> None:
    def answer(request: Request) -> Answer:
        if "?" in request.path:
            return json_reply({"data": [] if "offset=1" in request.path else [row("t0")]})
        return json_reply(row("missing"))

    def later(request: LostRequest) -> LostRequest:
        moved = request.window()._replace(first=NOW + timedelta(minutes=2))
        return request._replace(window=lambda: moved)

    reused = start(answer, ["t0"], created=[row("missing")])
    assert [one.is_complete for one in reused.scan([lost(), later(lost())])] == [False, False]
    assert [one.is_complete for one in reused.scan([later(lost())])] == [True]


def test_a_list_without_a_task_that_was_a_candidate_proves_nothing(start: Start) -> None:
    tasks = Tasks([row("t0"), row("silent")], {})
    reused = start(tasks, ["t0"])
    assert names(scan(reused).unsure) == ["silent"]
    del tasks.rows[1]
    assert not scan(reused).is_complete
    assert scan(start(tasks, ["t0"])).shows_none
    # One that an earlier run named.
    assert not scan(start(tasks, ["t0"]), lost()._replace(candidates=["gone"])).is_complete
    assert scan(start(tasks, ["t0"]), lost()._replace(candidates=["t0"])).shows_none


def test_a_list_need_not_show_what_was_answered_while_it_was_read(start: Start) -> None:
    rows, answered = [row("t0")], [row("t0")]
    tasks = Tasks(rows, {"new": "Other"}, moved=lambda: answered.append(row("new")))
    assert scan(start(tasks, ["t0"], created=answered)).shows_none


def test_a_row_without_a_time_does_not_hide_how_old_the_page_is(start: Start) -> None:
    rows = [*(row(f"old{at}", ago=5) for at in range(99)), {"id": "timeless"}]
    tasks = Tasks(rows * 3, {})
    found = scan(start(tasks))
    assert (names(found.unsure), found.is_complete) == (["timeless"], True)
    assert tasks.offsets == [0]


def test_more_candidates_than_can_be_read_leave_it_open(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(READS + 1)]
    prompts = dict.fromkeys(names(rows), "Something else") | {"t0": PROMPT}
    tasks = Tasks(rows, prompts)
    found = scan(start(tasks))
    assert (names(found.same), found.is_complete) == (["t0"], False)
    assert len(tasks.reads) == READS
    del rows[-1]
    assert scan(start(tasks)).is_complete


def test_the_next_scan_reads_those_that_were_left(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(READS + 1)]
    tasks = Tasks(rows, dict.fromkeys(names(rows), "Something else"))
    reused = start(tasks)
    assert not scan(reused).is_complete
    assert scan(reused).is_complete
    assert len(tasks.reads) == READS + 1


def test_a_list_without_an_end_leaves_it_open(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(PAGES * 100)]
    tasks = Tasks(rows, {"t0": PROMPT})
    found = scan(start(tasks, names(rows[1:])))
    assert (names(found.same), found.is_complete) == (["t0"], False)
    assert len(tasks.offsets) == PAGES


def test_transcripts_are_read_once_and_missing_ones_again(start: Start) -> None:
    tasks = Tasks([row("a"), row("b"), row("c")], {"a": "Something else", "b": " "})
    again = start(tasks)
    assert names(scan(again).unsure) == ["a", "b", "c"]
    tasks.prompts.update(b=PROMPT, c="Another")
    found = scan(again)
    assert (names(found.same), names(found.unsure)) == (["b"], [])
    assert tasks.reads == ["a", "b", "c", "b", "c"]


@pytest.mark.parametrize("asked", [7, []])
def test_a_transcript_without_a_text_leaves_it_open(start: Start, asked: Any) -> None:
    assert names(scan(start(Tasks([row("a")], {"a": asked}))).unsure) == ["a"]


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_oldest_prompt_of_a_task_is_what_it_was_asked(start: Start, is_reversed: bool) -> None:
    """A service that lists prompts newest first must not hide a task that got a follow-up."""
    prompts = [
        {"userPrompt": PROMPT, "submittedAt": "2026-02-09T10:00:00Z"},
        {"userPrompt": "Something else", "submittedAt": "2026-02-09T10:01:00Z"},
    ]
    if is_reversed:
        prompts.reverse()

    def answer(request: Request) -> Answer:
        if "?" in request.path:
            return json_reply({"data": [] if "offset=1" in request.path else [row("ours")]})
        return json_reply({"prompts": prompts})

    assert names(scan(start(answer)).same) == ["ours"]
    for prompt in prompts:
        del prompt["submittedAt"]  # then they come in the order of the API's notes
    assert names(scan(start(answer)).same) == ([] if is_reversed else ["ours"])


def test_a_scan_ends_in_time(start: Start) -> None:
    """Transcripts that never come cost what is left, those that are slow are waited for."""

    at, limit = Time(), 60.0  # moved by the requests, so that it does not matter how long they take

    def answer(request: Request) -> Answer:
        if request.path.startswith("/v1/tasks?"):
            rows = [row("mute"), row("slow")]
            if "offset=1" not in request.path:
                return json_reply({"data": rows})
            at.now = limit - 0.2
            return json_reply({"data": rows[1:]})
        if "mute" in request.path:
            at.now = limit
        if at.now == limit:
            return stall
        return drip(json_reply({"prompts": [{"userPrompt": PROMPT}]}), 0.1, size=60)

    begun = time.monotonic()
    found = scan(start(answer), limit=at.deadline(limit))
    assert time.monotonic() - begun < 20
    assert names(found.unsure) == ["mute", "slow"]
    assert names(scan(start(answer, ["mute"]), limit=Deadline(20)).same) == ["slow"]


def test_a_list_that_never_comes_ends_in_time(start: Start) -> None:
    begun = time.monotonic()
    with pytest.raises(NetworkError):
        scan(start(lambda _request: stall), limit=Deadline(0.2))
    assert time.monotonic() - begun < 20


def test_the_newest_task_is_the_first_of_the_list() -> None:
    tasks = Tasks([row("new"), row("old", ago=1)], {})
    with (
        RawServer(tasks.answer) as server,
        RebyteClient(transport=Transport(server.base_url, KEY)) as client,
    ):
        assert newest_task(client)["id"] == "new"
        tasks.rows.clear()
        assert newest_task(client) == BEFORE_ALL


def test_a_match_outside_the_time_window_is_doubtful(start: Start) -> None:
    rows = [row("before", ago=3), row("silent", ago=4), row("long-ago", ago=30)]
    tasks = Tasks(rows, {"before": PROMPT})
    found = scan(start(tasks), lost(room=5))
    assert (names(found.same), names(found.unsure)) == ([], ["before", "silent"])
    assert tasks.reads == ["before", "silent"]
    assert scan(start(tasks)).candidates == []


def test_the_time_window_includes_its_edges(start: Start) -> None:
    edges = [row("last", ago=-1), row("first", ago=1)]
    found = scan(start(Tasks(edges, {"last": PROMPT, "first": PROMPT})))
    assert names(found.same) == ["last", "first"]


# What counts as proof


@pytest.mark.parametrize(
    ("has", "wanted", "expected"),
    [
        ({"executor": "gemini"}, {"executor": "claude"}, True),
        ({"executor": "claude"}, {"executor": "claude"}, False),
        ({"executor": None}, {"executor": "claude"}, False),
        ({"executor": ""}, {"executor": "claude"}, False),
        ({"executor": 7}, {"executor": "claude"}, False),
        ({"executor": "claude"}, {"executor": ""}, False),
        ({"executor": "claude", "model": "sonnet-4"}, {}, False),
        ({"model": "sonnet-4"}, {"model": "opus-4.5"}, True),
        ({"model": "sonnet-4"}, {"model": "lite"}, False),
        ({"executor": "claude", "model": "sonnet-4"}, {"model": "opus-4.5"}, True),
    ],
)
def test_fields_that_contradict_a_request(
    has: dict[str, Any], wanted: dict[str, Any], expected: bool
) -> None:
    assert contradicts(has, wanted) is expected


def test_a_task_of_another_executor_is_doubtful(start: Start) -> None:
    tasks = Tasks([row("other", executor="gemini"), row("ours", executor="claude")], {})
    tasks.prompts.update(other=PROMPT, ours=PROMPT)
    found = scan(start(tasks), lost()._replace(body={"executor": "claude"}))
    assert (names(found.same), names(found.unsure)) == (["ours"], ["other"])


def test_prompts_of_a_follow_up() -> None:
    def prompt(name: str, asked: Any, ago: float | None = 0) -> dict[str, Any]:
        at = None if ago is None else (NOW - timedelta(minutes=ago)).isoformat()
        return {"id": name, "userPrompt": asked, "submittedAt": at}

    rows = [
        prompt("old", PROMPT, ago=5),
        "no prompt at all",
        prompt("other", "Something else"),
        prompt("first", PROMPT, ago=1),
        prompt("last", PROMPT, ago=-1),
        prompt("odd", 7),
        prompt("ours", PROMPT),
        prompt("longer", PROMPT + " now"),
        prompt("empty", " "),
        prompt("timeless", PROMPT, ago=None),
        {"userPrompt": PROMPT},
    ]
    found = find_prompts(ContentView({"prompts": rows}), lost())
    assert [one["id"] for one in found.same] == ["first", "last", "ours"]
    # A service that shows our prompt unchanged shows it so everywhere, or adds to it.
    assert [one["id"] for one in found.unsure] == ["odd", "longer", "empty", "timeless"]
    again = find_prompts(ContentView({"prompts": rows}), lost()._replace(to_repeat=True))
    assert names(again.unsure) == ["old", "odd", "longer", "empty", "timeless"]
    assert not found.is_complete  # two rows are no prompts
    assert find_prompts(ContentView({"prompts": rows[2:3]}), lost()).shows_none
    assert not find_prompts(ContentView({"prompts": None}), lost()).shows_none
    for odd in ({"userPrompt": "Something else"}, prompt("other", "Something else")):
        twice = ContentView({"prompts": [rows[2], odd]})  # without an id, or with the same
        assert not find_prompts(twice, lost()).is_complete


def test_the_oldest_prompt_of_a_task_is_no_follow_up() -> None:
    def unsure(*times: str | None) -> list[str]:
        rows = [
            {"id": f"p{at}", "userPrompt": "Something else", "submittedAt": time}
            for at, time in enumerate(times)
        ]
        return names(find_prompts(ContentView({"prompts": rows}), lost(room=99)).unsure)

    early, late = "2026-02-09T09:58:00Z", "2026-02-09T10:00:00Z"
    assert unsure(early) == unsure(None) == []
    assert unsure(early, late) == ["p1"]
    assert unsure(late, early) == ["p0", "p1"]  # the clock was set back, or the list is reversed
    assert unsure(late, late) == ["p0", "p1"]
    assert unsure(early, early, late) == ["p0", "p1", "p2"]
    assert unsure(early, late, late) == ["p1", "p2"]
    assert unsure(None, late) == ["p0", "p1"]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_lost_follow_up_is_never_taken_for_the_oldest_prompt(is_sorted: bool) -> None:
    """The service's clock was set back between the create and the follow-up."""
    ours = {"id": "ours", "userPrompt": PROMPT, "submittedAt": "2026-02-09T09:58:00Z"}
    first = {"id": "first", "userPrompt": "Hello", "submittedAt": "2026-02-09T10:00:00Z"}
    content = ContentView({"prompts": [ours, first] if is_sorted else [first, ours]})
    found = find_prompts(content, lost()._replace(to_repeat=True))
    assert (found.same, names(found.unsure)) == ([], ["ours"])
    # With two of our prompts, the oldest is what the task was created with.
    again = {**first, "userPrompt": PROMPT}
    found = find_prompts(ContentView({"prompts": [ours, again]}), lost())
    assert (names(found.same), found.unsure) == (["first"], [])


def test_no_time_excludes_a_prompt_when_a_follow_up_would_be_sent_again() -> None:
    """`submittedAt` may be in another zone than what the window was learned from."""
    window = lost().window()
    window = window._replace(floor=window.since, ceiling=window.until)
    request = lost()._replace(window=lambda: window)
    rows = [
        {"id": "first", "userPrompt": "Hello", "submittedAt": "2026-02-09T04:59:00"},
        {"id": "ours", "userPrompt": PROMPT, "submittedAt": "2026-02-09T05:00:00"},
        {"id": "late", "userPrompt": PROMPT, "submittedAt": "2026-02-09T15:00:00"},
    ]
    content = ContentView({"prompts": rows})
    assert find_prompts(content, request).candidates == []
    assert names(find_prompts(content, request._replace(to_repeat=True)).unsure) == ["ours", "late"]


# What a time does not prove


def test_a_task_of_another_time_leaves_it_open_until_the_clocks_are_compared(
    start: Start,
) -> None:
    near = Window(*(NOW + timedelta(minutes=at) for at in (-1, 1, -5, 5)))
    tasks = Tasks([row("zone", ago=-120), row("old", ago=600), row("mine", ago=900)], {})
    reused = start(tasks, ["mine"])

    def result(window: Window, *, to_repeat: bool = True) -> tuple[list[str], bool]:
        request = LostRequest(digest_of(PROMPT), lambda: window, PROMPT, to_repeat=to_repeat)
        found = scan(reused, request)
        return names(found.unsure), found.is_complete

    assert result(near, to_repeat=False) == ([], True)
    assert result(near) == ([], False)
    assert result(near._replace(floor=near.since)) == ([], False)
    assert result(near._replace(ceiling=near.until)) == ([], False)
    assert result(near._replace(floor=near.since, ceiling=near.until)) == ([], True)
    # The newest task of before the send: it and what is older have another origin.
    tasks.rows[:] = tasks.rows[1:]
    before = NOW - timedelta(minutes=599)
    assert result(near._replace(floor=before)) == ([], True)
    assert result(near._replace(floor=before - timedelta(minutes=2))) == ([], False)
    assert result(near._replace(floor=before - timedelta(minutes=2), newest="old")) == ([], True)
    # One with our prompt is named.
    tasks.prompts["old"] = PROMPT
    assert result(near) == (["old"], False)


def test_the_newest_task_of_before_the_send_excludes_itself_alone(start: Start) -> None:
    request = lost(room=5)
    window = request.window()._replace(newest="newest")
    tasks = Tasks([row("new"), row("newest", ago=1), row("old", ago=2)], {})
    found = scan(start(tasks), request._replace(window=lambda: window))
    assert names(found.unsure) == ["new", "old"]


def test_a_task_with_this_prompt_is_read_to_see_whether_it_is_shown_unchanged(
    start: Start,
) -> None:
    tasks = Tasks([row("other"), row("twin", ago=600)], {"other": "Something else"})
    reused = start(tasks, ["twin"], twins=["gone1", "gone2", "gone3", "twin"])
    request = lost(room=999)
    assert names(scan(reused, request).unsure) == ["other"]
    tasks.prompts["twin"] = PROMPT
    assert names(scan(reused, request).unsure) == []


def test_a_task_that_shows_more_than_this_prompt_is_never_excluded(start: Start) -> None:
    """What a service adds may depend on fields that the twin was created without."""
    tasks = Tasks([row("ours"), row("twin", ago=600)], {"twin": PROMPT})
    tasks.prompts["ours"] = f"{PROMPT}\n\nRepository: acme/app"
    assert names(scan(start(tasks, ["twin"], twins=["twin"]), lost(room=999)).unsure) == ["ours"]


def test_a_prompt_that_was_read_early_is_read_again_before_it_excludes_a_task(
    start: Start,
) -> None:
    """A service may show something else at first: "Preparing"."""
    tasks = Tasks([row("ours"), row("twin", ago=600)], {"ours": "Preparing", "twin": PROMPT})
    reused = start(tasks, ["twin"], twins=["twin"])
    early = lost(room=999)
    assert scan(reused, early).candidates == []  # the twin says that prompts are unchanged
    tasks.prompts["ours"] = PROMPT
    assert scan(reused, early).candidates == []
    window = early.window()
    proven = window._replace(floor=window.since, ceiling=window.until)
    late, _ = reused.scan([early._replace(window=lambda: proven, to_repeat=True), early])
    assert names(late.same) == ["ours"]
    scan(reused, early._replace(to_repeat=True))
    assert tasks.reads.count("ours") == 2
    again = start(tasks, ["twin"], twins=["twin"])
    tasks.prompts["ours"] = "Preparing"
    assert scan(again, early).candidates == []
    tasks.prompts["ours"] = None
    assert names(scan(again, early._replace(to_repeat=True)).unsure) == ["ours"]
    tasks.prompts["ours"] = PROMPT
    assert names(scan(again, early._replace(to_repeat=True)).same) == ["ours"]


def test_a_prompt_that_is_no_longer_shown_says_nothing_of_the_others(start: Start) -> None:
    tasks = Tasks([row("one"), row("other")], {"one": PROMPT, "other": "Something else"})
    reused = start(tasks)
    early = lost(room=999)
    assert names(scan(reused, early).candidates) == ["one"]
    tasks.prompts["one"] = None
    assert names(scan(reused, early._replace(to_repeat=True)).unsure) == ["one", "other"]


@pytest.mark.parametrize("more", [0, 1])
def test_more_tasks_of_other_times_than_can_be_read_leave_it_open(start: Start, more: int) -> None:
    others = [row(f"t{at}", ago=600) for at in range(READS + more)]
    prompts = dict.fromkeys(names(others), "Something else") | {"twin": PROMPT}
    tasks = Tasks([row("twin"), *others], prompts)
    reused = start(tasks, ["twin"], twins=["twin"])
    found = scan(reused, lost()._replace(to_repeat=True))
    assert (found.candidates, found.is_complete) == ([], not more)
    assert len(tasks.reads) == (0 if more else READS + 1)


def test_a_later_scan_may_settle_a_doubt() -> None:
    ours, twin, unsure = {"id": "ours"}, {"id": "twin"}, {"id": "unsure"}
    assert Matches([ours], [], True).is_final
    assert Matches([ours, twin], [unsure], True).is_final  # two are two, whatever the third is
    assert not Matches([ours], [unsure], True).is_final
    assert not Matches([], [], True).is_final


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutcomeUnknown("no answer"), True),
        (NetworkError("no answer"), True),
        (BrokenAnswer("half an answer"), True),
        (Unsent("no connection"), False),
        (Redirected("elsewhere"), False),
        (ServerFault("500"), False),
        (APIError("refused"), False),
        (BadUsage("no prompt"), False),
    ],
)
def test_a_request_is_lost_that_may_have_arrived(error: RebyteError, expected: bool) -> None:
    assert is_lost(error) is expected
