"""Claude Code (`claude -p`)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...gateway.gateway_settings import ANTHROPIC, BEARER, X_API_KEY, LoginFile, ModelRoute
from ...gateway.model_refusal import LONGEST, SHORTEST
from ...gateway.model_usage import WIRES, token_counts
from ..exposed import Mount
from .adapter import Adapter, Invocation, Outcome, Parser, User, joined
from .model_access import (
    VENDORS,
    AgentAccess,
    check_expiry,
    header_lines,
    placeholder,
    without_password,
)
from .user_config import only, read_json, strings

SETTINGS = ".claude/settings.json"
LOGIN = ".claude/.credentials.json"
# The variables with a credential, in claude's order, with the header that it goes into.
KEYS = {
    "ANTHROPIC_AUTH_TOKEN": (BEARER, "sk-"),
    "ANTHROPIC_API_KEY": (X_API_KEY, VENDORS[ANTHROPIC].key_start),
    "CLAUDE_CODE_OAUTH_TOKEN": (BEARER, "sk-ant-oat01-"),
}
FAMILIES = ("FABLE", "HAIKU", "OPUS", "SONNET")
# The models by their families and the user's own one, with what describes each.
MODEL_VARIABLES = tuple(
    f"{name}{end}"
    for name in (
        "ANTHROPIC_CUSTOM_MODEL_OPTION",
        *(f"ANTHROPIC_DEFAULT_{family}_MODEL" for family in FAMILIES),
    )
    for end in ("", "_DESCRIPTION", "_NAME", "_SUPPORTED_CAPABILITIES")
)
NEVER_MS = 4_102_444_800_000  # 2100: a placeholder does not expire

# claude takes anything else for the title of a session, and ends if there is none.
SESSION_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Waiting longer does not make a rejected key valid: claude itself tries ten times, for minutes.
REJECTED = (401, 403)
REJECTED_TWICE = 2


class Claude(Adapter):
    """`claude -p --output-format stream-json`; sessions have an id that the caller chooses."""

    name = "claude"
    install = "npm install -g @anthropic-ai/claude-code"
    tested = ("2.1.197", "2.1.331")
    log_in = "run `claude /login`, or set ANTHROPIC_API_KEY"
    variables = (
        "ANTHROPIC_BEDROCK_REGION_PREFIX",
        "ANTHROPIC_BEDROCK_SERVICE_TIER",
        "ANTHROPIC_BETAS",
        "ANTHROPIC_DEFAULT_MODEL",
        "ANTHROPIC_LOG",
        "ANTHROPIC_MODEL",
        "ANTHROPIC_SMALL_FAST_MODEL",
        "ANTHROPIC_SMALL_FAST_MODEL_AWS_REGION",
        "ANTHROPIC_VERTEX_PROJECT_ID",
        *MODEL_VARIABLES,
        "CLAUDE_CODE_EFFORT_LEVEL",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
        "CLAUDE_CODE_MAX_RETRIES",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "MAX_THINKING_TOKENS",
        "AWS_REGION",
    )
    key_variables = (*KEYS, "AWS_BEARER_TOKEN_BEDROCK")
    private_variables = (
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_BEDROCK_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_VERTEX_BASE_URL",
    )
    logins = (LOGIN,)
    sessions = (".claude/projects/*/*.jsonl",)
    no_session = "No conversation found|requires a valid session ID"

    def arguments(self, invocation: Invocation) -> list[str]:
        return ["-p", "--output-format", "stream-json", "--verbose", *self.screen(invocation)]

    def screen(self, invocation: Invocation) -> list[str]:
        arguments = ["--permission-mode", "bypassPermissions"]
        # The repository's settings name hooks and its .mcp.json names commands: both would run
        # before the model says a word. Its CLAUDE.md and rules are read as those of a folder that
        # the user adds.
        arguments += ["--setting-sources", "user", "--strict-mcp-config", "--add-dir", "."]
        return [*arguments, *invocation.model_and_session("--model")]

    def screen_files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        state = {
            "hasCompletedOnboarding": True,
            "bypassPermissionsModeAccepted": True,
            "projects": {code.inside: {"hasTrustDialogAccepted": True}},
            # It knows a key by its last characters.
            "customApiKeyResponses": {
                "approved": [user.variables.get("ANTHROPIC_API_KEY", "")[-20:]]
            },
        }
        files = self.files(user, code, access)
        settings = json.loads(files[SETTINGS]) | {"skipDangerousModePermissionPrompt": True}
        return files | {SETTINGS: json.dumps(settings), ".claude.json": json.dumps(state)}

    def asked_model(self, model: str, user: User) -> str | None:
        name = model.partition("[")[0]  # opus[1m]
        if name.upper() in FAMILIES:
            own = user.variables.get(f"ANTHROPIC_DEFAULT_{name.upper()}_MODEL")
            if not own:
                return f"*{name.lower()}*"
            name = own.partition("[")[0]
        is_other = name in ("best", "default", "opusplan")
        return None if is_other else super().asked_model(name, user)

    def access(self, user: User) -> AgentAccess:
        outside = user.variables
        if cloud := _cloud(outside):
            address, hosts = cloud
            own = outside.get(address)
            withheld = frozenset((*KEYS, *self.private_variables)) - {"ANTHROPIC_CUSTOM_HEADERS"}
            variables = {address: without_password(own)} if own else {}
            return AgentAccess(variables=variables, withheld=withheld, inside="key", hosts=hosts)
        base_url = outside.get("ANTHROPIC_BASE_URL") or VENDORS[ANTHROPIC].root
        headers = header_lines(outside.get("ANTHROPIC_CUSTOM_HEADERS", ""))
        login = read_json(user.home / LOGIN).get("claudeAiOauth")
        name = next((name for name in KEYS if outside.get(name)), None)
        files = dict[str, str]()
        variables = {}
        login_file = None
        if name is None and isinstance(login, dict):
            renewal = "`claude -p hello` renews it, or log in again (`claude /login`)"
            names = ("claudeAiOauth", "accessToken")
            login_file = LoginFile(str(user.home / LOGIN), names, self.name, renewal)
            check_expiry(login_file, login.get("expiresAt"))
            key, credential = str(login.get("accessToken", "")), BEARER
            stand_in = placeholder(KEYS["CLAUDE_CODE_OAUTH_TOKEN"][1])
            shown = {"accessToken": stand_in, "refreshToken": stand_in, "expiresAt": NEVER_MS}
            files[LOGIN] = json.dumps({"claudeAiOauth": {**_plain(login), **shown}})
        else:
            credential, start = KEYS[name or "ANTHROPIC_API_KEY"]
            key, stand_in = outside.get(name or "", ""), placeholder(start)
            if name is not None:
                variables[name] = stand_in
        model = ModelRoute(
            ANTHROPIC, ANTHROPIC, base_url, key, credential, stand_in, headers, login=login_file
        )
        variables["ANTHROPIC_BASE_URL"] = model.url
        return AgentAccess((model,), variables, files=files)

    def login_for_jail(self, text: str, access: AgentAccess) -> str:
        login = json.loads(text)["claudeAiOauth"]
        tokens = only(login, ("accessToken", "expiresAt"))
        return json.dumps({"claudeAiOauth": {**_plain(login), **tokens}})

    def environment(self) -> dict[str, str]:
        return {
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            # Else its screen asks github.com and downloads.claude.ai.
            "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
            "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1",
            # `@NAME` in a prompt is text, and not a file to attach.
            "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
            # Its screen would do what `.claude/scheduled_tasks.json` of the repository says.
            "CLAUDE_CODE_DISABLE_CRON": "1",
            # As root claude refuses to bypass permissions unless it runs in a sandbox.
            "IS_SANDBOX": "1",
        }

    def files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        settings = read_json(user.home / SETTINGS)
        kept = {name: settings[name] for name in ("model",) if isinstance(settings.get(name), str)}
        return {SETTINGS: json.dumps(kept)}

    def memory(self, user_home: Path) -> Sequence[str]:
        return (".claude/CLAUDE.md", ".claude/rules/**/*.md")

    def settings_variables(self, user_home: Path) -> dict[str, str]:
        return strings(read_json(user_home / SETTINGS).get("env"))

    def unused_settings(self, user_home: Path, *, has_gateway: bool = True) -> list[str]:
        helper = ["apiKeyHelper"] if "apiKeyHelper" in read_json(user_home / SETTINGS) else []
        return [*helper, *super().unused_settings(user_home, has_gateway=has_gateway)]

    def stdin(self, prompt: str) -> str:
        # A prompt that begins with a slash would be one of claude's own commands.
        return f"\n{prompt}" if prompt.lstrip().startswith("/") else prompt

    def parser(self) -> ClaudeParser:
        return ClaudeParser(self.name)


class ClaudeParser(Parser):
    """Lines of `--output-format stream-json`.

    The end is the `result` line, unless another turn follows, which a command that was left in the
    background begins when it ends. Its `subtype` says `success` for a failed request too: only
    `is_error` can be believed.
    """

    of_session = frozenset(("cost_usd",))

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self._result: dict[str, Any] | None = None
        self._rejected = 0

    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        kind = document["type"]
        if kind == "system":
            yield from self._system(document)
        elif kind == "assistant":
            inner = document.get("parent_tool_use_id") is not None
            if not inner:
                self._result = None
            for block in document["message"]["content"]:
                yield from self._block(block, inner, failed=bool(document.get("error")))
        elif kind == "user":
            for block in document["message"]["content"]:
                if block["type"] == "tool_result":
                    payload = {"id": block["tool_use_id"], "output": joined(block.get("content"))}
                    if block.get("is_error"):
                        payload["is_error"] = True
                    yield "tool_result", payload
        elif kind == "rate_limit_event":
            self._limit(document["rate_limit_info"])
        elif kind == "result":
            self._result = document
            self.usage = _usage(document)

    def finish(self, status: int, stderr: str) -> Outcome:
        if self._result is None:
            return self.unfinished(status, stderr)
        text = self._result.get("result")
        answer = text if isinstance(text, str) else ""
        if self._result.get("is_error"):
            errors = self._result.get("errors")
            detail = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
            return self.failure(answer or detail or str(self._result.get("subtype")))
        return self.success(answer, status, stderr)

    def _system(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        if document["subtype"] == "init" and SESSION_ID.fullmatch(document["session_id"]):
            self.session, self.model = document["session_id"], document.get("model")
            self._result = None
            yield (
                "init",
                {"session_id": self.session, "model": self.model, "cwd": document.get("cwd")},
            )
        elif document["subtype"] == "api_retry":
            status, name = document.get("error_status"), document.get("error")
            said = f"{status} ({name})" if status else str(name)
            pause = document.get("retry_delay_ms")
            yield self.retry(
                document["attempt"],
                said,
                f"the API answered {said}" if status else said,
                pause / 1000 if isinstance(pause, int | float) else 0.0,
            )
            if status in REJECTED:
                self._rejected += 1
                if self._rejected >= REJECTED_TWICE:
                    self.hopeless = self.trouble

    def _limit(self, info: dict[str, Any]) -> None:
        """What it says of the limits of a subscription (the types of its SDK)."""
        if info["status"] == "rejected" and not info.get("isUsingOverage"):
            left = float(info["resetsAt"]) - time.time()
            self.refused_for = left if SHORTEST < left <= LONGEST else None

    def _block(
        self, block: dict[str, Any], inner: bool, *, failed: bool
    ) -> Iterable[tuple[str, dict[str, Any]]]:
        if block["type"] == "thinking":
            if block["thinking"]:
                yield "thinking", {"content": block["thinking"]}
        elif block["type"] == "text":
            # What a sub-agent says is no part of the answer; an API's error comes in `result`.
            if not failed:
                yield "thinking" if inner else "text", {"content": block["text"]}
        elif block["type"] == "tool_use":
            yield "tool_use", {"id": block["id"], "name": block["name"], "input": block["input"]}


def _plain(login: Mapping[str, Any]) -> dict[str, Any]:
    """What claude has to know of a login besides its tokens: no token of anything else."""
    return only(login, ("scopes", "subscriptionType", "rateLimitTier"))


def _cloud(outside: Mapping[str, str]) -> tuple[str, tuple[str, ...]] | None:
    """A cloud whose requests claude signs itself: the variable with its address, and its hosts.

    None for the API.
    """
    if outside.get("CLAUDE_CODE_USE_BEDROCK"):
        region = outside.get("AWS_REGION") or "us-east-1"
        hosts = [f"{each}.{region}.amazonaws.com" for each in ("bedrock-runtime", "bedrock")]
        name = "ANTHROPIC_BEDROCK_BASE_URL"
    elif outside.get("CLAUDE_CODE_USE_VERTEX"):
        hosts = ["*.googleapis.com"]
        name = "ANTHROPIC_VERTEX_BASE_URL"
    else:
        return None
    own = outside.get(name)
    return name, (urlsplit(own).netloc.rpartition("@")[2],) if own else tuple(hosts)


def _usage(document: dict[str, Any]) -> dict[str, Any]:
    (names,) = WIRES[ANTHROPIC].counts
    numbers: dict[str, Any] = token_counts(document.get("usage"), **names)
    if isinstance(document.get("total_cost_usd"), int | float):
        numbers["cost_usd"] = document["total_cost_usd"]
    return numbers
