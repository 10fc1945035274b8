"""Random ways to create a task twice: a service that rewrites, a wrong clock, a broken list, kills.

Each trial loses a create, lets time pass on both scales (the wall clock, and the time since boot),
and repeats the command. However often, there is at most one task for each request, and each task
that is reported is that of the request.

A few trials by default; REBYTE_TEST_DOUBLES=1000 runs so many, and REBYTE_TEST_SEED moves on to
others.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.once.search import Pace
from tests.conftest import Done
from tests.farm import Farm
from tests.inside import inside
from tests.paces import paced_command
from tests.servers import Answer, Request, error_reply, json_reply, reset
from tests.test_never_twice import LISTS, REWRITES, ZONES, Clocks

TRIALS = int(os.environ.get("REBYTE_TEST_DOUBLES", "10"))
FIRST = int(os.environ.get("REBYTE_TEST_SEED", "0"))
LOG = os.environ.get("REBYTE_TEST_LOG")  # a file that gets a line about each trial
HOUR = 3600.0
PROMPTS = [
    "Prüfe  die Seite über\x07 uns &\nden Schlüssel sk-ab12cd34ef56gh78",
    "Review",
    "Review\nthe login test",
    "Review the login test, then say what was wrong with it and mend what can be mended",
    "100% <b>done</b>?",
    "Task 1",
    "Task 10",
    "x" * 5_000,
]
BROKEN: list[Callable[[], bytes]] = [
    lambda: json_reply({}),
    lambda: json_reply([]),
    lambda: json_reply({"data": [], "total": 0}),
    lambda: error_reply(400, "bad", "No"),
]
# A separate process, whose clocks are moved before the command starts.
CHILD = """
import os, time
from datetime import timedelta
passed, wrong = float(os.environ["PASSED"]), float(os.environ["WRONG"])
from rebyte_cli.api import calls
from rebyte_cli.once import server_clock
awake, local_now = server_clock.awake_since_boot, server_clock.local_now
calls.since_boot = server_clock.awake_since_boot = lambda: awake() + passed
server_clock.local_now = lambda: local_now() + timedelta(seconds=passed + wrong)
"""
# The 20 s of a search are shortened, and so are its pauses; nothing else is.
SWIFT = Pace(
    look_for=0.1, first_pause=0.02, longest_pause=0.04, later=0.05, shortest_scan=5.0,
    listed_after=0.2,
)  # fmt: skip


class Trial:
    """One seed: what goes wrong, and which command meets it."""

    def __init__(self, seed: int, home: Path, farm: Farm, clocks: Clocks) -> None:
        self.luck = luck = random.Random(seed)
        self.home, self.farm, self.clocks = home, farm, clocks
        self.kind = luck.choice(["once", "once", "batch", "batch", "killed"])
        self.prompts = [luck.choice(PROMPTS)]
        if self.kind == "batch":
            self.prompts = luck.sample(PROMPTS, luck.randint(1, 4))
        self.words = luck.choice([("--once", "k"), ()])
        self.pauses = [60.0, 20 * 60.0, 20 * 60.0, 5 * HOUR, 48 * HOUR]
        if self.kind == "killed" and not self.words:
            self.pauses = [1.0, 60.0, 600.0]  # later, it is another request
        self.makes = {prompt: luck.random() < 0.7 for prompt in self.prompts}
        self.tried: dict[str, int] = {}
        self.before: set[str] = set()  # tasks that were there before the first lost create
        self.strangers = luck.choice([0, 0, 1, 3])
        farm.shows = luck.choice([*REWRITES.values(), *[lambda prompt: prompt] * 6])
        farm.skew = luck.choice([0.0, 0.0, 3.0, -5.0, *(-zone * HOUR for zone in ZONES)])
        # Of each machine behind the service: which one answers changes with each create.
        self.skews = luck.choice([*[[farm.skew]] * 4, [0.0, -5 * HOUR], [0.0, 30 * HOUR]])
        farm.is_naive, farm.tells_time = luck.random() < 0.3, luck.random() < 0.85
        clocks.wrong = luck.choice([0.0, 0.0, -21 * HOUR, 21 * HOUR, -1000.0])
        # One machine behind the service whose clock is wrong by hours; it may make what is lost.
        self.ahead = HOUR * luck.choice([0.0, 0.0, 1.5, -1.5, 30.0, -30.0])
        farm.is_sorted = luck.random() < 0.5
        # From the first lost create on, prompts are shown in another way than those of before.
        self.changes = luck.choice([*[None] * 3, *REWRITES.values()])
        self.glitches = luck.random() < 0.4
        self.is_hidden = luck.random() < 0.2  # transcripts are not shown
        farm.hook = self.hook
        self.process: subprocess.Popen[bytes] | None = None

    def hook(self, request: Request) -> Answer | None:
        luck = self.luck
        if request.method == "POST":
            prompt = request.json["prompt"]
            self.farm.skew = luck.choice(self.skews)
            if prompt not in self.prompts:
                return None
            self.tried[prompt] = self.tried.get(prompt, 0) + 1
            if self.tried[prompt] > 1:
                return None
            if self.makes[prompt]:
                self.farm.shift += self.ahead
                self.farm._make(request.json)
                self.farm.shift -= self.ahead
            for number in range(self.strangers):
                self.farm._make({"prompt": f"A stranger's {number}"})
            if self.process is not None:
                self.process.kill()
            return reset
        if request.path.endswith("/content") and self.changes is not None and self.tried:
            task = self.farm.tasks.get(request.path.split("/")[3])
            if task is not None and task["id"] not in self.before and not self.farm.silent:
                shown = self.changes(task["prompt"])
                return json_reply({"prompts": [{"id": "p1", "userPrompt": shown}]})
        if self.glitches and request.path.startswith("/v1/tasks?") and luck.random() < 0.3:
            return luck.choice(BROKEN)() if luck.random() < 0.5 else self.odd_list(request)
        return None

    def odd_list(self, request: Request) -> Answer:
        page, self.farm.page = self.farm.page, self.luck.choice([*LISTS.values()])
        hook, self.farm.hook = self.farm.hook, lambda _request: None
        try:
            return self.farm._answer(request)
        finally:
            self.farm.page, self.farm.hook = page, hook

    def run(self) -> Done:
        if self.kind == "batch":
            lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in self.prompts]
            (self.home / "t.jsonl").write_text("".join(lines))
            return inside("batch", "t.jsonl", "--timeout", "20", cwd=self.home, env=self.farm.env)
        if self.kind == "once":
            words = ("create", self.prompts[0], "--once", "k")
            return inside(*words, cwd=self.home, env=self.farm.env)
        return self.child()

    def child(self) -> Done:
        moved = {"PASSED": str(self.clocks.passed), "WRONG": str(self.clocks.wrong)}
        words = [*paced_command(SWIFT, CHILD), "create", self.prompts[0], *self.words]
        with subprocess.Popen(
            words,
            cwd=self.home,
            env={**os.environ, **self.farm.env, **moved},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as self.process:
            out, err = self.process.communicate(timeout=60)
        assert self.tried, err.decode()
        return Done(self.process.returncode, out.decode(), err.decode())

    def later(self, seconds: float) -> None:
        self.clocks.passed += seconds
        self.farm.shift += seconds

    def play(self) -> list[int]:
        """The statuses of the command, run until it is over or three times more."""
        luck = self.luck
        for number in range(luck.randint(0, 2)):
            self.farm._make({"prompt": f"Before {number}"})
        if luck.random() < 0.3:  # the clocks may be compared, or this prompt is known
            earlier = luck.choice(["Something of ours", self.prompts[0]])
            self.prompts, prompts = [], self.prompts
            inside("create", earlier, "--once", "z", cwd=self.home, env=self.farm.env)
            self.prompts = prompts
            self.farm.made.clear()
            self.later(luck.choice([60.0, 5 * HOUR]))
        self.before = {*self.farm.tasks}
        self.farm.silent = luck.random() < 0.7
        ends = [self.run().status]
        self.farm.silent = self.is_hidden
        for _ in range(3):
            if ends[-1] == 0:
                break
            self.later(luck.choice(self.pauses))
            if luck.random() < 0.3:
                self.clocks.wrong = luck.choice([0.0, 7200.0, -7200.0])
            if luck.random() < 0.2:
                self.clocks.boot = f"boot{luck.random()}"
            ends.append(self.run().status)
            if self.kind == "killed" and not self.words and ends[-1] == 6:
                break  # it was told, so a further repetition is deliberate
        return ends


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch, quick_retries: None) -> None:
    monkeypatch.setattr("tests.inside.PACE", SWIFT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + TRIALS))
def test_no_request_makes_two_tasks(
    seed: int, home: Path, swift: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Farm() as farm:
        trial = Trial(seed, home, farm, Clocks(monkeypatch))
        ends = trial.play()
        doubled = {prompt: count for prompt, count in farm.made.items() if count > 1}
        assert {one for one in doubled if one in trial.prompts} == set(), (trial.kind, ends)
    if LOG:
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(f"{seed} {trial.kind} {ends} {sorted(trial.tried.values())}\n")


FAMILIES = [
    ["Review", "Review\nthe login test", "Review\nthe logout test", "REVIEW", "Review!"],
    ["Task 8", "Task 83", "Task 8\n3", "Task 38"],
    ["Fix it", "Fix it", "Fix it with the key sk-ab12cd34ef56gh78", "Fix it\nnow"],
]


class Mix:
    """One seed: requests that read alike, by several commands, most of them lost at first."""

    def __init__(self, seed: int, home: Path, farm: Farm, clocks: Clocks) -> None:
        self.luck = luck = random.Random(seed)
        self.home, self.farm, self.clocks = home, farm, clocks
        prompts = luck.choice(FAMILIES)
        self.requests = [
            (luck.choice(["create", "once", "batch"]), luck.choice(prompts))
            for _ in range(luck.randint(2, 4))
        ]
        farm.shows = luck.choice([*REWRITES.values(), *[lambda prompt: prompt] * 3])
        self.tried: set[int] = set()
        self.at = 0
        self.has: dict[int, str] = {}  # requests, and what was reported as their tasks
        farm.hook = self.hook

    def hook(self, request: Request) -> Answer | None:
        if request.method != "POST" or self.at in self.tried or self.luck.random() < 0.3:
            return None
        self.tried.add(self.at)
        if self.luck.random() < 0.6:
            self.farm._make(request.json)
        return reset

    def run(self, at: int) -> None:
        self.at = at
        kind, prompt = self.requests[at]
        if kind == "batch":
            path = self.home / f"{at}.jsonl"
            path.write_text(json.dumps({"prompt": prompt}) + "\n")
            words = ["batch", path.name, "--timeout", "20"]
        else:
            words = ["create", prompt, *(["--once", f"k{at}"] if kind == "once" else [])]
        done = inside(*words, cwd=self.home, env=self.farm.env)
        assert done.status in (0, 6), done.err
        if done.status == 0:
            self.has[at] = json.loads(done.out)["id"]

    def play(self) -> None:
        for _ in range(3):
            for at in range(len(self.requests)):
                if at not in self.has:
                    self.farm.silent = self.luck.random() < 0.3
                    self.run(at)
            passed = self.luck.choice([1.0, 60.0, 20 * 60.0])
            self.clocks.passed += passed
            self.farm.shift += passed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + TRIALS))
def test_no_request_gets_the_task_of_another(
    seed: int, home: Path, swift: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Farm() as farm:
        mix = Mix(seed, home, farm, Clocks(monkeypatch))
        mix.play()
        told = {at: farm.tasks[task_id]["prompt"] for at, task_id in mix.has.items()}
        assert told == {at: mix.requests[at][1] for at in mix.has}, mix.requests
        assert len(set(mix.has.values())) == len(mix.has), mix.requests
    if LOG:
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(f"{seed} mix {len(mix.has)} of {len(mix.requests)}\n")
