"""Where files live. The only module that knows."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import BadUsage


def config_dir(environment: Mapping[str, str]) -> Path:
    """The folder of `config.toml` and `credentials.json`; it may not exist.

    `REBYTE_CONFIG_DIR`, or the platform's own: `$XDG_CONFIG_HOME/rebyte` or `~/.config/rebyte`
    on Linux, `~/Library/Application Support/rebyte` on macOS.
    Raises BadUsage when there is no home folder.
    """
    return _folder(environment, "REBYTE_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")


def state_dir(environment: Mapping[str, str]) -> Path:
    """The folder of the history and of the local service; it may not exist.

    `REBYTE_STATE_DIR`, or the platform's own: `$XDG_STATE_HOME/rebyte` or `~/.local/state/rebyte`
    on Linux, `~/Library/Application Support/rebyte/state` on macOS.
    Raises BadUsage when there is no home folder.
    """
    return _folder(environment, "REBYTE_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def _folder(environment: Mapping[str, str], variable: str, xdg: str, below_home: str) -> Path:
    given = environment.get(variable)
    if given:
        # Absolute at once: a later chdir must not move the files.
        return Path(os.path.abspath(_expand(given, environment)))
    if sys.platform == "darwin":
        support = home_dir(environment) / "Library" / "Application Support" / "rebyte"
        return support / "state" if xdg == "XDG_STATE_HOME" else support
    return xdg_dir(environment, xdg, below_home) / "rebyte"


def xdg_dir(environment: Mapping[str, str], variable: str, below_home: str) -> Path:
    """The folder that an XDG variable names, else the one below the home folder.

    The specification says to ignore a relative path. Raises BadUsage when there is no home folder.
    """
    given = environment.get(variable)
    return Path(given) if given and os.path.isabs(given) else home_dir(environment) / below_home


def home_dir(environment: Mapping[str, str]) -> Path:
    """The home folder; BadUsage when there is none, or HOME is empty or a relative path."""
    home = environment.get("HOME")
    if home is None:
        home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise BadUsage(
            "cannot find your home folder",
            hint="Set HOME to an absolute path, or set REBYTE_CONFIG_DIR and REBYTE_STATE_DIR",
        )
    return Path(home)


def _expand(path: str, environment: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        return str(home_dir(environment)) + path[1:]
    return path
