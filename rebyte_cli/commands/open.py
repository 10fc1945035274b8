"""Open a task's page in the browser."""

from __future__ import annotations

import click

from ..app import App
from ..errors import Next, NotFound, RebyteError
from ..output.records import Text
from ..tasks import browser
from ._base import define
from ._local import shown_page
from ._options import chosen_task, task_argument


@define("open", text=True)
@task_argument
@click.option("--print", "only_print", is_flag=True, help="Print the link instead of opening it.")
def command(app: App, task: str, only_print: bool) -> Text | None:
    """Open the page of TASK with $BROWSER or the default browser.

    The link of a task created on this machine comes from the history, without a request. With
    `-P local`, the link holds a key that lets one browser in, within two minutes, or an hour with
    --print. If no `rebyte local serve` runs, one is started in the background; it ends after half
    an hour without a request.

    Examples:

      rebyte open @last
      rebyte open @2 --print
    """
    task_id = chosen_task(app, task)
    if app.settings.ssh.value is not None:
        raise NotFound(
            f"the pages of this profile are on {app.settings.ssh.value}",
            hint="See the task with " + Next("get", task_id) + " and " + Next("logs", task_id),
        )
    known = None if app.settings.is_local else app.history.task(task_id)
    url = (known or {}).get("url") or app.client.get_task(task_id).get("url")
    if not url:
        raise RebyteError(f"task {task_id} has no page", code="no_page")
    page = browser.check_page(url)
    link = shown_page(app, page, printed=only_print)
    if only_print:
        return Text(link)
    if not browser.open_page(link):
        raise RebyteError(
            f"could not start a browser for {link}",
            hint="Set BROWSER, or use --print",
            code="no_browser",
        )
    app.note(f"Opened {page}")
    return None
