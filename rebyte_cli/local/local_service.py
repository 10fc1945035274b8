"""Start, find and empty the local service.

    with Service(Path("state")) as service:
        ...  # call service.base_url with any key that starts with rbk_

One `Service` answers on two ports of a loopback address: the API, and the object store that
upload URLs point at. All state lies in the folder, so any number of them can share it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from ..system.http_server import Server
from . import object_store, repositories, routes, service_log, visits
from .agents import facade
from .agents.agent_permission import AgentPermission, machine_key
from .deliveries import TIMEOUT_SECONDS, Deliverer
from .http import Context
from .proof import is_served
from .store import (
    SERVED,
    ServedService,
    StateError,
    Store,
    discard,
    new_id,
    record_service,
    recorded_services,
)
from .task_store import load_tasks

RESTART_SECONDS = 2.0


class AlreadyServed(Exception):
    """Another service answers for the same folder; the text is its origin."""


class Service:
    """A local Rebyte on a loopback address, with its state under `state_dir`.

    `port` 0 takes a free one. `clock` gives seconds since 1970 and decides what has happened.
    Links to tasks point at `public_url` (an origin without `/v1`); without it they point at this
    service, which is then also remembered as the place where the folder is served. `config_file` is
    the config.toml whose `[local]` says how real agents run; with `simulate` none does.
    `announce` gets a line that says what runs where when an agent is used for the first time.
    `embedded`: whether it is inside the process of the command that calls it, which is so with a
    `public_url` unless it says otherwise.
    `store` is an open store of the folder, which is closed with the service. `in_background` is
    remembered with its address. `servers` are used instead of those at `port` and a free one. A
    delivery to a webhook may take `delivery_seconds`.

    OSError: the port is taken, or the folder cannot be written.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int = 0,
        clock: Callable[[], float] = time.time,
        public_url: str | None = None,
        config_file: Path | None = None,
        simulate: bool = False,
        announce: Callable[[str], None] = lambda _line: None,
        store: Store | None = None,
        embedded: bool | None = None,
        in_background: bool = False,
        servers: tuple[Server, Server] | None = None,
        delivery_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._store = store or Store(state_dir, clock)
        self._public_url = public_url
        self._in_background = in_background
        embedded = public_url is not None if embedded is None else embedded
        self._started = False
        self._stopping = threading.Event()
        self.instance = new_id()
        self._deliverer = Deliverer(self._store, delivery_seconds)
        self._api, self._storage = servers or (Server(port, not_yet), Server(0, not_yet))
        self.origin = self._api.origin
        self.base_url = f"{self.origin}/v1"
        self.storage_url = self._storage.origin
        permission = AgentPermission(state_dir, simulate=simulate, embedded=embedded)
        context = Context(
            store=self._store,
            base=self.base_url,
            storage=self.storage_url,
            links=(public_url or self._api.origin).rstrip("/"),
            secret=self._store.secret(),
            instance=self.instance,
            stopping=self._stopping,
            wake=self._deliverer.wake,
            announce=announce,
            permission=permission,
            config_file=config_file,
            is_embedded=embedded,
        )
        self.key = machine_key(state_dir)
        self._api.application = partial(routes.application, context)
        self._storage.application = partial(object_store.application, context)

    @property
    def pages_url(self) -> str:
        """A new link to the list of tasks; it lets one browser in."""
        return f"{self.origin}/?key={visits.issue(self._store, visits.PRINTED_SECONDS)}"

    def idle_seconds(self) -> float:
        """For how long no request has been under way."""
        return min(self._api.idle_seconds(), self._storage.idle_seconds())

    def start(self, *, alone: bool = False) -> Self:
        """Answer on daemon threads and return at once. Safe to call twice.

        Raises StateError when this process may not have threads (`ulimit -u`, `ulimit -v`), and
        AlreadyServed, with `alone`, when another service answers for the folder.
        """
        if self._started:
            return self
        self._started = True
        try:
            self._api.start()
            self._storage.start()
            if self._public_url is None:
                self._register(alone)
            self._deliverer.start()
            facade.restart_waiting_runs(self._store)
            if self._public_url is None:
                threading.Thread(
                    target=self._keep_restarting, name="rebyte-limits", daemon=True
                ).start()
        except RuntimeError:
            self.stop()
            problem = "no thread can be started: raise the limits of this process (see ulimit -a)"
            raise StateError(self._store.folder, problem) from None
        return self

    def _keep_restarting(self) -> None:
        """Look after runs that wait for a usage limit, until the service stops."""
        while not self._stopping.wait(RESTART_SECONDS):
            facade.restart_waiting_runs(self._store)

    def _register(self, alone: bool) -> None:
        served = ServedService(self.origin, self.instance, os.getpid(), self._in_background)
        try:
            # Of two services that start at once the second sees the first, which answers already.
            with self._store.write() as db:
                for one in recorded_services(db):
                    if not is_served(self._store.folder, one):  # it was killed
                        db.execute("DELETE FROM meta WHERE name = ?", (SERVED + one.instance,))
                    elif alone:
                        raise AlreadyServed(one.origin)
                record_service(db, served)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop answering and close every connection. Safe to call twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._api.stop()
        self._storage.stop()
        self._deliverer.stop()
        if self._started and self._public_url is None:
            with contextlib.suppress(OSError, sqlite3.Error):
                self._store.forget(SERVED + self.instance)
                others = self._store.served()
                if others:
                    self._store.remember("address", others[0].origin)
        self._store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def reset(state_dir: Path) -> None:
    """Forget every task, workspace, file and webhook under `state_dir`, also a damaged file.

    Raises StateError when the folder cannot be written, a newer version uses it, or an agent may
    still be at work in a launcher's job. The last does not stop the reset of a damaged file.
    """
    from .agents.cluster.launcher import JobStays
    from .agents.supervision import disk_space

    try:
        _empty(state_dir)
    except StateError as error:
        if error.damaged:
            with contextlib.suppress(JobStays):  # which is in the log
                disk_space.end_jobs(state_dir)
            discard(state_dir)
        elif error.full:
            disk_space.remove_idle(state_dir)
            _empty(state_dir)
        else:
            raise


