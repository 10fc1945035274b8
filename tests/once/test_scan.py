"""One scan: the list read as far as it takes, and what its tasks were asked. Real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
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
from rebyte_cli.history.rows import digest_of
from rebyte_cli.once.judge import Row, Verdict
from rebyte_cli.once.scan import READS, LostRequest, Scanner, contradicts, current_baseline, is_lost
from rebyte_cli.once.server_clock import Baseline, ServerClock
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


def lost(before: str | None = "", total: int = 0, **more: Any) -> LostRequest:
    """A request of NOW, sent after `before` was the newest of so many tasks; "": not known."""
    stamp = NOW.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    if before != "":
        stamp += f"[total={total}]" + (f"[after={before}]" if before else "")
    return LostRequest(digest_of(PROMPT), stamp, **more)


def scan(
    scanner: Scanner, request: LostRequest | None = None, limit: Deadline = NO_LIMIT
) -> Verdict:
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
def start() -> Iterator[Callable[..., Scanner]]:
    """A scanner of these tasks. Others have those that are `known`; a list shows `expected`."""
    servers = []

    def start(
        tasks: Tasks | Callable[[Request], Answer],
        known: Iterable[str] = (),
        expected: Iterable[str] = (),
    ) -> Scanner:
        server = RawServer(tasks.answer if isinstance(tasks, Tasks) else tasks)
        server.__enter__()
        servers.append(server)
        client = RebyteClient(transport=Transport(server.base_url, KEY))
        return Scanner(
            client,
            ServerClock(client),
            owned=lambda ids, _digest: ({*known}.intersection(ids), set()),
            expected=lambda: expected,
            is_contested=lambda _group: False,
        )

    yield start
    for server in servers:
        server.__exit__(None, None, None)


Start = Callable[..., Scanner]


def names(rows: Iterable[Row]) -> list[str]:
    return [one["id"] for one in rows]


# How far the list is read


def test_the_list_is_read_to_the_newest_task_of_before(start: Start) -> None:
    rows = [row(f"t{at}", ago=90 * (at >= 150)) for at in range(450)]
    tasks = Tasks(rows, {"t149": PROMPT})
    found = scan(start(tasks, names(rows[:149])), lost("t150", 300))
    assert (names(found.same), names(found.unsure), found.is_complete) == (["t149"], [], True)
    assert tasks.offsets == [0, 95]
    assert tasks.reads == ["t149"]


def test_the_list_is_read_for_the_earliest_of_several_requests(start: Start) -> None:
    tasks = Tasks([row(f"t{at}", ago=at) for at in range(300)], {})
    known = names(tasks.rows[:200])
    late, early = start(tasks, known).scan([lost("t2", 298), lost("t200", 100)])
    assert (late.shows_none, early.shows_none) == (True, True)
    assert tasks.offsets == [0, 95, 190]


def test_without_a_baseline_a_page_is_enough(start: Start) -> None:
    """Nothing will be sent again, and what was made a moment ago is on it."""
    tasks = Tasks([row(f"t{at}", ago=at) for at in range(300)], {"t0": PROMPT})
    found = scan(start(tasks), lost(is_own=True))
    assert (names(found.same), found.is_complete, found.is_counted) == (["t0"], True, False)
    assert (tasks.offsets, tasks.reads) == ([0], ["t0"])


def test_a_list_that_was_empty_is_read_to_its_end(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(150)]
    tasks = Tasks(rows, {"t149": PROMPT})
    found = scan(start(tasks, names(rows[:149])), lost(None))
    assert (names(found.same), found.is_complete, found.is_counted) == (["t149"], True, True)
    assert tasks.offsets == [0, 95]


def test_a_list_that_does_not_count_is_read_but_proves_nothing(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(120)]
    tasks = Tasks(rows, {}, counts=False)
    found = scan(start(tasks, names(rows)), lost(None))
    assert (found.is_complete, found.is_counted) == (True, False)


def test_small_pages_are_read_too(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(19)]

    def answer(request: Request) -> Answer:
        offset = int(parse_qs(urlsplit(request.path).query)["offset"][0])
        return json_reply({"data": rows[offset : offset + 7], "total": 19, "limit": 7})

    assert scan(start(answer, names(rows)), lost(None)).shows_none


@pytest.mark.parametrize("change", ["created", "deleted"])
def test_a_task_that_comes_or_goes_between_two_pages_hides_none(start: Start, change: str) -> None:
    rows = [row(f"t{at}") for at in range(150)]

    def moved() -> None:
        if change == "deleted":
            rows.pop(0)
        else:
            rows.insert(0, row("later"))

    tasks = Tasks(rows, {"t101": PROMPT}, moved=moved)
    found = scan(start(tasks, set(names(rows)) - {"t101"}), lost("t140", 10))
    assert (names(found.same), found.is_complete) == (["t101"], True)
    assert tasks.offsets == [0, 95]


def pages(*answers: dict[str, Any]) -> Callable[[Request], Answer]:
    """A list that gives these pages one after the other, whatever is asked for; the last stays."""
    left = list(answers)
    return lambda _request: json_reply(left.pop(0) if len(left) > 1 else left[0])


RECENT = [row(f"t{at}") for at in range(100)]


@pytest.mark.parametrize(
    "answers",
    [
        [{"data": RECENT}],  # `offset` is ignored: the same page again
        [{"data": RECENT, "total": 200}, {"data": RECENT, "total": 200}],
        [{"data": RECENT, "total": 200, "offset": 0}, {"data": RECENT, "offset": 0}],
        [{"data": RECENT, "total": 101}, {"data": RECENT[95:], "offset": 90}],
        # `total` is that of the page
        [{"data": RECENT, "total": 101}, {"data": [*RECENT[95:], row("more")], "total": 6}],
        # rows that the list counts and does not show
        [{"data": RECENT[1:3], "total": 3}],
        [{"data": [], "total": 3}],
        # a page that does not follow the one before it
        [{"data": RECENT, "total": 200}, {"data": [row(f"u{at}") for at in range(100)]}],
        [{"data": RECENT, "total": 200}, {"data": []}],
        [{"data": RECENT, "total": 101}, {"data": [*RECENT[96:98], RECENT[99], row("more")]}],
        # the same twice, no row at all
        [{"data": [RECENT[0], RECENT[0]]}],
        [{"data": [{"title": "no id"}]}],
    ],
)
def test_a_list_that_contradicts_the_notes_proves_nothing(
    start: Start, answers: list[dict[str, Any]]
) -> None:
    found = scan(start(pages(*answers), names(RECENT)), lost(None))
    assert not found.is_complete
    assert not found.shows_none


@pytest.mark.parametrize(
    "answers",
    [
        [{"data": RECENT, "total": 100}],
        [{"data": [], "total": 0}],
        [{"data": [], "total": 0, "limit": 100, "offset": 0}],
        [{"data": RECENT[:7], "total": 9, "limit": 7}, {"data": RECENT[2:9], "limit": 7}],
        # rows out of order: the times of two machines differ, and no time is looked at
        [{"data": [row("t1", ago=9), row("t2", ago=-600), row("t3")], "total": 3}],
    ],
)
def test_a_list_that_keeps_to_them_is_complete(start: Start, answers: list[dict[str, Any]]) -> None:
    assert scan(start(pages(*answers), names(RECENT)), lost(None)).shows_none


# Whether it is up to date


def test_more_rows_below_than_before_may_hide_ours(start: Start) -> None:
    """The clock of the machine that made it is hours behind, so that it stands below."""
    tasks = Tasks([row("newest", ago=90), row("ours", ago=300), row("old", ago=900)], {})
    assert not scan(start(tasks), lost("newest", 2)).shows_none
    assert scan(start(tasks), lost("newest", 3)).shows_none
    assert not scan(start(tasks), lost("newest", 4)).shows_none  # one was deleted: it is open


def test_a_list_without_the_newest_task_of_before_is_not_whole(start: Start) -> None:
    """It is a stale copy, the list of another account, or the task was deleted."""
    tasks = Tasks([row("t1"), row("t2", ago=9)], {"t1": PROMPT})
    found = scan(start(tasks), lost("newest", 2))
    assert (names(found.same), names(found.unsure)) == (["t1"], ["t2"])
    assert not found.shows_none
    cut = Tasks([row(f"t{at}") for at in range(9)], {}, counts=False)
    assert not scan(start(cut, names(cut.rows)), lost("newest", 9)).shows_none


def test_a_list_without_a_task_that_was_answered_is_not_up_to_date(start: Start) -> None:
    there = {name: json_reply(row(name)) for name in ("t0", "late")}

    def answer(request: Request) -> Answer:
        if "?" in request.path:
            return json_reply({"data": [row("t0")], "total": 1})
        return there.get(request.path.split("/")[3], reply(404))

    reused = start(answer, ["t0"], expected=["t0", "late"])
    assert not scan(reused, lost(None)).is_complete
    there["late"] = error_reply(400, "odd", "Not this one")
    assert not scan(reused, lost(None)).is_complete
    del there["late"]  # deleted since, so the list is right
    assert scan(reused, lost(None)).shows_none
    # The list of another account has none of them.
    assert not scan(start(answer, ["t0"], expected=["late"]), lost(None)).is_complete


def test_the_list_is_read_to_its_end_once_for_a_task_that_was_deleted(start: Start) -> None:
    tasks = Tasks([row(f"t{at}", ago=90) for at in range(150)], {})
    reused = start(tasks, expected=["t0", "gone"])
    for offsets in ([0, 95], [0, 95, 0]):
        assert scan(reused, lost("t0", 150)).shows_none
        assert tasks.offsets == offsets


def test_a_list_need_not_show_what_was_answered_while_it_was_read(start: Start) -> None:
    answered = ["t0"]
    tasks = Tasks([row("t0")], {}, moved=lambda: answered.append("new"))
    assert scan(start(tasks, ["t0"], expected=answered), lost(None)).shows_none


def test_a_list_without_a_task_that_was_a_candidate_proves_nothing(start: Start) -> None:
    tasks = Tasks([row("t0"), row("silent")], {})
    reused = start(tasks, ["t0"])
    assert names(scan(reused, lost(None)).unsure) == ["silent"]
    del tasks.rows[1]
    assert not scan(reused, lost(None)).is_complete
    assert scan(start(tasks, ["t0"]), lost(None)).shows_none
    # One that an earlier run named.
    assert not scan(start(tasks, ["t0"]), lost(None, candidates=["gone"])).is_complete
    assert scan(start(tasks, ["t0"]), lost(None, candidates=["t0"])).shows_none


# What was asked


def test_more_candidates_than_can_be_read_leave_it_open(start: Start) -> None:
    rows = [row(f"t{at}") for at in range(READS + 1)]
    tasks = Tasks(rows, dict.fromkeys(names(rows), "Something else") | {"t0": PROMPT})
    reused = start(tasks)
    found = scan(reused, lost(None))
    assert (names(found.same), found.is_complete, len(tasks.reads)) == (["t0"], False, READS)
    assert scan(reused, lost(None)).is_complete  # the next scan reads those that were left
    assert len(tasks.reads) == READS + 1


def test_transcripts_are_read_once_and_missing_ones_again(start: Start) -> None:
    tasks = Tasks([row("a"), row("b"), row("c")], {"a": "Something else", "b": " "})
    reused = start(tasks)
    assert names(scan(reused).unsure) == ["a", "b", "c"]
    tasks.prompts.update(b=PROMPT, c="Another")
    found = scan(reused)
    assert (names(found.same), names(found.unsure)) == (["b"], ["a", "c"])
    assert tasks.reads == ["a", "b", "c", "b", "c"]
    both = [lost(), lost()._replace(digest=digest_of("Another"))]
    assert [names(one.same) for one in start(tasks).scan(both)] == [["b"], ["c"]]
    assert tasks.reads[5:] == ["a", "b", "c"]  # once for both


@pytest.mark.parametrize("asked", [7, []])
def test_a_transcript_without_a_text_leaves_it_open(start: Start, asked: Any) -> None:
    assert names(scan(start(Tasks([row("a")], {"a": asked}))).unsure) == ["a"]


def test_of_an_earlier_attempt_without_a_baseline_each_equal_prompt_is_named(start: Start) -> None:
    tasks = Tasks([row("late", ago=-60), row("early", ago=900), row("other", ago=30)], {})
    tasks.prompts.update(late=PROMPT, early=PROMPT, other="Something else")
    assert names(scan(start(tasks)).unsure) == ["late", "early"]


def test_no_transcript_is_read_of_what_was_there_before(start: Start) -> None:
    tasks = Tasks([row("new"), row("newest", ago=62), row("old", ago=90)], {})
    assert names(scan(start(tasks), lost("newest", 2)).unsure) == ["new"]
    assert tasks.reads == ["new"]


def test_what_a_clock_an_hour_behind_may_have_put_below_is_read(start: Start) -> None:
    rows = [row("newest", ago=5), row("ours", ago=58), row("other", ago=58), row("old", ago=62)]
    tasks = Tasks(rows, {"ours": PROMPT, "other": "Other"})
    found = scan(start(tasks, ["newest"]), lost("newest", 4))
    assert (names(found.unsure), tasks.reads) == (["ours"], ["ours", "other"])
    # What was sent a moment ago is not sent again, so that nothing has to be proved.
    assert scan(start(tasks, ["newest"]), lost("newest", 4, is_own=True)).candidates == []


def test_a_scan_ends_in_time(start: Start) -> None:
    """Transcripts that never come cost what is left, those that are slow are waited for."""

    at, limit = Time(), 60.0  # moved by the requests, so that it does not matter how long they take

    def answer(request: Request) -> Answer:
        if request.path.startswith("/v1/tasks?"):
            at.now = limit - 0.2
            return json_reply({"data": [row("mute"), row("slow")]})
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


def test_the_baseline_is_the_newest_task_and_their_number() -> None:
    tasks = Tasks([row("new"), row("old", ago=1)], {}, page=1)
    with (
        RawServer(tasks.answer) as server,
        RebyteClient(transport=Transport(server.base_url, KEY)) as client,
    ):
        assert current_baseline(client) == Baseline("new", 2)
        tasks.counts = False
        assert current_baseline(client) is None
        tasks.counts, tasks.rows = True, []
        assert current_baseline(client) == Baseline(None, 0)


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
