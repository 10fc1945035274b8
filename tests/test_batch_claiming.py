"""Which lines of a batch are claimed in the history, for how long, and in how many steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.batch import claims as claiming
from rebyte_cli.batch.claims import Reservations
from rebyte_cli.history.history import History, Wanted

THEN, NOW = "2026-02-09T10:30:00Z", "2026-02-09T10:31:00Z"


class Desk:
    """The claims of one batch, and the history that they are in."""

    def __init__(self, path: Path) -> None:
        self.history = History(path, origin="o")
        self.claims = Reservations(self.history, "batch")

    def claim(self, number: int, sent: str = THEN) -> None:
        self.claims.want(number, f"Line {number}", sent)
        self.claims.write()

    def claimed(self) -> dict[int, str]:
        """The lines that are claimed, and since when."""
        rows = self.history._database.rows("SELECT body_digest, started_at FROM intents")
        return {int(row["body_digest"].split()[1]): row["started_at"] for row in rows}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "history.db")


def test_those_that_come_next_are_claimed_in_one_step(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "AHEAD", 2)
    desk.claims.expect((number, f"Line {number}") for number in range(1, 6))
    desk.claim(1)
    assert desk.claimed() == dict.fromkeys([1, 2], THEN)
    desk.claim(2, NOW)  # claimed already
    assert desk.claimed() == dict.fromkeys([1, 2], THEN)
    desk.claim(4, NOW)
    assert desk.claimed() == {1: THEN, 2: THEN, 3: NOW, 4: NOW}


def test_one_that_waited_long_is_claimed_anew_when_it_is_sent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim tells when its line may have been sent."""
    monkeypatch.setattr(claiming, "FRESH", -1.0)
    desk.claim(1)
    desk.claim(1, NOW)
    desk.claims.flush()
    assert desk.claimed() == {1: NOW}
    rows = desk.history._database.rows("SELECT id FROM intents")
    assert len(rows) == 1, "the older claim is let go"


def test_one_that_was_let_go_can_be_claimed_again(desk: Desk) -> None:
    desk.claim(1)
    desk.claims.over(1)
    desk.claims.flush()
    assert desk.claimed() == {}
    desk.claim(1, NOW)
    assert desk.claimed() == {1: NOW}


def test_all_but_some_are_let_go(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.claim(number)
    desk.claims.keep_only([2])
    desk.claims.flush()
    assert desk.claimed() == {2: THEN}
    assert Reservations(desk.history, "batch").left() == {2}
    assert Reservations(desk.history, "another").left() == set()


def test_a_history_that_cannot_be_written_claims_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    told: list[str] = []
    history = History(tmp_path / "state" / "history.db", origin="o", warn=told.append)
    assert history.claim("batch", [Wanted(1, "d", THEN)]) == {}
    assert len(told) == 1
    assert told[0].endswith("going on without it")


@pytest.mark.parametrize("enabled", [True, False])
def test_with_the_history_off_a_claim_goes_on_to_name_its_task(
    tmp_path: Path, enabled: bool
) -> None:
    history = History(tmp_path / "history.db", origin="o", enabled=enabled)
    claims = history.claim("batch", [Wanted(1, "d", THEN), Wanted(2, "d", THEN)])
    history.release({claims[1]: "task-1", claims[2]: None})
    rows = history._database.rows("SELECT state, task_id FROM intents")
    assert [tuple(row) for row in rows] == ([] if enabled else [("done", "task-1")])
    assert history.claims_of("batch") == {}
