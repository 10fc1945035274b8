"""Call any endpoint of the API."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..app import App
from ..errors import BadUsage, Next, did_you_mean
from ..output.records import Raw
from ._base import define
from ._options import completer, refuse
from ._stdin import read_bytes

MOST_BYTES = 64 << 20  # as for the body of an answer


def _methods(*_: object) -> list[str]:
    from ..tasks.raw import METHODS

    return list(METHODS)


@define("api", statuses=(3, 4, 5, 6))
@click.argument("method", metavar="[METHOD]", required=False, shell_complete=_methods)
@click.argument("path", metavar="PATH", required=False)
@click.option(
    "-d",
    "--data",
    metavar="JSON",
    shell_complete=completer("data"),
    help="The request body: JSON, @FILE, or - for stdin.",
)
@click.option(
    "--query",
    "query",
    metavar="KEY=VALUE",
    multiple=True,
    help="Add a query parameter; can be repeated.",
)
@click.option("-i", "--include", is_flag=True, help="Print the status and headers before the body.")
@click.option(
    "--paginate", is_flag=True, help="Fetch all pages of a list, and print each as it is."
)
def command(
    app: App,
    method: str | None,
    path: str | None,
    data: str | None,
    query: Sequence[str],
    include: bool,
    paginate: bool,
) -> Raw:
    """Send an authenticated request to PATH and print the response body unchanged.

    METHOD is GET by default, and POST with -d. PATH is relative to the base URL and cannot leave
    it. The body of an error response is printed too, and the exit status says what kind of error
    it is. An event stream is printed as it arrives. GET, HEAD, PUT and DELETE are retried after a
    failure; POST and PATCH only if the request certainly never arrived.

    Examples:

      rebyte api /tasks --query limit=5 | jq '.data[].title'
      rebyte api /tasks -d '{"prompt": "Say hello"}'
      rebyte api GET /tasks --paginate | jq -r '.data[].id'
      rebyte api GET /tasks/ID/events | grep ^data:
      rebyte api PATCH /agent-computers/ID -d '{"agent_instructions": "Be brief"}'
    """
    from ..tasks import raw

    method, path = _method_and_path(method, path, has_body=data is not None)
    refuse({"--paginate": paginate and method != "GET"}, "requires GET")
    body = None if data is None else raw.check_body(_body(data))
    pairs = [_pair(text) for text in query]
    request = raw.RawRequest(method, raw.check_path(path, pairs), body)
    walk = raw.pages if paginate else raw.call
    return Raw(walk(app.client, request, with_headers=include))


def _method_and_path(first: str | None, path: str | None, *, has_body: bool) -> tuple[str, str]:
    """METHOD, which may be left out, and PATH."""
    from ..tasks.raw import METHODS

    if first is not None and path is None and first.upper() not in METHODS:
        return "POST" if has_body else "GET", first
    if first is None or path is None:
        raise BadUsage("missing argument: PATH", hint="For example " + Next("api", "/tasks"))
    method = first.upper()
    if method not in METHODS:
        raise BadUsage(
            f"no such method: {method}",
            hint=did_you_mean(method, METHODS) or f"The methods are {', '.join(METHODS)}",
        )
    return method, path


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadUsage(f"--query {text}: must be KEY=VALUE")
    return name, value


def _body(data: str) -> bytes:
    if data != "-" and not data.startswith("@"):
        return data.encode("utf-8", "surrogateescape")
    return read_bytes(data.removeprefix("@"), limit=MOST_BYTES)
