"""The page of one task as HTML: its transcript as it grows, its answers, changes and network."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..system.web_page import badge, folded, h, markdown, moment, preformatted
from . import http
from .agents import facade
from .artifact_store import PATCH_FILE, find
from .http import Context, JsonObject
from .run_interface import Run, ScheduledEvent
from .store import Store
from .task_list import status_of, took, used
from .task_store import TaskRecord

SIMULATED = "A simulation: no agent ran."
SPEECH = ("text", "assistant", "message", "response")  # events in which an agent says something
SPOKEN = ("content", "text", "thinking")  # the names under which they hold it
LONGEST_PATCH = 256 * 1024  # shown; the rest is in the file
LONGEST_TRANSCRIPT = 32 * 1024 * 1024  # characters of HTML, of all prompts together
MOST_MARKDOWN = 1_000_000  # characters that are read as Markdown; the worst take ten seconds


class FileDiff(NamedTuple):
    """The part of a patch that changes one file: its path, and all its lines, headers too."""

    name: str
    lines: list[str]
    added: int
    removed: int


class PageRoom:
    """What a page may still take, whatever the agents of a task have told."""

    def __init__(self) -> None:
        self.html, self._markdown = LONGEST_TRANSCRIPT, MOST_MARKDOWN

    def speech(self, text: str) -> str:
        """Markdown as HTML, or as it is where there was much of it before."""
        self._markdown -= len(text)
        return markdown(text) if self._markdown >= 0 else preformatted(text)

    def filled(self, events: Sequence[ScheduledEvent], elsewhere: list[Any]) -> Iterator[str]:
        """The HTML of each event for which there is room."""
        for event in events:
            if self.html <= 0:
                return
            html = _event(event, elsewhere, self)
            self.html -= len(html)
            yield html


def render(context: Context, db: sqlite3.Connection, task: TaskRecord, *, may_act: bool) -> str:
    """The body of the page. With `may_act`, a browser that has the key for it can send prompts."""
    now = context.store.now()
    spent = used([task.usage(now)])
    about = [
        badge(status_of(context.store, task, now), "status"),
        h(f"{task.executor}, {task.model}" if task.model else task.executor),
        f"created {moment(http.stamp(task.created))}",
        f'took <span id="took" data-changes>{took(task, now)}</span>'
        f'<span id="used" data-changes>{spent and f" · {h(spent)}"}</span>',
        SIMULATED if task.is_simulated else "",
    ]
    cancel = _form(task.id, "cancel", "Cancel", ' data-confirm="Cancel this task?"')
    is_over, room = task.completed(now) is not None, PageRoom()
    return (
        f'<h1 id="title" data-changes>{h(task.shown_title(now) or "New task")}</h1>'
        f'<div class="top"><p class="about">{" · ".join(part for part in about if part)}</p>'
        f'<div id="cancel" data-changes>{"" if is_over or not may_act else cancel}</div></div>'
        '<div id="prompts" data-items>'
        + "".join(
            _prompt(context.store, n, run, now, may_act, room) for n, run in enumerate(task.runs, 1)
        )
        + "</div>"
        + _changes(context, db, task)
        + _refused(facade.requests_of_runs(context, task, only_refused=True))
        + (_follow_up(task) if may_act else "")
    )


def _form(task: str, action: str, button: str, more: str = "", fields: str = "") -> str:
    """A form that the script sends, for a browser that may act."""
    return (
        f'<form class="act" data-post="/run/{task}/{action}"{more}>{fields}'
        f'<button class="{"main" if fields else ""}">{button}</button>'
        '<output role="alert"></output></form>'
    )


def _follow_up(task: TaskRecord) -> str:
    box = '<label for="follow-up">Follow-up</label><textarea id="follow-up" name="prompt" required>'
    return f"<section>{_form(task.id, 'prompts', 'Send', fields=f'{box}</textarea>')}</section>"


def _prompt(store: Store, number: int, run: Run, now: int, may_act: bool, room: PageRoom) -> str:
    """What was asked, what the agent did, and what it answered."""
    prompt, answer, name = run.prompt, run.answer(now), run.prompt.id
    with store.read() as db:
        events = [one for one in run.events(db) if one.at <= run.horizon(now)]
    said = [_first(one.payload, *SPOKEN) for one in events if one.kind in SPEECH]
    # The answer has its own place; a program's is all that it printed, in pieces.
    elsewhere = said if "\n".join(map(_text, said)) == answer else [answer]
    items = [
        f'<li id="e-{name}-{one.order}">{html}</li>\n'
        for one, html in zip(events, room.filled(events, elsewhere), strict=False)
        if html
    ]
    if room.html <= 0:
        all_of_it = f"<code>rebyte logs {prompt.task}</code>"
        items.append(f'<li id="e-{name}-rest">Only the beginning is shown: see {all_of_it}.</li>')
    calls = sum(one.kind == "tool_use" for one in events)
    steps = f"{_number(len(items), 'step')}, {_number(calls, 'tool call')}"
    status, note = _state(store, run, now)
    spent = h(used([run.usage(now)])) if number > 1 else ""
    return (
        f'<section id="p-{name}" aria-label="Prompt {number}">'
        f"<h2>Prompt {number} {badge(status, f's-{name}')}</h2>"
        f'<pre class="prompt">{h(prompt.text)}</pre>'
        + folded(
            f'<span id="n-{name}" data-changes>{steps}</span>',
            f'<ol class="transcript" id="t-{name}" data-items>{"".join(items)}</ol>',
            f' class="steps"{"" if answer else " open"}',
        )
        + f'<div id="q-{name}" data-changes>{note}{_question(run, events, now, may_act)}</div>'
        f'<div id="a-{name}" aria-live="polite" data-changes>'
        + (f"<h3>Answer</h3>{room.speech(answer)}" if answer else "")
        + f'</div><p class="about" id="u-{name}" data-changes>{spent}</p></section>\n'
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _state(store: Store, run: Run, now: int) -> tuple[str, str]:
    """The status of a run, and what it waits for, as HTML."""
    if run.ended_at(now) is not None or run.question(now) is not None:
        return ("waiting" if run.question(now) else run.status(now)), ""
    if resumes_at := run.resumes_at(store, now):
        return (
            "limited",
            f"<p>Waits for its usage limit until {moment(http.stamp(resumes_at))}.</p>",
        )
    queue, preparing = run.queue(store), run.preparing(store)
    if queue:
        return "queued", f"<p>Waits: {h(queue['message'])}</p>"
    return run.status(now), f"<p>Prepares: {h(preparing)}</p>" if preparing else ""


# Questions


def _question(run: Run, events: Sequence[ScheduledEvent], now: int, may_act: bool) -> str:
    """The question that waits, with a form to answer it."""
    waiting = run.question(now)
    if waiting is None:
        return ""
    asked = next(one.payload for one in reversed(events) if one.kind == "ask_user_question")
    parts = asked.get("questions") or [asked]
    name, task = run.prompt.id, run.prompt.task
    fields = "".join(_part(f"{name}-{number}", part) for number, part in enumerate(parts, 1))
    which = f' data-message="{h(waiting.message)}" data-action="{waiting.action}"'
    form = _form(task, "answer", "Answer", which, fields)
    hint = f'<p class="unable">Answer: <code>rebyte answer {task}</code></p>'
    return hint + (form if may_act else "")


def _part(name: str, part: JsonObject) -> str:
    """One question: its options, and room for an answer in other words."""
    kind = "checkbox" if part.get("multiSelect") else "radio"
    options = "".join(
        f'<label class="option"><input type="{kind}" name="{name}" value="{index}">'
        f"<span>{h(option.get('label', ''))}"
        f"<small>{h(option.get('description', ''))}</small></span></label>"
        for index, option in enumerate(part.get("options") or [])
    )
    return (
        f'<fieldset class="question"><legend>{h(part.get("question", ""))}</legend>{options}'
        f'<label for="t-{name}">In your own words</label><textarea id="t-{name}"></textarea>'
        "</fieldset>"
    )


# The transcript


def _event(event: ScheduledEvent, elsewhere: list[Any], room: PageRoom) -> str:
    """One event as HTML; empty for texts that are shown elsewhere, and what has no text.

    The names of a payload's fields vary by executor.
    """
    payload = event.payload
    if event.kind in ("init", "result"):
        return ""
    if event.kind == "thinking" or event.kind in SPEECH:
        text = _first(payload, *SPOKEN)
        if text in elsewhere:
            return ""
        if event.kind == "thinking":
            return f'<div class="thinking">{room.speech(_text(text))}</div>'
        return room.speech(_text(text))
    if event.kind == "tool_use":
        name, given = _first(payload, "name", "tool_name"), _first(payload, "input", "params")
        return _opened(f"<b>{h(name)}</b> <code>{h(_gist(given))}</code>", given)
    if event.kind == "tool_result":
        output = _first(payload, "output", "content")
        fault = '<span class="fault">Failed: </span>' if payload.get("is_error") else ""
        lines = _number(len(_text(output).splitlines()), "line")
        return f'<div class="result">{_opened(f"{fault}Output, {lines}", output)}</div>'
    if event.kind == "ask_user_question":
        questions = payload.get("questions") or [payload]
        asked = (f"<p><b>{h(each.get('question', ''))}</b></p>" for each in questions)
        return f'<div class="asked">{"".join(asked)}</div>'
    return _opened(h(event.kind), payload)


def _opened(summary: str, value: object) -> str:
    text = _text(value)
    return folded(summary, preformatted(text)) if text else f"<p>{summary}</p>"


def _gist(given: object) -> str:
    """What a tool was asked, in one line: its only or most telling argument."""
    if isinstance(given, dict):
        names = ("command", "cmd", "file_path", "filePath", "path", "pattern", "query", "url")
        given = next((given[name] for name in names if name in given), given)
    line = " ".join(_text(given).split())
    return line if len(line) <= 100 else line[:99] + "…"


def _first(payload: dict[str, Any], *names: str) -> Any:
    return next((payload[name] for name in names if name in payload), "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


# What came of it


def _changes(context: Context, db: sqlite3.Connection, task: TaskRecord) -> str:
    """The patch of the workspace; an empty section while there is none."""
    body, patch = "", find(db, task.workspace, PATCH_FILE)
    if patch is not None:
        with (context.store.objects / patch["object"]).open("rb") as file:
            start = file.read(LONGEST_PATCH + 1)
        whole = f'<a href="/run/{task.id}/{PATCH_FILE}">{PATCH_FILE}</a>'
        more = f"<p>Only the beginning is shown; the rest is in {whole}.</p>"
        body = (
            "<h2>Changes in the workspace</h2>"
            + _changes_of(start[:LONGEST_PATCH].decode("utf-8", "replace"))
            + (more if len(start) > LONGEST_PATCH else "")
            + f"<p>{whole}, or <code>rebyte diff {task.id}</code></p>"
        )
    return f'<section id="changes" data-changes>{body}</section>'


def _refused(requests: list[JsonObject]) -> str:
    """The hosts that the gateway did not let the agent reach, of these requests, or nothing."""
    hosts: dict[str, list[JsonObject]] = {}
    for one in requests:
        hosts.setdefault(one["host"], []).append(one)
    rows = "".join(
        f'<tr><td class="title">{h(host or "no host")}</td><td class="number">{len(several)}</td>'
        f"<td>{h(several[-1]['refused'])}</td>"
        f'<td class="wide"><code>{h(several[-1]["option"] or "")}</code></td></tr>'
        for host, several in hosts.items()
    )
    table = (
        '<h2>Network refused</h2><table class="tasks"><thead><tr><th scope="col">Host</th>'
        '<th scope="col">Requests</th><th scope="col">Reason</th>'
        f'<th scope="col" class="wide">Allowed by</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    return f'<section id="refused" data-changes>{table if rows else ""}</section>'


def _changes_of(text: str) -> str:
    """What a patch changes, its files folded unless there is only one."""
    files = list(_files(text))
    added, removed = sum(one.added for one in files), sum(one.removed for one in files)
    is_open = " open" if len(files) == 1 else ""
    total = f"{len(files)} {'file' if len(files) == 1 else 'files'}{_counts(added, removed)}"
    return f'<p class="about">{total}</p>' + "".join(
        folded(
            f"<code>{h(one.name)}</code>{_counts(one.added, one.removed)}",
            '<div class="scroll" tabindex="0"><pre class="patch">'
            f"{''.join(_lines(one.lines))}</pre></div>",
            f' class="file" id="file-{number}"{is_open}',
        )
        for number, one in enumerate(files, 1)
    )


def _files(text: str) -> Iterator[FileDiff]:
    """The files of a patch that git made, or of any other unified diff."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n"):
        if line.startswith("diff ") and lines:
            yield _file(lines)
            lines = []
        lines.append(line)
    if lines:
        yield _file(lines)


def _file(lines: list[str]) -> FileDiff:
    name, old, added, removed, is_header = lines[0].rpartition(" b/")[2], "", 0, 0, True
    for line in lines:
        is_header = is_header and not line.startswith("@@")
        if is_header and line.startswith("--- "):
            old = line[4:].removeprefix("a/")
        elif is_header and line.startswith(("+++ ", "rename to ")):
            name = line.removeprefix("rename to ").removeprefix("+++ ").removeprefix("b/")
        elif not is_header:
            added += line.startswith("+")
            removed += line.startswith("-")
    return FileDiff(old if name == "/dev/null" else name, lines, added, removed)


def _counts(added: int, removed: int) -> str:
    if not (added or removed):
        return ""
    return f' <ins class="count">+{added}</ins> <del class="count">−{removed}</del>'  # noqa: RUF001


def _lines(lines: list[str]) -> Iterator[str]:
    name = "b"  # until the first hunk
    for line in lines:
        if name != "b" or line.startswith("@@"):
            name = {"@": "i", "+": "ins", "-": "del"}.get(line[:1], "span")
        yield f"<{name}>{h(line)}\n</{name}>"
