"""When a request was sent, told by clocks of which one or the other may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.once import server_clock as server_clock
from rebyte_cli.once.listing import BEFORE_ALL
from rebyte_cli.once.server_clock import (
    LIFE,
    ROOM,
    ServerClock,
    is_past,
    parse_time,
    without_tags,
)
from rebyte_cli.system.clock import boot_id

NOON = datetime(2026, 2, 9, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SKEW = timedelta(seconds=server_clock.SKEW)
NEWEST = {"id": "task/1]%5D", "createdAt": "2026-02-01T00:00:00.000Z"}


class Clocks:
    """The server's clock, the local one and the time since boot, which a test sets one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server: datetime | None = NOON
        self.answers: list[datetime] = []  # others than the last
        self.local = NOON
        self.up = 1000.0
        self.boot = "boot1"
        monkeypatch.setattr(server_clock, "local_now", lambda: self.local)
        monkeypatch.setattr(server_clock, "since_boot", lambda: self.up)
        monkeypatch.setattr(server_clock, "boot_id", lambda: self.boot)
        client: Any = self
        self.transport = self
        self.clock = ServerClock(client)

    def server_now(self, *, is_agreed: bool = False) -> datetime | None:
        return self.agreed if is_agreed else self.server

    @property
    def agreed(self) -> datetime | None:
        """What several answers tell."""
        return self.server and min([self.server, *self.answers])

    def run(self, passed: timedelta) -> None:
        """Let time pass, on all of them."""
        self.server = self.server and self.server + passed
        self.local += passed
        self.up += passed.total_seconds()

    def written_before_any_answer(self) -> str:
        server, self.server = self.server, None
        written = self.clock.timestamp()
        self.server = server
        return written

    def reboot(self) -> None:
        self.boot, self.up = "boot2", 10.0


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.mark.parametrize("wrong", [-1000, 1000, 7200, -86400 * 365])
def test_a_local_clock_that_was_put_right_says_nothing(clocks: Clocks, wrong: int) -> None:
    clocks.local += timedelta(seconds=wrong)
    written = clocks.written_before_any_answer()
    clocks.run(MINUTE)
    clocks.local = NOON + MINUTE
    assert clocks.clock.age(written) == MINUTE
    window = clocks.clock.window(written)
    assert window.first <= NOON <= window.last
    assert window.since is not None
    assert window.since <= NOON - ROOM


def test_the_servers_time_lasts_beyond_a_reboot(clocks: Clocks) -> None:
    written = clocks.clock.timestamp()
    clocks.run(MINUTE)
    clocks.reboot()
    clocks.local += timedelta(days=1)
    assert clocks.clock.age(written) == MINUTE
    assert clocks.clock.window(written).first == NOON - SKEW


def test_a_local_time_of_another_boot_is_never_old(clocks: Clocks) -> None:
    written = clocks.written_before_any_answer()
    clocks.run(timedelta(days=1))
    clocks.reboot()
    assert clocks.clock.age(written) == timedelta(0)
    window = clocks.clock.window(written)
    assert (window.since, window.until) == (None, None)


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_local_time_of_another_boot_was_right_or_as_wrong_as_now(
    clocks: Clocks, ahead: int
) -> None:
    """Either is where the task would be, and no time excludes it."""
    clocks.local += timedelta(hours=ahead)
    written = clocks.written_before_any_answer()
    clocks.run(timedelta(days=1))
    clocks.reboot()
    window = clocks.clock.window(written)
    assert (window.first, window.last) == (NOON - SKEW, NOON + timedelta(hours=ahead) + LIFE + SKEW)
    clocks.server = None
    first = clocks.clock.window(written).first
    assert first == NOON + timedelta(hours=ahead) - SKEW
    assert clocks.clock.window("then").first == clocks.local - SKEW


def test_the_newest_task_excludes_nothing_while_the_time_of_the_send_is_unknown(
    clocks: Clocks,
) -> None:
    clocks.server = None
    written = clocks.clock.timestamp(NEWEST)
    clocks.server = NOON
    clocks.reboot()
    window = clocks.clock.window(written)
    assert (window.since, window.floor, window.newest) == (None, None, NEWEST["id"])
    bound = clocks.clock.window(clocks.clock.restamp(written))
    floor = parse_time("2026-01-31T23:00:00Z")
    assert (bound.since, bound.floor, bound.newest) == (floor, floor, NEWEST["id"])


