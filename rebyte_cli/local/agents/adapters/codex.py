"""Codex CLI (`codex exec`)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....system.untrusted import read_settings, read_toml
from ...gateway.gateway_settings import BEARER, OPENAI, LoginFile, ModelRoute
from ...gateway.model_usage import token_counts
from ..exposed import Mount
from .adapter import Adapter, Invocation, Outcome, Parser, User, joined, readable
from .model_access import VENDORS, AgentAccess, check_expiry, placeholder
from .user_config import only, read_json, strings

# Settings of ~/.codex/config.toml that decide which model answers. The rest (hooks, MCP servers,
# sandbox) is not for a jail.
RECONNECTING = re.compile(r"Reconnecting\.\.\. (\d+)/\d+(?: \((.*)\))?", re.DOTALL)
KEPT_SETTINGS = ("model", "model_provider", "model_providers", "model_reasoning_effort")
LOGIN = ".codex/auth.json"
# The provider that stands for the gateway, and the variable with the placeholder.
PROVIDER, KEY_VARIABLE = "rebyte", "CODEX_API_KEY"
# What codex tells OpenAI with an API key, and the variables that it has it from.
BILLED = {"OpenAI-Organization": "OPENAI_ORGANIZATION", "OpenAI-Project": "OPENAI_PROJECT"}
# Of a provider, what codex has to know where the gateway does the rest. It may have commands, too.
PLAIN = (
    "name", "request_max_retries", "stream_idle_timeout_ms", "stream_max_retries", "wire_api",
)  # fmt: skip
# And what it has to have itself without a gateway.
CREDENTIAL = (
    "base_url", "env_http_headers", "env_key", "env_key_instructions",
    "experimental_bearer_token", "http_headers", "query_params", "requires_openai_auth",
)  # fmt: skip
CHATGPT, CHATGPT_NAME = "https://chatgpt.com/backend-api/codex", "chatgpt"
NEVER = "2100-01-01T00:00:00Z"  # the last refresh of a login that needs none
QUIET = """\
check_for_update_on_startup = false
[analytics]
enabled = false
[feedback]
enabled = false
"""


class Codex(Adapter):
    """`codex exec --json`; a session is announced as `thread_id` and resumed by it."""

    name = "codex"
    install = "npm install -g @openai/codex"
    tested = ("0.169.0", "0.169.0")
    log_in = "run `codex login`, or set CODEX_API_KEY"
    variables = tuple(BILLED.values())
    key_variables = ("OPENAI_API_KEY", "CODEX_API_KEY", "AZURE_OPENAI_API_KEY")
    private_variables = ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT")
    logins = (LOGIN,)

    finds_skills = (".agents/skills",)
    sessions = (".codex/sessions/*/*/*/rollout-*.jsonl",)
    no_session = r"no rollout found|thread .*not found"
    hidden = (".codex",)  # on its own screen, the folder is trusted

    def arguments(self, invocation: Invocation) -> list[str]:
        resume = ["resume"] if invocation.session else []
        return ["exec", *resume, "--json", "--skip-git-repo-check", *_rest(invocation), "-"]

    def screen(self, invocation: Invocation) -> list[str]:
        # Otherwise the session, which another run can change, says where.
        return ["resume", "--no-daemon", "-C", ".", *_rest(invocation)]

    def screen_files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        ((name, text),) = self.files(user, code, access).items()
        return {name: f'{text}[projects.{json.dumps(code.inside)}]\ntrust_level = "trusted"\n'}

    def memory(self, user_home: Path) -> Sequence[str]:
        return (".codex/AGENTS.md", ".codex/AGENTS.override.md")

    def access(self, user: User) -> AgentAccess:
        settings = _settings(user.home)
        name = settings.get("model_provider", OPENAI)
        providers = settings.get("model_providers")
        provider = providers.get(name) if isinstance(providers, dict) else None
        if isinstance(provider, dict) and isinstance(provider.get("base_url"), str):
            return _own_provider(provider, user)
        key, login = _credential(user)
        root = CHATGPT if login else settings.get("openai_base_url") or VENDORS[OPENAI].root
        is_billed = name == OPENAI and not login
        given = {
            header: user.variables.get(source, "").strip() for header, source in BILLED.items()
        }
        headers = {header: value for header, value in given.items() if value and is_billed}
        return _behind_gateway(user, str(root), key, login, headers)

    def login_for_jail(self, text: str, access: AgentAccess) -> str:
        login = json.loads(text)
        shown = only(login, ("auth_mode", "OPENAI_API_KEY", "last_refresh"))
        return json.dumps({**shown, "tokens": {**_tokens(login), "refresh_token": ""}})

    def files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        settings = _settings(user.home)
        own = settings.pop("model_providers", None)
        if isinstance(own, dict) and access.inside == "key":
            kept = {name: only(given, PLAIN + CREDENTIAL) for name, given in own.items()}
            settings["model_providers"] = kept
        for model in access.models:
            provider = _plain_provider(settings, own, is_login=model.name == CHATGPT_NAME)
            settings["model_provider"] = PROVIDER
            settings["model_providers"] = {PROVIDER: {**provider, "base_url": model.url}}
        kept = {name: value for name, value in settings.items() if name in KEPT_SETTINGS}
        tables = {name: value for name, value in kept.items() if isinstance(value, dict)}
        plain = {name: value for name, value in kept.items() if name not in tables}
        lines = [f"{name} = {_toml(value)}" for name, value in plain.items()]
        text = "\n".join([*lines, QUIET])
        for name, providers in tables.items():
            for key, provider in providers.items():
                text += f"[{name}.{json.dumps(key)}]\n"
                text += "".join(f"{json.dumps(k)} = {_toml(v)}\n" for k, v in provider.items())
        return {".codex/config.toml": text}

    def keys_named_by(self, user_home: Path) -> Iterator[str]:
        """Names of variables that hold the keys of the user's own model providers."""
        providers = _settings(user_home).get("model_providers")
        for provider in providers.values() if isinstance(providers, dict) else ():
            if isinstance(provider, dict):
                if isinstance(provider.get("env_key"), str):
                    yield provider["env_key"]
                yield from strings(provider.get("env_http_headers")).values()

    def found_login(self, user: User) -> str | None:
        found = super().found_login(user)
        # A provider of the user's own, such as a model on this machine, may need no key.
        own = "model_provider" in _settings(user.home) and "~/.codex/config.toml"
        return found or own or None

    def parser(self) -> CodexParser:
        return CodexParser(self.name)


