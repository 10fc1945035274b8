"""What a command is given: settings, client, history and console, each created when first used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TextIO

from .errors import BadUsage, RebyteError, typed

if TYPE_CHECKING:
    from .api.client import RebyteClient
    from .api.ssh import SshConnector
    from .config.credentials import FoundKey, KeyDoor
    from .config.settings import Config, Settings
    from .history.history import History
    from .history.known_tasks import KnownTasks
    from .local.dialer import Dialer
    from .once.search import Pace
    from .output.console import Console


class App:
    """One run of the command: its options, and the parts of rebyte that serve it.

    Nothing is read, opened or imported before a command uses the property that needs it.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, argv: Iterable[str] = ()):
        self.environment = os.environ if environment is None else environment
        self.argv = list(argv)
        self.options: dict[str, Any] = {}
        self.text = False  # whether `auto` means text for this command
        self.auto: str | None = None  # what else it means, unless that depends on the terminal
        self.mends_config = False  # whether this command works on a file with unknown names
        self.is_busy = False  # whether this command makes so many requests that it takes a while
        self.needs_history = False  # whether this command ends when the history cannot be used
        self._others: dict[str, App] = {}  # the same run with other profiles

    def set_option(self, name: str, value: Any) -> None:
        """Keep the value of a shared option; the last one given wins.

        Raises BadUsage for an empty value: an unset variable must not select the default account
        or every field.
        """
        if name == "fields":
            value = tuple(part.strip() for part in str(value).split(",") if part.strip())
        if not value:
            raise BadUsage(f"--{name} is empty")
        self.options[name] = value
        self.__dict__.pop("console", None)
        self.__dict__.pop("settings", None)

    def at(self, profile: str) -> App:
        """The same run with this profile, for a command that works with several.

        `REBYTE_API_URL` counts for none of them, as with `-P`. Raises NotFound for an unknown one.
        """
        if profile not in self._others:
            other = App(self.environment, self.argv)
            other.options = {**self.options, "output": self.format, "profile": profile}
            other.config, other.console, other.is_busy = self.config, self.console, self.is_busy
            other.text, other.auto, other.pace = self.text, self.auto, self.pace
            _ = other.settings
            self._others[profile] = other
        return self._others[profile]

    # Options and settings

    @property
    def fields(self) -> tuple[str, ...] | None:
        """The names given with `--fields`, in order; None without."""
        return self.options.get("fields")

    @cached_property
    def config_path(self) -> Any:
        """Where `config.toml` is (it may not exist)."""
        from .config.paths import config_dir

        return config_dir(self.environment) / "config.toml"

    @cached_property
    def state_dir(self) -> Any:
        """The folder of the history and of the local service (it may not exist)."""
        from .config.paths import state_dir

        return state_dir(self.environment)

    @property
    def drafts_folder(self) -> Any:
        """Where prompts from the editor are kept until they are sent."""
        return self.state_dir / "drafts"

    def local_folder(self) -> Any:
        """The folder of the local service, in a state folder that only its owner can enter."""
        from .system.permissions import private_folder

        private_folder(self.state_dir)
        return self.state_dir / "local"

    @cached_property
    def config(self) -> Config:
        """The profiles, as the file has them. Raises BadUsage for names that mean nothing in it."""
        from .config.settings import Config

        config = Config.load(self.config_path)
        if not self.mends_config and config.unknown is not None:
            raise config.unknown
        return config

    @cached_property
    def settings(self) -> Settings:
        """Options, environment, profile and defaults, resolved; each value with its source."""
        from .config.settings import resolve

        return resolve(self.options, self.environment, self.config)

    @cached_property
    def console(self) -> Console:
        """The streams, and what each can show."""
        from .output.console import Console

        return Console.detect(
            self.environment,
            color=self.options.get("color", "auto"),
            quiet=bool(self.options.get("quiet")),
        )

    @cached_property
    def pace(self) -> Pace:
        """How lost requests are searched for."""
        from .once.search import PACE

        return PACE

    @property
    def interactive(self) -> bool:
        """Whether prompts are possible: on a terminal, and without `--no-input`."""
        return not self.options.get("no_input") and self.on_terminal

    @property
    def on_terminal(self) -> bool:
        """Whether a user is there: terminals on both ends."""
        stream: TextIO | None = sys.stdin
        return bool(stream and stream.isatty() and self.console.err_tty)

    @property
    def on_question(self) -> Literal["ask", "stop", "wait"]:
        """What a wait does when a run asks a question: `--on-question`, or what is possible."""
        asked: Literal["ask", "stop", "wait"] | None = self.options.get("on_question")
        return asked or ("ask" if self.interactive else "stop")

    # Service, client, history

    @cached_property
    def service(self) -> Dialer:
        """The way to the local service: a running `local serve`, or one that ends with this run."""
        from .local import left_sandboxes
        from .local.dialer import Dialer

        folder = self.local_folder()
        left_sandboxes.end(self.state_dir)
        if not (self.environment.get("REBYTE_LOCAL_QUIET") or self.console.quiet):
            from .local.shell_session import is_first_use

            if is_first_use(self.state_dir / "shells"):
                self.note("local service")
        return Dialer(folder, self.config.path, self.note, busy=self.is_busy)

    @cached_property
    def ssh(self) -> SshConnector:
        """The way to the service of a profile with `ssh`."""
        from .api.ssh import SshConnector, control_folders

        return SshConnector(
            self.settings.ssh.value,
            self.settings.remote_command.value,
            folders=control_folders(self.state_dir),
            interactive=self.interactive,
            note=self.note,
        )

    def link_to(self, task: Mapping[str, Any]) -> str:
        """The address of a task's page; "" while no `local serve` answers at it."""
        if self.settings.is_own_service and not (self.settings.is_local and self.service.is_served):
            return ""
        return str(task.get("url") or "")

    @property
    def keys(self) -> KeyDoor:
        """The keys of the user."""
        from .config.credentials import KeyDoor

        return KeyDoor(self.environment, self.interactive, self.note)

    @cached_property
    def client(self) -> RebyteClient:
        """The one client, with the key of the profile in use."""
        return self.client_for()

    def client_for(self, *, key: FoundKey | None = None, **transport_options: Any) -> RebyteClient:
        """A client with other settings for the transport (a batch needs a larger pool).

        `key` is a key to try instead of the one in use.
        """
        from .api.client import RebyteClient
        from .api.transport import Transport

        settings = self.settings
        connector: Dialer | SshConnector | None = None
        if_rejected = None
        if settings.is_own_service:
            connector = self.service if settings.is_local else self.ssh
            base_url, secret = connector.base_url, connector.key
        else:
            base_url = settings.base_url.value
            if key is None:
                key = self.keys.find(settings)
            secret, if_rejected = key.key, key.if_rejected
        transport = Transport(
            base_url,
            secret,
            timeout=settings.timeout.value,
            ca_bundle=settings.ca_bundle.value,
            log=self._log,
            connector=connector,
            if_rejected=if_rejected,
            **transport_options,
        )
        if connector is None or settings.is_local:
            return RebyteClient(transport=transport)
        from .tasks.bundle import Bundles

        return RebyteClient(transport=transport, prepare=Bundles().replaced)

    @property
    def _log(self) -> Callable[[Any], None] | None:
        if not (self.options.get("verbose") or self.options.get("debug")):
            return None
        from .output.messages import call_logger

        return call_logger(self.console, debug=bool(self.options.get("debug")))

    @cached_property
    def history(self) -> History:
        """Tasks created on this machine, their workspaces, and the intents behind `--once`."""
        from .history.history import History

        return History(
            self.history_file,
            origin=self.settings.origin,
            enabled=bool(self.settings.history.value),
            warn=None if self.needs_history else self.note,
        )

    @cached_property
    def known(self) -> KnownTasks:
        """What this machine knows of tasks beside what the service says of them."""
        from .history.known_tasks import KnownTasks

        return KnownTasks(
            lambda: self.history if self.history_file.exists() else None,
            lambda: self.config.prices(),
        )

    @property
    def history_file(self) -> Any:
        """Where the history is. Whether it exists can be told without importing SQLite."""
        return self.state_dir / "history.db"

    # Notes and progress

    def note(self, text: str) -> None:
        """Print a line for people on stderr, unless `-q` was given."""
        from .output.messages import note

        note(self.console, self.typed(text))

    def warn(self, text: str) -> None:
        """Print a warning on stderr, with `-q` too."""
        from .output.messages import note

        note(self.console, f"Warning: {self.typed(text)}", always=True)

    def spinner(self, text: str) -> AbstractContextManager[Any]:
        """A spinner on stderr while something blocks; nothing off a terminal."""
        if not self.console.live:
            return nullcontext()
        from .output.progress import spinner

        return spinner(self.console, text)

    def progress_bar(
        self, text: str, total: int | None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """A bar for bytes on stderr; gives a function to call as they move. See `spinner`."""
        from .output.progress import progress_bar

        return progress_bar(self.console, text, total)

    # Results

    @property
    def format(self) -> str:
        """The output format: table, json, jsonl, csv, tsv, id or text."""
        wanted = str(self.options.get("output") or self.settings.output.value or "auto")
        if wanted == "auto":
            if self.text:
                return "text"
            return self.auto or ("table" if self.console.out_tty else "json")
        return wanted

    def speech(self) -> Callable[[str], str]:
        """What prepares Markdown for stdout: rendered on a terminal, unchanged elsewhere."""
        if not self.console.out_tty:
            return str
        from .output.markup import speech

        return speech(self.console)

    def close(self) -> None:
        """Stop the local service, after it has delivered what is due, and connections over ssh."""
        for other in self._others.values():
            other.close()
        for name in ("service", "ssh"):
            connector = self.__dict__.pop(name, None)
            if connector is not None:
                connector.stop()

    def has_used(self, part: str) -> bool:
        """Whether this run has come to use one of its parts, such as `config`."""
        return part in self.__dict__

    def typed(self, text: str) -> str:
        """A text with the `-P NAME` of this run in the commands that it suggests."""
        return typed(text, self.options.get("profile"))

    @property
    def errors_as_json(self) -> bool:
        """Whether errors are JSON objects; works even if options or configuration are the error.

        They are where `-o`, REBYTE_OUTPUT or the profile asks for json or jsonl, and where `auto`
        means JSON and stderr is no terminal either, so that a program reads both.
        """
        from .output.messages import early_format

        form = self.options.get("output") or early_format(self.argv)
        if form is None:
            try:
                form = str(self.settings.output.value)
            except RebyteError:
                form = self.environment.get("REBYTE_OUTPUT")
        if form in (None, "", "auto"):
            return not (self.text or self.console.out_tty or self.console.err_tty)
        return form in ("json", "jsonl")
