"""Every operation from the command line, against a mock made by another project's program.

Prism builds a server out of the OpenAPI document and refuses requests that do not follow it, so
a mistake shared by our client and our own service is seen here.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from rebyte_cli.api.views import Question, QuestionItem
from rebyte_cli.tasks.questions import ItemAnswer, body
from tests.conftest import Done, need_tool
from tests.node_tools.install import CACHE
from tests.servers import KEY, RawServer, closed_port, reply
from tests.tools import lack

Run = Callable[..., Done]

PACKAGE = "@stoplight/prism-cli@5.14.2"
SPEC = Path(__file__).parents[1] / "rebyte-openapi.yaml"
ID = "550e8400-e29b-41d4-a716-446655440000"
ASKED = Question("am_1", 21026, (QuestionItem("Which?", (("a", ""), ("b", "")), False),), False)
ASKED_TWICE = ASKED._replace(items=ASKED.items * 2, batched=True)

# For each operation of the document: the words of a command, or several commands.
OPERATIONS: dict[str, list[str] | list[list[str]]] = {
    "createTask": [
        ["create", "Say hello"],
        ["create", "Test", "-x", "opencode", "-m", "lite", "-s", "pdf", "-g", "acme/shop",
         "-b", "main"],
        ["create", "More", "-w", ID, "-f", "a.csv", "--wait"],
    ],
    "listTasks": [["list"], ["list", "--all"], ["list", "--status", "completed"]],
    "getTask": [["get", ID], ["wait", ID], ["result", ID]],
    "deleteTask": ["delete", ID],
    "createPrompt": [["follow-up", ID, "Now fix it", "-s", "pdf", "-f", "a.csv"]],
    "cancelTask": ["cancel", ID],
    "setTaskVisibility": [
        ["share", ID, "--public", "--yes"], ["share", ID, "--private"], ["share", ID, "--shared"],
    ],
    "streamTaskEvents": [["create", "Hello", "--stream"], ["create", "Hi", "--stream", "-ojsonl"]],
    "getTaskContent": [["logs", ID], ["logs", ID, "--full"], ["logs", ID, "-o", "jsonl"]],
    "getPromptEvents": ["api", "GET", f"/tasks/{ID}/prompts/{ID}/events"],
    "answerQuestion": [
        ["api", "POST", f"/tasks/{ID}/answer", "-d", json.dumps(given)]
        for given in (
            body(ASKED, [ItemAnswer((0,))]),
            body(ASKED, [ItemAnswer(text="Neither")]),
            body(ASKED_TWICE, [ItemAnswer((1,)), ItemAnswer(text="Neither")]),
        )
    ],
    "createFile": ["file", "upload", "a.csv", "b.bin"],
    "listArtifacts": ["artifact", "list", ID],
    "uploadArtifacts": ["artifact", "put", ID, "a.csv"],
    "createArtifactUploadUrls": ["artifact", "put", ID, "large.mp4"],
    "downloadArtifact": ["artifact", "get", ID, "report.pdf"],
    "deleteArtifact": ["artifact", "delete", ID, "report.pdf"],
    "deleteAllArtifacts": ["artifact", "delete", ID, "--all", "--yes"],
    "createAgentComputer": [
        ["workspace", "create"], ["workspace", "create", "--name", "box", "--icon", "x"],
    ],
    "listAgentComputers": ["workspace", "list"],
    "getAgentComputer": ["workspace", "show", ID],
    "updateAgentComputer": [
        "api", "PATCH", f"/agent-computers/{ID}", "-d", '{"agent_instructions": "In English."}',
    ],
    "deleteAgentComputer": ["workspace", "delete", ID, "--yes"],
    "createWebhook": [
        ["webhook", "create", "https://hooks.example.com/a", "--event", "task.completed",
         "--event", "task.failed", "--description", "CI", "--secret", "-"],
    ],
    "listWebhooks": ["webhook", "list"],
    "getWebhookPublicKey": ["api", "GET", "/webhooks/public_key"],
    "getWebhook": ["webhook", "show", ID],
    "deleteWebhook": ["webhook", "delete", ID],
    "getCredits": ["credits"],
    "createTopup": [
        "api", "POST", "/billing/topups", "-d",
        '{"accountId": "acc_1", "amount": 1, "externalPaymentId": "pay_1"}',
    ],
    "getSandboxApiKey": ["api", "GET", "/sandbox/api-key"],
    "postSandboxApiKey": ["api", "POST", "/sandbox/api-key"],
    "createAccount": ["api", "POST", "/accounts", "-d", '{"name": "customer-7"}'],
    "updateAccountBilling": [
        "api", "PATCH", "/accounts/acc_1/billing", "-d", '{"billToParent": false}',
    ],
    "registerMcpServer": [
        "api", "POST", "/mcp/servers", "-d", '{"url": "https://tools.example.com/mcp"}',
    ],
    "getHealth": ["api", "GET", "/health"],
}  # fmt: skip


def operations() -> set[str]:
    """The operation ids of the document."""
    document = yaml.safe_load(SPEC.read_text())
    return {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "operationId" in operation
    }


def adapted(storage: str) -> str:
    """The document with its signed URLs on a server of ours, for what Prism cannot read."""
    document = yaml.safe_load(SPEC.read_text().replace("https://storage.example.com", storage))
    form = document["paths"]["/workspaces/{workspaceId}/artifacts"]["post"]["requestBody"]
    # A part that may be repeated is an array in the document, and Prism refuses every form for
    # it, one of curl's too: it reads each part as text.
    form["content"]["multipart/form-data"]["schema"]["properties"]["files"] = {"type": "string"}
    return str(yaml.safe_dump(document, sort_keys=False))


def prism() -> list[str]:
    """The words that start Prism, which npm installs once."""
    node, npm = need_tool("node"), need_tool("npm")
    folder = CACHE / PACKAGE.replace("/", "-")
    entry = folder / "node_modules" / "@stoplight" / "prism-cli" / "dist" / "index.js"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not entry.exists():
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE],
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            if done.returncode:
                lack(f"npm cannot install {PACKAGE}: {done.stderr[-500:]}")
    return [node, str(entry)]


@contextmanager
def mock(spec: Path, log: Path) -> Iterator[str]:
    """A running mock of the document; its base URL."""
    port = closed_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*prism(), "mock", "--host", "127.0.0.1", "--port", str(port), str(spec)],
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        by = time.monotonic() + 60
        while True:
            try:
                urlopen(Request(f"{url}/billing/credits", headers={"API_KEY": KEY})).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < by, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_the_table_names_every_operation() -> None:
    assert set(OPERATIONS) == operations()


@pytest.mark.slow
def test_every_operation_follows_the_document(
    inside: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a.csv").write_text("a,b\n")
    (home / "b.bin").write_bytes(b"")
    with (home / "large.mp4").open("wb") as large:
        large.truncate(9 * 1024 * 1024)
    refused = {}
    with RawServer(reply(200)) as storage:
        (home / "spec.yaml").write_text(adapted(storage.origin))
        with mock(home / "spec.yaml", home / "prism.log") as url:
            monkeypatch.setenv("REBYTE_API_URL", url)
            monkeypatch.setenv("REBYTE_API_KEY", KEY)
            for name, given in OPERATIONS.items():
                for words in given if isinstance(given[0], list) else [given]:
                    done = inside(*map(str, words), stdin="a-long-shared-value\n")
                    if done.status:
                        refused[" ".join(map(str, words))] = (name, *done)
        seen = storage.requests
    assert not refused
    assert [request.method for request in seen] == ["PUT"] * 5
    assert not any("api_key" in request.headers for request in seen)
