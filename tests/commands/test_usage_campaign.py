"""What the records say that runs used is what their models served, whatever was killed meanwhile.

What counts of an answer is what its model has said, as far as the gateway has read it. Of an answer
that was under way when a process was killed, that is at least what the agent has been told, and at
most what was sent; any other answer counts exactly.

A few runs by default; REBYTE_TEST_USAGE=200 makes so many, and REBYTE_TEST_SEED moves on to others.
REBYTE_TEST_LOG names a file that gets the figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.local.agents.bench import PYTHON
from tests.local.agents.wires import PATHS, ServedAnswer, Tokens, WiresModel
from tests.tools import need_jail
from tests.waiting import eventually

RUNS = int(os.environ.get("REBYTE_TEST_USAGE", "12"))
FIRST = int(os.environ.get("REBYTE_TEST_SEED", "0"))
LOG = os.environ.get("REBYTE_TEST_LOG")
AT_ONCE = 4
SECONDS = 120
Run = Callable[..., Done]
VARIABLES = {
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "x-api-key", ""),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY", "authorization", "Bearer "),
    "gemini": ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY", "x-goog-api-key", ""),
}
# It asks what its prompt says, and writes down what it is told before it reads on.
AGENT = r"""
import json, os, re, sys, urllib.request
asked = json.load(sys.stdin)
told = open("told", "a", buffering=1)
for request in asked["requests"]:
    url, key, header, kind = asked["variables"]
    headers = {header: kind + os.environ[key], "content-type": "application/json"}
    body = json.dumps(request).encode()
    place = os.environ[url] + request["path"]
    with urllib.request.urlopen(urllib.request.Request(place, body, headers)) as answer:
        for line in answer:
            for name, count in re.findall(rb'"(\w*[Tt]oken\w*)": (\d+)', line):
                told.write(f"{request['number']} {name.decode()} {count.decode()}\n")
print("done")
"""
READ = ("input_tokens", "prompt_tokens", "promptTokenCount")


class PlannedRun:
    """One seed: which requests a run makes, and what is killed before which piece of which."""

    def __init__(self, seed: int) -> None:
        luck = random.Random(seed)
        self.name = f"run{seed}"
        self.agent = luck.choice(list(VARIABLES))
        self.requests = [self._request(luck, number) for number in range(luck.randint(1, 4))]
        self.victim = luck.choice(["", "agent", "supervisor", "gateway", "supervisor", "all"])
        self.moment = luck.randrange(len(self.requests)), luck.randrange(5)
        self.waits = luck.random() < 0.5  # whether the model does until all are dead
        self.late = luck.choice([0.0, 0.0, 0.002, 0.01])
        self.folder = Path()  # of the run, once it is known
        self.is_known = threading.Event()
        self.is_killed = threading.Event()

    def _request(self, luck: random.Random, number: int) -> dict[str, Any]:
        is_stream = luck.random() < 0.6
        names = {"openai": ["openai", "responses"], "gemini": ["gemini"]}
        name = luck.choice(names.get(self.agent, [self.agent]))
        if name == "gemini" and is_stream:
            name = "gemini-stream"
        path = PATHS[name].removeprefix("/v1" if self.agent == "openai" else "")
        return {
            "run": self.name, "number": number, "path": path, "stream": is_stream,
            "tokens": [luck.randint(10, 9999), luck.randint(6, 999)],
        }  # fmt: skip

    @property
    def prompt(self) -> str:
        return json.dumps({"variables": VARIABLES[self.agent], "requests": self.requests})

    def kill(self) -> None:
        """Kill what the seed says, as far as it still lives."""
        self.is_known.wait(SECONDS)
        found = processes(self.folder)
        order = ("supervisor", "gateway", "agent")
        for name in order if self.victim == "all" else (self.victim,):
            with suppress(KeyError, ProcessLookupError):
                os.kill(found[name], signal.SIGKILL)
        self.is_killed.set()


def processes(folder: Path) -> dict[str, int]:
    """The supervisor of a run, its gateway, and its agent in the jail."""
    with suppress(OSError, ValueError, IndexError):
        supervisor = int((folder / "lock").read_text().split()[0])
        found, waiting = {"supervisor": supervisor}, [supervisor]
        for pid in waiting:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            waiting += map(int, children)
            for child in map(int, children):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"local.gateway" in b" ".join(words):
                    found["gateway"] = child
                elif words[0] == PYTHON.encode() and words[2:3] and words[2].endswith(b"agent.py"):
                    found["agent"] = child
        return found
    return {}


@pytest.fixture
def plans() -> dict[str, PlannedRun]:
    found = [PlannedRun(seed) for seed in range(FIRST, FIRST + RUNS)]
    return {plan.name: plan for plan in found}


@pytest.fixture
def model(plans: dict[str, PlannedRun], monkeypatch: pytest.MonkeyPatch) -> Iterator[WiresModel]:
    """The user's model of each API, which kills what the plans say."""

    def before_piece(answer: ServedAnswer, place: int) -> None:
        plan = plans[answer.run]
        if plan.victim and (answer.number, place) == plan.moment:
            threading.Timer(plan.late, plan.kill).start()
            if plan.waits:
                plan.is_killed.wait(SECONDS)

    with WiresModel(before_piece) as server:
        for agent, (url, key, *_) in VARIABLES.items():
            monkeypatch.setenv(url, server.url + ("/v1" if agent == "openai" else ""))
            monkeypatch.setenv(key, "sk-key-of-the-user")
        yield server


