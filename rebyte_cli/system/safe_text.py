"""Text from elsewhere without the characters that hide or reorder what is read.

The API, a file name or an agent can send control sequences that move a cursor, change the
clipboard, or show text in another order. `clean` turns them into visible escapes.
"""

from __future__ import annotations

from collections.abc import Callable

# C0 except tab and newline, DEL, C1, characters that reorder text or show as nothing (Unicode's
# Default_Ignorable_Code_Point: soft hyphen, zero width space, bidi, fillers, invisible operators,
# tags and selectors that can carry text), annotations, and lone surrogates (no encoding takes
# them). What people write with stays: joiners and directional marks (U+200C to U+200F: Persian,
# Hindi, Hebrew, emoji), and selectors of Mongolian (U+180B to U+180F), emoji and CJK (to U+FE0F).
_UNSAFE = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Those that Python counts as printable, and from the last one on all others.
_PRINTABLE = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
_FIRST_SELECTOR = "\U000e0100"
_FEW = 64  # up to so many different characters are replaced one by one, which is fastest


def replace_unsafe(text: str, escape: Callable[[int], str]) -> str:
    """`text` with `escape(code point)` in place of each character that must not be printed.

    Linear in the length of the text, however many there are.
    """
    if is_plain(text) or is_plain(text.replace("\n", "")):  # true of nearly all text
        return text
    import re

    found = set(re.findall(_UNSAFE, text))
    if len(found) > _FEW:
        return re.sub(_UNSAFE, lambda match: escape(ord(match[0])), text)
    for character in found:
        text = text.replace(character, escape(ord(character)))
    return text


def is_plain(text: str) -> bool:
    """Whether `text` is one line in which every character shows; `clean` returns it as it is."""
    return text.isprintable() and (
        text.isascii()
        or (max(text) < _FIRST_SELECTOR and not any(map(text.__contains__, _PRINTABLE)))
    )


def _visible(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str) -> str:
    r"""`text` with each dangerous character as a visible escape (`\x1b`, `\u202e`).

    Tabs, newlines and all other text stay as they are, so cleaning is idempotent.
    """
    return replace_unsafe(text, _visible)


def one_line(text: str) -> str:
    """Like `clean`, for text that must stay on one line: tabs and newlines become spaces."""
    if is_plain(text):
        return text
    return clean(text.replace("\r\n", " ").replace("\n", " ").replace("\t", " "))


def without_sequences(text: str) -> str:
    """The text without sequences for a terminal, such as colours (ECMA-48)."""
    import re

    return re.sub(
        r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])", "", text
    )
