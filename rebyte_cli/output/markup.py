"""Markdown and JSON in colour, for a terminal. rich draws both, and is imported when it does.

Text from the API is cleaned before rich wraps it. What Markdown could hide (raw HTML, images, the
address of a link) is shown as it was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

from .console import Console, clean

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType

MOST_COLUMNS = 100  # longer lines of prose are hard to read
# Characters that are rendered at most. The worst text, a table of thousands of columns, takes three
# seconds.
LONGEST_MARKDOWN = 50_000
# ... and those of code in a text. Several lexers take the square of it, make and Java the longest:
# 1.3 seconds for so many.
MOST_HIGHLIGHTED = 8_000
MOST_MARKDOWN = 500_000  # ... and of all the texts that one command prints
LONGEST_JSON = 200_000
DEEPEST = 20  # levels of nesting; the parser drops what is deeper without a word
_SGR = r"\x1b\[[0-9;]*m"
# Only these are highlighted: the text names the lexer, and others may be slower on hostile input.
_LEXERS = (
    "bash c c++ console cpp css diff docker dockerfile go html java javascript js json jsx kotlin"
    " lua make makefile php py python rb ruby rust rs sh shell sql swift toml ts tsx typescript xml"
    " yaml yml zsh"
)


class Rendered(str):
    """Text that is printed as it is: it was cleaned and styled for this terminal."""

    __slots__ = ()


def speech(console: Console) -> Callable[[str], str]:
    """What prepares text in Markdown for stdout: rendered on a terminal that shows styles, as it
    came anywhere else. A text that is too long, nested too deeply, or too wide to be shown in full
    stays as it came.
    """
    if not console.out_tty:
        return str
    if not (console.styled and console.unicode):
        return _as_it_came
    left = MOST_MARKDOWN
    rich = cache(partial(_rich_console, console))  # made for the first text

    def render(text: str) -> str:
        nonlocal left
        left -= len(text)
        if len(text) > LONGEST_MARKDOWN or left < 0:
            return _as_it_came(text)
        columns, _ = console.size(on_out=True)
        import re

        try:
            document = _markdown(text)
            drawn = _drawn(rich(), document, min(columns, MOST_COLUMNS))
        except RecursionError:
            return _as_it_came(text)
        is_whole = _words(document.parsed) <= _count(re.sub(_SGR, "", drawn))
        return Rendered(drawn) if is_whole else _as_it_came(text)

    return render


def _words(tokens: Sequence[Any]) -> Counter[str]:
    """How often each letter and digit is in what the tokens say."""
    found: Counter[str] = Counter()
    for token in tokens:
        found += _words(token.children) if token.children else _count(token.content)
    return found


def _count(text: str) -> Counter[str]:
    return Counter(filter(str.isalnum, text))


def _as_it_came(text: str) -> str:
    return Rendered(clean(text.replace("\r\n", "\n")))


def json_highlighter(console: Console) -> Callable[[str], str]:
    """What prepares JSON for stdout: in colour on a terminal that has some, as it is elsewhere.

    Takes a document in pieces that end between two values, and stops after `LONGEST_JSON`
    characters, since each takes some microseconds.
    """
    if not (console.styled and console.out_color and console.unicode):
        return str
    left = LONGEST_JSON
    rich = cache(partial(_rich_console, console))  # made for the first text

    def highlight(piece: str) -> str:
        nonlocal left
        left -= len(piece)
        if left < 0:
            return piece
        from rich.highlighter import JSONHighlighter
        from rich.text import Text

        text = Text(piece, end="")
        JSONHighlighter().highlight(text)
        with rich().capture() as capture:
            rich().print(text, soft_wrap=True, end="")
        return capture.get()

    return highlight


def _rich_console(console: Console) -> RichConsole:
    from rich.console import Console as RichConsole
    from rich.theme import Theme

    code = "cyan" if console.out_color else "bold"
    return RichConsole(
        file=console.out,
        force_terminal=True,
        color_system="standard",
        no_color=not console.out_color,
        markup=False,
        emoji=False,
        highlight=False,
        theme=Theme(
            {"markdown.code": code, "markdown.h1": "bold underline", "markdown.h2": "bold"}
        ),
    )


def _drawn(rich: RichConsole, renderable: RenderableType, columns: int) -> str:
    """The lines of a renderable, without blanks at their ends."""
    from rich.segment import Segment, Segments

    lines = rich.render_lines(renderable, rich.options.update(width=columns), pad=False)
    drawn: list[Segment] = []
    for line in lines:
        while (
            line and not line[-1].text.strip() and not (line[-1].style and line[-1].style.bgcolor)
        ):
            line.pop()
        if line:
            last = line.pop()
            line.append(Segment(last.text.rstrip(), last.style))
        drawn += [*line, Segment.line()]
    with rich.capture() as capture:
        rich.print(Segments(drawn), end="", soft_wrap=True)
    return capture.get().rstrip("\n") + "\n"


def _markdown(text: str) -> Any:
    """The text as a `rich.markdown.Markdown`, whose `parsed` are the tokens that it draws."""
    from markdown_it import MarkdownIt
    from rich import markdown
    from rich.console import ConsoleOptions, RenderResult
    from rich.padding import Padding
    from rich.syntax import Syntax

    class Heading(markdown.Heading):
        """A heading at the left, in bold."""

        def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
            heading = self.text.copy()
            heading.justify = "left"
            heading.stylize("bold")
            yield heading

    class CodeBlock(markdown.CodeBlock):
        """Code, indented, in the colours of the terminal."""

        def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
            lexer = self.lexer_name if self.lexer_name.lower() in _LEXERS.split() else "text"
            code = Syntax(
                str(self.text).rstrip(),
                lexer,
                theme="ansi_dark",
                background_color="default",
                word_wrap=True,
            )
            yield Padding(code, (0, 0, 0, 2))

    class Table(markdown.TableElement):
        """A table whose long words are broken: a path that ends with `…` is of no use."""

        def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
            for row in (self.header and self.header.row, *(self.body.rows if self.body else ())):
                for cell in row.cells if row else ():
                    cell.content.overflow = "fold"
            yield from super().__rich_console__(console, options)

    class Markdown(markdown.Markdown):
        """Markdown that shows everything that was written."""

        elements: ClassVar = {
            **markdown.Markdown.elements,
            "heading_open": Heading,
            "fence": CodeBlock,
            "code_block": CodeBlock,
            "table_open": Table,
        }

    drawn = Markdown("", hyperlinks=False)
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": DEEPEST})
    # A definition of a link (`[1]: https://…`) would not be shown at all.
    parser.enable("strikethrough").enable("table").disable("image").disable("reference")
    tokens = parser.parse(text)
    if any(token.level >= DEEPEST - 1 for token in tokens):
        raise RecursionError
    drawn.parsed = _faithful(tokens)
    _highlight_less(drawn.parsed)
    return drawn


def _highlight_less(tokens: Sequence[Any]) -> None:
    """Leave code plain that is more than may be highlighted after what comes before it."""
    left = MOST_HIGHLIGHTED
    for token in tokens:
        if token.type == "fence":
            if len(token.content) > left:
                token.info = ""
            else:
                left -= len(token.content)


def _is_language(info: str) -> bool:
    return all(letter.isalnum() or letter in "+#-_" for letter in info)


def _faithful(tokens: list[Any]) -> list[Any]:
    """The tokens with clean text, line breaks where the text has them, and each address once.

    A fence that says more than its language, such as the file that its code is from, is kept.
    """
    kept = []
    for token in tokens:
        if token.type == "fence" and not _is_language(token.info.strip()):
            content, token.info = f"{token.markup}{token.info}\n{token.content}{token.markup}", ""
            token.content = content
        token.content = clean(token.content)
        if token.type == "softbreak":
            token.type = "hardbreak"
        if token.type == "link_open":
            title = f' "{token.attrs["title"]}"' if "title" in token.attrs else ""
            token.attrs["href"] = clean(f"{token.attrs.get('href', '')}{title}")
        if token.type in ("link_open", "link_close") and token.info == "auto":
            continue
        if token.children:
            token.children = _faithful(token.children)
        kept.append(token)
    return kept
