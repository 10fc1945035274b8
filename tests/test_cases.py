"""An index of the ways in which this command is known to be attacked, and its proof.

Each case has at least one test whose name (or whose parameter's id) holds `case_N`; the number is
all that the two have in common, so a test may move or be renamed around it.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

CASES = {
    1: "no D-Bus and no variable: the ways out are named",
    2: "a locked keyring is told within five seconds",
    3: "a keyring daemon that stopped does not hang the command",
    4: "the variable spares a hung keyring",
    5: "the null backend is refused",
    6: "a plaintext backend is refused",
    7: "nonsense in PYTHON_KEYRING_BACKEND is one line",
    8: "log in, use, log out: nothing is left in a real keyring",
    9: "logging out with nothing stored",
    10: "the daemon dies between two calls",
    11: "two profiles and their keys never mix; a moved base URL gets no key",
    12: "a newline or CR behind a key is trimmed",
    13: "a key that cannot be a header is refused and not repeated",
    14: "no command line holds the key during a login",
    15: "nothing secret in --debug, errors and tracebacks",
    16: "a redirect to another host is refused",
    17: "a redirect from https to http is refused",
    18: "a create answered by a redirect is an error, and no GET follows",
    19: "a planted .netrc adds nothing",
    20: "http off loopback is refused",
    21: "user info in a base URL is refused",
    22: "a signed PUT goes without the key",
    23: "an untrusted certificate and an unreadable CA file are told apart",
    24: "HTML, broken JSON and a list for an object are one short line",
    25: "depth, huge numbers and lone surrogates end in no traceback",
    26: "a compression bomb is capped",
    27: "a slow drip does not pass the deadline",
    28: "a stall in a body times out",
    29: "a truncated download leaves no file",
    30: "a download whose gzip is cut leaves no file",
    31: "Retry-After is capped, and nonsense counts as none",
    32: "503, 503, 200 is a success",
    33: "refused and unknown hosts are tried a few times only",
    34: "a create reset after its body is one POST",
    35: "a create that timed out is found and not sent again",
    36: "two tasks it could be: both are named",
    37: "a gateway that gave up on a create",
    38: "killed between the POST and its answer, then again: one task",
    39: "a follow-up whose answer was lost is not repeated",
    40: "event streams, however they are cut, repeated or renumbered",
    41: "names of files that would leave their folder",
    42: "uploads of nothing and of much",
    43: "every field in every format with hostile text",
    44: "a million brackets take under a second",
    45: "a reader that goes away, a disk that is full",
    46: "Ctrl-C and SIGTERM in a wait",
    47: "two writers of one configuration lose nothing",
    48: "modes and links of the configuration survive a write",
    49: "hostile words in a completion stay words",
    50: "kill -9 of a batch at any moment: each line exactly once",
    51: "artifacts with names that tools run by their place",
    52: "a folder swapped for a link during a download",
    53: "a packed download is not unpacked without limit",
    54: "REBYTE_API_KEY does not follow the base URL of a profile",
    55: "web pages against the local service and webhook listen",
    56: "two quick signals to a server",
    57: "a writer stuck in the history is waited for once",
    58: "SIGTERM ends a create that waits for the history",
    59: "odd rows in the history",
    60: "folders are private whatever the umask is",
    61: "files that other users can change are refused",
    62: "a configuration without end is not read",
    63: "keep-alives hide neither that nothing comes nor a time limit",
    64: "a remote API steers to loopback or into a private network",
    65: "secrets are hidden in linear time, however their URL is written",
    66: "a state folder of the local service that is damaged, full, newer or open to others",
    67: "the history keeps no key, wherever it stands",
    68: "a key_command ends with its children",
    69: "a prompt for a password that is cut short leaves the echo on",
    70: "nothing prompts without input",
    71: "runs without an end take bounded memory and time",
    72: "ids are opaque",
    73: "steering words are read in linear time",
    74: "characters that show as nothing are escaped",
    75: "input without an end is refused",
    76: "objects with ever new keys are shown in linear time",
    77: "a report links nothing that open would refuse",
    78: "a clock of this machine that is wrong and is put right",
    79: "a list that is wrong once, and a 500 whose task shows late",
    80: "a list that contradicts the notes proves nothing",
    81: "a prompt that the server changed may be ours",
    82: "Date and createdAt differ",
    83: "other shards, other journals and links of one file at once",
    84: "the recipes for schedulers as they stand",
    85: "a run whose supervisor was killed leaves no process, git's helpers included",
    86: "a cancel leaves no process",
    87: "a process that got the number of an earlier one is left alone",
}
_CASE = re.compile(r"case_(\d+)(?!\d)")


def names_of_tests(source: str) -> set[str]:
    """Names of test functions and the ids of their parameters, with nothing imported."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.add(node.name)
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            found |= {str(node.value.value)} if node.arg == "id" else set()
    return found


@functools.cache
def covered() -> dict[int, list[str]]:
    cases = defaultdict(list)
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for name in names_of_tests(path.read_text(encoding="utf-8")):
            for number in _CASE.findall(name):
                cases[int(number)].append(f"{path.name}::{name}")
    return cases


@pytest.mark.parametrize("number", CASES, ids=[f"{n}: {title}" for n, title in CASES.items()])
def test_each_case_has_a_test(number: int) -> None:
    assert covered()[number], f"no test is named case_{number}: {CASES[number]}"


def test_no_test_names_a_case_that_there_is_not() -> None:
    assert set(covered()) == set(CASES) == set(range(1, len(CASES) + 1))


def test_names_are_found_in_functions_and_in_ids() -> None:
    source = (
        "class TestThem:\n"
        "    @mark([param(1, id='case_5_null')])\n"
        "    def test_case_29_case_30_cut(self): 'case_7'\n"
        "def helper_case_9(): ...\n"
    )
    assert names_of_tests(source) == {"test_case_29_case_30_cut", "case_5_null"}
