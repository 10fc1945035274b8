"""Runs whose model refuses them for a usage limit: real gateways, real supervisors."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents import config
from rebyte_cli.local.agents.adapters.adapter import Adapter, User
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.gemini import Gemini
from rebyte_cli.local.agents.adapters.model_access import AgentAccess
from rebyte_cli.local.agents.adapters.opencode import OpenCode
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.agents.limits.account_limit import AccountLimit
from rebyte_cli.local.agents.supervision import recovery, runs
from rebyte_cli.local.agents.supervision.accounts import account_of
from rebyte_cli.local.agents.supervision.transcript_writer import TRANSCRIPT_CUT
from rebyte_cli.local.gateway.gateway_settings import ModelRoute
from rebyte_cli.local.local_service import Service
from tests.waiting import eventually, kill_supervisor

from .bench import NAP, PYTHON, Bench, python
from .test_run_meter import serving

ACCOUNT = "a" * 32
LIMIT = 11  # seconds: just more than what an agent waits for itself


class LimitedModel(ThreadingHTTPServer):
    """A model that answers as many requests as `refuses` with `refusal`: status, headers, body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.refuses = 0
        self.refuses_to = ""  # the run that it always refuses
        self.refusal: Callable[[], tuple[int, dict[str, str], Any]] = lambda: after(LIMIT)
        self.asked: list[tuple[float, str]] = []  # when and by which run
        self.answered: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: LimitedModel

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        who = json.loads(body).get("who", "")
        status, document = 200, {"model": "m", "usage": {"input_tokens": 1}}
        headers: dict[str, str] = {}
        with self.server.lock:
            self.server.asked.append((time.monotonic(), who))
            if self.server.refuses or who == self.server.refuses_to != "":
                self.server.refuses = max(self.server.refuses - 1, 0)
                status, headers, document = self.server.refusal()
            else:
                self.server.answered.append(who)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def after(seconds: float) -> tuple[int, dict[str, str], Any]:
    return 429, {"Retry-After": str(seconds)}, {"error": {"type": "rate_limit_error"}}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[LimitedModel]:
    """The user's model, whose address and key are in the environment."""
    yield from serving(LimitedModel(), monkeypatch)


# It asks its model once. What it is refused it says; then it waits, as if it asked again later.
ASK = f"""
import json, os, sys, time, urllib.error, urllib.request
def ask(who, **more):
    url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
    body = json.dumps(dict(more, who=who)).encode()
    request = urllib.request.Request(url + "/v1/messages", body, dict([("x-api-key", key)]))
    try:
        urllib.request.urlopen(request).read()
        print("answered", who, flush=True)
    except urllib.error.HTTPError as error:
        print("refused", error.code, flush=True)
        time.sleep({NAP}9)
"""
WORK = "open('began', 'a').write('x'); ask(sys.stdin.read().split()[-1])"


def agent(code: str = WORK) -> ProgramAdapter:
    return python(ASK + code, model="anthropic")


def start(bench: Bench, prompt: str = "one", **options: Any) -> str:
    options = {"account": ACCOUNT, "workspace": f"ws-{prompt}", **options}
    return bench.start(agent(), prompt, **options)


def is_parked(bench: Bench, prompt: str) -> bool:
    return bench.look(prompt).parked is not None


def parked(bench: Bench, *prompts: str) -> None:
    for prompt in prompts:
        eventually(lambda prompt=prompt: is_parked(bench, prompt))  # type: ignore[misc]


def limit(bench: Bench) -> AccountLimit:
    return AccountLimit(str(bench.folder), ACCOUNT)


def kill(bench: Bench, prompt: str) -> None:
    """Kill the process that waits for a run's limit, or looks after the run."""
    kill_supervisor(bench.run_folder(prompt) / "lock")


def come(bench: Bench) -> None:
    """Let the time of the limit come: as it is known, for processes that look from now on."""
    file = bench.folder / "limits" / ACCOUNT
    resumes, seconds, boot, _ = file.read_text().split()
    file.write_text(f"{resumes} {seconds} {boot} 0")


@pytest.mark.slow
def test_a_refused_agent_can_save_its_session_before_it_is_stopped(
    bench: Bench, model: LimitedModel
) -> None:
    model.refuses = 1
    late = "import threading; threading.Timer(0.5, open, ('saved', 'w')).start()\n"
    run = bench.start(agent(late + WORK), account=ACCOUNT, workspace="ws-one")
    eventually(lambda: is_parked(bench, run))
    assert (bench.workspace("ws-one").code / "saved").exists()


