"""A HOME whose agents all talk to the scripted model, and a repository for them to work on."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ..conftest import COMMAND, Done
from .install import AGENTS
from .scripted_model import MODEL, Model

KEY = "sk-key-of-the-user"
LIMIT = 300  # seconds for one call of the command: the slowest agent needs ten on a busy machine


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> str:
    """Each agent in turn."""
    name: str = request.param
    return name


@pytest.fixture
def model(home: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """The model server; the user's settings of every agent name it."""
    del state  # only to be set before a service starts
    monkeypatch.setenv("REBYTE_LOCAL_QUIET", "1")
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    with Model() as running:
        openai = {"baseURL": f"{running.url}/v1", "apiKey": "{env:SCRIPTED_KEY}"}
        provider = {"npm": "@ai-sdk/openai-compatible", "options": openai, "models": {MODEL: {}}}
        opencode = {"model": f"scripted/{MODEL}", "provider": {"scripted": provider}}
        write(home / ".config/opencode/opencode.json", json.dumps(opencode))
        write(
            home / ".codex/config.toml",
            f"""
            model = "{MODEL}"
            model_provider = "scripted"
            [model_providers.scripted]
            name = "scripted"
            base_url = "{running.url}/v1"
            env_key = "SCRIPTED_KEY"
            wire_api = "responses"
            """,
        )
        write(home / ".gemini/settings.json", json.dumps({"model": {"name": MODEL}}))
        monkeypatch.setenv("SCRIPTED_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        monkeypatch.setenv("GEMINI_API_KEY", KEY)
        configure(home)
        yield running


@pytest.fixture
def state(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the folder with the state, by which `processes` knows the runs of this test.

    pytest's own names return in its next session, which could take what is left of a session that
    failed or was killed for its own.
    """
    name = uuid4().hex
    monkeypatch.setenv("XDG_STATE_HOME", str(home / name))
    return name


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit."""
    folder = tmp_path / "project"
    write(folder / "README.md", "A project.\n")
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    for words in (("init", "-q", "-b", "main"), ("add", "."), (*author, "commit", "-qm", "Start")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def run(
    local: Callable[..., Done], model: Model, repository: Path, state: str
) -> Iterator[Callable[..., Done]]:
    """`rebyte -P local …` inside the repository; at the end no process of an agent is left."""

    def call(*arguments: str, status: int = 0, stdin: str = "") -> Done:
        done = local(*arguments, stdin=stdin, cwd=repository, timeout=LIMIT)
        assert done.status == status, f"rebyte {arguments}\n{done.out}\n{done.err}"
        return done

    yield call
    try:
        all_gone(state)
    finally:
        call("local", "reset", "--yes")  # a test that failed may not have ended its runs


@pytest.fixture
def pages(model: Model) -> Iterator[str]:
    """The link that `rebyte local serve` prints for a browser."""
    command = [*COMMAND, "local", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        yield next(line for line in serving.stderr if "?key=" in line).split()[-1]
        serving.terminate()


def configure(home: Path, **settings: object) -> None:
    """Write `[local]` of config.toml: four agents at once, and `settings`."""
    import tomli_w

    text = tomli_w.dumps({"local": {"parallel": 4, **settings}})
    write(home / ".config/rebyte/config.toml", text)


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def processes(state: str) -> list[str]:
    """Command lines of processes that name this folder or, in a jail, have mounted a part of it."""
    marker, found = f"/{state}/".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            mounts = (process / "mountinfo").read_bytes()
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if line and (marker in line or marker in mounts):
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def gateways(state: str) -> list[int]:
    """The gateways of the runs in this folder, whose parents name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"local.gateway" in (process / "cmdline").read_bytes():
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if f"/{state}/".encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                    found.append(int(process.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def all_gone(state: str) -> None:
    """Fail unless all processes of the runs end soon: the agents, then those who write the patch.

    That takes 0.2 s on an idle machine.
    """
    eventually(lambda: not processes(state), otherwise=lambda: processes(state))


def eventually(
    condition: Callable[[], bool],
    seconds: float = 120,
    otherwise: Callable[[], object] = lambda: "waited in vain",
) -> None:
    """Wait until the condition holds; fail with what `otherwise` tells when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)