@pytest.fixture
def run(home: Path, local_inside: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with an agent for each API."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_LOCAL_QUIET", "1")
    program = home / "agent.py"
    program.write_text(AGENT)
    folders = [str(program), os.path.dirname(os.path.dirname(PYTHON))]
    text = f"[local]\nparallel = {AT_ONCE}\n"
    for agent in VARIABLES:
        text += f"[local.agents.my-{agent}]\ncommand = {[PYTHON, '-I', str(program)]}\n"
        text += f'read = {folders}\nmodel = "{agent}"\n'
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    config.chmod(0o600)
    return local_inside


def told_to(folder: Path) -> dict[int, Tokens]:
    """The tokens that the agent of the run in `folder` was told of, for each of its requests."""
    found: dict[int, list[int]] = {}
    with suppress(FileNotFoundError):
        for line in (folder.parent.parent / "code" / "told").read_text().splitlines():
            number, name, count = line.split()
            tokens = found.setdefault(int(number), [0, 0])
            tokens[name not in READ] = max(tokens[name not in READ], int(count))
    return {number: (read, written) for number, (read, written) in found.items()}


def check(plan: PlannedRun, task: dict[str, Any], answers: list[ServedAnswer]) -> str:
    """What is wrong with the record of a run, or an empty text."""
    usage = task.get("usage") or {"requests": 0, "inputTokens": 0, "outputTokens": 0}
    told = told_to(plan.folder)
    least, most = [0, 0, 0], [0, 0, 0]
    for answer in answers:
        known = told.get(answer.number, (0, 0))
        # The agent has read each answer before it asks again; that of the last one may have reached
        # no gateway, if something was killed.
        is_sure = answer.is_whole and not (plan.is_killed.is_set() and answer is answers[-1])
        for place, count in enumerate(answer.sent if is_sure else known):
            least[place] += count
        for place, count in enumerate(answer.sent):
            most[place] += count
        least[2] += bool(any(answer.sent if is_sure else known))
        most[2] += bool(any(answer.sent))
    counted = [usage["inputTokens"], usage["outputTokens"], usage["requests"]]
    if all(low <= found <= high for low, found, high in zip(least, counted, most, strict=True)):
        return ""
    return f"{plan.name} ({plan.victim} at {plan.moment}): {least} <= {counted} <= {most}, {task}"


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_the_records_have_what_was_served(
    run: Run, home: Path, model: WiresModel, plans: dict[str, PlannedRun]
) -> None:
    of_task: dict[str, PlannedRun] = {}
    for plan in plans.values():
        created = run("create", plan.prompt, "-x", f"my-{plan.agent}", "-o", "json")
        assert created.status == 0, created.err
        document = created.json
        of_task[document["id"]] = plan
        state = home / ".local/state/rebyte/local/workspaces" / document["workspaceId"]
        (plan.folder,) = (state / "runs").iterdir()
        plan.is_known.set()

    def ended() -> list[Any]:
        listed: list[Any] = run("list", "--all", "-o", "json").json["data"]
        active = [task for task in listed if task["status"] in ("running", "queued", "pending")]
        return [] if active else listed

    tasks = {task["id"]: task for task in eventually(ended, seconds=60 + 20 * RUNS)}
    assert tasks.keys() == of_task.keys()
    wrong, sums = [], Counter[str]()
    for task_id, plan in of_task.items():
        shown = run("get", task_id, "-o", "json").json
        assert shown.get("usage") == tasks[task_id].get("usage")
        answers = [answer for answer in model.answers if answer.run == plan.name]
        wrong += filter(None, [check(plan, shown, answers)])
        if not plan.victim:
            assert shown["status"] == "completed", shown
        sums.update({k: v for k, v in (shown.get("usage") or {}).items() if k != "costUsd"})
    assert not wrong, "\n".join(wrong)
    (total,) = run("usage", "-o", "json").json["data"]
    assert {name: total[name] for name in sums} == dict(sums)
    if LOG:
        sent = [sum(answer.sent[place] for answer in model.answers) for place in (0, 1)]
        kills = Counter(plan.victim or "none" for plan in plans.values() if plan.is_killed.is_set())
        with open(LOG, "a") as log:
            log.write(
                f"{FIRST}+{RUNS}: {dict(sums)} of {len(model.answers)} requests and {sent} tokens"
                f" served; killed {dict(kills)}\n"
            )
