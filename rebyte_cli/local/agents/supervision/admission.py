"""Admission of runs: what can be refused is refused before a run is recorded and started."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ....system.git import GitFailed, watched
from ... import http
from ...ballast import full_disk, keep
from ...gateway.allowed_hosts import is_entry
from ...http import JsonObject, Refusal
from ...store import Store
from ...uploads import asked_name
from .. import config
from ..adapters import programs
from ..adapters.adapter import Adapter, User
from ..adapters.model_access import AgentAccess, LoginExpired
from ..cluster import launcher
from ..limits import usage_limit
from ..sandbox import egress, jail, user_tools
from ..sources import skills, source
from ..workspaces.workspace_folder import WorkspaceSource
from . import accounts, run_budget, run_lock, runs, spawn

JAIL_CACHE = "jail.json"
# The cheapest tier of the cloud, and the default there: an agent's own default here.
CLOUD_TIERS = ("lite",)
CONFINED = "confined"


def executors(config_file: Path | None) -> tuple[str, ...]:
    """The executors that can be named. Raises Refusal for a config.toml in disorder."""
    with readable_config():
        return tuple(config.load(config_file).agents)


class Admission:
    """Admits runs to one service, with the settings of `config_file`."""

    def __init__(self, store: Store, config_file: Path | None) -> None:
        self._store = store
        self._config_file = config_file

    def admit(
        self,
        executor: str,
        body: JsonObject,
        earlier: dict[str, Any] | None = None,
        *,
        on_screen: bool = False,
    ) -> AdmittedRun:
        """Check everything that can be checked before a run is recorded.

        `earlier` are the options of the last run of the same task, whose jail the next one has, and
        its model, too, if the agent is the same. A run `on_screen` waits for no usage limit.
        `networkOf` in `body`, this service's own extension, is a task that this one repeats: what
        that could reach and use, this one may (`repeated`, in both cases). Raises Refusal when the
        agent is not installed, no jail can be made, or a skill is unknown.
        """
        repeated = earlier if earlier is not None else self._repeated(body)
        wanted = http.optional_choice(body, "jail", ("on", "off"))
        if wanted is None and repeated is not None and repeated["jail"]:
            wanted = "on"
        elif wanted is None and earlier is not None:
            wanted = "off"
        adapter, settings, jailed = usable_agent(
            executor, self._config_file, self._store.folder, wanted
        )
        model = http.optional_text(body, "model", most=200, least=1)
        if model is None and earlier and earlier["adapter"]["name"] == adapter.title:
            model = earlier["model"]
        with readable_config():
            prices = config.prices(self._config_file)
        options: dict[str, Any] = {
            "adapter": config.describe(adapter),
            "model": None if model in CLOUD_TIERS else model,
            "jail": jailed,
            "parallel": settings.parallel,
            "limit": settings.limit,
            "stall": settings.stall,
            "keep_free": settings.keep_free,
            "tools": settings.tools,
            "caches": settings.caches,
            "configDir": self._config_file and str(self._config_file.parent),
            "launcher": settings.launcher,
            "launcherStop": settings.launcher_stop,
            "setup": self._setup(body, repeated),
            # The private HOME of the next run has only what is named again.
            "skills": list(earlier["skills"] if earlier else ()),
            **self._network(body, settings, repeated),
            **run_budget.asked_for(body, settings, prices, model, repeated),
        }
        account, access = self._account(adapter, options)
        run_budget.check(self._store, adapter, options, access)
        options |= account | ({"account": ""} if on_screen else {})
        options |= self._on_limit(executor, body, settings, options, repeated)
        options["skills"] += [
            one for one in self._skills(body, settings) if one not in options["skills"]
        ]
        options["source"], login = self._source(body)
        return AdmittedRun(self._store, adapter, options, login)

    def _account(
        self, adapter: Adapter, options: dict[str, Any]
    ) -> tuple[dict[str, Any], AgentAccess]:
        """Whose usage limit the run meets (see `account_limit`), and whether it has a key or login;
        also, how it reaches its model.

        Raises Refusal when the run could only fail because a login has expired.
        """
        user = adapter.surroundings(User(os.environ, Path.home()))
        try:
            access = egress.access_of(adapter, options, user)
        except LoginExpired as error:
            raise Refusal(400, "login_expired", str(error)) from None
        secret, model = self._store.secret(), options["model"]
        account = accounts.account_of(adapter, access, user, secret, model)
        found = {
            "account": account.name,
            "limitedModel": account.limited_model,
            "limitedRoute": account.limited_route,
            "hasCredential": adapter.found_login(user) is not None,
        }
        return found, access

    def _on_limit(
        self,
        executor: str,
        body: JsonObject,
        settings: config.LocalConfig,
        options: dict[str, Any],
        repeated: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """What the run does at a usage limit: `onLimit`, and `elsewhere`, what changes of its
        options if another agent continues. `onLimit` is this service's own extension.
        """
        before = (repeated or {}).get("onLimit")
        wanted = http.optional_text(body, "onLimit", most=100, least=1)
        wanted = wanted or before or settings.on_limit
        if wanted in (usage_limit.WAIT, usage_limit.STOP, executor):
            return {"onLimit": usage_limit.WAIT if wanted == executor else wanted}
        if any("cost" in limit for limit in options["budgets"]):
            http.invalid("onLimit cannot name an executor if there is a budget in dollars")
        adapter, *_ = usable_agent(
            wanted, self._config_file, self._store.folder, "on" if options["jail"] else "off"
        )
        other = {
            "adapter": config.describe(adapter),
            "model": None,
            "price": None,
            "onLimit": usage_limit.WAIT,
        }
        account, access = self._account(adapter, options | other)
        run_budget.check(self._store, adapter, options | other, access)
        return {"onLimit": wanted, "elsewhere": other | account}

    def _repeated(self, body: JsonObject) -> dict[str, Any] | None:
        """The options of the last run of the task that is repeated, if there is one."""
        like = http.optional_text(body, "networkOf", most=1000)
        if like is None:
            return None
        with self._store.read() as db:
            found = runs.last_options(db, like)
        return found[1] if found else None

    def _setup(self, body: JsonObject, repeated: dict[str, Any] | None) -> bool:
        """Whether the `setup` of the repository may run; `setup` is this service's extension."""
        wanted = http.optional_choice(body, "setup", ("on", "off"))
        if wanted is None and repeated is not None:
            return bool(repeated.get("setup", True))
        return wanted != "off"

    def _network(
        self, body: JsonObject, settings: config.LocalConfig, repeated: dict[str, Any] | None
    ) -> dict[str, Any]:
        """What the run may reach: `network`, the hosts that it names itself, and all `hosts`.

        `network` and `allow` are this service's own extension. `confined` stands for anything but
        `host`.
        """
        before = repeated or {}
        wanted = http.optional_choice(body, "network", (*egress.NETWORKS, CONFINED))
        usual = before.get("network") or settings.network
        network = usual if wanted in (None, CONFINED) else wanted
        if wanted == CONFINED and network == egress.HOST:
            network = egress.LIST
        allow = http.strings(body, "allow")
        for host in allow:
            if not is_entry(host):
                http.invalid(f"{host!r} is not a host such as pypi.org or *.example.com")
        if allow and wanted is None and network != egress.LIST:
            network = egress.LIST
        own = list(dict.fromkeys([*before.get("allow", ()), *allow]))
        hosts = list(dict.fromkeys([*settings.allow, *own]))
        return {"network": network, "allow": own, "hosts": hosts}

    def _source(self, body: JsonObject) -> tuple[WorkspaceSource, dict[str, str]]:
        """What to clone, and the login in its URL: no database and no argument is to have that.

        `localRepository` (a path or any URL) is this service's own extension.
        Raises Refusal when the workspace was made from something else.
        """
        repository = http.optional_text(body, "localRepository", most=4096, least=1)
        repository = repository or http.optional_text(body, "githubUrl", most=2000, least=1)
        repository, login = source.split_login(repository) if repository else (None, {})
        changes = body.get("withChanges", False)
        if not isinstance(changes, bool):
            http.invalid("withChanges must be true or false")
        workspace = body.get("workspaceId")
        if repository is not None and isinstance(workspace, str):
            with self._store.read() as db:
                made_from = runs.source(db, workspace)
            if made_from is not None and made_from.repository != repository:
                there = made_from.repository or "no repository"
                raise Refusal(
                    400,
                    "validation_error",
                    f"workspace {workspace} was created with {source.without_secrets(there)}",
                    "Leave out the repository, or leave out the workspace",
                )
        branch = http.optional_text(body, "branchName", most=2000, least=1)
        return WorkspaceSource(repository, branch, changes), login

    def _skills(self, body: JsonObject, settings: config.LocalConfig) -> list[skills.Source]:
        path = http.optional_text(body, "localRepository", most=4096, least=1)
        here = None if path is None else source.local_path(path)
        config_dir = None if self._config_file is None else self._config_file.parent
        places = skills.folders(config_dir, here)
        try:
            slugs = http.strings(body, "skills")
            with watched(lambda: full_disk(self._store.folder, settings.keep_free)):
                return skills.resolve(slugs, places, self._store.folder / "skills")
        except skills.UnknownSkill as error:
            raise Refusal(400, "unknown_skill", str(error), error.hint, error.hint) from None
        except GitFailed as error:
            raise Refusal(400, "unknown_skill", f"The skill cannot be cloned: {error}") from None


