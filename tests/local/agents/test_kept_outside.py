"""Secrets in the user's variables, login files and settings: none of them is seen in a jail."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rebyte_cli.local.agents import agent_list
from rebyte_cli.local.agents.adapters.adapter import Adapter
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.agents.adapters.gemini import Gemini
from rebyte_cli.local.agents.adapters.opencode import OpenCode

from .bench import Bench, script
from .test_user_settings import put

HIDDEN = "HIDDEN"  # what each secret has in it
LOOK = "env > /code/seen; find ~ -type f -exec cat {} + >> /code/seen"
CODEX, OPENCODE = ".codex/config.toml", ".config/opencode/opencode.json"


@pytest.fixture
def look(bench: Bench, tmp_path: Path, user_home: Path) -> Any:
    """Runs an agent that shows its environment and all files of its HOME; what that was."""

    def run(kind: type[Adapter], **options: Any) -> str:
        bench.run(kind(command=(script(tmp_path / "bin", "agent", LOOK),)), **options)
        seen = (bench.workspace().code / "seen").read_text()
        assert "HOME=/home/agent\n" in seen
        return seen

    return run


def secrets(seen: str) -> list[str]:
    return [line[:200] for line in seen.splitlines() if HIDDEN in line]


VARIABLES = {
    Claude: (
        "ANTHROPIC_ADMIN_SECRET", "ANTHROPIC_API_KEY_2", "ANTHROPIC_API_KEY_WORK_ACCOUNT",
        "ANTHROPIC_AWS_API_KEY", "ANTHROPIC_FOUNDRY_AUTH_TOKEN", "ANTHROPIC_IDENTITY_TOKEN",
    ),
    Codex: ("OPENAI_ADMIN_SECRET", "OPENAI_API_KEY_2", "OPENAI_WEBHOOK_SECRET"),
    Gemini: ("GEMINI_PASSWORD", "GOOGLE_CLIENT_SECRET", "GOOGLE_API_KEY_2"),
    OpenCode: ("OPENAI_API_KEY_2",),
}  # fmt: skip
ADDRESSES = {
    Claude: ("ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL", "ANTHROPIC_BASE_URL"),
    Codex: ("OPENAI_BASE_URL",),
    Gemini: ("GOOGLE_VERTEX_BASE_URL", "CODE_ASSIST_ENDPOINT", "GOOGLE_GEMINI_BASE_URL"),
    OpenCode: ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"),
}
SETTINGS = {
    Claude: "ANTHROPIC_DEFAULT_OPUS_MODEL_NAME",
    Codex: "OPENAI_ORGANIZATION",
    Gemini: "GOOGLE_CLOUD_PROJECT",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", VARIABLES)
@pytest.mark.parametrize("network", ["list", "host"])
def test_variables(
    kind: type[Adapter], network: str, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that begins like a setting's is none; addresses may have passwords in them."""
    monkeypatch.setenv("GEMINI_API_KEY", "gemini-HIDDEN-key")
    for name in (*VARIABLES[kind], "LC_SECRET"):
        monkeypatch.setenv(name, HIDDEN)
    for name in ADDRESSES[kind] if network == "list" else ():
        monkeypatch.setenv(name, f"https://user:{HIDDEN}@example.com/v1")
    if kind in SETTINGS:
        monkeypatch.setenv(SETTINGS[kind], "mine")
    monkeypatch.setenv("LC_TIME", "C")
    seen = look(kind, network=network)
    assert kind not in SETTINGS or f"{SETTINGS[kind]}=mine\n" in seen
    assert "LC_TIME=C\n" in seen
    own_key = "GEMINI_API_KEY=gemini-HIDDEN-key" if network == "host" else "none"
    assert [each for each in secrets(seen) if each != own_key] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "switch", "address"),
    [
        (Claude, "CLAUDE_CODE_USE_BEDROCK", "ANTHROPIC_BEDROCK_BASE_URL"),
        (Claude, "CLAUDE_CODE_USE_VERTEX", "ANTHROPIC_VERTEX_BASE_URL"),
        (Gemini, "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_VERTEX_BASE_URL"),
        (Gemini, "GOOGLE_GENAI_USE_GCA", "CODE_ASSIST_ENDPOINT"),
    ],
)
def test_an_address_that_the_agent_uses_itself_has_no_password(
    kind: type[Adapter], switch: str, address: str, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch, "true")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"https://user:{HIDDEN}@example.com/v1")
    monkeypatch.setenv(address, f"https://user:{HIDDEN}@example.com/v1@2")
    seen = look(kind)
    assert f"{address}=https://example.com/v1@2\n" in seen
    assert secrets(seen) == []


