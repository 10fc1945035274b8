"""What a run's jail reaches of the network: its gateway, which is started and ended with it.

The jail has no network but its loopback (see `gateway.jail_port`). The gateway outside has the
keys, and lets through requests to the run's models and to the hosts on its list.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from ....system.deadline import Deadline
from ...gateway import request_record
from ...gateway.gateway_settings import GatewaySettings, command
from ...gateway.jail_port import ADDRESS, JailPort
from ...gateway.model_budget import ModelBudget
from ..adapters import programs
from ..adapters.adapter import Adapter, User, end_of_process
from ..adapters.model_access import AgentAccess
from ..exposed import CERTIFICATE_VARIABLES, PROXY_VARIABLES
from . import jail, user_tools

OPEN_SECONDS = 60.0  # for a busy machine to start the jail and an interpreter in it
LOOK_SECONDS = 0.05
END_SECONDS = 5.0
NOT_REACHED = (502, 504)  # the gateway's own statuses for faults outside
SHOWN_HOSTS = 20  # that were refused: a program can ask for thousands
NO_LISTENER = -1  # until there is one
# What a run reaches: the hosts on its list, nothing but its models, or all that this machine does.
LIST, NONE, HOST = NETWORKS = ("list", "none", "host")
DIRECT = "127.0.0.1,localhost"


class RunStopped(BaseException):
    """The run was canceled, or the machine shuts down: no program in the jail chose that."""


class EgressFailed(OSError):
    """The gateway does not start; the text says why."""


def network_of(options: Mapping[str, Any]) -> str:
    """What a run reaches: one of `NETWORKS`. Without a jail, always all."""
    return str(options.get("network", LIST)) if options["jail"] else HOST


def access_of(adapter: Adapter, options: Mapping[str, Any], user: User) -> AgentAccess:
    """How an agent reaches its models in a run with these options.

    Where the network is shared, the agent has its key and its login itself. Raises LoginExpired.
    """
    if network_of(options) == HOST:
        return AgentAccess(inside="key", logins=adapter.logins)
    return adapter.access(user)


def egress_for(
    options: Mapping[str, Any],
    access: AgentAccess,
    outside: Mapping[str, str],
    folder: Path,
    budget: ModelBudget = ModelBudget(),  # noqa: B008 - it cannot change
    budget_reached: Callable[[], str] = str,
    *,
    is_away: bool = False,
) -> Egress:
    """The way to the network that a run has with these options. Its record is kept in `folder`.

    `budget_reached` says why a budget that is shared is used up, or an empty text. It is called by
    another thread. `is_away`: the jail is elsewhere, and so is its gateway (see `Egress.plan`).
    """
    network = network_of(options)
    if network == HOST:
        return Egress(None)
    allow = (*access.hosts, *(options.get("hosts", ()) if network == LIST else ()))
    return Egress(
        GatewaySettings(
            NO_LISTENER,
            access.models,
            allow,
            str(folder / request_record.FILE),
            {name: outside[name] for name in PROXY_VARIABLES if name in outside},
            {name: outside[name] for name in CERTIFICATE_VARIABLES if name in outside},
            budget=budget,
        ),
        budget_reached,
        is_away=is_away,
    )


def start_gateway(jail_port: int) -> subprocess.Popen[bytes]:
    """Start a gateway that reads its settings from its input and has the descriptor `jail_port`.

    It ends when nothing reads its output any more: so when this process dies, too.
    """
    return subprocess.Popen(
        command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={},
        cwd="/",
        pass_fds=(jail_port,),
        start_new_session=True,
    )


def _proxies() -> dict[str, str]:
    """The variables that send every program in the jail to the gateway."""
    return dict.fromkeys(PROXY_VARIABLES, ADDRESS) | {"NO_PROXY": DIRECT, "no_proxy": DIRECT}


def interpreter() -> tuple[str, list[str]]:
    """A Python that runs in the jail, and the paths to show for it."""
    real = os.path.realpath(sys.executable)
    if programs.in_system(real):
        return real, []
    prefix = programs.installation(Path(real).parent)
    if prefix is not None and not user_tools.why_not(prefix, ()):
        return real, [prefix]
    return shutil.which("python3", path=jail.SYSTEM_PATH) or "python3", []


class Egress:
    """One jail's way to the network: its gateway lives as long as the block, `JailGroup` opens it.

    `needs` are paths to show in the jail for it, `variables` what the environment there gets.
    """

    def __init__(
        self,
        settings: GatewaySettings | None,
        budget_reached: Callable[[], str] = str,
        *,
        is_away: bool = False,
        jail_port: int | None = None,
    ) -> None:
        """`settings` are those of the gateway; None shares the network of this machine.

        With `is_away`, nothing is started here. `jail_port` is the number of a `JailPort`.
        """
        self._settings = settings
        self._is_away = is_away
        self._budget_reached = budget_reached
        self._answering: Thread | None = None
        self._gateway: subprocess.Popen[bytes] | None = None
        self._jail_port: JailPort | None = None
        self._python, self.needs = "", list[str]()
        self.variables: dict[str, str] = {}
        if settings is not None:
            self._jail_port = JailPort(jail_port)
            self._python, self.needs = interpreter()
            self.variables = _proxies()

    def __enter__(self) -> Egress:
        if self._jail_port is not None and not self._is_away:
            self._start(self._jail_port)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Of all ends, this is the one that an agent cannot bring about.
        self.close(is_stopped=kind is not None and issubclass(kind, RunStopped))

    def plan(self) -> dict[str, Any]:
        """What makes the same way elsewhere, as JSON, with the keys: see `planned`."""
        settings = None if self._settings is None else self._settings.to_json()
        jail_port = None if self._jail_port is None else self._jail_port.inside
        return {"settings": settings, "jail_port": jail_port}

    @classmethod
    def planned(cls, plan: Mapping[str, Any], budget_reached: Callable[[], str]) -> Egress:
        """The way to the network of this machine that is like the one whose `plan` this is."""
        text = plan["settings"]
        settings = None if text is None else GatewaySettings.from_json(text)
        return cls(settings, budget_reached, jail_port=plan["jail_port"])

    def secrets(self) -> list[str]:
        """The keys of its models, and whatever may have one."""
        found = list[str]()
        for model in self._settings.models if self._settings is not None else ():
            login = model.base_url if "@" in model.base_url else None
            values = *model.headers.values(), *model.query.values()
            found += filter(None, [model.key, login, *values])
        return found

    def why_used_up(self) -> str:
        """Why a budget that is shared is used up, or not known; an empty text while it is not."""
        try:
            return self._budget_reached()
        except OSError as error:
            return f"it is not known what is left of the budget: {error}"

    def _start(self, jail_port: JailPort) -> None:
        """Start the gateway, which has loaded its modules by the time that the jail is made."""
        assert self._settings is not None
        self._gateway = start_gateway(jail_port.outside.fileno())
        given = replace(self._settings, listener=jail_port.outside.fileno())
        assert self._gateway.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._gateway.stdin.write(given.to_json().encode() + b"\n")
            self._gateway.stdin.flush()

    @property
    def is_shared(self) -> bool:
        """Whether the jail has the network of this machine."""
        return self._settings is None

    @property
    def sees_models(self) -> bool:
        """Whether what the agent asks its models passes the gateway, readable."""
        return self._settings is not None and bool(self._settings.models)

    @property
    def passed(self) -> tuple[int, ...]:
        """The descriptors that the jail inherits."""
        return () if self._jail_port is None else (self._jail_port.inside,)

    def command(self, words: list[str]) -> list[str]:
        """What to run in the jail in place of `words`, which it becomes."""
        return words if self._jail_port is None else self._jail_port.command(self._python, words)

    def open(self, is_alive: Callable[[], bool]) -> None:
        """Wait until the jail that was started with `command` is served, or has ended.

        Raises OSError when the gateway does not start, or the jail does not open its port in time.
        """
        if self._gateway is None or self._jail_port is None:
            return
        assert self._gateway.stdout is not None
        self._jail_port.close()
        deadline = Deadline(OPEN_SECONDS)
        while not select.select([self._gateway.stdout], [], [], LOOK_SECONDS)[0]:
            if not is_alive():
                break
            if deadline.has_passed:
                raise EgressFailed(f"the sandbox opened no port within {OPEN_SECONDS:.0f} seconds")
        if not is_alive():
            self.close()  # nothing will come
        elif self._gateway.stdout.readline() != b"ready\n":
            raise EgressFailed("the gateway to the network does not start")
        elif self._settings is not None and self._settings.budget.is_shared:
            self._answering = Thread(target=self._answer, args=(self._gateway,), daemon=True)
            self._answering.start()

    def _answer(self, gateway: subprocess.Popen[bytes]) -> None:
        """Answer the gateway's questions until it ends."""
        assert gateway.stdin is not None
        assert gateway.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            for _ in gateway.stdout:
                gateway.stdin.write(json.dumps(self.why_used_up()).encode() + b"\n")
                gateway.stdin.flush()

    def problem(self) -> str:
        """Why the run cannot continue, or an empty text: asked a few times a second."""
        if self._gateway is None or self._gateway.poll() is None:
            return ""
        return f"the gateway to the network {end_of_process(self._gateway.returncode)}"

    def refused(self) -> list[str]:
        """What the run was refused, a line for each host."""
        return [] if self._settings is None else refused_hosts(Path(self._settings.record))

    def fault(self) -> str:
        """Why the last request to a model got no answer from it, or an empty text."""
        path = None if self._settings is None else self._settings.record
        asked = request_record.last_asked(path or "")
        if asked is None or asked.status not in NOT_REACHED or not asked.fault:
            return ""
        return f"the last request to {asked.place} failed: {asked.fault}"

    def close(self, *, is_stopped: bool = False) -> None:
        """End the gateway, which writes the rest of its record.

        `is_stopped` if it was the user who ended the run: see `gateway/model_budget.py`.
        """
        if self._jail_port is not None:
            self._jail_port.close()
        gateway, self._gateway = self._gateway, None
        if gateway is None:
            return
        gateway.send_signal(signal.SIGTERM if is_stopped else signal.SIGUSR1)
        try:
            gateway.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            gateway.kill()
            gateway.wait()
        if self._answering is not None:
            self._answering.join()
        for stream in (gateway.stdin, gateway.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def refused_hosts(file: Path) -> list[str]:
    """What the record of a gateway says was refused, a line for each host."""
    found = [(place, host) for place, host in request_record.refusals(str(file)).items() if place]
    lines = [_refused(*each) for each in found[:SHOWN_HOSTS]]
    if (left := len(found) - SHOWN_HOSTS) > 0:
        lines.append(f"{left} more host{'s were' if left > 1 else ' was'} refused")
    return lines


def _refused(place: str, host: request_record.RefusedHost) -> str:
    count = f"{host.requests} request{'s' if host.requests > 1 else ''}"
    verb = "were" if host.requests > 1 else "was"
    remedy = f"; allow it with {host.option}" if host.option else f": {host.reason}"
    return f"{count} to {place} {verb} refused{remedy}"
