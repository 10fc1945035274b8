"""Whether a prompt that the API shows is the one that was sent: yes, certainly not, or unknown.

Servers normalise, escape, cut, mask, decode and summarise prompts, in ways that no list covers. So
a prompt that reads otherwise proves nothing by itself: a rewrite that is not known here would pass
for proof that there is no task, and the request would be sent a second time.
"""

from __future__ import annotations

from functools import lru_cache

from ..history.rows import digest_of, folded


def is_prompt(
    shown: str | None, digest: str, prompt: str | None, *, is_unchanged: bool
) -> bool | None:
    """Whether `shown` is the prompt with this digest; None if that cannot be told.

    It certainly is not in one case: the service shows this very prompt unchanged elsewhere
    (`is_unchanged`), and neither text becomes the other when letters are left out. If one does, the
    service may have cut ours or added to it for a reason that the other task lacks, such as a
    repository. `prompt` is our text, where this process has it.
    """
    if shown is None:
        return None
    if digest_of(shown) == digest:
        return True
    if is_unchanged and prompt is not None and not may_be_cut(shown, prompt):
        return False
    return None


def may_be_cut(one: str, other: str) -> bool:
    """Whether the letters of one text are those of the other with some left out.

    Then a service that changes prompts may show the one where the other was asked.
    """
    shorter, longer = sorted((_letters(one), _letters(other)), key=len)
    rest = iter(longer)
    return all(letter in rest for letter in shorter)


@lru_cache(maxsize=512)
def _letters(prompt: str) -> str:
    return "".join(filter(str.isalnum, folded(prompt)))
