"""The egress of the jail: what a program inside reaches, and what it learns."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.gateway import request_record
from tests.waiting import eventually

from .bench import NAP, PYTHON, Bench, gone, python, script

KEY = "sk-ant-real-key-of-the-user"


class ModelServer(ThreadingHTTPServer):
    """A model on this machine's loopback, which answers in pieces as long as it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.headers: list[dict[str, str]] = []
        self.may_end = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.headers.append({name.lower(): v for name, v in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: 1\n\n")
        self.wfile.flush()
        self.server.may_end.wait(60)
        self.wfile.write(b"data: 2\n\n")

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """The user's model, whose address and key are in the environment."""
    with ModelServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        yield server
        server.may_end.set()
        server.shutdown()


def caller(code: str) -> ProgramAdapter:
    """A program with this code, whose model has Anthropic's API."""
    return ProgramAdapter(
        command=(PYTHON, "-I", "-c", code), label="mine", own_model=("anthropic", "", ""),
        extra_paths=(os.path.dirname(os.path.dirname(PYTHON)),),
    )  # fmt: skip


ASK = """
import os, sys, urllib.request
url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
request = urllib.request.Request(url + "/v1/messages", b"{}", {"x-api-key": key})
with urllib.request.urlopen(request) as answer:
    for line in answer:
        print(line.decode().strip(), flush=True)
"""
# Everything that a program can read about itself and every process that it sees.
LOOK = """
import glob, os
for name in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        print(open(name, "rb").read().replace(b"\\0", b" ").decode("utf-8", "replace"))
    except OSError:
        pass
for root in ("/code", os.environ["HOME"], "/tmp", "/run", "/etc"):
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                print(open(os.path.join(folder, name), "rb").read().decode("utf-8", "replace"))
            except OSError:
                pass
for number in os.listdir("/proc/self/fd"):
    print("descriptor", number, os.path.realpath("/proc/self/fd/" + number))
"""


@pytest.mark.slow
def test_the_model_gets_the_key_and_the_jail_a_placeholder(
    bench: Bench, model: ModelServer
) -> None:
    model.may_end.set()
    run = bench.run(caller(ASK + LOOK))
    assert run.outcome == "succeeded", run.answer
    answer = run.answer or ""
    assert answer.startswith("data: 1\n\ndata: 2")
    assert [each["x-api-key"] for each in model.headers] == [KEY]
    assert KEY not in answer
    assert str(model.server_port) not in answer
    assert "ANTHROPIC_API_KEY=sk-ant-" in answer
    # Only its streams, and the folder that it lists.
    found = [line.split()[1:] for line in answer.splitlines() if line.startswith("descriptor ")]
    assert {number for number, _ in found} <= {"0", "1", "2", "3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("ANTHROPIC_AUTH_TOKEN", "sk-secret"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-secret"),
        ("ANTHROPIC_CUSTOM_HEADERS", "x-litellm-key: secret"),
        ("ANTHROPIC_FOUNDRY_API_KEY", "secret"),
        ("AWS_BEARER_TOKEN_BEDROCK", "secret"),
    ],
)
def test_no_other_credential_is_inside(
    bench: Bench, user_home: Path, tmp_path: Path, name: str, secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(name, secret)
    path = script(tmp_path / "bin", "claude", "env > /code/seen; cat ~/.claude* -r >> /code/seen")
    bench.run(Claude(command=(path,)))
    seen = (bench.workspace().code / "seen").read_text()
    assert "secret" not in seen
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:29170/anthropic" in seen


REACH = """
import errno, socket, sys
def attempt(name, family, address, kind=socket.SOCK_STREAM):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(5)
            s.connect(address)
            if kind == socket.SOCK_DGRAM:
                s.send(b"x")
        print(name, "REACHED")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error))
INET, INET6 = socket.AF_INET, socket.AF_INET6
attempt("loopback", INET, ("127.0.0.1", {port}))
attempt("loopback-2", INET, ("127.0.0.2", {port}))
attempt("own-address", INET, ("{address}", {port}))
attempt("metadata", INET, ("169.254.169.254", 80))
attempt("raw", INET, ("1.1.1.1", 443))
attempt("lan", INET, ("192.168.1.1", 80))
attempt("dns", INET, ("1.1.1.1", 53), socket.SOCK_DGRAM)
attempt("ipv6", INET6, ("2606:4700:4700::1111", 443))
attempt("ipv6-local", INET6, ("fe80::1", 80))
attempt("abstract", socket.AF_UNIX, "\\0{name}")
try:
    attempt("vsock", socket.AF_VSOCK, (2, 22))
except AttributeError:
    pass
try:
    print("name", socket.getaddrinfo("example.com", 443))
except OSError as error:
    print("name", "EAI")
print("interfaces", *[name for _, name in socket.if_nameindex()])
"""


@pytest.mark.slow
def test_nothing_of_the_network_is_reached(bench: Bench, model: ModelServer) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as abstract:
        name = f"rebyte-edge-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        own = socket.gethostbyname(socket.gethostname())
        code = REACH.format(port=model.server_port, name=name, address=own)
        run = bench.run(python(code))
    lines = dict(line.split(" ", 1) for line in (run.answer or "").splitlines())
    assert lines.pop("interfaces") == "lo"
    assert lines.pop("name") == "EAI"
    assert lines
    assert not [each for each, said in lines.items() if said == "REACHED"], lines
    assert lines["raw"] == lines["metadata"] == lines["lan"] == "ENETUNREACH"


CONNECT = """
import os, socket, sys
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
for target in sys.argv[1:]:
    with socket.create_connection((host, int(port))) as s:
        s.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
        print(target, s.recv(4096).split()[1].decode())
"""


@pytest.mark.slow
def test_only_hosts_on_the_list_are_connected_to(bench: Bench) -> None:
    targets = ["listed.invalid:443", "other.invalid:443", "other.invalid:443", "127.0.0.1:80"]
    agent = python(CONNECT)
    agent = ProgramAdapter(
        command=(*agent.command, *targets), label="mine", extra_paths=agent.extra_paths
    )
    prompt = bench.start(agent, network="list", hosts=["listed.invalid"])
    run = bench.wait(prompt)
    said = dict(line.split() for line in (run.answer or "").splitlines())
    assert said.pop("listed.invalid:443") in ("502", "504")  # no such name, but asked for
    assert set(said.values()) == {"403"}
    notes = bench.said(prompt).splitlines()
    assert "2 requests to other.invalid were refused; allow it with --allow other.invalid" in notes
    entries = request_record.read(bench.run_folder(prompt) / request_record.FILE)
    assert [entry.method for entry in entries] == ["CONNECT"] * 4


@pytest.mark.slow
def test_what_was_refused_is_in_the_reason_of_a_failure(bench: Bench) -> None:
    agent = python(CONNECT + "\nsys.exit('no package')")
    agent = ProgramAdapter(
        command=(*agent.command, "pypi.invalid:443"), label="mine", extra_paths=agent.extra_paths
    )
    run = bench.run(agent)
    assert run.outcome == "failed"
    assert (run.answer or "").splitlines() == [
        "mine exited with status 1: no package",
        "",
        "1 request to pypi.invalid was refused; allow it with --allow pypi.invalid",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["none", "host"])
def test_other_networks(
    bench: Bench, model: ModelServer, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = "http://user:password@127.0.0.1:1"
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    code = (
        "import os, socket\n"
        f"with socket.socket() as s: print(s.connect_ex(('127.0.0.1', {model.server_port})))\n"
        "print(os.environ.get('ALL_PROXY'), os.environ['ANTHROPIC_API_KEY'])"
    )
    run = bench.run(caller(code), network=network, hosts=["example.com"])
    reached, used, key = (run.answer or "").split()
    assert (reached == "0") is (network == "host")
    assert (used == proxy) is (network == "host")
    assert (key == KEY) is (network == "host")


def gateway_of(bench: Bench, prompt: str) -> int:
    """The process of the gateway, a child of the run's supervisor."""
    supervisor = bench.supervisor(prompt)
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (found,) = (
        int(child)
        for child in children
        if b"local.gateway" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return found


def begun(bench: Bench, model: ModelServer, nap: str) -> str:
    """A run that is in the middle of an answer of its model."""
    prompt = bench.start(caller(f"NAP = {nap}\n{ASK}"), stall=0)
    eventually(lambda: "data: 1" in bench.said(prompt))
    assert model.headers
    return prompt


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_a_gateway_that_is_killed_fails_the_run(bench: Bench, model: ModelServer) -> None:
    prompt = begun(bench, model, f"{NAP}201")
    os.kill(gateway_of(bench, prompt), signal.SIGKILL)
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    assert run.answer is not None
    assert "the gateway to the network was killed by signal 9" in run.answer
    assert gone(f"{NAP}201")


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_a_run_that_hangs_without_its_gateway_is_ended(bench: Bench, model: ModelServer) -> None:
    code = f"import time\nprint('x', flush=True)\ntime.sleep({NAP}211)"
    prompt = bench.start(caller(code), stall=0)
    bench.until_started(prompt)
    os.kill(gateway_of(bench, prompt), signal.SIGKILL)
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    assert run.answer == "mine was stopped: the gateway to the network was killed by signal 9"
    assert gone(f"{NAP}211")


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_gateway_and_jail_end_with_a_supervisor_that_is_killed(
    bench: Bench, model: ModelServer
) -> None:
    prompt = begun(bench, model, f"{NAP}221")
    gateway = gateway_of(bench, prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert bench.wait(prompt).outcome == "failed"
    assert gone(f"{NAP}221")
    eventually(lambda: not alive(gateway))


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_gateway_and_jail_end_when_a_run_is_canceled(bench: Bench, model: ModelServer) -> None:
    prompt = begun(bench, model, f"{NAP}231")
    gateway = gateway_of(bench, prompt)
    bench.cancel(prompt)
    assert gone(f"{NAP}231")
    eventually(lambda: not alive(gateway))


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_the_key_is_in_no_argument_and_no_environment_of_the_gateway(
    bench: Bench, model: ModelServer
) -> None:
    prompt = begun(bench, model, f"{NAP}241")
    folder = Path(f"/proc/{gateway_of(bench, prompt)}")
    for name in ("cmdline", "environ"):
        assert KEY.encode() not in (folder / name).read_bytes()
    bench.cancel(prompt)


@pytest.mark.slow
def test_an_agent_that_ends_at_once_needs_no_gateway_to_say_so(bench: Bench) -> None:
    run = bench.run(["sh", "-c", "echo no >&2; exit 3"])
    assert run.answer == "mine exited with status 3: no"


@pytest.mark.slow
def test_each_run_has_another_placeholder(bench: Bench, model: ModelServer) -> None:
    code = "import os; print(os.environ['ANTHROPIC_API_KEY'])"
    first, second = (bench.run(caller(code)).answer for _ in range(2))
    assert first != second
