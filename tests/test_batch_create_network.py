"""The workers of a batch and the gate: what a lost network and a service that fails do to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.batch import throttle
from rebyte_cli.batch.workers import ENOUGH
from rebyte_cli.errors import BadUsage, NetworkError, ServerFault

from .keyring_daemon import eventually
from .servers import Answer, RawServer, error_reply
from .workshop import MADE, Workshop, take_away

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def answers() -> list[Answer]:
    return [MADE]


@pytest.fixture
def server(answers: list[Answer]) -> Iterator[RawServer]:
    with RawServer(lambda _request: answers[-1]) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, server: RawServer) -> Iterator[Workshop]:
    shop = Workshop(tmp_path, server)
    yield shop
    shop.close()


def test_a_network_that_went_away_closes_the_gate(shop: Workshop, server: RawServer) -> None:
    shop.create(0)
    take_away(server)
    shop.client.close()
    assert shop.create(2) == ("unsent", None)
    assert shop.states()[2:] == ["sending", "unsent"]
    assert shop.gate.is_down
    assert "Paused" in shop.told[0]


def test_a_network_that_was_never_there_ends_the_batch(shop: Workshop, server: RawServer) -> None:
    take_away(server)
    kind, error = shop.create(0)
    assert kind == "fatal"
    assert isinstance(error, NetworkError)
    assert not shop.gate.is_down


def test_what_is_turned_away_at_every_try_pauses_all(shop: Workshop, answers: list[Answer]) -> None:
    answers.append(error_reply(429, "too_many", "Slow down"))
    assert shop.create(0) == ("unsent", None)
    assert shop.states() == ["sending", "unsent"]
    assert shop.told == ["The service turns creates away (429): no creates for 5 s"]


def test_faults_at_every_create_slow_it_down(shop: Workshop, answers: list[Answer]) -> None:
    answers.append(error_reply(500, "internal_error", "Broken"))
    for turn in range(ENOUGH):
        assert shop.told == []
        kind, error = shop.create(turn * 2)
        assert kind == "refused"
        assert isinstance(error, ServerFault)
    eventually(lambda: shop.told)  # it is reported before it is counted
    assert shop.told == ["The service fails at every create: no creates for 5 s"]


def test_one_that_goes_through_ends_the_count_of_faults(
    shop: Workshop, answers: list[Answer]
) -> None:
    for turn in range(ENOUGH * 2):
        fine = turn == ENOUGH - 1
        answers.append(MADE if fine else error_reply(500, "internal_error", "Broken"))
        if turn == ENOUGH * 2 - 1:
            assert shop.told == []
        shop.create(turn * 2)
    eventually(lambda: shop.told)
    assert len(shop.told) == 1


@pytest.mark.parametrize("refused", [False, True])
def test_any_answer_says_that_the_network_is_back(
    tmp_path: Path,
    server: RawServer,
    answers: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
    refused: bool,
) -> None:
    monkeypatch.setattr(throttle, "PROBE_FIRST", 0.01)
    shop = Workshop(tmp_path, server)
    shop.gate.lost("no route")
    assert shop.gate.is_down
    answers.append(error_reply(400, "validation_error", "No") if refused else MADE)
    assert shop.create(0)[0] == ("refused" if refused else "created")
    assert not shop.gate.is_down
    assert shop.told[-1] == "The network is back"
    shop.close()


def test_a_file_that_is_gone_says_nothing_about_the_network(
    tmp_path: Path, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the one try that a lost network allows, so the next one must get it."""
    monkeypatch.setattr(throttle, "PROBE_FIRST", 0.01)
    shop = Workshop(tmp_path, server)

    def gone(path: str) -> None:
        raise BadUsage(f"cannot read {path}")

    shop.upload = gone
    shop.gate.lost("no route")
    assert shop.create(1)[0] == "refused"
    assert shop.gate.is_down
    assert shop.create(0)[0] == "created"
    shop.close()
