"""Keys cut out of text that is kept or shown."""

from __future__ import annotations

import re
from functools import cache

# Prefixes that announce a secret, as their issuers document them: Rebyte (rbk_, and sbx_ for a
# sandbox), OpenAI and Anthropic (sk-), Stripe (sk_, pk_, rk_), GitHub, GitLab, Slack, Hugging
# Face, npm, PyPI, AWS (AKIA, ASIA) and Google (AIza). Upper case too: people shout in titles.
_KEY = (
    r"(?<![A-Za-z0-9])(?:"
    r"(rbk_)[\w-]+"
    r"|(gh[oprsu]_|github_pat_|glpat-|xox[a-z]-|sbx_)[\w-]{4,}"
    r"|([prs]k[-_]|hf_|npm_|pypi-)[\w-]{8,}"
    r"|(AKIA|ASIA)[A-Z0-9]{12,}"
    r"|(AIza)[\w-]{20,}"
    r")"
)


def redact_keys(text: str) -> str:
    """The text with everything that looks like a key cut down to its prefix: `rbk_…`."""
    return _pattern().sub(_cut, text)


@cache
def _pattern() -> re.Pattern[str]:
    # Not at the import, which most commands do without. `re` would search its own cache each time.
    return re.compile(_KEY, re.IGNORECASE)


def _cut(found: re.Match[str]) -> str:
    return f"{found[found.lastindex or 0]}…"
