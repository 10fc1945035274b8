"""What a run used of its models: the gateway's numbers, which a killed run keeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from rebyte_cli.local.agents import facade
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.agents.limits.run_meter import RunMeter, left_behind
from rebyte_cli.local.agents.supervision import by_hand, recovery, run_lock, runs
from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.model_budget import LARGEST, USUAL
from rebyte_cli.local.gateway.model_prices import ModelPrices
from rebyte_cli.local.http import Caller, Context
from tests.waiting import eventually

from .bench import NAP, PYTHON, Bench, python

USAGE = {"input_tokens": 600, "cache_read_input_tokens": 300, "output_tokens": 100}
ONE = {"requests": 1, "input_tokens": 900, "cached_input_tokens": 300, "output_tokens": 100}
TWO = {"requests": 2, "input_tokens": 1800, "cached_input_tokens": 600, "output_tokens": 200}

# A model that asked two others: Anthropic's top-level counts leave them out.
ADVISED = {
    **USAGE,
    "iterations": [
        {"type": "message", **USAGE},
        {"type": "advisor_message", "model": "dear", "input_tokens": 1000, "output_tokens": 50},
        {"type": "advisor_message", "input_tokens": 100, "output_tokens": 0},
    ],
}


class CountingModel(ThreadingHTTPServer):
    """A model with Anthropic's API, whose every answer used the same."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.served = 0
        self.may_answer = threading.Event()  # a request that asks to wait for it
        self.may_answer.set()
        self.waits = threading.Event()  # such a request is there

    def handle_error(self, *_: object) -> None:
        """A client may be killed at any moment."""


class _Answers(BaseHTTPRequestHandler):
    server: CountingModel

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if b"wait" in asked:
            self.server.waits.set()
            assert self.server.may_answer.wait(60)
        self.server.served += 1
        document = {"model": "dear" if b"dear" in asked else "m", "usage": USAGE}
        if b"advised" in asked:
            document = {"model": "m", "usage": ADVISED}
        body = json.dumps({} if b"silent" in asked else document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingModel]:
    """The user's model, whose address and key are in the environment."""
    yield from serving(CountingModel(), monkeypatch)


Model = TypeVar("Model", bound=ThreadingHTTPServer)


def serving(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """The model while it answers; the environment has its address, and a key."""
    with model as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-real")
        yield server
        server.shutdown()


ASK = """
import os, sys, time, urllib.error, urllib.request
def ask(body=b"{}"):
    url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
    request = urllib.request.Request(url + "/v1/messages", body, {"x-api-key": key})
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as error:
        print(error.read().decode(), flush=True)
"""


def agent(code: str) -> ProgramAdapter:
    return python(ASK + code, model="anthropic")


def used(bench: Bench, prompt: str) -> Any:
    found = bench.look(prompt).used
    return None if found is None else json.loads(found)


@pytest.mark.slow
def test_each_request_counts(bench: Bench, model: CountingModel) -> None:
    run = bench.run(agent("ask(); ask()"))
    assert (run.outcome, model.served) == ("succeeded", 2)
    assert used(bench, run.prompt) == TWO


@pytest.mark.slow
def test_a_run_without_requests_has_no_usage(bench: Bench, model: CountingModel) -> None:
    run = bench.run(agent("print('hello')"))
    assert run.outcome == "succeeded"
    assert used(bench, run.prompt) is None


@pytest.mark.slow
def test_a_run_that_works_shows_what_it_has_used(bench: Bench, model: CountingModel) -> None:
    prompt = bench.start(agent(f"ask(); print('x', flush=True); time.sleep({NAP}1)"))
    eventually(lambda: used(bench, prompt) == ONE)
    bench.cancel(prompt)
    bench.wait(prompt)
    assert used(bench, prompt) == ONE


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["ask(); ", "ask(); time.sleep(0.3); "])
def test_a_run_whose_supervisor_is_killed_keeps_what_it_used(
    bench: Bench, model: CountingModel, wait: str
) -> None:
    prompt = bench.start(agent(f"{wait}ask(); print('x', flush=True); time.sleep({NAP}2)"))
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    assert used(bench, prompt) == TWO


