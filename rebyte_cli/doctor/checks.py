"""The checks of `rebyte doctor`. None of them writes anything on disk, or shows a key."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from .. import __version__
from ..config.credentials import FoundKey, KeyDoor
from ..errors import KeyProblem, KeyRejected, Next, RebyteError, did_you_mean, lines
from ..system import git, repository_file, trust
from ..tasks.editor import usual
from .check_runner import Check, Finding

if TYPE_CHECKING:
    from ..app import App
    from ..config.settings import Settings

API_SECONDS = 10.0
LIBRARIES = ("click", "requests", "urllib3", "rich", "keyring", "werkzeug", "h11", "tomli-w")
# What the vendor's SDKs and example programs read (seen in clients), and what to use here.
_VENDOR_VARIABLES = {
    "REBYTE_BASE_URL": "use REBYTE_API_URL",
    "REBYTE_AGENT_ID": "no command uses an agent id",
    "REBYTE_CONSOLE_URL": "links come from the API",
    "REBYTE_WEBHOOK_SECRET": "use " + Next("webhook", "create", "--secret"),
    "REBYTE_TOKEN": "use REBYTE_API_KEY",
}
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


class Examination:
    """The checks of one run of `rebyte doctor`.

    Settings are resolved once and before the checks, which run on several threads; what is wrong
    with them is a finding like any other. What asks a service may take `seconds`.
    """

    def __init__(
        self, app: App, variables: Mapping[str, str], *, seconds: float = API_SECONDS
    ) -> None:
        self._app = app
        self._seconds = seconds
        self._known_variables = variables
        self._environment = app.environment
        self._keys = KeyDoor(app.environment)
        self._config_error = _error_of(lambda: app.config)
        _error_of(lambda: app.settings)  # a check that needs them raises what is wrong with them
        self._key_lock = Lock()
        self._key: FoundKey | RebyteError | None = None

    def checks(self) -> list[Check]:
        """Every check, in the order of the report."""
        return [
            Check("version", self.version),
            Check("programs", self.programs, needed=False),
            Check("config", self.config),
            Check("profile", self._with_settings(self.profile)),
            Check("variables", self.variables, needed=False),
            Check("key", self._with_settings(self.key), seconds=self._seconds),
            Check("api", self._with_settings(self.api), seconds=self._seconds + 2),
            Check("proxy", self._with_settings(self.proxy)),
            Check("tls", self.tls),
            Check("keyring", self.keyring, needed=False),
            Check("state", self.state),
            Check("editor", self.editor, needed=False),
            Check("git", self.git, needed=False),
            Check("repository", self.repository, needed=False),
            Check("agents", self.agents, seconds=self._seconds, needed=False),
        ]

    # This command

    def version(self) -> Finding:
        """This command, its Python and its libraries."""
        versions: dict[str, str | None] = {}
        for library in LIBRARIES:
            try:
                versions[library] = version(library)
            except PackageNotFoundError:  # inside a zip archive
                versions[library] = None
        system = f"{platform.system()} {platform.machine()}"
        return Finding(
            "ok",
            f"rebyte {__version__}, Python {platform.python_version()}, {system}",
            details={
                "rebyte": __version__,
                "python": platform.python_version(),
                "executable": sys.executable,
                "system": f"{platform.system()} {platform.release()} {platform.machine()}",
                "libraries": versions,
            },
        )

    def programs(self) -> Finding:
        """Which `rebyte` a shell starts."""
        found = list(_programs("rebyte", self._environment.get("PATH", "")))
        details = {"found": found}
        if not found:
            return Finding("ok", f"no `rebyte` on PATH; this one is {sys.argv[0]}")
        others = [path for path in found if not _is_ours(path)]
        if found[0] in others:
            return Finding(
                "warning",
                f"`rebyte` starts another program: {found[0]}",
                "Put the folder of this one first on PATH, or call it as rebyte-cli",
                details,
            )
        if others:
            return Finding("ok", f"{found[0]}, before {', '.join(others)}", details=details)
        return Finding("ok", found[0], details=details)

    # Configuration

    def config(self) -> Finding:
        """Whether `config.toml` can be read, and every name in it means something."""
        config = self._app.config
        details = {"path": str(config.path), "exists": config.path.exists()}
        shown = str(config.path) if details["exists"] else f"{config.path} (none yet)"
        return Finding("ok", shown, details=details)

    def profile(self, settings: Settings) -> Finding:
        """The profile and the base URL that a command would use."""
        where = "on this machine" if settings.is_local else settings.base_url.value
        return Finding(
            "ok",
            f"{settings.profile} ({settings.profile_source}), {where or settings.origin}",
            details={
                "profile": settings.profile,
                "source": settings.profile_source,
                "baseUrl": settings.base_url.value,
                "baseUrlSource": settings.base_url.source,
            },
        )

    def variables(self) -> Finding:
        """Variables that are read, and those with the same prefix that are not."""
        names = sorted(name for name in self._environment if name.startswith("REBYTE_"))
        used = [name for name in names if name in self._known_variables]
        unused = [name for name in names if name not in self._known_variables]
        details = {"read": used, "notRead": unused}
        if not unused:
            shown = ", ".join(used) if used else "no REBYTE_ variable is set"
            return Finding("ok", shown, details=details)
        hints = (self._instead_of(name) for name in unused)
        return Finding(
            "warning",
            f"not read by this command: {', '.join(unused)}",
            lines(*hints) or Next("man") + " lists those that are read",
            details,
        )

    def _instead_of(self, name: str) -> str | None:
        instead = _VENDOR_VARIABLES.get(name)
        if instead is not None:
            return f"{name} is for other tools: " + instead
        near = did_you_mean(name, self._known_variables, prefix="REBYTE_")
        return f"{name}: {near}" if near else None

    # The account

    def key(self, settings: Settings) -> Finding:
        """Where the key comes from; the key itself is never shown."""
        source = self._find_key(settings).source
        return Finding("ok", source, details={"source": source})

    def _find_key(self, settings: Settings) -> FoundKey:
        """The key and its source. Raises what is wrong with them.

        Two checks ask: a `key_command`, which may ask its user something, runs once all the same.
        """
        with self._key_lock:
            if self._key is None:
                try:
                    self._key = self._keys.find(settings)
                except RebyteError as error:
                    self._key = error
            if isinstance(self._key, RebyteError):
                raise self._key
            return self._key

    def api(self, settings: Settings) -> Finding:
        """Whether the API answers and takes the key."""
        if settings.is_local:
            return Finding("ok", "the local service starts with each command")
        try:
            key = self._find_key(settings)
        except RebyteError:
            key = None  # the check of the key says why; the API may be reachable all the same
        started = time.monotonic()
        try:
            # Without a key of ours, the API says that it does not know this one.
            client = self._app.client_for(key=key or FoundKey("rbk_none"))
            client.list_tasks(limit=1, timeout=self._seconds)
        except KeyRejected as error:
            if key is None:
                return Finding("ok", f"{settings.origin} answers; no key to try")
            return Finding("problem", f"{settings.origin}: " + error.sentence, error.hint)
        milliseconds = round((time.monotonic() - started) * 1000)
        return Finding(
            "ok",
            f"{settings.origin} answered in {milliseconds} ms"
            + ("" if settings.is_own_service else " and accepts the key"),
            details={"milliseconds": milliseconds},
        )

    # The network

    def proxy(self, settings: Settings) -> Finding:
        """The proxy that requests would go through."""
        if settings.is_own_service:
            return Finding("ok", "none: it is for HTTP, which no request uses here")
        from ..api.connection import ConnectionPool

        url = str(settings.base_url.value)
        pool = ConnectionPool(ca_bundle=settings.ca_bundle.value, size=1)
        chosen = pool.proxies(url).get(url.partition(":")[0])
        variables = [
            name
            for name in _PROXY_VARIABLES
            if self._environment.get(name) or self._environment.get(name.lower())
        ]
        shown = _without_password(chosen) if chosen else "none"
        named = f" ({', '.join(variables)} set)" if variables else ""
        return Finding("ok", f"{shown}{named}", details={"proxy": shown, "variables": variables})

    def tls(self) -> Finding:
        """The certificates that are trusted."""
        bundle = None if self._config_error else self._app.settings.ca_bundle.value
        from ..api.connection import make_context

        make_context(bundle)
        names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
        source = next((name for name in names if self._environment.get(name)), None)
        if bundle:
            return Finding("ok", f"{bundle} (ca_bundle)", details={"source": "ca_bundle"})
        if source:
            path = self._environment[source]
            return Finding("ok", f"{path} ({source})", details={"source": source})
        return Finding("ok", "the bundle of certifi", details={"source": "certifi"})

    # This machine

    def keyring(self) -> Finding:
        """Which keyring would keep a key."""
        try:
            backend = self._keys.keyring.check()
        except KeyProblem as problem:
            source = None
            with suppress(RebyteError):
                source = self._keys.source(self._app.settings)
            if source in (None, "keyring"):
                raise
            return Finding("ok", f"none needed, the key comes from {source}: {problem.message}")
        return Finding("ok", backend, details={"backend": backend})

    def state(self) -> Finding:
        """Whether the history and the local service can be kept."""
        folder: Path = self._app.state_dir
        details = {"path": str(folder)}
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            return Finding("problem", f"{there} cannot be written", "Set REBYTE_STATE_DIR", details)
        for name in ("history.db", os.path.join("local", "service.db")):
            broken = _broken_database(folder / name)
            if broken is not None:
                hint = "Move it away; rebyte creates a new one"
                return Finding("problem", f"{folder / name}: {broken}", hint, details)
        shown = str(folder) if folder.exists() else f"{folder} (none yet)"
        return Finding("ok", shown, details=details)

    def editor(self) -> Finding:
        """The editor that `create` opens when no prompt is given."""
        path = self._environment.get("PATH")
        for variable in ("VISUAL", "EDITOR"):
            command = self._environment.get(variable)
            if not command:
                continue
            program = None
            with suppress(ValueError, IndexError):
                program = which(shlex.split(command)[0], path=path)
            if program is None:
                hint = f"Set {variable} to a program on PATH, or pass the prompt as an argument"
                return Finding("warning", f"{variable}={command}: no such program", hint)
            return Finding("ok", f"{command} ({variable})", details={"command": command})
        found = usual(self._environment)
        if found is None:
            return Finding("warning", "no editor", "Set EDITOR to the program you write with")
        return Finding("ok", f"{found} (EDITOR is not set)", details={"command": found})

    def git(self) -> Finding:
        """Whether git is there, for `-g .`, `diff` and `apply`."""
        try:
            path = {"PATH": self._environment.get("PATH", "")}
            said = git.run(["--version"], extra=path, timeout=8)
        except git.GitFailed:
            hint = "Install git: `-g .` and " + Next("apply") + " use it"
            return Finding("warning", "git is not on PATH", hint)
        return Finding("ok", said.decode("utf-8", "replace").strip())

    def agents(self) -> Finding:
        """Which coding agents `-P local create -x` can run, and in which sandbox."""
        from ..local.agents import every_agent

        try:
            found = every_agent(None, None if self._config_error else self._app.config_path)
        except ValueError as error:  # config.toml: [local.agents] says what cannot be meant
            return Finding("problem", str(error), "See " + Next("man", "local-agents"))
        details = {"agents": found}
        usable = [_agent(row) for row in found if row["usable"]]
        installed = [row for row in found if row["program"] and not row["usable"]]
        absent = [row["name"] for row in found if not row["program"]]
        missing = f"{', '.join(absent)} not installed" if absent else ""
        if installed:
            names = ", ".join(row["name"] for row in installed)
            hint = "\n".join(dict.fromkeys(str(row["problem"]) for row in installed))
            return Finding("warning", f"{names}: installed, but not usable", hint, details)
        if not usable:
            shown = f"{missing}; without `-x`, `-P local` simulates runs"
            return Finding("ok", shown, details=details)
        shown = "; ".join(filter(None, (f"{', '.join(usable)} {_regime(found)}", missing)))
        if gaps := found[0]["jailGaps"]:
            hint = "See CONFINEMENT in " + Next("man", "local-agents")
            return Finding("warning", f"{shown}, in which {gaps}", hint, details)
        return Finding("ok", shown, details=details)

    def repository(self) -> Finding:
        """What the `.rebyte.toml` of the repository here asks for, and whether it is trusted."""
        try:
            root = git.top_level(".")
        except git.GitFailed:
            return Finding("ok", "no git repository here")
        try:
            found = repository_file.read(root, "HEAD") if git.has(root, "HEAD") else None
        except repository_file.RepositoryFileError as error:
            return Finding("warning", error.message, "None of it is obeyed until that is mended")
        if found is None:
            return Finding("ok", f"no {repository_file.FILE} in the last commit here")
        said = f"{found.name} asks for: {found.described() or 'nothing'}"
        folder = self._app.state_dir / "local"
        is_trusted = trust.Trust(folder).covers(trust.key_of(root), found.content)
        details = {"file": found.name, "trusted": is_trusted, "asks": found.described()}
        if is_trusted:
            return Finding("ok", f"trusted: {said}", details=details)
        hint = "To have it obeyed: " + Next("local", "trust")
        return Finding("warning", f"not trusted: {said}", hint, details)

    # Settings that cannot be read

    def _with_settings(self, check: Callable[[Settings], Finding]) -> Callable[[], Finding]:
        """A check of the settings, which says so where config.toml is why there are none.

        It raises what is wrong with the settings themselves.
        """

        def run() -> Finding:
            if self._config_error is not None:
                return Finding("warning", "not checked, since the configuration cannot be read")
            return check(self._app.settings)

        return run


def _error_of(read: Callable[[], Any]) -> RebyteError | None:
    try:
        read()
    except RebyteError as error:
        return error
    return None


def _without_password(proxy: str) -> str:
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _programs(name: str, path: str) -> Iterator[str]:
    """Every program of that name on PATH, the first one first, each real file once."""
    seen = set()
    for folder in path.split(os.pathsep):
        program = os.path.join(folder, name) if folder else ""
        real = os.path.realpath(program)
        if program and os.path.isfile(program) and os.access(program, os.X_OK) and real not in seen:
            seen.add(real)
            yield program


def _is_ours(program: str) -> bool:
    """Whether a program is this command, of any version: its script imports the package."""
    try:
        with open(program, "rb") as file:
            return b"rebyte_cli" in file.read(1 << 20)
    except OSError:
        return False


def _broken_database(path: Path) -> str | None:
    """What is wrong with a SQLite file; None if nothing is, or it does not exist.

    Reads only the file's first page: a lock, or a file for one, would be a change on disk.
    """
    import sqlite3

    if not path.exists():
        return None
    try:
        url = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(url, uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None


def _regime(agents: Sequence[Mapping[str, Any]]) -> str:
    """What confines the agents' files, network and keys, and what starts them elsewhere."""
    launcher = agents[0]["launcher"]
    elsewhere = f", started by `{launcher}`" if launcher else ""
    if agents[0]["jail"] != "on":
        return f"without a sandbox{elsewhere}"
    network = {
        "list": "with a separate network: the model, and hosts on the list",
        "none": "with a separate network: the model",
        "host": "that shares the network",
    }[agents[0]["network"]]
    inside = [f"{each['name']}: {each['credential']}" for each in agents
              if each["usable"] and each["credential"] not in (None, "outside")]  # fmt: skip
    keys = f" ({', '.join(inside)})" if inside else ", keys outside"
    return f"in a bubblewrap sandbox {network}{keys}{elsewhere}"


def _agent(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["name"], row["version"])))
