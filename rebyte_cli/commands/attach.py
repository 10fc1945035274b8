"""Open the agent's own screen on a task."""

from __future__ import annotations

import click

from ..app import App
from ..errors import BadUsage, Next, NotFound, RebyteError
from ._base import define
from ._local import local_refusals
from ._options import chosen_task, task_argument


@define("attach", statuses=(3, 4, 5))
@task_argument
def command(app: App, task: str) -> None:
    """Open the screen of the agent that worked on TASK, with its session.

    For agents on this machine that have a screen: Claude Code, Codex, Gemini CLI and OpenCode. The
    agent runs in the sandbox of its other runs, on a terminal that is not yours and is left as it
    was. The session is a run of the task: it is refused while another one is at work, later ones
    wait for its end, `rebyte cancel` ends it, and `diff` and `apply` have what it changed. Its exit
    status is that of the agent.

    The screen sets your terminal's title and colours and shows links and messages, but does not
    reach its clipboard (OSC 52: copy with the terminal's own selection), folder or pictures.

    Examples:

      rebyte -P local attach @last
      rebyte -P local attach @last && rebyte -P local apply @last
    """
    from ..local import agents

    agents.leave_stand_in()
    task_id = chosen_task(app, task)
    go_on = "Continue with " + Next("follow-up", task_id)
    if not app.settings.is_local:
        raise NotFound("the agents of this profile work elsewhere", hint=go_on)
    app.client.get_task(task_id)  # whether it is there
    if not agents.on_terminal():
        raise BadUsage("attach requires a terminal", hint=go_on)
    with local_refusals(no_screen=go_on, run_at_work="Wait for it with " + Next("wait", task_id)):
        status, reason = agents.attach(app.local_folder(), app.config.path, task_id)
    if reason:
        raise RebyteError(reason)
    app.note("What it changed: " + Next("diff", task_id, "--run"))
    raise click.exceptions.Exit(status)
