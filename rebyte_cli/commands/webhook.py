"""Manage webhooks, or receive their deliveries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import APIError, BadUsage, Next, RebyteError, did_you_mean
from ..output.records import DELETED, DELIVERY, WEBHOOK, RecordList, Records, Text, Value
from ..tasks.parallel import deleted
from ._base import Group
from ._options import Number, port_option
from ._prompts import read_secret, secret_option

if TYPE_CHECKING:
    from ..tasks.webhook_receiver import WebhookReceiver

EVENTS = ("task.created", "task.running", "task.completed", "task.failed", "task.canceled")
LONGEST = 500  # characters of a description and of a secret (vendor docs)
LENGTH_OF_ID = 36  # a UUID (vendor docs)
SHORTEST_PREFIX = 4
SIGNAL_POLL_SECONDS = 0.2  # how soon a signal is seen while every job is busy


@click.group("webhook", cls=Group)
def command() -> None:
    """Manage the organization's webhooks (three at most), or receive deliveries here.

    Examples:

      rebyte webhook create https://ci.example.com/hook --event task.completed
      rebyte webhook listen --port 8788
    """


@command.command("list", kind=WEBHOOK)
def list_(app: App) -> RecordList:
    """List the webhooks of the organization.

    Example:

      rebyte webhook list -o json
    """
    return RecordList(WEBHOOK, app.client.list_webhooks())


@command.command("show", kind=WEBHOOK)
@click.argument("webhook", metavar="ID")
def show(app: App, webhook: str) -> Records:
    """Show one webhook. Its secret is never shown.

    ID may be a unique prefix of four characters or more.

    Example:

      rebyte webhook show 880e8400-e29b-41d4-a716-446655440006
    """
    return Records(WEBHOOK, [app.client.get_webhook(*_ids(app, [webhook]))])


def _ids(app: App, references: Sequence[str]) -> list[str]:
    """The ids of webhooks that are named by their ids or unique prefixes, each once.

    What matches none is passed on. Only a prefix takes a request: there are three webhooks at most.
    """
    known: list[str] = []
    if any(len(reference) < LENGTH_OF_ID for reference in references):
        known = [str(hook.get("id")) for hook in app.client.list_webhooks()]
    ids = []
    for reference in references:
        found = [each for each in known if each.startswith(reference)]
        if reference in found or len(reference) < SHORTEST_PREFIX or not found:
            found = [reference]
        if len(found) > 1:
            raise BadUsage(
                f"{reference!r} matches {len(found)} webhooks; use a longer prefix",
                hint="\n".join(found),
            )
        ids += found
    return list(dict.fromkeys(ids))


@command.command("create", kind=WEBHOOK, statuses=(3, 4, 5, 6))
@click.argument("url")
@click.option(
    "--event",
    "events",
    metavar="EVENT",
    multiple=True,
    required=True,
    shell_complete=lambda *_: list(EVENTS),
    help=f"An event to deliver; repeatable. {', '.join(EVENTS)}.",
)
@click.option("--description", metavar="TEXT", help="At most 500 characters.")
@secret_option
def create(
    app: App, url: str, events: Sequence[str], description: str | None, secret: str | None
) -> Records:
    """Register URL (https) for each EVENT.

    Deliveries carry the secret in their X-Webhook-Secret header, so that the receiver can verify
    them. Registering the same URL again may create a second webhook: list them first.

    Examples:

      rebyte webhook create https://ci.example.com/hook --event task.completed
      pass show hook | rebyte webhook create https://ci.example.com/hook \\
        --event task.failed --secret -
    """
    from ..api.urls import check_webhook_url

    chosen = [_event(name) for name in dict.fromkeys(events)]
    if description is not None and len(description) > LONGEST:
        raise BadUsage(f"the description has more than {LONGEST} characters")
    url = check_webhook_url(url)
    shared = read_secret(app, secret, longest=LONGEST)
    try:
        made = app.client.create_webhook(url, chosen, description=description, secret=shared)
    except APIError as error:
        if error.code != "limit_exceeded":
            raise
        delete, shown = Next("webhook", "delete", "ID"), Next("webhook", "list")
        hint = "Delete one with " + delete + "; " + shown + " shows them"
        raise error.copy_with(hint=hint) from None
    return Records(WEBHOOK, [made])


def _event(name: str) -> str:
    """Return the event as given: the service may know others, but a near miss is a mistake."""
    near = did_you_mean(name, EVENTS)
    if name not in EVENTS and near is not None:
        raise BadUsage(f"no such event: {name}", hint=near)
    return name


@command.command("delete", kind=DELETED)
@click.argument("webhooks", metavar="ID…", nargs=-1, required=True)
def delete(app: App, webhooks: Sequence[str]) -> Records:
    """Delete each webhook, without confirmation.

    ID may be a unique prefix of four characters or more.

    Example:

      rebyte webhook list -o id | xargs rebyte webhook delete
    """
    return Records(DELETED, deleted(app.client.delete_webhook, _ids(app, webhooks)))


@command.command("public-key", text=True)
def public_key(app: App) -> Value:
    """Print the public key that deliveries are signed with, as PEM.

    Example:

      rebyte webhook public-key > rebyte.pem
    """
    return Text(app.client.webhook_public_key())


@command.command("listen", kind=DELIVERY, statuses=(130,))
@port_option(8788)
@click.option(
    "--exec", "program", metavar="CMD", help="Run CMD for each delivery, with its JSON on stdin."
)
@click.option(
    "--jobs",
    metavar="N",
    type=Number(1, 64),
    default=4,
    show_default=True,
    help="Run at most N commands at a time.",
)
@click.option("--count", type=Number(1), metavar="N", help="Exit after N deliveries.")
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Also accept this Host name, such as the public name of a tunnel; repeatable.",
)
@secret_option
def listen(
    app: App,
    port: int,
    program: str | None,
    jobs: int,
    count: int | None,
    hosts: Sequence[str],
    secret: str | None,
) -> Value:
    """Receive deliveries of webhooks on this machine.

    Prints each delivery as one line of JSON, or passes it to CMD. With --secret, only deliveries
    with that X-Webhook-Secret are accepted. Without it, anyone who reaches the port can send one,
    so read the task before you act on a delivery. Web pages are refused, and so is a Host that is
    neither a loopback name nor given with --host. Runs until Ctrl-C (status 130).

    Examples:

      rebyte webhook listen --port 8788
      rebyte webhook listen --host abc.tunnel.example --secret
      rebyte webhook listen --exec 'jq -r .taskId | rebyte get -' --secret
    """
    from ..tasks.webhook_receiver import WebhookReceiver

    app.auto = "jsonl"
    shared = read_secret(app, secret, longest=LONGEST)
    receiver = WebhookReceiver(port, secret=shared, hosts=hosts)
    if program is None:
        return Records(DELIVERY, _printed(app, receiver, count))
    return Records(DELIVERY, _passed_on(app, receiver, count, program, jobs))


def _printed(app: App, receiver: WebhookReceiver, count: int | None) -> Iterator[dict[str, Any]]:
    """The deliveries, until there were `count` or a signal came."""
    from ..system.signals import StopSignal

    with StopSignal(receiver.finish) as stop:
        app.note(f"Listening on {receiver.url}")
        with closing(receiver.take()) as deliveries:
            yield from islice(deliveries, count)
        stop.raise_if_requested()


def _passed_on(
    app: App, receiver: WebhookReceiver, count: int | None, program: str, jobs: int
) -> Iterator[Mapping[str, Any]]:
    """Run the program for each delivery; yields nothing, since stdout is the program's.

    A run that failed is reported at once. Raises RebyteError at the end when some failed.
    """
    from concurrent.futures import ThreadPoolExecutor

    from ..output.messages import show_error
    from ..system.signals import StopSignal
    from ..tasks.hook import HookCommand

    runs = HookCommand(program)
    free = BoundedSemaphore(jobs)
    failed: list[RebyteError] = []

    def run(delivery: dict[str, Any]) -> None:
        try:
            error = runs.run(delivery)
        finally:
            free.release()
        if error is not None:
            failed.append(error)
            show_error(app.console, error, as_json=app.errors_as_json)

    def acquire() -> bool:
        """Wait until one more may run; False when a signal comes first."""
        while not stop.requested:
            if free.acquire(timeout=SIGNAL_POLL_SECONDS):
                return True
        return False

    with (
        StopSignal(receiver.finish, runs.kill) as stop,
        ThreadPoolExecutor(jobs, "rebyte-exec") as pool,
    ):
        app.note(f"Listening on {receiver.url}")
        with closing(receiver.take()) as deliveries:
            for delivery in islice(deliveries, count):
                if not acquire():  # no more are taken than can run; the rest wait in the receiver
                    break
                pool.submit(run, delivery)
        all(acquire() for _ in range(jobs))
        if stop.requested:
            runs.stop()
        stop.raise_if_requested()
    if failed:
        total = f"{len(failed)} runs" if len(failed) > 1 else "a run"
        raise RebyteError(f"{total} of {program} failed", code="exec_failed")
    yield from ()