def test_the_numbers_of_the_gateway_win(tmp_path: Path) -> None:
    """The agent counts the same requests. Of the cost, the gateway may know nothing."""
    told = {"input_tokens": 5, "output_tokens": 1, "cost_usd": 0.5}
    meter = RunMeter(tmp_path)
    assert not meter.look()
    assert meter.used(told) == told
    lines = [
        {"time": 1, "host": "h", "port": 443, "method": "POST", "path": "/v1/messages"},
        {"time": 2, "host": "h", "port": 443, "method": "POST", "path": "/v1/messages"}
        | {"usage": {"input_tokens": 70, "output_tokens": 7}},
    ]
    file = tmp_path / "network.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file.write_text(text[:-20])  # the second line is being written
    assert not meter.look()
    assert meter.used(told) == told
    file.write_text(text)
    assert meter.look()
    assert not meter.look()
    seen = {"requests": 1, "input_tokens": 70, "output_tokens": 7}
    assert meter.used(told) == seen | {"cost_usd": 0.5}
    assert meter.used({}) == seen


@pytest.mark.parametrize(
    "usage",
    ['"x"', "[]", '{"input_tokens": "9"}', '{"input_tokens": -1}', '{"others": 7}',
     '{"others": [{"model": [7], "input_tokens": "x"}, {"model": "x"}, 7]}'],
)  # fmt: skip
def test_a_record_of_any_kind_does_no_harm(tmp_path: Path, usage: str) -> None:
    head = '{"time": 1, "host": "h", "port": 1, "method": "", "path": "", "usage": '
    (tmp_path / "network.jsonl").write_text(f"{head}{usage}}}\nx\n[]\n")
    meter = RunMeter(tmp_path, ModelPrices((1.0, 1.0, 1.0), {"m": (1.0, 1.0, 1.0)}))
    meter.look()
    assert meter.used({}).get("input_tokens", 0) == 0


def test_a_look_reads_no_more_than_it_may(tmp_path: Path) -> None:
    line = {"time": 1, "host": "h", "port": 1, "method": "", "path": "p" * 1000}
    line["usage"] = {"input_tokens": 1}
    count = 3000
    (tmp_path / "network.jsonl").write_text(f"{json.dumps(line)}\n" * count)
    meter = RunMeter(tmp_path)
    assert meter.look(most=1)
    assert 0 < meter.used({})["requests"] < count / 2
    assert meter.look()
    assert meter.used({})["requests"] == count


REFUSED = {"status": 429, "refused_for": 3600.0}
PASSED = {"status": 200, "usage": {"input_tokens": 1}}
OWN = {"route": "p1", "asked": "m"}


def look(folder: Path, *entries: dict[str, Any]) -> RunMeter:
    """What the meter of a run with `-m p1/m` has seen."""
    file = folder / request_record.FILE
    if file.exists():  # the gateway that wrote it has ended
        shutil.copy(file, folder / "copy")
        (folder / "copy").rename(file)
    record = request_record.RequestRecord(str(file))
    for each in entries:
        record.add(request_record.RequestEntry(1, "h", 443, "POST", "/", **each))
    meter = RunMeter(folder, limited="m", route="p1")
    meter.look()
    return meter


