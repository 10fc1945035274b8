"""A model of three vendors' APIs at once, which says what each answer used, whole or in pieces."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Tokens = tuple[int, int]  # read, written
Json = dict[str, Any]
PATHS = {
    "anthropic": "/v1/messages",
    "openai": "/v1/chat/completions",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/m:generateContent",
    "gemini-stream": "/v1beta/models/m:streamGenerateContent",
}


class Piece(NamedTuple):
    """One part of an answer, and the tokens that the answer has told with it."""

    data: Json
    told: Tokens


def pieces(path: str, tokens: Tokens, *, is_stream: bool) -> Iterator[Piece]:
    """The answer at `path` that used `tokens`: one piece, or those of its stream."""
    read, written = tokens
    if path.startswith(PATHS["anthropic"]):
        usage = {"input_tokens": read, "output_tokens": written}
        if not is_stream:
            yield Piece({"usage": usage}, tokens)
            return
        start = {"usage": usage | {"output_tokens": 1}}
        yield Piece({"type": "message_start", "message": start}, (read, 1))
        yield Piece({"type": "content_block_delta", "delta": {"text": "x"}}, (read, 1))
        yield Piece({"type": "message_delta", "usage": {"output_tokens": written}}, tokens)
        yield Piece({"type": "message_stop"}, tokens)
    elif path.startswith(PATHS["responses"]):
        whole: Json = {"usage": {"input_tokens": read, "output_tokens": written}}
        if is_stream:
            yield Piece({"type": "response.created", "response": {}}, (0, 0))
            yield Piece({"type": "response.output_text.delta", "delta": "x"}, (0, 0))
        yield Piece(
            {"type": "response.completed", "response": whole} if is_stream else whole, tokens
        )
    elif path.startswith(PATHS["openai"]):
        if is_stream:
            yield Piece({"choices": [{"delta": {"content": "x"}}], "usage": None}, (0, 0))
            yield Piece({"choices": [{"delta": {"content": "y"}}], "usage": None}, (0, 0))
        usage = {"prompt_tokens": read, "completion_tokens": written}
        yield Piece({"choices": [], "usage": usage}, tokens)
    else:
        for part in range(1, 7) if is_stream else (6,):
            so_far = written * part // 6
            usage = {"promptTokenCount": read, "candidatesTokenCount": so_far}
            yield Piece({"usageMetadata": usage}, (read, so_far))


class ServedAnswer:
    """What became of one request: `run` and `number` as it names itself, and the tokens `sent`."""

    def __init__(self, run: str, number: int) -> None:
        self.run, self.number = run, number
        self.sent: Tokens = (0, 0)
        self.is_whole = False


class WiresModel(ThreadingHTTPServer):
    """Serves requests whose JSON has `run`, `number`, `tokens` and `stream`.

    `before_piece` is called with the answer and the place of each piece, before it is sent.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, before_piece: Callable[[ServedAnswer, int], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Wires)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.before_piece = before_piece
        self.answers: list[ServedAnswer] = []

    def __enter__(self) -> WiresModel:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client may be killed at any moment."""


class _Wires(BaseHTTPRequestHandler):
    server: WiresModel

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = ServedAnswer(asked["run"], asked["number"])
        self.server.answers.append(answer)
        self.send_response(200)
        kind = "text/event-stream" if asked["stream"] else "application/json"
        self.send_header("Content-Type", kind)
        self.end_headers()
        read, written = asked["tokens"]
        found = pieces(self.path, (read, written), is_stream=asked["stream"])
        for place, piece in enumerate(found):
            self.server.before_piece(answer, place)
            text = json.dumps(piece.data)
            answer.sent = piece.told  # before it is: whoever reads it may be faster than this
            self.wfile.write((f"data: {text}\n\n" if asked["stream"] else text).encode())
            self.wfile.flush()
        answer.is_whole = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""
