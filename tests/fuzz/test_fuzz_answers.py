"""Whatever JSON the API answers to whatever command: a result, or one clear line."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rebyte_cli import RebyteClient
from rebyte_cli.errors import RebyteError
from rebyte_cli.history.history import History
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks import create

from ..commands.test_odd_answers import CALLS
from ..servers import KEY, RawServer, Request, json_reply, reply, transport_to
from ..task_board import Time
from . import ANY_JSON, STATUSES, ends_well, tries, within

AT = "2026-02-09T10:30:00.000Z"
PROMPT = {"id": "p1", "status": "succeeded", "submittedAt": AT, "completedAt": AT}
TASK = {
    "id": "abcd1234", "url": "https://app.example/run/abcd1234", "status": "completed",
    "title": "A title", "executor": "opencode", "model": "lite", "createdAt": AT,
    "completedAt": AT, "prompts": [PROMPT], "finalResult": "Done.", "workspaceId": "ws-1",
}  # fmt: skip
EVENTS = [
    {"seq": 0, "ts": AT, "eventType": "text", "payload": {"content": "Hello"}},
    {"seq": 1, "ts": AT, "eventType": "thinking", "payload": {"content": "Hm"}},
    {"seq": 2, "ts": AT, "eventType": "tool_use",
     "payload": {"id": "t1", "name": "bash", "input": {"command": "ls"}, "subPromptId": "p2"}},
    {"seq": 3, "ts": AT, "eventType": "tool_result",
     "payload": {"tool_use_id": "t1", "content": "a.txt", "is_error": False}},
    {"seq": 4, "ts": AT, "eventType": "ask_user_question",
     "payload": {"messageId": "m1", "actionId": "7", "question": "Which?",
                 "options": [{"label": "one"}, {"label": "two"}]}},
    {"seq": 5, "ts": AT, "eventType": "result", "payload": {"content": "Done."}},
]  # fmt: skip
DONE = {"status": "succeeded", "lastSeq": 5, "finalResult": "Done."}
CONTENT = {
    "id": "abcd1234", "status": "completed",
    "prompts": [{**PROMPT, "userPrompt": "Do it", "response": "Done.", "events": EVENTS}],
}  # fmt: skip
WEBHOOK = {"id": "abcd1234", "url": "https://hooks.example/a", "events": ["task.failed"],
           "isActive": True, "failureCount": 0, "createdAt": AT}  # fmt: skip
COMPUTER = {"id": "abcd1234", "name": "shop", "status": "ready", "createdAt": AT,
            "sandboxId": "s1"}  # fmt: skip
ARTIFACT = {"name": "b.txt", "size": 3, "url": "/v1/x", "createdAt": AT, "contentType": "a/b"}
# What a healthy API answers, by method and the end of the path. The first that fits.
HEALTHY: list[tuple[str, str, Any]] = [
    ("GET", r"/tasks(\?.*)?$", {"data": [TASK, TASK], "total": 2, "limit": 50, "offset": 0}),
    ("GET", r"/content(\?.*)?$", CONTENT),
    ("GET", r"/prompts/[^/]*/events$", {"promptId": "p2", "events": EVENTS}),
    ("POST", r"/prompts$", {"promptId": "p1"}),
    ("POST", r"/cancel$", {"id": "abcd1234", "status": "canceled", "canceledPrompts": 1}),
    ("PATCH", r"/visibility$", {"visibility": "public", "shareUrl": "https://app.example/s/1"}),
    ("POST", r"/tasks$", {**TASK, "status": "running"}),
    ("GET", r"/tasks/[^/]*$", TASK),
    ("POST", r"/files$", {"id": "f1", "filename": "a-1.txt", "uploadUrl": "BASE/put?sig=1"}),
    ("GET", r"/artifacts$", {"artifacts": [ARTIFACT]}),
    ("POST", r"/upload-url$", {"urls": [{"uploadUrl": "BASE/put?sig=1", "publicUrl": "x"}]}),
    ("GET", r"/webhooks$", {"webhooks": [WEBHOOK]}),
    ("GET", r"/public_key$", {"publicKey": "-----BEGIN PUBLIC KEY-----"}),
    ("POST", r"/webhooks$", WEBHOOK),
    ("GET", r"/webhooks/", WEBHOOK),
    ("GET", r"/agent-computers(\?.*)?$", {"data": [COMPUTER], "total": 1, "limit": 50}),
    ("POST", r"/agent-computers$", COMPUTER),
    ("GET", r"/agent-computers/", COMPUTER),
    ("GET", r"/credits$", {"balance": 12.5, "currency": "USD", "granted": 20}),
]


class Sick:
    """Answers as `HEALTHY` says, with `harm` pieces of each answer replaced or gone."""

    def __init__(self) -> None:
        self.prepare(0, [], 0, 200)
        self.base_url = ""

    def prepare(self, seed: int, pieces: list[Any], harm: int, status: int) -> None:
        self.luck = random.Random(seed)
        self.pieces, self.harm, self.status = pieces, harm, status

    def __call__(self, request: Request) -> bytes:
        path = request.path.removeprefix("/v1")
        if request.method == "PUT" or self.status == 204:
            return reply(200)
        if re.search(r"/tasks/[^/]*/events$", path):
            events = [("event", self.damaged(event)) for event in EVENTS]
            events.append(("done", self.damaged(DONE)))
            text = "".join(f"event: {name}\ndata: {json.dumps(d)}\n\n" for name, d in events)
            return reply(200, text, {"Content-Type": "text/event-stream"})
        fits = (
            document
            for method, pattern, document in HEALTHY
            if method == request.method and re.search(pattern, path)
        )
        document = self.damaged(next(fits, {}))
        text = json.dumps(document).replace("BASE", self.base_url)
        return reply(self.status, text, {"Content-Type": "application/json"})

    def damaged(self, healthy: Any) -> Any:
        document = [copy.deepcopy(healthy)]
        for _ in range(self.harm if self.pieces else 0):
            places = list(places_in(document))
            box, name = self.luck.choice(places)
            if isinstance(box, dict) and self.luck.random() < 0.2:
                del box[name]
            else:
                box[name] = copy.deepcopy(self.luck.choice(self.pieces))
        return document[0]


def places_in(box: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a document that could be something else, as its container and its key."""
    for name, value in box.items() if isinstance(box, dict) else enumerate(box):
        yield box, name
        if isinstance(value, dict | list):
            yield from places_in(value)


