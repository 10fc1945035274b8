"""The entry point: `rebyte` and `python -m rebyte_cli`."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in typing, whose import `--version` does without
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Run the command and end the process with its status.

    `--version` alone and the shells' questions at TAB are answered before Click is imported.
    The process ends with `os._exit` once the streams are flushed: tearing down an interpreter
    with an HTTP stack in it costs as much as the whole of `--version`, and everything that must
    last is on disk by then.
    """
    try:
        status = _run(sys.argv[1:])
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None after `>&-`
            try:
                stream.flush()
            except (OSError, ValueError):
                status = status or 1
    except KeyboardInterrupt:  # while the modules load; later ones are told in cli.run
        status = 130
    os._exit(status)


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        return _version()
    if sys.implementation.name != "cpython":  # PyPy's sqlite3 cannot commit as ours must
        sys.stderr.write(f"Error: rebyte needs CPython, not {sys.implementation.name}\n")
        return 1
    shell = os.environ.get("_REBYTE_COMPLETE")
    if shell:
        from .completion.main import respond

        return respond(shell, arguments)
    import gc

    # Hardly anything that a command allocates is garbage before it ends; the default
    # thresholds spend a tenth of a short run looking for it.
    gc.set_threshold(50_000, 20, 20)
    _spare_the_guessers()
    from .cli import run

    return run(arguments)


def _spare_the_guessers() -> None:
    """Let requests find neither of the libraries that guess the encoding of a text.

    It takes every text for UTF-8 then, as this command does anyway, and loads a sixth faster;
    it supports that for programs that need no guesses, but warns of it. What libraries warn of
    is for programmers: `-W` and PYTHONWARNINGS show it.
    """
    import warnings

    modules: dict[str, Any] = sys.modules
    for name in ("chardet", "charset_normalizer"):
        modules.setdefault(name, None)  # an import of it says that it is not there
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


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
