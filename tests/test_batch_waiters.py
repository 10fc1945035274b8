"""Who waits at the gate of a batch is woken, and who looks on is told what is worth it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from rebyte_cli.batch import throttle
from rebyte_cli.batch.throttle import Stopped, Throttle

from .keyring_daemon import eventually


class Waiters:
    """Threads that each want one create to pass."""

    def __init__(self, gate: Throttle, count: int) -> None:
        self.gate = gate
        self.passed = 0
        self.sent_home = 0
        for _ in range(count):
            threading.Thread(target=self._wait, daemon=True).start()
        eventually(lambda: self.passed or len(gate._queue) == count)

    def _wait(self) -> None:
        try:
            self.gate.admit()
        except Stopped:
            self.sent_home += 1
        else:
            self.passed += 1


def test_whoever_passes_wakes_the_next() -> None:
    waiters = Waiters(Throttle(rate=50), 5)
    eventually(lambda: waiters.passed == 5)


def test_an_answer_wakes_those_who_waited_for_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PROBE_FIRST", 0.01)
    gate = Throttle()
    gate.lost("no route")
    waiters = Waiters(gate, 3)
    eventually(lambda: waiters.passed == 1)
    gate.answered()
    eventually(lambda: waiters.passed == 3)


def test_a_try_that_failed_lets_the_next_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PROBE_FIRST", 0.01)
    gate = Throttle()
    gate.lost("no route")
    waiters = Waiters(gate, 2)
    eventually(lambda: waiters.passed == 1)
    gate.lost("no route")
    eventually(lambda: waiters.passed == 2)


@pytest.mark.parametrize("end", [Throttle.shut, Throttle.stop])
def test_the_end_wakes_everybody(end: Callable[[Throttle], None]) -> None:
    gate = Throttle()
    gate.hold(60, "a pause")
    waiters = Waiters(gate, 3)
    end(gate)
    eventually(lambda: waiters.sent_home == 3)


def test_a_pause_is_told_when_it_is_much_longer_than_the_one_under_way() -> None:
    notes: list[str] = []
    gate = Throttle(note=notes.append, clock=lambda: 1000.0)
    gate.hold(1.5, "too short to be read")
    gate.hold(3.5, "just enough")
    gate.hold(100, "first")
    gate.hold(101, "hardly more")
    gate.hold(120, "much more")
    assert notes[0] == "just enough: no creates for 4 s"
    assert notes[1:] == ["first: no creates for 100 s", "much more: no creates for 120 s"]


def test_while_the_network_is_gone_no_pause_is_told() -> None:
    """It would say when creates go on, and nobody knows."""
    notes: list[str] = []
    gate = Throttle(note=notes.append)
    gate.lost("no route")
    gate.hold(100, "The service asks for patience")
    assert [note.split(":")[0] for note in notes] == ["Paused"]