class CodexParser(Parser):
    """Lines of `--json`. The end is `turn.completed` or `turn.failed`.

    An item of type `error` may be a mere warning, and an `error` line may be a retry.
    """

    of_session = frozenset(
        ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    )

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self._answer = ""
        self._end = ""

    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        kind = document["type"]
        if kind == "thread.started":
            self.session = document["thread_id"]
            yield "init", {"session_id": self.session}
        elif kind in ("item.started", "item.completed"):
            yield from self._item(document["item"], done=kind == "item.completed")
        elif kind == "error":
            message = str(document["message"])
            if again := RECONNECTING.fullmatch(message):
                yield self.retry(again[1], readable(again[2] or "the connection broke"))
            else:
                self.error = message
        elif kind == "turn.failed":
            self._end, self.error = "failed", str(document["error"]["message"])
        elif kind == "turn.completed":
            self._end = "completed"
            self.usage = token_counts(
                document["usage"],
                input_tokens=["input_tokens"],
                cached_input_tokens=["cached_input_tokens"],
                output_tokens=["output_tokens"],
                reasoning_tokens=["reasoning_output_tokens"],
            )

    def finish(self, status: int, stderr: str) -> Outcome:
        if self._end == "completed":
            return self.success(self._answer, status, stderr)
        if self._end == "failed":
            return self.failure(self.error)
        return self.unfinished(status, stderr)

    def _item(self, item: dict[str, Any], *, done: bool) -> Iterable[tuple[str, dict[str, Any]]]:
        kind, call = item["type"], item["id"]
        if kind == "agent_message" and done:
            self._answer = joined(item["text"])
            yield "text", {"content": self._answer}
        elif kind == "reasoning" and done:
            yield "thinking", {"content": item["text"]}
        elif kind == "command_execution":
            if not done:
                yield "tool_use", {"id": call, "name": "shell", "input": only(item, ("command",))}
            else:
                payload = {"id": call, "output": item.get("aggregated_output") or ""}
                if item.get("exit_code") is not None:
                    payload["exit_code"] = item["exit_code"]
                yield "tool_result", payload | _failure(item)
        elif kind in ("file_change", "mcp_tool_call", "web_search"):
            name = f"{item['server']}.{item['tool']}" if kind == "mcp_tool_call" else kind
            given = only(item, ("changes", "arguments", "query"))
            # Some of these come only when they are done: then the call is told with its result.
            if not done or kind != "mcp_tool_call":
                yield "tool_use", {"id": call, "name": name, "input": given}
            if done:
                output = item.get("result") or item.get("error") or item.get("status") or ""
                yield "tool_result", {"id": call, "output": output} | _failure(item)


def _credential(user: User) -> tuple[str, dict[str, Any]]:
    """The key, and, where that is the access token of a ChatGPT login, the file that has it."""
    login = read_json(user.home / LOGIN)
    tokens, key = login.get("tokens"), user.variables.get("CODEX_API_KEY", "")
    if not key and isinstance(tokens, dict) and tokens.get("access_token"):
        token = str(tokens["access_token"])
        expiry = _claims(token).get("exp")
        milliseconds = expiry * 1000 if isinstance(expiry, int) else None
        check_expiry(_login_file(user), milliseconds)
        return token, login
    own = login.get("OPENAI_API_KEY") or user.variables.get("OPENAI_API_KEY", "")
    return key or str(own), {}


