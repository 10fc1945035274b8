"""`rebyte mcp`, called over pipes of a real process by two clients: the SDK's and the inspector."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from jsonschema import Draft202012Validator

import rebyte_cli
from rebyte_cli.api.failures import refusal
from rebyte_cli.app import App
from rebyte_cli.config.credentials import LOCAL_KEY
from rebyte_cli.errors import BadUsage, Next, RebyteError, Term
from tests.conftest import COMMAND, IN_BACKGROUND, Done
from tests.fork_server import commands
from tests.node_tools import install as node_tools
from tests.servers import Line, RawServer, error_reply, json_reply

if TYPE_CHECKING:  # each worker imports this file, and only one runs it: the SDK takes a while
    from mcp import Client

Run = Callable[..., Done]

INSPECTOR = {"name": "test", "version": "1"}
INVALID = "rbk_invalid"  # the local service refuses it


Story = Callable[["Client"], Awaitable[None]]


def told(server: Any, story: Story) -> None:
    """Connect the SDK's client to a server, and let it tell its story."""
    from mcp import Client

    async def main() -> None:
        with anyio.fail_after(120):
            async with Client(server) as client:
                await story(client)

    anyio.run(main)


def served(*, story: Story) -> None:
    """Serve the tools in this process."""
    from rebyte_cli.mcp.server import build

    app = App(dict(os.environ))
    app.set_option("no_input", True)
    try:
        told(build(app), story)
    finally:
        app.close()


def served_by_a_process(*options: str, after: Sequence[str] = (), story: Story) -> None:
    """Start `rebyte OPTIONS mcp AFTER`, and end it after the story."""
    from mcp.client.stdio import StdioServerParameters, stdio_client

    server = StdioServerParameters(
        command=str(commands() / "rebyte"),
        args=[*options, "mcp", *after],
        env=dict(os.environ),
    )
    with open(os.devnull, "w") as errors:
        told(stdio_client(server, errlog=errors), story)


async def called(client: Client, tool: str, **arguments: Any) -> Any:
    """The structured answer of a tool, or the text of one that has none."""
    answer = await client.call_tool(tool, arguments)
    text = "".join(part.text for part in answer.content if part.type == "text")
    assert not answer.is_error, text
    return answer.structured_content or text


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The whole structured answer of a call that fails."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error, answer
    found = answer.structured_content
    assert found is not None
    assert json.loads(answer.content[0].text) == found  # type: ignore[union-attr]  # always text
    return found


