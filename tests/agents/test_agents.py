"""Each agent through the command: runs, follow-ups, cancel, and the ways in which runs fail.

The prompts are instructions to the scripted model; see `scripted_model.py`.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

import pytest

from rebyte_cli.local.agents.adapters.built_in import SESSIONS

from ..conftest import COMMAND, Done
from ..terminals import Session
from .conftest import KEY, LIMIT, all_gone, configure, eventually, gateways, processes, write
from .install import AGENTS, HERE
from .scripted_model import Model

Run = Callable[..., Done]
PACKAGES = {
    "opencode": "opencode-ai",
    "codex": "@openai/codex",
    "claude": "@anthropic-ai/claude-code",
    "gemini": "@google/gemini-cli",
}


def test_agents_are_found_and_tested_versions(run: Run) -> None:
    pinned = json.loads((HERE / "package.json").read_text())["dependencies"]
    found = {each["name"]: each for each in run("local", "agents", "-o", "json").json["data"]}
    for agent in AGENTS:
        assert found[agent]["problem"] is None
        assert found[agent]["usable"] is True
        assert found[agent]["version"] == pinned[PACKAGES[agent]]
        assert found[agent]["tested"] is True


def test_run_patch_and_follow_up(run: Run, model: Model, agent: str, repository: Path) -> None:
    prompt = "The codeword is heron. [[write hello.txt Hello there]]"
    done = run("create", prompt, "-x", agent, "-g", ".", "--wait", "-o", "json")
    task = done.json["id"]
    assert done.json["status"] == "completed"
    assert done.json["executor"] == agent
    assert done.json["finalResult"] == "I wrote hello.txt."
    assert run("result", task).out == "I wrote hello.txt.\n"

    events = run("logs", task, "-o", "jsonl").documents
    kinds = [event["eventType"] for event in events]
    assert kinds[0] == "init"
    assert kinds[-1] == "result"
    assert kinds.index("tool_use") < kinds.index("tool_result") < kinds.index("text")
    assert "hello.txt" in json.dumps(payload(events, "tool_use")["input"])
    assert payload(events, "tool_use")["id"] == payload(events, "tool_result")["id"]
    assert payload(events, "result")["status"] == "succeeded"
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert len({event["timestamp"] for event in events}) > 1  # real times

    patch = run("diff", task).out
    assert "new file mode 100644\n" in patch
    assert "+++ b/hello.txt\n@@ -0,0 +1 @@\n+Hello there\n" in patch
    assert run("diff", task).out.count("diff --git") == 1  # and nothing of the agent's own
    run("apply", task, "--yes")
    assert (repository / "hello.txt").read_text() == "Hello there\n"

    again = run("follow-up", task, "What did I tell you? [[recall]]", "--wait", "-o", "json")
    assert again.json["status"] == "completed"
    assert run("result", task).out == "You told me heron.\n"
    prompts = [text for kind, text in model.turns[-1].said if kind == "user"]
    assert any(prompt in text for text in prompts)  # the agent's own session, not a summary


def refusal(agent: str, seconds: int) -> tuple[int, dict[str, Any], dict[str, str]]:
    """How the vendor of an agent refuses requests for so long."""
    if agent == "claude":
        name = "anthropic-ratelimit-unified"
        reset = str(int(time.time()) + seconds)
        error = {"type": "error", "error": {"type": "rate_limit_error", "message": "Limited"}}
        return 429, error, {f"{name}-status": "rejected", f"{name}-reset": reset}
    if agent == "codex":
        limit = {"type": "usage_limit_reached", "resets_in_seconds": seconds, "message": "Limited"}
        return 429, {"error": limit}, {}
    if agent == "gemini":
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
        status = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Limited"}
        return 429, {"error": {**status, "details": [retry]}}, {}
    return 429, {"error": {"message": "Limited"}}, {"Retry-After": str(seconds)}


MODELS = {
    "claude": "sonnet",
    "codex": "gpt-5.1-codex",
    "gemini": "gemini-2.5-flash",
    "opencode": "anthropic/claude-sonnet-4-5",
}


def test_a_usage_limit_is_waited_for(run: Run, model: Model, agent: str) -> None:
    """That of the model that the run names, which is known by the request for it."""
    times = []

    def refuse() -> tuple[int, dict[str, Any], dict[str, str]] | None:
        times.append(time.monotonic())
        return refusal(agent, 12) if times[-1] < times[0] + 12 else None

    model.refusal = refuse
    prompt = "The codeword is heron. [[write hello.txt Hello there]]"
    named = ("-x", agent, "-m", MODELS[agent], "-g", ".")
    task = run("create", prompt, *named, "-o", "json").json["id"]
    eventually(lambda: "resumesAt" in run("get", task).json)
    assert len(times) <= 3  # within the second that it has to save its session
    done = run("wait", task, "-o", "json")
    assert (done.json["status"], done.json["finalResult"]) == ("completed", "I wrote hello.txt.")
    events = run("logs", task, "-o", "jsonl").documents
    assert [event["eventType"] for event in events].count("limited") == 1
    sessions = [e["payload"]["session_id"] for e in events if e["eventType"] == "init"]
    assert len(set(sessions)) == 1, sessions  # the same session continues
    assert run("diff", task).out.count("+Hello there\n") == 1
    again = run("follow-up", task, "What did I tell you? [[recall]]", "--wait", "-o", "json")
    assert again.json["finalResult"] == "You told me heron."


def test_a_follow_up_asks_the_model_of_the_task(run: Run, model: Model, agent: str) -> None:
    words = ("create", "hello", "-x", agent, "-m", MODELS[agent], "--wait", "-o", "id")
    task = run(*words).out.strip()
    first = {turn.model for turn in model.turns if turn.tools}
    model.turns.clear()
    run("follow-up", task, "hello again", "--wait")
    assert {turn.model for turn in model.turns if turn.tools} == first
    assert len(first) == 1


def test_a_session_that_is_lost_is_begun_again(run: Run, agent: str, home: Path) -> None:
    """Before its model is asked: that is why the prompt is sent once more."""
    task = run("create", "hello", "-x", agent, "--wait", "-o", "id").out.strip()
    lost = [path for name in SESSIONS for path in home.rglob(f"workspaces/*/home/{name}")]
    assert lost
    for path in lost:
        path.unlink()
    done = run("follow-up", task, "[[write hello.txt Hello]]", "--wait", "-o", "json")
    assert done.json["finalResult"] == "I wrote hello.txt."
    events = run("logs", task, "-o", "jsonl").documents
    sessions = [e["payload"]["session_id"] for e in events if e["eventType"] == "init"]
    assert len(set(sessions)) == 2


def test_a_follow_up_after_another_agent_in_the_workspace(run: Run, agent: str) -> None:
    words = ("The codeword is egret.", "-x", agent, "-g", ".", "--wait", "-o", "json")
    first = run("create", *words).json
    other = AGENTS[AGENTS.index(agent) - 1]
    run("create", "hello", "-x", other, "-w", first["workspaceId"], "--wait")
    run("follow-up", first["id"], "Which word? [[recall]]", "--wait")
    assert run("result", first["id"]).out == "You told me egret.\n"


def test_each_run_counts_what_it_used_itself(run: Run, agent: str) -> None:
    """Codex's tokens and Claude Code's cost are totals of the session."""
    task = run("create", "hello", "-x", agent, "--wait", "-o", "id").out.strip()
    for _ in range(3):
        run("follow-up", task, "hello", "--wait")
    events = run("logs", task, "-o", "jsonl").documents
    ends = [event["payload"] for event in events if event["eventType"] == "result"]
    used = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 5, "reasoning_tokens": 2}
    if agent == "claude":
        del used["reasoning_tokens"]  # its API does not count them apart
        assert len({end["cost_usd"] for end in ends}) == 1
    assert [end["usage"] for end in ends] == [used] * 4


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("/compact the list in ['a', \"b\"]", id="slash"),
        pytest.param("Mail a@README.md, read @README.md and @/etc/hostname", id="at"),
        pytest.param("€ and more " * 9_090 + "the end...", id="100,000 characters"),
    ],
)
def test_prompt_arrives_as_typed(run: Run, model: Model, agent: str, prompt: str) -> None:
    done = run("create", prompt, "-x", agent, "-g", ".", "--wait", "-o", "json")
    assert done.json["finalResult"] == "Nothing to do."
    said = [text for turn in model.turns for kind, text in turn.said if kind == "user"]
    assert any(text.endswith(prompt) for text in said)
    assert not any("A project." in text for text in said)  # what README.md holds


def test_a_tool_of_the_home(run: Run, agent: str, home: Path) -> None:
    tool = home / ".local/bin/mytool"
    write(tool, "#!/bin/sh\necho made > /code/made.txt\n")
    tool.chmod(0o755)
    task = run("create", "[[shell mytool]]", "-x", agent, "--wait", "-o", "id").out.strip()
    hint = "Not found in the sandbox: mytool. "
    assert run("logs", task).out.count(hint) == 1
    configure(home, tools=["~/.local/bin"])
    run("follow-up", task, "[[shell mytool]]", "--wait")
    assert "+made" in run("diff", task).out
    assert run("logs", task).out.count(hint) == 1


def test_cancel_in_a_tool_call(run: Run, agent: str, state: str) -> None:
    prompt = "The codeword is stork. [[shell touch started; sleep 4321]]"
    task = run("create", prompt, "-x", agent, "-g", ".", "-o", "id").out.strip()
    code = Path(run("workspace", "path", task, "--running").out.strip())
    eventually(lambda: list(code.rglob("started")) != [])
    eventually(lambda: any("sleep 4321" in line for line in processes(state)))

    run("cancel", task)
    assert run("get", task, "-o", "json").json["status"] == "canceled"
    all_gone(state)
    run("wait", task, status=11)

    run("follow-up", task, "Still there? [[recall]]", "--wait")
    assert run("result", task).out == "You told me stork.\n"


def test_rejected_key(run: Run, model: Model, agent: str) -> None:
    done = run("create", "[[401]]", "-x", agent, "--wait", "-o", "json", status=10)
    assert done.json["status"] == "failed"
    assert model.turns[-1].directive == "401"
    last = run("logs", done.json["id"], "-o", "jsonl").documents[-1]
    assert last["eventType"] == "result"
    assert last["payload"]["status"] == "failed"
    assert "401" in last["payload"]["result"]
    assert KEY not in json.dumps(done.json)


# Counts the files with the key among all that a command of the agent can read. It has to be quick:
# an agent gives a command a few seconds.
LOOK = (
    "grep -rals 'sk-key-of-the-[u]ser' /proc/[0-9]*/environ /proc/[0-9]*/cmdline ~ /tmp /code /run"
    " | wc -l > found; env > env"
)


def test_the_key_stays_outside(run: Run, model: Model, agent: str) -> None:
    task = run("create", f"[[shell {LOOK}]]", "-x", agent, "--wait", "-o", "id").out.strip()
    code = Path(run("workspace", "path", task).out.strip())
    assert (code / "found").read_text() == "0\n"
    variables = (code / "env").read_text()
    assert "HTTPS_PROXY=http://127.0.0.1:29170\n" in variables
    assert model.url not in variables
    sent = [credential(headers) for headers in model.headers]
    assert sent
    assert set(sent) == {KEY}
    rows = run("logs", task, "--network", "-o", "json").json["data"]
    passed = [row for row in rows if row["refused"] is None and row["status"] == 200]
    assert len(passed) >= 2
    assert {row["host"] for row in passed} == {"127.0.0.1"}


def credential(headers: dict[str, str]) -> str:
    """The only credential of a request."""
    names = ("authorization", "x-api-key", "x-goog-api-key")
    (found,) = (headers[name] for name in names if name in headers)
    return found.removeprefix("Bearer ")


@pytest.fixture
def logins(model: Model, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a subscription: Claude's by its token, ChatGPT's with the account beside it."""
    del model  # which writes the settings that are changed here
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    login = {"accessToken": f"claude-{KEY}", "refreshToken": KEY, "scopes": ["user:inference"]}
    login |= {"expiresAt": int(time.time() + 9999) * 1000, "subscriptionType": "max"}
    write(home / ".claude/.credentials.json", json.dumps({"claudeAiOauth": login}))
    identity = {"https://api.openai.com/auth": {"chatgpt_plan_type": "plus"}, "email": "a@b.c"}
    claims = base64.urlsafe_b64encode(json.dumps(identity).encode()).decode().rstrip("=")
    tokens = {"access_token": f"codex-{KEY}", "refresh_token": KEY, "account_id": "my-account"}
    tokens["id_token"] = f"eyJhbGciOiJSUzI1NiJ9.{claims}.{KEY}"
    file = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens}
    write(home / ".codex/auth.json", json.dumps(file | {"last_refresh": "2026-01-01T00:00:00Z"}))
    settings = (home / ".codex/config.toml").read_text()
    write(
        home / ".codex/config.toml",
        settings.replace('env_key = "SCRIPTED_KEY"', "requires_openai_auth = true"),
    )


