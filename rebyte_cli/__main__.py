"""The entry point: `rebyte` and `python -m rebyte_cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command and end the process with its status.

    `--version` alone and the shells' questions at TAB are answered before Click is imported.
    The process ends with `os._exit` once the streams are flushed: tearing down an interpreter
    with an HTTP stack in it costs as much as the whole of `--version`, and everything that must
    last is on disk by then.
    """
    if sys.argv[1:] in (["--version"], ["-V"]):
        from . import __version__

        sys.stdout.write(f"rebyte {__version__}\n")
        return
    shell = os.environ.get("_REBYTE_COMPLETE")
    if shell:
        from .completion import respond

        raise SystemExit(respond(shell, sys.argv[1:]))
    import gc

    # Hardly anything that a command allocates is garbage before it ends; the default
    # thresholds spend a tenth of a short run looking for it.
    gc.set_threshold(50_000, 20, 20)
    from .cli import run

    status = run(sys.argv[1:])
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None after `>&-`
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 1
    os._exit(status)


if __name__ == "__main__":
    main()
