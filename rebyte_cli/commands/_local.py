"""What commands share about the service on this machine: its options, its refusals, its pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..config import EXECUTORS
from ..errors import AgentUnusable, BadUsage, Next, RebyteError
from ._options import (
    BUDGET,
    Choice,
    Option,
    ParsedText,
    check_executor,
    completer,
    refuse,
    together,
)

if TYPE_CHECKING:
    from ..tasks.budget import Budget


@contextmanager
def local_refusals(about: str = "", **hints: str) -> Iterator[None]:
    """Raise what the local service refuses in the block as an error of the command.

    `hints` by the code of a refusal replace what it says itself; `about` begins the message.
    """
    from ..local.http import Refusal

    try:
        yield
    except Refusal as refusal:
        hint = hints.get(refusal.code, refusal.hint)
        kind = AgentUnusable if refusal.code == AgentUnusable.code else RebyteError
        raise kind(about + refusal.message, hint=hint, code=refusal.code) from None


# What agents on this machine may reach, and use


def _host(text: str) -> str:
    if not text or any(letter in text for letter in "/@,; "):
        raise ValueError(f"{text!r} is not a host such as pypi.org or *.example.com")
    return text


# A host, with a port or without, or `*.example.com`; the service reads it.
HOST = ParsedText("host", _host)


def _check_network(ctx: click.Context) -> None:
    """How `--allow` goes with the options that have no list of hosts."""
    network, allow = ctx.params["network"], ctx.params["allow"]
    refuse({f"--allow and --network {network}": allow and network in ("none", "host")})
    refuse({"--allow and --no-jail": allow and ctx.params.get("no_jail")})


# The values of these options are `AgentOptions`.
network_options = together(
    click.option(
        "--allow",
        cls=Option,
        check=_check_network,
        type=HOST,
        multiple=True,
        metavar="HOST",
        help="With -P local: let the agent connect to HOST; repeatable.",
    ),
    click.option(
        "--network",
        type=Choice(["list", "none", "host"]),
        help="With -P local: what the agent reaches besides its model: the hosts of --allow and"
        " config.toml (default), none, or all that this machine reaches.",
    ),
)


def fields_for_agents(app: App, option: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a prompt for an option. BadUsage for any service but the local one."""
    if fields and not app.settings.is_own_service:
        raise BadUsage(f"{option} requires -P local: it is for agents on this machine")
    return fields


_budget_option = click.option(
    "--budget",
    metavar="AMOUNT",
    type=BUDGET,
    help="With -P local: end the task once it has used AMOUNT (5usd, 300ktok, 2Mtok).",
)


on_limit_option = click.option(
    "--on-limit",
    metavar="wait|stop|NAME",
    shell_complete=completer("executors", ("wait", "stop", *EXECUTORS)),
    help="With -P local: at a usage limit, wait for its reset, fail (status 13), or continue with"
    " executor NAME (default: on_limit of config.toml, or wait).",
)


# For a command that sends a prompt to one task.
agent_options = together(network_options, _budget_option, on_limit_option)
no_setup_option = click.option(
    "--no-setup",
    is_flag=True,
    help="With -P local: do not run the setup of the repository's .rebyte.toml.",
)


class AgentOptions(NamedTuple):
    """The values of these options, for a command that has them."""

    network: str | None
    allow: Sequence[str]
    on_limit: str | None
    no_setup: bool = False
    budget: Budget | None = None

    def fields(self, app: App, model: str | None = None) -> dict[str, Any]:
        """The fields of a prompt for them; `model` is that of the task.

        BadUsage for any service but the local one, and for a budget in dollars without a price.
        """
        found = dict[str, Any]()
        for option, name, value in (
            ("--network", "network", self.network),
            ("--allow", "allow", [*self.allow] or None),
            ("--no-setup", "setup", "off" if self.no_setup else None),
        ):
            if value is not None:
                found |= fields_for_agents(app, option, {name: value})
        if self.budget is not None:
            from ..tasks.budget import check_prices

            if not app.settings.is_own_service:
                raise BadUsage("--budget requires -P local, unless it is that of a batch")
            check_prices(self.budget, {"the task": model}, app.known.priced)
            found |= self.budget.fields
        if self.on_limit is not None:
            found |= fields_for_agents(app, "--on-limit", {"onLimit": self.on_limit})
            if self.on_limit not in ("wait", "stop"):
                check_executor(app, self.on_limit)
        return found


# Pages


def note_unserved_page(app: App) -> None:
    """Say what shows the pages of tasks of the local service, unless it runs."""
    if not app.settings.is_local:
        return
    from ..local import background
    from ..local.store import Store

    with Store(app.local_folder()) as store:
        if background.find(store) is None:
            app.note("The page is only available while " + Next("local", "serve") + " runs")


def shown_page(app: App, page: str, *, printed: bool = False) -> str:
    """The link that shows a task's page in any browser of the user; `page` but for local tasks.

    The service of this machine is started in the background if it is not served, and the link has
    a key that works once: for longer if it is `printed`, since a person opens it. Raises StateError
    when that service cannot be started.
    """
    if not app.settings.is_local:
        return page
    from urllib.parse import urlsplit

    from ..local import background, visits
    from ..local.store import Store

    with Store(app.local_folder()) as store:
        served = background.ensure(store, app.config.path)
        path = urlsplit(page).path
        seconds = visits.PRINTED_SECONDS if printed else visits.OPENED_SECONDS
        return background.page_link(store, served.origin, path, seconds)


def check_removed(app: App, workspace: str = "*") -> None:
    """Raise RebyteError if files of a deleted workspace here, or of any, could not be removed."""
    from ..local import agents

    if left := agents.left_behind(app.state_dir / "local", workspace):
        raise RebyteError(
            f"files stay in {', '.join(map(str, left))}",
            hint="All else was deleted. `rm -r` says why; perhaps only root can remove them",
        )
