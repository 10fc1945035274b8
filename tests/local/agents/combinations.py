"""An agent that does what its prompt says, and servers that write down what reaches them.

A prompt has a `tag`, which stands for everything that its runs may reach and use.
"""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

KEY = "sk-ant-real"
EACH = 1000  # tokens of an answer
USAGE = {"input_tokens": 900, "output_tokens": 100}
TAG = re.compile(r'^\{"tag": "(t\d+)"', re.MULTILINE)
MEND = re.compile(r"mend (t\d+)")

# Its steps are lists: a name, and arguments. A prompt without them is what a check printed.
AGENT = r"""
import json, os, re, socket, subprocess, sys, time, urllib.error, urllib.request, uuid

def ask(tag, **more):
    url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
    body = json.dumps({"tag": tag, "inside": key == "sk-ant-real", **more}).encode()
    request = urllib.request.Request(url + "/v1/messages", body, {"x-api-key": key})
    try:
        with urllib.request.urlopen(request) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        print("refused", error.code, error.read().decode(), flush=True)
        time.sleep(1)

def visit(tag, host):
    try:
        urllib.request.urlopen(f"http://{host}/{tag}", timeout=20).read()
    except OSError as error:
        print("no", host, error, flush=True)

def connect(tag, port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(f"GET http://direct/{tag} HTTP/1.0\r\n\r\n".encode())
            sock.recv(100)
    except OSError as error:
        print("no direct", error, flush=True)

def write(_tag, name, text):
    with open(name, "a") as file:
        file.write(text + "\n")

def child(tag, count):
    code = "time.sleep(3600)"
    if count:
        code = f"for _ in range({count}): ask({tag!r})\n{code}"
    words = [sys.executable, "-I", sys.argv[0], code]
    subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL)

if len(sys.argv) > 1:
    exec(sys.argv[1])
    sys.exit()
text = sys.stdin.read()
found = re.findall(r'^\{"tag": .*$', text, re.M)
if found:
    plan = json.loads(found[-1])
else:
    mended = re.findall(r"mend (t\d+)", text)
    plan = {"tag": mended[-1] if mended else "none", "steps": [["ask"], ["write", "ok", "ok"]]}
tag = plan["tag"]
print("tag", tag, flush=True)
for name, *arguments in plan["steps"]:
    if name == "ask":
        ask(tag)
    elif name == "limit":
        ask(tag, limit=arguments[0])
    elif name == "visit":
        visit(tag, *arguments)
    elif name == "connect":
        connect(tag, *arguments)
    elif name == "write":
        write(tag, *arguments)
    elif name == "child":
        child(tag, *arguments)
    elif name == "hang":
        time.sleep(3600)
    elif name == "fail":
        sys.exit(1)
print("done", flush=True)
"""


class Asked(NamedTuple):
    """One request that a model has answered, for whose use the user pays."""

    tag: str
    inside: bool  # the agent had the key itself, and no gateway saw it


class LoggingModel(ThreadingHTTPServer):
    """A model with Anthropic's API, whose every answer uses EACH tokens."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Model)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seconds = seconds  # of an answer
        self.asked: list[Asked] = []
        self.limited: set[str] = set()

    def handle_error(self, *_: object) -> None:
        """A client may be killed at any moment."""


class _Model(BaseHTTPRequestHandler):
    server: LoggingModel

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tag = asked["tag"]
        if "limit" in asked and tag not in self.server.limited:
            self.server.limited.add(tag)
            self._answer(429, {"error": {"type": "rate_limit_error"}}, asked["limit"])
            return
        time.sleep(self.server.seconds)
        self.server.asked.append(Asked(tag, asked["inside"]))
        self._answer(200, {"model": "m", "usage": USAGE})

    def _answer(self, status: int, document: Any, seconds: int = 0) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        if seconds:
            self.send_header("Retry-After", str(seconds))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class Outside(ThreadingHTTPServer):
    """All that is outside: the user's proxy, and a service on loopback. `visits` are pairs of a
    host and the tag of who came there.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Outside)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.visits: list[tuple[str, str]] = []

    def handle_error(self, *_: object) -> None:
        """A client may be killed at any moment."""


class _Outside(BaseHTTPRequestHandler):
    server: Outside

    def do_GET(self) -> None:
        host, _, tag = self.path.removeprefix("http://").partition("/")
        self.server.visits.append((host, tag))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.server.visits.append((self.path, ""))
        self.send_error(502)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def serve(server: ThreadingHTTPServer) -> None:
    """Let a server answer in the background, until it is shut down."""
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()


def prompt(tag: str, steps: list[list[Any]]) -> str:
    """The prompt with which the agent takes these steps."""
    return json.dumps({"tag": tag, "steps": steps})


def tag_of(text: str) -> str | None:
    """The tag of a prompt, or of the check whose output it is."""
    found = TAG.findall(text) or MEND.findall(text)
    return found[-1] if found else None


def processes_below(folder: Path) -> dict[int, str]:
    """Processes that have to do with a folder: their command line, work or open files say so."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            links = [place / "cwd", *(place / "fd").iterdir()]
            names = [str(link.readlink()) for link in links]
        except OSError:
            continue
        if str(folder) in words or any(str(folder) in name for name in names):
            found[int(place.name)] = words
    return found