@pytest.mark.parametrize(
    "other",
    [
        {"route": "p2", "asked": "m"},
        {"route": "p1", "asked": "m-2"},
        {"route": "p1", "asked": None},
        {"route": None, "asked": None},
    ],
)
def test_only_requests_to_its_own_model_tell_a_run_of_its_limit(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """A program in the sandbox can ask the same name of another provider, or only count tokens."""
    meter = look(tmp_path, other | REFUSED, other | PASSED)
    assert (meter.refused_for, meter.was_refused, meter.has_passed) == (None, False, False)
    meter = look(tmp_path, OWN | REFUSED, other | PASSED)
    assert (meter.refused_for, meter.was_refused_last, meter.has_passed) == (3600.0, True, False)
    meter = look(tmp_path, OWN | PASSED | {"model": "m-20260101"})
    assert (meter.was_refused_last, meter.has_passed) == (False, True)


@pytest.mark.parametrize("entry", [REFUSED, {"status": 429, "method": "GET"}])
def test_a_refusal_by_a_host_is_none_by_a_model(tmp_path: Path, entry: dict[str, Any]) -> None:
    (tmp_path / request_record.FILE).write_text(
        json.dumps({"time": 1, "host": "h", "port": 80, "method": "POST", "path": "/"} | entry)
        + "\n"
    )
    meter = RunMeter(tmp_path)
    meter.look()
    assert (meter.refused_for, meter.was_refused) == (None, False)


def test_a_name_that_is_not_ascii_is_found_in_the_record(tmp_path: Path) -> None:
    own = {"route": "modèles", "asked": "größe-7"}
    record = request_record.RequestRecord(str(tmp_path / request_record.FILE))
    record.add(request_record.RequestEntry(1, "h", 443, "POST", "/", **own, **REFUSED))
    meter = RunMeter(tmp_path, limited="größe-7", route="modèles")
    meter.look()
    assert meter.refused_for == 3600.0


@pytest.mark.slow
def test_a_command_in_the_workspace_keeps_the_cost_that_the_agent_told(
    bench: Bench, model: CountingModel
) -> None:
    """The gateway, whose record is read again then, does not know it."""
    line = {"type": "result", "subtype": "success", "result": "Done", "total_cost_usd": 0.5}
    code = f"{ASK}ask()\nprint({json.dumps(json.dumps(line))})"
    claude = Claude(
        command=(PYTHON, "-I", "-c", code),
        extra_paths=(os.path.dirname(os.path.dirname(PYTHON)),),
    )
    run = bench.run(claude)
    assert (run.outcome, used(bench, run.prompt)) == ("succeeded", ONE | {"cost_usd": 0.5})
    assert by_hand.run_by_hand(bench.folder, run.workspace, ["true"], print, settings=None) == 0
    assert used(bench, run.prompt) == ONE | {"cost_usd": 0.5}


def limit(of: str, **amount: float) -> dict[str, Any]:
    return {"budgets": [{"of": of, **amount}]}


def last(bench: Bench, prompt: str) -> dict[str, Any]:
    return bench.events(prompt)[-1].payload


@pytest.mark.slow
def test_a_run_ends_at_its_next_request_once_its_budget_is_used_up(
    bench: Bench, model: CountingModel
) -> None:
    code = "\nfor _ in range(9): ask()\ntime.sleep(60)"
    run = bench.run(agent(code), **limit("task", tokens=1500))
    assert (run.outcome, model.served) == ("failed", 2)
    assert run.answer == "mine was stopped: the budget of 1,500 tokens is used up"
    assert last(bench, run.prompt)["ended_by"] == "budget"
    assert used(bench, run.prompt) == TWO


@pytest.mark.slow
def test_what_a_task_has_used_counts_for_its_next_run(bench: Bench, model: CountingModel) -> None:
    bench.wait(bench.start(agent("ask(); ask()"), task="t"))
    code = agent("ask(); ask()")
    run = bench.wait(bench.start(code, task="t", **limit("task", tokens=2500)))
    assert (run.outcome, model.served) == ("failed", 3)
    run = bench.wait(bench.start(code, task="t", **limit("task", tokens=2500)))
    assert run.answer == "mine was not started: the budget of 2,500 tokens is used up"
    assert model.served == 3
    run = bench.wait(bench.start(code, task="t", **limit("task", tokens=9000)))
    assert (run.outcome, model.served) == ("succeeded", 5)


@pytest.mark.slow
def test_a_request_whose_answer_does_not_say_what_it_used_is_not_free(
    bench: Bench, model: CountingModel
) -> None:
    code = 'ask(); ask(b"silent"); ask(); print("x", flush=True); time.sleep(60)'
    hidden = {"requests": 1, "tokens": sum(LARGEST)}
    for of in ("task", "batch", "day"):
        model.served = 0
        options = {"budgetOf": "batch", **limit(of, tokens=1_100_000)}
        run = bench.run(agent(code), task=of, **options)
        assert (run.outcome, model.served) == ("failed", 2)
        assert last(bench, run.prompt)["ended_by"] == "budget"
        found = used(bench, run.prompt)
        assert found["uncounted"].items() >= hidden.items()
        assert {name: found[name] for name in ONE} == ONE | {"requests": 2}
        if of == "task":
            run = bench.run(agent("ask()"), task=of, **options)
            assert "was not started: the budget" in str(run.answer)
        with bench.store.write() as db:
            db.execute("DELETE FROM runs")


@pytest.mark.slow
def test_what_an_agent_says_does_not_change_what_a_priced_model_cost(
    bench: Bench, model: CountingModel
) -> None:
    """A program in the sandbox can write to the agent's output."""
    line = {"type": "result", "subtype": "success", "result": "Done", "total_cost_usd": 0.0}
    claude = Claude(
        command=(PYTHON, "-I", "-c", f"{ASK}ask()\nprint({json.dumps(json.dumps(line))})"),
        extra_paths=(os.path.dirname(os.path.dirname(PYTHON)),),
    )
    run = bench.run(claude, price=[100.0, 10.0, 200.0])
    assert used(bench, run.prompt)["cost_usd"] == 0.083
    run = bench.run(claude)
    assert used(bench, run.prompt)["cost_usd"] == 0.0  # without a price, it is all that is known


@pytest.mark.slow
def test_what_an_agent_says_is_no_use_where_the_gateway_saw_none(
    bench: Bench, model: CountingModel
) -> None:
    """It would use up the budgets of others."""
    told = {"input_tokens": 2_000_000_000, "output_tokens": 1}
    line = {"type": "result", "subtype": "success", "result": "Done", "usage": told}
    claude = Claude(
        command=(PYTHON, "-I", "-c", f"print({json.dumps(json.dumps(line))})"),
        extra_paths=(os.path.dirname(os.path.dirname(PYTHON)),),
    )
    run = bench.run(claude)
    assert (run.outcome, used(bench, run.prompt)) == ("succeeded", None)
    run = bench.run(agent("ask()"), **limit("day", tokens=2000))
    assert (run.outcome, used(bench, run.prompt)) == ("succeeded", ONE)


@pytest.mark.slow
@pytest.mark.parametrize("is_canceled", [False, True])
def test_a_request_that_an_agent_leaves_at_its_end_is_not_cheap(
    bench: Bench, model: CountingModel, is_canceled: bool
) -> None:
    model.may_answer.clear()
    code = "import threading\nthreading.Thread(target=ask, args=(b'wait',), daemon=True).start()\n"
    code += f"print('x', flush=True)\ntime.sleep({f'{NAP}1' if is_canceled else 1.5})"
    prompt = bench.start(agent(code))
    assert model.waits.wait(60)
    if is_canceled:
        bench.cancel(prompt)
    bench.wait(prompt)
    model.may_answer.set()
    eventually(lambda: used(bench, prompt))
    assert used(bench, prompt)["uncounted"]["tokens"] == sum(USUAL if is_canceled else LARGEST)


@pytest.mark.slow
def test_each_request_costs_what_the_model_costs_that_answered(
    bench: Bench, model: CountingModel
) -> None:
    prices: dict[str, Any] = {
        "price": [1.0, 1.0, 1.0],
        "prices": {"m": [1.0, 1.0, 1.0], "dear": [1e3, 1e3, 1e3]},
    }
    run = bench.run(agent("ask(); ask(b'dear')"), **prices)
    assert used(bench, run.prompt)["cost_usd"] == 1.001
    code = agent("ask(); ask(b'dear'); ask(); time.sleep(60)")
    run = bench.run(code, **prices, **limit("task", cost=0.5))
    assert (run.outcome, run.answer) == (
        "failed", "mine was stopped: the budget of $0.50 is used up",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 2.0])
