"""OpenCode (`opencode run`)."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....system.untrusted import read_settings
from ...gateway.gateway_settings import ModelRoute
from ...gateway.model_usage import token_counts
from ..exposed import Mount
from . import opencode_database, opencode_providers
from .adapter import Adapter, AgentEvent, Invocation, Outcome, Parser, User, joined, readable
from .model_access import AgentAccess
from .user_config import read_json

# A log line about a request that failed, which is sent again if nothing else follows. Whatever a
# line repeats, each part is sought once.
STREAM_ERROR = re.compile(
    r'(?>.*?level=ERROR )(?>.*?message="stream error").*? error\.error="((?:[^"\\]|\\.)*)"'
)
# An answer that breaks off is asked for again without end and, after a moment, without a pause.
MOST_CUT = 5
INLINE = "OPENCODE_CONFIG_CONTENT"  # a variable with settings
# Bun looks for a module that OpenCode does not have, and can do without, in the folder where it
# works: in `node_modules`, or by the name in package.json. But first it does what the nearest
# tsconfig.json says, in that folder or above. By this one, each such module is this file.
NO_MODULES = '{"compilerOptions": {"baseUrl": "/", "paths": {"*": ["/tsconfig.json"]}}}\n'
CONFIG_FILES = ("opencode.json", "opencode.jsonc", "config.json")


class OpenCode(Adapter):
    """`opencode run --format json`; the session id is in every line."""

    name = "opencode"
    install = "npm install -g opencode-ai"
    tested = ("1.18.33", "1.18.33")  # without a login it has models that need none
    key_variables = opencode_providers.KEY_VARIABLES
    private_variables = (*opencode_providers.ADDRESSES.values(), INLINE)
    logins = (opencode_providers.LOGIN,)

    # It imports the plugins and tools in it, whatever `--pure` and its variables say.
    hidden = (".opencode",)
    # It imports the plugins that they name, too.
    hidden_files = ("opencode.json", "opencode.jsonc")
    # See `started`; the screen begins to work only once it is in the folder of the code.
    hidden_on_screen = dict.fromkeys(
        ("tsconfig.json", "jsconfig.json", "/tsconfig.json"), NO_MODULES
    )
    finds_skills = (".agents/skills", ".claude/skills")
    sessions = tuple(f".local/share/opencode/{name}" for name in opencode_database.FILES)
    no_session = "Session not found"

    def arguments(self, invocation: Invocation) -> list[str]:
        # It tells of no retry elsewhere than in its log.
        logs = ["--print-logs", "--log-level", "ERROR"]
        place = ["--dir", invocation.code]
        return ["run", "--format", "json", "--thinking", *logs, *place, *self._choices(invocation)]

    def screen(self, invocation: Invocation) -> list[str]:
        return [invocation.code, *self._choices(invocation)]

    def started(self, words: list[str]) -> list[str]:
        # Bun, which it is made with, obeys the tsconfig.json or jsconfig.json of the folder that it
        # is started in: the repository could have it import other modules than its own.
        return ["sh", "-c", 'cd / && exec "$@"', "sh", *words]

    def _choices(self, invocation: Invocation) -> list[str]:
        arguments = ["--pure", "--auto"]
        if invocation.model:
            arguments += ["-m", invocation.model]
        if invocation.session:
            arguments += ["--session", invocation.session]
        return arguments

    def environment(self) -> dict[str, str]:
        return {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            # The repository's own could name another server for the key.
            "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
        }

    def asked_model(self, model: str, user: User) -> str | None:
        settings = _merged(_settings(user.home), _inline(user.variables))
        return super().asked_model(opencode_providers.model_id(settings, model), user)

    def asked_route(self, model: str) -> str | None:
        return model.partition("/")[0]

    def access(self, user: User) -> AgentAccess:
        inline = _inline(user.variables)
        settings = _merged(_settings(user.home), inline)
        models = {each.name: each for each in opencode_providers.find(settings, user)}
        variables = {}
        logins = self._own_logins(user.home, models)
        if inline:
            own = opencode_providers.behind(inline, models, logins, only_own=True)
            variables[INLINE] = json.dumps(own)
        return AgentAccess(
            tuple(models.values()),
            variables,
            inside="login" if logins else "",
            logins=self.logins if logins else (),
            hosts=tuple(
                host for name in logins for host in opencode_providers.LOGIN_HOSTS.get(name, ())
            ),
        )

    def _own_logins(self, user_home: Path, models: Mapping[str, ModelRoute]) -> dict[str, Any]:
        try:
            text = (user_home / opencode_providers.LOGIN).read_text(encoding="utf-8")
            return opencode_providers.login_inside(json.loads(text), models)
        except (OSError, ValueError, AttributeError):
            return {}

    def login_for_jail(self, text: str, access: AgentAccess) -> str:
        behind = None if access.inside == "key" else [each.name for each in access.models]
        return json.dumps(opencode_providers.login_inside(json.loads(text), behind))

    def memory(self, user_home: Path) -> Sequence[str]:
        return (".config/opencode/AGENTS.md", ".claude/CLAUDE.md")

    def files(self, user: User, code: Mount, access: AgentAccess) -> dict[str, str]:
        models = {each.name: each for each in access.models}
        settings = _settings(user.home)
        if access.inside == "key":
            settings = opencode_providers.kept(settings)
        else:
            logins = self._own_logins(user.home, models)
            settings = opencode_providers.behind(settings, models, logins)
        settings |= {"autoupdate": False, "share": "disabled"}
        # With the project's configuration, it leaves out the first of these that is there, too.
        found = [name for name in ("AGENTS.md", "CLAUDE.md") if _is_there(code.outside / name)]
        settings["instructions"] = [f"{code.inside}/{name}" for name in found[:1]]
        return {".config/opencode/opencode.json": json.dumps(settings)}

    def clean_sessions(self, home: Path, code: str, room: int) -> str:
        return opencode_database.clean(home / ".local/share/opencode", code, room)

    def keys_named_by(self, user_home: Path) -> Iterator[str]:
        """Names of variables that the user's own providers read (`{env:NAME}`)."""
        text = json.dumps(_settings(user_home).get("provider", {}))
        yield from re.findall(r"\{env:(\w+)\}", text)

    def let_through(self, user: User) -> dict[str, str]:
        result = super().let_through(user)
        if INLINE in result:
            result[INLINE] = json.dumps(opencode_providers.kept(_inline(result)))
        return result

    def unused_settings(self, user_home: Path, *, has_gateway: bool = True) -> list[str]:
        names = super().unused_settings(user_home, has_gateway=has_gateway)
        if not has_gateway:
            return names
        # The gateway has to know the address of a provider.
        user, settings = User({}, user_home), _settings(user_home)
        models = {each.name: each for each in opencode_providers.find(settings, user)}
        logins = self._own_logins(user_home, models)
        lost = opencode_providers.named(settings, user_home) - models.keys() - logins.keys()
        return [*names, *(f"provider.{name}" for name in sorted(lost))]

    def parser(self) -> OpenCodeParser:
        return OpenCodeParser(self.name)


