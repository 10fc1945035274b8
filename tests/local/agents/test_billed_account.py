"""Whose work a request to a model is: an organization and project, or the account of a login."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters.adapter import Adapter, User
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.agents.adapters.opencode import OpenCode
from rebyte_cli.local.agents.supervision.accounts import account_of
from tests.local.gateway.harness import GatewayAnswer, GatewayProcess
from tests.servers import RawServer, json_reply

from .test_user_settings import put

CODEX, OPENCODE = ".codex/config.toml", ".config/opencode/opencode.json"
ORGANIZATION, PROJECT = "org-of-the-work", "proj_of_the_work"
VARIABLES = {"OPENAI_API_KEY": "sk-real", "OPENAI_ORGANIZATION": ORGANIZATION}
OTHER = [("OpenAI-Organization", "org-evil"), ("OpenAI-Project", "proj-evil")]


def opencode(url: str, **options: object) -> str:
    options = {"baseURL": url, "apiKey": "sk-real", **options}
    return json.dumps({"provider": {"openai": {"options": options}}})


def ask(agent: Adapter, user: User, folder: Path, headers: list[tuple[str, str]]) -> GatewayAnswer:
    """The answer to a program in the sandbox that asks the agent's model with these headers."""
    model = agent.access(user).models[0]
    with GatewayProcess(folder, [model]) as gateway:
        target = f"{model.prefix}/responses"
        answer = gateway.ask(target, key=None, headers=[*bearer(model.placeholder), *headers])
    assert answer.status == 200
    return answer


def bearer(key: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key}")]


@pytest.mark.parametrize("kind", [Codex, OpenCode])
def test_work_is_billed_to_the_organization_and_project_of_the_user(
    kind: type[Adapter], user_home: Path, tmp_path: Path
) -> None:
    """The agent sends them itself outside a sandbox, and no program inside chooses others."""
    repeated = f"You work for {ORGANIZATION}."  # which is no secret
    with RawServer(json_reply({"text": repeated})) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        settings = opencode(url, organization="{env:MINE}", project=PROJECT, headers={"X-T": "1"})
        put(user_home, {CODEX: f'openai_base_url = "{url}"', OPENCODE: settings})
        variables = {**VARIABLES, "OPENAI_PROJECT": PROJECT, "MINE": ORGANIZATION}
        answer = ask(kind(), User(variables, user_home), tmp_path, OTHER)
    sent = server.requests[0].headers
    assert (sent["openai-organization"], sent["openai-project"]) == (ORGANIZATION, PROJECT)
    assert sent.get("x-t") == ("1" if kind is OpenCode else None)
    assert json.loads(answer.body) == {"text": repeated}


OWN = '[model_providers.own]\nbase_url = "http://own/v1"\n'
CLAUDE = {"npm": "@ai-sdk/anthropic", "options": {"organization": ORGANIZATION, "apiKey": "sk-a"}}


@pytest.mark.parametrize(
    ("kind", "files", "variables"),
    [
        (Codex, {}, {"OPENAI_ORGANIZATION": " "}),
        (Codex, {CODEX: f'model_provider = "own"\n{OWN}'}, {}),
        (Codex, {".codex/auth.json": '{"tokens": {"access_token": "t"}}'}, {}),
        (OpenCode, {OPENCODE: opencode("http://m", organization="")}, {}),
        (OpenCode, {OPENCODE: json.dumps({"provider": {"openai": CLAUDE}})}, {}),
    ],
)
def test_it_is_told_where_the_agent_tells_it_only(
    kind: type[Adapter], files: dict[str, str], variables: dict[str, str], user_home: Path
) -> None:
    put(user_home, files)
    model = kind().access(User({**VARIABLES, **variables}, user_home)).models[0]
    assert "OpenAI-Organization" not in model.headers


def test_two_organizations_are_two_accounts(user_home: Path) -> None:
    def account(**variables: str) -> str:
        user = User({**VARIABLES, **variables}, user_home)
        return account_of(Codex(), Codex().access(user), user, b"secret", None).name

    names = [account(), account(OPENAI_ORGANIZATION="org-2"), account(OPENAI_PROJECT=PROJECT)]
    assert len(set(names)) == len(names)
    assert account() == names[0]
    assert ORGANIZATION not in names[0]


@pytest.mark.parametrize("account", ["acct-private", None])
def test_a_login_of_chatgpt_is_used_for_its_own_account_only(
    account: str | None, user_home: Path, tmp_path: Path
) -> None:
    """A program in the sandbox could name another one. Without a name in the login, any passes."""
    tokens = {"access_token": "token-of-the-user", "account_id": account}
    with RawServer(json_reply({})) as server:
        own = f'[model_providers.own]\nbase_url = "http://127.0.0.1:{server.port}/v1"\n'
        settings = f'model_provider = "own"\n{own}requires_openai_auth = true\n'
        put(user_home, {CODEX: settings, ".codex/auth.json": json.dumps({"tokens": tokens})})
        ask(Codex(), User({}, user_home), tmp_path, [("ChatGPT-Account-ID", "acct-other")])
    sent = server.requests[0].headers
    assert sent["authorization"] == "Bearer token-of-the-user"
    assert sent["chatgpt-account-id"] == (account or "acct-other")
