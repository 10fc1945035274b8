"""A follow-up whose answer was lost: found in the task, never sent again (case 39)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.errors import OutcomeUnknown
from rebyte_cli.local.server import Service
from tests.cutting_proxy import Cut, CuttingProxy
from tests.once_bench import PROMPT, Bench

PROMPTS = "/prompts$"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)


@pytest.fixture
def task(bench: Bench) -> str:
    return str(bench.direct.create_task("The first prompt")["id"])


def prompts(bench: Bench, task: str) -> list[str]:
    return [prompt["id"] for prompt in bench.direct.get_task(task)["prompts"]]


def test_an_answer_is_returned(bench: Bench, task: str) -> None:
    assert bench.follow_up(task) == {"promptId": prompts(bench, task)[1]}


@pytest.mark.parametrize("cut", [Cut.AFTER, Cut.MIDWAY, Cut.STATUS])
def test_case_39_a_lost_follow_up_is_found_and_not_repeated(
    bench: Bench, task: str, cut: Cut
) -> None:
    bench.proxy.cut("POST", PROMPTS, cut)
    sent = bench.follow_up(task)
    assert bench.proxy.count("POST") == 1
    assert [sent["promptId"]] == prompts(bench, task)[1:]
    assert "was lost" in bench.notes[-1]


def test_case_39_one_that_never_arrived_is_unknown_and_not_repeated(
    bench: Bench, task: str
) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    assert caught.value.exit_status == 6
    assert caught.value.candidates == []
    assert bench.proxy.count("POST") == 1
    assert len(prompts(bench, task)) == 1


def test_two_equal_prompts_are_both_named(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.AFTER, then=lambda: bench.direct.follow_up(task, PROMPT))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    assert [one["promptId"] for one in caught.value.candidates] == prompts(bench, task)[1:]


def test_an_equal_prompt_of_an_hour_ago_is_not_taken(tmp_path: Path) -> None:
    time = [1_780_000_000.0]
    with (
        Service(tmp_path / "service", clock=lambda: time[0]) as service,
        CuttingProxy(service.base_url) as proxy,
    ):
        bench = Bench(tmp_path, service, proxy)
        task = str(bench.direct.create_task(PROMPT)["id"])
        time[0] += 3600
        bench.proxy.cut("POST", PROMPTS, Cut.BEFORE)
        with pytest.raises(OutcomeUnknown) as caught:
            bench.follow_up(task)
        assert caught.value.candidates == []


def test_without_content_it_stays_unknown(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.STATUS, status=404, times=20)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    assert bench.proxy.count("POST") == 1
    assert prompts(bench, task)[1] in [one["promptId"] for one in caught.value.candidates]


def test_the_same_text_to_another_task_is_another_follow_up(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.follow_up(task)
    other = str(bench.direct.create_task("The first prompt")["id"])
    notes = len(bench.notes)
    bench.follow_up(other)
    assert bench.notes[notes:] == []


def test_a_finished_task_is_remembered_as_running_again(bench: Bench, task: str) -> None:
    done = {"id": task, "status": "completed", "completedAt": "2026-02-09T10:00:00Z"}
    bench.history.add_task(done, prompt="The first prompt")
    bench.follow_up(task)
    remembered = bench.history.task(task)
    assert remembered is not None
    assert (remembered["status"], remembered.get("completedAt")) == ("running", None)


def test_what_it_may_be_is_named_with_its_times(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.AFTER, then=lambda: bench.direct.follow_up(task, PROMPT))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    made = bench.direct.get_task(task)["prompts"][1:]
    assert caught.value.candidates == [
        {"id": task, "promptId": one["id"], "createdAt": one["submittedAt"]} for one in made
    ]
    assert all(one["id"] in caught.value.message for one in made)
