"""`--on`: the lines of one batch at several places, each of them once, whatever ends in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.system.deadline import Patience
from tests.conftest import COMMAND, Done
from tests.farm import Farm, _shown, lines_of
from tests.inside import inside
from tests.servers import Request, error_reply, json_reply, reset
from tests.waiting import eventually

Batch = Callable[..., Done]


def profiles(home: Path, farms: Mapping[str, Any]) -> None:
    """Have a profile for each service, by name."""
    folder = home / ".config/rebyte"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(
        f'[profiles.{name}]\nbase_url = "{service.base_url}"\nkey_command = ["echo", "rbk_local"]\n'
        for name, service in farms.items()
    )
    (folder / "config.toml").write_text(text)


@pytest.fixture
def batch(home: Path) -> Batch:
    """`rebyte batch` on these lines, or on those of the last call (None)."""

    def run(lines: Iterable[Any] | None, *options: str, **more: Any) -> Done:
        if lines is not None:
            made = [each if isinstance(each, dict) else {"prompt": each} for each in lines]
            (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))
        return inside("batch", "t.jsonl", *options, cwd=home, **more)

    return run


def rows_of(done: Done) -> list[dict[str, Any]]:
    return sorted(lines_of(done.out), key=lambda row: int(row["line"]))


def places_of(done: Done) -> list[Any]:
    return [row["place"] for row in rows_of(done)]


def made_by(*farms: Farm) -> Counter[str]:
    """How many tasks all of them made, by prompt."""
    return sum((farm.made for farm in farms), Counter[str]())


def prompts(count: int) -> list[str]:
    return [f"Task {number}" for number in range(count)]


def test_a_line_goes_to_the_first_place_that_is_free(batch: Batch, home: Path) -> None:
    with Farm(run=0.3) as one, Farm(run=0.3) as two:
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(6), "--on", "one:1,two:2", "-o", "jsonl")
        assert done.status == 0, done.err
        assert made_by(one, two) == Counter(prompts(6))
        assert places_of(done)[:3] == ["one", "two", "two"]
        assert Counter(places_of(done)) == {"one": len(one.tasks), "two": len(two.tasks)}
        assert one.most_under_way <= 1
        assert two.most_under_way <= 2
        assert "one: " in done.err
        assert "per minute" in done.err
        again = batch(None, "--on", "one:1,two:2", "-o", "jsonl")
        assert places_of(again) == places_of(done)
        assert made_by(one, two) == Counter(prompts(6))


def test_the_journal_says_where_before_a_line_is_sent(batch: Batch, home: Path) -> None:
    seen: list[tuple[str, bool]] = []

    def hook_of(name: str) -> Callable[[Request], None]:
        def hook(request: Request) -> None:
            if request.method == "POST":
                number = int(request.json["prompt"].split()[1]) + 1
                records = lines_of((home / "t.jsonl.journal").read_text())
                wanted = {"line": number, "is": "sending", "place": name}
                seen.append((name, any(wanted.items() <= record.items() for record in records)))

        return hook

    with Farm(hook=hook_of("one")) as one, Farm(hook=hook_of("two")) as two:
        profiles(home, {"one": one.server, "two": two.server})
        assert batch(prompts(4), "--on", "one:1,two:1").status == 0
    assert len(seen) == 4
    assert all(is_there for _, is_there in seen)


def test_lines_of_one_workspace_stay_together(batch: Batch, home: Path) -> None:
    lines: list[dict[str, Any]] = []
    for chain in "abc":
        lines.append({"key": f"{chain}0", "prompt": f"{chain} 0"})
        lines += [
            {"key": f"{chain}{n}", "prompt": f"{chain} {n}", "workspaceId": f"@{chain}{n - 1}"}
            for n in range(1, 4)
        ]
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(lines, "--on", "one:1,two:2")
        assert done.status == 0, done.err
        rows = rows_of(done)
        for chain in "abc":
            mine = [row for row in rows if row["key"].startswith(chain)]
            assert len({(row["place"], row["workspaceId"]) for row in mine}) == 1
        assert len({row["place"] for row in rows}) == 2


def test_a_journal_of_one_place_goes_on_at_several(batch: Batch, home: Path) -> None:
    """What was sent keeps its place, and a lost line is searched for there."""
    with Farm() as one, Farm() as two:
        profiles(home, {"one": one.server, "two": two.server})
        one.hook = lambda request: (
            one._make(request.json) and reset if request.method == "POST" else None
        )
        one.silent = True
        first = batch(prompts(2), "-P", "one", "--timeout", "3")
        assert {row["status"] for row in rows_of(first)} == {"unknown"}, first.err
        assert all("place" not in row for row in rows_of(first))
        one.silent, one.hook = False, lambda _request: None
        done = batch(prompts(5), "--on", "two:2,one:1")
        assert done.status == 0, done.err
        assert places_of(done)[:2] == ["one", "one"]
        assert "two" in places_of(done)[2:]
        assert made_by(one, two) == Counter(prompts(5))


def test_a_changed_list_is_for_new_lines(batch: Batch, home: Path) -> None:
    with Farm(run=60) as one, Farm(run=60) as two, Farm() as three:
        profiles(home, {"one": one.server, "two": two.server, "three": three.server})
        first = batch(prompts(4), "--on", "one:1,two:1", "--timeout", "1")
        assert sorted(filter(None, places_of(first))) == ["one", "two"]
        for farm in (one, two):
            farm.run = 0.0
            for task in farm.tasks.values():
                task["ends"] = 0.0
        done = batch(None, "--on", "three:1")
        assert done.status == 0, done.err
        assert places_of(done)[2:] == ["three", "three"]
        # Without --on, new lines run where the profile in use says.
        last = batch([*prompts(4), "More"], "-P", "two")
        assert last.status == 0, last.err
        assert places_of(last) == [*places_of(done), "two"]
        assert made_by(one, two, three) == Counter([*prompts(4), "More"])


def test_a_place_whose_profile_is_gone_says_what_to_do(batch: Batch, home: Path) -> None:
    with Farm(run=60) as one, Farm() as two:
        profiles(home, {"one": one.server, "two": two.server})
        batch(prompts(1), "--on", "one:1", "--timeout", "1")
        profiles(home, {"two": two.server})
        done = batch([*prompts(1), "More"], "--on", "two:1")
        assert done.status == 2
        assert "lines of the journal (1) are at the place one: no such profile: one" in done.err
        assert "Create the profile one again" in done.err
        profiles(home, {"two": two.server, "one": two.server})
        done = batch(None, "--on", "two:1")
        assert done.status == 2
        assert f"which was {one.server.origin} then and is {two.server.origin} now" in done.err
        assert not two.made
        profiles(home, {"one": one.server, "two": two.server})
        one.tasks["task-00001"]["ends"] = 0.0
        assert batch(None, "--on", "two:1").status == 0
        assert made_by(one, two) == Counter([*prompts(1), "More"])


def test_two_names_of_one_service_are_refused(batch: Batch, home: Path) -> None:
    with Farm() as farm:
        profiles(home, {"one": farm.server, "two": farm.server})
        done = batch(prompts(1), "--on", "one:1,two:1")
        assert (done.status, "are the same service" in done.err) == (2, True)
        for words in (["-P", "one", "--on", "one:1"], ["--on", "one:1", "--no-wait"]):
            assert batch(None, *words).status == 2
        for value in ("one:0", "one:x", "one,,two", "one,one", ":3"):
            assert batch(None, "--on", value).status == 2
        assert not farm.made


def test_a_place_that_is_gone_leaves_the_lines_to_the_others(batch: Batch, home: Path) -> None:
    """From the start, or from a moment in the middle: what it has is waited for, no more."""
    with Farm() as two:
        one = Farm(run=0.05)
        one.__enter__()
        origin = one.server
        one.__exit__(None, None, None)
        profiles(home, {"one": origin, "two": two.server})
        done = batch(prompts(6), "--on", "one:2,two:2")
        assert done.status == 0, done.err
        assert set(places_of(done)) == {"two"}
        assert "one: Paused" in done.err
        assert two.made == Counter(prompts(6))


def test_a_key_that_one_place_refuses_ends_only_that_place(batch: Batch, home: Path) -> None:
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        one.hook = lambda _request: error_reply(401, "invalid_api_key", "No")
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(6), "--on", "one:2,two:2")
        assert done.status == 0, done.err  # no line needs it
        assert set(places_of(done)) == {"two"}
        assert {row["status"] for row in rows_of(done)} == {"completed"}
        assert "one: " in done.err
        assert two.made == Counter(prompts(6))


def test_a_place_that_turns_creates_away_leaves_them_to_the_others(
    batch: Batch, home: Path
) -> None:
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        one.hook = lambda request: (
            one._refusal(429, "Retry-After: 60") if request.method == "POST" else None
        )
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(6), "--on", "one:2,two:2")
        assert done.status == 0, done.err
        assert two.made == Counter(prompts(6))


def test_a_place_that_ends_with_lines_decides_the_status(
    batch: Batch, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for as long as others work, and no longer than an outage may last."""
    patience: Any = Patience.__init__
    monkeypatch.setitem(patience.__kwdefaults__, "outage", 0.5)
    monkeypatch.setitem(patience.__kwdefaults__, "faults", 2)
    gone: list[bool] = []
    with Farm(run=60) as one, Farm(run=0.3) as two:

        def hook(request: Request) -> Any:
            if request.method == "GET" and len(one.tasks) == 1 and len(two.tasks) > 1:
                gone.append(True)
            return reset if gone else None

        one.hook = hook
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(8), "--on", "one:1,two:1")
        assert done.status == 5, done.err
        statuses = Counter((row["place"], row["status"]) for row in rows_of(done))
        assert statuses == {("one", "running"): 1, ("two", "completed"): 7}
        one.hook = lambda _request: None
        one.tasks["task-00001"]["ends"] = 0.0
        assert batch(None, "--on", "one:1,two:1").status == 0
        assert made_by(one, two) == Counter(prompts(8))


