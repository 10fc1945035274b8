"""Six ways to create a task twice, each played by a server or a clock that does it.

Where never twice and getting on contradict, the outcome is unknown: status 6, and no second task.
"""

from __future__ import annotations

import html
import json
import sqlite3
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api import calls
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import body_digest_of, digest_of
from rebyte_cli.once import server_clock as server_clock
from rebyte_cli.system.clock import awake_since_boot, since_boot
from tests.conftest import Done
from tests.farm import Farm
from tests.inside import inside
from tests.servers import Answer, Request, error_reply, json_reply, reset

PROMPT = "Prüfe  die Seite über\x07 uns &\nden Schlüssel sk-ab12cd34ef56gh78"
MINUTE = 60.0


class Clocks:
    """The clocks of this machine: one that can be wrong, and the time since boot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0  # seconds more than really
        self.slept = 0.0
        self.wrong = 0.0  # seconds by which the local clock is ahead
        self.boot = "boot1"
        local_now = server_clock.local_now

        def local() -> datetime:
            return local_now() + timedelta(seconds=self.passed + self.wrong)

        monkeypatch.setattr(server_clock, "local_now", local)
        monkeypatch.setattr(
            server_clock, "awake_since_boot", lambda: awake_since_boot() + self.passed
        )
        monkeypatch.setattr(calls, "since_boot", lambda: since_boot() + self.passed + self.slept)
        monkeypatch.setattr(server_clock, "boot_id", lambda: self.boot)


class Place:
    """A service, a home, and clocks. `lose` has the next create made and not answered."""

    def __init__(self, home: Path, farm: Farm, clocks: Clocks) -> None:
        self.home, self.farm, self.clocks = home, farm, clocks
        self.is_cut = False  # no answer comes at all
        self.lost = 0  # creates whose answers get lost from now on
        self.makes = True  # whether they make a task
        self.ahead = 0.0  # seconds by which the machine that makes it is ahead of the others
        farm.hook = self._hook

    def _hook(self, request: Request) -> Answer | None:
        if request.method == "POST" and self.lost:
            self.lost -= 1
            if self.makes:
                self.farm.shift += self.ahead
                self.farm._make(request.json)
                self.farm.shift -= self.ahead
            return reset
        return reset if self.is_cut else None

    def later(self, seconds: float) -> None:
        """Let time pass for everyone."""
        self.clocks.passed += seconds
        self.farm.shift += seconds

    @property
    def history(self) -> History:
        path = self.home / ".local" / "state" / "rebyte" / "history.db"
        return History(path, origin=self.farm.server.origin)

    def once(self) -> Done:
        return self.run("create", PROMPT, "--once", "k")

    def batch(self, *options: str) -> Done:
        (self.home / "t.jsonl").write_text(json.dumps({"prompt": PROMPT}) + "\n")
        return self.run("batch", "t.jsonl", *options)

    def run(self, *words: str) -> Done:
        return inside(*words, cwd=self.home, env=self.farm.env)

    @property
    def made(self) -> int:
        return len(self.farm.tasks)


Command = Callable[[Place], Done]


@pytest.fixture(params=["once", "batch"])
def command(request: pytest.FixtureRequest) -> Command:
    """The two commands that send again by themselves."""
    return Place.once if request.param == "once" else Place.batch


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.fixture
def place(
    home: Path, clocks: Clocks, pace: Callable[..., None], quick_retries: None
) -> Iterator[Place]:
    """The 20 s of a search are shortened, and so are its pauses; nothing else is."""
    pace(look_for=0.5, shortest_scan=60.0, first_pause=0.1, later=0.2)
    with Farm() as farm:
        yield Place(home, farm, clocks)


def lose_one(place: Place, command: Command, *, makes: bool = True) -> Done:
    """A first run whose create is lost, while transcripts cannot be read."""
    place.lost, place.makes = 1, makes
    place.farm.silent = True
    done = command(place)
    place.farm.silent = False
    assert done.status == 6, done.err
    return done


# Case 78: the clock of this machine is wrong


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [-1000.0, 1000.0, 3 * 3600.0, -86_400.0])
def test_case_78_a_clock_that_is_put_right(place: Place, command: Command, wrong: float) -> None:
    place.clocks.wrong = wrong
    place.lost, place.makes = 1, False
    assert command(place).status == 6
    place.clocks.wrong = 0.0
    place.later(MINUTE)
    assert command(place).status == 6  # it is a minute old, whatever the clock said
    assert place.farm.tried.total() == 0
    place.later(15 * MINUTE)
    assert command(place).status == 0
    assert place.made == 1


@pytest.mark.parametrize("wrong", [-1000.0, 1000.0, 3 * 3600.0, -86_400.0])
def test_case_78_the_task_is_found_whatever_the_clock_said(
    place: Place, command: Command, wrong: float
) -> None:
    place.clocks.wrong = wrong
    lose_one(place, command)
    place.clocks.wrong = 0.0
    place.later(20 * MINUTE)
    assert command(place).status == 0
    assert place.made == 1


def test_case_78_without_a_baseline_a_key_is_never_sent_again(place: Place) -> None:
    """Killed before it heard anything: no list tells what was there before."""
    place.lost, place.makes, place.is_cut = 1, False, True
    assert place.once().status == 6
    place.is_cut = False
    for _ in range(2):
        place.later(20 * MINUTE)
        done = place.once()
        assert done.status == 6
        assert "--forget" in done.err
    assert place.made == 0
    assert place.run("create", "--once", "k", "--forget").status == 0
    assert place.once().status == 0
    assert place.made == 1


def test_case_78_after_a_reboot_the_age_counts_from_the_first_search(
    place: Place, command: Command
) -> None:
    lose_one(place, command, makes=False)
    place.clocks.boot = "boot2"
    place.later(24 * 60 * MINUTE)
    assert command(place).status == 6
    place.later(14 * MINUTE)
    assert command(place).status == 6
    assert place.made == 0
    place.later(2 * MINUTE)
    assert command(place).status == 0
    assert place.made == 1


# Case 79: a single wrong answer


def test_case_79_a_list_that_is_wrong_at_times(place: Place, command: Command) -> None:
    lose_one(place, command)
    place.later(20 * MINUTE)
    calls: list[int] = []

    def page(answer: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        # Wrong at first, then right but for the prompt, which cannot be read yet, then wrong.
        return answer if 3 <= len(calls) <= 4 else {**answer, "data": [], "total": 0}

    place.farm.page, place.farm.silent = page, True
    assert command(place).status == 6
    assert place.made == 1


def test_case_79_a_500_whose_task_shows_late(place: Place, pace: Callable[..., None]) -> None:
    pace(look_for=60.0, first_pause=0.1)  # it ends when the task shows
    hidden = [True]

    def page(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "data": [], "total": 0} if hidden.pop() else answer

    def hook(request: Request) -> Answer | None:
        if request.method != "POST" or place.made:
            return None
        place.farm._make(request.json)
        return error_reply(500, "internal_error", "Oops")

    place.farm.hook = hook
    assert place.batch().status == 5
    hidden[:] = [False] * 99 + [True] * 4
    place.farm.page = page
    done = place.batch("--retry-failed")
    assert done.status == 0, done.err
    assert place.made == 1


@pytest.mark.slow
def test_case_79_a_slow_list_proves_as_much_as_a_fast_one(place: Place, command: Command) -> None:
    """Few looks fit into the 20 s; without enough of them the key would never work again."""
    lose_one(place, command, makes=False)
    place.later(20 * MINUTE)
    farm_hook = place.farm.hook

    def hook(request: Request) -> Answer | None:
        if request.method == "GET":
            time.sleep(0.35)
        return farm_hook(request)

    place.farm.hook = hook
    done = command(place)
    assert done.status == 0, done.err
    assert place.made == 1


# Case 80: a list that contradicts the history


def padded(place: Place, count: int = 130) -> None:
    """Other tasks that were created since, so that the lost one is on the second page."""
    for number in range(count):
        place.farm._make({"prompt": f"Something else, number {number}"})


LISTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "total of the page": lambda answer: {**answer, "total": len(answer["data"])},
    "newest missing": lambda answer: {**answer, "data": answer["data"][1:]},
    "out of order": lambda answer: {**answer, "data": sorted(answer["data"], key=odd)},
    "rows without ids": lambda answer: {**answer, "data": [{"title": "x"}]},
    "no list": lambda answer: {**answer, "data": []},
}


def odd(row: dict[str, Any]) -> str:
    return str(row["id"][::-1])


@pytest.mark.parametrize("name", LISTS)
def test_case_80_a_list_that_contradicts_the_notes(
    place: Place, command: Command, name: str
) -> None:
    lose_one(place, command)
    if name != "newest missing":
        padded(place)
    place.later(20 * MINUTE)
    place.farm.page = LISTS[name]
    assert command(place).status == 6
    assert place.farm.made[PROMPT] == 1


def test_case_80_a_list_that_ignores_the_offset(place: Place, command: Command) -> None:
    lose_one(place, command)
    padded(place)
    place.later(20 * MINUTE)
    first = place.farm._list
    place.farm._list = lambda query: first({**query, "offset": ["0"]})  # type: ignore[method-assign]
    assert command(place).status == 6
    assert place.farm.made[PROMPT] == 1


# Case 81: a prompt that the server changed


def first_line(prompt: str) -> str:
    return prompt.splitlines()[0]


REWRITES: dict[str, Callable[[str], str]] = {
    "nfd": lambda prompt: unicodedata.normalize("NFD", prompt),
    "blanks": lambda prompt: " ".join(prompt.split()),
    "html": html.escape,
    "control": lambda prompt: prompt.replace("\x07", ""),
    "mask": lambda prompt: prompt.replace("sk-ab12cd34ef56gh78", "***"),
    "tag": lambda prompt: prompt.replace("sk-ab12cd34ef56gh78", "<secret>"),
    "ascii": lambda prompt: prompt.encode("ascii", "replace").decode(),
    "gone": lambda _prompt: "",
    "newlines": lambda prompt: prompt.replace("\n", "\\n"),
    "json": lambda prompt: json.dumps(prompt)[1:-1],
    "read more": lambda prompt: f"{prompt[:30]}… Read more",
    "truncated": lambda prompt: f"{prompt[:30]}... (truncated)",
    "more": lambda prompt: f"{prompt[:12]} (more)",
    "first line": first_line,
    "short cut": lambda prompt: prompt[:8],
    "cut": lambda prompt: f"{prompt[:25]}…",
    "user": lambda prompt: f"user: {prompt}",
    "system": lambda prompt: f"You are a helpful agent.\n\n{prompt}",
    "cp1252": lambda prompt: prompt.encode().decode("cp1252", "replace"),
    "percent": quote,
    "translated": lambda _prompt: "An die Arbeit",
    "summary": lambda _prompt: "Fix login",
    "lines": lambda prompt: prompt[::-1],
}


@pytest.mark.parametrize("name", REWRITES)
def test_case_81_a_prompt_that_the_server_changed(
    place: Place, command: Command, name: str
) -> None:
    place.farm.shows = REWRITES[name]
    lose_one(place, command)
    place.later(20 * MINUTE)
    done = command(place)
    assert done.status == 6
    assert "task-00001" in done.err
    assert place.made == 1


def test_case_81_a_stranger_may_be_ours(place: Place, command: Command) -> None:
    lose_one(place, command, makes=False)
    stranger = place.farm._make({"prompt": "Something else"})
    place.later(20 * MINUTE)
    done = command(place)
    assert done.status == 6
    assert stranger["id"] in done.err
    assert place.farm.made[PROMPT] == 0


def test_case_81_a_stranger_from_before_is_in_no_ones_way(place: Place, command: Command) -> None:
    place.farm._make({"prompt": "Something else"})
    lose_one(place, command, makes=False)
    place.later(20 * MINUTE)
    assert command(place).status == 0
    assert place.farm.made[PROMPT] == 1


def test_case_81_a_service_that_showed_this_prompt_unchanged_before(
    place: Place, command: Command
) -> None:
    """Since then it shows summaries, so that what reads otherwise may be ours."""
    assert place.run("create", PROMPT).status == 0
    place.later(5 * 60 * MINUTE)
    place.farm.shows = lambda _prompt: "Fix login"
    hook, shown = place.farm.hook, {"prompts": [{"id": "p1", "userPrompt": PROMPT}]}
    place.farm.hook = lambda request: (
        json_reply(shown) if request.path.endswith("task-00001/content") else hook(request)
    )
    lose_one(place, command)
    place.later(20 * MINUTE)
    assert command(place).status == 6
    assert place.farm.made[PROMPT] == 2


def test_case_81_the_prompt_of_another_line_proves_nothing_if_ours_can_be_cut_to_it(
    place: Place,
) -> None:
    """Both are lost, one of them made a task, and its first line is the whole of the other."""
    place.farm.shows = first_line
    (place.home / "t.jsonl").write_text(
        json.dumps({"prompt": "Review"}) + "\n" + json.dumps({"prompt": "Review\nthe login"}) + "\n"
    )
    made = place.farm._make
    place.lost, place.makes, place.farm.silent = 2, False, True
    assert place.run("batch", "t.jsonl", "--jobs", "1").status == 6
    made({"prompt": "Review\nthe login"})
    place.farm.silent = False
    place.later(20 * MINUTE)
    assert place.run("batch", "t.jsonl").status == 6
    assert place.farm.made["Review\nthe login"] == 1


# Case 82: two clocks of the service


@pytest.mark.parametrize("skew", [3.0, 5.0, -5.0, 1000.0, -1000.0, 3 * 3600.0, -3 * 3600.0])
def test_case_82_date_and_created_at_differ(place: Place, skew: float) -> None:
    place.farm.skew = skew
    lose_one(place, Place.batch)
    place.later(20 * MINUTE)
    assert place.batch().status in (0, 6)
    assert place.made == 1


@pytest.mark.parametrize("skew", [3.0, -5.0, 1000.0, -1000.0, 8 * 3600.0, -8 * 3600.0])
def test_case_82_for_once_too(place: Place, skew: float) -> None:
    place.farm.skew = skew
    lose_one(place, Place.once)
    place.later(20 * MINUTE)
    assert place.once().status in (0, 6)
    assert place.made == 1


@pytest.mark.parametrize("hours", [-30.0, -5.0, 3.0])
def test_case_82_the_dates_of_two_machines_differ(
    place: Place, command: Command, hours: float
) -> None:
    """One was right when a task was created; the one that timed the lost request is not."""
    assert place.run("create", "Something of ours", "--once", "z").status == 0
    place.later(MINUTE)
    place.farm.skew = hours * 3600
    lose_one(place, command)
    place.later(20 * MINUTE)
    assert command(place).status in (0, 6)
    assert place.farm.made[PROMPT] == 1


@pytest.mark.parametrize("is_naive", [True, False], ids=["naive", "zulu"])
@pytest.mark.parametrize("zone", [2.0, 14.0, -8.0])
def test_case_82_the_list_has_another_zone_than_an_answer(
    place: Place, command: Command, zone: float, is_naive: bool
) -> None:
    """What answers show of `createdAt` beside `Date` says nothing of the rows of the list."""

    def page(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "data": [in_zone(row, zone, is_naive) for row in answer["data"]]}

    place.farm.page = page
    lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in ("First", "Second", PROMPT)]
    (place.home / "t.jsonl").write_text("".join(lines))

    def run() -> Done:
        batch = ("batch", "t.jsonl", "--jobs", "1")
        return command(place) if command is Place.once else place.run(*batch)

    if command is Place.once:
        assert place.run("create", "First", "--once", "z").status == 0
        place.later(MINUTE)
    hook = place.farm.hook

    def lose(request: Request) -> Answer | None:
        if request.method == "POST" and request.json["prompt"] == PROMPT:
            place.lost = 0 if place.farm.made[PROMPT] else 1
        return hook(request)

    place.farm.hook, place.farm.silent = lose, True
    assert run().status == 6
    place.farm.silent = False
    place.later(20 * MINUTE)
    assert run().status in (0, 6)
    assert place.farm.made[PROMPT] == 1


def in_zone(row: dict[str, Any], zone: float, is_naive: bool) -> dict[str, Any]:
    """A row whose time is a local one, of a zone so many hours ahead."""
    moment = datetime.fromisoformat(row["createdAt"]) + timedelta(hours=zone)
    written = moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return {**row, "createdAt": written if is_naive else f"{written}Z"}


@pytest.mark.parametrize("shown", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_case_82_a_task_without_a_time(place: Place, command: Command, shown: str) -> None:
    """Go writes its zero time so. It stays in the history, and must not end a later search."""
    place.farm._make({"prompt": "Something else"})
    make = place.farm._make

    def without_time(body: dict[str, Any]) -> dict[str, Any]:
        task = make(body)
        task["createdAt"] = shown
        return task

    place.farm._make = without_time  # type: ignore[method-assign]
    assert place.run("create", "Something of ours", "--once", "z").status == 0
    lose_one(place, command)
    place.farm._make = make  # type: ignore[method-assign]
    place.later(20 * MINUTE)
    assert command(place).status == 6
    assert place.farm.made[PROMPT] == 1


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("ahead", [1.5, 30.0, -1.5, -30.0])
def test_case_82_the_clock_of_the_machine_that_made_it_is_wrong(
    place: Place, command: Command, ahead: float, is_sorted: bool
) -> None:
    """In a list by `createdAt`, one that is behind puts it below what was there before."""
    place.farm.is_sorted = is_sorted
    for number in range(3):
        place.farm._make({"prompt": f"Earlier {number}"})
    place.ahead = ahead * 3600
    lose_one(place, command)
    place.later(17 * MINUTE)
    done = command(place)
    assert (done.status, place.farm.made[PROMPT]) == (6, 1)
    assert ("task-00004" in done.err) is (ahead > 0 or not is_sorted)


def test_case_82_a_request_that_made_nothing_is_sent_again_once(
    place: Place, command: Command
) -> None:
    for number in range(3):
        place.farm._make({"prompt": f"Earlier {number}"})
    place.lost, place.makes = 1, False
    assert command(place).status == 6
    place.later(17 * MINUTE)
    assert [command(place).status for _ in range(2)] == [0, 0]
    assert (place.farm.made[PROMPT], place.farm.tried[PROMPT]) == (1, 1)


def test_a_command_that_ends_between_its_two_notes_doubles_nothing(place: Place) -> None:
    """What ends it there is a write that the history refuses: the note that the key is done."""
    place.run("create", "Earlier")
    with closing(sqlite3.connect(place.history.path)) as history:
        refusal = "BEFORE UPDATE ON intents BEGIN SELECT RAISE(ABORT, 'full'); END"
        history.execute(f"CREATE TRIGGER refuses {refusal}")
        assert place.once().status == 0
        history.execute("DROP TRIGGER refuses")
    place.later(17 * MINUTE)
    assert place.once().status == 0
    assert place.farm.made[PROMPT] == 1


def test_a_clock_a_little_behind_and_a_task_that_is_deleted(place: Place, command: Command) -> None:
    place.farm.is_sorted = True
    for number in range(3):
        place.farm._make({"prompt": f"Earlier {number}"})
    place.ahead = -30.0
    lose_one(place, command)
    del place.farm.tasks["task-00001"]
    place.later(17 * MINUTE)
    done = command(place)
    assert (done.status, place.farm.made[PROMPT]) == (6, 1)
    assert "task-00004" in done.err


def show_cleaned(prompt: str) -> str:
    """A prompt as a service may show it: unescaped, composed, each run of blanks one blank."""
    return unicodedata.normalize("NFC", html.unescape(" ".join(prompt.split())))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Fix the login", "Fix  the\nlogin"),
        ("Fix <b>", "Fix &lt;b&gt;"),
        ("Fix the caf\u00e9", "Fix the cafe\u0301"),
        ("Fix it " * 60, "Fix it  " * 60),
        ("Fix it", "Fix  it\nand test it"),
    ],
)
def test_two_requests_that_are_shown_alike_take_nothing_from_each_other(
    place: Place, ours: str, theirs: str
) -> None:
    place.farm.shows = show_cleaned
    place.lost, place.makes = 1, False
    assert place.run("create", ours, "--once", "ours").status == 6
    place.lost, place.makes = 1, True
    assert place.run("create", theirs, "--once", "theirs").status == 6
    place.later(17 * MINUTE)
    for key, prompt in {"ours": ours, "theirs": theirs}.items():
        assert place.run("create", prompt, "--once", key).status == 6
    assert place.made == 1


def test_a_machine_that_slept_counts_its_time_awake(place: Place, command: Command) -> None:
    """The request may have been sent when it woke up."""
    lose_one(place, command, makes=False)
    place.clocks.slept += 17 * MINUTE
    place.farm.shift += 17 * MINUTE
    assert command(place).status == 6
    place.later(17 * MINUTE)
    assert command(place).status == 0
    assert place.made == 1


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_request_that_nobody_searches_for_any_more_still_may_have_made_a_task(
    place: Place, is_forgotten: bool
) -> None:
    """The task of the other request must not become that of the key."""
    place.lost, place.makes = 1, False
    assert place.once().status == 6
    other = {"prompt": PROMPT, "model": "big"}
    intents = place.history.intents
    key = "other" if is_forgotten else None
    with intents.hold(key or "owner"):
        intents.open(
            key,
            digest=digest_of(PROMPT),
            body_digest=body_digest_of(other),
            started_at=server_clock.ServerClock(RebyteClient("k")).timestamp(),
            owner="owner",
        )
    place.farm._make(other)
    place.later(17 * MINUTE)
    if is_forgotten:
        assert place.run("create", "--once", "other", "--forget").status == 0
    else:
        place.run("create", PROMPT, "--model", "big")
    assert place.once().status == 6


ZONES = [2.0, 5.5, 14.0, -2.0, -8.0]  # hours


@pytest.mark.slow
@pytest.mark.parametrize("shows", ["Fix login", ""], ids=["changed", "not shown"])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("is_naive", [True, False], ids=["naive", "zulu"])
def test_case_82_a_local_time_and_no_prompt_to_go_by(
    place: Place, command: Command, zone: float, shows: str, is_naive: bool
) -> None:
    place.farm.skew, place.farm.is_naive = -zone * 3600, is_naive
    place.farm.shows = lambda _prompt: shows
    place.farm._make({"prompt": "Something else"})
    lose_one(place, command)
    place.later(20 * MINUTE)
    assert command(place).status == 6
    assert place.farm.made[PROMPT] == 1


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [-21 * 3600.0, 21 * 3600.0])
@pytest.mark.parametrize("shows", ["Fix login", ""], ids=["changed", "not shown"])
def test_case_82_no_date_and_a_wrong_clock(
    place: Place, command: Command, wrong: float, shows: str
) -> None:
    place.farm.tells_time = False
    place.farm.shows = lambda _prompt: shows
    place.clocks.wrong = wrong
    lose_one(place, command)
    place.later(20 * MINUTE)
    assert command(place).status == 6
    assert place.farm.made[PROMPT] == 1
