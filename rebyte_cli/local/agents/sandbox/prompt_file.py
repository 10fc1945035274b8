"""The prompt of a run as a file that its agent can read, and cannot change."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def prompt_file(prompt: str) -> Iterator[str]:
    """The path of a file with the prompt, while the block runs, that the agent cannot change."""
    data = prompt.encode("utf-8", "surrogatepass")
    if sys.platform != "linux":  # without seals, and without a jail
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    import fcntl

    descriptor = os.memfd_create("prompt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", buffering=0) as file:
        file.write(data)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