def test_a_usage_limit_at_one_place_leaves_the_lines_to_the_others(
    batch: Batch, home: Path
) -> None:
    """Its task keeps its slot until the limit is reset."""
    limited = {"status": "running", "resumesAt": "2099-01-01T00:00:00.000Z"}
    with Farm(run=600) as one, Farm(run=0.1) as two:

        def hook(request: Request) -> Any:
            if request.method != "GET" or not request.path.endswith("task-00001"):
                return None
            if len(two.made) < 7:
                return json_reply({**_shown(one.tasks["task-00001"]), **limited})
            one.run = one.tasks["task-00001"]["ends"] = 0.0
            return None

        one.hook = hook
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(12), "--on", "one:1,two:1", "--timeout", "120")
        assert done.status == 0, done.err
        assert places_of(done)[0] == "one"
        assert made_by(one, two) == Counter(prompts(12))
        assert len(two.made) >= 7


def test_lost_answers_at_several_places_are_found(
    batch: Batch, home: Path, one_clock: None
) -> None:
    lines = [f"Task {number} {'<cut>' if number % 3 else '<cut-before>'}" for number in range(9)]
    with Farm() as one, Farm() as two, Farm() as three:
        profiles(home, {"one": one.server, "two": two.server, "three": three.server})
        words = "--on", "one:2,two:2,three:2", "--resend-after", "0.3"
        done = batch(lines, *words)
        for _ in range(8):
            if done.status != 6:  # on a busy machine a line may stay unknown until the next run
                break
            done = batch(None, *words)
        assert done.status == 0, done.err
        assert made_by(one, two, three) == Counter(lines)


