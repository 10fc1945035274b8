"""The throttle before every create, with a clock that moves only while waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from rebyte_cli.batch.throttle import RESUME, Throttle, ThrottleStopped
from rebyte_cli.errors import NetworkError
from rebyte_cli.system.deadline import OUTAGE
from tests.waiting import eventually


class Clock:
    """Time that passes by waiting."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.notes: list[str] = []

    def wait(self, _condition: threading.Condition, seconds: float | None) -> None:
        assert seconds is not None, "would wait for ever"
        self.now += seconds

    def throttle(self, rate: float | None = None) -> Throttle:
        return Throttle(rate=rate, note=self.notes.append, clock=lambda: self.now, wait=self.wait)


def admitted(throttle: Throttle) -> object:
    """The ticket of a create that is under way."""
    ticket = object()
    throttle.queue(ticket)
    throttle.admit(ticket)
    return ticket


def test_without_a_rate_no_create_waits() -> None:
    clock = Clock()
    throttle = clock.throttle()
    for _ in range(100):
        admitted(throttle)
    assert clock.now == 1000.0


def test_a_rate_spaces_creates_evenly_and_saves_nothing_up() -> None:
    clock = Clock()
    throttle = clock.throttle(rate=4)
    times = []
    for _ in range(5):
        admitted(throttle)
        times.append(clock.now - 1000)
    assert times == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    clock.now += 60
    admitted(throttle)
    before = clock.now
    admitted(throttle)
    assert clock.now - before == pytest.approx(0.25)


def test_a_retry_after_pauses_all_requests() -> None:
    clock = Clock()
    throttle = clock.throttle()
    admitted(throttle)
    throttle.sleep(120)  # the Retry-After of one request
    assert clock.now == 1120
    throttle.pause(30, "x")
    admitted(throttle)
    assert clock.now == 1150
    assert clock.notes == [
        "The service asks to slow down: pausing creates for 120 s",
        "x: pausing creates for 30 s",
    ]


def test_a_shorter_pause_does_not_cut_a_longer_one() -> None:
    clock = Clock()
    throttle = clock.throttle()
    throttle.pause(100, "x")
    throttle.pause(10, "x")
    admitted(throttle)
    assert clock.now == 1100


def test_being_turned_away_again_and_again_pauses_longer_each_time() -> None:
    clock = Clock()
    throttle = clock.throttle()
    times = [clock.now]
    for _ in range(8):
        throttle.slow_down("x")
        throttle.slow_down("x")  # by another request of the same moment: not twice
        throttle.done(admitted(throttle))
        times.append(clock.now)
    assert [later - sooner for sooner, later in pairwise(times)] == [
        *(5, 10, 20, 40, 80, 160),
        *(300, 300),  # and no longer
    ]
    throttle.accepted()
    throttle.slow_down("x")
    admitted(throttle)
    assert clock.now == times[-1] + 5


def test_after_a_create_was_turned_away_one_at_a_time_is_tried_until_one_goes_through() -> None:
    clock = Clock()
    throttle = clock.throttle()
    throttle.slow_down("x", 7.0)  # as Retry-After asks
    first = admitted(throttle)
    assert clock.now == 1007
    with pytest.raises(AssertionError, match="for ever"):
        admitted(throttle)
    throttle.slow_down("x", 7.0)
    throttle.done(first)
    first = admitted(throttle)
    assert clock.now == 1017, "longer than it asks for, since it was turned away again"
    throttle.done(first)  # it failed for an unrelated reason
    admitted(throttle)
    throttle.accepted()
    admitted(throttle)
    admitted(throttle)
    assert clock.now == 1017


def test_a_late_refusal_of_an_earlier_create_does_not_let_a_second_one_try() -> None:
    clock = Clock()
    throttle = clock.throttle()
    throttle.slow_down("x", 1.0)
    first = admitted(throttle)
    throttle.slow_down("x", 1.0)  # of a create that was sent before the pause
    with pytest.raises(AssertionError, match="for ever"):
        admitted(throttle)
    throttle.done(first)
    admitted(throttle)


def test_an_absurd_retry_after_is_cut_to_five_minutes() -> None:
    clock = Clock()
    throttle = clock.throttle()
    throttle.slow_down("x", 1e9)
    admitted(throttle)
    assert clock.now == 1300


def test_a_lost_network_is_tried_by_one_at_a_time_until_it_is_back() -> None:
    clock = Clock()
    throttle = clock.throttle()
    admitted(throttle)
    admitted(throttle)
    throttle.network_lost(NetworkError("no such host"))
    throttle.network_lost(NetworkError("no such host"))  # the other one that was under way
    times = []
    for _ in range(7):
        probe = admitted(throttle)
        times.append(clock.now)
        throttle.network_lost(NetworkError("no such host"))  # a look at a task, which is no try
        with pytest.raises(AssertionError, match="for ever"):
            admitted(throttle)  # all others wait for the probe
        throttle.network_lost(NetworkError("no such host"), probe)
        throttle.done(probe)
    assert [later - sooner for sooner, later in pairwise(times)] == [2, 4, 8, 16, 30, 30]
    probe = admitted(throttle)
    throttle.network_answered()
    throttle.done(probe)
    now = clock.now
    admitted(throttle)
    admitted(throttle)
    assert clock.now == now
    assert not throttle.network_is_down
    assert clock.notes == [
        "Paused: no such host. Trying again until the network is back; Ctrl-C stops.",
        "The network is back",
    ]
    throttle.network_lost(NetworkError("no such host"))
    admitted(throttle)
    assert clock.now == now + 1, "as patient as at first"


