"""Hold a local service against requests that Schemathesis makes from the OpenAPI document.

    python -m tests.fuzz_service SCHEMATHESIS SECONDS

Ends with the status of Schemathesis. It prints its seed, and REBYTE_FUZZ_SEED repeats one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rebyte_cli.config.credentials import LOCAL_KEY
from rebyte_cli.local.local_service import Service

HERE = Path(__file__).parent
# Only partners have these, and the service has none of them.
ABSENT = r"^/(accounts|billing/topups|mcp|sandbox)"


def main(program: str, seconds: str) -> int:
    """Start a service in a temporary folder and run Schemathesis against it."""
    seed = os.environ.get("REBYTE_FUZZ_SEED") or str(int.from_bytes(os.urandom(3), "big"))
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder) / "state", simulate=True) as service,
    ):
        command = [
            *(program, "--no-color", "--config-file", str(HERE / "schemathesis.toml")),
            *("run", str(HERE / "rebyte-openapi.yaml"), "--url", service.base_url),
            *("--header", f"API_KEY: {LOCAL_KEY}", "--exclude-path-regex", ABSENT),
            *("--max-time", seconds, "--request-timeout", "30", "--seed", seed),
            *("--continue-on-failure", "--warnings", "off"),
        ]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1]), sys.argv[2]))
