"""`--once KEY` and creates that were cut off: one task, however often it is asked for.

Case 38 (kill -9 between the POST and its answer, then again) runs the real command in processes
of its own; so do the interrupts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rebyte_cli.errors import Interrupted, OutcomeUnknown
from rebyte_cli.history.history import History
from rebyte_cli.local.server import LOCAL_KEY, Service
from rebyte_cli.tasks import create
from rebyte_cli.tasks.create import Attempt, CreateOperation
from rebyte_cli.tasks.search import LostRequest, digest_of
from tests.conftest import COMMAND
from tests.cutting_proxy import Cut, CuttingProxy
from tests.once_bench import PROMPT, TASKS, Bench
from tests.task_board import Time


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)


@pytest.fixture
def start(home: Path, bench: Bench) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command against the proxy, in a process of its own."""
    started = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "-o", "id"],
            env={**os.environ, "REBYTE_API_URL": bench.proxy.base_url, "REBYTE_API_KEY": LOCAL_KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("once_key", [["--once", "nightly"], []])
def test_case_38_killed_between_the_post_and_its_answer_then_again(
    bench: Bench, start: Start, once_key: list[str]
) -> None:
    done = threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.MUTE, then=done.set)
    first = start("create", PROMPT, *once_key)
    assert done.wait(20)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    out, err = start("create", PROMPT, *once_key).communicate(timeout=20)
    assert bench.on_server() == [out.strip()], err
    assert "was lost" in err
    out, err = start("get", "@last").communicate(timeout=20)
    assert bench.on_server() == [out.strip()], err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_which_task_exists(
    bench: Bench, start: Start, number: signal.Signals, status: int
) -> None:
    done = threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.MUTE, then=done.set)
    process = start("create", PROMPT)
    assert done.wait(20)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == status, err
    (task_id,) = bench.on_server()
    assert f"task {task_id}" in err
    assert f"rebyte cancel {task_id}" in err


def test_an_interrupt_before_the_server_heard_says_that_nothing_is_known(
    bench: Bench, start: Start
) -> None:
    bench.proxy.cut("POST", TASKS, Cut.HELD)
    process = start("create", PROMPT, "--once", "k")
    until(lambda: bench.proxy.count("POST"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "not known" in err
    assert "run the same command again" in err


def cut_off(bench: Bench, key: str | None, ago: timedelta = timedelta(0), **sent: str) -> None:
    """An attempt whose process died after it wrote its intent."""
    history = bench.memory()
    history.open_intent(
        key,
        digest=digest_of(sent.get("prompt", PROMPT)),
        body_digest=sent.get("body_digest", ""),
        started_at=(datetime.now(UTC) - ago).isoformat(),
        owner=f"gone {sent}",
    )
    history.close()


def test_a_key_whose_attempt_made_nothing_is_not_sent_again_too_soon(bench: Bench) -> None:
    cut_off(bench, "k", timedelta(minutes=14))
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0


def test_a_key_whose_attempt_made_nothing_is_sent_again_after_a_quarter_of_an_hour(
    bench: Bench,
) -> None:
    bench.direct.create_task("Something else")
    cut_off(bench, "k", timedelta(minutes=16))
    created = bench.create(key="k")
    assert bench.on_server()[1:] == [created["id"]]
    assert bench.create(key="k") == created


@pytest.mark.parametrize("made", [20, 80])
def test_an_old_attempt_is_not_sent_again_while_its_task_may_be_there(
    tmp_path: Path, made: int
) -> None:
    """The attempt says it is 50 minutes old; its clock was wrong by half an hour at the time."""
    now = time.time()
    at = [now - made * 60]
    with (
        Service(tmp_path / "service", clock=lambda: at[0]) as service,
        CuttingProxy(service.base_url) as proxy,
    ):
        bench = Bench(tmp_path, service, proxy)
        bench.direct.create_task(PROMPT)
        at[0] = now
        cut_off(bench, "k", timedelta(minutes=50))
        with pytest.raises(OutcomeUnknown) as caught:
            bench.create(key="k")
        assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_a_failing_list_is_no_reason_to_send_again(bench: Bench) -> None:
    cut_off(bench, "k", timedelta(hours=2))
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=20)
    with pytest.raises(OutcomeUnknown, match="500"):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0


def test_the_key_decides_and_not_the_prompt(bench: Bench) -> None:
    created = bench.create(key="k")
    assert bench.create("Something else", key="k") == created
    assert "another prompt" in bench.notes[-1]
    assert bench.on_server() == [created["id"]]
    assert create.made_before(bench.history, "k") == created
    assert create.made_before(bench.history, "other") is None


def test_a_forgotten_key_makes_another_task(bench: Bench) -> None:
    first = bench.create(key="k")
    assert create.forget(bench.history, "k")
    assert not create.forget(bench.history, "k")
    assert bench.create(key="k") != first


def test_a_key_works_with_the_history_off(bench: Bench) -> None:
    def off() -> History:
        return History(bench.folder / "history.db", origin="test", enabled=False)

    first = bench.create(key="k", history=off())
    assert bench.create(key="k", history=off()) == first
    assert bench.memory().tasks() == []


def test_two_processes_with_one_key_make_one_task(bench: Bench) -> None:
    gate, waiting = threading.Event(), threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.SLOW, then=lambda: gate.wait(20))
    made = []
    first = threading.Thread(
        target=lambda: made.append(bench.create(key="k", history=bench.memory()))
    )
    first.start()
    until(lambda: bench.proxy.forwarded)

    def second_waits(_seconds: float) -> None:
        waiting.set()
        gate.set()
        time.sleep(0.01)

    made.append(bench.create(key="k", history=bench.memory(), sleep=second_waits))
    first.join(20)
    assert waiting.is_set()
    assert made[0] == made[1]
    assert len(bench.on_server()) == 1


