"""Which requests to a model pass: the few that ask it something, of each wire.

Uploads, files, batches and accounts are ways out of a sandbox, so what is not listed here is
refused. Paths, queries and headers are those of the vendors' documents that Claude Code, Codex,
Gemini CLI and OpenCode use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .gateway_settings import ANTHROPIC, ANY, GEMINI, OPENAI

# One part of a path. No `%`, which the next server might decode, and no `.` or `..`.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._:@+~-]*"
_PLAIN = r"[A-Za-z0-9][A-Za-z0-9._@+~-]*"  # without a method of Gemini's
_MODEL = rf"{_NAME}(?:/{_NAME}){{0,4}}"  # such as accounts/NAME/models/NAME
# What may come before it, unless the base URL has it already.
_VERSION = {
    ANTHROPIC: r"(?:/v1)?",
    OPENAI: r"(?:/openai)?(?:/v1)?",
    GEMINI: r"(?:/v1(?:alpha|beta)?)?",
}
_POST = {
    ANTHROPIC: r"/messages(?:/count_tokens)?",
    OPENAI: (
        r"/(?:responses(?:/compact|/input_tokens)?|chat/completions"
        rf"|deployments/{_NAME}/(?:responses|chat/completions))"  # Azure
    ),
    GEMINI: (
        rf"/(?:models|tunedModels)/{_PLAIN}"
        r":(?:generateContent|streamGenerateContent|countTokens)"
    ),
}
_GET = {
    ANTHROPIC: rf"/models(?:/{_MODEL})?",
    OPENAI: rf"/models(?:/{_MODEL})?",
    GEMINI: rf"/models(?:/{_PLAIN})?",
}
# Of Anthropic, Azure, Codex and Gemini; the rest belongs to lists of models.
_QUERY = {
    "after_id", "alt", "api-version", "before_id", "beta", "client_version", "limit", "pageSize",
    "pageToken",
}  # fmt: skip
_VALUE = re.compile(r"[A-Za-z0-9._~=-]{0,200}")
# How an answer may be written: so that its counts are told apart from the text of the model.
_FORMS = {"json", "sse"}
HEADERS = {
    "accept", "anthropic-beta", "anthropic-dangerous-direct-browser-access", "anthropic-version",
    "chatgpt-account-id", "content-encoding", "content-type", "openai-beta", "originator",
    "session-id", "session_id", "user-agent", "x-app", "x-goog-api-client",
}  # fmt: skip
HEADER_PREFIXES = ("x-stainless-",)
# Whose work it is: no secret, and a word that an answer may need.
BILLED = {"chatgpt-account-id", "openai-organization", "openai-project"}


def is_allowed(wire: str, method: str, path: str) -> bool:
    """Whether a request for `path`, what follows the model's prefix, may go to the model."""
    wires = (ANTHROPIC, OPENAI, GEMINI) if wire == ANY else (wire,)
    lists = {"POST": _POST, "GET": _GET}.get(method)
    return lists is not None and any(
        re.fullmatch(_VERSION[each] + lists[each], path) for each in wires
    )


def model_in(path: str) -> str:
    """The model that the path of an allowed question names; empty if it names none."""
    found = re.search(rf"/(?:models|tunedModels)/({_PLAIN}):|/deployments/({_NAME})/", path)
    return (found[1] or found[2]) if found else ""


def generates(method: str, path: str) -> bool:
    """Whether an allowed request makes a model work, which costs something."""
    return method == "POST" and not path.endswith(
        ("/count_tokens", "/input_tokens", ":countTokens")
    )


def wire_of(wire: str, path: str) -> str:
    """The wire of an allowed request, which for `any` its path tells."""
    wires = (ANTHROPIC, OPENAI, GEMINI) if wire == ANY else (wire,)
    return next((each for each in wires if is_allowed(each, "POST", path)), wires[0])


def clean_query(query: str) -> list[tuple[str, str]]:
    """The parts of a query that a model needs; all others, such as `key=…`, are left out."""
    parts = [part.partition("=")[::2] for part in query.split("&")]
    return [(name, value) for name, value in parts if name in _QUERY and _VALUE.fullmatch(value)]


def is_readable(query: Iterable[tuple[str, str]]) -> bool:
    """Whether the answer to a cleaned query is in a form in which its tokens can be counted."""
    return all(value in _FORMS for name, value in query if name == "alt")


def is_plain(name: str) -> bool:
    """Whether a part of a query is a setting, such as `api-version`, and no secret."""
    return name in _QUERY


def is_passed_on(header: str) -> bool:
    """Whether a header of a request (its name in lower case) reaches the model."""
    return header in HEADERS or header.startswith(HEADER_PREFIXES)
