"""What the history keeps of a prompt instead of its text: a digest, and a shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

_ASCII = "".join(map(chr, range(128)))
MOST_LETTERS = 64  # different ones that are kept of a prompt


@lru_cache(maxsize=512)
def digest_of(prompt: str) -> str:
    """What stands for a prompt where its text must not be kept (SHA-256, hexadecimal).

    Line ends and blanks around the text do not count: servers change them.
    """
    import hashlib  # not at the top: TAB reads the history, which uses this module

    plain = prompt.replace("\r\n", "\n").replace("\r", "\n").strip()
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


class Shape(NamedTuple):
    """What is kept of a prompt to tell whether another one may be shown like it.

    Its length, its characters of other kinds than letters and digits (of which "a" and "0" say
    whether there are any), and its letters and digits, None if they are many.
    """

    length: int
    kinds: frozenset[str]
    letters: frozenset[str] | None

    @property
    def text(self) -> str:
        """The shape as the history keeps it."""
        letters = None if self.letters is None else "".join(sorted(self.letters))
        return json.dumps([self.length, "".join(sorted(self.kinds)), letters])

    @classmethod
    def of_text(cls, text: str | None) -> Shape | None:
        """The shape that `text` stands for; None if it is none."""
        try:
            length, kinds, letters = json.loads(text or "")
            known = None if letters is None else frozenset(letters)
            return cls(int(length), frozenset(kinds), known)
        except (ValueError, TypeError):
            return None

    def may_be_cut(self, other: Shape) -> bool:
        """As `may_be_cut` of the two prompts, as far as their shapes tell."""
        if self.letters is None or other.letters is None:
            return True
        return self.letters <= other.letters or other.letters <= self.letters

    def covers(self, other: Shape) -> bool:
        """Whether a service that shows this prompt as it is has no reason to change the other."""
        return self.length >= other.length and self.kinds >= other.kinds


@lru_cache(maxsize=512)
def shape_of(prompt: str) -> Shape:
    """The shape of a prompt."""
    # Long prompts are looked through by C alone: a batch does this for every line.
    alphabet = _ASCII if prompt.isascii() else set(prompt)
    found = set(folded("".join(each for each in alphabet if each in prompt)))
    letters = frozenset(filter(str.isalnum, found))
    kinds = {"0" if each.isdigit() else "a" for each in letters} | (found - letters)
    return Shape(len(prompt), frozenset(kinds), letters if len(letters) <= MOST_LETTERS else None)


def body_digest_of(body: Mapping[str, Any]) -> str:
    """What identifies a whole body. Files are only counted: each upload gives them new names."""
    import hashlib

    files = body.get("files")
    plain = {**body, "files": len(files)} if isinstance(files, list) else dict(body)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def folded(prompt: str) -> str:
    """The text without case and without compatibility forms, so that letters compare."""
    if prompt.isascii():
        return prompt.casefold()
    from unicodedata import normalize

    return normalize("NFKD", prompt).casefold()
