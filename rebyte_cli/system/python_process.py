"""A module of this package as a process of Python, whatever the current folder has.

python -I -S -c BOOT PACKAGE_FOLDER [ARGUMENT]…
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def command(
    module: str, *arguments: object, first: str = "", with_libraries: bool = False
) -> list[str]:
    """The words that run `main` of a module, which finds the arguments in `sys.argv[1:]`.

    `first` is code in whole lines to run before the module is imported. No variable of the
    environment changes what runs, and `site` is not loaded, which is a third of the time to start.
    Only a process `with_libraries` has both: those may be in the user's HOME, or in PYTHONPATH.
    """
    start = "import sys; sys.path.insert(0, sys.argv.pop(1));"
    boot = f"{start} {first}from {module} import main; main()"
    flags = ["-P"] if with_libraries else ["-I", "-S"]
    package_folder = str(Path(__file__).parents[2])
    return [sys.executable, *flags, "-c", boot, package_folder, *map(str, arguments)]


def limit(cpu_seconds: int, memory: int, file_size: int | None = None) -> None:
    """Have the kernel end this process when it takes more; memory and the size of a file in bytes.

    Only Linux does so.
    """
    if sys.platform != "linux":
        return
    import resource

    limits = {resource.RLIMIT_CPU: cpu_seconds, resource.RLIMIT_AS: memory}
    if file_size is not None:
        limits[resource.RLIMIT_FSIZE] = file_size
    for kind, most in limits.items():
        with contextlib.suppress(ValueError):  # a limit that may not be raised is a lower one
            resource.setrlimit(kind, (most, most))