def test_a_network_that_stays_away_ends_the_batch() -> None:
    """Also where nothing runs yet, so that only creates find it so."""
    clock = Clock()
    throttle = clock.throttle()
    throttle.network_lost(NetworkError("no such host"))

    def probe_for_ever() -> None:
        while True:
            probe = admitted(throttle)
            throttle.network_lost(NetworkError("no such host"), probe)
            throttle.done(probe)

    with pytest.raises(NetworkError) as caught:
        probe_for_ever()
    assert caught.value.hint == RESUME
    assert OUTAGE <= clock.now - 1000 < 2 * OUTAGE


def test_an_answered_create_ends_the_pause_of_all() -> None:
    """A look at a task may find the network back before the next create tries it."""
    clock = Clock()
    throttle = clock.throttle()
    throttle.network_lost(NetworkError("no such host"))
    throttle.network_answered()
    admitted(throttle)
    assert clock.now == 1000


def test_a_create_between_two_tries_is_sent_home_with_those_that_wait() -> None:
    throttle = Throttle()
    ended: list[str] = []

    def worker() -> None:
        admitted(throttle)
        try:
            throttle.sleep(600)
        except ThrottleStopped:
            ended.append("create")

    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    eventually(lambda: throttle._open_at)
    throttle.stop_creates()
    thread.join(30)
    assert ended == ["create"]


def test_stopping_releases_waiting_creates() -> None:
    throttle = Throttle()
    throttle.pause(600, "x")
    ended: list[str] = []

    def worker() -> None:
        try:
            admitted(throttle)
        except ThrottleStopped:
            ended.append("admit")

    def sleeper() -> None:
        try:
            throttle.sleep(600)
        except ThrottleStopped:
            ended.append("sleep")

    threads = [threading.Thread(target=worker), threading.Thread(target=sleeper)]
    for thread in threads:
        thread.start()
    throttle.stop_creates()
    threads[0].join(30)
    assert ended == ["admit"]  # other requests go on when only creates have ended
    throttle.stop()
    threads[1].join(30)
    assert ended == ["admit", "sleep"]
    with pytest.raises(ThrottleStopped):
        admitted(throttle)


# Waking waiting threads, and notes for the user


class Waiters:
    """Threads that each want one create to pass."""

    def __init__(self, throttle: Throttle, count: int) -> None:
        self.throttle = throttle
        self.passed = 0
        self.sent_home = 0
        for _ in range(count):
            threading.Thread(target=self._wait, daemon=True).start()
        eventually(lambda: self.passed or len(throttle._queue) == count)

    def _wait(self) -> None:
        try:
            admitted(self.throttle)
        except ThrottleStopped:
            self.sent_home += 1
        else:
            self.passed += 1


def test_an_admitted_create_wakes_the_next() -> None:
    waiters = Waiters(Throttle(rate=50), 5)
    eventually(lambda: waiters.passed == 5)


def test_an_answer_wakes_those_who_waited_for_one_try() -> None:
    throttle = Throttle(first_probe=0.01)
    throttle.network_lost(NetworkError("no route"))
    waiters = Waiters(throttle, 3)
    eventually(lambda: waiters.passed == 1)
    throttle.network_answered()
    eventually(lambda: waiters.passed == 3)


def test_a_try_that_failed_lets_the_next_one_try() -> None:
    throttle = Throttle(first_probe=0.01)
    throttle.network_lost(NetworkError("no route"))
    probe = admitted(throttle)
    waiters = Waiters(throttle, 1)
    throttle.network_lost(NetworkError("no route"), probe)
    throttle.done(probe)
    eventually(lambda: waiters.passed == 1)


@pytest.mark.parametrize("end", [Throttle.stop_creates, Throttle.stop])
def test_the_end_wakes_everybody(end: Callable[[Throttle], None]) -> None:
    throttle = Throttle()
    throttle.pause(60, "a pause")
    waiters = Waiters(throttle, 3)
    end(throttle)
    eventually(lambda: waiters.sent_home == 3)


def test_a_pause_is_told_when_it_is_much_longer_than_the_one_under_way() -> None:
    notes: list[str] = []
    throttle = Throttle(note=notes.append, clock=lambda: 1000.0)
    throttle.pause(1.5, "too short to be read")
    throttle.pause(3.5, "just enough")
    throttle.pause(100, "first")
    throttle.pause(101, "hardly more")
    throttle.pause(120, "much more")
    assert notes[0] == "just enough: pausing creates for 4 s"
    assert notes[1:] == ["first: pausing creates for 100 s", "much more: pausing creates for 120 s"]


def test_while_the_network_is_gone_no_pause_is_told() -> None:
    """It would say when creates resume, which is unknown."""
    notes: list[str] = []
    throttle = Throttle(note=notes.append)
    throttle.network_lost(NetworkError("no route"))
    throttle.pause(100, "The service asks for patience")
    assert [note.split(":")[0] for note in notes] == ["Paused"]