def _login_file(user: User) -> LoginFile:
    renewal = "`codex exec hello` renews it, or log in again (`codex login`)"
    return LoginFile(str(user.home / LOGIN), ("tokens", "access_token"), Codex.name, renewal)


def _tokens(login: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens of a ChatGPT login that codex knows, and no others."""
    names = ("access_token", "account_id", "id_token", "refresh_token")
    return only(login["tokens"], names)


def _claims(token: str) -> dict[str, Any]:
    """What a JWT says; nothing for other tokens."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        return read_settings(base64.urlsafe_b64decode(padded).decode())
    except ValueError:
        return {}


def _behind_gateway(
    user: User,
    base_url: str,
    key: str,
    login: dict[str, Any],
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> AgentAccess:
    """The access with a key, or with the access token in `login`, if it is one."""
    name, stand_in = (CHATGPT_NAME if login else OPENAI), placeholder(VENDORS[OPENAI].key_start)
    account = login["tokens"].get("account_id") if login else None
    # Otherwise a program in the jail could name another account that the token is good for.
    sent = {"ChatGPT-Account-ID": account} if account and isinstance(account, str) else {}
    sent |= headers or {}
    model = ModelRoute(
        name, OPENAI, base_url, key, BEARER, stand_in, sent, dict(query or {}),
        _login_file(user) if login else None,
    )  # fmt: skip
    if not login:
        return AgentAccess((model,), {KEY_VARIABLE: stand_in})
    tokens = login["tokens"]
    # Who the user is, without the signature by which a service would know the token.
    identity = str(tokens.get("id_token", "")).rpartition(".")[0]
    shown = {
        **_tokens(login),
        "access_token": stand_in,
        "refresh_token": "",
        "id_token": f"{identity}.x",
    }
    file = {
        **only(login, ("auth_mode",)),
        "OPENAI_API_KEY": None,
        "tokens": shown,
        "last_refresh": NEVER,
    }
    return AgentAccess(
        (model,), withheld=frozenset((KEY_VARIABLE,)), files={LOGIN: json.dumps(file)}
    )


def _own_provider(provider: Mapping[str, Any], user: User) -> AgentAccess:
    """The access to a provider of the user's own (`[model_providers.NAME]`)."""
    outside = user.variables
    key = outside.get(str(provider.get("env_key", "")))
    key, login = key or str(provider.get("experimental_bearer_token", "")), dict[str, Any]()
    if provider.get("requires_openai_auth"):
        key, login = _credential(user)
    headers, from_variables = (
        strings(provider.get(name)) for name in ("http_headers", "env_http_headers")
    )
    headers |= {
        name: outside[source] for name, source in from_variables.items() if source in outside
    }
    query = strings(provider.get("query_params"))
    return _behind_gateway(user, str(provider["base_url"]), key, login, headers, query)


def _plain_provider(settings: Mapping[str, Any], own: object, *, is_login: bool) -> dict[str, Any]:
    """What codex has to know of the provider that the gateway stands for, if it is an `own` one."""
    name = settings.get("model_provider", OPENAI)
    found = only(own.get(name), PLAIN) if isinstance(own, dict) else {}
    kept = {key: value for key, value in found.items() if isinstance(value, str | int)}
    # By this name it knows what OpenAI's own API can do.
    default = {"name": "OpenAI", "wire_api": "responses", "supports_websockets": False}
    login = {"requires_openai_auth": True} if is_login else {"env_key": KEY_VARIABLE}
    return {**default, **kept, **login}


def _rest(invocation: Invocation) -> list[str]:
    # codex's own sandbox needs namespaces, which the jail does not give. Apps of a ChatGPT account
    # are on a host that is not the model's. A skill of the repository may name MCP servers, which
    # codex can add to its settings when a prompt says the skill's name.
    off = ("plugins", "apps", "skill_mcp_dependency_install")
    words = [word for name in off for word in ("-c", f"features.{name}=false")]
    words.append("--dangerously-bypass-approvals-and-sandbox")
    words += ["-m", invocation.model] if invocation.model else []
    return [*words, invocation.session] if invocation.session else words


def _failure(item: dict[str, Any]) -> dict[str, Any]:
    """What marks the result of a tool that failed, or was not allowed to run."""
    failed = item.get("status") in ("failed", "declined") or item.get("exit_code")
    return {"is_error": True} if failed else {}


def _settings(user_home: Path) -> dict[str, Any]:
    try:
        return read_toml((user_home / ".codex/config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _toml(value: object) -> str:
    """A value of the user's settings as TOML; JSON's strings, numbers and lists are TOML too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
