"""Call any endpoint of the API."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import Raw
from ._base import define
from ._options import completer

MOST_BYTES = 64 << 20  # as for the body of an answer


def _methods(*_: object) -> list[str]:
    from ..tasks.raw import METHODS

    return list(METHODS)


@define("api", statuses=(3, 4, 5, 6))
@click.argument("method", metavar="METHOD", shell_complete=_methods)
@click.argument("path", metavar="PATH")
@click.option(
    "-d",
    "--data",
    metavar="JSON",
    shell_complete=completer("data"),
    help="The body: JSON, @FILE, or - for stdin.",
)
@click.option(
    "--query", "query", metavar="KEY=VALUE", multiple=True, help="A query parameter; repeat it."
)
@click.option("-i", "--include", is_flag=True, help="Print the status and the headers first.")
@click.option("--paginate", is_flag=True, help="GET page after page of a list, each as it came.")
def command(
    app: App,
    method: str,
    path: str,
    data: str | None,
    query: Sequence[str],
    include: bool,
    paginate: bool,
) -> Raw:
    """Call PATH with METHOD, with the key of the profile, and print the body as it came.

    PATH is below the base URL and stays there. The body of a refusal is printed as well, and
    the status tells its class. An event stream comes out as it comes in. GET, HEAD, PUT and
    DELETE are tried again after a fault; POST and PATCH only when they provably never arrived.

    Examples:

      rebyte api GET /tasks --query limit=5 | jq '.data[].title'
      rebyte api POST /tasks -d '{"prompt": "Say hello"}'
      rebyte api GET /tasks --paginate | jq -r '.data[].id'
      rebyte api GET /tasks/ID/events | grep ^data:
      rebyte api PATCH /agent-computers/ID -d '{"agent_instructions": "Answer in English."}'
    """
    from ..tasks import raw

    method = method.upper()
    if method not in raw.METHODS:
        from ..errors import did_you_mean

        raise BadUsage(
            f"no such method: {method}",
            hint=did_you_mean(method, raw.METHODS) or ", ".join(raw.METHODS),
        )
    if paginate and method != "GET":
        raise BadUsage("--paginate goes with GET")
    body = None if data is None else raw.check_body(_body(app, data))
    pairs = [_pair(text) for text in query]
    request = raw.RawRequest(method, raw.check_path(path, pairs), body)
    walk = raw.pages if paginate else raw.call
    return Raw(walk(app.client, request, with_headers=include))


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadUsage(f"--query {text}: not KEY=VALUE")
    return name, value


def _body(app: App, data: str) -> bytes:
    if data != "-" and not data.startswith("@"):
        return data.encode("utf-8", "surrogateescape")
    return app.read_bytes(data.removeprefix("@"), limit=MOST_BYTES)
