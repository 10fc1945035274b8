"""Who may start real agents: a program that has the machine's own key.

Any other `rbk_` key reaches the simulation only. The file is for its owner alone, so another
user of this machine, or a page in a browser, cannot have it. `-P local` uses a key derived from it,
which sees as much, and starts agents only in the service of the command's own process.
"""

from __future__ import annotations

import hmac
import os
import re
from pathlib import Path

from ...system.files import replacing
from ...system.permissions import make_folder
from ..store import SCHEMA_VERSION

KEY_FILE = "key"
PREFIX = "rbk_local_"
KEY_BYTES = 24
SWITCH = "REBYTE_LOCAL_AGENTS"


class AgentPermission:
    """Whether a request may start real agents. With `simulate` none may.

    `embedded` says that the service is inside the process of the command that calls it, and
    `version` which format the state is stored in.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        simulate: bool,
        embedded: bool = False,
        version: int = SCHEMA_VERSION,
    ) -> None:
        self._version = version
        self._state_dir = state_dir
        self._simulate = simulate or os.environ.get(SWITCH) == "0"
        self._embedded = embedded

    def granted(self, key: str | None) -> bool:
        """Whether a request that brought `key` may start real agents."""
        return not self._simulate and self.is_own(key)

    def is_own(self, key: str | None) -> bool:
        """Whether `key` is the machine's own, or the one that commands use."""
        if key is None or not key.startswith(PREFIX):
            return False
        own = (self.own_key(), self.command_key())
        return any(hmac.compare_digest(key.encode(), one.encode()) for one in own)

    def belongs_elsewhere(self, key: str | None) -> bool:
        """Whether a command that brought `key` has to start its agents in its own process.

        It tells its user what runs where, and the agents get its environment.
        """
        if self._embedded or key is None:
            return False
        return hmac.compare_digest(key.encode(), self.command_key().encode())

    def own_key(self) -> str:
        """The machine's own key. Raises OSError."""
        return machine_key(self._state_dir)

    def command_key(self) -> str:
        """The key that `-P local` sends."""
        return PREFIX + self._derive("command")

    def page_key(self) -> str:
        """What a browser shows instead of the machine's own key, to see pages and no more.

        A browser sends it to every port of this address, so it must not start anything.
        """
        return self._derive("pages")

    def action_key(self) -> str:
        """What a page sends besides the page key when it starts, answers or cancels something."""
        return self._derive("actions")

    def proof(self, challenge: str, instance: str, base_url: str) -> str:
        """What shows that a service has the machine's own key, and would act as this one.

        It holds for one instance at one address, so that no other program can pass on the answer
        of a service that it asked; for one format of the stored state; and for one answer to the
        question whether agents run at all.
        """
        kind = f"{self._version} {'simulate' if self._simulate else 'agents'}"
        return self._derive("proof", kind, instance, base_url, challenge)

    def _derive(self, *words: str) -> str:
        return hmac.digest(self.own_key().encode(), "\n".join(words).encode(), "sha256").hex()


def machine_key(state_dir: Path) -> str:
    """Read the key of this state folder; it is made on first use. Raises OSError."""
    path = state_dir / KEY_FILE
    # Of two processes that make it at the same moment, one does; then, what is no key is replaced.
    for keep in (True, False):
        if (found := _read(path)) is not None:
            return found
        make_folder(state_dir)
        with replacing(path, 0o600, keep=keep) as file:
            file.write(f"{PREFIX}{os.urandom(KEY_BYTES).hex()}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    return path.read_text(encoding="ascii").strip()


def _read(path: Path) -> str | None:
    """The key in a file; None if there is none, or not a whole one (after a power cut).

    Of an empty one anybody could derive the other keys.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    return text if re.fullmatch(f"{PREFIX}[0-9a-f]{{{2 * KEY_BYTES}}}", text) else None