@pytest.mark.slow
def test_the_tools_and_what_clients_are_told_about_them(home: Path) -> None:
    async def story(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert " ".join(tools) == ("create wait get result follow_up list answer cancel logs diff")
        hints = {name: tool.annotations for name, tool in tools.items() if tool.annotations}
        assert {name for name, hint in hints.items() if hint.read_only_hint} == {
            *("get", "result", "list", "logs", "diff")  # `wait` can send answers back
        }
        assert [name for name, hint in hints.items() if hint.destructive_hint] == ["cancel"]
        assert not hints["wait"].idempotent_hint
        for tool in tools.values():
            assert tool.description, tool.name
            assert "\n  " not in tool.description
            for schema in filter(None, (tool.input_schema, tool.output_schema)):
                Draft202012Validator.check_schema(schema)
            for name, about in tool.input_schema.get("properties", {}).items():
                assert about.get("description"), (tool.name, name)
        assert tools["create"].input_schema["required"] == ["prompt"]
        assert tools["list"].output_schema["properties"]["data"]["type"] == "array"

    served(story=story)  # without a key, which only a call needs


@pytest.mark.slow
def test_a_task_from_create_to_diff(home: Path, service: Any) -> None:
    """Every tool but `answer`, on the way that an agent takes."""

    async def story(client: Client) -> None:
        prompt = f"Say hello and {LOCAL_KEY} [[run=2ms]]"
        created = await called(client, "create", prompt=prompt, once="k")
        again = await called(client, "create", prompt=prompt, once="k")
        assert again["id"] == created["id"]
        waited = await called(client, "wait", task="@last", timeout=20)
        assert (waited["status"], waited["workspaceId"]) == ("completed", created["workspaceId"])
        assert await called(client, "result", task=created["id"][:8])
        sent = await called(client, "follow_up", task="@last", prompt="And again [[run=2ms]]")
        await called(client, "wait", task="@last", prompt_id=sent["promptId"])
        shown = await called(client, "get", task="@last")
        assert [prompt["status"] for prompt in shown["prompts"]] == ["succeeded"] * 2
        (row,) = (await called(client, "list"))["data"]
        assert (row["id"], row["status"]) == (created["id"], "completed")
        found = await called(client, "list", status="failed")
        assert found == {"data": []}
        assert (await called(client, "cancel", task="@last"))["status"] == "completed"
        transcript = await called(client, "logs", task="@last")
        assert "> Say hello and [hidden]" in transcript
        assert LOCAL_KEY not in transcript
        assert (await refused(client, "diff", task="@last"))["error"]["code"] == "not_found"

    served_by_a_process(story=story)


@pytest.mark.slow
def test_an_answer_that_fits_a_schema(home: Path, service: Any) -> None:
    """A follow-up repeats the schema, in which the simulation finds a better answer."""

    async def story(client: Client) -> None:
        schema = {"type": "integer", "$comment": "[[say=7]]"}
        created = await called(client, "create", prompt="[[say=x]] [[run=2ms]]", schema=schema)
        waited = await called(client, "wait", task=created["id"], schema=schema)
        assert (waited["output"], len(waited["prompts"])) == (7, 2)
        never = {"type": "integer"}
        await called(client, "follow_up", task="@last", prompt="[[say=x]]", schema=never)
        error = await refused(client, "wait", task="@last", schema=never)
        assert (error["error"]["code"], error["error"]["exit"]) == ("schema_mismatch", 10)
        assert len(error["task"]["prompts"]) == 5
        wrong = await refused(client, "create", prompt="Hi", schema={"type": "strin"})
        assert "not a JSON Schema" in wrong["error"]["message"]

    served_by_a_process(story=story)


@pytest.mark.slow
def test_a_task_that_has_ended_is_left_unchanged_by_cancel(home: Path, aim: Any) -> None:
    """Some services refuse to cancel such a task."""
    conflict = error_reply(409, "conflict", "Task is not running")
    known = json_reply({"id": "t1", "status": "failed"})

    async def story(client: Client) -> None:
        assert (await called(client, "cancel", task="t1"))["status"] == "failed"

    with RawServer(lambda request: conflict if request.method == "POST" else known) as server:
        aim(server)
        served(story=story)


@pytest.mark.slow
def test_waiting_reports_progress_and_can_be_cancelled(home: Path, service: Any) -> None:
    async def story(client: Client) -> None:
        heard: list[float] = []
        twice = anyio.Event()

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            heard.append(done)
            if len(heard) == 2:
                twice.set()

        async def cancel() -> None:
            await twice.wait()
            await called(client, "cancel", task="@last")

        await called(client, "create", prompt="Work [[run=1h]]")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            answer = await client.call_tool("wait", {"task": "@last"}, progress_callback=progress)
        assert answer.structured_content["error"]["code"] == "task_canceled"
        assert heard == sorted(heard)
        await called(client, "create", prompt="Work [[run=1h]]")
        with anyio.move_on_after(0.5):
            await client.call_tool("wait", {"task": "@last"})
        late = await refused(client, "wait", task="@last", timeout=0.2)
        assert (late["error"]["code"], late["error"]["exit"]) == ("timeout", 124)

    served_by_a_process(story=story)


def test_a_question_is_shown_and_answered(home: Path, service: Any) -> None:
    async def story(client: Client) -> None:
        await called(client, "create", prompt="Go on [[run=1h]]")
        await called(client, "create", prompt="Go [[ask]] [[run=2ms]]")
        with anyio.fail_after(60):
            while "notes" not in (found := await called(client, "get", task="@last")):
                await anyio.sleep(0.02)
        assert "is waiting for an answer" in found["notes"][0]
        (waiting,) = (await called(client, "list", status="waiting"))["data"]
        assert (waiting["id"], waiting["question"]) == (found["id"], True)
        unclear = await refused(client, "answer", task="@last")
        assert "1" in unclear["error"]["hint"]
        assert (await called(client, "answer", task="@last", options=[1]))["answered"] is True
        assert (await called(client, "wait", task="@last"))["status"] == "completed"
        assert await called(client, "list", status="waiting") == {"data": []}

    served(story=story)


def test_errors_have_the_codes_of_the_command(home: Path, service: Any) -> None:
    async def story(client: Client) -> None:
        await called(client, "create", prompt="Go wrong [[fail]] [[run=2ms]]")
        failed = await refused(client, "wait", task="@last")
        assert (failed["error"]["code"], failed["error"]["exit"]) == ("task_failed", 10)
        assert failed["error"]["message"].endswith(" failed: The prompt contains [[fail]].")
        assert failed["task"]["status"] == "failed"
        unknown = await refused(client, "get", task="11111111-2222-3333-4444-555555555555")
        assert (unknown["error"]["code"], unknown["error"]["status"]) == ("not_found", 404)
        usage = await refused(client, "create", prompt="x", branch="main")
        assert (usage["error"]["code"], usage["error"]["exit"]) == ("usage", 2)
        assert usage["error"]["message"] == "`branch` requires `repository`"
        for tool, task in (("create", {}), ("follow_up", {"task": "@last"})):
            empty = await refused(client, tool, prompt="\0 \0", **task)
            assert empty["error"]["message"] == "the prompt is empty"

    served(story=story)


def test_arguments_that_a_tool_does_not_take_are_refused(home: Path, service: Any) -> None:
    """A `repo` that is ignored would be a task without a repository."""

    async def story(client: Client) -> None:
        unknown = await refused(client, "create", prompt="x", repo="acme/shop")
        assert unknown["error"]["message"] == "no such parameter: repo"
        assert "repository" in unknown["error"]["hint"]
        invalid = await refused(client, "list", limit=0)
        assert (invalid["error"]["code"], invalid["error"]["exit"]) == ("usage", 2)
        assert invalid["error"]["message"].startswith("limit: ")
        missing = await refused(client, "get")
        assert missing["error"]["message"] == "task: Field required"
        assert await called(client, "list") == {"data": []}

    served(story=story)


@pytest.mark.slow
def test_every_request_is_answered(home: Path, service: Any) -> None:
    """Those that the SDK's parser refuses too, with the id that they have, wherever it stands."""
    odd = {
        "half of a surrogate pair": r'"a\ud800"',
        "a long number": "9" * 5000,
        "deep nesting": "[" * 5000 + "]" * 5000,
        "a lone value": "nope",
    }
    about = {"protocolVersion": "2025-06-18", "capabilities": {}}
    hello = {"id": 1, "method": "initialize", "params": {**about, "clientInfo": INSPECTOR}}
    lines = [json.dumps({"jsonrpc": "2.0", **hello})]
    for number, prompt in enumerate(odd.values()):
        params = f'{{"name": "create", "arguments": {{"prompt": {prompt}, "id": 1}}}}'
        call = f'"method": "tools/call", "params": {params}'
        lines += [
            f'{{"jsonrpc": "2.0", "id": "first {number}", {call}}}',
            f'{{{call}, "jsonrpc": "2.0", "id": "last {number}"}}',
        ]
    lines.append('{"jsonrpc": "2.0", "id": 7, "method": "ping"}')
    with subprocess.Popen(
        [commands() / "rebyte", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.flush()
        told = [json.loads(process.stdout.readline()) for _ in lines]
        process.stdin.close()
        assert process.wait(60) == 0
    answers = {answer["id"]: answer for answer in told}
    assert set(answers) == {json.loads(line)["id"] for line in (lines[0], lines[-1])} | {
        f"{place} {number}" for place in ("first", "last") for number in range(len(odd))
    }
    assert "result" in answers[7]
    errors = [answer["error"] for name, answer in answers.items() if isinstance(name, str)]
    assert all("not valid JSON-RPC" in str(error) for error in errors), errors


def test_a_slow_create_reports_progress(home: Path, aim: Any) -> None:
    """A client ends a call that says nothing; the API may block a minute until the VM is up."""
    twice = threading.Event()

    def create(line: Line) -> None:
        assert twice.wait(60)
        line.send(json_reply({"id": "t1", "status": "running"}, 201))

    async def story(client: Client) -> None:
        heard: list[str | None] = []

        async def progress(_done: float, _total: float | None, message: str | None) -> None:
            heard.append(message)
            if len(heard) == 2:
                twice.set()

        answer = await client.call_tool("create", {"prompt": "x"}, progress_callback=progress)
        assert not answer.is_error

    with RawServer([create]) as server:
        aim(server)
        served(story=story)


def messages(node: ast.AST) -> Iterator[str]:
    """The strings below a node but docstrings and parts of messages that the tools word."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Next", "Term"):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from messages(child)


def test_no_error_speaks_of_the_command_line() -> None:
    """Options and commands, in what the modules under the tools may say, are data."""
    package = Path(rebyte_cli.__file__).parent
    reached = (
        *("create", "list", "logs", "patch"),
        *("questions", "repository", "result"),
    )
    texts = {
        text
        for name in (
            *(f"tasks/{each}" for each in reached),
            *("history/references", "once/operation", "once/request_kinds"),
        )
        for text in messages(ast.parse((package / f"{name}.py").read_text(encoding="utf-8")))
        if " " in text.strip()
    }
    assert any("shows what happened" in text for text in texts)
    of_a_shell = re.compile(r"(^|\s)-{1,2}[a-z]|`rebyte ")
    for text in texts:
        told = re.sub(r"`git [^`]*`|\(-P local[^)]*\)", "", text)
        assert not of_a_shell.search(told), told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("See " + Next("wait", "t1"), "See the tool `wait`"),
        (Next("result", "t1", "--wait") + " waits for it", "the tool `wait` waits for it"),
        (Next("answer", "t1", "--option", "N"), "the tool `answer`"),
        (Next("follow-up", "t1"), "the tool `follow_up`"),
        ("Run " + Next("auth", "login"), "Run `rebyte -P work auth login`"),
        ("See " + Next("man", "mcp"), "See `rebyte man mcp`"),
        (
            Next("create", "--once", "K", "--forget"),
            "`rebyte -P work create --once K --forget` in a shell",
        ),
        ("Use " + Term("-g", "`repository`"), "Use `repository`"),
    ],
)
def test_a_message_names_tools_and_parameters(text: str, said: str) -> None:
    assert hint_in_tools(BadUsage("no", hint=text)) == said


def hint_in_tools(error: RebyteError) -> str | None:
    """The hint that a client is told, of a server for the profile `work`."""
    from rebyte_cli.mcp.scope import Scope
    from rebyte_cli.mcp.tools import Tools

    app = App()
    app.set_option("profile", "work")
    told: Any = Tools(app, Scope()).refusal(error).structured_content
    hint: str | None = told["error"]["hint"]
    return hint


@pytest.mark.parametrize("fix", ["Install it: apt install bubblewrap", None])
def test_what_only_the_command_line_does_is_left_out(fix: str | None) -> None:
    """Such as `create --no-jail`, in hints of the local service."""
    body = {"error": {"message": "no", "hint": "Install it. Or pass --no-jail", "fix": fix}}
    assert hint_in_tools(refusal("POST", "/tasks", 400, body)) == fix


@pytest.mark.slow
def test_the_inspector_calls_the_tools(home: Path, service: Any) -> None:
    """Another client: the command line of the MCP inspector, on the TypeScript SDK."""
    inspector = node_tools.need("mcp-inspector")
    server = home / "rebyte"  # `-m` of `python -m` would be an option of the client
    server.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    server.chmod(0o755)

    def ask(*words: str) -> Any:
        called = [*inspector, str(server), "mcp", "--method", *words]
        done = subprocess.run(called, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def call(tool: str, *arguments: str) -> Any:
        words = [word for argument in arguments for word in ("--tool-arg", argument)]
        return ask("tools/call", "--tool-name", tool, *words)

    # Each call lists the tools first, to read their parameters.
    created = call("create", "prompt=Say hello [[run=2ms]]", "once=inspected")
    assert (created["isError"], created["structuredContent"]["status"]) == (False, "running")
    failed = call("get", "task=11111111-2222-3333-4444-555555555555")
    assert (failed["isError"], failed["structuredContent"]["error"]["exit"]) == (True, 4)


def test_without_a_key_a_call_says_so(home: Path) -> None:
    async def story(client: Client) -> None:
        missing = await refused(client, "list")
        assert (missing["error"]["code"], missing["error"]["exit"]) == ("missing_key", 3)

    served(story=story)


def test_a_rejected_key_is_not_repeated(home: Path, service: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("REBYTE_API_KEY", INVALID)

    async def story(client: Client) -> None:
        rejected = await refused(client, "list")
        assert (rejected["error"]["code"], rejected["error"]["exit"]) == ("invalid_api_key", 3)
        assert INVALID not in json.dumps(rejected)

    served(story=story)


@pytest.mark.slow
def test_the_local_service_lives_as_long_as_the_server(home: Path) -> None:
    """`-P local` needs no key and no second process."""

    async def story(client: Client) -> None:
        created = await called(client, "create", prompt="Say hello [[run=2ms]]")
        assert (await called(client, "wait", task=created["id"]))["status"] == "completed"

    served_by_a_process("-P", "local", story=story)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "numbers", "status"),
    [
        ([], [signal.SIGTERM], 143),
        ([], [signal.SIGINT], 130),
        (IN_BACKGROUND, [signal.SIGINT, signal.SIGTERM], 143),
    ],
    ids=["term", "ctrl-c", "background"],
)
def test_a_signal_ends_the_server(
    home: Path, by: list[str], numbers: list[signal.Signals], status: int
) -> None:
    process = subprocess.Popen(
        [*by, *COMMAND, "mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    client = {"name": "test", "version": "1"}
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
    process.stdin.write(json.dumps(hello).encode() + b"\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "rebyte"
    for number in numbers:
        process.send_signal(number)
    assert process.wait(60) == status
    process.stdin.close()


def test_an_unknown_profile_starts_no_server(inside: Run) -> None:
    done = inside("mcp", "-P", "absent")
    assert done.status == 4
    assert "absent" in done.err


def test_without_the_sdk_it_names_the_extra(home: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'mcp' else find(name, *rest)\n"
        "from rebyte_cli.cli import run\n"
        "sys.exit(run(['mcp', '-o', 'json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == "missing_extra"
    assert "-m pip install" in done.stderr
    assert "rebyte-cli" not in done.stderr


def test_an_entry_is_not_installed_for_a_server_that_cannot_start(
    inside: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rebyte_cli.commands.mcp.find_spec", lambda _name: None)
    done = inside("mcp", "--install", "codex")
    assert done.status == 1
    assert "requires the MCP SDK" in done.err
    assert not (home / ".codex").exists()
    assert inside("mcp", "--install", "codex", "--dry-run").status == 0


@pytest.mark.parametrize(
    ("options", "profile"),
    [([], "work"), (["-P", "play"], "play"), (["-P", "absent"], None)],
)
def test_the_entry_has_the_profile_that_was_named(
    inside: Run, home: Path, options: list[str], profile: str | None
) -> None:
    """The agent starts the server without the REBYTE_PROFILE of this shell."""
    inside("profile", "create", "work")
    inside("profile", "create", "play", "--use")
    done = inside("mcp", "--install", "gemini", *options, env={"REBYTE_PROFILE": "work"})
    assert done.status == (4 if profile is None else 0)
    if profile is not None:
        document = json.loads((home / ".gemini/settings.json").read_text())
        assert document["mcpServers"]["rebyte"]["args"][-3:] == ["mcp", "-P", profile]
        by_default = inside("mcp", "--install", "codex", "--dry-run").out
        assert "play" not in by_default  # the default profile may become another


def test_the_entry_starts_nothing_of_the_folder_that_an_agent_works_in(
    inside: Run, home: Path, tmp_path: Path
) -> None:
    inside("mcp", "--install", "gemini")
    entry = json.loads((home / ".gemini/settings.json").read_text())["mcpServers"]["rebyte"]
    for name in ("click.py", "rebyte_cli.py"):
        (tmp_path / name).write_text("open('ran', 'w')")
    words = [entry["command"], *entry["args"], "--help"]
    done = subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE, timeout=60, check=True)
    assert b"--install" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_a_link_in_a_project_is_not_written_through(inside: Run, home: Path) -> None:
    """A repository can have `.mcp.json` lead to any file of its user; a link at home is theirs."""
    target = home / "elsewhere.json"
    for content in (None, "{}"):
        if content is not None:
            target.write_text(content)
        if not (home / ".mcp.json").is_symlink():
            (home / ".mcp.json").symlink_to(target)
        done = inside("mcp", "--install", "claude")
        assert done.status == 2
        assert f".mcp.json is a link to {target}, which is not followed" in done.err
        assert target.exists() == (content is not None)
    assert target.read_text() == "{}"
    (home / ".gemini").mkdir()
    (home / ".gemini/settings.json").symlink_to(target)
    assert inside("mcp", "--install", "gemini").status == 0
    assert "mcpServers" in target.read_text()


@pytest.mark.parametrize(
    ("client", "path", "table", "theirs"),
    [
        ("claude", ".mcp.json", "mcpServers", '{"mcpServers": {"other": {"command": "x"}}}'),
        ("codex", ".codex/config.toml", "mcp_servers", '# mine\nmodel = "o"\n'),
        ("gemini", ".gemini/settings.json", "mcpServers", '{"theme": "dark"}'),
        ("opencode", ".config/opencode/opencode.json", "mcp", "{}"),
    ],
)
def test_install_adds_an_entry_and_keeps_the_rest(
    inside: Run, home: Path, client: str, path: str, table: str, theirs: str
) -> None:
    read = tomllib.loads if path.endswith(".toml") else json.loads
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(theirs)
    done = inside("mcp", "--install", client, "-P", "local", "-o", "json")
    assert done.json == {"path": str(file), "changed": True}, done.err
    written = read(file.read_text())
    entry = written[table].pop("rebyte")
    words = entry["command"] if client == "opencode" else [entry["command"], *entry["args"]]
    assert words[-3:] == ["mcp", "-P", "local"]
    before = {table: {}, **read(theirs)}
    assert written == before
    assert file.read_text().startswith("# mine") or client != "codex"
    shown = inside("mcp", "--install", client, "--dry-run", "-P", "local").out
    assert read(shown)[table]["rebyte"] == entry
    assert inside("mcp", "--install", client, "-P", "local", "-o", "json").json["changed"] is False
    other = inside("mcp", "--install", client)  # another profile: the entry may have been edited
    assert other.status == 2
    deep = ("a = " if path.endswith(".toml") else '{"a": ') + "[" * 5000
    for unreadable in ("{ broken", deep):
        file.write_text(unreadable)
        assert inside("mcp", "--install", client).status == 2
        assert file.read_text() == unreadable


def test_install_leaves_the_modes_of_a_project_alone(inside: Run, home: Path) -> None:
    folder = home / "project"
    folder.mkdir()
    folder.chmod(0o775)
    assert inside("mcp", "--install", "claude", cwd=folder).status == 0
    assert folder.stat().st_mode & 0o777 == 0o775
    plain = folder / "plain"
    plain.touch()
    file = folder / ".mcp.json"
    assert file.stat().st_mode == plain.stat().st_mode
    file.chmod(0o640)
    file.write_text("{}")
    before = file.stat().st_ino
    assert inside("mcp", "--install", "claude", cwd=folder).status == 0
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.stat().st_ino != before  # replaced in one step


@pytest.mark.parametrize(("client", "name"), [("claude", ".mcp.json"), ("codex", "config.toml")])
def test_install_keeps_the_line_ends_and_the_byte_order_mark(
    inside: Run, home: Path, monkeypatch: pytest.MonkeyPatch, client: str, name: str
) -> None:
    """As editors on Windows write them."""
    monkeypatch.setenv("CODEX_HOME", str(home))
    theirs = 'model = "o"' if client == "codex" else '{\r\n  "theme": "dark"\r\n}'
    (home / name).write_bytes(f"\ufeff{theirs}\r\n".encode())
    done = inside("mcp", "--install", client, cwd=home)
    assert done.status == 0, done.err
    text = (home / name).read_bytes().decode()
    assert text.startswith("\ufeff" + theirs[:12])
    assert "rebyte" in text
    assert text.count("\n") == text.count("\r\n") > 3


def test_install_goes_where_the_agent_was_told_to_look(
    inside: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEX_HOME", str(home / "elsewhere"))
    assert inside("mcp", "--install", "codex").status == 0
    assert "rebyte" in (home / "elsewhere" / "config.toml").read_text()