def test_a_twin_in_flight_is_waited_for_before_a_match_is_believed(bench: Bench) -> None:
    """Two processes, one prompt, two tasks: each ends with its own, also when one must look."""
    gate, made = threading.Event(), threading.Event()

    def hold_back() -> None:
        made.set()
        gate.wait(20)

    bench.proxy.cut("POST", TASKS, Cut.SLOW, then=hold_back)
    twin = []
    other = threading.Thread(target=lambda: twin.append(bench.create(history=bench.memory())))
    other.start()
    assert made.wait(20)
    bench.proxy.cut("POST", TASKS, Cut.AFTER)

    def sleep(_seconds: float) -> None:
        gate.set()
        other.join(20)

    mine = bench.create(look_for=20, sleep=sleep)
    assert [twin[0]["id"], mine["id"]] == bench.on_server()


def test_what_a_twin_makes_its_own_during_the_look_is_not_taken(bench: Bench) -> None:
    """The twin ends between our look and our question who else is at work."""
    theirs = bench.direct.create_task(PROMPT)
    errand = CreateOperation(bench.client, bench.history, {"prompt": PROMPT}, PROMPT)
    attempt = Attempt(
        errand,
        bench.client,
        bench.history,
        note=bench.notes.append,
        clock=time.monotonic,
        sleep=time.sleep,
        look_for=0,
    )

    def twin_ends() -> bool:
        bench.memory().add_task(theirs, prompt=PROMPT)
        return False

    sent = LostRequest(digest_of(PROMPT), attempt.times.window, PROMPT)
    sight, why = attempt.search(sent, rivals=twin_ends)
    assert (sight.same, why) == ([], None)


def test_the_task_of_a_twin_that_died_is_not_taken(bench: Bench) -> None:
    cut_off(bench, "other")
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_asked_again_without_a_key_what_was_lost_is_found(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=20)
    with pytest.raises(OutcomeUnknown):
        bench.create()
    again = Bench(bench.folder, Service(bench.folder / "service").start(), bench.proxy)
    bench.proxy._rules.clear()
    created = again.create()
    assert bench.on_server() == [created["id"]]
    # That one is settled: the next is a task of its own.
    assert again.create()["id"] != created["id"]
    assert len(bench.on_server()) == 2


def test_asked_again_without_a_key_what_was_never_made_is_made(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create()
    assert bench.create()["id"] == bench.on_server()[0]
    assert "Sending anew" in bench.notes


# -- Interrupted while it looks for a task whose answer was lost: a glance, and what is said th

LIST = r"/v1/tasks\?"


class Stop(Time):
    """A clock whose first sleep is interrupted; with `twice`, so is the look at it after that."""

    def __init__(self, stop: BaseException, *, twice: bool = False) -> None:
        super().__init__()
        self._stop, self._twice = stop, twice
        self.stopped = 0

    def clock(self) -> float:
        if self._twice and self.stopped:
            raise self._stop
        return super().clock()

    def sleep(self, seconds: float) -> None:
        self.stopped += 1
        raise self._stop


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(143)])
def test_a_glance_finds_the_task(bench: Bench, stop: BaseException) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)
    at = Stop(stop)
    with pytest.raises(Interrupted) as caught:
        bench.create(key="k", clock=at.clock, sleep=at.sleep, look_for=20)
    assert caught.value.exit_status == (143 if isinstance(stop, Interrupted) else 130)
    (task_id,) = bench.on_server()
    assert task_id in str(caught.value.hint)
    assert f"rebyte cancel {task_id}" in str(caught.value.hint)
    # It is remembered, and the key is settled.
    assert [task["id"] for task in bench.history.tasks()] == [task_id]
    asked = bench.proxy.count("GET")
    assert bench.create(key="k")["id"] == task_id
    assert bench.proxy.count("GET") == asked


def test_it_is_no_more_than_a_glance(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    at = Stop(KeyboardInterrupt())
    with pytest.raises(Interrupted, match=r".") as caught:
        bench.create(clock=at.clock, sleep=at.sleep, look_for=20)
    assert "not known" in str(caught.value.hint)
    assert at.stopped == 1
    assert bench.proxy.count("GET", LIST) == 2


def test_a_second_interrupt_cuts_the_glance_short(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)
    at = Stop(KeyboardInterrupt(), twice=True)
    with pytest.raises(Interrupted) as caught:
        bench.create(clock=at.clock, sleep=at.sleep, look_for=20)
    assert "not known" in str(caught.value.hint)
    assert bench.proxy.count("GET", LIST) == 1


def test_a_list_that_fails_in_the_glance_is_not_known(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500, times=9)
    at = Stop(Interrupted(143))
    with pytest.raises(Interrupted) as caught:
        bench.create(clock=at.clock, sleep=at.sleep, look_for=20)
    assert caught.value.exit_status == 143
    assert "not known" in str(caught.value.hint)


def test_the_shortest_look_waits_for_an_answer_that_is_a_little_slow(bench: Bench) -> None:
    late = threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.SLOW, times=9, then=lambda: late.wait(0.3))
    assert bench.create(look_for=0)["id"] == bench.on_server()[0]


def test_what_stays_unknown_without_a_look_says_so(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown, match="whether it was created is not known"):
        bench.create(look_for=0)
    assert bench.proxy.count("GET", LIST) == 1
