"""The library as a script uses it, and any honest HTTP client, against `rebyte local serve`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rebyte_cli
from tests.conftest import COMMAND
from tests.servers import RawServer, json_reply


@pytest.fixture
def served(home: Path) -> Iterator[str]:
    """The base URL of a `rebyte local serve` that runs as a process of its own."""
    process = subprocess.Popen(
        [*COMMAND, "local", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) in (0, 130)


def script(base_url: str, text: str) -> str:
    """Run a script with the key and the address in its environment; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "REBYTE_API_KEY": "rbk_test", "REBYTE_API_URL": base_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_written_for_the_vendors_client(served: str) -> None:
    printed = script(
        served,
        """
        from rebyte_cli import RebyteClient, APIError

        client = RebyteClient()
        task = client.create_task(prompt="Read every PDF", skills=["pdf"])
        first = client.wait_for_task(task["id"], poll_interval=0.1)
        client.follow_up(task["id"], prompt="Now sum them up")
        second = client.wait_for_task(task["id"], poll_interval=0.1, timeout_seconds=20)
        other = client.create_task(prompt="As markdown", workspace_id=task["workspaceId"])
        assert other["workspaceId"] == task["workspaceId"]
        assert client.set_visibility(task["id"], "public")["shareUrl"]
        listed = [row["id"] for row in client.list_tasks(limit=10)["data"]]
        assert listed == [other["id"], task["id"]], listed
        assert client.delete_task(task["id"]) is None
        try:
            client.get_task(task["id"])
        except APIError as error:
            print(first["status"], second["status"], error.status_code, error.message)
            assert error.response["error"]["code"] == "not_found"
        try:
            client.wait_for_task(other["id"], timeout_seconds=0)
        except TimeoutError as error:
            print("late")
        """,
    )
    assert printed.splitlines()[0].startswith("completed completed 404 ")


def test_side_by_side_as_the_vendors_examples_do(served: str) -> None:
    printed = script(
        served,
        """
        import concurrent.futures
        from rebyte_cli import RebyteClient

        client = RebyteClient()

        def run(prompt):
            task = client.create_task(prompt=prompt, github_url="acme/shop", branch_name="main")
            return client.wait_for_task(task["id"], poll_interval=0.1)

        with concurrent.futures.ThreadPoolExecutor(max_workers=10) as pool:
            for result in pool.map(run, ["Audit", "Document", "Test"]):
                print(result["title"], result["status"])
        """,
    )
    assert printed == "Audit completed\nDocument completed\nTest completed\n"


def test_a_missing_key_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from rebyte_cli import RebyteClient

    monkeypatch.delenv("REBYTE_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"app\.rebyte\.ai/settings/api-keys"):
        RebyteClient()


def test_a_plain_urllib_program_can_do_all_of_it(served: str) -> None:
    def call(method: str, path: str, body: Any = None, key: str = "rbk_any") -> Any:
        request = urllib.request.Request(
            served + path, method=method, data=json.dumps(body).encode() if body else None
        )
        request.add_header("API_KEY", key)
        if body:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return None if answer.status == 204 else json.loads(answer.read())

    task = call("POST", "/tasks", {"prompt": "Say hello", "skills": ["pdf"]})
    assert call("GET", f"/tasks/{task['id']}")["status"] in ("running", "completed")
    assert call("POST", f"/tasks/{task['id']}/prompts", {"prompt": "Again"})["promptId"]
    assert call("GET", "/tasks?limit=10&offset=0")["total"] == 1
    assert call("PATCH", f"/tasks/{task['id']}/visibility", {"visibility": "shared"})
    assert call("DELETE", f"/tasks/{task['id']}") is None
    with pytest.raises(urllib.error.HTTPError) as refused:
        call("GET", "/tasks", key="rbk_invalid")
    assert refused.value.code == 401
    assert json.loads(refused.value.read())["error"]["code"] == "invalid_api_key"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_client_that_was_forked_has_connections_of_its_own(home: Path) -> None:
    """On a shared one each process reads the answers to what the other asked."""
    with RawServer(json_reply({"id": "t1", "status": "running"})) as server:
        script(
            server.base_url,
            """
            import os
            from rebyte_cli import RebyteClient

            client = RebyteClient()
            client.get_task("before")
            child = os.fork()
            client.get_task("after" if child else "forked")
            if child:
                assert os.waitpid(child, 0)[1] == 0
            """,
        )
    met = {request.path.rpartition("/")[2]: request.connection for request in server.requests}
    assert met["before"] == met["after"] != met["forked"]


def test_the_library_has_its_names() -> None:
    for name in rebyte_cli.__all__:
        assert getattr(rebyte_cli, name)
