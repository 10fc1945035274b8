"""Facts that several pages share: exit statuses, variables, the date of the last revision."""

from __future__ import annotations

REVISED = "2026-11-24"

STATUSES = {
    0: "success; with `--wait`, every task completed",
    1: "the API refused the request, or any other error",
    2: "usage: unknown option, missing argument, invalid value",
    3: "no key, key rejected, scope missing, keyring locked or absent; no usable agent",
    4: "no such task, workspace, profile or file",
    5: "network: unreachable, timed out, 5xx or an unusable response after all retries, a redirect",
    6: "outcome unknown: the request was sent, but no response arrived",
    10: "a task you waited for failed",
    11: "a task you waited for was canceled",
    12: "a task you waited for asks a question, and there is no terminal to answer it on",
    13: "the budget is used up and there was more to do, or a task failed at a usage limit",
    124: "the time limit of a wait passed",
    130: "interrupted by SIGINT",
    141: "the reader of stdout closed the pipe",
    143: "interrupted by SIGTERM",
}
EVERY_COMMAND = (0, 1, 2, 130, 141, 143)  # may end any command

VARIABLES = {
    "REBYTE_API_KEY": "The API key. The keyring is not opened if it is set.",
    "REBYTE_PROFILE": "The profile to use, as with `-P`.",
    "REBYTE_API_URL": "The base URL, including `/v1`. A selected profile takes precedence.",
    "REBYTE_OUTPUT": "The output format, as with `-o`.",
    "REBYTE_REQUEST_TIMEOUT": "The time limit of one call in seconds, retries included. "
    "Default: 60, and 600 for create and follow-up, which wait for the VM. For file bodies and "
    "event streams it limits how long they may be silent.",
    "REBYTE_CONFIG_DIR": "The folder of `config.toml`.",
    "REBYTE_STATE_DIR": "The folder of the history and of the local service.",
    "REBYTE_LOCAL_AGENTS": "`0` simulates every agent of the local service.",
    "REBYTE_LOCAL_QUIET": "`1` leaves out the note `local service` of a shell's first command.",
    "REBYTE_PAGER": "What shows a transcript, patch or answer that is longer than the screen of a "
    "terminal, instead of `PAGER` or less. `cat`, and an empty value, print it at once.",
    "NO_COLOR": "Disable colour, if set to any value; bold text stays.",
    "FORCE_COLOR": "Use colour even if the output is not a terminal.",
    "HTTPS_PROXY": "A proxy for requests; `NO_PROXY` lists the hosts that bypass it.",
    "REQUESTS_CA_BUNDLE": "A file of CA certificates to trust; `SSL_CERT_FILE` does the same.",
}
