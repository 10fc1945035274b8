"""Interrupted while it looks for a task whose answer was lost: a glance, and what is said then.

Signals to a real process are in test_once_keys.py; here the interrupt comes at a chosen moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.errors import Interrupted, OutcomeUnknown
from rebyte_cli.local.server import Service

from .cutting_proxy import Cut, CuttingProxy
from .once_bench import TASKS, Bench
from .task_board import Time

LIST = r"/v1/tasks\?"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)


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
