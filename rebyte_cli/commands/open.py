"""Open a task's page in the browser."""

from __future__ import annotations

import click

from ..app import App
from ..errors import RebyteError
from ..output.records import Text
from ._base import define
from ._options import task_argument


@define("open", text=True)
@task_argument
@click.option("--print", "only_print", is_flag=True, help="Print the link and open nothing.")
def command(app: App, task: str, only_print: bool) -> Text | None:
    """Open the page of TASK with $BROWSER or the desktop's own browser.

    The link of a task created from here is in the history, so no call is made for it.

    Examples:

      rebyte open @last
      rebyte open @2 --print
    """
    from ..history import references
    from ..tasks import browser

    task_id = references.task(app.history, task)
    known = None if app.settings.is_local else app.history.task(task_id)
    url = (known or {}).get("url") or app.client.get_task(task_id).get("url")
    if not url:
        raise RebyteError(f"task {task_id} has no page", code="no_page")
    page = browser.check_page(url)
    if only_print:
        return Text(page)
    app.note(f"Opening {page}")
    if app.settings.is_local:
        from ..local import server

        if not server.status(app.state_dir / "local")["serving"]:
            app.note("The page is there while `rebyte local serve` runs")
    if not browser.open_page(page):
        raise RebyteError(
            f"no browser could be started for {page}",
            hint="set BROWSER, or use --print",
            code="no_browser",
        )
    return None
