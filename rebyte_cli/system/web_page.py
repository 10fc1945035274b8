"""What the pages of the local service and the report of a batch share: text as HTML, and a look.

Everything that is shown was written by others. `h` and `markdown` are the only ways in: neither
lets a tag, a picture or an address other than http and https through.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .safe_text import clean

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

DEEPEST = 20  # levels of nesting; the parser drops what is deeper without a word
LONGEST_MARKDOWN = 100_000  # characters; longer text is shown as it is
ABOVE_MARKDOWN = 3  # the level of the heading above a text in Markdown


def asset(name: str) -> str:
    """A file beside this one: `web_page.css` or `web_page.js`."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def head(title: str, more: str) -> str:
    """The beginning of a page up to its body; `more` are further elements of its head."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{h(title)}</title>{more}</head>\n"
    )


def h(value: object) -> str:
    """A value as text, in an element or in an attribute with quotes."""
    return escape(clean(str(value).replace("\r\n", "\n")), quote=True)


def moment(iso: str) -> str:
    """A moment (ISO 8601, UTC), which the script shows in the time zone of the reader."""
    utc = f"{iso[:10]} {iso[11:19]} UTC"
    return f'<time datetime="{h(iso)}" title="{h(utc)}">{h(utc)}</time>'


def badge(status: str, name: str = "") -> str:
    """The status of a task or a run: a word with a sign, which needs no colour.

    One that has a `name` (an id) is kept up to date.
    """
    attributes = f' id="{h(name)}" data-changes' if name else ""
    return f'<span class="status {h(status)}"{attributes}>{h(status)}</span>'


def folded(summary: str, body: str, attributes: str = "") -> str:
    """A part that opens. `summary`, `body` and `attributes` are HTML."""
    return f"<details{attributes}><summary>{summary}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text as it is, in a box that scrolls."""
    return f'<pre class="box" tabindex="0">{h(text)}</pre>'


def markdown(text: str) -> str:
    """Markdown as HTML, its headings below those of level 3.

    Tags are shown as text, pictures as links, and links lead to http and https only. What the
    parser would not show whole is shown as it is.
    """
    text = clean(text.replace("\r\n", "\n"))
    if len(text) <= LONGEST_MARKDOWN:
        parser = _parser()
        tokens = parser.parse(text)
        if all(token.level < DEEPEST - 1 for token in tokens):
            _fit(tokens)
            return (
                f'<div class="markdown">{parser.renderer.render(tokens, parser.options, {})}</div>'
            )
    return f'<pre class="text">{h(text)}</pre>'


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    options = {"html": False, "breaks": True, "maxNesting": DEEPEST}
    parser = MarkdownIt("commonmark", options)
    # A definition of a link (`[1]: https://…`) would not be shown at all.
    parser.enable(["strikethrough", "table"]).disable("reference")
    parser.validateLink = _is_web  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _link)
    parser.add_render_rule("image", _picture)
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("code_block", _code)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _is_web(url: str) -> bool:
    return url.lower().startswith(("https://", "http://"))


def _link(_renderer: Any, tokens: Sequence[Token], at: int, *_: Any) -> str:
    return f'<a href="{h(tokens[at].attrs.get("href", ""))}" rel="noreferrer">'


def _picture(_renderer: Any, tokens: Sequence[Token], at: int, *_: Any) -> str:
    """A link to a picture, which the page does not load."""
    source = str(tokens[at].attrs.get("src", ""))
    return f'<a href="{h(source)}" rel="noreferrer">{h(tokens[at].content or source)}</a>'


def _code(_renderer: Any, tokens: Sequence[Token], at: int, *_: Any) -> str:
    """A block of code; what its fence says beside the language, such as a file, stays."""
    info = tokens[at].info.strip()
    return (f"<p><code>{h(info)}</code></p>" if " " in info else "") + preformatted(
        tokens[at].content
    )


def _fit(tokens: list[Token]) -> None:
    """Let headings begin one level below what stands above them, and skip none.

    Cells are aligned by a class: a strict policy forbids their style.
    """
    level = ABOVE_MARKDOWN
    for token in tokens:
        if token.type == "heading_open":
            level = min(ABOVE_MARKDOWN + int(token.tag[1]), level + 1, 6)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{level}"
        if style := token.attrs.pop("style", None):
            token.attrs["class"] = str(style).rpartition(":")[2]
