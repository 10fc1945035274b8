"""Processes of the command that start in a tenth of the time: forked from one that has the imports.

`commands()` is a folder with a `rebyte` for tests that start it often, or type it in a shell. It
passes its arguments, environment, folder and standard streams to a server, which forks a child that
runs `rebyte_cli.__main__.main` with them, and ends as the child ends. If nothing else runs on its
terminal, the child gets that too. Start-up itself, job control and limits of a process need the
real command.

The same server forks the supervisors of agents (forked_supervisors.py) and gateways
(forked_gateways.py).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import marshal
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from tests import forked_gateways, forked_supervisors

ROOT = Path(__file__).parents[1]
CLIENT = Path(__file__).with_name("fork_client.py")
# Besides the package itself: what its functions import when they are called.
LIBRARIES = (
    *("requests", "sqlite3", "tomllib", "rich.console", "rich.progress"),
    *("keyring.backends.SecretService", "secretstorage", "jeepney.io.blocking"),
)

ADDRESS = "socket"  # in the folder
COMMAND, SUPERVISOR, GATEWAY = "command", "supervisor", "gateway"
CHANGES = "FORKED_CHANGES"  # in the environment of a command: Python to run in it before it begins
SHARED = "FORKED_COMMANDS"  # the folder, in the environment of workers
_LOCK = threading.Lock()


def commands() -> Path:
    """The folder of the `rebyte` that forks; that of the installed one where no server can run."""
    if not hasattr(os, "pidfd_open"):
        return Path(sys.executable).parent
    with _LOCK:
        return Path(os.environ.get(SHARED) or _folder())


def share() -> None:
    """Start the server for the workers that this process starts: each would import everything."""
    os.environ[SHARED] = str(commands())


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rebyte-forks."))
    address = folder / ADDRESS
    source = CLIENT.read_text(encoding="utf-8")
    client = folder / "rebyte"
    client.write_text(
        f"#!{sys.executable} -IS\n{source}\nmain({str(address)!r}, {sys.executable!r})\n"
    )
    client.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", str(address)],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # ends the server when this process ends, however it does
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def stop() -> None:
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return folder


def serve(address: str) -> None:
    """Answer clients until standard input ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    _import_all()
    from tests.message_guard import guard_messages

    guard_messages()
    forked_supervisors.install(address)
    forked_gateways.install(address)
    print("ready", flush=True)
    poll = select.poll()
    poll.register(0)
    poll.register(listener, select.POLLIN)
    running: dict[int, tuple[int, socket.socket | None]] = {}  # process and client, by pidfd
    clients: dict[int, int] = {}  # pidfd by the client's descriptor
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                os._exit(0)
            elif descriptor == listener.fileno():
                client, _ = listener.accept()
                try:
                    pid, kind = _start(client, listener)
                except EOFError:  # the client was killed at once
                    client.close()
                    continue
                pidfd = os.pidfd_open(pid)
                with suppress(BrokenPipeError):
                    client.sendall(pid.to_bytes(8, "little"))
                poll.register(pidfd, select.POLLIN)
                if kind == SUPERVISOR:  # which outlives who started it
                    client.close()
                    running[pidfd] = (pid, None)
                    continue
                running[pidfd] = (pid, client)
                clients[client.fileno()] = pidfd
                poll.register(client, select.POLLIN)
            elif descriptor in running:
                pid, waiting = running.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(pid, 0)
                if waiting is None:
                    continue
                if clients.pop(waiting.fileno(), None) is not None:
                    poll.unregister(waiting)
                with suppress(BrokenPipeError):
                    waiting.sendall(status.to_bytes(8, "little"))
                waiting.close()
            elif descriptor in clients:  # the client was killed
                signal.pidfd_send_signal(clients.pop(descriptor), signal.SIGKILL)
                poll.unregister(descriptor)


def _import_all() -> None:
    package = importlib.import_module("rebyte_cli")
    for found in pkgutil.walk_packages(package.__path__, "rebyte_cli."):
        if not found.name.endswith("__main__") and ".mcp" not in found.name:
            importlib.import_module(found.name)
    for name in LIBRARIES:
        importlib.import_module(name)
    from rebyte_cli.local.agents.sandbox import jail

    if program := jail.bubblewrap():  # each process tries it once, and these are its children
        jail.no_nested_namespaces(program)
    gc.collect()
    gc.freeze()


def _start(client: socket.socket, listener: socket.socket) -> tuple[int, str]:
    """Fork a child that runs what a client wants; its id and its kind."""
    head, streams, *_ = socket.recv_fds(client, 8, 4)
    wanted, body = int.from_bytes(head, "little"), b""
    while len(body) < wanted and (piece := client.recv(wanted - len(body))):
        body += piece
    request = marshal.loads(body)
    kind = request[-1]
    if b"mcp" in request[0]:  # a second of imports, which only a few tests need
        importlib.import_module("rebyte_cli.mcp.server")
        gc.freeze()
    pid = os.fork()
    if pid:
        for descriptor in streams:
            os.close(descriptor)
        return pid, kind
    try:
        listener.close()
        client.close()
        _run(request, streams)
    finally:
        os._exit(70)


def _run(request: Any, streams: list[int]) -> None:
    import fcntl

    words, environment, folder, umask, terminal, kind = request
    if kind == COMMAND and not terminal:
        os.setpgid(0, 0)
    else:
        os.setsid()
    places = [0, 1, 2, 3][: len(streams)]
    if kind == GATEWAY:
        places[3] = int(words[0])  # which its settings name
    # First away from where any of them is to be.
    streams = [fcntl.fcntl(each, fcntl.F_DUPFD, max(places) + 1) for each in streams]
    for descriptor, place in zip(streams, places, strict=True):
        os.dup2(descriptor, place)
    os.closerange(3, places[-1])
    os.closerange(places[-1] + 1, 4096)
    if terminal:
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(folder)
    os.umask(umask)
    os.environb.clear()
    os.environb.update(environment)
    time.tzset()
    # As the interpreter opens them in a UTF-8 locale.
    is_tty = os.isatty(1)
    for name, number, mode, errors, at_once in (
        ("stdin", 0, "rb", "strict", False),
        ("stdout", 1, "wb", "strict", is_tty),
        ("stderr", 2, "wb", "backslashreplace", True),
    ):
        stream = io.TextIOWrapper(
            open(number, mode, closefd=False),  # noqa: SIM115 - lives as long as the process
            encoding="utf-8",
            errors=errors,
            line_buffering=at_once,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["rebyte", *map(os.fsdecode, words)]
    gc.enable()
    if kind != COMMAND:
        _become(kind)
    from rebyte_cli.__main__ import main

    if changes := os.environ.pop(CHANGES, ""):
        exec(compile(changes, CHANGES, "exec"), {})
    main()


def _become(kind: str) -> NoReturn:
    """Run a process that its parent starts with `python_process`; the status is that of `main`."""
    main: Callable[[], None]
    if kind == GATEWAY:
        from rebyte_cli.local.gateway.gateway_server import main
    else:
        from rebyte_cli.local.agents.supervision.run_queue import main

        # As the program of `spawn.BOOT` does in the background of a shell.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
    status = 1
    try:
        main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does at its end
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
