"""A login whose token expires while a run works: renewed outside by its own program, or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters.adapter import Adapter, User
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.gateway.gateway_settings import read_key
from tests.servers import RawServer, Request, error_reply, json_reply

from .bench import PYTHON, Bench

FIRST, SECOND = "token-of-the-first-hour", "token-of-the-second-hour"
# An agent that asks its model, waits for the file `go` in its folder, and asks until it may not.
ASK = """
import json, os, sys, time, urllib.request, urllib.error
base, path, kept = sys.argv[1:4]
def ask():
    key = json.load(open(os.path.expanduser(kept)))
    key = key["claudeAiOauth"]["accessToken"] if "claude" in kept else key["tokens"]["access_token"]
    headers = {"Authorization": "Bearer " + key}
    try:
        urllib.request.urlopen(urllib.request.Request(base + path, b"{}", headers)).read()
    except urllib.error.HTTPError as error:
        print(error.read().decode(), flush=True)
        return False
    return True
ask()
print("asked", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
if ask():
    print(json.dumps({"type": "result", "subtype": "success", "result": "Done"}))
else:
    time.sleep(60)
"""
LOGINS = {
    "claude": (".claude/.credentials.json", "/v1/messages"),
    "codex": (".codex/auth.json", "/responses"),
}


class Account:
    """The user's login of an agent, and the model that takes one token of it at a time."""

    def __init__(self, name: str, home: Path, server: RawServer) -> None:
        self.file = home / LOGINS[name][0]
        self.server = server
        self._is_claude = name == "claude"

    def renew(self, token: str) -> None:
        """What the agent's own program outside does."""
        claude = {"claudeAiOauth": {"accessToken": token, "refreshToken": "r", "scopes": []}}
        codex = {"tokens": {"access_token": token, "refresh_token": "r", "id_token": "a.b.c"}}
        self.file.parent.mkdir(exist_ok=True)
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(claude if self._is_claude else codex))
        beside.replace(self.file)


class Tokens:
    """Which token the model takes."""

    def __init__(self) -> None:
        self.valid = FIRST

    def answer(self, request: Request) -> bytes:
        """An error for any other token."""
        if request.headers["authorization"] == f"Bearer {self.valid}":
            return json_reply({})
        return error_reply(401, "authentication_error", "OAuth token has expired")


@pytest.fixture(params=list(LOGINS))
def name(request: pytest.FixtureRequest) -> str:
    """Each agent whose login the gateway has."""
    found: str = request.param
    return found


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def account(
    name: str, user_home: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    with RawServer(tokens.answer) as server:
        url = f"http://127.0.0.1:{server.port}"
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        (user_home / ".codex").mkdir()
        (user_home / ".codex/config.toml").write_text(
            f'model_provider = "mine"\n[model_providers.mine]\nbase_url = "{url}"\n'
            "requires_openai_auth = true\n"
        )
        found = Account(name, user_home, server)
        found.renew(FIRST)
        yield found


def agent(name: str) -> Adapter:
    """The agent's adapter, with the script in place of its program."""
    kept, path = LOGINS[name]
    base = "http://127.0.0.1:29170/" + ("anthropic" if name == "claude" else "chatgpt")
    kind = Claude if name == "claude" else Codex
    return kind(
        command=(PYTHON, "-I", "-c", ASK, base, path, f"~/{kept}"),
        extra_paths=(os.path.dirname(os.path.dirname(PYTHON)),),
    )


def begun(bench: Bench, name: str) -> str:
    prompt = bench.start(agent(name))
    bench.until_started(prompt)
    return prompt


@pytest.mark.slow
def test_a_run_uses_the_token_that_was_renewed_outside(
    bench: Bench, name: str, account: Account, tokens: Tokens
) -> None:
    prompt = begun(bench, name)
    tokens.valid = SECOND
    account.renew(SECOND)
    (bench.workspace().code / "go").touch()
    run = bench.wait(prompt)
    sent = [request.headers["authorization"] for request in account.server.requests]
    assert sent == [f"Bearer {FIRST}", f"Bearer {SECOND}"]
    if name == "claude":
        assert (run.outcome, run.answer) == ("succeeded", "Done")


@pytest.mark.slow
def test_a_run_whose_login_is_refused_says_how_to_renew_it(
    bench: Bench, name: str, account: Account, tokens: Tokens
) -> None:
    """It need not be too old: a program in the sandbox can ask for what no login is for."""
    prompt = begun(bench, name)
    tokens.valid = SECOND
    (bench.workspace().code / "go").touch()
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    words = {
        "claude": ("claude -p hello", "claude /login"),
        "codex": ("codex exec hello", "codex login"),
    }
    renew, again = words[name]
    assert run.answer == (
        f"{name} was stopped: the model refused the login of {name} (401): if it has expired,"
        f" `{renew}` renews it, or log in again (`{again}`)"
    )


def test_the_key_is_where_the_program_outside_renews_it(
    name: str, account: Account, user_home: Path
) -> None:
    kind = Claude if name == "claude" else Codex
    (model,) = kind().access(User({}, user_home)).models
    assert model.login is not None
    assert model.key == read_key(model.login) == FIRST
