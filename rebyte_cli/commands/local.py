"""Run, inspect and reset the local service."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, Next, NotFound, RebyteError
from ..output.records import AGENT, LOCAL, TRUST, WORKSPACE, RecordList, Records, Text
from ..output.table import byte_size
from ._base import Group
from ._local import check_removed
from ._options import DURATION, chosen_task, port_option
from ._prompts import confirm, yes_option

if TYPE_CHECKING:
    from ..local.local_service import Service
    from ._repository import TrustQuestion


@click.group("local", cls=Group)
def command() -> None:
    """Run tasks on this machine, without an account or a network.

    `rebyte -P local …` starts the local service automatically. `rebyte local serve` makes it
    available to curl and other programs. Without -x, a run is simulated, and its answer says so;
    with -x, that agent runs here and must be installed.

    Examples:

      rebyte -P local create "Say hello" --wait
      rebyte local serve --port 8787
    """


@command.command("serve", text=True, statuses=())
@port_option(8787)
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
    from ..config.credentials import LOCAL_KEY
    from ..system.signals import StopSignal

    service = _service(app, port, simulate)
    runs = "Runs are simulated."
    if not simulate and app.environment.get("REBYTE_LOCAL_AGENTS") != "0":
        runs = "Runs are simulated unless they name an agent and use " + Next("local", "key") + "."
    with StopSignal() as stop:
        with service:
            app.console.write_out(service.base_url + "\n", flush=True)
            app.note(
                f"curl -H 'API_KEY: {LOCAL_KEY}' {service.base_url}/tasks\n"
                f"Pages: {service.pages_url}\n" + runs + " Ctrl-C stops it."
            )
            stop.wait()
            if app.console.err_tty:  # end the line that the terminal began with `^C`
                app.console.write_err("\n")
        stop.raise_if_requested()


@command.command("connect", text=True, statuses=())
def connect(app: App) -> None:
    """Speak the API on standard streams, for a profile with ssh.

    rebyte on another machine runs this here through ssh, once for each connection; see
    rebyte-places(7). In a shell, it only waits for HTTP.

    Example:

      rebyte local connect < /dev/null
    """
    from .. import __version__
    from ..local.connect import serve

    serve(app.local_folder(), app.config.path, app.note, version=__version__)


def _service(app: App, port: int, simulate: bool) -> Service:
    """The service to be, once it is clear that no other serves the folder, or may beside it."""
    from ..local import background
    from ..local.local_service import Service
    from ..local.store import StateError, Store

    folder = app.local_folder()
    with Store(folder) as store:
        other = background.find(store)
        if other is not None and other.in_background and background.stop(store, other):
            app.note(f"Stopped the service in the background (process {other.pid})")
            other = None
    source = click.get_current_context().get_parameter_source("port")
    is_meant = source is not click.core.ParameterSource.DEFAULT
    if other is not None and (not is_meant or other.origin.endswith(f":{port}")):
        raise RebyteError(
            f"already served at {other.origin}/v1 by process {other.pid}",
            hint=Next("local", "status")
            + " prints a link to its pages; `--port 0` starts one more on a free port",
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


@command.command("agents", kind=AGENT, statuses=())
def agents(app: App) -> RecordList:
    """List the coding agents that `-x` can run on this machine.

    An agent is usable when its program is on PATH (or named in config.toml), it has a login or an
    API key, and bubblewrap can confine it. `login` names the file or the variable that was found;
    whether the model accepts it only a run can tell. `credential` says where it is during a run:
    outside the sandbox, or inside because the agent has to use it itself. `network` says what the
    agent reaches besides its model: the hosts on the list, none, or all that this machine reaches
    (host). `tested` says whether this version is between
    the oldest and the newest one that rebyte was tested with, `jailGaps` what the sandbox leaves
    open because the kernel or bubblewrap is too old, `launcher` the command that starts runs
    elsewhere, `unused` which of your settings of the agent it needs and doesn't get.

    Examples:

      rebyte local agents
      rebyte local agents -o json | jq -r '.data[] | select(.usable).name'
    """
    from ..local.agents import ConfigError, every_agent

    try:
        found = every_agent(app.local_folder(), app.config.path)
    except ConfigError as error:
        raise BadUsage(
            f"{app.config.path}: {error}", hint="See " + Next("man", "local-agents")
        ) from None
    notes = {f"Sandbox: {row['jailGaps']}" for row in found if row["jailGaps"]}
    notes |= {f"Launcher: {row['launcher']}" for row in found if row["launcher"]}
    notes |= {
        f"{row['name']} runs without {row['unused']} of your settings"
        for row in found
        if row["unused"]
    }
    return RecordList(AGENT, found, below=sorted(notes) or None)


@command.command("key", text=True, statuses=())
def key(app: App) -> Text:
    """Print the key that starts real agents on this machine.

    `-P local` uses it automatically. Give it to another program that should start agents through
    `rebyte local serve`; with any other rbk_ key every run is simulated. Keep it secret: a
    program that has it can run agents on your behalf.

    Example:

      REBYTE_API_KEY=$(rebyte local key) python nightly.py
    """
    from ..local.agents import machine_key

    return Text(machine_key(app.local_folder()) + "\n")


@command.command("status", kind=LOCAL, statuses=())
def status(app: App) -> Records:
    """Show what the local service stores and whether it is served.

    While it is served, `pages` is a link to its pages. It lets one browser see the tasks of real
    agents, within an hour. `log` is the file that keeps the traceback of an internal error.

    Example:

      rebyte local status -o json | jq .tasks
    """
    from ..local import background, left_sandboxes, local_service, visits
    from ..local.store import Store

    left_sandboxes.end(app.state_dir)
    found = local_service.status(app.state_dir / "local") | {"serving": None, "pages": None}
    with Store(app.state_dir / "local") as store:
        if served := background.find(store):
            found["serving"] = f"{served.origin}/v1"
            link = background.page_link(store, served.origin, "/", visits.PRINTED_SECONDS)
            found["pages"] = link
    return Records(LOCAL, [found])


@command.command("trust", kind=TRUST, statuses=(4,))
@click.argument("place", metavar="[PATH|TASK]", required=False)
@click.option(
    "--rev", metavar="REV", default="HEAD", show_default=True, help="Trust the file of this commit."
)
@click.option("--list", "only_list", is_flag=True, help="List what is trusted.")
@click.option("--remove", is_flag=True, help="No longer trust the repository, with any content.")
@yes_option
def trust(
    app: App, place: str | None, rev: str, only_list: bool, remove: bool, yes: bool
) -> RecordList:
    """Trust what a repository's `.rebyte.toml` asks for, and show it.

    PATH is a folder of the repository (.); TASK one whose workspace on this machine was cloned from
    it. Runs read the file at the commit that they start from, and obey it only if you have trusted
    this content in this repository: after a change, trust it again. The repository's `origin` is
    trusted along with PATH, for runs that clone it (-g OWNER/REPO). On a terminal you are asked.

    `setup` and the agent run in the sandbox of the run, `check` in that of a check.

    Examples:

      rebyte local trust
      rebyte local trust @last
      rebyte local trust --list
      rebyte local trust --remove .
    """
    from ..system.trust import Trust

    store = Trust(app.local_folder())
    if only_list:
        if place is not None or remove:
            raise BadUsage("--list takes no PATH, and cannot be used with --remove")
        return RecordList(TRUST, [record._asdict() for record in store.records()])
    question = _trust_question(app, place, rev, removing=remove)
    before = [one for one in store.records() if one.repository in question.repositories]
    if remove:
        count = sum(map(store.remove, question.repositories))
        app.note("No longer trusted" if count else "It was not trusted")
        return RecordList(TRUST, [record._asdict() for record in before])
    file = question.file
    if file is None:
        raise NotFound(question.missing, hint="Commit the file: a run reads it from a commit")
    app.note(file.text)
    if app.interactive:
        confirm(app, f"Trust this in {', '.join(question.repositories)}?", yes=yes)
    for repository in question.repositories:
        store.add(repository, file.content, file.described())
    made = [one for one in store.records() if one.repository in question.repositories]
    return RecordList(TRUST, [one._asdict() for one in made if one not in before])


def _trust_question(app: App, place: str | None, rev: str, *, removing: bool) -> TrustQuestion:
    """What PATH or TASK asks for. Of a file that cannot be understood, trust can be removed."""
    from ._repository import in_folder, in_workspace

    if place is not None and not os.path.isdir(place):
        if os.sep in place:
            raise NotFound(f"no such folder: {place}")
        return in_workspace(app, chosen_task(app, place))
    return in_folder(place or ".", None if removing else rev)


@command.command("prune", kind=WORKSPACE, statuses=())
@click.option(
    "--older",
    type=DURATION,
    metavar="DURATION",
    required=True,
    help="Those whose last run ended so long ago, such as 14d.",
)
@click.option("--dry-run", is_flag=True, help="Only list them.")
def prune(app: App, older: float, dry_run: bool) -> RecordList:
    """Remove the files of old workspaces of agents, and list these.

    Tasks, answers and patches stay, and what `diff`, `apply` and `check` need. A follow-up begins
    with the files that the last run left. Ignored and uploaded files, what a setup made (it is not
    run again), the agent's own commits and its memory of the session are gone. A workspace where a
    run or `workspace git` is at work, or a run waits, stays; `workspace delete` removes one
    altogether. One stays, too, and is named, if no patch could be made of what is there, or if that
    leaves something out, such as what is in submodules, or was made before you changed something in
    the folder: nothing else has that.

    Examples:

      rebyte local prune --older 14d --dry-run
      rebyte local prune --older 14d
    """
    from ..local.agents import prune as prune_workspaces

    found, freed = prune_workspaces(app.local_folder(), older, dry_run=dry_run, warn=app.warn)
    app.note(f"{'Would free' if dry_run else 'Freed'} {byte_size(freed)}")
    return RecordList(WORKSPACE, found, columns=("id", "repository", "size", "lastUsedAt"))


@command.command("reset", statuses=())
@click.option(
    "--cache", "only_cache", is_flag=True, help="Delete only what setups of repositories left."
)
@yes_option
def reset(app: App, only_cache: bool, yes: bool) -> Any:
    """Delete everything that the local service stores.

    Deletes its tasks, workspaces, files and webhooks for good, together with what the history
    knows about them: `@last`, aliases, keys of --once. Also replaces a damaged service.db.

    With --cache, only the folders go that `cache` in the `.rebyte.toml` of repositories names: the
    next setup makes them again. What you trust (`local trust`) stays.

    Examples:

      rebyte local reset --yes
      rebyte local reset --cache
    """
    if only_cache:
        from ..local.agents import empty_cache

        app.note(f"Freed {byte_size(empty_cache(app.local_folder()))}")
        return
    from ..config.fields import LOCAL as ORIGIN
    from ..history.history import History
    from ..local import left_sandboxes, local_service

    confirm(app, "Delete everything in the local service?", yes=yes)
    left_sandboxes.end(app.state_dir)
    local_service.reset(app.state_dir / "local")
    History(app.history_file, origin=ORIGIN, warn=app.note).clear()
    check_removed(app)
    app.note("Deleted everything that the local service stored")
