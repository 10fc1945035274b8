"""A batch at three real places: here, over ssh, and at a served service. Everything is killed.

REBYTE_TEST_PLACES=300 REBYTE_TEST_SEED=7 runs it with more lines, kills and another luck.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Done
from tests.farm import lines_of
from tests.fork_server import commands
from tests.ssh_host import SshHost
from tests.waiting import eventually

COUNT = int(os.environ.get("REBYTE_TEST_PLACES", "24"))
SEED = int(os.environ.get("REBYTE_TEST_SEED", "1"))
ROUNDS = max(4, COUNT // 12)  # of kills
ON = "local:2,box:3,served:3"


class Served:
    """`rebyte local serve` with its own home, on one port, whatever happens to its process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.home.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.env = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Answer, from now on."""
        words = [*COMMAND, "local", "serve", "--port", str(self.port)]
        env = {**os.environ, **self.env}
        self.process = subprocess.Popen(
            words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers, what="the served service")

    def _answers(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def places(tmp_path: Path, home: Path) -> Iterator[tuple[SshHost, Served]]:
    box, served = SshHost(tmp_path / "host"), Served(tmp_path / "served")
    box.start()
    served.start()
    (home / ".config/rebyte").mkdir(parents=True)
    (home / ".config/rebyte/config.toml").write_text(
        '[profiles.box]\nssh = "box"\n[profiles.served]\n'
        f'base_url = "http://127.0.0.1:{served.port}/v1"\nkey_command = ["echo", "rbk_local"]\n'
    )
    yield box, served
    served.kill()
    box.stop()


@pytest.mark.slow
def test_whatever_is_killed_no_line_is_doubled_and_none_is_lost(
    places: tuple[SshHost, Served], home: Path, rebyte: Callable[..., Done]
) -> None:
    box, served = places
    luck = random.Random(SEED)
    prompts = [f"Line {number} [[run={luck.randrange(50, 900)}ms]]" for number in range(COUNT)]
    (home / "p.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    words = ["batch", "--text", "p.txt", "--on", ON, "-o", "jsonl", "--resend-after", "15"]
    log = (home / "log").open("ab")

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [commands() / "rebyte", *words],
            cwd=home,
            env={**os.environ, **box.env},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

    def client() -> None:
        nonlocal process
        process.kill()
        process.wait()
        process = begin()

    def service() -> None:
        served.kill()
        time.sleep(luck.uniform(0, 2))
        served.start()

    def ssh() -> None:
        box.cut()

    def records() -> int:
        """How often the journal says that a line is sent, or has a task."""
        with suppress(OSError):
            data = (home / "p.txt.journal").read_bytes()
            return data.count(b'"sending"') + data.count(b'"created"')
        return 0

    process = begin()
    done_by: Counter[str] = Counter()
    for number in range(ROUNDS):
        some = records() + 3
        while records() <= some and process.poll() is None:
            time.sleep(0.02)
        time.sleep(luck.uniform(0, 0.5))
        if process.poll() is not None:
            break
        what = (client, service, ssh)[number % 3]
        what()
        done_by[what.__name__] += 1
    if luck.random() < 0.5:
        process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(120)
    process.kill()
    process.wait()
    for _ in range(10):
        done = rebyte(*words, env=box.env, timeout=300)
        if done.status != 6:
            break
    assert done.status == 0, done.err + (home / "log").read_text()
    rows = lines_of(done.out)
    made = {name: made_at(rebyte, env) for name, env in homes(box, served).items()}
    every = Counter(title for titles in made.values() for title in titles)
    wanted = Counter(prompt.partition(" [[")[0] for prompt in prompts)
    assert every == wanted, (every - wanted, wanted - every, done_by, made)
    assert done_by["client"], "nothing was killed"
    assert {row["status"] for row in rows} == {"completed"}
    ends = Counter(row["place"] for row in rows)
    assert ends == {name: len(titles) for name, titles in made.items() if titles}


def homes(box: SshHost, served: Served) -> dict[str, dict[str, str]]:
    """What each place is for a command there."""
    there = {"HOME": str(box.home), "XDG_STATE_HOME": str(box.home / "state")}
    return {"local": {}, "box": there, "served": served.env}


def made_at(rebyte: Callable[..., Done], env: dict[str, str]) -> list[str]:
    """The prompts of the tasks that a place has."""
    done = rebyte("-P", "local", "list", "--all", "-o", "jsonl", env=env)
    return [str(task["title"]) for task in lines_of(done.out)]
