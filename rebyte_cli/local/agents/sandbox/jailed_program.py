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

from .. import agent_files
from ..adapters.programs import AgentProgram
from . import certificates, jail, user_tools
from .egress import Egress
from .jail_group import JailGroup


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
    needs = [*(program.own if program else ()), *certificates.shown(outside, own)]
    needs += egress.needs if egress else ()
    shown = user_tools.find_shown(
        options, outside, needs, layout.home.outside, own, program.named if program else ()
    )
    line = jail.command(
        layout,
        egress.command(words) if egress else words,
        needs=needs,
        more=[*shown.arguments, *(more or ())],
        network=egress is not None and egress.is_shared,
        **jail_options,
    )
    folders = [*shown.folders, *(program.folders if program else ())]
    environment = jail.environment(layout, outside, folders)
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
    import fcntl

    descriptor = os.memfd_create("prompt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", buffering=0) as file:
        file.write(data)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