def _empty(state_dir: Path) -> None:
    from .agents.cluster.launcher import JobStays
    from .agents.supervision import disk_space

    with Store(state_dir) as store:
        store.secret()
        with store.readable():
            try:
                disk_space.remove_all(store)
            except JobStays as error:
                raise StateError(state_dir, str(error)) from None
        store.empty()
        repositories.remove_all(state_dir)


def status(state_dir: Path) -> dict[str, Any]:
    """What is there: `path`, the counts `tasks`, `running`, `workspaces`, `webhooks`, `keyLeaks`
    (requests to the object store that carried an API key), `agentsRunning`, `agentsQueued` and
    `disk` and `setupCaches` (bytes) of real agents, and `log`, the file of its faults or None.
    Raises StateError.
    """
    from .agents.supervision import disk_space, runs
    from .agents.workspaces import setup_cache

    store = Store(state_dir)
    disk_space.sweep(store)
    with store.readable(), store.read() as db:
        facade.recover(store)
        tasks = load_tasks(db, db.execute("SELECT * FROM tasks WHERE deleted IS NULL"))
        workspaces, webhooks, leaks = (
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - literals
            for table in ("workspaces", "webhooks", "leaks")
        )
        agents = runs.counts(db)
        now = store.now()
        running = sum(task.status(now) == "running" for task in tasks)
    store.close()
    log = state_dir / service_log.NAME
    return {
        "path": str(state_dir),
        "tasks": len(tasks),
        "running": running,
        "workspaces": workspaces,
        "webhooks": webhooks,
        "keyLeaks": leaks,
        "agentsRunning": agents["running"],
        "agentsQueued": agents["queued"],
        "disk": disk_space.disk(state_dir),
        "setupCaches": setup_cache.size(state_dir),
        "log": str(log) if log.is_file() else None,
    }


def not_yet(environ: object, start: object) -> list[bytes]:
    """The application of a server whose service has not started."""
    raise ConnectionAbortedError("the service has not started")