@pytest.mark.usefixtures("logins")
def test_a_login_stays_outside(run: Run, model: Model) -> None:
    for agent in ("claude", "codex"):
        done = run("create", f"[[shell {LOOK}]]", "-x", agent, "--wait", "-o", "json").json
        code = Path(run("workspace", "path", done["id"]).out.strip())
        assert (code / "found").read_text() == "0\n", agent
        assert credential(model.headers[-1]) == f"{agent}-{KEY}"
    assert model.headers[-1]["chatgpt-account-id"] == "my-account"
    rows = {row["name"]: row for row in run("local", "agents", "-o", "json").json["data"]}
    assert {rows[name]["credential"] for name in ("claude", "codex")} == {"outside"}


@pytest.mark.usefixtures("logins")
@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_login_that_expires_meanwhile_ends_the_run(run: Run, name: str) -> None:
    done = run("create", "[[401]]", "-x", name, "--wait", "-o", "json", status=10)
    says = f"{name} was stopped: the model refused the login of {name} (401): if it has"
    assert done.json["finalResult"].startswith(says)


def test_silent_server(run: Run, model: Model, home: Path, state: str) -> None:
    configure(home, stall="20s")
    tasks = [run("create", "[[silent]]", "-x", agent, "-o", "id").out.strip() for agent in AGENTS]
    run("wait", *tasks, status=10)
    all_gone(state)
    for task in tasks:
        done = run("get", task, "-o", "json").json
        assert done["status"] == "failed"
        assert "20" in done["finalResult"]
    assert len({turn.model for turn in model.turns if turn.directive == "silent"}) >= 1