def test_what_another_model_did_for_a_request_costs_what_that_model_costs(
    bench: Bench, model: CountingModel, budget: float | None
) -> None:
    """One that the answer does not name, as much as the dearest."""
    prices: dict[str, Any] = {
        "price": [1.0, 0.0, 1.0],
        "prices": {"m": [1.0, 0.0, 1.0], "dear": [1e3, 1e3, 4e3], "dearest": [1e4, 1e4, 1e4]},
    }
    limits = limit("task", cost=budget) if budget else {}
    run = bench.run(agent("ask(b'advised')\nask()\ntime.sleep(0.1)"), **prices, **limits)
    own, named, unnamed = 0.0007, 1.2, 1.0  # dollars
    found = used(bench, run.prompt)
    requests = model.served
    assert (run.outcome, requests) == (("failed", 1) if budget else ("succeeded", 2))
    assert found["cost_usd"] == pytest.approx(requests * own + named + unnamed)
    assert found["input_tokens"] == requests * 900 + 1100
    assert found["output_tokens"] == requests * 100 + 50


def test_the_price_of_a_model_is_found_by_the_name_that_answers() -> None:
    named = {name: (float(n), 0.0, 0.0) for n, name in enumerate(
        ["sonnet", "claude-opus-4", "gpt-5", "x/y/gpt-5-pro"], start=1
    )}  # fmt: skip
    prices = ModelPrices((9.0, 0.0, 0.0), named)
    asked = {
        "claude-sonnet-4-5-20250929": 1.0, "claude-opus-4-20250514": 2.0, "gpt-5": 3.0,
        "gpt-5-2025-08-07": 3.0, "gpt-5-pro": 4.0, "y/gpt-5-pro": 4.0, "gpt-5.1": 9.0,
        "gpt-5-turbo": 9.0, "unknown": 9.0, None: 9.0,
    }  # fmt: skip
    usage = {"input_tokens": 1_000_000}
    assert {name: prices.cost(usage, name) for name in asked} == asked
    assert ModelPrices(None, named).cost(usage, "unknown") is None
    assert prices.cost(usage | {"cost_usd": 0.5}, "gpt-5") == 0.5


