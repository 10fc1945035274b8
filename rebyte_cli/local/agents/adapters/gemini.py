"""Gemini CLI (`gemini --output-format stream-json`)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...gateway.gateway_settings import GEMINI
from ...gateway.model_usage import token_counts
from ..exposed import Mount
from .adapter import (
    LONGEST_STRING,
    Adapter,
    AgentEvent,
    Invocation,
    Outcome,
    Parser,
    User,
    joined,
    readable,
    said,
)
from .model_access import VENDORS, AgentAccess, header_lines, with_key, without_password
from .user_config import read_env, read_json

SESSION_NOT_FOUND = 42
GOOGLE_LOGIN = "oauth2.googleapis.com"
# The variable with the address of a login's API; it has another one without.
VERTEX, GOOGLE = "vertex-ai", "oauth-personal"
LOGIN_ADDRESSES = {VERTEX: "GOOGLE_VERTEX_BASE_URL", GOOGLE: "CODE_ASSIST_ENDPOINT"}
HEADERS = "GEMINI_CLI_CUSTOM_HEADERS"
RETRY = re.compile(r"Attempt (\d+) failed(?: with status (\d+))?[.:]? (?:Retrying.*?\.\.\. ?)?(.*)")
# A custom command, whose arguments reach the model as they were typed.
COMMAND = "rebyte-prompt"
COMMAND_TEXT = f"Do what the text after /{COMMAND} says:"


class Gemini(Adapter):
    """Headless gemini; sessions have an id that the caller chooses."""

    name = "gemini"
    install = "npm install -g @google/gemini-cli"
    tested = ("0.61.0", "0.61.0")
    log_in = "run `gemini` and log in, or set GEMINI_API_KEY"
    variables = (
        "GEMINI_API_KEY_AUTH_MECHANISM",
        "GEMINI_DEFAULT_AUTH_TYPE",
        "GEMINI_MODEL",
        "GOOGLE_CLOUD_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_CLOUD_PROJECT_ID",
        "GOOGLE_CLOUD_QUOTA_PROJECT",
        "GOOGLE_CLOUD_REGION",
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
        "GOOGLE_GENAI_API_VERSION",
        "GOOGLE_GENAI_USE_GCA",
        "GOOGLE_GENAI_USE_VERTEXAI",
    )
    key_variables = (
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_ACCESS_TOKEN",
    )
    private_variables = (
        HEADERS,
        "GOOGLE_GEMINI_BASE_URL",
        *LOGIN_ADDRESSES.values(),
    )
    logins = (".gemini/oauth_creds.json", ".gemini/google_accounts.json")

    # A `.env` in it can name another server for the key, settings can send it with an MCP request.
    hidden = (".gemini",)
    finds_skills = (".agents/skills",)
    # `.project_root` says which repository the chats are about.
    sessions = (".gemini/tmp/*/.project_root", ".gemini/tmp/*/chats/*.json*")

    def arguments(self, invocation: Invocation) -> list[str]:
        return ["--output-format", "stream-json", *self.screen(invocation)]

    def screen(self, invocation: Invocation) -> list[str]:
        arguments = ["--approval-mode", "yolo", "--skip-trust"]
        return [*arguments, *invocation.model_and_session("-m")]

    def asked_model(self, model: str, user: User) -> str | None:
        is_other = model.startswith(("auto", "flash", "pro"))
        return None if is_other else super().asked_model(model, user)

    def access(self, user: User) -> AgentAccess:
        wire, outside = VENDORS[GEMINI], user.variables
        login = _login(user)
        if login != "gemini-api-key":
            kind = "key" if login == VERTEX else "login"
            name = LOGIN_ADDRESSES[VERTEX if login == VERTEX else GOOGLE]
            own = outside.get(name)
            return AgentAccess(
                variables={name: without_password(own)} if own else {},
                withheld=frozenset((wire.key_variable, *self.private_variables)) - {HEADERS},
                inside=kind,
                logins=self.logins,
                hosts=_hosts(login, own, outside.get("GOOGLE_CLOUD_LOCATION")),
            )
        # They are separated by commas, which values have as well.
        own = re.sub(r",(?=\s*[^,:]+:)", "\n", outside.get(HEADERS, ""))
        return with_key(GEMINI, outside, wire.key_variable, wire.url_variable, header_lines(own))

    def files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        settings: dict[str, Any] = {
            "context": {"fileName": _memory_names(user.home)},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
            "advanced": {"ignoreLocalEnv": True},
            "security": {"auth": {"selectedType": _login(user)}},
        }
        model = read_json(user.home / ".gemini/settings.json").get("model")
        if isinstance(model, dict) and isinstance(model.get("name"), str):
            settings["model"] = {"name": model["name"]}
        return {
            ".gemini/settings.json": json.dumps(settings),
            f".gemini/commands/{COMMAND}.toml": f"prompt = {json.dumps(COMMAND_TEXT)}\n",
        }

    def memory(self, user_home: Path) -> Sequence[str]:
        return [f".gemini/{escape(name)}" for name in _memory_names(user_home) if "/" not in name]

    def settings_variables(self, user_home: Path) -> dict[str, str]:
        return read_env(user_home / ".gemini/.env")

    def surroundings(self, user: User) -> User:
        variables = {**super().surroundings(User({}, user.home)).variables, **user.variables}
        return user._replace(variables=variables)

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

    The text comes in small deltas, which are joined to paragraphs. The end is the `result` line. It
    says `success` also where gemini gave up: after an `error` line or, where the context has no
    room for what a tool printed, without a word. The exit status is 0 for a broken stream and a
    remainder of the HTTP status for others.
    """

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self._said = ""  # what is in no event yet
        self._answer = ""  # all that was said since the last tool call
        self._result: dict[str, Any] | None = None

    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        kind = document["type"]
        if kind == "message":
            if document["role"] == "assistant":
                self.error = ""
                self._said += document["content"]
                self._answer = self.longer(self._answer, document["content"])
            return
        if kind in ("init", "tool_use", "tool_result", "result"):
            for event in self.flush():
                yield event.kind, event.payload
        if kind == "init":
            self.session, self.model = document["session_id"], document.get("model")
            yield "init", {"session_id": self.session, "model": self.model}
        elif kind == "tool_use":
            self._answer, self.omitted = "", 0
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
            given = dict(stats) if isinstance(stats, dict) else {}
            with contextlib.suppress(KeyError):  # the thoughts are in the total alone
                spoken = given["input_tokens"] + given["output_tokens"]
                given["thoughts"] = max(0, given["total_tokens"] - spoken)
            self.usage = token_counts(
                given,
                input_tokens=["input_tokens"],
                cached_input_tokens=["cached"],
                output_tokens=["output_tokens", "thoughts"],
                reasoning_tokens=["thoughts"],
            )

    def complain(self, line: str) -> list[AgentEvent]:
        found = RETRY.match(line)
        if found is None:
            return []
        status, message = found[2] or "", readable(found[3])
        reason = message if status in message else f"{status} {message}"
        return [self.retry(found[1], reason.strip() or "no reason given")]

    def pause(self) -> list[AgentEvent]:
        # Half a block of code, which every second part is, would be shown as something else.
        parts, end = self._said.split("```"), 0
        for last in range((len(parts) - 1) // 2 * 2, -1, -2):
            if (found := parts[last].rfind("\n\n")) >= 0:
                end = len("```".join([*parts[:last], parts[last][: found + 1]]))
                break
        else:
            if len(self._said) > LONGEST_STRING:
                end = len(self._said)
        text, self._said = self._said[:end], self._said[end:]
        return said(text.strip("\n") if text.strip() else "")

    def flush(self) -> list[AgentEvent]:
        text, self._said = self._said, ""
        return said(text.strip("\n") if text.strip() else "")

    def finish(self, status: int, stderr: str) -> Outcome:
        if self._result is None:
            return self.unfinished(status, stderr)
        if self._result.get("status") != "success" or self.error or not self._answer.strip():
            error = self._result.get("error")
            message = error.get("message") if isinstance(error, dict) else error
            reason = message or self.error or "it stopped without an answer"
            return self.failure(str(reason), self._answer)
        return self.success(self.noted(self._answer), status, stderr)


def _memory_names(user_home: Path) -> list[str]:
    """The names that files with instructions have."""
    context = read_json(user_home / ".gemini/settings.json").get("context")
    given = context.get("fileName") if isinstance(context, dict) else None
    names = given if isinstance(given, list) else [given]
    return [name for name in names if isinstance(name, str) and name] or ["GEMINI.md"]


def _hosts(login: str, own: str | None, location: str | None) -> tuple[str, ...]:
    """The hosts of a login that gemini has to use itself, at the user's `own` address too."""
    hosts = [GOOGLE_LOGIN]
    if login == VERTEX:
        hosts += ["aiplatform.googleapis.com"]
        hosts += [f"{location}-aiplatform.googleapis.com"] if location else []
    else:
        hosts += ["cloudcode-pa.googleapis.com"]
    return (*hosts, urlsplit(own).netloc.rpartition("@")[2]) if own else tuple(hosts)


def _login(user: User) -> str:
    """The way to log in: the key in the environment, or what the user chose in gemini itself."""
    if user.variables.get("GOOGLE_GENAI_USE_VERTEXAI", "").lower() == "true":
        return VERTEX
    if user.variables.get("GEMINI_API_KEY"):
        return "gemini-api-key"
    security = read_json(user.home / ".gemini/settings.json").get("security")
    auth = security.get("auth") if isinstance(security, dict) else None
    chosen = auth.get("selectedType") if isinstance(auth, dict) else None
    return chosen if isinstance(chosen, str) else GOOGLE
