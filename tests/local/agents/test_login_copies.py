"""Logins that an agent has to have itself: copies in the jail, of which nothing comes back."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents.adapters.adapter import Adapter, User
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.agents.adapters.gemini import Gemini
from rebyte_cli.local.agents.adapters.opencode import OpenCode
from rebyte_cli.local.gateway.allowed_hosts import AllowedHosts, HostPort

from .bench import NAP, Bench, script

CLAUDE, CODEX = ".claude/.credentials.json", ".codex/auth.json"
GEMINI, OPENCODE = ".gemini/oauth_creds.json", ".local/share/opencode/auth.json"
LOGINS: dict[str, Any] = {
    CLAUDE: {"claudeAiOauth": {"accessToken": "SECRET", "refreshToken": "RENEWS"}},
    CODEX: {
        "auth_mode": "chatgpt",
        "tokens": {
            "id_token": "head.claims.SECRET",
            "access_token": "SECRET",
            "refresh_token": "RENEWS",
            "account_id": "me",
        },
    },
    GEMINI: {"access_token": "SECRET", "refresh_token": "kept", "expiry_date": 1},
    OPENCODE: {
        "anthropic": {"type": "oauth", "access": "SECRET", "refresh": "RENEWS", "expires": 1},
        "openai": {"type": "api", "key": "sk-SECRET-KEY"},
    },
}
AGENTS: dict[str, type[Adapter]] = {
    CLAUDE: Claude, CODEX: Codex, GEMINI: Gemini, OPENCODE: OpenCode,
}  # fmt: skip


def log_in(user_home: Path, name: str) -> str:
    """Write the login file; its text."""
    place, text = user_home / name, json.dumps(LOGINS[name])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o600)
    return text


def agent(folder: Path, name: str, text: str) -> Adapter:
    return AGENTS[name](command=(script(folder / "bin", "agent", text),))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGINS)
def test_no_token_that_is_renewed_only_once_goes_in(
    bench: Bench, user_home: Path, tmp_path: Path, name: str
) -> None:
    """Renewed in a jail, it would log the user out. The network is shared, so the rest is there."""
    log_in(user_home, name)
    bench.run(agent(tmp_path, name, f"cat ~/{name} > /code/seen"), network="host")
    seen = (bench.workspace().code / "seen").read_text()
    assert "SECRET" in seen
    assert "RENEWS" not in seen


@pytest.mark.slow
@pytest.mark.parametrize("name", [GEMINI, OPENCODE])
def test_a_login_is_inside_where_no_gateway_can_put_it_in(
    bench: Bench, user_home: Path, tmp_path: Path, name: str
) -> None:
    log_in(user_home, name)
    bench.run(agent(tmp_path, name, f"cat ~/{name} > /code/seen; env > /code/env"))
    seen = (bench.workspace().code / "seen").read_text()
    assert "SECRET" in seen
    assert "sk-SECRET-KEY" not in seen + (bench.workspace().code / "env").read_text()


def test_a_login_opens_no_host_that_anyone_can_upload_to(user_home: Path) -> None:
    """Such as those of Google's Cloud Storage and Drive, and of GitHub's gists."""
    copilot = {"github-copilot": {"type": "oauth", "access": "x", "refresh": "x", "expires": 0}}
    (user_home / OPENCODE).parent.mkdir(parents=True)
    (user_home / OPENCODE).write_text(json.dumps(copilot))
    found = {
        host for kind in (Gemini, OpenCode) for host in kind().access(User({}, user_home)).hosts
    }
    vertex = User({"GOOGLE_GENAI_USE_VERTEXAI": "true"}, user_home)
    found |= set(Gemini().access(vertex).hosts)
    assert {"oauth2.googleapis.com", "api.githubcopilot.com"} <= found
    assert not {"www.googleapis.com", "*.googleapis.com", "api.github.com"} & found


def test_the_host_of_a_region_of_vertex_is_open(user_home: Path) -> None:
    """Gemini CLI 0.61 asks `REGION-aiplatform.googleapis.com`, unless the location is `global`."""
    vertex = {"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_CLOUD_LOCATION": "europe-west4"}
    hosts = AllowedHosts(Gemini().access(User(vertex, user_home)).hosts)
    assert HostPort("europe-west4-aiplatform.googleapis.com", 443) in hosts


@pytest.mark.parametrize("name", [GEMINI, OPENCODE])
def test_a_login_that_no_budget_counts_does_not_go_in_with_one(
    bench: Bench, user_home: Path, tmp_path: Path, name: str
) -> None:
    """The user can log in while the run, which was admitted before that, waits for its turn."""
    log_in(user_home, name)
    run = bench.run(agent(tmp_path, name, "true"), budgets=[{"of": "task", "tokens": 1000}])
    says = f"A budget cannot be kept: {AGENTS[name].name} has the login of its model in the sandbox"
    assert (run.outcome, str(run.answer)[: len(says)]) == ("failed", says)


@pytest.mark.slow
@pytest.mark.parametrize("name", [CLAUDE, CODEX])
def test_the_gateway_has_the_login(
    bench: Bench, user_home: Path, tmp_path: Path, name: str
) -> None:
    log_in(user_home, name)
    bench.run(agent(tmp_path, name, f"cat ~/{name} > /code/seen; env >> /code/seen"))
    seen = (bench.workspace().code / "seen").read_text()
    assert "sk-" in seen
    assert "SECRET" not in seen
    assert "RENEWS" not in seen


def test_a_login_that_has_expired_is_told(bench: Bench, user_home: Path, tmp_path: Path) -> None:
    log_in(user_home, CLAUDE)
    (user_home / CLAUDE).write_text(json.dumps({"claudeAiOauth": {"expiresAt": 1}}))
    run = bench.run(agent(tmp_path, CLAUDE, "true"))
    assert run.outcome == "failed"
    says = "the login of claude has expired: `claude -p hello` renews it, or log in again"
    assert run.answer == f"{says} (`claude /login`)"


@pytest.mark.slow
@pytest.mark.parametrize("network", ["host", "list"])
@pytest.mark.parametrize(
    "text",
    [
        f"echo new > ~/{GEMINI}",
        f"echo new > ~/x && mv ~/x ~/{GEMINI}",
        f"ln -sf /etc/passwd ~/{GEMINI}",
        "rm -rf ~/.gemini; ln -s /etc ~/.gemini",
        f"umount ~/{GEMINI}; rm ~/{GEMINI}; mkfifo ~/{GEMINI}",
    ],
)
def test_nothing_of_it_comes_back(
    bench: Bench, user_home: Path, tmp_path: Path, text: str, network: str
) -> None:
    login = log_in(user_home, GEMINI)
    bench.run(agent(tmp_path, GEMINI, text), network=network)
    assert (user_home / GEMINI).read_text() == login
    assert not (user_home / GEMINI).is_symlink()
    # And the next run in this HOME, with its links, has the login again.
    bench.run(agent(tmp_path, GEMINI, f"cat ~/{GEMINI} > /code/seen"), network=network)
    assert "SECRET" in (bench.workspace().code / "seen").read_text()


@pytest.mark.slow
def test_nothing_of_it_is_on_the_disk(bench: Bench, user_home: Path, tmp_path: Path) -> None:
    """Not even after a supervisor that was killed."""
    log_in(user_home, GEMINI)
    prompt = bench.start(agent(tmp_path, GEMINI, f"cat ~/{GEMINI} >&2; echo x; sleep {NAP}111"))
    bench.until_started(prompt)
    folder = bench.workspace().folder

    def found() -> list[Path]:
        files = (file for file in folder.rglob("*") if file.is_file())
        return [file for file in files if b"SECRET" in file.read_bytes()]

    stderr = bench.run_folder(prompt) / "stderr"
    assert found() == [stderr]
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).outcome == "failed"
    assert found() == [stderr]


def test_what_is_no_login_file_stays_outside(bench: Bench, user_home: Path, tmp_path: Path) -> None:
    log_in(user_home, CODEX)
    (user_home / CODEX).write_text("SECRET")
    bench.run(agent(tmp_path, CODEX, f"cat ~/{CODEX} > /code/seen; true"), network="host")
    assert (bench.workspace().code / "seen").read_text() == ""


def test_without_a_jail_the_agent_uses_the_file_itself(
    bench: Bench, user_home: Path, tmp_path: Path
) -> None:
    """It could anyway, and what it renews has to last."""
    login = log_in(user_home, CODEX)
    again = agent(tmp_path, CODEX, f"cat ~/{CODEX} > seen; echo renewed > ~/{CODEX}")
    bench.run(again, jail=False)
    assert (bench.workspace().code / "seen").read_text() == login
    assert (user_home / CODEX).read_text() == "renewed\n"