@pytest.mark.slow
def test_the_gateway_sends_gemini_s_own_headers(
    bench: Bench, tmp_path: Path, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[dict[str, str]] = []

    class Model(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    text = (
        'curl -sd "{}" -H "x-goog-api-key: $GEMINI_API_KEY"'
        ' "$GOOGLE_GEMINI_BASE_URL/v1beta/models/x:generateContent"; env > /code/seen'
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("GEMINI_API_KEY", "HIDDEN-key")
        monkeypatch.setenv("GEMINI_CLI_CUSTOM_HEADERS", "x-team: a, b,Authorization: Basic HIDDEN")
        bench.run(Gemini(command=(script(tmp_path / "bin", "agent", text),)))
        server.shutdown()
    assert [each["x-goog-api-key"] for each in arrived] == ["HIDDEN-key"]
    assert (arrived[0]["x-team"], arrived[0]["authorization"]) == ("a, b", "Basic HIDDEN")
    assert secrets((bench.workspace().code / "seen").read_text()) == []


LOGINS: dict[type[Adapter], tuple[str, dict[str, Any], list[str]]] = {
    Claude: (
        ".claude/.credentials.json",
        {
            "claudeAiOauth": {
                "accessToken": "HIDDEN", "refreshToken": "HIDDEN", "sessionKey": "HIDDEN",
                "scopes": ["user:inference"], "subscriptionType": "max",
            },
            "mcpOAuth": {"server": {"accessToken": "HIDDEN"}},
        },
        ["user:inference", "max"],
    ),
    Codex: (
        ".codex/auth.json",
        {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": "HIDDEN",
            "agent_identity": {"private_key": "HIDDEN"},
            "tokens": {
                "id_token": "head.claims.HIDDEN", "access_token": "HIDDEN", "account_id": "me",
                "refresh_token": "HIDDEN", "session_token": "HIDDEN",
            },
        },
        ["chatgpt", "head.claims.", "me"],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOGINS)
def test_login_files(kind: type[Adapter], look: Any, user_home: Path) -> None:
    """What a later version of an agent adds to its file may be a secret as well."""
    name, login, shown = LOGINS[kind]
    put(user_home, {name: json.dumps(login)})
    seen = look(kind)
    assert secrets(seen) == []
    for word in shown:
        assert word in seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOGINS)
def test_login_files_with_the_network_shared(
    kind: type[Adapter], look: Any, user_home: Path
) -> None:
    """The agent logs in itself, with what it knows and nothing else."""
    name, login, shown = LOGINS[kind]
    text = json.dumps(login)
    for known in ("accessToken", "access_token", "id_token", "OPENAI_API_KEY"):
        text = text.replace(f'"{known}": "HIDDEN"', f'"{known}": "given"', 1)
    put(user_home, {name: text.replace("head.claims.HIDDEN", "head.claims.given")})
    seen = look(kind, network="host")
    assert secrets(seen) == []
    for word in (*shown, "given"):
        assert word in seen


@pytest.mark.slow
def test_providers_of_codex(look: Any, user_home: Path) -> None:
    settings = """\
model = "mine/model"
model_provider = "mine"
[model_providers.mine]
name = "Mine"
base_url = "https://user:HIDDEN@example.com/v1?key=HIDDEN"
wire_api = "responses"
request_max_retries = 3
http_headers = { Authorization = "HIDDEN" }
aws = { profile = "HIDDEN" }
later_setting = "HIDDEN"
auth = { command = "HIDDEN" }
[model_providers.other]
base_url = "https://user:HIDDEN@example.com/v1"
"""
    put(user_home, {CODEX: settings})
    seen = look(Codex)
    assert secrets(seen) == []
    assert '"request_max_retries" = 3' in seen
    assert '"name" = "Mine"' in seen
    shared = look(Codex, network="host")
    assert 'Authorization" = "HIDDEN"' in shared
    assert "command" not in shared
    assert "later_setting" not in shared


OWN = {
    "npm": "@ai-sdk/openai-compatible",
    "api": "http://u:HIDDEN@example.com/v1",
    "id": "HIDDEN",
    "options": {
        "apiKey": "HIDDEN", "apiToken": "HIDDEN", "secretAccessKey": "HIDDEN", "timeout": 1000,
        "headers": {"Authorization": "HIDDEN"}, "nested": {"timeout": "HIDDEN"},
    },
    "models": {
        "m": {
            "name": "Model M", "limit": {"context": 1000, "output": 100},
            "headers": {"Authorization": "HIDDEN"},
            "options": {"apiKey": "HIDDEN", "reasoningEffort": "high", "thinking": {"x": "HIDDEN"}},
            "provider": {"npm": "@ai-sdk/openai", "api": "HIDDEN"},
            "variants": {"deep": {"reasoningEffort": "max", "token": "HIDDEN"}},
        }
    },
}  # fmt: skip
WITHOUT_ADDRESS = {"options": {"apiKey": "HIDDEN"}, "models": {"m": {"name": "Lost"}}}
EVERYTHING = {
    "model": "mine/m",
    "provider": {"mine": OWN, "togetherai": WITHOUT_ADDRESS, "azure": WITHOUT_ADDRESS},
    "mcp": {"mine": {"type": "local", "command": ["HIDDEN"]}},
    "command": {"x": {"template": "HIDDEN"}},
    "agent": {"x": {"prompt": "HIDDEN"}},
    "plugin": ["HIDDEN"],
}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "variable"])
def test_settings_of_opencode(
    place: str, look: Any, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "file":
        put(user_home, {OPENCODE: json.dumps(EVERYTHING)})
    else:
        monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", json.dumps(EVERYTHING))
    seen = look(OpenCode)
    assert secrets(seen) == []
    assert "Lost" not in seen  # the gateway does not know where it is
    (found,) = [one for one in documents(seen) if one.get("model") == "mine/m"]
    mine = found["provider"]["mine"]
    assert mine["npm"] == OWN["npm"]
    assert mine["options"].pop("apiKey").startswith("sk-")
    assert mine["options"] == {"timeout": 1000, "baseURL": "http://127.0.0.1:29170/mine"}
    assert mine["models"]["m"] == {
        "name": "Model M", "limit": {"context": 1000, "output": 100},
        "options": {"reasoningEffort": "high", "thinking": {}},
        "provider": {"npm": "@ai-sdk/openai"}, "variants": {"deep": {"reasoningEffort": "max"}},
    }  # fmt: skip


def documents(seen: str) -> list[dict[str, Any]]:
    """The JSON objects in what an agent showed."""
    found = re.findall(r"\{.*\}", seen)
    return [json.loads(text) for text in found if text.startswith('{"')]


@pytest.mark.slow
def test_settings_of_opencode_with_the_network_shared(
    look: Any, monkeypatch: pytest.MonkeyPatch, user_home: Path
) -> None:
    """The keys are inside, but no command and no MCP server."""
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", json.dumps(EVERYTHING))
    seen = look(OpenCode, network="host")
    (found,) = [one for one in documents(seen) if one.get("model") == "mine/m"]
    assert found == {"model": "mine/m", "provider": EVERYTHING["provider"]}


@pytest.mark.slow
def test_logins_of_opencode_without_an_address(
    look: Any, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = {
        "togetherai": {"type": "api", "key": "HIDDEN"},
        "https://example.com": {"type": "wellknown", "key": "HIDDEN", "token": "HIDDEN"},
        "anthropic": {"type": "oauth", "access": "inside", "refresh": "HIDDEN", "x": "HIDDEN"},
    }
    put(user_home, {".local/share/opencode/auth.json": json.dumps(logins)})
    put(user_home, {OPENCODE: json.dumps(EVERYTHING)})
    seen = look(OpenCode)
    assert secrets(seen) == []
    assert '"access": "inside"' in seen
    script(tmp_path / "bin", "opencode", "echo 1.0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    row = next(row for row in agent_list.every_agent(None, None) if row["name"] == "opencode")
    assert row["credential"] == "login inside"
    assert row["unused"] == "provider.azure, provider.https://example.com, provider.togetherai"
