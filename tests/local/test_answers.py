"""Questions that a run asks, and the answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.witness import Caller, Clock, conform_to, serving


def test_canceled_question_ends_the_stream_without_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[ask]] [[run=100ms]]")["id"]
        payload = _until_question(caller, task_id)[-1]["payload"]
        caller.call("POST", f"/tasks/{task_id}/cancel")
        name, done = list(caller.stream(task_id))[-1]
    conform_to("QuestionPayload", payload)
    assert (name, done["status"], done["finalResult"]) == ("done", "canceled", "")


def _until_question(caller: Caller, task_id: str) -> list[dict[str, Any]]:
    events = []
    for _, data in caller.stream(task_id):
        events.append(data)
        if data.get("eventType") == "ask_user_question":
            break
    return events


def test_question_parks_the_run_until_it_is_answered(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task_id = caller.create("Deploy [[ask]] [[run=2s]]")["id"]
        clock.advance(3600)
        assert caller.task(task_id)["status"] == "running"
        payload = _until_question(caller, task_id)[-1]["payload"]
        path = f"/tasks/{task_id}/answer"
        body = {
            "messageId": payload["messageId"],
            "actionId": int(payload["actionId"]),
            "answer": {"selectedOptions": [1], "customResponse": "use staging"},
        }
        for change, message in (
            ({"actionId": payload["actionId"]}, "actionId must be a whole number"),
            ({"actionId": int(payload["actionId"]) + 0.5}, "actionId must be a whole number"),
            ({"messageId": 1}, "messageId must be a string"),
            ({"answer": "yes"}, "answer must be an object"),
            ({"answer": {"selectedOptions": [2]}}, "selectedOptions must name options"),
            ({"answer": {"selectedOptions": "0"}}, "selectedOptions must be a list"),
        ):
            refused = caller.call("POST", path, {**body, **change})
            assert (refused.status, refused.code) == (400, "validation_error")
            assert refused.message.startswith(message)
        wrong = caller.call("POST", path, {**body, "messageId": "am_other"})
        assert (wrong.status, wrong.code) == (409, "conflict")
        # To JSON Schema a number without a fraction is an integer.
        body["actionId"] = float(body["actionId"])
        assert caller.call("POST", path, body).status == 200
        assert caller.call("POST", path, body).status == 409
        assert caller.task(task_id)["status"] == "running"
        clock.advance(1)
        task = caller.task(task_id)
    assert task["status"] == "completed"
    assert task["finalResult"].endswith("Answered: Stop here, use staging")


def test_batched_question(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create("[[ask=2]] [[run=0]]")["id"]
        payload = _until_question(caller, task_id)[-1]["payload"]
        assert len(payload["questions"]) == 2
        body = {"messageId": payload["messageId"], "actionId": int(payload["actionId"])}
        one = {"selectedOptions": [0]}
        path = f"/tasks/{task_id}/answer"
        assert caller.call("POST", path, {**body, "answer": one}).status == 400
        assert caller.call("POST", path, {**body, "answer": {"answers": [one]}}).status == 400
        both = {"answers": [one, {"selectedOptions": [], "customResponse": "neither"}]}
        assert caller.call("POST", path, {**body, "answer": both}).status == 200
        task = caller.task(task_id)
    assert task["finalResult"].endswith("Answered: Go on; neither")
