"""Run, inspect and reset the local service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, RebyteError
from ..output.records import AGENT, LOCAL, RecordList, Records, Text
from ._base import define_group, define_in
from ._prompts import confirm, yes_option

if TYPE_CHECKING:
    from ..local.server import Service


@define_group("local")
def command() -> None:
    """Run tasks on this machine, without an account or a network.

    `rebyte -P local …` starts the local service automatically. `rebyte local serve` makes it
    available to curl and other programs. Without -x, a run is simulated, and its answer says so;
    with -x, that agent runs here and must be installed.

    Examples:

      rebyte -P local create "Say hello" --wait
      rebyte local serve --port 8787
    """


@define_in(command, "serve", text=True, statuses=())
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="The port on 127.0.0.1; 0 picks a free one.",
)
@click.option("--simulate", is_flag=True, help="Simulate every executor; start no real agent.")
def serve(app: App, port: int, simulate: bool) -> None:
    """Serve the local service to curl and other programs.

    Runs until Ctrl-C. Prints the base URL on stdout, and an example call and the link to its pages
    on stderr. Any key that starts with rbk_ is accepted; requests from web pages of other origins
    are refused. While it runs, the links that `rebyte -P local` prints open in a browser. It
    replaces a service that `rebyte open` started in the background. If another `local serve`
    answers already, pass --port to start one more.

    Examples:

      rebyte local serve --port 8787
      REBYTE_API_URL=http://127.0.0.1:8787/v1 REBYTE_API_KEY=rbk_local rebyte list
    """
    from ..local.server import LOCAL_KEY
    from ..signals import StopSignal

    service = _service(app, port, simulate)
    runs = "Runs are simulated."
    if not simulate and app.environment.get("REBYTE_LOCAL_AGENTS") != "0":
        runs = "Runs are simulated unless they name an agent and use `rebyte local key`."
    with StopSignal() as stop:
        with service:
            app.console.write_out(service.base_url + "\n", flush=True)
            app.note(
                f"curl -H 'API_KEY: {LOCAL_KEY}' {service.base_url}/tasks\n"
                f"Pages: {service.pages_url}\n"
                f"{runs} Ctrl-C stops it."
            )
            stop.wait()
            if app.console.err_tty:  # end the line that the terminal began with `^C`
                app.console.write_err("\n")
        stop.raise_if_requested()


def _service(app: App, port: int, simulate: bool) -> Service:
    """The service to be, once it is clear that no other serves the folder, or may beside it."""
    from ..local import background
    from ..local.database import StateError, Store
    from ..local.server import Service

    folder = app.local_folder()
    store = Store(folder)
    try:
        other = background.find(store)
        if other is not None and other.in_background and background.stop(store, other):
            app.note(f"Stopped the service in the background (process {other.pid})")
            other = None
    finally:
        store.close()
    source = click.get_current_context().get_parameter_source("port")
    is_meant = source is not click.core.ParameterSource.DEFAULT
    if other is not None and (not is_meant or other.origin.endswith(f":{port}")):
        raise RebyteError(
            f"already served at {other.origin}/v1 by process {other.pid}",
            hint="`rebyte local status` prints a link to its pages; "
            "`--port 0` starts one more on a free port",
            code="already_served",
        )
    try:
        service = Service(
            folder, port=port, config_file=app.config.path, simulate=simulate, announce=app.note
        )
    except StateError:
        raise
    except OSError as error:
        raise BadUsage(
            f"cannot listen on 127.0.0.1:{port}: {error.strerror}",
            hint="Use --port 0 to pick a free one",
        ) from None
    if other is not None:
        app.note(f"Process {other.pid} serves the same tasks at {other.origin}/v1")
    return service


@define_in(command, "agents", kind=AGENT, statuses=())
def agents(app: App) -> RecordList:
    """List the coding agents that `-x` can run on this machine.

    An agent is usable when its program is on PATH (or named in config.toml) and bubblewrap can
    confine it. `tested` says whether this version is one that rebyte was tested with, `jailGaps`
    what the sandbox leaves open because the kernel or bubblewrap is too old.

    Examples:

      rebyte local agents
      rebyte local agents -o json | jq -r '.data[] | select(.usable).name'
    """
    from ..local.agents import report
    from ..local.agents.config import ConfigError

    try:
        found = report.agents(app.local_folder(), app.config.path)
    except ConfigError as error:
        raise BadUsage(
            f"{app.config.path}: {error}", hint="See `rebyte man local-agents`"
        ) from None
    gaps = {f"Sandbox: {row['jailGaps']}" for row in found if row["jailGaps"]}
    return RecordList(AGENT, found, below=gaps or None)


@define_in(command, "key", text=True, statuses=())
def key(app: App) -> Text:
    """Print the key that starts real agents on this machine.

    `-P local` uses it automatically. Give it to another program that should start agents through
    `rebyte local serve`; with any other rbk_ key every run is simulated. Keep it secret: a
    program that has it can run agents on your behalf.

    Example:

      REBYTE_API_KEY=$(rebyte local key) python nightly.py
    """
    from ..local.agents.key import machine_key

    return Text(machine_key(app.local_folder()) + "\n")


@define_in(command, "status", kind=LOCAL, statuses=())
def status(app: App) -> Records:
    """Show what the local service stores and whether it is served.

    While it is served, `pages` is a link to its pages. It lets one browser see the tasks of real
    agents, within an hour.

    Example:

      rebyte local status -o json | jq .tasks
    """
    from ..local import background, server, visits
    from ..local.database import Store

    found = server.status(app.state_dir / "local")
    store = Store(app.state_dir / "local")
    try:
        served = background.find(store) if found["serving"] else None
        if served is not None:
            link = background.page_link(store, served.origin, "/", visits.PRINTED_SECONDS)
            found["pages"] = link
    finally:
        store.close()
    return Records(LOCAL, [{"pages": None, **found}])


@define_in(command, "reset", statuses=())
@yes_option
def reset(app: App, yes: bool) -> Any:
    """Delete everything that the local service stores.

    Deletes its tasks, workspaces, files and webhooks for good, together with what the history
    knows about them: `@last`, aliases, keys of --once. Also replaces a damaged service.db.

    Example:

      rebyte local reset --yes
    """
    from ..config.fields import LOCAL as ORIGIN
    from ..history.history import History
    from ..local import server

    confirm(app, "Delete everything in the local service?", yes=yes)
    server.reset(app.state_dir / "local")
    History(app.history_file, origin=ORIGIN, warn=app.note).clear()
    app.note("Deleted everything that the local service stored")
