"""Run a prompt as a new task."""

from __future__ import annotations

from typing import Any

import click

from ..app import App
from ..errors import BadUsage
from ..output.records import CREATED
from ._base import define
from ._create import create, create_options, split
from ._options import task_options
from ._prompts import prompt_options, read_prompt


@define("create", kind=CREATED, statuses=(3, 4, 5, 6, 10, 11, 12, 13, 124))
@prompt_options
@task_options(executors=True)
@create_options
@click.option("--forget", is_flag=True, help="With --once: forget KEY, so that it can be reused.")
def command(
    app: App,
    prompt: tuple[str, ...],
    prompt_option: str | None,
    prompt_file: str | None,
    forget: bool,
    **options: Any,
) -> Any:
    """Run PROMPT as a new task and print the task.

    Returns when the VM is up. With --wait, returns when the task has ended and prints only the
    finished task. The id and the link appear on stderr as soon as they are known.

    `-` after PROMPT adds standard input to it. Without PROMPT, standard input is the prompt; on a
    terminal, $EDITOR opens instead, and what you write is kept in a file until the task exists.

    If the response to a create is lost, rebyte looks for the task instead of creating it again.
    With --once KEY, a script can repeat the whole command after any interruption and still create
    only one task. A KEY is for one prompt.

    --attempts N creates N tasks for the same prompt; with several -x, they take turns. The first
    task that completes is printed, and the others are canceled; if none completes, all are printed.

    With `-g .`, stderr names uncommitted changes and unpushed commits, which the remote doesn't
    have. --with-changes uploads the uncommitted changes as a patch for the agent to apply.

    With --check, done means that a command passes on the changes; see rebyte-check(7).

    With --schema, the answer is JSON that fits, and `output` its value; see rebyte-check(7).

    Examples:

      rebyte create "Fix the login test" -g . --wait
      rebyte create "Finish what I began" -g . --with-changes
      rebyte create "Summarise" -f report.pdf -f data/*.csv --wait | jq .status
      git diff | rebyte create "Review this diff" - -w @last
      rebyte create "Fix it" -g . -x claude -x codex --attempts 2 --wait
      rebyte create "Nightly audit" --once "audit-$(date +%F)" --label run=nightly
    """
    given, choices = split(options)
    if forget:
        return _forget(app, choices.once)
    return create(app, read_prompt(app, prompt, prompt_option, prompt_file), given, choices)


def _forget(app: App, key: str | None) -> None:
    if key is None:
        raise BadUsage("--forget requires --once KEY")
    from ..tasks import create as engine

    name = engine.name_of_key(app.history, key)
    known = app.history.intents.forget(name)
    app.note(f"Forgot key {name!r}" if known else f"Unknown key {name!r}")
