"""What the scans for one lost request say together, and when there is another one."""

from __future__ import annotations

import pytest

from rebyte_cli.once.judge import Row, Verdict
from rebyte_cli.once.search import PACE, Pace, Search

TASK: Row = {"id": "t1"}
FOUND = Verdict(TASK, [TASK], [], True)
LIKELY = Verdict(TASK, [TASK], [{"id": "t2"}], True)
TWO = Verdict(None, [TASK, {"id": "t2"}], [], True)
UNSURE = Verdict(None, [], [TASK], True, True)
CUT = Verdict(None, [], [], False, True)
UNCOUNTED = Verdict(None, [], [], True)
NONE = Verdict(None, [], [], True, True)


def searched(
    verdict: Verdict | None, *times: float, seconds: float = 20.0, eager: bool = False
) -> Search:
    """A search for 20 s that began at 0, after scans with the same verdict."""
    search = Search(PACE, 0.0, seconds, is_eager=eager)
    for began in times:
        search.add(verdict, began, proves=True)
    return search


def test_scans_are_close_together_at_first() -> None:
    search, now, pauses = Search(PACE, 0.0, 90.0), 0.0, list[float]()
    for _ in range(7):
        pauses.append(search.pause(now))
        now += pauses[-1]
    assert pauses == pytest.approx([0.5, 0.8, 1.28, 2.048, 3.2768, 4, 4])
    assert search.pause(89.5) == 0.5  # not past the end


def test_a_scan_may_take_what_is_left_and_two_seconds_at_least() -> None:
    search = Search(PACE, 0.0)
    assert [search.longest_scan(now) for now in (0.0, 5.0, 19.0, 30.0)] == [20.0, 15.0, 2.0, 2.0]


def test_absence_takes_several_scans_that_agree_for_a_while() -> None:
    search = searched(NONE, 0.0, 10.0, 19.9)
    assert not search.is_absent
    search.add(NONE, 20.0, proves=True)
    assert search.is_absent
    for other in (UNSURE, None, CUT, UNCOUNTED):  # one that differs starts the count again
        search.add(other, 21.0, proves=True)
        assert not search.is_likely_absent
        for began in (22.0, 30.0, 41.9):
            search.add(NONE, began, proves=True)
            assert search.is_likely_absent
            assert not search.is_absent
        search.add(NONE, 42.0, proves=True)
        assert search.is_absent


def test_a_scan_that_proves_nothing_starts_the_count_again() -> None:
    """A create that may still take effect, and then its task is there after all."""
    search = searched(NONE, 0.0, 10.0, 20.0)
    search.add(NONE, 21.0, proves=False)
    assert not search.is_likely_absent


def test_two_scans_prove_nothing_however_far_apart_nor_three_at_once() -> None:
    assert not searched(NONE, 0.0, 100.0).is_absent
    assert not searched(NONE, 0.0, 10.0, 19.9).is_absent
    assert searched(NONE, 0.0, 10.0, 20.0).is_absent
    search = Search(Pace(look_for=0.0), 0.0)
    for began in (0.0, 0.1, 0.2):
        assert not search.is_absent
        search.add(NONE, began, proves=True)
    assert search.is_absent


@pytest.mark.parametrize(
    ("verdict", "soon", "eagerly", "at_last"),
    [
        (FOUND, "found", "found", "found"),
        (LIKELY, "again", "found", "found"),
        (TWO, "unknown", "again", "unknown"),
        (UNSURE, "again", "again", "unknown"),
        (CUT, "again", "again", "unknown"),
        (None, "again", "again", "unknown"),
    ],
)
def test_the_outcome_of_one_scan(
    verdict: Verdict | None, soon: str, eagerly: str, at_last: str
) -> None:
    assert searched(verdict, 0.0).outcome(19.9) == soon
    assert searched(verdict, 0.0, eager=True).outcome(19.9) == eagerly
    assert searched(verdict, 0.0).outcome(20.0) == at_last
    assert searched(verdict, 0.0, eager=True).outcome(20.0) == at_last


def test_absence_is_said_at_the_end_or_as_soon_as_it_is_certain() -> None:
    """A task may be missing in the list for longer than scans must agree."""
    times = (0.0, 10.0, 20.0)
    assert searched(NONE, *times, seconds=90.0).outcome(20.0) == "again"
    assert searched(NONE, *times, seconds=90.0).outcome(90.0) == "absent"
    assert searched(NONE, *times, seconds=90.0, eager=True).outcome(20.0) == "absent"


def test_a_search_whose_scans_agree_but_are_too_few_goes_past_its_time() -> None:
    search = searched(NONE, 0.0)
    assert search.outcome(25.0, left=7.0) == "again"
    assert (search.longest_scan(25.0), search.pause(31.0)) == (7.0, 1.0)
    search.add(NONE, 32.0, proves=True)
    assert search.outcome(32.0, left=0.0) == "unknown"


def test_a_verdict_outlasts_a_scan_that_failed() -> None:
    search = searched(LIKELY, 0.0)
    search.add(None, 10.0, proves=True)
    assert search.outcome(20.0) == "found"


def test_a_search_that_is_restarted_has_its_whole_time() -> None:
    search = searched(UNSURE, 0.0, eager=True)
    search.restart(10.0)
    assert [search.outcome(now) for now in (29.9, 30.0)] == ["again", "unknown"]
