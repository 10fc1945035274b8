"""A model server without a model, for running real coding agents offline.

It speaks the four APIs that the agents use (OpenAI chat completions, OpenAI responses, Anthropic
messages, Gemini) and streams its answers as they do. What it answers is written in the prompt:

    [[write NAME TEXT]]   one tool call that writes TEXT to /code/NAME, then an answer
    [[shell COMMAND]]     one tool call that runs COMMAND in a shell, then an answer
    [[say ONE || TWO]]    the answer ONE; TWO once the prompts say that it is not what was wanted
    [[recall]]            an answer that quotes the `codeword` of an earlier prompt of the session
    [[silent]]            response headers, and then nothing until the client goes away
    [[401]]               that HTTP status, or any other
    [[cut]]               half an answer, again and again: the connection breaks
    (nothing)             an answer

Each answer used 10 tokens, 4 of them cached, and 5 new ones, 2 of them for reasoning. The newest
prompt with a directive counts. Requests that offer no tools (titles, summaries) get a
title. Start one with `Model()`, which also records what was asked:

    with Model() as model:
        run_agent(base_url=model.url)
    assert model.turns[-1].model == "scripted"
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import select
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted"
DIRECTIVE = re.compile(r"\[\[(write|shell|say|recall|silent|cut|\d{3})(?: (.*?))?\]\]", re.DOTALL)
ERRORS = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
NOT_WANTED = "Your answer is not JSON that fits"
CODEWORD = re.compile(r"codeword is (\w+)")
WORDS = re.compile(r"\S+\s*")
Json = dict[str, Any]
Event = tuple[str | None, Json | str]  # the SSE event's name, and its data
ids = itertools.count(1)


@dataclass
class Turn:
    """One request, the same for every API: `said` is ("user" | "result", text) in order."""

    said: list[tuple[str, str]]
    tools: dict[str, Json]  # name to the JSON Schema of its parameters
    model: str
    stream: bool
    results: int = field(init=False, default=0)  # tool results since the prompt that counts
    directive: str = field(init=False, default="")
    argument: str = field(init=False, default="")

    def __post_init__(self) -> None:
        for kind, text in self.said:
            found = DIRECTIVE.findall(text) if kind == "user" else []
            if found:
                (self.directive, self.argument), self.results = found[-1], 0
            elif kind == "result":
                self.results += 1


@dataclass
class Call:
    """A tool call; `arguments` is text for a tool that takes free text instead of JSON."""

    name: str
    arguments: Json | str
    id: str = field(default_factory=lambda: f"call_{next(ids)}")


def decide(turn: Turn) -> str | Call:
    """What the model says to this turn: text, or a tool call."""
    if not turn.tools:
        return "A title"
    if turn.directive == "write":
        name, _, text = turn.argument.partition(" ")
        return f"I wrote {name}." if turn.results else write_call(turn.tools, f"/code/{name}", text)
    if turn.directive == "shell":
        return "The command ran." if turn.results else shell_call(turn.tools, turn.argument)
    if turn.directive == "say":
        one, _, two = turn.argument.partition(" || ")
        is_told = any(NOT_WANTED in text for kind, text in turn.said if kind == "user")
        return two if is_told else one
    if turn.directive == "recall":
        words = [w for kind, text in turn.said if kind == "user" for w in CODEWORD.findall(text)]
        return f"You told me {words[0]}." if words else "You told me nothing."
    return "Nothing to do."


def write_call(tools: dict[str, Json], path: str, text: str) -> Call:
    """The call that writes a file, with what the agent offers for it."""
    for name, key in (("write", "filePath"), ("Write", "file_path"), ("write_file", "file_path")):
        if name in tools:
            return Call(name, {key: path, "content": text + "\n"})
    return shell_call(tools, f"printf '%s\\n' '{text}' > {path}")


def shell_call(tools: dict[str, Json], command: str) -> Call:
    """The call that runs a command, with what the agent offers for it."""
    if "exec" in tools:  # codex, for models that write JavaScript
        script = f"text(JSON.stringify(await tools.exec_command({{cmd: {json.dumps(command)}}})));"
        return Call("exec", script)
    for name in ("bash", "Bash", "run_shell_command", "exec_command", "shell_command"):
        if name in tools:
            key = "cmd" if "cmd" in tools[name].get("properties", {}) else "command"
            more = {"description": "Run it"} if name.lower() == "bash" else {}
            return Call(name, {key: command, **more})
    raise LookupError(f"no shell among {sorted(tools)}")


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or blocks of which some have text."""
    if isinstance(content, str):
        return content
    return "\n".join(b["text"] for b in content or [] if isinstance(b.get("text"), str))


