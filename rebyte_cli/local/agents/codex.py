"""Codex CLI (`codex exec`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from .adapter import Adapter, Invocation, Logins, Outcome, Parser
from .logins import LoginEntry

# Settings of ~/.codex/config.toml that decide which model answers. The rest (hooks, MCP servers,
# sandbox) is not for a jail.
KEPT_SETTINGS = ("model", "model_provider", "model_providers", "model_reasoning_effort")
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
    tested = ("0.169.0",)
    variables = ("OPENAI_*", "CODEX_API_KEY", "AZURE_OPENAI_*")
    credentials: ClassVar[Logins] = {
        ".codex/auth.json": [
            LoginEntry(
                ["tokens"], ["id_token", "access_token", "refresh_token"], [], ["account_id"]
            ),
            LoginEntry([], [], ["last_refresh"], ["auth_mode"]),
        ]
    }

    sessions = (".codex/sessions/*/*/*/rollout-*.jsonl",)

    def arguments(self, invocation: Invocation) -> list[str]:
        arguments = ["exec"]
        if invocation.session:
            arguments += ["resume"]
        arguments += ["--json", "--skip-git-repo-check", "-c", "features.plugins=false"]
        # codex's own sandbox needs namespaces, which the jail does not give.
        arguments += ["--dangerously-bypass-approvals-and-sandbox"]
        if invocation.model:
            arguments += ["-m", invocation.model]
        if invocation.session:
            arguments += [invocation.session]
        return [*arguments, "-"]

    def files(self, outside: Mapping[str, str], user_home: Path) -> dict[str, str]:
        kept = {
            name: value for name, value in _settings(user_home).items() if name in KEPT_SETTINGS
        }
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
            if isinstance(provider, dict) and isinstance(provider.get("env_key"), str):
                yield provider["env_key"]

    def lost_session(self, status: int, stderr: str) -> bool:
        return status != 0 and re.search(r"no rollout found|thread .*not found", stderr) is not None

    def parser(self) -> CodexParser:
        return CodexParser(self.name)


class CodexParser(Parser):
    """Lines of `--json`. The end is `turn.completed` or `turn.failed`.

    An item of type `error` may be a mere warning, and an `error` line may be a retry.
    """

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
            self.error = document["message"]
        elif kind == "turn.failed":
            self._end, self.error = "failed", document["error"]["message"]
        elif kind == "turn.completed":
            self._end = "completed"
            self.usage = {k: v for k, v in document["usage"].items() if isinstance(v, int)}

    def finish(self, status: int, stderr: str) -> Outcome:
        if self._end == "completed":
            return self.success(self._answer)
        if self._end == "failed":
            return self.failure(self.error)
        return self.unfinished(status, stderr)

    def _item(self, item: dict[str, Any], *, done: bool) -> Iterable[tuple[str, dict[str, Any]]]:
        kind, call = item["type"], item["id"]
        if kind == "agent_message" and done:
            self._answer = item["text"]
            yield "text", {"content": item["text"]}
        elif kind == "reasoning" and done:
            yield "thinking", {"content": item["text"]}
        elif kind == "command_execution":
            if not done:
                yield "tool_use", {"id": call, "name": "shell", "input": _named(item, "command")}
            else:
                payload = {"id": call, "output": item.get("aggregated_output") or ""}
                if item.get("exit_code") is not None:
                    payload["exit_code"] = item["exit_code"]
                yield "tool_result", payload
        elif kind in ("file_change", "mcp_tool_call", "web_search"):
            name = f"{item['server']}.{item['tool']}" if kind == "mcp_tool_call" else kind
            given = _named(item, "changes", "arguments", "query")
            # Some of these come only when they are done: then the call is told with its result.
            if not done or kind != "mcp_tool_call":
                yield "tool_use", {"id": call, "name": name, "input": given}
            if done:
                output = item.get("result") or item.get("error") or item.get("status") or ""
                yield "tool_result", {"id": call, "output": output}


def _named(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: item[name] for name in names if name in item}


def _settings(user_home: Path) -> dict[str, Any]:
    try:
        text = (user_home / ".codex/config.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError:
        return {}


def _toml(value: object) -> str:
    """A value of the user's settings as TOML; JSON's strings, numbers and lists are TOML too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
