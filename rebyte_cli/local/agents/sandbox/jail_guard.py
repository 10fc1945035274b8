"""The guard of a jail, a process that ends it when the rebyte that looks after it has died."""

from __future__ import annotations

import sys
from pathlib import Path

from .jail_group import end_recorded


def main() -> None:
    """End the jail of a RECORD whose supervisor has died, or is just dying. Raises OSError."""
    end_recorded(Path(sys.argv[1]), wait=True)