class Chat:
    """OpenAI chat completions (opencode)."""

    @staticmethod
    def read(body: Json) -> Turn:
        kinds = {"user": "user", "tool": "result"}
        said = [
            (kinds[m["role"]], text_of(m.get("content")))
            for m in body["messages"]
            if m["role"] in kinds
        ]
        functions = [tool["function"] for tool in body.get("tools") or []]
        tools = {f["name"]: f.get("parameters") or {} for f in functions}
        return Turn(said, tools, body["model"], bool(body.get("stream")))

    @staticmethod
    def stream(turn: Turn, answer: str | Call) -> Iterator[Event]:
        def chunk(delta: Json, finish: str | None = None) -> Event:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return None, {**head, "choices": [choice]}

        head = {"id": f"c{next(ids)}", "object": "chat.completion.chunk", "model": turn.model}
        yield chunk({"role": "assistant", "content": ""})
        if isinstance(answer, Call):
            function = {"name": answer.name, "arguments": json.dumps(answer.arguments)}
            call = {"index": 0, "id": answer.id, "type": "function", "function": function}
            yield chunk({"tool_calls": [call]})
        else:
            for word in WORDS.findall(answer):
                yield chunk({"content": word})
        yield chunk({}, "tool_calls" if isinstance(answer, Call) else "stop")
        usage = {
            "prompt_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens": 5,
            "completion_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 15,
        }
        yield None, {**head, "choices": [], "usage": usage}
        yield None, "[DONE]"


class Responses:
    """OpenAI responses (codex)."""

    @staticmethod
    def read(body: Json) -> Turn:
        said = []
        for item in body["input"]:
            if item.get("role") == "user":
                said.append(("user", text_of(item["content"])))
            elif item.get("type", "").endswith("_call_output"):
                said.append(("result", json.dumps(item.get("output"))))
        tools = {
            t.get("name", t["type"]): t.get("parameters") or {} for t in body.get("tools") or []
        }
        return Turn(said, tools, body["model"], bool(body.get("stream")))

    @staticmethod
    def stream(turn: Turn, answer: str | Call) -> Iterator[Event]:
        def event(kind: str, **more: Any) -> Event:
            return kind, {"type": kind, **more}

        item: Json
        if isinstance(answer, str):
            part = {"type": "output_text", "text": answer, "annotations": []}
            item = {"type": "message", "role": "assistant", "content": [part]}
        elif isinstance(answer.arguments, str):
            item = {"type": "custom_tool_call", "input": answer.arguments}
        else:
            item = {"type": "function_call", "arguments": json.dumps(answer.arguments)}
        if isinstance(answer, Call):
            item |= {"call_id": answer.id, "name": answer.name}
        item |= {"id": f"item_{next(ids)}", "status": "completed"}
        usage = {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 15,
        }
        response = {"id": f"resp_{next(ids)}", "object": "response", "model": turn.model}
        yield event("response.created", response={**response, "status": "in_progress"})
        yield event("response.output_item.added", output_index=0, item=item)
        if isinstance(answer, str):
            place = {"output_index": 0, "content_index": 0, "item_id": item["id"]}
            for word in WORDS.findall(answer):
                yield event("response.output_text.delta", delta=word, **place)
        yield event("response.output_item.done", output_index=0, item=item)
        done = {**response, "status": "completed", "output": [item], "usage": usage}
        yield event("response.completed", response=done)


class Messages:
    """Anthropic messages (claude)."""

    @staticmethod
    def read(body: Json) -> Turn:
        said = []
        for message in body["messages"]:
            if message["role"] == "user":
                content = message["content"]
                blocks = [] if isinstance(content, str) else content
                results = [b for b in blocks if b["type"] == "tool_result"]
                said += [("result", json.dumps(block.get("content"))) for block in results]
                said.append(("user", text_of(content)))
        tools = {t["name"]: t.get("input_schema") or {} for t in body.get("tools") or []}
        return Turn(said, tools, body["model"], bool(body.get("stream")))

    @staticmethod
    def stream(turn: Turn, answer: str | Call) -> Iterator[Event]:
        def event(kind: str, **more: Any) -> Event:
            return kind, {"type": kind, **more}

        message: Json = {"id": f"msg_{next(ids)}", "type": "message", "role": "assistant"}
        message |= {"model": turn.model, "stop_reason": None, "content": []}
        usage = {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 5}
        yield event("message_start", message={**message, "usage": usage})
        if isinstance(answer, Call):
            block: Json = {"type": "tool_use", "id": answer.id, "name": answer.name, "input": {}}
            text = json.dumps(answer.arguments)
            deltas = [{"type": "input_json_delta", "partial_json": text}]
        else:
            block = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in WORDS.findall(answer)]
        yield event("content_block_start", index=0, content_block=block)
        for delta in deltas:
            yield event("content_block_delta", index=0, delta=delta)
        yield event("content_block_stop", index=0)
        reason = "tool_use" if isinstance(answer, Call) else "end_turn"
        yield event("message_delta", delta={"stop_reason": reason}, usage=usage)
        yield event("message_stop")


