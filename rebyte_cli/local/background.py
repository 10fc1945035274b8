"""A `local serve` in the background, which makes the links to tasks work.

It has its own session and no descriptor of the command that started it. It serves on the port
that links name, if that is free, and ends when no request has come for half an hour, or on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..system import python_process
from ..system.files import persistently
from . import visits
from .dialer import DEFAULT_ORIGIN
from .proof import is_served
from .store import ServedService, StateError, Store

if TYPE_CHECKING:
    from .local_service import Service

IDLE_SECONDS = 1800.0
STOP_SECONDS = 10.0


def find(store: Store) -> ServedService | None:
    """A service that answers for the folder at the moment, and has proved itself."""
    return next((one for one in store.served() if is_served(store.folder, one)), None)


def ensure(store: Store, config_file: Path | None, *, idle: float = IDLE_SECONDS) -> ServedService:
    """The service that answers for the folder, started now if there is none.

    It ends when it has had no request for `idle` seconds. Of two commands that start one at the
    same moment, both get the same. Raises StateError.
    """
    found = find(store)
    if found is None:
        problem = _start(store.folder, config_file, idle)
        found = find(store)
        if found is None:
            reason = problem or "it does not answer"
            raise StateError(store.folder, f"the service cannot be started: {reason}")
    return found


def page_link(store: Store, origin: str, path: str, seconds: float) -> str:
    """A link to a page of the service at `origin` that lets one browser in."""
    return f"{origin}{path}?key={visits.issue(store, seconds)}"


def stop(store: Store, served: ServedService) -> bool:
    """End a service that answered just now; whether it has ended. Raises OSError."""
    os.kill(served.pid, signal.SIGTERM)
    return persistently(lambda: served not in store.served(), STOP_SECONDS)


def _start(state_dir: Path, config_file: Path | None, idle: float) -> str:
    """Start the service, and wait until it answers or has ended; why it has, as far as it says."""
    arguments = [state_dir.absolute(), idle]
    arguments += [] if config_file is None else [config_file.absolute()]
    words = python_process.command(__name__, *arguments, with_libraries=True)
    try:
        process = subprocess.Popen(
            # Through a shell that ends at once: no child is left for this process to reap.
            ["sh", "-c", '"$@" &', "sh", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        return str(error)
    assert process.stdout is not None
    with process.stdout as output:
        problem = output.readline().decode("utf-8", "replace").strip()
    process.wait()
    return problem


def main() -> None:
    """Serve until nothing has been asked for a while.

    Arguments: STATE_DIR IDLE_SECONDS [CONFIG_FILE].
    """
    from .local_service import AlreadyServed

    state_dir, idle, *config_file = sys.argv[1:]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        service = _service(Path(state_dir), Path(config_file[0]) if config_file else None)
        service.start(alone=True)
    except AlreadyServed:
        return
    except OSError as error:
        sys.stdout.write(f"{error}\n")
        raise SystemExit(1) from None
    # The command that started this waits for the end of its output: the service answers now.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    with service:
        while (left := float(idle) - service.idle_seconds()) > 0 and not stopping.wait(left):
            pass


def _service(state_dir: Path, config_file: Path | None) -> Service:
    """A service on the port that links name, or on any other if that is taken. Raises OSError."""
    from .local_service import Service

    with Store(state_dir) as store:
        usual = urlsplit(store.recall("address") or DEFAULT_ORIGIN).port or 0
    try:
        return Service(state_dir, port=usual, config_file=config_file, in_background=True)
    except StateError:
        raise
    except OSError:
        return Service(state_dir, config_file=config_file, in_background=True)
