"""When a request was sent, told by clocks of which one or the other may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.once import server_clock as server_clock
from rebyte_cli.once.server_clock import (
    LIFE,
    SKEW,
    Baseline,
    ServerClock,
    is_past,
    parse_stamp,
    parse_time,
    without_tags,
)
from rebyte_cli.system.clock import boot_id

NOON = datetime(2026, 2, 9, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BASELINE = Baseline("task/1]%5D", 7)


class Clocks:
    """The server's clock, the local one and the time since boot, which a test sets one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server: datetime | None = NOON
        self.local = NOON
        self.up = 1000.0
        self.boot = "boot1"
        monkeypatch.setattr(server_clock, "local_now", lambda: self.local)
        monkeypatch.setattr(server_clock, "awake_since_boot", lambda: self.up)
        monkeypatch.setattr(server_clock, "boot_id", lambda: self.boot)
        client: Any = self
        self.transport = self
        self.clock = ServerClock(client)

    def server_now(self) -> datetime | None:
        return self.server

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


@pytest.mark.parametrize("before", [None, Baseline(None, 0), BASELINE])
def test_a_timestamp_says_where_the_list_stood(clocks: Clocks, before: Baseline | None) -> None:
    written = clocks.clock.timestamp(before)
    assert parse_stamp(written).baseline == before
    assert without_tags(written) == "2026-02-09T12:00:00.000Z"
    clocks.reboot()
    assert parse_stamp(clocks.clock.restamp(written)).baseline == before


@pytest.mark.parametrize(
    "written",
    [
        "",
        "2026-02-09T12:00:00.000Z",
        # As earlier versions wrote it.
        "2026-02-09T12:00:00.000Z[boot=boot1][up=1][newest=2026-02-01T00:00:00Z][after=t1]",
        "2026-02-09T12:00:00.000Z[total=]",
        "2026-02-09T12:00:00.000Z[total=-1][after=t1]",
        "2026-02-09T12:00:00.000Z[total=\u0663]",
        "2026-02-09T12:00:00.000Z[total=1e9]",
    ],
)
def test_a_timestamp_without_a_number_of_tasks_has_no_baseline(written: str) -> None:
    assert parse_stamp(written).baseline is None


@pytest.mark.parametrize("wrong", [-1000, 1000, 7200, -86400 * 365])
def test_a_local_clock_that_was_put_right_says_nothing(clocks: Clocks, wrong: int) -> None:
    clocks.local += timedelta(seconds=wrong)
    written = clocks.written_before_any_answer()
    clocks.local = NOON
    clocks.run(MINUTE)
    assert clocks.clock.age(written) == MINUTE
    assert clocks.clock.sent(written) == NOON


@pytest.mark.parametrize("wrong", [-7200, 7200])
def test_a_server_that_tells_another_time_makes_nothing_older(clocks: Clocks, wrong: int) -> None:
    written = clocks.clock.timestamp()
    clocks.run(MINUTE)
    clocks.server = NOON + timedelta(seconds=wrong)
    assert clocks.clock.age(written) == MINUTE
    assert clocks.clock.sent(written) == NOON


def test_after_a_reboot_the_age_counts_from_the_first_search(clocks: Clocks) -> None:
    written = clocks.clock.timestamp(BASELINE)
    clocks.reboot()
    clocks.run(timedelta(days=1))
    assert clocks.clock.age(written) == timedelta(0)
    again = clocks.clock.restamp(written)
    clocks.run(MINUTE)
    assert clocks.clock.age(again) == MINUTE
    assert clocks.clock.sent(again) == NOON  # by the server's clock, which knows of no reboot
    assert clocks.clock.restamp(again) == again


def test_a_local_time_of_another_boot_tells_nothing(clocks: Clocks) -> None:
    written = clocks.written_before_any_answer()
    clocks.reboot()
    assert (clocks.clock.age(written), clocks.clock.sent(written)) == (timedelta(0), None)


@pytest.mark.parametrize("tags", ["", "[boot=boot1]", "[up=1]", "[boot=boot1][up=soon]"])
def test_a_timestamp_that_does_not_tell_its_boot_has_no_age(clocks: Clocks, tags: str) -> None:
    assert clocks.clock.age(f"2020-02-09T12:00:00.000Z{tags}") == timedelta(0)


def test_a_time_since_boot_that_is_still_to_come_is_ignored(clocks: Clocks) -> None:
    """As in a container that has its own."""
    assert clocks.clock.age("2026-02-09T11:00:00.000Z[boot=boot1][up=2000]") == timedelta(0)


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-02-09T12:00:00Z", True),
        ("2026-02-09T11:59:58Z", True),
        ("2026-02-09T11:59:57.999Z", False),
        ("2026-02-09T12:15:02Z", True),
        ("2026-02-09T12:15:02.001Z", False),
        ("2026-02-09T13:00:00+01:00", True),
        ("2026-02-09T12:00:00", True),
        ("0001-01-01T00:00:00Z", False),
        ("soon", False),
        (None, False),
        (7, False),
    ],
)
def test_what_a_request_can_have_created(clocks: Clocks, created: Any, expected: bool) -> None:
    assert timedelta(seconds=SKEW) == timedelta(seconds=2)
    assert clocks.clock.is_timely(created, clocks.clock.timestamp()) is expected


def test_a_service_that_never_tells_the_time(clocks: Clocks) -> None:
    clocks.server = None
    written = clocks.clock.timestamp()
    clocks.run(MINUTE)
    assert clocks.clock.age(written) == MINUTE
    assert not clocks.clock.is_timely("2026-02-09T12:00:00Z", written)


def test_requests_that_overlapped(clocks: Clocks) -> None:
    first = clocks.written_before_any_answer()
    clocks.local += timedelta(days=1)
    clocks.run(LIFE - MINUTE)
    assert clocks.clock.is_near(first, clocks.clock.timestamp())
    clocks.run(2 * MINUTE)
    late = clocks.clock.timestamp()
    assert not clocks.clock.is_near(first, late)
    clocks.reboot()  # then only the server's times tell, a day apart
    again = clocks.clock.timestamp()
    assert clocks.clock.is_near(late, again)
    assert clocks.clock.is_near(first, again)
    clocks.run(timedelta(days=2))
    assert not clocks.clock.is_near(late, clocks.clock.timestamp())
    assert clocks.clock.is_near(first, clocks.clock.timestamp())
    assert clocks.clock.is_near("who knows", late)


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