def test_a_gateway_that_is_killed_within_an_answer_ends_the_run(
    run: Run, model: Model, agent: str, state: str
) -> None:
    """Otherwise each agent would ask again, some for ever."""
    task = run("create", "[[silent]]", "-x", agent, "-o", "id").out.strip()
    eventually(lambda: any(turn.directive == "silent" for turn in model.turns))
    (gateway,) = gateways(state)
    os.kill(gateway, signal.SIGKILL)
    run("wait", task, status=10)
    reason = run("get", task, "-o", "json").json["finalResult"]
    says = f"{agent} was stopped: the gateway to the network was killed by signal 9"
    assert reason.partition("\n")[0] == says
    all_gone(state)


def test_retries_are_shown_and_the_last_one_is_the_reason(run: Run, home: Path, state: str) -> None:
    configure(home, stall="45s")
    agents = {"claude": "529", "gemini": "429", "opencode": "429", "codex": "500"}
    tasks = {
        agent: run("create", f"[[{status}]]", "-x", agent, "-o", "id").out.strip()
        for agent, status in agents.items()
    }
    run("wait", *tasks.values(), status=10)
    all_gone(state)
    for agent, task in tasks.items():
        assert "\n* retry 2: " in run("logs", task).out, agent
        reason = run("get", task, "-o", "json").json["finalResult"]
        assert ("high demand" if agent == "codex" else agents[agent]) in reason