@pytest.fixture(scope="module")
def sick() -> Iterator[tuple[Sick, RawServer]]:
    answers = Sick()
    with RawServer(answers) as server:
        answers.base_url = server.base_url
        yield answers, server


# `open` is left out: with an answer that happens to be fine it shows a page.
LINES = [
    line.replace("--timeout 0.3", "--timeout 0.05")
    for line in (*CALLS.strip().splitlines(), "auth status", "list --fields id,status,title")
    if not line.startswith("open")
]
FOLLOW = "logs abcd1234 -f --timeout 0.05"
FORMATS = [[], ["-o", "table"], ["-o", "csv"], ["-o", "tsv"], ["-o", "jsonl"], ["-o", "id"], ["-v"]]


@pytest.mark.usefixtures("home")
@tries(150)
@given(
    line=st.sampled_from(LINES),
    form=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**32),
    pieces=st.lists(ANY_JSON, min_size=1, max_size=4),
    harm=st.integers(0, 3),
    status=st.sampled_from([200, 200, 200, 201, 204, 400, 404, 409, 422]),
)
@example(line="workspace list", form=[], seed=6139, pieces=[[]], harm=1, status=200)
@example(line=FOLLOW, form=["-o", "id"], seed=0, pieces=[[]], harm=1, status=200)
@example(line=FOLLOW, form=[], seed=4, pieces=[[]], harm=3, status=200)
def test_any_json_for_any_command(
    sick: tuple[Sick, RawServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    form: list[str],
    seed: int,
    pieces: list[Any],
    harm: int,
    status: int,
) -> None:
    answers, server = sick
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("abc")
    answers.prepare(seed, pieces, harm, status)
    words = line.split()
    extra = [] if "-o" in words and form[:1] == ["-o"] else form
    env = {"REBYTE_API_URL": server.base_url, "REBYTE_API_KEY": KEY}
    done = within(*words, *extra, home=tmp_path, env=env)
    ends_well(done, raw=words[0] == "api")
    assert done.status in STATUSES - {6} or "POST" in done.err or "create" in line


@tries(30)
@given(
    seed=st.integers(0, 2**32),
    pieces=st.lists(ANY_JSON, min_size=1, max_size=4),
    harm=st.integers(0, 3),
    status=st.sampled_from([200, 201, 201, 204, 400, 404]),
    key=st.sampled_from([None, "k"]),
)
def test_any_json_for_a_create_is_one_post(
    sick: tuple[Sick, RawServer],
    tmp_path: Path,
    seed: int,
    pieces: list[Any],
    harm: int,
    status: int,
    key: str | None,
) -> None:
    answers, server = sick
    answers.prepare(seed, pieces, harm, status)
    server.requests.clear()
    time = Time()
    history = History(tmp_path / f"{len(list(tmp_path.iterdir()))}.db", origin=server.origin)
    client = RebyteClient(transport=transport_to(server, clock=time.clock, sleep=time.sleep))
    try:
        made = create.create(
            client, history, {"prompt": "Do it"}, prompt="Do it", key=key, note=lambda _text: None,
            deadline=Deadline(None, clock=time.clock), sleep=time.sleep,
        )  # fmt: skip
    except RebyteError as problem:
        assert problem.exit_status in STATUSES  # noqa: PT017 -- the other way is as good
    else:
        assert isinstance(made["id"], str)
        assert made["id"]
    finally:
        history.close()
    assert len(server.seen("POST")) == 1
    assert time.now <= 25


@tries(60)
@given(pieces=st.lists(ANY_JSON, min_size=1, max_size=4), seed=st.integers(0, 2**32))
@example(pieces=[{"data": [{"id": ["x"]}]}], seed=0)
@example(pieces=[{"data": [{"id": {}, "completedAt": []}], "total": True}], seed=0)
def test_any_json_for_the_library(pieces: list[Any], seed: int) -> None:
    """Dicts and lists come out, or errors of the tree: never a KeyError of ours."""
    luck = random.Random(seed)
    with RawServer(lambda _request: json_reply(luck.choice(pieces))) as other:
        client = RebyteClient(transport=transport_to(other))
        for call in (
            lambda: client.get_task("t1"),
            lambda: client.list_tasks(),
            lambda: list(client.iter_tasks()),
            lambda: client.follow_up("t1", "x"),
            lambda: client.create_task("x"),
            lambda: client.task_content("t1", events=True),
            lambda: client.cancel_task("t1"),
            lambda: client.set_visibility("t1", "public"),
            lambda: client.prompt_events("t1", "p1"),
            lambda: client.list_artifacts("w1"),
            lambda: client.list_webhooks(),
            lambda: client.credits(),
            lambda: client.create_file("a.txt"),
            lambda: list(client.stream_events("t1")),
        ):
            try:
                found: Any = call()
            except RebyteError:
                continue
            assert isinstance(found, dict | list)
        client.close()
