"""What each MCP tool does: the same steps as the command of that name, with a record as answer.

The tools run on worker threads of the server, several at a time. Their docstrings, parameter names
and descriptions are what a model reads.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

import anyio.from_thread
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, TextContent
from pydantic import Field

from ..app import App
from ..errors import CarriesTask, Next, RebyteError, Term, worded
from ..history import references
from ..system.addresses import THIS_MACHINE, reach
from ..system.deadline import Deadline
from ..system.redaction import redact_keys
from ..tasks.prompt import check_prompt
from .scope import Scope

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History
    from ..tasks.mending import Mending

TOOLS = frozenset(
    ["create", "wait", "get", "result", "follow_up", "list", "answer", "cancel", "logs"]
)
LONGEST_TEXT = 100_000  # characters of a transcript or a patch in one answer
PROGRESS_PAUSE = 1.0  # seconds between two notifications
SLICE = 0.2  # seconds of sleep after which a cancelled call is noticed
CALL_SECONDS = 60.0  # that a tool which does not wait may take

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Method = Callable[Concatenate["Tools", Arguments], Any]

TaskRef = Annotated[
    str, Field(description="The task: its id, a prefix of it, or @last.", min_length=1)
]
PromptText = Annotated[str, Field(description="The instruction for the agent.", min_length=1)]
Schema = Annotated[
    dict[str, Any] | None,
    Field(description="A JSON Schema that the answer must fit, to be read as `output`."),
]
Skills = Annotated[Sequence[str] | None, Field(description="Skills to attach, e.g. deep-research.")]


def _tool(method: Method[Arguments]) -> Callable[Concatenate[Tools, Arguments], CallToolResult]:
    """Turn what a method returns into an answer, and a RebyteError into one that is an error.

    Text is sent as it is; a record is sent as structured content, and as JSON for clients that
    read text alone. The key is cut out of either.
    """

    @wraps(method)
    def call(self: Tools, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> CallToolResult:
        try:
            return self.reply(method(self, *args, **kwargs))
        except RebyteError as error:
            return self.refusal(error)

    return call


class Tools:
    """The tools for one profile. They share the client, the history and the local service.

    `scope` says what tasks may work on. An agent on this machine always runs in a sandbox.
    """

    def __init__(self, app: App, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._guard = threading.Lock()  # the App makes its parts when they are first used

    @property
    def _client(self) -> RebyteClient:
        with self._guard:
            return self._app.client

    @property
    def _history(self) -> History:
        with self._guard:
            return self._app.history

    def _id(self, task: str) -> str:
        return references.task(self._history, task)

    def _own(self, task: str) -> str:
        """The id of a task whose run may be continued. BadUsage for one that the scope excludes."""
        task_id = self._id(task)
        self._scope.check_task(task_id, self._app.known.workspace_of(task_id))
        return task_id

    @_tool
    def create(
        self,
        ctx: Context[Any, Any],
        prompt: PromptText,
        repository: Annotated[
            str | None,
            Field(description="owner/repo, an https URL, or `.` for the server's working folder."),
        ] = None,
        branch: Annotated[str | None, Field(description="The branch of the repository.")] = None,
        skills: Skills = None,
        executor: Annotated[
            str | None, Field(description="claude, codex, gemini or opencode.")
        ] = None,
        model: Annotated[str | None, Field(description="A model or tier.")] = None,
        workspace: Annotated[
            str | None,
            Field(description="Run in this workspace of a task created here: an id or a task."),
        ] = None,
        once: Annotated[
            str | None,
            Field(description="Create at most one task for this key, even across retries."),
        ] = None,
        schema: Schema = None,
    ) -> Any:
        """Run a prompt as a new task, and return it with its id and url once its VM is up.

        Call `wait` for its end. Pass `once` with a key of your choice to make a retry safe: the
        same key returns the task that it has created already. With `schema`, the task is asked for
        an answer in JSON that fits; pass the same to `wait`, which checks it.
        """
        from ..tasks import create
        from ..tasks import repository as git

        app, client, history = self._app, self._client, self._history
        settings, progress = app.settings, _Progress(ctx, None, self._said)
        body: dict[str, Any] = {
            "prompt": _asking(check_prompt(prompt), schema),
            "executor": executor or settings.executor.value,
            "model": model or settings.model.value,
            "skills": list(skills or settings.skills.value or ()),
            "workspaceId": workspace and references.workspace(history, workspace),
            **self._confined(),
        }
        if body["workspaceId"]:
            self._scope.check_workspace(body["workspaceId"])
        if repository:
            self._scope.check_repository(repository)
        if repository or branch:
            is_local = settings.is_own_service
            body |= git.source(repository, branch, is_local=is_local, note=progress.keep)
        maker = self._scope.maker()
        created = progress.during(
            lambda: create.create(
                client,
                history,
                {name: value for name, value in body.items() if value},
                prompt=body["prompt"],
                key=once,
                on_attempt=maker,
                note=progress.keep,
            )
        )
        with self._guard:
            app.known.keep_workspace(created)
        if maker.is_server:
            self._scope.add(created)
        return self._with_notes(created, progress.notes)

    @_tool
    def wait(
        self,
        ctx: Context[Any, Any],
        task: TaskRef,
        prompt_id: Annotated[
            str | None,
            Field(description="Wait for this prompt alone: the promptId of a follow_up."),
        ] = None,
        timeout: Annotated[
            float | None, Field(description="Give up after so many seconds.", gt=0)
        ] = None,
        schema: Schema = None,
    ) -> Any:
        """Wait for a task to end, and return it; progress is reported every second.

        An error with code task_failed, task_canceled or timeout says how it ended otherwise; its
        `task` is the task. With code needs_answer the task asks a question, with its options in
        the hint: call `answer`, then `wait` again. With the `schema` of `create`, the task has its
        answer as `output`; one that does not fit is sent back, twice, before the error
        schema_mismatch.
        """
        from ..tasks.question_watch import QuestionWatcher
        from ..tasks.wait import WaitTarget, patient, watch

        client, task_id = self._client, self._id(task) if schema is None else self._own(task)
        deadline, pause = Deadline(timeout), _Progress(ctx, timeout, self._said)
        questions = QuestionWatcher(
            client, self._history, "stop", note=pause.note, deadline=deadline, sleep=pause.sleep
        )
        target = WaitTarget(task_id, prompt_id)
        patience = patient(client, deadline, resume="Resume with " + Next("wait", task_id))
        wait = partial(watch, client, [target], patience=patience, pause=questions.pause)
        if schema is None:
            ends = wait()
        else:
            ends = self._fitting(schema, deadline, pause.keep).ends(wait, [target])
        for outcome in ends:
            if isinstance(outcome, RebyteError):
                raise outcome
            return self._with_notes(self._app.known.update(outcome), pause.notes)
        raise AssertionError("watch ends with an outcome or raises")

    def _fitting(
        self, schema: Mapping[str, Any], deadline: Deadline, note: Callable[[str], None]
    ) -> Mending:
        """What has answers that do not fit mended."""
        from ..tasks.answer_schema import CPU_SECONDS, AnswerSchema
        from ..tasks.mending import Mending, answer_outcome
        from ..tasks.verdict import RunVerdict

        client = self._client
        wanted = AnswerSchema.of(schema, "schema", within=CPU_SECONDS)

        def examine(task: Mapping[str, Any], limit: Deadline) -> RunVerdict:
            return RunVerdict(answer=answer_outcome(client, str(task["id"]), wanted, limit))

        return Mending(
            client,
            self._history,
            examine,
            deadline=deadline,
            note=note,
            fields=self._confined(),
        )

    @_tool
    def get(self, task: TaskRef) -> Any:
        """Show a task: its status, title and prompts. `notes` has the question that it waits on."""
        from ..tasks import questions

        notes: list[str] = []
        found = self._client.get_task(self._id(task))
        questions.tell(self._client, self._history, found, notes.append)
        return self._with_notes(self._app.known.update(found), notes)

    @_tool
    def result(self, task: TaskRef) -> Any:
        """Read the text of a task's answer. The task must have ended."""
        from ..tasks import result

        return result.answer(self._client, self._id(task), deadline=Deadline(CALL_SECONDS))

    @_tool
    def follow_up(
        self,
        ctx: Context[Any, Any],
        task: TaskRef,
        prompt: PromptText,
        skills: Skills = None,
        schema: Schema = None,
    ) -> Any:
        """Send another prompt to a task created here, and return its promptId.

        The task may be running or finished, and keeps its workspace. Pass the promptId to `wait` to
        wait for this prompt.
        """
        from ..tasks import create

        progress, history = _Progress(ctx, None, self._said), self._history
        client, task_id = self._client, self._own(task)
        body = {
            "prompt": _asking(check_prompt(prompt), schema),
            **({"skills": list(skills)} if skills else {}),
            **self._confined(),
        }
        sent = progress.during(
            lambda: create.follow_up(client, history, task_id, body, note=progress.keep)
        )
        return self._with_notes(sent, progress.notes)

    @_tool
    def list(
        self,
        limit: Annotated[int, Field(description="At most so many.", ge=1, le=1000)] = 20,
        status: Annotated[
            Literal["running", "waiting", "limited", "completed", "failed", "canceled"] | None,
            Field(
                description="Only tasks with this status; `waiting`: for an answer, `limited`: for"
                " a usage limit of the model."
            ),
        ] = None,
        search: Annotated[
            str | None, Field(description="Only tasks whose title contains this text.")
        ] = None,
        since: Annotated[
            str | None, Field(description="Only tasks created after a date, or within 7d, 12h.")
        ] = None,
    ) -> Any:
        """List tasks, newest first, as `data`, each with its status."""
        from ..tasks.list import MOST_READ, at_most, passing, row_tests, with_questions, with_status

        notes: list[str] = []
        client, history = self._client, self._history
        rows = passing(client.iter_tasks(), row_tests(search=search, since=since))
        found = with_status(
            client,
            history,
            rows if status else at_most(rows, limit),
            # The API calls a run that waits `running`.
            wanted=("running" if status in ("waiting", "limited") else status,) if status else (),
            most=None if status else MOST_READ,
            note=notes.append,
        )
        if status == "waiting":
            every = with_questions(client, history, found, most=None)
            found = (one for one in every if isinstance(one, RebyteError) or one.get("question"))
        if status == "limited":
            found = (one for one in found if isinstance(one, RebyteError) or one.get("resumesAt"))
        data = []
        for row in at_most(found, limit):
            if isinstance(row, RebyteError):
                raise row
            data.append(self._app.known.located(row))
        return self._with_notes({"data": data}, notes)

    @_tool
    def answer(
        self,
        task: TaskRef,
        options: Annotated[
            Sequence[int], Field(description="The numbers of the chosen options, from 1.")
        ] = (),
        texts: Annotated[
            Sequence[str], Field(description="Answers in your own words, one for each question.")
        ] = (),
    ) -> Any:
        """Answer the question that a task created here waits on.

        Without an option and a text, the error's hint shows the question and its options.
        """
        from ..tasks import questions

        client, task_id = self._client, self._own(task)
        question = questions.waiting_or_raise(client, task_id)
        choices = questions.choices(question, options, texts)
        questions.answer(client, self._history, task_id, question, choices)
        return {"id": task_id, "answered": True}

    @_tool
    def cancel(self, task: TaskRef) -> Any:
        """Cancel a running task and return its state. One that has ended is left unchanged."""
        from ..tasks import cancel

        return self._app.known.update(cancel.cancel(self._client, self._id(task)))

    @_tool
    def logs(
        self,
        task: TaskRef,
        full: Annotated[
            bool, Field(description="Show tool calls, thoughts and delegated runs in full.")
        ] = False,
    ) -> Any:
        """Read the transcript of a task so far. Of a very long one, the end."""
        from ..tasks import logs
        from ..tasks.questions import hint

        notes: list[str] = []
        client, task_id = self._client, self._id(task)
        steps = logs.steps(
            client,
            task_id,
            False,
            Deadline(CALL_SECONDS),
            asked=lambda *asked: notes.append(hint(*asked)),
            note=notes.append,
        )
        shown = logs.text(steps, client, task_id, full=full)
        text = "".join(part for _, parts in shown for part in parts)
        if len(text) > LONGEST_TEXT:
            text = f"[{len(text) - LONGEST_TEXT} characters left out]\n{text[-LONGEST_TEXT:]}"
        return "\n".join([text, *map(self._said, notes)])

    @_tool
    def diff(self, task: TaskRef) -> Any:
        """Read the changes that a task made to its repository, as a patch.

        Tasks of agents on this machine have one, and those whose agent saved an artifact
        changes.patch. `rebyte apply` applies it.
        """
        from ..tasks import patch

        task_id = self._id(task)
        source = patch.source(self._client, task_id, self._app.known.workspace_of(task_id))
        found = patch.fetch(self._client, source)
        text = found.decode("utf-8", "replace")
        if len(text) > LONGEST_TEXT:
            raise RebyteError(
                f"the patch of task {task_id} has {len(text):,} characters",
                hint=f"Write it to a file in a shell: rebyte diff {task_id} > changes.patch",
                code="too_large",
            )
        return text

    def _confined(self) -> dict[str, str]:
        """The fields that have a service on this machine use a sandbox with a separate network,
        whatever its settings are."""
        settings = self._app.settings
        here = (
            settings.is_own_service
            or reach(urlsplit(settings.origin).hostname or "") == THIS_MACHINE
        )
        return {"jail": "on", "network": "confined"} if here else {}

    # Answers

    def reply(self, value: Any) -> CallToolResult:
        """The answer to a call: `value` is text, or a record with keys as the API has them."""
        if isinstance(value, str):
            return _text(self._without_key(value))
        text = self._without_key(json.dumps(value, ensure_ascii=False, indent=2))
        return _text(text, structured=json.loads(text))

    def refusal(self, error: RebyteError) -> CallToolResult:
        """The answer to a call that failed: what the command prints on stderr under `-o json`."""
        document = error.as_dict()
        told = document["error"]
        told["message"] = self._said(error.sentence)
        told["hint"] = (error.hint and self._said(error.hint)) or None
        if isinstance(error, CarriesTask):
            document["task"] = self._app.known.update(error.task)
        text = self._without_key(redact_keys(json.dumps(document, ensure_ascii=False)))
        return _text(text, structured=json.loads(text), is_error=True)

    def _with_notes(self, record: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
        return {**record, **({"notes": [self._said(note) for note in notes]} if notes else {})}

    def _said(self, text: str) -> str:
        """A text that names tools and parameters instead of commands and options.

        A command that no tool replaces, such as `rebyte auth login`, is for the user's shell.
        """

        def words(part: Next | Term) -> str:
            if isinstance(part, Term):
                return part.tool
            name = "wait" if "--wait" in part.words else part.words[0].replace("-", "_")
            if name in TOOLS and "--forget" not in part.words:
                return f"the tool `{name}`"
            shell = " in a shell" if name in TOOLS else ""
            return part.typed(self._app.options.get("profile")) + shell

        return worded(text, words)

    def _without_key(self, text: str) -> str:
        client: RebyteClient | None = self._app.__dict__.get("client")  # without making one
        return text if client is None else client.transport.without_key_in(text)


class _Progress:
    """Reports the progress of a long call, and ends the call once its client has cancelled it."""

    def __init__(
        self, ctx: Context[Any, Any], total: float | None, said: Callable[[str], str]
    ) -> None:
        """`total` is the time limit in seconds, or None; `said` words a note for the tools."""
        self.notes: list[str] = []
        self._ctx = ctx
        self._said = said
        self._total = total
        self._start = self._shown_at = time.monotonic()

    def keep(self, text: str) -> None:
        """Keep a line for the answer, and show it as progress from the next time on."""
        self.notes.append(text)

    def note(self, text: str) -> None:
        """Keep a line for the answer, and show it at once, in the worker thread of the call."""
        self.keep(text)
        self._show()

    def during(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, or raise what it raises, and show progress until then.

        `work` runs in a separate thread: a request cannot be interrupted, so if the call is
        cancelled, it continues and the history learns what it has created.
        """
        done: futures.Future[Result] = futures.Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        while not done.done():
            self._tick()
            futures.wait([done], timeout=SLICE)
        return done.result()

    def sleep(self, seconds: float) -> None:
        """Sleep, in the worker thread of the call. Raises the cancellation of the call."""
        deadline = Deadline(seconds)
        while True:
            self._tick()
            if deadline.has_passed:
                return
            time.sleep(deadline.cap(SLICE))

    def _tick(self) -> None:
        """Raise the cancellation of the call, if any, and show progress if it is time to."""
        anyio.from_thread.check_cancelled()
        is_first = self._shown_at == self._start
        if is_first or time.monotonic() - self._shown_at >= PROGRESS_PAUSE:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        message = self._said(self.notes[-1]) if self.notes else "running"
        elapsed = self._shown_at - self._start
        anyio.from_thread.run(self._ctx.report_progress, elapsed, self._total, message)


def _asking(prompt: str, schema: Mapping[str, Any] | None) -> str:
    """The prompt, with the request for an answer that fits the schema, if there is one."""
    if schema is None:
        return prompt
    from ..tasks.answer_schema import CPU_SECONDS, AnswerSchema

    return AnswerSchema.of(schema, "schema", within=CPU_SECONDS).ask(prompt)


def _text(
    text: str, *, structured: dict[str, Any] | None = None, is_error: bool = False
) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=structured,
        is_error=is_error,
    )
