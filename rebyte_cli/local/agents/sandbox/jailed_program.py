"""A program that is about to start where an agent works: what the jail shows, and what it is told.

Whatever runs there, an agent, a setup, a check or a command of the user, is prepared here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ....system.untrusted import read_file
from .. import agent_files
from ..adapters.programs import AgentProgram
from ..exposed import CERTIFICATE_VARIABLES
from . import jail, seal, user_tools
from .egress import Egress
from .jail_group import JailGroup

MOST_CERTIFICATES = (
    10_000_000  # bytes of one file of certificates; that of the Mozilla authorities has 250,000
)
MOST_FILES = 2000  # in a folder of them


class JailedProgram(NamedTuple):
    """A command line and its environment; `way` is its way to the network, None for none at all."""

    layout: jail.JailLayout
    line: list[str]
    variables: dict[str, str]
    egress: Egress | None = None

    def start(self, **options: Any) -> JailGroup:
        """Start it in the folder of the code. `options` are for JailGroup. Raises OSError.

        An agent may have left its folders with modes that would keep everything out.
        """
        for place in (self.layout.code, self.layout.home):
            os.close(agent_files.open_folder(place.outside))
        return JailGroup(
            self.layout,
            self.line,
            egress=self.egress,
            folder=self.layout.code.outside,
            variables=self.variables,
            **options,
        )


def prepare(
    layout: jail.JailLayout,
    words: list[str],
    egress: Egress | None,
    options: Mapping[str, Any],
    outside: Mapping[str, str],
    *,
    own: Sequence[str],
    variables: Mapping[str, str],
    program: AgentProgram | None = None,
    more: list[str] | None = None,
    **jail_options: Any,
) -> JailedProgram:
    """How to run `words`, with the `tools` and `caches` of a run's options, and `program`.

    `own` are rebyte's own folders, `outside` is the user's environment, and `variables` are set
    besides what the jail lets through. `more` are arguments of bubblewrap, and `jail_options`
    further ones of `jail.command`.
    """
    needs = [*(program.own if program else ()), *certificates(outside, own)]
    needs += egress.needs if egress else ()
    shown = user_tools.find_shown(
        options, outside, needs, layout.home.outside, own, program.named if program else ()
    )
    network = egress is not None and egress.is_shared
    line = jail.command(
        layout,
        egress.command(words) if egress else words,
        needs=needs,
        more=[*shown.arguments, *(more or ())],
        network=network,
        **jail_options,
    )
    folders = [*shown.folders, *(program.folders if program else ())]
    environment = jail.environment(layout, outside, folders, network=network)
    environment |= {**shown.variables, **variables, **(egress.variables if egress else {})}
    return JailedProgram(layout, line, environment, egress)


@contextlib.contextmanager
def prompt_file(prompt: str) -> Iterator[str]:
    """The path of a file with the prompt, while the block runs, that the agent cannot change."""
    data = prompt.encode("utf-8", "surrogatepass")
    if sys.platform != "linux":  # without seals, and without a jail
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    with open(seal.sealed_file("prompt", data), "rb") as file:
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def certificates(outside: Mapping[str, str], own: Sequence[str]) -> list[str]:
    """The paths that the jail shows because a variable such as SSL_CERT_FILE names them.

    A variable is no proof that nothing else is there: its value may be relative, and then a
    repository says what it leads to, or be a folder of much more. So: absolute ones, of
    certificates without private keys, in no place that is private, such as rebyte's `own` folders.
    The rest is left out; a program in the jail does not find it.
    """
    named = dict.fromkeys(outside.get(name, "") for name in CERTIFICATE_VARIABLES)
    return [path for path in named if path.startswith("/") and _may_be_shown(path, own)]


def _may_be_shown(path: str, own: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    if any(f"{real}/".startswith(f"/etc/{name}/") for name in jail.ETC):
        return False  # it is shown anyway
    if user_tools.why_not(path, own):
        return False
    try:
        files = list(_files(real))
    except OSError:
        return False
    return 0 < len(files) <= MOST_FILES and all(map(_holds_certificates, files))


def _files(path: str) -> Iterator[str]:
    """The file, or the files of the folder; a folder in it counts as one, and is none."""
    if not os.path.isdir(path):
        yield path
        return
    with os.scandir(path) as entries:
        for count, entry in enumerate(entries):
            if entry.is_symlink() and not os.path.exists(entry.path):
                continue  # leads nowhere
            yield entry.path
            if count > MOST_FILES:
                return


def _holds_certificates(path: str) -> bool:
    """Whether it is a file of certificates in PEM, and of nothing secret."""
    content = read_file(os.path.realpath(path), MOST_CERTIFICATES) or b""
    return b"CERTIFICATE-----" in content and b"PRIVATE KEY-----" not in content