class OpenCodeParser(Parser):
    """Lines of `--format json`.

    Nothing marks the end: the run succeeded when the last step ended with reason `stop`, but not
    that of the summary in a compaction, after which opencode tells its model to continue in a text
    that is `synthetic`. After a rejected permission it exits with 0 and without an answer.
    """

    hides_tools = True

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self._message = ""
        self._said = ""
        self._stopped = False
        self._rejected = ""
        self._attempts = 0  # requests that failed in a row
        self._cut = 0  # answers that broke off in a row

    def read(self, document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        if self.session is None and isinstance(document.get("sessionID"), str):
            self.session = document["sessionID"]
            yield "init", {"session_id": self.session}
        kind, part = document["type"], document.get("part", {})
        if kind == "step_start":
            self._stopped = False
        elif kind == "text" and part.get("synthetic"):
            self._stopped, self._said, self.omitted = False, "", 0
        elif kind == "text":
            if part["messageID"] != self._message:
                self._message, self._said, self.omitted = part["messageID"], "", 0
            self._said = self.longer(self._said, part["text"])
            yield "text", {"content": part["text"]}
        elif kind == "reasoning":
            yield "thinking", {"content": part["text"]}
        elif kind == "tool_use":
            self._cut = 0
            yield from self._tool(part)
        elif kind == "step_finish":
            self._attempts, self._stopped = 0, part["reason"] == "stop"
            self._count(part)
            if part["reason"] == "unknown":
                yield self._broke_off()
            else:
                self._cut = 0
        elif kind == "error":
            self._stopped = False
            data = document["error"].get("data", {})
            self.error = str(data.get("message") or document["error"].get("name"))

    def finish(self, status: int, stderr: str) -> Outcome:
        if self._stopped:
            return self.success(self.noted(self._said.strip()), status, stderr)
        if self.error:
            return self.failure(self.error)
        if self._rejected and status == 0:
            return self.failure(f"it stopped without an answer after: {self._rejected}")
        return self.unfinished(status, stderr)

    def complain(self, line: str) -> list[AgentEvent]:
        found = STREAM_ERROR.match(line)
        if found is None:
            return []
        self._attempts += 1
        return [self.retry(self._attempts, readable(found[1].removeprefix("AI_APICallError: ")))]

    def _broke_off(self) -> AgentEvent:
        self._cut += 1
        again = self.retry(self._cut, "the model's answer broke off")
        if self._cut >= MOST_CUT:
            self.hopeless = f"{self.trouble} {self._cut} times in a row"
        return again

    def _tool(self, part: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        state = part["state"]
        yield "tool_use", {"id": part["callID"], "name": part["tool"], "input": state["input"]}
        if state["status"] == "error":
            self._rejected = str(state["error"])
            yield "tool_result", {"id": part["callID"], "output": state["error"], "is_error": True}
        else:
            yield "tool_result", {"id": part["callID"], "output": joined(state.get("output"))}

    def _count(self, part: dict[str, Any]) -> None:
        """Add up what each step used."""
        tokens = part.get("tokens", {})
        step = token_counts(
            {**tokens, **tokens.get("cache", {})},
            input_tokens=["input", "read", "write"],
            cached_input_tokens=["read"],
            output_tokens=["output", "reasoning"],
            reasoning_tokens=["reasoning"],
        )
        for name, number in step.items():
            self.usage[name] = self.usage.get(name, 0) + number
        if isinstance(part.get("cost"), int | float):
            self.usage["cost_usd"] = self.usage.get("cost_usd", 0) + part["cost"]


def _is_there(place: Path) -> bool:
    """Whether there is a file, or a link, which an agent or a repository may have made.

    What it leads to out here is not for the sandbox to know, and could be a dead mount.
    """
    try:
        mode = place.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _settings(user_home: Path) -> dict[str, Any]:
    folder = user_home / ".config/opencode"
    result: dict[str, Any] = {}
    for name in CONFIG_FILES:
        result |= read_json(folder / name)
    return result


def _inline(outside: Mapping[str, str]) -> dict[str, Any]:
    return read_settings(outside.get(INLINE, ""))


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two documents in one, as OpenCode merges its settings: the second one counts."""
    result = dict(first)
    for name, value in second.items():
        before = result.get(name)
        both = isinstance(value, dict) and isinstance(before, dict)
        result[name] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return result
