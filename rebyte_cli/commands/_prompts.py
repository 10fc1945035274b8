"""What a user is asked, and where the prompt of a task comes from."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..app import App
from ..errors import BadUsage, Interrupted, RebyteError, lines
from ..output.console import one_line
from ..tasks.prompt import check_prompt, is_empty
from ._options import ParsedText, together
from ._stdin import read_bytes, stdin

if TYPE_CHECKING:
    from ..history.drafts import Draft

# Confirmations and secrets

yes_option = click.option("-y", "--yes", is_flag=True, help="Skip the confirmation.")


def confirm(app: App, question: str, *, yes: bool) -> None:
    """Return if the user agrees, by --yes or at the prompt.

    Raises BadUsage where prompts are not possible; a no ends the command with a note and status 1.
    """
    if yes:
        return
    text = one_line(question)
    if not app.interactive:
        raise BadUsage(f"confirmation required: {text}", hint="Pass --yes to confirm")
    try:
        agreed = click.confirm(text, err=True)
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):
            raise
        agreed = False
        app.console.write_err("\n")
    if not agreed:
        app.note("Nothing was changed")
        raise click.exceptions.Exit(1)


def ask_hidden(text: str) -> str:
    """Prompt for a secret, which is not shown. Raises Interrupted, RebyteError at end of input."""
    try:
        return str(click.prompt(text, hide_input=True, err=True))
    except click.Abort as abort:  # Click has ended the line
        if isinstance(abort.__context__, EOFError):
            raise RebyteError("the input ended before it was answered", code="declined") from None
        raise Interrupted(130) from None


ASK = "ask"


def _secret(text: str) -> str:
    """The value of `--secret`: none, which prompts, or `-`, which reads stdin."""
    if text not in ("-", ASK):
        raise ValueError(
            "other users can see a secret on the command line;"
            " pass --secret alone to be prompted, or --secret - to read stdin"
        )
    return text


secret_option = click.option(
    "--secret",
    "secret",
    type=ParsedText("secret", _secret),
    is_flag=False,
    flag_value=ASK,
    metavar="[-]",
    help="Set a shared secret: prompts for it, or with `-` reads a line from stdin.",
)


def read_secret(app: App, given: str | None, *, longest: int) -> str | None:
    """Return the secret that `--secret` asks for, or None without the option.

    Raises BadUsage for one that is empty, too long, or not fit for a header, without repeating it.
    """
    if given is None:
        return None
    if given == "-":
        secret = stdin().readline(longest + 2).rstrip("\r\n")
    elif app.interactive:
        secret = ask_hidden("Secret")
    else:
        raise BadUsage("cannot prompt for the secret", hint="Read it from stdin with --secret -")
    if not secret:
        raise BadUsage("the secret is empty")
    if len(secret) > longest:
        raise BadUsage(f"the secret has more than {longest} characters")
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise BadUsage(
            "the secret must be visible ASCII with no spaces around it: it is sent in a header"
        )
    return secret


MOST_BYTES = 16 << 20  # far more than 100,000 characters take; input may have no end


prompt_source_options = together(
    click.option("-p", "--prompt", "prompt_option", metavar="TEXT", help="The prompt."),
    click.option(
        "--prompt-file",
        metavar="FILE",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Read the prompt from FILE; `-` is stdin.",
    ),
)
prompt_options = together(
    click.argument("prompt", nargs=-1, metavar="[PROMPT] [-]"), prompt_source_options
)


class PromptSource:
    """The prompt of a task: a text that was given, or one that is still to be written.

    It is written in $EDITOR, or typed into the terminal that is standard input. `text` is None
    until then. Everything else that can be checked is checked before `kept` asks for it.
    """

    def __init__(
        self,
        app: App,
        text: str | None,
        draft: Draft | None = None,
        *,
        typed_after: Sequence[str] | None = None,
    ) -> None:
        """`draft` is the file of `text`, if that is a draft; with None for both, it is written.

        With `typed_after`, it is typed into the terminal, and follows these texts.
        """
        self.text = text
        self._app = app
        self._draft = draft
        self._typed_after = typed_after
        self._initial = ""  # what the editor starts with
        self._leaves_stdin = False  # whether input may come that is not read

    @property
    def is_unwritten(self) -> bool:
        """Whether the user has to be asked for it."""
        return self.text is None

    def edit(self) -> None:
        """Have the user change the text in $EDITOR before it is sent.

        Raises BadUsage where prompts are not possible.
        """
        if not self._app.interactive:
            raise BadUsage("--edit needs a terminal", hint="Pass the prompt with -p TEXT")
        self._initial, self.text, self._typed_after = self.text or "", None, None

    @contextmanager
    def kept(self, command: str) -> Iterator[str]:
        """The text, written now if need be, and kept as a draft until `sent` is called.

        An error or an interrupt inside the block names the draft. Raises BadUsage for an editor
        that failed or saved nothing, and for a prompt that the API would not take.
        """
        if self.text is not None and self._draft is None:
            yield self.text
            return
        draft = self._draft = self._draft or self._new_draft(command)
        try:
            if self.text is None:
                is_typed = self._typed_after is not None
                self.text = self._typed(draft) if is_typed else self._written(draft)
            yield self.text
        except KeyboardInterrupt:
            raise Interrupted(130, hint=self._where()) from None
        except Interrupted as stop:
            raise Interrupted(stop.exit_status, hint=lines(stop.hint, self._where())) from None
        except RebyteError as error:
            raise error.copy_with(hint=lines(error.hint, self._where())) from None
        except Exception:
            self._app.note(self._where() or "")
            raise
        finally:
            draft.close()
        if where := self._where():
            self._app.note(where)

    def sent(self) -> None:
        """Delete the draft: a task with this prompt exists.

        Input that a slow program has written meanwhile is no part of the prompt: warn of it.
        """
        self._check_stdin()
        if self._draft is not None:
            self._draft.discard()

    def leave_stdin(self) -> None:
        """Warn, now or when the prompt has been sent, of piped input that it lacks."""
        self._leaves_stdin = True
        self._check_stdin()

    def _check_stdin(self) -> None:
        if self._leaves_stdin and has_unread_input():
            self._leaves_stdin = False
            self._app.warn("Standard input was not read; add `-` after the prompt to send it too")

    def _new_draft(self, command: str) -> Draft:
        from ..history import drafts

        folder = self._app.drafts_folder
        if left := drafts.unsent(folder):
            more = f" (and {len(left) - 1} more in {folder})" if len(left) > 1 else ""
            self._app.note(
                f"An earlier prompt may not have been sent: {left[0]}{more}; --prompt-file sends it"
            )
        return drafts.new(folder, command, self._initial)

    def _typed(self, draft: Draft) -> str:
        self._app.note("Type the prompt; end it with Ctrl-D on an empty line")
        before = "".join(f"{text}\n\n" for text in self._typed_after or ())
        data = b""
        while len(data) <= MOST_BYTES and (line := stdin().buffer.readline()):
            draft.append(line if data else before.encode() + line)
            data += line
        draft.sync()
        text = _decode(data, "standard input")
        if is_empty(text):
            draft.discard()
            raise BadUsage("the prompt is empty; nothing was sent")
        return check_prompt(before + text)

    def _written(self, draft: Draft) -> str:
        from ..tasks import editor

        before = draft.path.stat()
        try:
            program = editor.find(self._app.environment)
            status = editor.edit(program, draft.path)
        except BadUsage:
            if not before.st_size:
                draft.discard()
            raise
        draft.sync()
        try:
            after = draft.path.stat()
        except OSError:
            draft.discard()
            raise BadUsage("the editor deleted the file of the prompt; nothing was sent") from None
        if status != 0:
            if not after.st_size:
                draft.discard()
            if status in (-signal.SIGINT, 128 + signal.SIGINT):  # Ctrl-C leaves its line open
                self._app.console.write_err("\n")
                raise Interrupted(130)
            if status == 127:
                raise BadUsage(f"cannot start the editor {program!r}", hint="Set EDITOR")
            raise BadUsage(f"the editor exited with status {status}; nothing was sent")
        if (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size):
            # One with a window may have left it open: the file stays for what is saved there.
            option = editor.waiting_option(program)
            if option is not None:
                raise BadUsage(
                    "the editor did not wait for its window to be closed; nothing was sent",
                    hint=f"export EDITOR='{program} {option}'\n"
                    f"What you save in the window goes to {draft.path}",
                )
            if not after.st_size:
                draft.discard()
                raise BadUsage("the editor saved no prompt; nothing was sent")
        data = read_bytes(str(draft.path), limit=MOST_BYTES)
        text = _decode(data, "the prompt from the editor")
        if is_empty(text):
            draft.discard()
            raise BadUsage("the prompt from the editor is empty; nothing was sent")
        return check_prompt(text)

    def _where(self) -> str | None:
        """Where the draft is and how to send it; None if there is nothing in it to send."""
        if self._draft is None or self._draft.is_empty:
            return None
        import shlex

        path = shlex.quote(str(self._draft.path))
        return f"The prompt is kept: repeat the command with --prompt-file {path}"


def read_prompt(
    app: App, arguments: Sequence[str], option: str | None, file: str | None
) -> PromptSource:
    """Return the prompt: from the argument, -p, --prompt-file, or to be written on a terminal.

    Without any of them, it is standard input that is no terminal. `-` among the arguments adds an
    empty line and standard input, or is the prompt alone. Raises
    BadUsage for no prompt or several, an empty or too long one, or invalid UTF-8.
    """
    words = [word for word in arguments if word != "-"]
    if len(words) > 1:
        raise BadUsage(
            f"expected one PROMPT, got {len(words)} arguments",
            hint='Quote it: "Fix the login test"; files to send go after -f',
        )
    given = [source for source in (*words, option, file) if source is not None]
    if len(given) > 1:
        raise BadUsage("pass the prompt once: as an argument, with -p, or with --prompt-file")
    with_stdin = "-" in arguments or file == "-"
    draft = None
    if file is not None and file != "-":
        texts = [_read_file(file)]
        draft = _draft_of(app, file)
    elif given and file is None:
        texts = [given[0]]
    elif with_stdin:
        texts = []
    elif app.interactive:
        return PromptSource(app, None)
    elif sys.stdin is not None and not sys.stdin.isatty():
        texts, with_stdin = [], True
    else:
        raise _no_prompt()
    if with_stdin and stdin().isatty():
        return PromptSource(app, None, typed_after=texts)
    if with_stdin:
        texts.append(_read_file("-"))
        if is_empty(texts[-1]):
            if not texts[:-1]:
                raise _no_prompt("standard input has no text")
            app.note("Standard input has no text; the prompt is sent without it")
            del texts[-1]
    prompt = PromptSource(app, check_prompt("\n\n".join(texts)), draft)
    if not with_stdin:
        prompt.leave_stdin()
    return prompt


def _no_prompt(why: str = "") -> BadUsage:
    return BadUsage(
        f"no prompt: {why}" if why else "no prompt",
        hint="Pass it as an argument, on standard input, with -p TEXT or with --prompt-file FILE",
    )


def _draft_of(app: App, file: str) -> Draft | None:
    if not file.endswith(".md"):
        return None
    from ..history import drafts

    return drafts.opened(app.drafts_folder, file)


def _read_file(file: str) -> str:
    data = read_bytes(file, limit=MOST_BYTES, hint="A prompt has at most 100,000 characters")
    return _decode(data, "standard input" if file == "-" else file)


def has_unread_input() -> bool:
    """Whether standard input is a pipe with something in it."""
    import fcntl
    import termios

    try:
        if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            return False
        return any(fcntl.ioctl(sys.stdin.fileno(), termios.FIONREAD, bytes(4)))
    except (AttributeError, OSError, ValueError):  # closed; not a file
        return False


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadUsage(
            f"{name}: invalid UTF-8 at byte {error.start} (0x{data[error.start]:02x})"
        ) from None
