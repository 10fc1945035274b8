"""The MCP server on stdio: which tools it offers, and how they are described to clients."""

from __future__ import annotations

import inspect
import io
import os
import re
import signal
import sys
from types import FrameType
from typing import Any, BinaryIO, NamedTuple

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations, jsonrpc_message_adapter
from pydantic import PrivateAttr, ValidationError

from .. import __version__
from ..app import App
from ..errors import BadUsage
from ..output.records import ANSWERED, CREATED, PROMPT, TASK, TASK_ROW, RecordKind, results_schema
from ..system.signals import heeded
from .scope import Scope
from .tools import Tools

INSTRUCTIONS = """\
Runs coding-agent tasks with Rebyte, in cloud VMs or on this machine. `create` starts a task and \
returns its id; give the user its url. `wait` blocks until it has ended and reports progress; \
`result` reads the answer and `diff` the changes. A task is named by its id, a prefix of the id of \
a task created on this machine, or @last. An error has a `code`, and the `exit` status that the \
rebyte command would have ended with.\
"""

ENDS = 1000  # bytes at either end of a line that are searched for its id
# The id outside of everything nested: before it, or behind it.
_ID = rb'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,200}")'
_FLAT = rb"[^{}\[\]]*"
_FIRST = re.compile(rb"\s*\{" + _FLAT + _ID)
_LAST = re.compile(_ID + _FLAT + rb"\}\s*$")


class ToolSpec(NamedTuple):
    """What clients are told about a tool, besides its docstring and its parameters.

    `kind`: the record that it returns, with `is_list` the list of them under `data`; None for text.
    `read_only`, `destructive` and `idempotent` are the hints of the protocol.
    """

    name: str
    title: str
    kind: RecordKind | None
    is_list: bool = False
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False


SPECS = (
    ToolSpec("create", "Create a task", CREATED),
    ToolSpec("wait", "Wait for a task", TASK),  # with `schema`, it may send follow-ups
    ToolSpec("get", "Show a task", TASK, read_only=True),
    ToolSpec("result", "Read the answer", None, read_only=True),
    ToolSpec("follow_up", "Send a follow-up", PROMPT),
    ToolSpec("list", "List tasks", TASK_ROW, is_list=True, read_only=True),
    ToolSpec("answer", "Answer a question", ANSWERED),
    ToolSpec("cancel", "Cancel a task", TASK, destructive=True, idempotent=True),
    ToolSpec("logs", "Read the transcript", None, read_only=True),
    ToolSpec("diff", "Read the changes", None, read_only=True),
)


def build(app: App, scope: Scope | None = None) -> MCPServer[Any]:
    """The server with every tool, for the profile of `app`. Nothing is read or sent yet.

    `scope` is what tasks may work on; None for what every client may use.
    """
    tools = Tools(app, scope or Scope())
    definitions = results_schema()["$defs"]
    return MCPServer(
        "rebyte",
        title="Rebyte",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="ERROR",
        tools=[_tool(tools, spec, definitions) for spec in SPECS],
    )


def serve(app: App, scope: Scope) -> None:
    """Answer on stdin and stdout until stdin ends; a signal ends the process at once.

    The thread that reads stdin cannot be interrupted, so a signal cannot unwind the server. What
    is under way survives that, since it survives `kill -9`: intents are on disk before a request.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        app.close()
        os._exit(128 + number)

    for number in heeded((signal.SIGINT, signal.SIGTERM)):
        signal.signal(number, end)
    take_stdin()
    build(app, scope).run("stdio")


class _Tool(Tool):
    """A tool that refuses arguments with the code of a usage error, and those it does not know.

    The SDK ignores unknown arguments: a misspelled `repository` would create a task without one.
    """

    _tools: Tools = PrivateAttr()

    async def run(
        self, arguments: dict[str, Any], context: Any, convert_result: bool = False
    ) -> Any:
        """Call the tool, as the SDK does."""
        known = self.parameters["properties"]
        unknown = [name for name in arguments if name not in known]
        if unknown:
            hint = f"The parameters of {self.name} are {', '.join(known)}"
            return self._tools.refusal(BadUsage(f"no such parameter: {unknown[0]}", hint=hint))
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            return self._tools.refusal(BadUsage(_problems(error.__cause__)))


def _problems(error: ValidationError) -> str:
    """Which arguments do not fit and why, without their values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)


def _tool(tools: Tools, spec: ToolSpec, definitions: dict[str, Any]) -> Tool:
    function = getattr(tools, spec.name)
    tool = _Tool.from_function(
        function,
        name=spec.name,
        title=spec.title,
        description=inspect.getdoc(function),
        annotations=ToolAnnotations(
            title=spec.title,
            read_only_hint=spec.read_only,
            destructive_hint=spec.destructive,
            idempotent_hint=spec.read_only or spec.idempotent,
            open_world_hint=True,
        ),
    )
    assert isinstance(tool, _Tool)
    tool._tools = tools
    tool.parameters["additionalProperties"] = False
    if spec.kind is not None:
        kind = f"{spec.kind.name}-list" if spec.is_list else spec.kind.name
        schema = _output_schema(kind, definitions)
        tool.fn_metadata = tool.fn_metadata.model_copy(update={"output_schema": schema})
    return tool


def _output_schema(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The record's schema, as `rebyte schema --results` has it, with what it refers to.

    No key is required: a client refuses an answer that does not fit, and the API may leave some
    out. `notes` are lines for people, such as the question that a run waits on.
    """
    notes = {"type": "array", "items": {"type": "string"}}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {**definitions[name]["properties"], "notes": notes},
    }
    used = {each: definitions[each] for each in _references(schema, definitions)}
    if used:
        schema["$defs"] = {
            each: {key: value for key, value in body.items() if key != "required"}
            for each, body in used.items()
        }
    return schema


def _references(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """The names of the definitions that a schema refers to, directly or through another."""
    if isinstance(schema, list):
        return set().union(*(_references(item, definitions) for item in schema))
    if not isinstance(schema, dict):
        return set()
    found: set[str] = set()
    for key, value in schema.items():
        if key == "$ref":
            name = str(value).rpartition("/")[2]
            found |= {name} | _references(definitions[name], definitions)
        else:
            found |= _references(value, definitions)
    return found


def answerable(line: bytes) -> bytes:
    """The line, or for a request that the SDK would drop one that it answers with an error.

    Its parser refuses half of a surrogate pair, a number of thousands of digits, deep nesting; the
    client would wait for an answer until it timed out.
    """
    try:
        jsonrpc_message_adapter.validate_json(line.decode("utf-8", "replace"), by_name=False)
    except ValueError:
        found = _FIRST.match(line[:ENDS]) or _LAST.search(line[-ENDS:])
        if found is not None:
            method = b'"a request that is not valid JSON-RPC"'
            return b'{"jsonrpc":"2.0","id":%s,"method":%s}\n' % (found[1], method)
    return line


class _Lines(io.RawIOBase):
    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            line = self._source.readline()
            self._rest = answerable(line) if line.strip() else line
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def take_stdin() -> None:
    """Have `sys.stdin` give lines that can be answered; child processes have an empty one."""
    source = os.fdopen(os.dup(0), "rb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Lines(source)), encoding="utf-8")
