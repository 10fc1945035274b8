"""The entry point: `rebyte` and `python -m rebyte_cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command and end the process with its status.

    `--version` and TAB completion are answered before Click is imported. Once the streams are
    flushed, the process ends with `os._exit`: tearing down an interpreter with an HTTP stack costs
    as much as all of `--version`, and everything that must last is on disk by then.
    """
    try:
        status = _run(sys.argv[1:])
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None after `>&-`
            try:
                stream.flush()
            except (OSError, ValueError):
                status = status or 1
    except KeyboardInterrupt:  # while modules load; cli.run handles later ones
        status = 130
    os._exit(status)


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        return _version()
    if sys.platform == "win32":
        sys.stderr.write("Error: rebyte runs on Linux and macOS. On Windows, install it in WSL.\n")
        return 1
    if sys.implementation.name != "cpython":  # PyPy's sqlite3 cannot commit as ours must
        sys.stderr.write(f"Error: rebyte needs CPython, not {sys.implementation.name}\n")
        return 1
    # An entry that is empty or relative would let whatever folder we are in name the programs which
    # we and all our processes start. An empty PATH would, too.
    kept = filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep))
    os.environ["PATH"] = os.pathsep.join(kept) or os.defpath
    shell = os.environ.get("_REBYTE_COMPLETE")
    if shell:
        from .completion.main import respond

        return respond(shell, arguments)
    import gc

    # A command allocates hardly any garbage before it ends, and the default thresholds spend a
    # twelfth of a short run on looking for it.
    gc.set_threshold(50_000, 20, 20)
    from .cli import run

    return run(arguments)


def _version() -> int:
    from . import __version__

    problem = "it is closed"
    if sys.stdout is not None:
        try:
            sys.stdout.write(f"rebyte {__version__}\n")
            sys.stdout.flush()
            return 0
        except BrokenPipeError:
            return 141
        except OSError as error:
            problem = str(error.strerror)
    if sys.stderr is not None:
        sys.stderr.write(f"Error: cannot write to stdout: {problem}\n")
    return 1


if __name__ == "__main__":
    main()