@pytest.mark.parametrize("wrong", ["written", "now", "local then", "local now"])
def test_after_a_reboot_one_wrong_clock_makes_nothing_old(clocks: Clocks, wrong: str) -> None:
    day = timedelta(days=1)
    assert clocks.server is not None
    if wrong == "written":
        clocks.server -= day
    if wrong == "local then":
        clocks.local -= day
    written = clocks.clock.timestamp()
    clocks.server, clocks.local = NOON, NOON
    clocks.run(MINUTE)
    clocks.reboot()
    if wrong == "now":
        clocks.answers = [clocks.server]
        clocks.server += day
    if wrong == "local now":
        clocks.local += day
    assert clocks.clock.age(written) == MINUTE
    later = clocks.clock.restamp(written)
    clocks.run(LIFE)
    assert LIFE <= clocks.clock.age(later) <= LIFE + MINUTE
    assert LIFE <= clocks.clock.age(written) <= LIFE + MINUTE
    clocks.reboot()
    clocks.boot, clocks.server = "boot3", None
    assert clocks.clock.age(later) == timedelta(0)


def test_after_a_reboot_one_wrong_date_excludes_no_task(clocks: Clocks) -> None:
    assert clocks.server is not None
    clocks.server -= timedelta(hours=5)
    written = clocks.clock.timestamp()
    clocks.server = NOON
    clocks.reboot()
    window = clocks.clock.window(written)
    assert (window.since, window.until) == (
        NOON - timedelta(hours=5) - ROOM - SKEW,
        NOON + LIFE + ROOM + SKEW,
    )
    assert clocks.clock.is_near(written, clocks.clock.timestamp())


def test_a_time_namespace_has_boots_of_its_own(tmp_path: Path) -> None:
    proc = str(tmp_path)
    boot, namespace = tmp_path / "sys/kernel/random/boot_id", tmp_path / "self/ns/time"
    offsets = tmp_path / "self/timens_offsets"
    for file in (boot, namespace):
        file.parent.mkdir(parents=True)
    boot.write_text("0123abcd-4567-89ab-cdef-000000000000\n")
    offsets.write_text("monotonic 0 0\nboottime 604800 0\n")
    assert boot_id(proc) == "0123abcd456789ab"
    namespace.symlink_to("time:[4026531834]")
    assert boot_id(proc) == "0123abcd456789ab"
    namespace.unlink()
    namespace.symlink_to("time:[4026532999]")
    first = boot_id(proc)
    assert first.startswith("0123abcd456789ab/")
    offsets.write_text("monotonic 0 0\nboottime 0 0\n")
    assert boot_id(proc) not in (first, "0123abcd456789ab")
    offsets.unlink()
    assert boot_id(proc).startswith("pid")


def test_a_timestamp_ages_from_the_first_search_on(clocks: Clocks) -> None:
    written = clocks.written_before_any_answer()
    clocks.reboot()
    bound = clocks.clock.restamp(written)
    clocks.run(MINUTE)
    assert clocks.clock.age(bound) == MINUTE
    window = clocks.clock.window(bound)
    assert (window.first, window.last) == (NOON - SKEW, NOON + SKEW + LIFE)
    assert (window.since, window.until) == (None, NOON + LIFE + SKEW + ROOM)
    assert clocks.clock.restamp(bound) == bound


def test_a_timestamp_has_no_age_while_the_servers_time_is_unknown(clocks: Clocks) -> None:
    written = clocks.clock.timestamp()
    clocks.reboot()
    clocks.server = None
    assert clocks.clock.age(written) == timedelta(0)
    clocks.server = NOON + MINUTE
    assert clocks.clock.age(written.replace("2026-", "thirty-")) == timedelta(0)
    clocks.server = NOON - MINUTE  # another machine, which is behind
    assert clocks.clock.age(written) == timedelta(0)


def test_local_times_become_server_times_with_the_first_answer(clocks: Clocks) -> None:
    written = clocks.written_before_any_answer()
    clocks.run(MINUTE)
    stamped = clocks.clock.restamp(written)
    assert without_tags(stamped) == "2026-02-09T12:00:00.000Z"
    assert clocks.server is not None
    clocks.server += timedelta(hours=1)  # of another machine: the time since boot is still known
    assert clocks.clock.age(stamped) == MINUTE
    clocks.server -= timedelta(hours=1)
    clocks.reboot()
    assert clocks.clock.age(stamped) == MINUTE


