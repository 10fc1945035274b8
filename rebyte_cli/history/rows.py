"""What a row of the history holds, and how it becomes a value. No row is trusted.

Another version, another program or a damaged disk may have written it: a value of the wrong kind
reads as None. Of a prompt, the history keeps a digest and how it begins.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from ..system.redaction import redact_keys

PROMPT_LENGTH = 200
# Fields of a task, and the columns that they are in.
COLUMNS = {
    "id": "id",
    "workspaceId": "workspace_id",
    "url": "url",
    "title": "title",
    "status": "status",
    "createdAt": "created_at",
    "completedAt": "completed_at",
    "prompt": "prompt",
    "executor": "executor",
    "model": "model",
    "skills": "skills",
    "githubUrl": "github_url",
    "branchName": "branch",
    "files": "files",
    "localRepository": "local_repository",
    "givenWorkspaceId": "given_workspace",
    "baseCommit": "base_commit",
}
_LISTS = ("skills", "files")
# Fields of an answer that name what was made and cannot hold a user's text.
_NAMES = ("id", "workspaceId", "url", "status", "createdAt")
# In the place of a body's digest, which no line equals: no create takes a line's task for its own.
LINE = "line "

# The condition for a list of ids, given as one value: `among(ids)`. SQLite before 3.32 takes at
# most 999 values in one statement.
AMONG = "IN (SELECT value FROM json_each(?))"

State = Literal["open", "done", "refused", "unknown", "unsent", "given up"]


class Intent(NamedTuple):
    """One attempt to create a task. `task` is the created document once `state` is done.

    `candidates` are the ids of what a search found possible; of an intent that is done, what it
    took. `begins` is how its prompt begins, None if that is not kept.
    """

    id: int
    key: str | None
    state: State
    digest: str
    body_digest: str
    started_at: str
    owner: str
    task_id: str | None = None
    task: dict[str, Any] | None = None
    candidates: Sequence[str] = ()
    begins: str | None = None

    def may_read_like(self, digest: str, begins: str | None) -> bool:
        """Whether a service may show its prompt as that of another request.

        A service may cut; but to the whole of a prompt longer than PROMPT_LENGTH, none does.
        """
        own, other = self.begins, begins
        is_longer = own is not None and other is not None and own.startswith(other)
        return self.digest == digest or is_longer


class NewTask(NamedTuple):
    """A task to remember: the API's answer, its prompt, the body that was sent, its labels.

    `files` are the absolute paths of uploaded files, so that they can be uploaded again; with None,
    the names that the body has for them are kept. `line` is the journal of a batch and the number
    of the line, with a space between them. `base` is the commit that the task starts from, as far
    as the repository here knows it.
    """

    created: Mapping[str, Any]
    prompt: str
    sent: Mapping[str, Any] = {}
    labels: Mapping[str, str] = {}
    files: Sequence[str] | None = None
    line: str | None = None
    base: str | None = None


class Reservation(NamedTuple):
    """A line of a batch about to be sent: its number, its prompt's digest, the time (ISO 8601).

    `begins` is how its prompt begins.
    """

    number: int
    digest: str
    sent: str
    begins: str | None = None


def task_of(row: sqlite3.Row) -> dict[str, Any]:
    """A row of `tasks` as a task document."""
    task: dict[str, Any] = {name: text_of(row[column]) for name, column in COLUMNS.items()}
    task.update((name, texts_of(row[COLUMNS[name]])) for name in _LISTS)
    return task


def intent_of(row: sqlite3.Row) -> Intent:
    """A row of `intents`."""
    task = _json_of(row["task"])
    return Intent(
        id=row["id"],
        key=text_of(row["key"]),
        state=row["state"],
        digest=text_of(row["digest"]) or "",
        body_digest=text_of(row["body_digest"]) or "",
        started_at=text_of(row["started_at"]) or "",
        owner=text_of(row["owner"]) or "",
        task_id=text_of(row["task_id"]),
        task=task if isinstance(task, dict) else None,
        candidates=tuple(texts_of(row["candidates"])),
        begins=text_of(row["shape"]),
    )


def line_of(row: sqlite3.Row) -> int | None:
    """The number of the line that a row of `intents` reserves, or None."""
    number = (text_of(row["body_digest"]) or "").removeprefix(LINE)
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None


def among(ids: Iterable[object]) -> str:
    """The value of AMONG for these ids."""
    return json.dumps([stored_text(each, plain=True) for each in ids])


def text_of(value: Any) -> str | None:
    """A column of text."""
    return value if isinstance(value, str) else None


def texts_of(value: Any) -> list[str]:
    """A column that holds a list of texts in JSON."""
    found = _json_of(value)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _json_of(value: Any) -> Any:
    if not isinstance(value, str):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def columns_of(new: NewTask) -> list[Any]:
    """What is kept of a new task, in the order of COLUMNS: of its prompt the first line only.

    Keys are cut out of all text.
    """
    created, prompt, sent, _labels, paths, _line, base = new
    names = [file["filename"] for file in sent.get("files") or () if file.get("filename")]
    files = names if paths is None else list(paths)
    first_line = next((line for line in prompt.splitlines() if line.strip()), "")
    values = {
        "prompt": redact_keys(first_line.strip())[:PROMPT_LENGTH],
        "executor": sent.get("executor"),
        "model": sent.get("model"),
        "skills": json.dumps(sent["skills"]) if sent.get("skills") else None,
        "githubUrl": _without_token(sent.get("githubUrl")),
        "localRepository": _without_token(sent.get("localRepository")),
        "givenWorkspaceId": sent.get("workspaceId"),
        "branchName": sent.get("branchName"),
        "files": json.dumps(files) if files else None,
        "workspaceId": sent.get("workspaceId"),
        "baseCommit": base,
    }
    for name in (*_NAMES, "title", "completedAt"):
        if created.get(name) is not None:
            values[name] = created[name]
    return [
        None if values.get(name) is None else stored_text(values[name], plain=name in _NAMES)
        for name in COLUMNS
    ]


def _without_token(repository: Any) -> str | None:
    """A folder or a clone URL, which may carry a token."""
    return re.sub(r"//[^/@]*@", "//", str(repository or "")) or None


def stored_text(value: Any, *, plain: bool = False) -> str:
    """Text as SQLite takes it, with keys cut out unless it is `plain` (an id, a status).

    JSON can spell half of a surrogate pair, UTF-8 cannot.
    """
    text = str(value).encode(errors="backslashreplace").decode()
    return text if plain else redact_keys(text)


def stored_answer(task: Mapping[str, Any], *, whole: bool) -> str | None:
    """What an intent keeps of the answer to its create, as JSON; None for nothing.

    Without `whole`, only what names the task: titles are made from prompts, and answers quote
    them.
    """
    kept = {}
    for name, value in task.items():
        if name in _NAMES:
            kept[name] = value
        elif whole and name not in ("prompts", "finalResult"):
            kept[name] = json.loads(redact_keys(json.dumps(value)))
    return json.dumps(kept) if kept else None


@lru_cache(maxsize=512)
def digest_of(prompt: str) -> str:
    """What stands for a prompt where its text must not be kept (SHA-256, hexadecimal).

    Line ends and blanks around the text do not count: servers change them.
    """
    import hashlib  # not at the top: TAB reads the history, which uses this module

    plain = prompt.replace("\r\n", "\n").replace("\r", "\n").strip()
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def beginning_of(prompt: str) -> str:
    """What is kept of the text of a prompt while its result is not known, in its plain form.

    Of one that is longer than PROMPT_LENGTH, a second line identifies the rest.
    """
    plain = plain_form(prompt)
    rest = "\n" + digest_of(plain) if len(plain) > PROMPT_LENGTH else ""
    return redact_keys(plain[:PROMPT_LENGTH]) + rest


def plain_form(prompt: str) -> str:
    """A prompt without what servers change: blanks, line ends, HTML escapes, forms of letters."""
    if "&" in prompt:
        import html  # its table of entities is large

        prompt = html.unescape(prompt)
    if not prompt.isascii():
        import unicodedata

        prompt = unicodedata.normalize("NFKC", prompt)
    return " ".join(prompt.split())


def body_digest_of(body: Mapping[str, Any]) -> str:
    """What identifies a whole body. Files are only counted: each upload gives them new names."""
    import hashlib

    files = body.get("files")
    plain = {**body, "files": len(files)} if isinstance(files, list) else dict(body)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
