"""Run the command to its end in a forked process, and collect what it prints.

As `subprocess.run` with the `rebyte` of `fork_server.commands`, without a process that waits for
the forked one: starting that costs as much as the command itself.
"""

from __future__ import annotations

import io
import os
import select
import selectors
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rebyte_cli.system.deadline import Deadline
from tests.fork_client import needs_an_interpreter, start
from tests.fork_server import ADDRESS, commands
from tests.forked_supervisors import umask_of_this_process


def run_forked(
    words: tuple[str, ...],
    *,
    stdin: bytes,
    environment: Mapping[str, str],
    folder: Path,
    timeout: float,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command; raises subprocess.TimeoutExpired after `timeout` seconds, and ends it."""
    address = commands() / ADDRESS
    if needs_an_interpreter(environment) or not address.exists():
        return subprocess.run(
            [commands() / "rebyte", *words],
            input=stdin,
            env=environment,
            cwd=folder,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    limit = Deadline(timeout)
    with ExitStack() as stack:
        pipes = [os.pipe() for _ in range(3)]
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = pipes
        theirs = (theirs_in, theirs_out, theirs_err)
        ours = ((ours_in, "wb"), (ours_out, "rb"), (ours_err, "rb"))
        files = [stack.enter_context(io.FileIO(number, mode)) for number, mode in ours]
        # Already there when the command looks: one that finds nothing to read may not look again.
        sent = os.write(ours_in, stdin[: select.PIPE_BUF]) if stdin else 0
        try:
            connection = start(
                os.fsencode(address),
                [os.fsencode(word) for word in words],
                {os.fsencode(name): os.fsencode(text) for name, text in environment.items()},
                os.fsencode(folder),
                umask_of_this_process(),
                theirs,
            )
            stack.callback(connection.close)  # the server ends a command whose client is gone
        finally:
            for number in theirs:
                os.close(number)
        try:
            out, err = _communicate(files, stdin[sent:], limit)
            connection.settimeout(limit.for_call())
            connection.recv(8)  # the process id
            status = int.from_bytes(connection.recv(8), "little")
        except TimeoutError:
            raise subprocess.TimeoutExpired(words, timeout) from None
    return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), out, err)


def _communicate(files: list[io.FileIO], stdin: bytes, limit: Deadline) -> tuple[bytes, bytes]:
    """Write standard input and read both outputs, until they are closed; raises TimeoutError."""
    to_write, printed = memoryview(stdin), {file: bytearray() for file in files[1:]}
    with selectors.DefaultSelector() as selector:
        selector.register(files[0], selectors.EVENT_WRITE)
        for file in printed:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(limit.left())
            if not ready or limit.has_passed:
                raise TimeoutError
            for key, _ in ready:
                file = key.fileobj
                if file in printed:
                    piece = file.read(1 << 16)
                    printed[file] += piece
                    ended = not piece
                else:
                    try:
                        to_write = to_write[file.write(to_write[: select.PIPE_BUF]) :]
                    except BrokenPipeError:  # it ended, or does not read it
                        to_write = to_write[:0]
                    ended = not to_write
                if ended:
                    selector.unregister(file)
                    file.close()
    out, err = (bytes(text) for text in printed.values())
    return out, err
