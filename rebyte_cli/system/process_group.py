"""A program and its children that die with this process."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from typing import IO, Self

# The shell's input is a pipe whose other end only this process has. When that end is closed, by
# hand or by a death of any kind, the shell in the background kills the group that it belongs to.
# (PR_SET_PDEATHSIG reaches no grandchildren, such as the helpers of `git clone`.)
_GUARD = (
    "exec 3<&0; (read -r _ <&3; {last}) </dev/null >/dev/null 2>&1 &"
    ' if [ "$0" ]; then exec "$@" <"$0" 3<&-; else exec "$@" <&1 3<&-; fi'
)
_KILL_ALL = "kill -s KILL 0"
# The program alone, whose number is not given again while the shell is in its group; the shell
# needs no further process to become the next program, which the group may have used up.
_KILL_AND_BECOME = "kill -s KILL $$; exec {words}"


class ProcessGroup:
    """A program with its children in their own process group, which dies with this process.

    with ProcessGroup(["git", "clone", url], stdout=subprocess.PIPE) as group:
        group.process.communicate()

    The end of the block kills what is left of the group.
    """

    def __init__(
        self,
        words: list[str],
        *,
        folder: str | os.PathLike[str] | None,
        variables: dict[str, str],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        stdin: str | os.PathLike[str] | None = os.devnull,
        passed: tuple[int, ...] = (),
        after_us: Sequence[str] = (),
    ) -> None:
        """Start it with the file `stdin` as its input, or for None with what `stdout` is.

        A terminal opened by its name would control the whole group. The descriptors `passed`, from
        10 up, stay open in it. `after_us` is a command that ends the group when this process has
        died, and with it the program. Raises OSError, as Popen does.
        """
        self._ours = -1
        last = _KILL_AND_BECOME.format(words=shlex.join(after_us)) if after_us else _KILL_ALL
        theirs, self._ours = os.pipe()
        try:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD.format(last=last), os.fspath(stdin or ""), *words],
                cwd=folder,
                env=variables,
                stdin=theirs,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                pass_fds=passed,
            )
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the whole group, and close what it prints into."""
        if self._ours < 0:
            return
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.end()
        os.close(self._ours)  # the shell in the background was killed before it noticed
        self._ours = -1

    def end(self) -> None:
        """Kill the whole group, and return when its first process is dead."""
        end_group(self.process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that is the first of its group, with the group, and wait for its death."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