class AdmittedRun:
    """A run that was admitted: it is recorded, then started."""

    def __init__(
        self, store: Store, adapter: Adapter, options: dict[str, Any], login: dict[str, str]
    ) -> None:
        self._store = store
        self._login = login
        self.adapter = adapter
        self._options = options
        self._prompt = ""
        self._lock: int | None = None
        self._before: list[Path] = []

    @property
    def model(self) -> str:
        """The model that was asked for; empty for the agent's default."""
        return self._options["model"] or ""

    def record(
        self,
        db: sqlite3.Connection,
        place: tuple[str, str, str],
        now: int,
        uploads: Iterable[tuple[str, str]],
    ) -> None:
        """Queue the run of `place` (task, workspace, prompt) in the transaction of `db`.

        `uploads` are the names and ids of uploaded files. Raises Refusal for a run without a jail
        where a jailed agent has worked, and where what runs left is gone.
        """
        _, workspace, prompt = place
        if runs.is_gone(db, self._store.folder, workspace):
            raise Refusal(409, "workspace_gone", runs.GONE, runs.GONE_HINT)
        had_jail = "workspace = ? AND json_extract(options, '$.jail')"
        if not self._options["jail"] and runs.find(db, had_jail, workspace):
            raise Refusal(
                400,
                "jail_required",
                "An agent has worked in this workspace in a sandbox: what it left there must not"
                " decide what another one does outside",
                "Leave out --no-jail, or create a workspace without -w and apply the patch to it",
            )
        files = [
            [name, str(self._store.objects / file_id), asked_name(name, file_id)]
            for name, file_id in uploads
        ]
        keep(self._store.folder)
        self._lock = run_lock.take_new(self._store.folder, workspace, prompt)
        self._prompt = prompt
        options = self._options | {"uploads": files}
        runs.add(db, place, self.adapter.title, now, options)
        self._before = run_lock.locks_before(db, self._store.folder, prompt)

    def lock(self) -> int | None:
        """The lock of the recorded run, for a supervisor here; None if it would have to wait."""
        return None if self._before else self._lock

    def start(self, announce: Callable[[str], None]) -> None:
        """Start the supervisor, after the transaction of `record` is committed.

        `announce` tells the user what runs where, and which settings it does not get.
        """
        assert self._lock is not None
        self._tell_user(announce)
        try:
            spawn.start(
                self._store.folder,
                self._prompt,
                self._lock,
                self._options,
                self._before,
                self._login,
            )
        except OSError as error:
            now = self._store.now()
            with self._store.write() as db:
                runs.end(db, self._prompt, now, "failed", f"The run cannot be started: {error}")

    def _tell_user(self, announce: Callable[[str], None]) -> None:
        """Announce a jail once for each agent, and settings that it does not get once for each
        such list; always that there is no jail, or that it has the network of this machine.
        """
        name = self.adapter.title
        if not self._options["jail"]:
            announce(f"{name} runs without a sandbox: it can read and change all your files")
        elif self._options["network"] == egress.HOST:
            announce(
                f"{name} runs in a sandbox that shares the network: it reaches what this machine"
                " does, and has your key or login inside"
            )
        elif self._store.recall(f"announced {name}") is None:
            self._store.remember(f"announced {name}", "yes")
            announce(
                f"{name} runs in a sandbox (bubblewrap), in a workspace below"
                f" {self._store.folder / 'workspaces'}: it sees that and the system read-only, but"
                " none of your files, and reaches its model and the hosts that you allow"
            )
        has_gateway = egress.network_of(self._options) != egress.HOST
        names = self.adapter.unused_settings(Path.home(), has_gateway=has_gateway)
        unused = ", ".join(names)
        if unused and self._store.recall(f"unused {name}") != unused:
            self._store.remember(f"unused {name}", unused)
            announce(f"{name} runs without {unused} of your settings")


