"""Choose who can see a task."""

from __future__ import annotations

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import VISIBILITY, Records
from ._base import define
from ._local import note_unserved_page
from ._options import chosen_task, task_argument
from ._prompts import confirm, yes_option


@define("share", kind=VISIBILITY)
@task_argument
@click.option("--public", is_flag=True, help="Anyone with the link, without a login.")
@click.option("--shared", is_flag=True, help="Every member of the organization.")
@click.option("--private", is_flag=True, help="Only the owner of the API key.")
@yes_option
def command(app: App, task: str, public: bool, shared: bool, private: bool, yes: bool) -> Records:
    """Choose who can see TASK, and print the link if it is public.

    --public makes the whole run readable for anyone with the link, so it asks for confirmation and
    requires --yes without a terminal.

    Examples:

      rebyte share @last --public --yes -o json | jq -r .shareUrl
      rebyte share @last --private
    """
    flags = {"public": public, "shared": shared, "private": private}
    chosen = [name for name, given in flags.items() if given]
    if len(chosen) != 1:
        raise BadUsage("pass one of --public, --shared, --private")
    task_id = chosen_task(app, task)
    if public:
        confirm(app, f"Let anyone with the link read task {task_id}?", yes=yes)
    answer = app.client.set_visibility(task_id, chosen[0])
    if public and not answer.get("shareUrl"):
        app.note("The service returned no link")
    elif public:
        note_unserved_page(app)
    return Records(VISIBILITY, [{"id": task_id, **answer} | {"id": task_id}])