@pytest.mark.slow
def test_two_runs_at_once_over_places_that_overlap(batch: Batch, home: Path) -> None:
    is_told: list[bool] = []
    with Farm(until=lambda: is_told) as one, Farm() as two, Farm() as three:
        profiles(home, {"one": one.server, "two": two.server, "three": three.server})
        (home / "t.jsonl").write_text("".join(f'{{"prompt": "{word}"}}\n' for word in prompts(4)))
        words = [*COMMAND, "batch", "t.jsonl", "--on", "one:1,two:1"]
        with subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE) as first:
            eventually(lambda: bool(one.made))
            same = batch(None, "--on", "one:1,two:1")
            assert "another run is using the journal" in same.err
            other = batch(None, "--on", "two:1,three:1", "--journal", "other")
            assert "another run is creating tasks" in other.err
            is_told.append(True)
            assert first.wait(60) == 0
        assert made_by(one, two, three) == Counter(prompts(4))


def test_an_older_copy_of_the_journal_doubles_nothing(batch: Batch, home: Path) -> None:
    """The history knows of each place whose tasks are there."""
    journal = home / "t.jsonl.journal"
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(6), "--on", "one:1,two:2")
        records = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(records[:4]))
        again = batch(None, "--on", "one:1,two:2")
        assert again.status == 0, again.err
        assert "is an older copy" in again.err
        assert places_of(again) == places_of(done)
        assert made_by(one, two) == Counter(prompts(6))


def test_a_version_without_places_refuses_such_a_journal(batch: Batch, home: Path) -> None:
    """It would look for each line at one and the same service, and send what it does not find."""
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        profiles(home, {"one": one.server, "two": two.server})
        batch(prompts(3), "--on", "one:1,two:1")
    records = lines_of((home / "t.jsonl.journal").read_text())
    guards = [record["place"] for record in records if record.get("is") == "place"]
    assert guards == ["one", "two"]  # a state of a line that no version before knows


def test_the_report_and_the_table_show_places(batch: Batch, home: Path) -> None:
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(3), "--on", "one:1,two:1", "-o", "table", "--report", "r.md")
        assert "PLACE" in done.out
        assert " one" in done.out
        assert "| Place |" in (home / "r.md").read_text()
        batch(None, "--on", "one:1,two:1", "--report", "r.html")
        assert "one" in (home / "r.html").read_text()
        shown = batch(None, "--status", "-o", "jsonl")
        assert places_of(shown) == places_of(batch(None, "--on", "one:1,two:1", "-o", "jsonl"))


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


