"""Other times for searches than the command's 20 seconds: values, passed to it through its App."""

from __future__ import annotations

from rebyte_cli.once.search import Pace
from tests.conftest import COMMAND

_SCRIPT = """
import os, sys
from rebyte_cli.app import App
from rebyte_cli.cli import run
from rebyte_cli.once.search import Pace
app = App(os.environ, sys.argv[1:])
app.pace = {pace!r}
status = run(sys.argv[1:], app)
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


def quick(**times: float) -> Pace:
    """One look says all, unless `times` say otherwise; however busy the machine is."""
    return Pace(**{"look_for": 0.0, "later": 0.05, "shortest_scan": 30.0, **times})


def paced_command(pace: Pace, before: str = "") -> list[str]:
    """The words that begin the command with this pace in another process, after a script."""
    return [COMMAND[0], "-c", before + _SCRIPT.format(pace=pace)]