def test_a_server_that_is_ahead_makes_nothing_older(clocks: Clocks) -> None:
    """Two machines behind one API, one of them ahead by an hour."""
    written = clocks.clock.timestamp()
    clocks.run(MINUTE)
    assert clocks.server is not None
    clocks.server += timedelta(hours=1)
    assert clocks.clock.age(written) == MINUTE
    window = clocks.clock.window(written)
    assert window.since == NOON - SKEW - ROOM
    assert window.until == NOON + timedelta(hours=1) + LIFE + SKEW + ROOM


@pytest.mark.parametrize("wrong", [0, 2, -2])
def test_a_virtual_machine_that_was_paused_has_lost_time_since_boot(
    clocks: Clocks, wrong: int
) -> None:
    clocks.local += timedelta(hours=wrong)
    written = clocks.written_before_any_answer()
    clocks.run(timedelta(hours=8))
    clocks.up = 1060.0
    assert clocks.clock.age(written) == MINUTE
    window = clocks.clock.window(written)
    assert window.since == NOON - SKEW - ROOM
    assert window.until == NOON + timedelta(hours=8) - MINUTE + LIFE + SKEW + ROOM
    stamped = clocks.clock.restamp(written)
    clocks.reboot()
    assert clocks.clock.age(stamped) == MINUTE


@pytest.mark.parametrize("wrong", [3, -3])
def test_the_local_clock_says_nothing_of_a_time_of_the_server(clocks: Clocks, wrong: int) -> None:
    clocks.local += timedelta(hours=wrong)
    written = clocks.clock.timestamp()
    clocks.local += timedelta(hours=wrong)
    clocks.run(MINUTE)
    window = clocks.clock.window(written)
    assert (window.since, window.until) == (NOON - SKEW - ROOM, NOON + LIFE + SKEW + ROOM)


def test_a_time_of_the_server_counts_before_its_first_answer(clocks: Clocks) -> None:
    written = clocks.clock.timestamp()
    clocks.server = None
    clocks.run(MINUTE)
    window = clocks.clock.window(written)
    assert (window.since, window.until) == (NOON - SKEW - ROOM, NOON + LIFE + SKEW + ROOM)


def test_a_time_that_cannot_be_read_leaves_the_time_since_boot(clocks: Clocks) -> None:
    clocks.run(MINUTE)
    for written in ("then[boot=boot1][up=1000]", "thenZ[boot=boot1][up=1000]"):
        assert clocks.clock.age(written) == MINUTE
        assert clocks.clock.window(written).since == NOON - SKEW - ROOM


def test_a_time_since_boot_that_is_still_to_come_is_ignored(clocks: Clocks) -> None:
    """As in a container that has its own."""
    written = "2026-02-09T11:00:00.000Z[boot=boot1][up=1000.001][off=0.000]"
    assert clocks.clock.age(written) == timedelta(hours=1)
    assert clocks.clock.window(written).first == NOON - timedelta(hours=1) - SKEW


def test_a_service_that_never_tells_the_time(clocks: Clocks) -> None:
    clocks.server = None
    written = clocks.clock.timestamp()
    clocks.run(MINUTE)
    clocks.local += timedelta(days=3)
    assert clocks.clock.age(written) == MINUTE
    window, sent = clocks.clock.window(written), NOON + timedelta(days=3)
    assert (window.first, window.last) == (sent - ROOM, sent + ROOM + LIFE)
    assert (window.since, window.until) == (None, sent + LIFE + SKEW + ROOM)
    assert clocks.clock.restamp(written) == written


def test_times_of_an_earlier_version_are_ignored(clocks: Clocks) -> None:
    """They do not say whose clock they are of."""
    assert clocks.clock.age("2026-02-09T11:00:00.000+00:00") == timedelta(0)
    assert clocks.clock.age("2026-02-09T11:00:00.000Z") == timedelta(0)
    assert clocks.clock.age("then") == timedelta(0)
    clocks.run(MINUTE)
    assert clocks.clock.age("then") == MINUTE  # since it was read


def test_observed_skew_widens_the_window(clocks: Clocks) -> None:
    written = clocks.clock.timestamp()
    clocks.clock.observe("2026-02-09T10:00:00.000Z", written)
    window = clocks.clock.window(written)
    assert window.first == NOON - SKEW - timedelta(hours=2)
    assert window.since == window.first - ROOM
    clocks.clock.observe("2026-02-09T14:15:00.000Z", written)
    assert clocks.clock.window(written).last == NOON + 2 * LIFE + SKEW + timedelta(hours=1.75)
    clocks.clock.observe("2026-02-09T12:00:00.000Z", written)
    clocks.clock.observe(None, written)
    clocks.clock.observe("2020-01-01T00:00:00Z", None)
    widest = clocks.clock.window(written)
    assert widest.first == NOON - SKEW - timedelta(hours=2)
    assert widest.last == NOON + 2 * LIFE + SKEW + timedelta(hours=1.75)