@contextmanager
def readable_config() -> Iterator[None]:
    """Raise Refusal in the block for a config.toml in disorder."""
    try:
        yield
    except config.ConfigError as error:
        raise Refusal(400, "invalid_config", f"config.toml: {error}") from None


def usable_agent(
    executor: str, config_file: Path | None, state_dir: Path, wanted: str | None
) -> tuple[Adapter, config.LocalConfig, bool]:
    """The agent, the settings, and whether it runs in a jail, which `wanted` says (`on`, `off`).

    Raises Refusal when it cannot run on this machine.
    """
    with readable_config():
        settings = config.load(config_file, state_dir)
    adapter = settings.agents.get(executor)
    if adapter is None:
        http.invalid(f"executor must be one of {', '.join(settings.agents)}")
    program = programs.find(adapter, os.environ)
    if program is None:
        raise _not_installed(adapter, settings)
    if problem := launcher.why_missing(settings.launcher):
        raise Refusal(400, "executor_unavailable", f"{executor} cannot be started: {problem}")
    user = adapter.surroundings(User(os.environ, Path.home()))
    if adapter.log_in and adapter.found_login(user) is None:
        problem = f"{executor} cannot run: no login and no key was found"
        raise Refusal(400, "executor_unavailable", problem, adapter.log_in)
    jailed = settings.jail if wanted is None else wanted == "on"
    if jailed:
        check = jail.probe(state_dir / JAIL_CACHE)
        if not check.works:
            raise Refusal(
                400,
                "executor_unavailable",
                f"{executor} cannot be sandboxed on this machine: {check.reason}",
                ". ".join(filter(None, (check.fix, jail.NO_SANDBOX))),
                check.fix or None,
            )
        own = user_tools.own_folders(config_file and config_file.parent, state_dir)
        if problem := user_tools.why_not_all(program.own, own):
            raise Refusal(
                400,
                "executor_unavailable",
                f"{executor} cannot be sandboxed: {problem}",
                "Install it elsewhere, in a folder that has nothing else in it",
            )
    return adapter, settings, jailed


def _not_installed(adapter: Adapter, settings: config.LocalConfig) -> Refusal:
    found = [name for name, other in settings.agents.items() if programs.find(other, os.environ)]
    there = f"found here: {', '.join(found)}" if found else "no other agent is installed"
    how = f"Install it: {adapter.install}" if adapter.install else "Check its command"
    return Refusal(
        400,
        "executor_unavailable",
        f"{adapter.title} is not installed: {programs.why_missing(adapter)}",
        f"{how} ({there}). For a simulated run, leave out -x or set REBYTE_LOCAL_AGENTS=0",
        f"{how} ({there})",
    )