@pytest.mark.slow
def test_a_run_with_a_budget_that_asked_no_model_used_nothing(
    bench: Bench, model: CountingModel
) -> None:
    run = bench.run(agent("sys.exit(1)"), **limit("task", tokens=10))
    assert run.outcome == "failed"
    assert used(bench, run.prompt)["requests"] == 0


@pytest.mark.slow
def test_a_budget_in_dollars(bench: Bench, model: CountingModel) -> None:
    price = [100.0, 10.0, 200.0]  # 0.083 for each answer
    run = bench.run(agent("ask(); ask(); ask(); ask()"), price=price, **limit("task", cost=0.1))
    assert (run.outcome, model.served) == ("failed", 2)
    assert run.answer == "mine was stopped: the budget of $0.10 is used up"


@pytest.mark.slow
@pytest.mark.parametrize("of", ["batch", "day"])
def test_no_request_passes_once_others_have_used_the_budget_up(
    bench: Bench, model: CountingModel, of: str
) -> None:
    """Not even in the same second, nor if the supervisor of the others was killed."""
    options = {"budgetOf": "batch", **limit(of, tokens=2500)}
    model.may_answer.clear()
    one = bench.start(
        agent('\nask(b"wait")\nfor _ in range(9): ask()\ntime.sleep(60)'), workspace="a", **options
    )
    assert model.waits.wait(300)
    other = bench.start(
        agent(f"ask(); ask(); ask(); open('used', 'w'); time.sleep({NAP}4)"),
        workspace="b",
        **options,
    )
    eventually((bench.workspace("b").code / "used").exists)
    os.kill(bench.supervisor(other), signal.SIGKILL)
    model.may_answer.set()
    run = bench.wait(one)
    assert (run.outcome, model.served) == ("failed", 4)
    assert "is used up" in (run.answer or "")


