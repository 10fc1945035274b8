"""Send another prompt to a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..app import App
from ..deadline import Deadline
from ..output.records import PROMPT, TASK, Document, Records
from ._base import define
from ._notice import EndNotice
from ._options import (
    check_files,
    dry_run_option,
    files_option,
    notify_option,
    on_question_option,
    skills_option,
    stream_option,
    task_argument,
    timeout_option,
    wait_option,
)
from ._prompts import PromptSource, prompt_options, read_prompt


@define("follow-up", kind=PROMPT, statuses=(3, 4, 5, 6, 10, 11, 12, 124))
@task_argument
@prompt_options
@skills_option
@files_option
@wait_option
@timeout_option
@stream_option
@notify_option
@on_question_option
@dry_run_option()
def command(
    app: App,
    task: str,
    prompt: tuple[str, ...],
    prompt_option: str | None,
    prompt_file: str | None,
    skills: list[str],
    files: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    stream: bool,
    notify: bool,
    dry_run: bool,
) -> Any:
    """Send PROMPT to TASK, which may be running or finished.

    Prints the id of the new prompt. With --wait, waits for this prompt to end (the task can still
    be `completed` from the previous one) and prints the finished task.

    Examples:

      rebyte follow-up @last "Now fix the critical findings" --wait
      rebyte follow-up 550e8400 -f notes.md -p "Take these notes into account"
    """
    from ..history import references

    written = read_prompt(app, prompt, prompt_option, prompt_file)
    paths = check_files(files)
    task_id = references.task(app.history, task)
    if written.is_unwritten and not dry_run:
        app.client.get_task(task_id)  # whether it is there, before the editor opens
    with written.kept("follow-up") as text:
        body: dict[str, Any] = {"prompt": text, **({"skills": skills} if skills else {})}
        if dry_run:
            if paths:
                body["files"] = [{"path": path} for path in paths]
            return Document(body)
        if paths:
            from ..tasks.upload import upload

            body["files"] = upload(app.client, paths, app.progress_bar)
        deadline = Deadline(timeout)
        answer = _sent(app, task_id, body, written, deadline)
    if stream or wait:
        app.note(f"Sent prompt {answer['promptId']} to task {task_id}")
    notice = EndNotice(app) if notify else None
    if stream:
        from ._wait import streamed

        return streamed(
            app, task_id, prompt_id=str(answer["promptId"]), deadline=deadline, notice=notice
        )
    if wait:
        from ..tasks.wait import WaitTarget
        from ._wait import finished

        target = WaitTarget(task_id, str(answer["promptId"]))
        ended = finished(app, [target], deadline=deadline)
        return Records(TASK, notice.of_outcomes(ended) if notice else ended)
    return Records(PROMPT, [answer])


def _sent(
    app: App, task_id: str, body: Mapping[str, Any], prompt: PromptSource, deadline: Deadline
) -> Mapping[str, Any]:
    """The answer to the follow-up, which has been sent once."""
    from ..tasks import create

    with app.spinner("Sending the prompt (waiting for the VM)"):
        return create.follow_up(
            app.client,
            app.history,
            task_id,
            body,
            on_created=prompt.sent,
            note=app.note,
            deadline=deadline,
        )
