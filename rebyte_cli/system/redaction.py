"""Secrets cut out of text that is kept or shown."""

from __future__ import annotations

import re
from functools import cache

# A character before a word that JSON writes with a letter, such as a line break.
_AFTER_ESCAPE = r"(?<=\\[bfnrt])|(?<=\\u[\dA-Fa-f]{4})"
# Prefixes that announce a secret, as their issuers document them: Rebyte (rbk_, and sbx_ for a
# sandbox), OpenAI and Anthropic (sk-), Stripe (sk_, pk_, rk_), GitHub, GitLab, Slack, Hugging
# Face, npm, PyPI, AWS (AKIA, ASIA) and Google (AIza). Upper case too: people shout in titles.
_KEY = (
    rf"(?:(?<![A-Za-z0-9])|{_AFTER_ESCAPE})(?:"
    r"(rbk_)[\w-]+"
    r"|(gh[oprsu]_|github_pat_|glpat-|xox[a-z]-|sbx_)[\w-]{4,}"
    r"|([prs]k[-_]|hf_|npm_|pypi-)[\w-]{8,}"
    r"|(AKIA|ASIA)[A-Z0-9]{12,}"
    r"|(AIza)[\w-]{20,}"
    r")"
)
# Secrets of other forms, by what is in every one of them.
_FORMS = {
    # A JSON Web Token (RFC 7519), whose header is base64url of `{"`. It begins where a word does,
    # so that no part of a long word is read twice.
    "eyJ": rf"(?:(?<![\w-])|{_AFTER_ESCAPE})(eyJ)[\w-]{{8,}}(?:\.[\w-]*){{2,4}}",
    # A private key (RFC 7468; OpenSSH and PGP have such lines too), in JSON as well. Without its
    # last line, the lines of base64 go.
    "PRIVATE KEY": (
        r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)"
        r"(?:(?:(?!-----)[\s\S])*-----END [A-Z0-9 ]*-----"
        r"|(?:(?:\s|\\[nr])*(?:[A-Za-z0-9+/=]{16,}|(?:Proc-Type|DEK-Info):[^\n\\]*))*)…?"
    ),
    # The password in a URL; JSON may write `/` as `\\/`.
    "@": r"""(:(?://|\\/\\/)[^\s/\\?#:@"'<>]*:)[^\s/\\?#"'<>]+(?=@)""",
}
# Names of variables that hold a secret, such as GH_TOKEN, SSHPASS, MYSQL_PWD, GH_PAT, _AUTH. Not
# those that name a program or a file (SSH_ASKPASS, PGPASSFILE, SSH_AUTH_SOCK), and not folders.
_NAME = (
    r"TOKEN|SECRET|CREDENTIAL|API_?KEY|_KEY$|PASSW|PASSPHRASE|PASSCODE|(?<!ASK)(?<!BY)PASS(?:_|$)"
    r"|(?<!^OLD)(?<!^)PWD$|(?:^|_)PAT(?:_|$)|(?:^|_)AUTH(?:_CONFIG)?$|AUTHORIZATION"
    r"|(?:^|_)COOKIES?$|BEARER"
)


def may_be_secret(name: str, value: str) -> bool:
    """Whether a variable of the environment may hold a secret, by its name or its form.

    The form is not that of a path, or a list of them, such as `/home/me/.npm_packages/bin`.
    """
    if _compiled(_NAME, re.IGNORECASE).search(name):
        return True
    return not value.lstrip(":").startswith("/") and redact_keys(value) != value


def redact_keys(text: str) -> str:
    """The text with everything that looks like a secret cut down to how it begins: `rbk_…`.

    Keys and tokens of services, private keys, and passwords in URLs.
    """
    for part, form in _FORMS.items():
        if part in text:
            text = _compiled(form).sub(_cut, text)
    return _compiled(_KEY, re.IGNORECASE).sub(_cut, text)


@cache
def _compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    # Not at the import, which most commands do without. `re` would search its own cache each time.
    return re.compile(pattern, flags)


def _cut(found: re.Match[str]) -> str:
    return f"{found[found.lastindex or 0]}…"
