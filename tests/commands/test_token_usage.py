"""What tasks used of their models: in every document and report, and summed by `rebyte usage`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.api.token_usage import TokenUsage
from tests.conftest import Done
from tests.servers import RawServer, Request, json_reply

Run = Callable[..., Done]

USED = {
    "requests": 1,
    "inputTokens": 900,
    "cachedInputTokens": 0,
    "outputTokens": 100,
    "costUsd": None,
}
PRICES = '[prices."lite"]\ninput = 10\ncached = 1\noutput = 100\n'


@pytest.fixture
def priced(home: Path) -> None:
    """A price for the model of the simulation: 900 and 100 tokens cost 0.019 dollars."""
    write_config(home, PRICES)


def write_config(home: Path, text: str) -> None:
    folder = home / ".config/rebyte"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)
    (folder / "config.toml").chmod(0o600)


def create(run: Run, prompt: str, *more: str) -> Any:
    return run("-P", "local", "create", prompt, "--wait", "-o", "json", *more).json


def listed(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run("-P", "local", "list", "-o", "json").json["data"]
    return rows


def test_a_task_has_its_usage_in_every_document(inside_local: Run) -> None:
    task = create(inside_local, "Hello [[run=0s]] [[usage=900:100]]")
    assert task["usage"] == USED
    assert inside_local("-P", "local", "get", task["id"]).json["usage"] == USED
    assert [row["usage"] for row in listed(inside_local)] == [USED]


def test_a_task_whose_use_is_not_known_has_none(inside_local: Run) -> None:
    task = create(inside_local, "Hello [[run=0s]]")
    assert "usage" not in task
    assert "usage" not in listed(inside_local)[0]
    done = inside_local("-P", "local", "usage", "-o", "json")
    assert (done.status, done.json["data"]) == (0, [])


def test_follow_ups_are_summed_and_counted_once(inside_local: Run) -> None:
    task = create(inside_local, "Hello [[run=0s]] [[usage=900:100:0.5]]")
    follow = ["-P", "local", "follow-up", task["id"], "More [[run=0s]] [[usage=50:5:0.25]]"]
    after = inside_local(*follow, "--wait", "-o", "json").json
    both = {**USED, "requests": 2, "inputTokens": 950, "outputTokens": 105, "costUsd": 0.75}
    assert after["usage"] == both
    for _ in range(2):
        assert inside_local("-P", "local", "get", task["id"]).json["usage"] == both
        assert listed(inside_local)[0]["usage"] == both
        (row,) = inside_local("-P", "local", "usage", "-o", "json").json["data"]
        assert (row["tasks"], row["tokens"], row["costUsd"]) == (1, 1055, 0.75)


def test_what_a_canceled_run_used_counts(inside_local: Run) -> None:
    made = inside_local(
        "-P", "local", "create", "Hello [[run=1h]] [[usage=900:100]]", "-o", "json"
    ).json
    inside_local("-P", "local", "cancel", made["id"])
    assert inside_local("-P", "local", "get", made["id"]).json["usage"] == USED
    (row,) = inside_local("-P", "local", "usage", "-o", "json").json["data"]
    assert row["tokens"] == 1000


def test_a_price_makes_the_cost(inside_local: Run, priced: None) -> None:
    task = create(inside_local, "Hello [[run=0s]] [[usage=900:100]]")
    assert task["usage"]["costUsd"] == 0.019
    assert listed(inside_local)[0]["usage"]["costUsd"] == 0.019
    own = create(inside_local, "Hello [[run=0s]] [[usage=900:100:0.5]]")
    assert own["usage"]["costUsd"] == 0.5  # what the agent says goes first


def test_the_cost_of_a_model_without_a_price_is_not_0(inside_local: Run, priced: None) -> None:
    task = create(inside_local, "Hello [[run=0s]] [[usage=900:100]]", "-m", "other")
    assert task["usage"]["costUsd"] is None
    create(inside_local, "Hello [[run=0s]] [[usage=900:100]]")
    rows = inside_local("-P", "local", "usage", "--by", "model", "-o", "json").json["data"]
    found = {row["name"]: (row["costUsd"], row["unpriced"]) for row in rows}
    assert found == {"other": (None, 1), "lite": (0.019, 0)}
    table = inside_local("-P", "local", "list", "-o", "table")
    assert "Used 2,000 tokens, $0.02 (without 1 of 2 tasks, whose price is not known)" in table.err


def test_prices_are_not_remembered(inside_local: Run, home: Path, priced: None) -> None:
    create(inside_local, "Hello [[run=0s]] [[usage=900:100]]")
    failed = create(inside_local, "Hello [[run=0s]] [[fail]] [[usage=900:100]]")
    assert failed["usage"]["costUsd"] == 0.019
    write_config(home, PRICES.replace("100", "200"))
    (row,) = inside_local("-P", "local", "usage", "-o", "json").json["data"]
    assert row["costUsd"] == 2 * 0.029


def test_tokens_and_cost_are_fields(inside_local: Run, priced: None) -> None:
    task = create(inside_local, "Hello [[run=0s]] [[usage=900:100]]")
    fields = ["--fields", "id,tokens,cost"]
    for command in (["list"], ["get", task["id"]]):
        done = inside_local("-P", "local", *command, "-o", "jsonl", *fields)
        assert done.json == {"id": task["id"], "tokens": 1000, "cost": 0.019}
    table = inside_local("-P", "local", "list", "-o", "table", "--fields", "tokens,cost")
    assert table.out.split() == ["TOKENS", "COST", "1000", "0.019"]
    assert table.err.splitlines()[-1] == "Used 1,000 tokens, $0.02"


def test_csv_has_the_same_columns_with_and_without_usage(inside_local: Run) -> None:
    create(inside_local, "Hello [[run=0s]]")
    before = inside_local("-P", "local", "list", "-o", "csv").out.splitlines()[0]
    create(inside_local, "Hello [[run=0s]] [[usage=900:100]]")
    assert inside_local("-P", "local", "list", "-o", "csv").out.splitlines()[0] == before


def test_a_batch_sums_its_lines(inside_local: Run, home: Path, priced: None) -> None:
    (home / "in.txt").write_text(
        "One [[run=0s]] [[usage=900:100]]\nTwo [[run=0s]] [[usage=100:0:0.5]]\nThree [[run=0s]]\n"
    )
    batch = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl"]
    for report in ("r.md", "r.html"):  # the second time from the journal
        done = inside_local(*batch, "--report", report, cwd=home)
        rows = sorted(done.documents, key=lambda row: int(row["line"]))
        assert [row.get("usage", {}).get("costUsd") for row in rows] == [0.019, 0.5, None]
        assert rows[0]["usage"] == {**USED, "costUsd": 0.019}
        assert "Used 1,100 tokens, $0.52" in done.err.splitlines()
        text = (home / report).read_text()
        assert "1,100 tokens, $0.52" in text
        assert "1,000 tokens, $0.02" in text
    (row,) = inside_local("-P", "local", "usage", "-o", "json").json["data"]
    assert (row["tasks"], row["tokens"], row["costUsd"]) == (2, 1100, 0.519)


def test_a_batch_counts_the_tasks_that_were_replaced(inside_local: Run, home: Path) -> None:
    (home / "in.txt").write_text("One [[run=0s]] [[fail]] [[usage=900:100]]\n")
    batch = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl"]
    inside_local(*batch, cwd=home)
    done = inside_local(*batch, "--retry-failed", cwd=home)
    assert done.json["usage"]["inputTokens"] == 900
    assert "Used 2,000 tokens" in done.err.splitlines()


def test_the_report_of_a_batch_without_usage_says_nothing_of_it(
    inside_local: Run, home: Path
) -> None:
    (home / "in.txt").write_text("One [[run=0s]]\n")
    done = inside_local("-P", "local", "batch", "in.txt", "--text", "--report", "r.md", cwd=home)
    assert "Used" not in done.err + (home / "r.md").read_text()


def test_usage_is_grouped_and_limited(inside_local: Run, priced: None) -> None:
    create(inside_local, "One [[run=0s]] [[usage=900:100]]", "--label", "run=a", "-x", "claude")
    create(inside_local, "Two [[run=0s]] [[usage=90:10]]", "--label", "run=b", "-g", "o/r")
    deleted = create(inside_local, "Three [[run=0s]] [[usage=9:1]]")
    inside_local("-P", "local", "delete", deleted["id"])

    def grouped(by: str, *more: str) -> dict[str | None, int]:
        done = inside_local("-P", "local", "usage", "--by", by, "-o", "json", *more)
        return {row["name"]: row["tokens"] for row in done.json["data"]}

    assert grouped("label:run") == {"a": 1000, "b": 100, None: 10}
    assert grouped("executor") == {"claude": 1000, "opencode": 110}
    assert grouped("repository") == {None: 1010, "o/r": 100}
    assert list(grouped("day").values()) == [1110]
    assert grouped("day", "--until", "2026-01-01", "--since", "2025-01-01") == {}
    assert list(grouped("day", "--since", "1h").values()) == [1110]


def test_usage_in_every_format(inside_local: Run, priced: None) -> None:
    create(inside_local, "One [[run=0s]] [[usage=900:100]]")
    usage = ["-P", "local", "usage", "--by", "model"]
    expected = {
        "name": "lite",
        "tasks": 1,
        "requests": 1,
        "inputTokens": 900,
        "cachedInputTokens": 0,
        "outputTokens": 100,
        "tokens": 1000,
        "costUsd": 0.019,
        "unpriced": 0,
    }
    assert inside_local(*usage, "-o", "json").json == {"data": [expected]}
    assert inside_local(*usage, "-o", "jsonl").json == expected
    (row,) = csv.DictReader(inside_local(*usage, "-o", "csv").out.splitlines())
    assert row == {name: str(value) for name, value in expected.items()}
    table = inside_local(*usage, "-o", "table").out.splitlines()
    assert table[0].split()[:2] == ["NAME", "TASKS"]
    assert table[1].split() == ["lite", "1", "900", "0", "100", "0.019", "0"]
    assert inside_local(*usage, "-o", "id").status == 2
    assert inside_local("-P", "local", "usage", "--by", "moon").status == 2


def test_usage_contacts_no_service(inside: Run) -> None:
    done = inside("usage", "-o", "json", env={"REBYTE_API_URL": "http://127.0.0.1:9"})
    assert (done.status, done.json) == (0, {"data": []})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[prices."m"]\ninput = -1\noutput = 1\n', "prices.m.input"),
        ('[prices."m"]\ninput = "1"\noutput = 1\n', "prices.m.input"),
        ('[prices."m"]\ninput = nan\noutput = 1\n', "prices.m.input"),
        ('[prices."m"]\ninput = true\noutput = 1\n', "prices.m.input"),
        ('[prices."m"]\ninput = 1\n', "needs output"),
        ('[prices."m"]\ninput = 1\noutput = 1\ncache = 1\n', "prices.m.cache"),
        ('[prices]\n"m" = 1\n', "prices.m"),
    ],
)
def test_a_price_that_is_none_is_named(
    inside_local: Run, home: Path, text: str, named: str
) -> None:
    write_config(home, text)
    done = inside_local(
        "-P", "local", "create", "Hello [[run=0s]] [[usage=900:100]]", "--wait", "-o", "json"
    )
    assert done.status == 2
    assert named in done.err


def test_what_a_result_event_tells_is_remembered(inside: Run, aim: Callable[[Any], Any]) -> None:
    """As a service does that has no usage in its documents."""
    task = {
        "id": "11111111-0000-4000-8000-000000000000",
        "status": "completed",
        "title": "T",
        "model": "m",
        "createdAt": "2026-02-09T10:05:00.000Z",
        "completedAt": "2026-02-09T10:15:00.000Z",
        "prompts": [{"id": "22222222-0000-4000-8000-000000000000", "status": "succeeded"}],
    }
    used = {"input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 5}
    event = {"eventType": "result", "payload": {"text": "Hi", "usage": used, "total_cost_usd": 0.5}}
    content = {
        **task,
        "prompts": [{**task["prompts"][0], "userPrompt": "Hi", "events": [event]}],  # type: ignore[index]
    }

    def reply(request: Request) -> bytes:
        if request.path.endswith("/tasks") and request.method == "POST":
            return json_reply({"id": task["id"], "status": "running"}, status=201)
        return json_reply(content if "content" in request.path else task)

    with RawServer(reply) as server:
        aim(server)
        inside("create", "Hi", "-o", "json")
        assert "usage" not in inside("get", str(task["id"]), "-o", "json").json
        for _ in range(2):
            inside("logs", str(task["id"]))
            found = inside("get", str(task["id"]), "-o", "json").json["usage"]
            assert found == {
                "requests": None,
                "inputTokens": 40,
                "cachedInputTokens": 30,
                "outputTokens": 5,
                "costUsd": 0.5,
            }
        (row,) = inside("usage", "-o", "json").json["data"]
        assert (row["tasks"], row["tokens"]) == (1, 45)


def test_numbers_of_any_kind_do_no_harm() -> None:
    odd: list[Any] = [None, [], {}, {"inputTokens": "7"}, {"inputTokens": True}]
    odd += [{"inputTokens": -1}, {"inputTokens": 10**400}, {"outputTokens": 1.5}]
    assert [TokenUsage.of(value) for value in odd] == [None] * len(odd)
    for number in (float("nan"), float("inf"), -1, 10**400):
        cost = TokenUsage.of({"inputTokens": 1, "costUsd": number})
        assert cost is not None
        assert cost.cost is None
        assert json.dumps(cost.document)


# --budget of one task


def test_a_task_ends_with_its_budget(inside_local: Run) -> None:
    create_one = ["-P", "local", "create", "--wait", "-o", "json"]
    prompt = "Hello [[run=0s]] [[usage=900:100]]"
    done = inside_local(*create_one, prompt, "--budget", "1ktok")
    assert done.status == 13
    assert done.json["endedBy"] == "budget"
    assert "the budget of 1,000 tokens is used up" in done.err
    done = inside_local(*create_one, prompt, "--budget", "1001tok")
    assert (done.status, done.json["status"]) == (0, "completed")
    task = done.json["id"]
    follow_up = ["-P", "local", "follow-up", task, "--wait", "-o", "json", prompt]
    assert inside_local(*follow_up, "--budget", "1500tok").status == 13  # with what it used before
    done = inside_local(*follow_up, "--budget", "1ktok")
    assert (done.status, done.json["usage"]["inputTokens"]) == (13, 1800)  # it did not begin
    assert inside_local(*follow_up, "--budget", "1Mtok").status == 0
    done = inside_local("-P", "local", "rerun", task, "--wait", "--budget", "1ktok")
    assert done.status == 13


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--budget", "5usd"], "the task names no model, so its price is not known"),
        (["--budget", "5usd", "-m", "x"], "the task uses x, whose price is not known"),
        (["--budget", "many"], "'many' is not a budget"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(
    inside_local: Run, priced: None, more: list[str], says: str
) -> None:
    done = inside_local("-P", "local", "create", "Hello", *more)
    assert done.status == 2
    assert says in done.err
    assert listed(inside_local) == []


def test_a_budget_of_one_task_is_for_this_machine(inside: Run) -> None:
    done = inside("create", "Hello", "--budget", "1ktok", env={"REBYTE_API_KEY": "rbk_x"})
    assert done.status == 2
    assert "--budget requires -P local" in done.err