@pytest.mark.slow
@pytest.mark.parametrize("then", ["look", "run"])
def test_what_is_left_of_a_run_is_done_whatever_of_its_cancel_was_killed(
    bench: Bench, model: CountingModel, then: str
) -> None:
    code = f"ask(); ask(); open('made', 'w').write('x'); time.sleep({NAP}8); time.sleep({NAP}8)"
    prompt = bench.start(agent(code))
    eventually((bench.workspace().code / "made").exists)
    supervisor = bench.supervisor(prompt)
    os.kill(supervisor, signal.SIGSTOP)
    with bench.store.write() as db:
        db.execute("UPDATE runs SET used = NULL")
        runs.end(db, prompt, bench.store.now(), "canceled", "")
    os.kill(supervisor, signal.SIGKILL)
    if then == "run":
        bench.start(agent("print('hello')"))

    def is_done() -> bool:
        if then == "look":
            recovery.recover(bench.store)
        with bench.store.read() as db:
            (found,) = runs.load(db, [prompt]).values()
        return found.used is not None and json.loads(found.used) == TWO

    eventually(is_done, told=bench.log)
    eventually(lambda: "made" in (bench.artifact("changes.patch") or ""), told=bench.log)
    assert bench.look(prompt).outcome == "canceled"


@pytest.mark.slow
def test_a_run_keeps_to_the_budget_of_the_day_on_which_it_began(
    bench: Bench, model: CountingModel
) -> None:
    options = limit("day", tokens=2500)
    model.may_answer.clear()
    one = bench.start(agent('\nask(b"wait")\nfor _ in range(9): ask()'), workspace="a", **options)
    assert model.waits.wait(300)
    assert bench.run(agent("ask(); ask()"), workspace="b", **options).outcome == "succeeded"
    with bench.store.write() as db:  # midnight
        db.execute("UPDATE runs SET started = started - 86400000")
    model.may_answer.set()
    run = bench.wait(one)
    assert (run.outcome, model.served) == ("failed", 3)
    assert bench.run(agent("ask(); ask()"), workspace="c", **options).outcome == "succeeded"


@pytest.mark.slow
def test_runs_share_a_budget_while_they_work(bench: Bench, model: CountingModel) -> None:
    """Neither would use it up alone."""
    code = agent("\nwhile True:\n    ask()\n    print('x', flush=True)\n    time.sleep(0.2)")
    options = {"budgetOf": "batch", **limit("batch", tokens=20_000)}
    prompts = [bench.start(code, workspace=name, **options) for name in ("a", "b")]
    reason = "mine was stopped: the budget of 20,000 tokens is used up"
    assert [bench.wait(prompt).answer for prompt in prompts] == [reason] * 2
    assert 20 <= model.served <= 21  # each may pass its last one at the same time


