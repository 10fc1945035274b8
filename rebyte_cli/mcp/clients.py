"""The entry for this server in the configuration of the agents that can use it.

Where each looks for MCP servers is from its vendor's documentation.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadUsage
from ..system.files import content_of, write_private, write_shared
from ..system.untrusted import read_toml

NAME = "rebyte"


class ClientFile(NamedTuple):
    """Where a client keeps its servers: a table in the file `name` of a folder.

    `folder` is below the home folder, unless the environment `variable` names another; None is
    the working folder, for a file that a project shares.
    """

    folder: str | None
    name: str
    table: str
    variable: str = ""


CLIENTS = {
    "claude": ClientFile(None, ".mcp.json", "mcpServers"),
    "codex": ClientFile(".codex", "config.toml", "mcp_servers", "CODEX_HOME"),
    "gemini": ClientFile(".gemini", "settings.json", "mcpServers"),
    "opencode": ClientFile(".config", "opencode/opencode.json", "mcp", "XDG_CONFIG_HOME"),
}


def command_line(profile: str | None) -> list[str]:
    """The words that start the server: `rebyte mcp`, by its full path where PATH leads elsewhere.

    `profile` is the one that was named, with `-P` or `REBYTE_PROFILE`, which the server keeps.
    """
    running = os.path.realpath(sys.argv[0])
    on_path = shutil.which(NAME)
    if on_path is not None and os.path.realpath(on_path) == running:
        start = [NAME]
    elif Path(running).stem in (NAME, "rebyte-cli") and os.access(running, os.X_OK):
        start = [running]
    else:
        # -P: the client starts it in any repository, from which Python would take modules.
        start = [sys.executable, "-P", "-m", "rebyte_cli"]
    return [*start, "mcp", *(("-P", profile) if profile else ())]


def entry(client: str, words: Sequence[str]) -> dict[str, Any]:
    """What the client's table holds under `rebyte`."""
    if client == "opencode":
        return {"type": "local", "command": list(words), "enabled": True}
    return {"command": words[0], "args": list(words[1:])}


def snippet(client: str, words: Sequence[str]) -> str:
    """The entry with what surrounds it, in the format of the client's file."""
    table, made = CLIENTS[client].table, entry(client, words)
    if client == "codex":
        import tomli_w

        return tomli_w.dumps({table: {NAME: made}})
    return json.dumps({table: {NAME: made}}, indent=2) + "\n"


def path_of(client: str, environment: Mapping[str, str]) -> Path:
    """The file that the client reads."""
    file = CLIENTS[client]
    if file.folder is None:
        return Path.cwd() / file.name
    named = environment.get(file.variable)
    return (Path(named) if named else Path.home() / file.folder) / file.name


def install(client: str, path: Path, words: Sequence[str]) -> bool:
    """Write the entry into `path`, the client's file; False if it was there already.

    The rest of the file stays as it is, line ends and comments in TOML included. Raises BadUsage
    for a file that cannot be read as what it should be, or whose `rebyte` entry is another one,
    which may have been edited; and for a link in a project, since a repository can have it lead to
    any file of its user. One in the home folder is the user's own.
    """
    made = entry(client, words)
    if CLIENTS[client].folder is None and path.is_symlink():
        raise BadUsage(
            f"{path} is a link to {os.readlink(path)}, which is not followed",
            hint="Add the entry by hand: --dry-run",
        )
    try:
        original = content_of(path).decode()  # with its line ends and its byte order mark
    except UnicodeDecodeError:
        raise BadUsage(f"{path}: not valid UTF-8") from None
    text = original.removeprefix("\ufeff").replace("\r\n", "\n")
    document = _parsed(path, text)
    table = document.get(CLIENTS[client].table, {})
    if not isinstance(table, dict):
        raise BadUsage(f"{path}: {CLIENTS[client].table} is not a table")
    if NAME in table:
        if table[NAME] == made:
            return False
        raise BadUsage(f"{path} has another entry called {NAME}", hint="Remove it, then try again")
    if path.suffix == ".toml":
        after = f"{text.rstrip()}\n\n" if text.strip() else ""
        new = after + snippet(client, words)
        _parsed(path, new)  # an inline table, for one, cannot be extended by a section
    else:
        whole = {**document, CLIENTS[client].table: {**table, NAME: made}}
        new = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    if "\r\n" in original:
        new = new.replace("\n", "\r\n")
    mark = "\ufeff" if original.startswith("\ufeff") else ""
    # What a project shares keeps the modes that its other files have.
    write = write_shared if CLIENTS[client].folder is None else write_private
    write(path, f"{mark}{new}".encode())
    return True


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    is_toml = path.suffix == ".toml"
    try:
        found = read_toml(text) if is_toml else json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        why = error if is_toml else f"not JSON: {error}"
        raise BadUsage(f"{path}: {why}", hint="Add the entry by hand: --dry-run") from None
    if not isinstance(found, dict):
        raise BadUsage(f"{path}: not a JSON object")
    return found
