"""What an attempt leaves behind when it ends, and what the next one of the same makes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import APIError, BadUsage, OutcomeUnknown, RebyteError, ServerFault, Unsent
from rebyte_cli.history.history import History
from rebyte_cli.local.server import LOCAL_KEY, Service
from rebyte_cli.tasks.create import CreateOperation
from rebyte_cli.tasks.search import digest_of

from .cutting_proxy import Cut, CuttingProxy
from .once_bench import PROMPT, TASKS, Bench
from .servers import closed_port
from .task_board import Time

LIST = r"/v1/tasks\?"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)


def left_open(bench: Bench) -> list[str]:
    """States of attempts whose end is not known."""
    return [intent.state for intent in bench.memory().unsettled(digest_of(PROMPT))]


def nowhere() -> RebyteClient:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    return RebyteClient(transport=Transport(url, LOCAL_KEY, sleep=lambda _seconds: None))


@pytest.mark.parametrize("key", [None, "k"])
def test_an_attempt_that_made_nothing_is_settled(bench: Bench, key: str | None) -> None:
    bench.proxy.cut("POST", TASKS, Cut.STATUS, status=400)
    with pytest.raises(APIError):
        bench.create(key=key)
    assert left_open(bench) == []
    with pytest.raises(Unsent):
        bench.create(key=key, client=nowhere())
    assert left_open(bench) == []
    with pytest.raises(BadUsage):
        bench.create(key=key, body={"odd": float("nan")})  # JSON has no word for it
    assert left_open(bench) == []
    created = bench.create(key=key)
    assert bench.on_server()[-1] == created["id"]  # the 400 was the proxy's: that one was made too
    # Nothing was looked for: nothing was lost.
    assert bench.proxy.count("GET", LIST) == 0


@pytest.mark.parametrize("key", [None, "k"])
def test_a_fault_of_the_server_is_raised_and_leaves_it_open(bench: Bench, key: str | None) -> None:
    """A 500 does not say whether the task was made, and here it was."""
    bench.proxy.cut("POST", TASKS, Cut.STATUS, status=500)
    with pytest.raises(ServerFault):
        bench.create(key=key)
    assert left_open(bench) == ["unknown"]
    created = bench.create(key=key)
    assert bench.on_server() == [created["id"]]
    assert bench.proxy.count("POST") == 1
    assert left_open(bench) == []


def test_what_was_sent_and_lost_is_left_open(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k")
    assert left_open(bench) == ["unknown"]
    assert any("looking for what became of it" in note for note in bench.notes)


def test_a_look_that_fails_is_taken_again(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)
    created = bench.create(look_for=5)
    assert bench.on_server() == [created["id"]]


def test_a_key_that_is_rejected_meanwhile_ends_the_look(bench: Bench) -> None:
    at = Time()
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=401, times=50)
    with pytest.raises(OutcomeUnknown, match="401"):
        bench.create(look_for=20, clock=at.clock, sleep=at.sleep)
    assert at.now == 0
    assert bench.proxy.count("GET", LIST) == 1


def test_a_lost_answer_is_found_without_a_history(bench: Bench) -> None:
    (bench.folder / "file").write_text("")
    broken = History(bench.folder / "file" / "history.db", origin="test")
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    created = bench.create(history=broken)
    assert bench.on_server() == [created["id"]]


def test_a_promise_that_cannot_be_written_is_not_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up between taking the key and writing the intent."""

    def full(self: History, *_: Any, **__: Any) -> None:
        raise RebyteError("cannot write the history: No space left on device")

    monkeypatch.setattr(History, "open_intent", full)
    with pytest.raises(RebyteError, match="No space left"):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0
    assert bench.on_server() == []


# -- attempts that were cut off ----------------------------------------------------------------


def cut_off(bench: Bench, owner: str, **more: str) -> None:
    """An attempt at the same whose process died after it wrote its intent."""
    body = {"prompt": PROMPT, **more}
    bench.memory().open_intent(
        None,
        digest=digest_of(PROMPT),
        body_digest=CreateOperation(bench.client, bench.history, body, PROMPT).body_digest,
        started_at=datetime.now(UTC).isoformat(),
        owner=owner,
    )


def test_two_that_died_may_have_made_one_task_which_is_taken(bench: Bench) -> None:
    cut_off(bench, "gone 1")
    cut_off(bench, "gone 2")
    made = bench.direct.create_task(PROMPT)
    assert bench.create()["id"] == made["id"]
    assert bench.on_server() == [made["id"]]
    assert any("looking for it" in note for note in bench.notes)


def test_the_task_of_one_that_is_at_work_is_not_taken(bench: Bench) -> None:
    """Of two attempts one died and one lives: the task may be of the one that lives."""
    cut_off(bench, "gone")
    cut_off(bench, "alive")
    made = bench.direct.create_task(PROMPT)
    held, done = threading.Event(), threading.Event()

    def live() -> None:
        with bench.memory().hold("alive"):
            held.set()
            done.wait(20)

    other = threading.Thread(target=live)
    other.start()
    assert held.wait(20)
    try:
        created = bench.create()
    finally:
        done.set()
        other.join()
    assert created["id"] != made["id"]
    assert "Sending anew" in bench.notes


def test_what_asked_for_something_else_is_not_taken_up(bench: Bench) -> None:
    """The same prompt for another executor: its task is not what this call asks for."""
    cut_off(bench, "gone", executor="gemini")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    assert bench.create()["id"] != made["id"]
    assert bench.notes == []
    assert bench.proxy.count("GET") == 0