@pytest.mark.slow
@pytest.mark.parametrize("of", ["task", "day", "batch"])
def test_no_crash_resets_a_budget(bench: Bench, model: CountingModel, of: str) -> None:
    options = {"task": "t", "budgetOf": "batch", **limit(of, tokens=2500)}
    prompt = bench.start(
        agent(f"ask(); ask(); print('x', flush=True); time.sleep({NAP}3)"), **options
    )
    bench.until_started(prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    bench.wait(prompt)
    run = bench.wait(bench.start(agent("ask(); ask(); ask()"), **options))
    assert (run.outcome, model.served) == ("failed", 3)


@pytest.mark.slow
def test_a_record_of_any_length_is_read_to_its_end(tmp_path: Path) -> None:
    """A program in the sandbox could make it long before it spends anything."""
    line = {"time": 1, "host": "x", "port": 443, "method": "POST", "path": "/" + "x" * 1000}
    free = b"%b\n" % json.dumps(line).encode()
    usage = {"input_tokens": 600, "output_tokens": 100}
    spent = b"%b\n" % json.dumps({**line, "id": "last", "usage": usage}).encode()
    with (tmp_path / request_record.FILE).open("wb") as file:
        for _ in range(70):
            file.write(free * 1000)  # about 1 MB
        file.write(spent)
    meter = RunMeter(tmp_path)
    assert meter.look()
    assert not meter.look()
    expected = {"requests": 1, **usage}
    assert meter.used({}).items() >= expected.items()
    assert left_behind(tmp_path, {}).items() >= expected.items()


@pytest.mark.slow
def test_what_was_used_is_not_given_back(bench: Bench, model: CountingModel) -> None:
    del model
    run = bench.wait(bench.start(agent("ask(); ask()"), task="t"))
    with bench.store.write() as db:
        runs.record_used(db, run.prompt, {**ONE, "input_tokens": 5})
    assert used(bench, run.prompt) == TWO


@pytest.mark.slow
@pytest.mark.parametrize("what", ["crash", "delete"])
def test_a_run_that_is_canceled_at_work_gives_nothing_back(
    bench: Bench, model: CountingModel, what: str
) -> None:
    """A request under way counts, though neither its answer nor a supervisor tells of it."""
    model.may_answer.clear()
    options = {"budgetOf": "batch", **limit("batch", tokens=100_000)}
    prompt = bench.start(agent('ask(b"wait")'), task="t", workspace="a", **options)
    assert model.waits.wait(300)
    if what == "delete":
        context = cast(Context, SimpleNamespace(store=bench.store))
        assert facade.delete_workspace(context, Caller(lambda: True), "a")
    else:
        os.kill(bench.supervisor(prompt), signal.SIGKILL)
        bench.cancel(prompt)
        eventually(lambda: not run_lock.is_held(bench.folder, bench.look(prompt)))
        with bench.store.write() as db:  # nothing is left that would record it
            db.execute("UPDATE runs SET used = NULL, counted = 0, ended = 1")
    model.may_answer.set()
    run = bench.wait(bench.start(agent("ask()"), workspace="b", **options))
    assert run.answer == "mine was not started: the budget of 100,000 tokens is used up"


@pytest.mark.slow
def test_requests_of_any_number_are_added_up_in_little_memory(tmp_path: Path) -> None:
    """Each tenth is under way, or was when its gateway was killed."""
    usage = {"input_tokens": 10, "output_tokens": 1, "cost_usd": 0.1}
    record = request_record.RequestRecord(str(tmp_path / request_record.FILE))
    entry = request_record.RequestEntry(1, "x", 443, "POST", "/", usage=usage)
    for number in range(3_000):
        record.add(entry._replace(id=f"{number}", is_open=True, uncounted={"output_tokens": 5}))
        if number % 10:
            record.add(entry._replace(id=f"{number}", seconds=0.5))
    meter = RunMeter(tmp_path)
    tracemalloc.start()
    try:
        assert meter.look()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 900_000
    used = {"requests": 3_000, "input_tokens": 30_000, "output_tokens": 3_000, "cost_usd": 300.0}
    assert meter.used({}) == used
    hidden = {"requests": 300, "tokens": 1_500, "cost_usd": 0.0}
    assert meter.used({}, has_ended=True) == {**used, "uncounted": hidden}
    assert not meter.look()