class Gemini:
    """Gemini's generateContent and streamGenerateContent."""

    @staticmethod
    def read(body: Json) -> Turn:
        said = []
        for content in body["contents"]:
            if content.get("role") != "model":
                for part in content["parts"]:
                    if "functionResponse" in part:
                        said.append(("result", json.dumps(part["functionResponse"])))
                    elif "text" in part:
                        said.append(("user", part["text"]))
        functions = [f for t in body.get("tools") or [] for f in t.get("functionDeclarations", [])]
        tools = {f["name"]: f.get("parametersJsonSchema") or {} for f in functions}
        return Turn(said, tools, body["model"], bool(body["stream"]))

    @staticmethod
    def stream(turn: Turn, answer: str | Call) -> Iterator[Event]:
        def chunk(part: Json, **more: str) -> Event:
            candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, **more}
            return None, {"candidates": [candidate], "usageMetadata": usage}

        usage = {
            "promptTokenCount": 10,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 15,
        }
        if isinstance(answer, Call):
            function = {"id": answer.id, "name": answer.name, "args": answer.arguments}
            yield chunk({"functionCall": function}, finishReason="STOP")
        else:
            for word in WORDS.findall(answer):
                yield chunk({"text": word})
            yield chunk({"text": ""}, finishReason="STOP")


APIS = (
    (re.compile(r"/chat/completions$"), Chat),
    (re.compile(r"/responses$"), Responses),
    (re.compile(r"/messages$"), Messages),
    (re.compile(r"/models/[^/]+:\w+$"), Gemini),
)


class Handler(BaseHTTPRequestHandler):
    """Reads a request with the API that its path names, and streams the answer."""

    protocol_version = "HTTP/1.1"
    server: Model

    def do_GET(self) -> None:
        """Model lists and reachability probes: there is nothing to see."""
        self.reply(404, {"error": {"message": "not found", "type": "not_found_error"}})

    do_HEAD = do_GET  # noqa: N815  (the names that http.server calls)

    def do_POST(self) -> None:
        """Answer one turn."""
        body, path = self.body(), self.path.partition("?")[0]
        api = next((api for pattern, api in APIS if pattern.search(path)), None)
        if api is None:
            return self.do_GET()
        if api is Gemini:
            body["model"], _, method = path.rpartition("/")[2].partition(":")
            body["stream"] = method == "streamGenerateContent"
        turn = api.read(body)
        self.server.turns.append(turn)
        self.server.bodies.append(json.dumps(body))
        self.server.headers.append({name.lower(): text for name, text in self.headers.items()})
        if turn.tools and (refusal := self.server.refusal()):
            return self.reply(*refusal)
        if turn.directive.isdigit() and turn.tools:
            code = int(turn.directive)
            kind = ERRORS.get(code, "api_error")
            error = {"type": kind, "code": code, "message": f"scripted {code}"}
            return self.reply(code, {"type": "error", "error": error})
        if not turn.stream:  # no agent asks so for a turn that matters
            return self.do_GET()
        self.start_stream()
        if turn.directive == "silent" and turn.tools:
            return self.wait_for_client_to_leave()
        events = list(api.stream(turn, decide(turn)))
        if turn.directive == "cut" and turn.tools:
            events = events[: len(events) // 2]
        for name, data in events:
            self.send_event(name, data)
        return None

    def body(self) -> Json:
        """The request's JSON body."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        value: Json = json.loads(data or b"{}")
        return value

    def reply(self, status: int, value: Json, headers: dict[str, str] | None = None) -> None:
        """Answer with one JSON document."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def start_stream(self) -> None:
        """Send the headers of an event stream, which the end of the connection ends."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def send_event(self, name: str | None, data: Json | str) -> None:
        """Send one server-sent event."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())

    def wait_for_client_to_leave(self) -> None:
        """Return when the connection is closed at the other end."""
        select.select([self.connection], [], [])

    def handle(self) -> None:
        """Serve the connection; a client that was killed is no error."""
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Model(ThreadingHTTPServer):
    """The server on a free loopback port: a context manager, which stops it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.turns: list[Turn] = []
        self.bodies: list[str] = []  # the whole requests, as JSON
        self.headers: list[dict[str, str]] = []
        # What answers the next request instead, if anything: status, document and headers.
        self.refusal: Callable[[], tuple[int, Json, dict[str, str]] | None] = lambda: None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Model:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


if __name__ == "__main__":  # to try an agent by hand
    with Model() as running:
        print(running.url, flush=True)
        threading.Event().wait()