COUNT = int(os.environ.get("REBYTE_TEST_PLACES", "24"))


@pytest.mark.slow
def test_kills_of_the_client_double_nothing(home: Path, one_clock: None) -> None:
    words = [*COMMAND, "batch", "t.jsonl", "--on", "one:2,two:3,three:4", "--resend-after", "1"]
    with (
        Farm(delay=0.01, run=0.1, cuts=0.1) as one,
        Farm(delay=0.02, run=0.2, cuts=0.1) as two,
        Farm(run=0.05, cuts=0.1) as three,
    ):
        farms = (one, two, three)
        profiles(home, {"one": one.server, "two": two.server, "three": three.server})
        (home / "t.jsonl").write_text(
            "".join(f'{{"prompt": "{word}"}}\n' for word in prompts(COUNT))
        )
        for part in (0.2, 0.5, 0.8):
            with subprocess.Popen(words, cwd=home, stdout=subprocess.DEVNULL) as process:
                limit = time.monotonic() + 120
                while sum(made_by(*farms).values()) < part * COUNT and process.poll() is None:
                    assert time.monotonic() < limit
                    time.sleep(0.01)
                kill(process)
        for farm in farms:
            farm.cuts = 0.0
        for _ in range(10):  # a search may take longer than it has
            done = inside(*words[3:], cwd=home)
            if done.status != 6:
                break
        assert done.status == 0, done.err
        assert made_by(*farms) == Counter(prompts(COUNT))
        assert len(rows_of(done)) == COUNT


def test_services_with_wrong_clocks_lose_and_double_nothing(
    batch: Batch, home: Path, one_clock: None
) -> None:
    lines = [f"Task {number} {'<cut>' if number % 2 else ''}" for number in range(8)]
    with Farm(run=0.05) as one, Farm(run=0.05) as two:
        one.shift, two.shift = 3 * 3600.0, -30 * 86400.0
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(lines, "--on", "one:2,two:2", "--resend-after", "0.5")
        assert done.status == 0, done.err
        assert made_by(one, two) == Counter(lines)


def test_the_settings_of_a_place_hold_for_its_lines(batch: Batch, home: Path) -> None:
    """Unless the line, or an option, says otherwise."""
    with Farm(run=0.3) as one, Farm(run=0.3) as two:
        profiles(home, {"one": one.server, "two": two.server})
        config = home / ".config/rebyte/config.toml"
        config.write_text(config.read_text() + 'executor = "codex"\n')  # of the last, `two`
        lines: list[Any] = [*prompts(4), {"prompt": "Own", "executor": "claude"}]
        assert batch(lines, "--on", "one:1,two:2").status == 0
        asked = [
            (farm, body["prompt"], body.get("executor"))
            for farm in (one, two)
            for body in farm.bodies
        ]
        for farm, prompt, executor in asked:
            assert executor == ("claude" if prompt == "Own" else "codex" if farm is two else None)
        assert len(asked) == 5


def test_a_line_is_settled_by_hand_at_its_place(batch: Batch, home: Path) -> None:
    """Where another place has a task of the same id."""
    with Farm() as one, Farm(silent=True) as two:
        two.hook = lambda request: (
            two._make(request.json) and reset if request.method == "POST" else None
        )
        profiles(home, {"one": one.server, "two": two.server})
        first = batch(["Lost"], "--on", "two:1", "--timeout", "2")
        assert [row["status"] for row in rows_of(first)] == ["unknown"], first.err
        two.hook = lambda _request: None
        done = batch(["Lost", "More"], "--on", "one:1,two:1", "--resolve", "1=task-00001")
        assert done.status == 0, done.err
        rows = [(row["place"], row["id"], row["status"]) for row in rows_of(done)]
        assert rows == [("two", "task-00001", "completed"), ("one", "task-00001", "completed")]


def test_a_place_that_comes_back_ends_its_lines(batch: Batch, home: Path) -> None:
    """The others have long ended theirs."""
    gone: list[bool] = []
    with Farm(run=0.2) as one, Farm(run=0.05) as two:

        def hook(request: Request) -> Any:
            if len(two.tasks) == 5 and gone.count(True) < 3:
                gone.append(True)
                return reset
            if one.tasks and not gone and request.method == "GET":
                gone.append(False)
            return reset if gone and gone.count(True) < 3 else None

        one.hook = hook
        profiles(home, {"one": one.server, "two": two.server})
        done = batch(prompts(6), "--on", "one:1,two:1", "--timeout", "120")
        assert done.status == 0, done.err
        assert made_by(one, two) == Counter(prompts(6))
        assert places_of(done)[0] == "one"
        assert "one: The network is back" in done.err
