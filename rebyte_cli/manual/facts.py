"""Facts that several pages tell: exit statuses, variables, when the pages were last revised."""

from __future__ import annotations

REVISED = "2026-11-24"

STATUSES = {
    0: "done; for what waits: every task completed",
    1: "the API refused, or anything that is not listed here",
    2: "usage: an unknown option, a missing argument, a value that cannot be used",
    3: "no key, key rejected, scope missing, keyring locked or absent",
    4: "no such task, workspace, profile or file",
    5: "network: not reached, timed out, a broken answer or 5xx after all tries, a redirect",
    6: "outcome unknown: what was sent may have been done, but no answer came back",
    10: "waited for: a task failed",
    11: "waited for: a task was canceled",
    124: "waited for: the time limit passed",
    130: "interrupted by SIGINT",
    141: "the reader of stdout went away",
    143: "ended by SIGTERM",
}
EVERY_COMMAND = (0, 1, 2, 130, 141, 143)  # may end any command

VARIABLES = {
    "REBYTE_API_KEY": "The key. The keyring is then not even opened.",
    "REBYTE_PROFILE": "The profile to use, as with `-P`.",
    "REBYTE_API_URL": "The base URL, `/v1` included. A profile that was named beats it.",
    "REBYTE_OUTPUT": "The output format, as with `-o`.",
    "REBYTE_REQUEST_TIMEOUT": "The deadline of one call in seconds, retries included: 60, and 600 "
    "for create and follow-up, which answer when the VM is up. For bodies of files and for event "
    "streams it is how long they may be silent.",
    "REBYTE_CONFIG_DIR": "The folder of `config.toml`.",
    "REBYTE_STATE_DIR": "The folder of the history and of the local service.",
    "NO_COLOR": "No colour, when set to anything.",
    "FORCE_COLOR": "Colour off a terminal too.",
    "HTTPS_PROXY": "A proxy for requests; `NO_PROXY` names the hosts that need none.",
    "REQUESTS_CA_BUNDLE": "A file of certificates to trust; `SSL_CERT_FILE` does the same.",
}