@pytest.mark.parametrize("hours", [-30, -5, 3])
@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("heard", [False, True])
def test_a_comparison_is_of_one_date_and_not_of_others(
    clocks: Clocks, hours: int, rebooted: bool, heard: bool
) -> None:
    """Two machines behind one API: one told the time of a task, another that of a lost request.

    The other one tells it before the send, or to the process that searches.
    """
    wrong = timedelta(hours=hours)
    clocks.clock.observe("2026-02-09T12:00:00.000Z", clocks.clock.timestamp(), is_listed=True)
    if rebooted:
        clocks.reboot()
    clocks.run(MINUTE)
    assert clocks.server is not None
    clocks.server += wrong
    written = clocks.clock.timestamp() if heard else clocks.written_before_any_answer()
    clocks.run(20 * MINUTE)
    window = clocks.clock.window(written).proven
    assert window.since is not None
    assert window.until is not None
    assert window.since <= NOON + MINUTE <= window.until
    clocks.clock.observe("2026-02-09T12:00:00.000Z", clocks.clock.timestamp(), is_listed=True)
    again = clocks.clock.window(written).proven
    assert (again.since, again.until) <= (window.since, again.until)


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"])
def test_what_stands_for_no_time_tells_nothing(clocks: Clocks, written: str) -> None:
    stamp = clocks.clock.timestamp({"id": "t1", "createdAt": written})
    clocks.clock.observe(written, stamp, is_listed=True)
    window = clocks.clock.window(stamp)
    assert (window.first, window.last) == (NOON - SKEW, NOON + LIFE + SKEW)
    assert window.proven.since is None
    assert parse_time(written) is None


def test_no_time_proves_anything_before_the_clocks_are_compared(clocks: Clocks) -> None:
    written = clocks.clock.timestamp()
    window = clocks.clock.window(written)
    assert (window.since, window.until) == (NOON - SKEW - ROOM, NOON + LIFE + SKEW + ROOM)
    assert (window.proven.since, window.proven.until) == (None, None)
    clocks.clock.observe("2026-02-09T12:00:00.000Z", written)  # an answer's, not the list's
    window = clocks.clock.window(written)
    assert (window.proven.since, window.proven.until) == (None, None)
    clocks.clock.observe("2026-02-09T12:00:00.000Z", written, is_listed=True)
    assert clocks.clock.window(written).proven == clocks.clock.window(written)


def test_only_a_time_of_the_server_compares_the_clocks(clocks: Clocks) -> None:
    written = clocks.written_before_any_answer()
    clocks.clock.observe("2026-02-09T12:00:00.000Z", written, is_listed=True)
    clocks.clock.observe(
        "2026-02-09T12:00:00.000Z", "2026-02-09T12:00:00.000Z[before]", is_listed=True
    )
    clocks.clock.observe("2026-02-09T12:00:00.000Z", "thenZ", is_listed=True)
    window = clocks.clock.window(clocks.clock.timestamp())
    assert (window.proven.since, window.proven.until) == (None, None)
    assert (window.since, window.until) == (NOON - SKEW - ROOM, NOON + LIFE + SKEW + ROOM)


@pytest.mark.parametrize("restamped", [False, True])
def test_a_later_task_than_the_newest_is_always_possible(clocks: Clocks, restamped: bool) -> None:
    """`createdAt` may be days behind `Date`; a later task has a later one all the same."""
    if restamped:
        clocks.server = None
    written = clocks.clock.timestamp(NEWEST)
    clocks.server = NOON
    written = clocks.clock.restamp(written) if restamped else written
    window = clocks.clock.window(written)
    assert window.newest == NEWEST["id"]
    assert window.floor == parse_time("2026-01-31T23:00:00Z")
    assert (window.since, window.ceiling) == (NOON - SKEW - ROOM, None)


