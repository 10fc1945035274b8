"""A run without any text: for how long its words are looked for depends on when it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, RawServer, json_reply, reply, then_close

from .test_logs_without import GONE, TEXT, TOOL, stream

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
EMPTY = reply(200, 'event: done\ndata: {"status": "succeeded", "lastSeq": -1}\n\n')


class Ended:
    """A task that ended at ten sharp, asked at `now` (seconds after ten; None: no `Date`)."""

    def __init__(self, now: int | None, *connections: Answer, content: bool = True) -> None:
        self.date = {} if now is None else {"Date": f"Mon, 09 Feb 2026 10:00:{now:02} GMT"}
        self.connections, self.content, self.opened = connections, content, 0

    def __call__(self, request: Any) -> Answer:
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            self.opened += 1
            return self.connections[min(self.opened, len(self.connections)) - 1]
        if path.endswith("/content") and not self.content:
            return GONE["404"]
        ended = "2026-02-09T10:00:00.000Z"
        prompt = {"id": "p1", "status": "succeeded", "completedAt": ended}
        task = {"id": "abcd1234", "status": "completed", "completedAt": ended, "prompts": [prompt]}
        return json_reply(task, headers=self.date)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of no length: what counts here is how often is looked."""
    monkeypatch.setattr("rebyte_cli.tasks.stream.LAST_WORDS_PAUSE", 0.001)
    monkeypatch.setattr("rebyte_cli.tasks.stream.LATER", (0.001,) * 4)
    monkeypatch.setattr("rebyte_cli.tasks.stream.PAUSE", 0.001)


@pytest.mark.parametrize("content", [True, False], ids=["content", "without"])
@pytest.mark.parametrize("last", [stream(TOOL), EMPTY], ids=["tool", "empty"])
@pytest.mark.parametrize("words", [["result"], ["logs"], ["logs", "-f"]], ids=" ".join)
def test_one_look_is_enough_for_a_run_that_ended_long_ago(
    words: list[str], last: Answer, content: bool, inside: Run, aim: Aim
) -> None:
    service = Ended(30, last, content=content)
    with RawServer(service) as server:
        aim(server)
        inside(words[0], "abcd1234", *words[1:])
    assert service.opened == 1


@pytest.mark.parametrize("now", [3, None], ids=["just-now", "no-clock"])
@pytest.mark.parametrize("words", [["result"], ["logs"]], ids=" ".join)
def test_words_that_may_still_come_are_waited_for(
    words: list[str], now: int | None, inside: Run, aim: Aim
) -> None:
    late = Ended(now, *[stream(TOOL)] * 11, stream(TOOL, TEXT))
    with RawServer(late) as server:
        aim(server)
        assert inside(*words, "abcd1234").out.endswith("Three files changed.\n")
    assert late.opened == 12


def test_a_line_that_breaks_is_no_look(inside: Run, aim: Aim) -> None:
    broken = then_close(reply(200, "data: {", length=500))
    service = Ended(30, *[broken] * 2, stream(TOOL, TEXT))
    with RawServer(service) as server:
        aim(server)
        assert inside("result", "abcd1234").out == "Three files changed.\n"
