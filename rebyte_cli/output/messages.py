"""Notes, errors and requests on stderr."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import Interrupted, OutcomeUnknown, ReaderGone, RebyteError
from .console import Console, clean, one_line, spells_unicode

_RED, _BOLD, _RESET = "\x1b[1;31m", "\x1b[1m", "\x1b[0m"


def note(console: Console, text: str, *, always: bool = False) -> None:
    """Print a line for people, unless `--quiet` was given and it need not be seen `always`."""
    if always or not console.quiet:
        console.write_err(_fitted(console, clean(text)) + "\n")


def show_error(
    console: Console, error: RebyteError | Interrupted, *, as_json: bool = False
) -> None:
    """Print an error: one JSON object on one line, or `Error:` and `Hint:` lines.

    What is buffered for stdout goes out first, so that both read in order on one terminal.
    Prints nothing when stdout's reader went away.
    """
    if isinstance(error, ReaderGone):
        return
    from ..system.redaction import redact_keys  # compiles a pattern, which notes do without

    console.flush_out()
    message, hint = redact_keys(error.sentence), error.hint and redact_keys(error.hint)
    if as_json:
        from .formats import encode

        document = error.as_dict()
        document["error"].update(message=message, hint=hint)
        console.write_err(encode(document, ascii_only=not spells_unicode(console.err)) + "\n")
        return
    text = _labelled(console, "Error: ", message, _RED)
    if isinstance(error, OutcomeUnknown):
        for candidate in error.candidates:
            words = [candidate.get(key) for key in ("id", "createdAt", "url")]
            text += "       " + "  ".join(one_line(str(word)) for word in words if word) + "\n"
    if hint:
        text += _labelled(console, "Hint: ", hint, _BOLD)
    console.write_err(text)


def _labelled(console: Console, label: str, text: str, color: str) -> str:
    """The text after its label, further lines aligned under the first."""
    first, *rest = _fitted(console, clean(text).rstrip("\n"), len(label)).split("\n")
    word = label.rstrip()
    shown = f"{color}{word}{_RESET} " if console.err_color else label
    lines = [shown + first, *((" " * len(label) + line).rstrip() for line in rest)]
    return "\n".join(lines) + "\n"


def _fitted(console: Console, text: str, less: int = 0) -> str:
    """The text with its lines wrapped to the terminal, if there is one, `less` columns narrower."""
    if not console.err_tty:
        return text
    from .table import wrap_lines

    columns, _ = console.size()
    return wrap_lines(text, max(columns - less, 1))


def early_format(argv: Sequence[str]) -> str | None:
    """The value of `-o`, as far as it can be read before Click parses the command line."""
    for at, word in enumerate(argv):
        if word in ("-o", "--output") and at + 1 < len(argv):
            return argv[at + 1]
        if word.startswith("--output="):
            return word.partition("=")[2]
        if word.startswith("-o") and not word.startswith("--") and len(word) > 2:
            return word[2:]
    return None


def call_logger(console: Console, *, debug: bool) -> Callable[[Any], None]:
    """A function that prints an `api.log.CallLog`: a line, with `debug` also headers and bodies.

    The transport has redacted the secrets.
    """

    def log(call: Any) -> None:
        if not console.quiet:
            console.write_err(_line(call) + (_details(call) if debug else ""))

    return log


def _line(call: Any) -> str:
    """Method, path, status, time and retry: `GET /tasks?limit=50 200 132ms retry 1`."""
    outcome = str(call.status) if call.status is not None else "-"
    words = [call.method, call.path, outcome, f"{call.seconds * 1000:.0f}ms"]
    if call.retry:
        words.append(f"retry {call.retry}")
    if call.error:
        words.append(call.error)
    return one_line(" ".join(words)) + "\n"


def _details(call: Any) -> str:
    text = _said("> ", call.request_headers, call.request_body)
    text += _said("< ", call.response_headers, call.response_body)
    return text + (f"$ {clean(call.curl)}\n" if call.curl else "")


def _said(mark: str, headers: Mapping[str, str], body: str | None) -> str:
    lines = [one_line(f"{name}: {value}") for name, value in headers.items()]
    if body:
        lines += ["", *clean(body).rstrip("\n").split("\n")]
    return "".join((mark + line).rstrip() + "\n" for line in lines)
