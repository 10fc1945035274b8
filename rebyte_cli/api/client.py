"""`RebyteClient`: one method per endpoint, plain dicts in and out, unknown keys kept.

Paths hold ids percent-encoded. What cannot be an id is BadUsage as an argument, and BrokenAnswer
(OutcomeUnknown for a create) in a response.
Every method raises the errors of `rebyte_cli.errors`; APIError covers the API and the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from ..errors import (
    KEYS_PAGE,
    APIError,
    BadUsage,
    BrokenAnswer,
    MissingKey,
    NetworkError,
    OutcomeUnknown,
    QuestionAsked,
    ResourceNotFound,
    Unsent,
)
from ..system.deadline import GRACE, Deadline, Patience
from .failures import broken, lost
from .retry import SECONDS, SLOW_SECONDS, RetryPolicy
from .status import is_terminal
from .urls import BASE_URL, PAGE, path_id
from .views import ContentView

if TYPE_CHECKING:
    from .body import ApiResponse
    from .models import (
        Account,
        Artifact,
        ArtifactSlot,
        Canceled,
        Computer,
        ComputerPage,
        Content,
        CreatedPrompt,
        CreatedTask,
        Credits,
        FileRef,
        Health,
        PromptEvents,
        SandboxKey,
        Task,
        TaskPage,
        TaskRow,
        UploadSlot,
        Visibility,
        Webhook,
    )
    from .sse import StreamEvent
    from .transport import Transport


REMEMBERED = 10_000  # rows that a page walk tells from new ones; at most twice as many
# What an upload slot has when nothing was declared; the PUT must then say it too (vendor docs).
DEFAULT_TYPE = "application/octet-stream"
SHORTEST_PAUSE = 0.1  # seconds between two reads of a task that is waited for
FIRST_LOOK = 2.0  # seconds of waiting before the first look for a question
LOOK_PAUSE = 10.0  # between two looks, each of which reads all events
LONGEST_NAME = 255  # characters of an uploaded file's name (vendor docs)


class RebyteClient:
    """The API with one key. Thread-safe; also a context manager.

    `api_key` None takes REBYTE_API_KEY, `base_url` None takes REBYTE_API_URL or `BASE_URL`.
    `timeout` is the time limit of each call in seconds (None: 60, and 600 for create and
    follow-up), `ca_bundle` a file of CA certificates; `transport`, in place of all of these, makes
    the calls. `prepare` makes what is sent of the body of a new task, by other calls. Raises
    MissingKey, a ValueError, when there is no key. No connection is opened and no HTTP library
    imported before the first call.
    """

    BASE_URL = BASE_URL

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | None = None,
        ca_bundle: str | None = None,
        transport: Any = None,
        prepare: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self._prepare = prepare
        if transport is None:
            key = api_key if api_key is not None else os.environ.get("REBYTE_API_KEY", "")
            if not key.strip():
                raise MissingKey(f"no API key; get one at {KEYS_PAGE} and set REBYTE_API_KEY")
            from .transport import Transport

            url = base_url or os.environ.get("REBYTE_API_URL") or self.BASE_URL
            transport = Transport(url, key, timeout=timeout, ca_bundle=ca_bundle)
        self.transport: Transport = transport

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()

    def __enter__(self) -> RebyteClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # Tasks

    def create_task(
        self,
        prompt: str,
        *,
        executor: str | None = None,
        model: str | None = None,
        skills: Iterable[str] | None = None,
        files: Iterable[Mapping[str, str] | FileRef] | None = None,
        github_url: str | None = None,
        branch_name: str | None = None,
        workspace_id: str | None = None,
    ) -> CreatedTask:
        """Start a task; returns `id`, `workspaceId`, `url`, `status`, `createdAt` (seed document).

        Blocks until the VM is up, which may take minutes. Only what is given is sent. Raises
        OutcomeUnknown when the request went out and no usable response came: look before trying
        again, for there is no idempotency key.
        """
        return self.create_from(
            _given(
                prompt=prompt,
                executor=executor,
                model=model,
                skills=_slugs(skills),
                files=_uploaded(files),
                githubUrl=github_url,
                branchName=branch_name,
                workspaceId=workspace_id,
            )
        )

    def create_from(self, body: Mapping[str, Any], *, timeout: float | None = None) -> CreatedTask:
        """POST /tasks with a ready body, in the words of the API; as `create_task`.

        `timeout` shortens the time limit of this call (seconds).
        """
        if self._prepare is not None:
            try:
                body = self._prepare(self, body)
            except NetworkError as error:  # of a call before the create
                raise Unsent(error.message, seconds=error.seconds, hint=error.hint) from None
        made = self._create("/tasks", body, "id", timeout=timeout, usual=SLOW_SECONDS)
        return cast("CreatedTask", made)

    def get_task(self, task_id: str, *, timeout: float | None = None) -> Task:
        """One task with its status and its prompts (seed document).

        `timeout` shortens the time limit of this call (seconds).
        """
        path = f"/tasks/{path_id(task_id, 'task id')}"
        return cast("Task", self._object("GET", path, timeout=timeout))

    def list_tasks(
        self, limit: int = 50, offset: int = 0, *, timeout: float | None = None
    ) -> TaskPage:
        """One page of tasks made through the API, newest first: `data`, `total`, `limit`, `offset`.

        At most 100 a page. Rows have no `status` (vendor docs). `timeout` as in `get_task`.
        """
        return cast("TaskPage", self._page("/tasks", limit, offset, timeout=timeout))

    def iter_tasks(
        self, page: int = PAGE, *, offset: int = 0, total: list[int] | None = None
    ) -> Iterator[TaskRow]:
        """Every task from `offset` on, newest first, each once; asks for the next page when its
        first row is wanted. `total`, when given, is made to hold the API's count of each page.
        """
        return cast("Iterator[TaskRow]", self._pages("/tasks", page, offset=offset, total=total))

    def follow_up(
        self,
        task_id: str,
        prompt: str,
        *,
        skills: Iterable[str] | None = None,
        files: Iterable[Mapping[str, str] | FileRef] | None = None,
        executor: str | None = None,
        model: str | None = None,
    ) -> CreatedPrompt:
        """Send a further prompt to a task; returns `promptId` (seed document). As `create_task`."""
        body = _given(
            prompt=prompt,
            skills=_slugs(skills),
            files=_uploaded(files),
            executor=executor,
            model=model,
        )
        return self.follow_up_from(task_id, body)

    def follow_up_from(
        self, task_id: str, body: Mapping[str, Any], *, timeout: float | None = None
    ) -> CreatedPrompt:
        """POST /tasks/{id}/prompts with a ready body, in the words of the API; as `follow_up`.

        `timeout` shortens the time limit of this call (seconds).
        """
        path = f"/tasks/{path_id(task_id, 'task id')}/prompts"
        made = self._create(path, body, "promptId", timeout=timeout, usual=SLOW_SECONDS)
        return cast("CreatedPrompt", made)

    def wait_for_task(
        self,
        task_id: str,
        *,
        poll_interval: float = 5.0,
        timeout_seconds: float = 600.0,
        on_question: Literal["wait", "raise"] = "wait",
    ) -> Task:
        """Read a task until it has ended, however it ended; times in seconds.

        A `poll_interval` of less than 0.1 counts as 0.1; a negative number is BadUsage. Faults are
        tolerated for five minutes, from a service that has answered before.

        Raises WaitTimeout, which is a TimeoutError, when it still runs after `timeout_seconds` or
        cannot be read by then. When it has not ended because it asks a question, that error is
        QuestionAsked, with the question and how to answer it: at the time limit, since someone may
        answer in the browser meanwhile, or with `on_question="raise"` within seconds.
        """
        for name, value in (("poll_interval", poll_interval), ("timeout_seconds", timeout_seconds)):
            if not isinstance(value, int | float) or not value >= 0:  # NaN, too
                raise BadUsage(f"{name} must be a number of seconds, 0 or more")
        if on_question not in ("wait", "raise"):
            raise BadUsage('on_question must be "wait" or "raise"')
        transport = self.transport
        deadline = Deadline(timeout_seconds, clock=transport.clock)
        patience = Patience(
            deadline,
            transport,
            first=max(poll_interval, SHORTEST_PAUSE),
            resume=f"Wait again with client.wait_for_task({task_id!r})",
            sleep=transport.sleep,
        )
        next_look = transport.clock() + FIRST_LOOK
        state = "could not be read in"
        while True:
            try:
                task = self.get_task(task_id, timeout=deadline.for_call(GRACE))
            except APIError as error:
                patience.failed(error)
            else:
                patience.answered()
                state = "is still running after"
                if is_terminal(task.get("status")):
                    return task
                is_due = on_question == "raise" and transport.clock() >= next_look
                if is_due or deadline.has_passed:
                    self._raise_question(task_id, task, deadline.for_call(GRACE))
                    next_look = transport.clock() + LOOK_PAUSE
            if deadline.has_passed:
                raise deadline.error(f"task {task_id} {state}", pending=[task_id])
            patience.sleep()

    def _raise_question(self, task_id: str, task: Task, timeout: float | None) -> None:
        """Raise QuestionAsked if the run waits for an answer, as far as its content tells."""
        try:
            content = ContentView(self.task_content(task_id, events=True, timeout=timeout))
        except APIError:
            return
        event = content.asking
        if event is None or event.question is None:
            return
        asked = event.question
        reply: dict[str, Any] = {"selectedOptions": [0]}
        if not asked.items[0].options:
            reply = {"selectedOptions": [], "customResponse": "…"}
        answer = {"answers": [reply] * len(asked.items)} if asked.batched else reply
        body = {"messageId": asked.message_id, "actionId": asked.action_id, "answer": answer}
        raise QuestionAsked(
            f"task {task_id} is waiting for an answer: {' '.join(asked.items[0].text.split())}",
            task={"id": task_id, **task},
            question=event.payload,
            hint=f"Answer with client.answer({task_id!r}, {body!r}), then wait again",
        )

    def delete_task(self, task_id: str) -> None:
        """Remove a task (seed document). A 404 after a lost first attempt of our own is success."""
        self._delete(f"/tasks/{path_id(task_id, 'task id')}")

    def cancel_task(self, task_id: str) -> Canceled:
        """Stop a task; harmless on a finished one (seen in clients), so it may go out twice.

        What the response holds is unknown, possibly nothing: read the task for the truth.
        """
        return cast("Canceled", self._post(f"/tasks/{path_id(task_id, 'task id')}/cancel"))

    def set_visibility(self, task_id: str, visibility: str) -> Visibility:
        """`private`, `shared` or `public`; returns `visibility`, and `shareUrl` when public
        (vendor docs).
        """
        path = f"/tasks/{path_id(task_id, 'task id')}/visibility"
        return cast("Visibility", self._object("PATCH", path, body={"visibility": visibility}))

    def task_content(
        self, task_id: str, *, events: bool = False, timeout: float | None = None
    ) -> Content:
        """The transcript: `prompts[]` with `userPrompt`, `response` and, when asked, `events`.

        Seen in clients only; `response` may be null and `events` empty after some runs.
        `timeout` as in `get_task`.
        """
        path = f"/tasks/{path_id(task_id, 'task id')}/content"
        query = {"include": "events" if events else None}
        return cast("Content", self._object("GET", path, query=query, timeout=timeout))

    def task_requests(self, task_id: str) -> list[dict[str, Any]]:
        """The requests of a task's agent to the network, oldest first.

        Only the service on this machine has them (`rebyte -P local`).
        """
        return self._rows(f"/tasks/{path_id(task_id, 'task id')}/network", "requests")

    def repository_commits(self, key: str) -> list[str]:
        """The commits of a repository that the service has, newest first; see tasks/bundle.py.

        Only the service that rebyte carries has repositories.
        """
        response = self._object("GET", f"/repositories/{path_id(key, 'repository')}")
        return [str(each) for each in response.get("commits") or []]

    def add_commits(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Hand over a commit: `path` and `branch` are where the service has it. May be repeated."""
        path = f"/repositories/{path_id(key, 'repository')}"
        return self._object("POST", path, body=dict(body))

    def stream_events(
        self,
        task_id: str,
        *,
        idle: float | None = None,
        answer_within: float | None = None,
        timeout: float | None = None,
    ) -> Iterator[StreamEvent]:
        """The events of the latest prompt over one connection, from the first one on.

        Ends when the server closes; raises NetworkError when the connection breaks, or when no
        event comes for `idle` seconds or within `timeout` of the first call for one, whatever
        keep-alives do (None: the usual time limit, and no limit). The server has `answer_within`
        seconds to answer at all; None is as long as `idle`. Framing as seen in clients; data that
        is not a JSON object is skipped.
        """
        from .sse import StreamEvent, TooLarge, parse

        deadline = Deadline(timeout, clock=self.transport.clock)
        path = f"/tasks/{path_id(task_id, 'task id')}/events"
        with self.transport.stream(
            path, idle=idle, answer_within=answer_within, deadline=deadline
        ) as body:
            try:
                for name, text in parse(body):
                    try:
                        data = json.loads(text)
                    except (ValueError, RecursionError):
                        data = None
                    if isinstance(data, dict):
                        body.keep_waiting()
                        yield StreamEvent("done" if name == "done" else "event", data)
                    elif name == "done":
                        yield StreamEvent("done", {})
            except TooLarge:
                raise broken("GET", path, "an event is larger than 16 MiB") from None

    def prompt_events(self, task_id: str, prompt_id: str) -> PromptEvents:
        """The events of a delegated sub-prompt: `promptId`, `events[]` (seen in a client)."""
        path = f"/tasks/{path_id(task_id, 'task id')}/prompts/{path_id(prompt_id, 'prompt id')}"
        return cast("PromptEvents", self._object("GET", f"{path}/events"))

    def answer(
        self, task_id: str, body: Mapping[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Answer the question that parked a run: `messageId`, `actionId`, `answer` (seen in a
        client). 409 means that nothing waits for an answer any more. What a success holds is
        unknown.

        `timeout` shortens the time limit of this call (seconds).
        """
        path = f"/tasks/{path_id(task_id, 'task id')}/answer"
        repeat = RetryPolicy.IF_UNSENT
        return self._post(path, body=dict(body), repeat=repeat, timeout=timeout)

    # Files

    def create_file(self, filename: str, content_type: str | None = None) -> UploadSlot:
        """A slot for an upload: `id`, `filename` (a unique variant), `uploadUrl`, which is good
        for an hour (vendor docs). A slot that is never used does no harm, so it may go out twice.
        """
        # Bytes of a name that are no UTF-8 cannot be sent; the API changes the name anyway.
        filename = filename.encode(errors="replace").decode()
        if not filename or len(filename) > LONGEST_NAME:
            raise BadUsage(f"a file name has 1 to {LONGEST_NAME} characters")
        body = _given(filename=filename, contentType=content_type)
        slot = cast("UploadSlot", self._object("POST", "/files", body=body))
        for name in ("id", "filename", "uploadUrl"):
            if not isinstance(slot.get(name), str):
                raise BrokenAnswer(f"POST /files: the answer holds no {name}", response=slot)
        return slot

    def upload_file(
        self,
        path: str | Path,
        *,
        content_type: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> FileRef:
        """Upload a file; returns `{"id", "filename"}` as `create_task(files=…)` takes it.

        The file is read as it is sent, so memory stays flat. `progress` is called with each
        number of bytes sent, a negative one when sending starts over. When the store refuses
        the URL as expired, another one is asked for, once. BadUsage for a folder, NotFound for
        no such file; both before anything is sent.
        """
        from .body import file_size
        from .transfer import SlotExpired

        path = Path(path)
        file_size(path)
        try:
            return self._upload(path, content_type, progress)
        except SlotExpired:
            return self._upload(path, content_type, progress)

    def _upload(
        self, path: Path, content_type: str | None, progress: Callable[[int], None] | None
    ) -> FileRef:
        slot = self.create_file(path.name, content_type)
        self.transport.put_signed(
            slot["uploadUrl"], path, content_type or DEFAULT_TYPE, progress=progress
        )
        return {"id": slot["id"], "filename": slot["filename"]}

    # Artifacts of a workspace

    def list_artifacts(self, workspace_id: str) -> list[Artifact]:
        """The artifacts; an entry has `filename` or `name`, perhaps `size`, a URL (inferred).

        Taken from a bare list, or from `data`, `artifacts` or `files` of an object.
        """
        return cast(
            "list[Artifact]", self._rows(_artifact_path(workspace_id), "data", "artifacts", "files")
        )

    def get_artifact(
        self,
        workspace_id: str,
        name: str,
        target: str | Path,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
        folder: int | None = None,
    ) -> None:
        """Download one into `target`, which appears only when it is whole.

        A redirect is followed, without the key when it leaves the API (inferred). `folder` is a
        descriptor of the folder of `target`, where the way there must not be walked again.
        """
        path = _artifact_path(workspace_id, name)
        self.transport.download(
            path, Path(target), overwrite=overwrite, progress=progress, folder=folder
        )

    def get_changes(
        self,
        task_id: str,
        runs: Iterable[str],
        target: str | Path,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Download the patch of these runs of a task into `target`, which must not exist.

        `runs` are ids of prompts with `hasChanges`, which only the local service has.
        """
        ids = ",".join(path_id(run, "prompt id") for run in runs)
        path = f"/tasks/{path_id(task_id, 'task id')}/changes.patch?runs={ids}"
        self.transport.download(path, Path(target), progress=progress)

    def artifact_size(self, workspace_id: str, name: str) -> int | None:
        """The size of one in bytes, without its body; None where the service does not tell."""
        return self.transport.length(_artifact_path(workspace_id, name))

    def put_artifacts(
        self,
        workspace_id: str,
        paths: Iterable[str | Path],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Artifact]:
        """Upload files in one request: multipart, parts named `files` (inferred from the API
        inside the VM). Returns what the response lists, possibly nothing. Memory stays flat.
        """
        files = [Path(path) for path in paths]
        if not files:
            raise BadUsage("no files to upload")
        path = _artifact_path(workspace_id)
        response = self.transport.post_files(path, files, progress=progress)
        rows = response.data
        if isinstance(rows, dict):
            rows = next((rows[n] for n in ("data", "artifacts", "files") if n in rows), [])
        listed = rows if isinstance(rows, list) else []
        return [cast("Artifact", row) for row in listed if isinstance(row, dict)]

    def artifact_upload_urls(
        self, workspace_id: str, files: Iterable[Mapping[str, Any]]
    ) -> list[ArtifactSlot]:
        """Signed URLs for large files, in the order of `files` (`name`, `contentType`, optional
        `public`): `uploadUrl`, perhaps `publicUrl` (inferred). Use `transport.put_signed`.
        """
        wanted = [dict(file) for file in files]
        path = f"{_artifact_path(workspace_id)}/upload-url"
        response = self._object("POST", path, body={"files": wanted})
        urls = response.get("urls")
        if not isinstance(urls, list) or len(urls) != len(wanted):
            raise broken("POST", path, "not one URL per file", response=response)
        for url in urls:
            if not isinstance(url, dict) or not isinstance(url.get("uploadUrl"), str):
                raise broken("POST", path, "an entry holds no uploadUrl", response=response)
        return urls

    def delete_artifact(self, workspace_id: str, name: str) -> None:
        """Remove one artifact (path documented, response inferred)."""
        self._delete(_artifact_path(workspace_id, name))

    def delete_artifacts(self, workspace_id: str) -> None:
        """Remove every artifact of a workspace (path documented, response inferred)."""
        self._delete(_artifact_path(workspace_id))

    # Agent computers

    def create_computer(self, name: str | None = None, icon: str | None = None) -> Computer:
        """A new VM, `status` `provisioning` at first (vendor docs); poll until it is `ready`."""
        return cast(
            "Computer", self._create("/agent-computers", _given(name=name, icon=icon), "id")
        )

    def list_computers(self, limit: int = 50, offset: int = 0) -> ComputerPage:
        """One page, newest first: `data`, and perhaps `total`, `limit`, `offset` (vendor docs)."""
        return cast(
            "ComputerPage",
            self._object("GET", "/agent-computers", query={"limit": limit, "offset": offset}),
        )

    def iter_computers(self, page: int = PAGE) -> Iterator[Computer]:
        """Every agent computer, newest first, page by page as they are wanted."""
        return cast("Iterator[Computer]", self._pages("/agent-computers", page))

    def get_computer(self, computer_id: str, *, timeout: float | None = None) -> Computer:
        """One agent computer (vendor docs). `sandboxApiKey`, if there, is a secret.

        `timeout` shortens the time limit of this call (seconds).
        """
        found = self._object("GET", _computer_path(computer_id), timeout=timeout)
        return cast("Computer", found)

    def update_computer(
        self,
        computer_id: str,
        *,
        agent_instructions: str | None = None,
        views: Mapping[str, bool] | None = None,
    ) -> Computer:
        """Set the instructions, or switch views on and off by id (seen in a client)."""
        # Read as agentInstructions, written with an underscore (seen in a client).
        body = _given(
            agent_instructions=agent_instructions, views=None if views is None else dict(views)
        )
        return cast("Computer", self._object("PATCH", _computer_path(computer_id), body=body))

    def delete_computer(self, computer_id: str) -> None:
        """Remove the VM (seen in a client)."""
        self._delete(_computer_path(computer_id))

    # Webhooks

    def create_webhook(
        self,
        url: str,
        events: Iterable[str],
        *,
        description: str | None = None,
        secret: str | None = None,
    ) -> Webhook:
        """Register a URL (https) for events such as `task.completed`; three at most per
        organization (vendor docs). Whether a known URL makes a second one is disputed: list first.
        """
        body = _given(url=url, events=list(events), description=description, secret=secret)
        return cast("Webhook", self._create("/webhooks", body, "id"))

    def list_webhooks(self) -> list[Webhook]:
        """Every webhook; the list sits under `webhooks` (seen in a client)."""
        return cast("list[Webhook]", self._rows("/webhooks", "webhooks", "data"))

    def get_webhook(self, webhook_id: str) -> Webhook:
        """One webhook (path documented). The secret is never returned."""
        return cast(
            "Webhook", self._object("GET", f"/webhooks/{path_id(webhook_id, 'webhook id')}")
        )

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook (path documented)."""
        self._delete(f"/webhooks/{path_id(webhook_id, 'webhook id')}")

    def webhook_public_key(self) -> str:
        """The PEM key that deliveries are signed with (path documented, shape unknown).

        Taken from plain text, from a JSON string, or from the first value of a JSON object
        that looks like a key.
        """
        path = "/webhooks/public_key"
        headers = {"Accept": "application/json, text/plain"}
        response, error = self.transport.raw("GET", path, headers=headers, repeat=RetryPolicy.SAFE)
        if error is not None:
            raise error
        text = response.raw.decode(errors="replace")
        try:
            document: Any = json.loads(text)
        except (ValueError, RecursionError):
            document = text
        for found in _strings(document):
            if found.lstrip().startswith("-----BEGIN "):
                return found.strip() + "\n"
        raise broken("GET", path, "the answer holds no PEM key")

    # Account and partners

    def credits(self) -> Credits:
        """The organization's balance: numbers `balance`, `totalAvailable`, `lifetimeUsed`, …"""
        return cast("Credits", self._object("GET", "/billing/credits"))

    def health(self) -> Health:
        """`{status}` of the service, asked at the host's root and without the key."""
        response = self.transport.without_key(f"{self.transport.origin}/health")
        return cast("Health", response.data if isinstance(response.data, dict) else {})

    def sandbox_api_key(self) -> SandboxKey:
        """`apiKey` and `baseUrl` for direct access to VMs. The key is a secret."""
        return cast("SandboxKey", self._object("GET", "/sandbox/api-key"))

    def create_account(self, name: str, *, bill_to_parent: bool | None = None) -> Account:
        """A child account, for partner keys: `id` and `api_key`, which is shown only once."""
        body = _given(name=name, billToParent=bill_to_parent)
        return cast("Account", self._create("/accounts", body, "id"))

    def set_account_billing(self, account_id: str, *, bill_to_parent: bool) -> dict[str, Any]:
        """Who pays for a child account, for partner keys."""
        path = f"/accounts/{path_id(account_id, 'account id')}/billing"
        return self._object("PATCH", path, body={"billToParent": bill_to_parent})

    def top_up(
        self,
        account_id: str,
        amount: float,
        external_payment_id: str,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Add credits to a child account, for partner keys."""
        body = _given(
            accountId=account_id,
            amount=amount,
            externalPaymentId=external_payment_id,
            description=description,
            metadata=None if metadata is None else dict(metadata),
        )
        return self._object("POST", "/billing/topups", body=body, repeat=RetryPolicy.IF_UNSENT)

    def register_mcp_server(
        self,
        url: str,
        *,
        shared_secret: str | None = None,
        custom_headers: Iterable[Mapping[str, str]] | None = None,
    ) -> dict[str, Any]:
        """Make an MCP server known to the account; idempotent per URL, so it may go out twice."""
        headers = None if custom_headers is None else [dict(header) for header in custom_headers]
        body = _given(url=url, sharedSecret=shared_secret, customHeaders=headers)
        return self._object("POST", "/mcp/servers", body=body)

    # Calls and the shape of their responses

    def _object(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeat: RetryPolicy = RetryPolicy.SAFE,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """A call whose response is an object."""
        response = self.transport.send(
            method, path, query=query, body=body, repeat=repeat, timeout=timeout
        )
        if method == "GET" and not response.raw.strip():
            # As the response to a change this is a success (seen in clients); to a question it says
            # nothing.
            raise broken("GET", path, "the answer is empty", status_code=response.status)
        if isinstance(response.data, dict):
            return response.data
        raise _unexpected(method, path, response, repeat, "an object")

    def _post(
        self,
        path: str,
        *,
        body: Any = None,
        repeat: RetryPolicy = RetryPolicy.SAFE,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """A POST whose response no source shows: an object as it came, {} for anything else."""
        response = self.transport.send("POST", path, body=body, repeat=repeat, timeout=timeout)
        return response.data if isinstance(response.data, dict) else {}

    def _rows(self, path: str, *names: str) -> list[dict[str, Any]]:
        """A GET whose response is a list, bare or under one of `names`."""
        response = self.transport.send("GET", path, repeat=RetryPolicy.SAFE)
        rows = response.data
        if isinstance(rows, dict):
            rows = next((rows[name] for name in names if name in rows), [] if not rows else None)
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return rows
        raise _unexpected("GET", path, response, RetryPolicy.SAFE, "a list of objects")

    def _create(
        self,
        path: str,
        body: Mapping[str, Any],
        identity: str,
        *,
        timeout: float | None = None,
        usual: float = SECONDS,
    ) -> dict[str, Any]:
        """What a POST created; a response that does not name it leaves the outcome unknown."""
        repeat = RetryPolicy.IF_UNSENT
        response = self.transport.send(
            "POST", path, body=dict(body), repeat=repeat, timeout=timeout, usual=usual
        )
        made = response.data
        if not isinstance(made, dict):
            raise _unexpected("POST", path, response, repeat, "an object")
        if not made.get(identity):
            raise lost("POST", path, f"the answer holds no {identity}", response=made)
        return made

    def _page(
        self, path: str, limit: int, offset: int, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """One page of a list, whose rows are the objects under `data`."""
        query = {"limit": limit, "offset": offset}
        page = self._object("GET", path, query=query, timeout=timeout)
        rows = page.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise broken("GET", path, "the answer has no list under `data`", response=page)
        return page

    def _pages(
        self,
        path: str,
        page: int,
        *,
        offset: int = 0,
        total: list[int] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Rows of a paged list, one call per page, each call when its first row is asked for.

        A row made meanwhile shifts the others onto the next page, so ids seen are dropped; only
        the last ones can come again, so memory stays flat. Two pages with nothing new end it: a
        server that ignores `offset` would never end.
        """
        seen: set[str] = set()
        seen_before: set[str] = set()
        stale = 0
        while True:
            response = self._page(path, page, offset)
            rows, count = response["data"], response.get("total")
            if total is not None and isinstance(count, int):
                total[:] = [count]
            stale += 1
            for row in rows:
                identity = str(row.get("id"))
                if identity not in seen and identity not in seen_before:
                    stale = 0
                    seen.add(identity)
                    yield row
            if len(seen) >= REMEMBERED:
                seen, seen_before = set(), seen
            # A server may give less than what was asked for and still have more.
            offset += len(rows)
            more = len(rows) >= page or (isinstance(count, int) and offset < count)
            if not rows or not more or stale == 2:
                return

    def _delete(self, path: str) -> None:
        """A DELETE; a 404 after an earlier attempt of our own is success."""
        try:
            self.transport.send("DELETE", path, repeat=RetryPolicy.SAFE)
        except ResourceNotFound as missing:
            if not missing.retried:
                raise


def _unexpected(
    method: str, path: str, response: ApiResponse, repeat: RetryPolicy, wanted: str
) -> BrokenAnswer | OutcomeUnknown:
    """The error for a response of another shape; for a create it leaves the outcome unknown."""
    why = f"the answer is not {wanted}"
    if repeat is RetryPolicy.IF_UNSENT:
        return lost(method, path, why, status_code=response.status, response=response.data)
    return broken(method, path, why, status_code=response.status, response=response.data)


def _artifact_path(workspace_id: str, name: str | None = None) -> str:
    path = f"/workspaces/{path_id(workspace_id, 'workspace id')}/artifacts"
    if name is None:
        return path
    if name in ("", ".", "..") or "\0" in name:
        # The HTTP library would resolve these, quoted or not, into another path.
        raise BadUsage(f"{name!r} is not the name of an artifact")
    try:
        return f"{path}/{quote(name, safe='')}"
    except UnicodeEncodeError:
        raise BadUsage(f"{name!r} is not the name of an artifact") from None


def _computer_path(computer_id: str) -> str:
    return f"/agent-computers/{path_id(computer_id, 'agent computer id')}"


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that were given: what is left out is not sent as null."""
    return {name: value for name, value in fields.items() if value is not None}


def _slugs(skills: Iterable[str] | None) -> list[str] | None:
    if isinstance(skills, str):  # its letters would be sent as slugs
        raise BadUsage("skills must be a list of slugs, not one string")
    return None if skills is None else list(skills)


def _uploaded(files: Iterable[Mapping[str, str] | FileRef] | None) -> list[dict[str, Any]] | None:
    listed = None if files is None else list(files)
    if listed and not all(isinstance(file, Mapping) for file in listed):
        raise BadUsage("files must be what `upload_file` returns, not file names")
    return None if listed is None else [dict(file) for file in listed]


def _strings(document: Any, depth: int = 0) -> Iterator[str]:
    """Every text in a JSON document, three levels deep."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict) and depth < 3:
        for value in document.values():
            yield from _strings(value, depth + 1)
