"""Whether a prompt that the API shows is the one that was sent, although a server may change it.

Servers normalise Unicode, fold blanks, escape HTML, drop control characters, mask secrets, cut
long prompts short, or add to them. So a prompt that is not exactly ours proves nothing unless it
differs beyond all that.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

SHORTEST_CUT = 20  # characters; a shorter beginning of a prompt proves nothing
ALIKE = 0.7  # the share of common character triples from which two texts may be one
EXCERPT = 4_000  # characters compared from each end: prompts may have 100,000
MOST_WORDS = 2_000  # compared one by one, which costs the product of their numbers

# What stands in place of a masked secret, or for the rest of a prompt that was cut short.
_MASK = re.compile(
    r"\*{2,}|…|\.{3,}|█+|[•●]{2,}|\b[xX]{3,}\b|\[[^\[\]\n]{1,60}\]|<[^<>\n]{1,60}>|\{[^{}\n]{1,60}\}"
    r"|(?i:redacted|masked|filtered|hidden|removed|censored|secret)"
)
_TAG = re.compile(r"<[^<>]*>")


@lru_cache(maxsize=512)
def digest_of(prompt: str) -> str:
    """What stands for a prompt where its text must not be kept (SHA-256, hexadecimal).

    Line ends and blanks around the text do not count: servers change them.
    """
    return hashlib.sha256(_plain(prompt).encode("utf-8", "surrogatepass")).hexdigest()


def is_prompt(
    shown: str | None, digest: str, prompt: str | None, *, is_known: bool = False
) -> bool | None:
    """Whether `shown` is the prompt with this digest; None if that cannot be told.

    `prompt` is its text, where this process has it: without the text nothing but an equal prompt
    can be told. `is_known` says that `shown` is exactly what another request asked for.
    """
    if shown is None:
        return None
    if digest_of(shown) == digest:
        return True
    if prompt is None:
        return None
    theirs, ours = _letters(shown), _letters(prompt)
    if theirs == ours or not theirs or not ours:
        return None
    if is_known:
        return False
    return None if _may_be_changed(shown, theirs, prompt, ours) else False


def _may_be_changed(shown: str, theirs: str, prompt: str, ours: str) -> bool:
    """Whether a server may have made `shown` out of `prompt`; the others are their letters."""
    is_long = len(shown.strip(" .…")) >= SHORTEST_CUT
    if ours in theirs or (is_long and theirs in ours):
        return True
    if _is_masked(shown, ours) or theirs == _letters(_TAG.sub("", prompt)):
        return True
    plain = _ascii_letters(shown)  # what a wrong encoding leaves alone
    if len(plain) >= SHORTEST_CUT // 2 and plain == _ascii_letters(prompt):
        return True
    return _share(theirs, ours) >= ALIKE and _has_only_masked_words(shown, prompt)


def _is_masked(shown: str, ours: str) -> bool:
    """Whether what stands around the masks in `shown` is in `ours`, in this order."""
    pieces = [_letters(piece) for piece in _MASK.split(shown)]
    if not any(pieces):  # masked as a whole
        return True
    if len(pieces) < 2 or sum(map(len, pieces)) < SHORTEST_CUT // 2:
        return False
    at = 0
    for piece in pieces:
        at = ours.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def _has_only_masked_words(shown: str, prompt: str) -> bool:
    """Whether each word that `shown` has in place of another stands for something like a key.

    "Review PR 13" is not "Review PR 12", however alike they are.
    """
    from difflib import SequenceMatcher

    theirs, ours = _words(shown), _words(prompt)
    if len(theirs) + len(ours) > MOST_WORDS:
        return True
    changes = SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    return all(
        any(_is_like_a_key(word) for word in ours[start:end])
        for change, start, end, _, _ in changes
        if change == "replace"
    )


def _is_like_a_key(word: str) -> bool:
    return len(word) >= 12 and not word.isalpha() and not word.isdigit()


def _share(one: str, other: str) -> float:
    """The share of the shorter text's character triples that are in the longer one, too."""
    a, b = _triples(one), _triples(other)
    fewer = min(len(a), len(b))
    # A short prompt has most of its triples in any long one.
    if fewer == 0 or fewer * 4 < max(len(a), len(b)):
        return 0.0
    return len(a & b) / fewer


@lru_cache(maxsize=512)
def _triples(text: str) -> frozenset[str]:
    if len(text) > 2 * EXCERPT:
        text = text[:EXCERPT] + text[-EXCERPT:]
    return frozenset(text[at : at + 3] for at in range(len(text) - 2))


@lru_cache(maxsize=512)
def _letters(prompt: str) -> str:
    """The letters and digits of a prompt, which normalising, folding and escaping leave alone."""
    from html import unescape
    from unicodedata import normalize

    text = unescape(unescape(prompt))
    return "".join(filter(str.isalnum, normalize("NFKD", text).casefold()))


def _ascii_letters(prompt: str) -> str:
    from html import unescape

    return re.sub(r"[^a-z0-9]+", "", unescape(unescape(prompt)).lower())


def _words(prompt: str) -> list[str]:
    return list(filter(None, map(_letters, prompt.split())))


def _plain(prompt: str) -> str:
    return prompt.replace("\r\n", "\n").replace("\r", "\n").strip()