@pytest.mark.parametrize(
    ("newest", "floor"),
    [
        # The clock may be set back, or be that of another machine behind the API.
        ("2026-02-09T11:59:00.000Z", "2026-02-09T10:59:00Z"),
        ("2026-02-09T11:59:00", "2026-02-09T09:59:00Z"),  # a local time is set back once a year
        ("2026-02-09T12:00:02Z", "2026-02-09T11:00:02Z"),  # on a machine that is ahead
        ("2026-02-09T12:00:03Z", None),
        ("2026-02-09T14:00:00.000Z", None),  # in the future: that task's alone, or another zone
        ("soon", None),
        (None, None),
    ],
)
def test_what_is_older_than_the_newest_task(
    clocks: Clocks, newest: str | None, floor: str | None
) -> None:
    window = clocks.clock.window(clocks.clock.timestamp({"id": "t1", "createdAt": newest}))
    assert window.floor == parse_time(floor)
    assert window.since == max(NOON - SKEW - ROOM, parse_time(floor) or NOON - 2 * ROOM)


def test_a_service_without_a_task_has_none_that_is_newest(clocks: Clocks) -> None:
    window = clocks.clock.window(clocks.clock.timestamp(BEFORE_ALL))
    assert window.newest is None
    assert window.floor == parse_time("1969-12-31T23:00:00Z")


def test_the_newest_task_may_be_as_far_ahead_as_others_were(clocks: Clocks) -> None:
    written = clocks.clock.timestamp({"id": "t1", "createdAt": "2026-02-09T12:20:00Z"})
    assert clocks.clock.window(written).floor is None
    clocks.clock.observe("2026-02-09T12:30:00Z", clocks.clock.timestamp())
    assert clocks.clock.window(written).floor == parse_time("2026-02-09T11:20:00Z")


def test_requests_that_overlapped(clocks: Clocks) -> None:
    first = clocks.written_before_any_answer()
    clocks.local += timedelta(days=1)
    clocks.run(LIFE - MINUTE)
    assert clocks.clock.is_near(first, clocks.clock.timestamp())
    clocks.run(2 * MINUTE)
    assert not clocks.clock.is_near(first, clocks.clock.timestamp())
    assert not clocks.clock.is_near("2026-01-01T00:00:00Z", clocks.clock.timestamp())
    assert not clocks.clock.is_near("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert clocks.clock.is_near("who knows", clocks.clock.timestamp())


def test_requests_of_one_boot_overlap_whatever_the_clocks_say(clocks: Clocks) -> None:
    first = clocks.clock.timestamp()
    assert clocks.server is not None
    clocks.run(LIFE)
    clocks.server += timedelta(days=1)
    last = clocks.clock.timestamp()
    assert clocks.clock.is_near(first, last)
    assert clocks.clock.is_near(last, first)
    clocks.run(MINUTE)
    clocks.server -= timedelta(days=1)
    late = clocks.clock.timestamp().replace("2026-02-09T12:16", "2026-02-09T12:00")
    assert not clocks.clock.is_near(first, late)


def test_requests_before_and_after_a_reboot_that_overlapped(clocks: Clocks) -> None:
    first = clocks.clock.timestamp()
    clocks.reboot()
    clocks.run(LIFE)
    last = clocks.clock.timestamp()
    assert clocks.clock.is_near(first, last)
    assert clocks.clock.is_near(last, first)
    clocks.run(timedelta(milliseconds=1))
    late = clocks.clock.timestamp()
    assert not clocks.clock.is_near(first, late)
    assert not clocks.clock.is_near(late, first)


def test_requests_of_which_one_is_of_an_unknown_time_may_have_overlapped(clocks: Clocks) -> None:
    known = clocks.clock.timestamp()
    bound = "2026-02-09T12:00:00.000Z[before]"
    for unknown in ("then", bound):
        assert clocks.clock.is_near(unknown, known)
        assert clocks.clock.is_near(known, unknown)


def test_a_time_has_an_offset_or_is_utc() -> None:
    for written in ("2026-02-09T12:00:00Z", "2026-02-09T13:00:00+01:00", "2026-02-09T12:00:00"):
        assert parse_time(written) == NOON


def test_a_time_is_past_by_the_servers_clock_alone(clocks: Clocks) -> None:
    client: Any = clocks
    clocks.local += timedelta(days=1)
    assert is_past(client, "2026-02-09T11:59:00Z", 60) is True
    assert is_past(client, "2026-02-09T11:59:00.001Z", 60) is False
    assert is_past(client, None, 60) is False
    clocks.server = None
    assert is_past(client, "2026-02-09T11:59:00Z", 60) is False