def test_a_stream_that_breaks_again_and_again_is_ended(run: Run) -> None:
    done = run("create", "[[cut]]", "-x", "opencode", "--wait", "-o", "json", status=10)
    assert "broke off 5 times in a row" in done.json["finalResult"]


def test_batch_with_a_line_per_agent(run: Run) -> None:
    lines = [
        {"key": agent, "executor": agent, "prompt": f"[[write {agent}.txt By {agent}]]"}
        for agent in AGENTS
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = run("batch", "-", "--journal", "batch.journal", "-g", ".", "--wait", stdin=text)
    results = {each["key"]: each for each in done.documents}
    assert set(results) == set(AGENTS)
    for agent, result in results.items():
        assert result["status"] == "completed"
        assert f"+By {agent}\n" in run("diff", result["id"]).out


def test_first_success_of_two(run: Run) -> None:
    failing = run("create", "[[401]]", "-x", "gemini", "-o", "id").out.strip()
    writing = run("create", "[[write a.txt A]]", "-x", "codex", "-o", "id").out.strip()
    assert run("wait", failing, writing, "--first-success", "-o", "id").out == f"{writing}\n"


def test_page_of_a_run(run: Run, pages: str) -> None:
    prompt = "[[write page.txt <b>On a page</b>]]"
    task = run("create", prompt, "-x", "claude", "-g", ".", "--wait", "-o", "id").out.strip()
    origin = pages.partition("/?")[0]
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{origin}/run/{task}")
    browser = build_opener(HTTPCookieProcessor())
    assert f'href="/run/{task}"' in browser.open(pages).read().decode()
    html = browser.open(f"{origin}/run/{task}").read().decode()
    assert "<b>Write</b> <code>/code/page.txt</code>" in html
    assert "I wrote page.txt." in html
    assert "<ins>+&lt;b&gt;On a page&lt;/b&gt;\n</ins>" in html


def payload(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The payload of the first event of this kind."""
    found: dict[str, Any] = next(e["payload"] for e in events if e["eventType"] == kind)
    return found


def test_the_agent_finds_the_server_that_mcp_install_added(
    run: Run, agent: str, repository: Path
) -> None:
    run("mcp", "--install", agent)
    listed = subprocess.run(
        [agent, "mcp", "list"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "rebyte_cli mcp -P local" in listed.stdout + listed.stderr


CTRL_U = "\x15"
QUIT = {"codex": "/quit", "gemini": "/quit", "claude": "/exit", "opencode": "/exit"}


def test_attach(run: Run, agent: str) -> None:
    """The agent's own screen shows the turn before, and what is done there counts."""
    prompt = "The codeword is heron. [[write hello.txt Hello there]]"
    run("create", prompt, "-x", agent, "-g", ".", "--wait")
    session = Session(
        [*COMMAND, "-P", "local", "attach", "@last"], columns=100, rows=40, answers=True
    )
    try:
        session.until(lambda lines: is_resumed("\n".join(lines)), LIMIT)
        type_in(session, "[[write two.txt More]]")
        session.until(lambda lines: any("I wrote two.txt." in line for line in lines), LIMIT)
        type_in(session, QUIT[agent])
        assert session.finish(LIMIT) == 0
    except BaseException:
        session.kill()
        raise
    assert run("get", "@last", "-o", "json").json["finalResult"] == "I wrote hello.txt."
    assert "+++ b/two.txt\n" in run("diff", "@last", "--run").out
    rows = run("logs", "@last", "--network", "-o", "json").json["data"]
    if agent not in ("codex", "opencode"):  # no setting of theirs ends all of it
        assert {row["host"] for row in rows} == {"127.0.0.1"}
    run("follow-up", "@last", "Which word? [[recall]]", "--wait")
    assert run("result", "@last").out == "You told me heron.\n"


def is_resumed(screen: str) -> bool:
    """Whether the turn before is there, and the session takes input."""
    return "I wrote hello.txt." in screen and "Resuming" not in screen


def type_in(session: Session, text: str) -> None:
    """Type a line once the screen takes it, as a person does: the text, a pause, Enter.

    A screen is drawn before the program reads its keyboard: what does not appear is typed again,
    after Ctrl-U, which empties a line that appeared late.
    """

    def is_shown() -> bool:
        return any(text in line for line in session.lines)

    end = time.monotonic() + LIMIT
    while not is_shown():
        assert time.monotonic() < end, session.lines
        session.child.send(f"{CTRL_U}{text}")
        again = time.monotonic() + 15
        while not is_shown() and time.monotonic() < again:
            assert session.read(), f"ended: {session.lines}"
    session.read(1)
    session.child.send("\r")
