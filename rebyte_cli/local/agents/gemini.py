"""Gemini CLI (`gemini --output-format stream-json`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from .adapter import Adapter, AgentEvent, Invocation, Logins, Outcome, Parser, joined, shorten
from .logins import LoginEntry
from .user_config import read_json

SESSION_NOT_FOUND = 42
# A custom command, whose arguments reach the model as they were typed.
COMMAND = "rebyte-prompt"
COMMAND_TEXT = f"Do what the text after /{COMMAND} says:"


class Gemini(Adapter):
    """Headless gemini; sessions have an id that the caller chooses."""

    name = "gemini"
    install = "npm install -g @google/gemini-cli"
    tested = ("0.61.0",)
    variables = ("GEMINI_*", "GOOGLE_*", "CODE_ASSIST_ENDPOINT")
    credentials: ClassVar[Logins] = {
        ".gemini/oauth_creds.json": [
            LoginEntry([], ["access_token", "refresh_token", "id_token"], ["expiry_date"])
        ],
        ".gemini/google_accounts.json": [],
    }

    # A `.env` in it can name another server for the key, settings can send it with an MCP request.
    hidden = (".gemini",)
    # `.project_root` says which repository the chats are about.
    sessions = (".gemini/tmp/*/.project_root", ".gemini/tmp/*/chats/*.json*")

    def arguments(self, invocation: Invocation) -> list[str]:
        arguments = ["--output-format", "stream-json", "--approval-mode", "yolo", "--skip-trust"]
        if invocation.model:
            arguments += ["-m", invocation.model]
        if invocation.session:
            return [*arguments, "--resume", invocation.session]
        return [*arguments, "--session-id", invocation.new_session]

    def files(self, outside: Mapping[str, str], user_home: Path) -> dict[str, str]:
        settings: dict[str, Any] = {
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
            "advanced": {"ignoreLocalEnv": True},
            "security": {"auth": {"selectedType": _login(outside, user_home)}},
        }
        model = read_json(user_home / ".gemini/settings.json").get("model")
        if isinstance(model, dict) and isinstance(model.get("name"), str):
            settings["model"] = {"name": model["name"]}
        return {
            ".gemini/settings.json": json.dumps(settings),
            f".gemini/commands/{COMMAND}.toml": f"prompt = {json.dumps(COMMAND_TEXT)}\n",
        }

    def stdin(self, prompt: str) -> str:
        # gemini runs a prompt that begins with a slash. It replaces `@NAME` by the path of a file
        # whose name contains NAME, in addresses and decorators too, and appends the file.
        special = "@" in prompt or prompt.lstrip().startswith("/")
        return f"/{COMMAND} {prompt}" if special else prompt

    def lost_session(self, status: int, stderr: str) -> bool:
        return status == SESSION_NOT_FOUND

    def parser(self) -> GeminiParser:
        return GeminiParser(self.name)


class GeminiParser(Parser):
    """Lines of `--output-format stream-json`.

    The text comes in small deltas, which are joined to one event. The end is the `result` line;
    the exit status is 0 for a broken stream and a remainder of the HTTP status for others.
    """

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self._said: list[str] = []
        self._answer = ""
        self._result: dict[str, Any] | None = None

    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        kind = document["type"]
        if kind == "message":
            if document["role"] == "assistant":
                self._said.append(document["content"])
            return
        if kind in ("init", "tool_use", "tool_result", "result"):
            for event in self.flush():
                yield event.kind, event.payload
        if kind == "init":
            self.session, self.model = document["session_id"], document.get("model")
            yield "init", {"session_id": self.session, "model": self.model}
        elif kind == "tool_use":
            given = document.get("parameters", {})
            yield (
                "tool_use",
                {"id": document["tool_id"], "name": document["tool_name"], "input": given},
            )
        elif kind == "tool_result":
            payload = {"id": document["tool_id"], "output": joined(document.get("output"))}
            if document.get("status") == "error":
                payload["is_error"] = True
                payload["output"] = payload["output"] or joined(document.get("error"))
            yield "tool_result", payload
        elif kind == "error":
            self.error = str(document.get("message"))
        elif kind == "result":
            self._result = document
            stats = document.get("stats")
            given = stats if isinstance(stats, dict) else {}
            self.usage = {name: value for name, value in given.items() if isinstance(value, int)}

    def flush(self) -> list[AgentEvent]:
        text, self._said = "".join(self._said), []
        if not text:
            return []
        self._answer = text
        return [AgentEvent("text", shorten({"content": text}))]

    def finish(self, status: int, stderr: str) -> Outcome:
        if self._result is None:
            return self.unfinished(status, stderr)
        if self._result.get("status") != "success":
            error = self._result.get("error")
            message = error.get("message") if isinstance(error, dict) else error
            return self.failure(str(message or self.error or "it gave no reason"), self._answer)
        return self.success(self._answer)


def _login(outside: Mapping[str, str], user_home: Path) -> str:
    """The way to log in: the key in the environment, or what the user chose in gemini itself."""
    if outside.get("GOOGLE_GENAI_USE_VERTEXAI", "").lower() == "true":
        return "vertex-ai"
    if outside.get("GEMINI_API_KEY"):
        return "gemini-api-key"
    security = read_json(user_home / ".gemini/settings.json").get("security")
    auth = security.get("auth") if isinstance(security, dict) else None
    chosen = auth.get("selectedType") if isinstance(auth, dict) else None
    return chosen if isinstance(chosen, str) else "oauth-personal"
