"""A service in a separate process that ends with the process that started it.

A command with thousands of requests takes half of the time that way, since the two do not share
one interpreter. The service says on stdout where it answers, and as which instance. It ends when
its stdin does, however its parent ended. It is announced to no other command.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ..system import python_process

START_SECONDS = 10.0
END_SECONDS = 10.0  # what is due to webhooks is delivered first


class ServiceProcess:
    """A service of a state folder in a child process.

    `public_url` and `config_file` are as in `Service`. Raises OSError when no process can be made.
    """

    def __init__(self, state_dir: Path, public_url: str, config_file: Path | None) -> None:
        words = [state_dir, public_url, *([] if config_file is None else [config_file])]
        self._address: tuple[str, str] | None = None
        self._process = subprocess.Popen(
            python_process.command(__name__, *words, with_libraries=True),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the parent, which may need the service to end in an orderly way.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def address(self) -> tuple[str, str] | None:
        """The origin where the service answers, and its instance; None if it does not.

        Waits until the service has started.
        """
        if self._address is None:
            import threading

            assert self._process.stdout is not None
            impatience = threading.Timer(START_SECONDS, self._process.kill)
            impatience.daemon = True
            with suppress(RuntimeError):  # no thread: wait as long as it takes
                impatience.start()
            words = self._process.stdout.readline().decode("ascii", "replace").split()
            impatience.cancel()
            if len(words) == 2:
                self._address = words[0], words[1]
        return self._address

    def stop(self) -> None:
        """End the service and wait for that. Safe to call twice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def main() -> None:
    """Serve until stdin ends. Arguments: STATE_DIR PUBLIC_URL [CONFIG_FILE]."""
    from .local_service import Service

    state_dir, public_url, *config_file = sys.argv[1:]
    service = Service(
        Path(state_dir),
        public_url=public_url,
        embedded=False,
        config_file=Path(config_file[0]) if config_file else None,
    )
    with service:
        sys.stdout.write(f"{service.origin} {service.instance}\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