@pytest.mark.slow
def test_a_run_waits_for_its_limit_and_continues(bench: Bench, model: LimitedModel) -> None:
    model.refuses = 1
    prompt = start(bench)
    parked(bench, prompt)
    began = model.asked[0][0]
    run = bench.wait(prompt)
    assert (run.outcome, model.answered) == ("succeeded", ["one"])
    assert len(model.asked) == 2
    assert model.asked[1][0] - began >= LIMIT - 1
    events = bench.events(prompt)
    assert [event.order for event in events] == list(range(len(events)))
    (told,) = [event.payload for event in events if event.kind == "limited"]
    assert told["message"] == "mine waits: its usage limit is reached"
    assert told["resumesAt"].startswith("20")
    assert (bench.workspace("ws-one").code / "began").read_text() == "xx"
    assert not (bench.folder / "limits" / ACCOUNT).exists()


@pytest.mark.slow
def test_a_short_refusal_is_the_agents_own_affair(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(10)
    prompt = start(bench)
    eventually(lambda: "refused 429" in bench.said(prompt))
    time.sleep(1)  # it would have been stopped within a fraction of that
    assert not is_parked(bench, prompt)
    bench.cancel(prompt)


@pytest.mark.slow
def test_neither_limit_counts_while_a_run_waits(bench: Bench, model: LimitedModel) -> None:
    model.refuses = 1
    run = bench.wait(start(bench, limit=LIMIT - 2, stall=LIMIT - 2))
    assert run.outcome == "succeeded", run.answer


@pytest.mark.slow
def test_a_run_that_waits_is_canceled_at_once(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(3600)
    prompt = start(bench)
    parked(bench, prompt)
    bench.cancel(prompt)
    assert bench.wait(prompt).outcome == "canceled"
    assert len(model.asked) == 1


@pytest.mark.slow
def test_a_run_that_waits_has_no_slot(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(3600)
    prompt = start(bench, parallel=1)
    parked(bench, prompt)
    other = start(bench, "other", parallel=1, account="b" * 32)
    assert bench.wait(other).outcome == "succeeded"
    bench.cancel(prompt)


@pytest.mark.slow
@pytest.mark.parametrize("rebooted", [False, True])
def test_a_run_whose_process_is_killed_while_it_waits_continues_once(
    bench: Bench, model: LimitedModel, rebooted: bool
) -> None:
    """The next reader gives it another process; of many at once, one does."""
    model.refuses, model.refusal = 1, lambda: after(3600)
    prompt = start(bench)
    parked(bench, prompt)
    kill(bench, prompt)
    run = bench.look(prompt)
    assert (run.ended, run.parked is None) == (None, False)
    if rebooted:
        kill(bench, prompt)
        file = bench.folder / "limits" / ACCOUNT
        file.write_text(f"{int(time.time() * 1000) - 1} 3600 another-boot 99")
    else:
        come(bench)
    with_threads(8, lambda: bench.look(prompt))
    assert bench.wait(prompt).outcome == "succeeded"
    assert [who for _, who in model.asked] == ["one", "one"]
    assert (bench.workspace("ws-one").code / "began").read_text() == "xx"


def with_threads(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_one_run_tries_for_all_of_its_account(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 2, lambda: after(3600)
    first = [start(bench, name, parallel=9) for name in ("one", "two")]
    parked(bench, *first)
    more = [start(bench, name, parallel=9) for name in ("three", "four")]
    other = start(bench, "five", parallel=9, account="b" * 32)
    assert bench.wait(other).outcome == "succeeded"
    assert all(bench.look(prompt).started is None for prompt in more)
    for prompt in (*first, *more):
        assert recovery.waits_for_limit(bench.store, bench.look(prompt)) is not None
    model.refuses = 1
    come(bench)
    eventually(lambda: len(model.asked) == 4)  # refused again, and all wait on
    eventually(lambda: (limit(bench).seconds_left() or 0) > 3000)
    eventually(lambda: sum(is_parked(bench, prompt) for prompt in first) == 2
               or bench.look(more[0]).parked or bench.look(more[1]).parked)  # fmt: skip
    time.sleep(1)
    assert len(model.asked) == 4
    come(bench)
    for prompt in (*first, *more):
        assert bench.wait(prompt).outcome == "succeeded"
    assert sorted(model.answered) == sorted(["one", "two", "three", "four", "five"])
    assert len(model.asked) == 8


@pytest.mark.slow
def test_another_run_tries_if_the_first_one_is_killed(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(3600)
    first = start(bench)
    parked(bench, first)
    second = start(bench, "two")
    come(bench)
    kill(bench, first)
    assert bench.wait(second).outcome == "succeeded"
    assert bench.wait(first).outcome == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("was_cut", [False, True])
def test_the_bound_of_a_transcript_holds_beyond_a_limit(
    bench: Bench, model: LimitedModel, was_cut: bool
) -> None:
    """What the run told before counts, and that the rest is left out is said once."""
    model.refuses, model.refusal = 1, lambda: after(3600)
    prompt = start(bench)
    parked(bench, prompt)
    with bench.store.write() as db:
        for _ in range(65):
            runs.append(db, prompt, 0, "text", {"content": "x" * (1 << 20)})
        if was_cut:
            runs.append(db, prompt, 0, "text", {"content": TRANSCRIPT_CUT})
    come(bench)
    kill(bench, prompt)
    assert bench.wait(prompt).answer == "answered one"
    assert "answered one" not in bench.said(prompt)
    assert bench.said(prompt).count(TRANSCRIPT_CUT) == 1


@pytest.mark.slow
def test_a_run_that_is_not_to_wait_fails(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(3600)
    prompt = start(bench, onLimit="stop")
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    assert str(run.answer).startswith("mine was stopped: its usage limit is reached until 20")
    (result,) = [event.payload for event in bench.events(prompt) if event.kind == "result"]
    assert result["ended_by"] == "limit"
    later = bench.wait(start(bench, "two", onLimit="stop"))  # it need not ask
    assert str(later.answer).startswith("mine was stopped: its usage limit is reached until 20")
    assert len(model.asked) == 1


@pytest.mark.slow
def test_another_agent_continues(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(3600)
    code = "print(open('began').read(), sys.stdin.read())"
    other = config.describe(replace(agent(code), label="other"))
    elsewhere = {"adapter": other, "account": "b" * 32, "model": None, "onLimit": "wait"}
    prompt = start(bench, onLimit="other", elsewhere=elsewhere)
    run = bench.wait(prompt)
    assert (run.outcome, run.agent) == ("succeeded", "other"), run.answer
    assert run.answer == "x mine has begun with this, and you find its changes:\n\none"
    (told,) = [event.payload for event in bench.events(prompt) if event.kind == "limited"]
    assert told["message"] == "other continues for mine: its usage limit is reached"
    assert len(model.asked) == 1
    with bench.store.read() as db:
        row = db.execute("SELECT executor FROM tasks WHERE id = ?", (run.task,)).fetchone()
    assert row[0] == "other"


@pytest.mark.slow
def test_a_limit_of_one_model_of_a_key_is_none_of_another(
    bench: Bench, model: LimitedModel, tmp_path: Path
) -> None:
    def account(name: str | None, key: str = "sk-ant-real") -> str:
        user = User({"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": key}, tmp_path)
        return account_of(agent(), agent().access(user), user, b"secret", name).name

    model.refuses, model.refusal = 1, lambda: after(3600)
    first = start(bench, "first", account=account("large"))
    parked(bench, first)
    same = start(bench, "same", account=account("large"))
    other = start(bench, "other", account=account("small"))
    assert bench.wait(other).outcome == "succeeded"
    assert model.answered == ["other"]
    assert bench.look(same).started is None
    bench.cancel(first)
    bench.cancel(same)
    names = [account(None), account("large"), account("small"), account("large", "sk-ant-2")]
    assert len(set(names)) == len(names)


# As if a vendor gave each model of a key a limit, this one has none left of `other`.
ASK_BOTH = "ask('good', model='good'); time.sleep = print; ask('one', model={!r})"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "limited", "route"),
    [("other", "good", None), ("good-2", "good", None), ("good", "good", "elsewhere")],
)
def test_a_refusal_by_another_model_is_none_of_the_account(
    bench: Bench, model: LimitedModel, asked: str, limited: str, route: str | None
) -> None:
    """A program in the sandbox chooses the model of each request, and other runs would wait."""
    model.refuses_to, model.refusal = "one", lambda: after(3600)
    code = agent(ASK_BOTH.format(asked))
    options = {"limitedModel": limited, "limitedRoute": route}
    prompt = bench.start(code, "one", account=ACCOUNT, **options)
    assert bench.wait(prompt).outcome == "succeeded"
    assert "refused 429" in bench.said(prompt)
    assert limit(bench).resumes_at() is None


@pytest.mark.slow
@pytest.mark.parametrize(("limited", "route"), [("*oo*", "anthropic"), (None, None)])
def test_a_refusal_by_its_model_is_one_of_the_account(
    bench: Bench, model: LimitedModel, limited: str | None, route: str | None
) -> None:
    model.refuses_to, model.refusal = "one", lambda: after(3600)
    code = agent(ASK_BOTH.format("good"))
    options = {"limitedModel": limited, "limitedRoute": route}
    prompt = bench.start(code, "one", account=ACCOUNT, **options)
    parked(bench, prompt)
    bench.cancel(prompt)


OPENCODE_OWN = {"provider": {"p": {"models": {"large": {"id": "large-7"}}}}}


@pytest.mark.parametrize(
    ("agent", "named", "asked"),
    [
        (agent(), "small[1]", "small[[]1]"),
        (Claude(), "claude-opus-5[1m]", "claude-opus-5"),
        (Claude(), "sonnet", "*sonnet*"),
        (Claude(), "opus", "my-opus"),
        (Claude(), "opusplan", None),
        (Gemini(), "gemini-3-pro", "gemini-3-pro"),
        (Gemini(), "pro", None),
        (OpenCode(), "p/small/x", "small/x"),
        (OpenCode(), "p/large", "large-7"),
    ],
)
def test_requests_name_a_model_as_its_vendor_does(
    agent: Adapter, named: str, asked: str | None, tmp_path: Path
) -> None:
    own = {
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "my-opus",
        "OPENCODE_CONFIG_CONTENT": json.dumps(OPENCODE_OWN),
    }
    user = User(own, tmp_path)
    assert agent.asked_model(named, user) == asked
    key = AgentAccess((ModelRoute("m", "any", "http://m", "sk-key", "bearer", ""),))
    account = account_of(agent, key, user, b"", named)
    route = "p" if isinstance(agent, OpenCode) else None
    assert (account.limited_model, account.limited_route) == (asked, route)
    assert account_of(agent, key, user, b"", None)[1:] == (None, None)


def test_a_limit_of_a_login_is_one_for_all_models(tmp_path: Path) -> None:
    user, agent = User({}, tmp_path), Claude(command=("claude",))
    accesses = (
        AgentAccess(inside="login"),
        AgentAccess(files={agent.logins[0]: "{}"}),
        AgentAccess(inside="key"),  # nothing tells which
    )
    for access in accesses:
        names = {account_of(agent, access, user, b"", name) for name in (None, "opus", "haiku")}
        assert [account[1:] for account in names] == [(None, None)]


@pytest.mark.slow
def test_a_service_gives_runs_another_process(bench: Bench, model: LimitedModel) -> None:
    model.refuses, model.refusal = 1, lambda: after(3600)
    prompt = start(bench)
    parked(bench, prompt)
    with Service(bench.folder):
        kill(bench, prompt)
        come(bench)
        eventually(lambda: model.answered == ["one"])
    assert bench.wait(prompt).outcome == "succeeded"


# What an agent says itself, where no gateway sees the answers of its model

SESSION = "107dce9a-f250-4a65-b15e-8ec1ea297048"
INIT = {"type": "system", "subtype": "init", "session_id": SESSION, "model": "m", "cwd": "/code"}
DONE = {"type": "result", "subtype": "success", "is_error": False, "result": "Done."}


def claude(*lines: dict[str, Any], rest: str = "") -> Claude:
    """An agent that prints these lines as Claude Code does, and is done when it is resumed."""
    code = f"""
import json, sys, time
def say(lines):
    for line in lines: print(json.dumps(line), flush=True)
say([{INIT!r}])
if "--resume" in sys.argv:
    said = sys.stdin.read()
    ok = sys.argv[sys.argv.index("--resume") + 1] == {SESSION!r} and "continue" in said.lower()
    say([dict({DONE!r}, result="Resumed." if ok else repr((sys.argv, said)))])
else:
    say({list(lines)!r})
    {rest or "pass"}
"""
    return Claude(command=(PYTHON, "-I", "-c", code), extra_paths=(sys.base_prefix,))


def limit_event(seconds: int) -> dict[str, Any]:
    info = {"status": "rejected", "resetsAt": int(time.time()) + seconds}
    return {"type": "rate_limit_event", "rate_limit_info": info}


FAILED = {"type": "result", "subtype": "success", "is_error": True}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["event", "words"])
def test_the_same_session_continues_after_what_the_agent_said(bench: Bench, how: str) -> None:
    if how == "event":
        agent = claude(limit_event(3600), rest=f"time.sleep({NAP}8)")
    else:
        reset = int(time.time()) + 3600
        agent = claude({**FAILED, "result": f"Claude AI usage limit reached|{reset}"})
    prompt = bench.start(agent, account=ACCOUNT, network="host")
    parked(bench, prompt)
    assert bench.look(prompt).session == SESSION
    come(bench)
    kill(bench, prompt)  # it sleeps for a while
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "Resumed.")


@pytest.mark.slow
@pytest.mark.parametrize(("said", "believed"), [("20 minutes", 1200), ("39 days", 3600)])
def test_an_agent_may_know_the_time_of_a_refusal_without_one(
    bench: Bench, model: LimitedModel, said: str, believed: int
) -> None:
    """Any program in the sandbox can provoke one and say so, and other runs wait for it, too."""
    model.refuses, model.refusal = 1, lambda: (429, {}, {"error": {}})
    words = f"Usage limit reached. Try again in {said}."
    code = f"time.sleep = lambda _: sys.exit('{words}'); " + WORK
    prompt = bench.start(agent(code), "one", account=ACCOUNT)
    parked(bench, prompt)
    assert believed - 100 < (limit(bench).seconds_left() or 0) <= believed
    bench.cancel(prompt)


@pytest.mark.slow
def test_what_an_agent_says_is_not_believed_if_its_gateway_saw_no_refusal(
    bench: Bench, model: LimitedModel
) -> None:
    """A program in the sandbox could say it, and stop all runs of the account."""
    agent = claude(limit_event(3600), rest=f"time.sleep(1); say([{DONE!r}])")
    run = bench.run(agent, account=ACCOUNT)
    assert (run.outcome, run.answer) == ("succeeded", "Done.")
    reset = int(time.time()) + 3600
    agent = claude({**FAILED, "result": f"Claude AI usage limit reached|{reset}"})
    assert bench.run(agent, account=ACCOUNT).outcome == "failed"
    assert limit(bench).resumes_at() is None


@pytest.mark.slow
def test_an_agent_that_waits_itself_does_not_stall(bench: Bench) -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 10,
             "error_status": 500, "error": "api_error", "retry_delay_ms": 6000}  # fmt: skip
    agent = claude(retry, rest=f"time.sleep(5); say([{DONE!r}])")
    run = bench.run(agent, stall=2)
    assert (run.outcome, run.answer) == ("succeeded", "Done.")
    stalled = claude({**retry, "retry_delay_ms": 100}, rest=f"time.sleep({NAP}7)")
    run = bench.run(stalled, stall=2)
    assert run.outcome == "failed"
    assert "got no answer from its model" in str(run.answer)


# The account's time


def test_a_long_limit_is_tried_every_hour(tmp_path: Path) -> None:
    """It may have been lifted, or never have been: any program in the sandbox can provoke one."""
    account = AccountLimit(str(tmp_path), ACCOUNT)
    told = account.reach(30 * 86400.0)
    assert account.resumes_at() == told > (time.time() + 29 * 86400) * 1000
    assert 3500 < (account.seconds_left() or 0) <= 3600


def test_a_clock_that_is_set_changes_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = AccountLimit(str(tmp_path), ACCOUNT)
    account.reach(1000)
    for clock in (0.0, time.time() + 10**8):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        assert 990 < (account.seconds_left() or 0) <= 1000


def test_after_a_reboot_the_clock_of_the_wall_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, file = AccountLimit(str(tmp_path), ACCOUNT), tmp_path / "limits" / ACCOUNT
    account.reach(1000)
    now = time.time()
    file.write_text(f"{int((now + 300) * 1000)} 1000 another-boot 5")
    assert 290 < (account.seconds_left() or 0) <= 300
    file.write_text(f"{int((now + 300) * 1000)} 1000 another-boot 5")
    monkeypatch.setattr(time, "time", lambda: 0.0)  # without a battery, and not set yet
    assert 990 < (account.seconds_left() or 0) <= 1000
    monkeypatch.setattr(time, "time", lambda: now)  # set now: the wait does not begin once more
    assert 990 < (account.seconds_left() or 0) <= 1000
    file.write_text("torn")
    assert (account.seconds_left() or 1) < 0
