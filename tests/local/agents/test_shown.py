"""What of the system a jail shows: nothing that is secret, even if root runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sandbox import jail

from .bench import Bench

# Another system, as far as the jail looks at it: /etc and /opt of a mount namespace.
SYSTEM = """
set -e
mount -t tmpfs none /etc
mount -t tmpfs none /opt
umask 077
for folder in ssl/private ssl/nginx pki/tls/private pki/CA/private pki/entitlement pki/consumer; do
    mkdir -p /etc/$folder
    echo "the secret" > /etc/$folder/key.pem
done
mkdir -p /opt/agent/bin /opt/agent/lib /opt/other /etc/ssl/certs /etc/pki/tls/certs
echo certificate > /etc/pki/tls/certs/ca.pem
ln -s ../../pki/tls/certs/ca.pem /etc/ssl/certs/ca.pem
echo openssl > /etc/ssl/openssl.cnf
echo "the secret" > /opt/other/secret.env
echo 'find /etc/ssl /etc/pki /opt -type f; cat /etc/ssl/certs/ca.pem' > /opt/agent/lib/part
printf '#!/bin/sh\\n. /opt/agent/lib/part\\n' > /opt/agent/bin/agent
chmod +x /opt/agent/bin/agent
exec "$@"
"""
RUN = """
import subprocess, sys
from pathlib import Path
from rebyte_cli.local.agents.adapters import programs
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
adapter = ProgramAdapter(command=("/opt/agent/bin/agent",), label="x")
program = programs.find(adapter, {"PATH": jail.SYSTEM_PATH})
place = jail.layout_of(Path(sys.argv[1]), jailed=True)
line = jail.command(place, program.command, needs=program.needs)
sys.exit(subprocess.run(line, env=jail.environment(place, {})).returncode)
"""


def test_of_etc_and_opt_it_shows_no_keys_and_no_other_program(bench: Bench, tmp_path: Path) -> None:
    unshare = [shutil.which("unshare") or "", "--map-root-user", "--mount"]
    mount = [*unshare, "mount", "-t", "tmpfs", "none", "/opt"]
    if not unshare[0] or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no mount namespace with root in it")
    (tmp_path / "code").mkdir()
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [*unshare, "sh", "-c", SYSTEM, "sh", sys.executable, "-c", RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "/etc/pki/tls/certs/ca.pem", "/etc/ssl/openssl.cnf", "/opt/agent/bin/agent",
        "/opt/agent/lib/part", "certificate",
    ]  # fmt: skip


@pytest.mark.slow
def test_of_proc_it_shows_neither_kernel_memory_nor_names_of_keys(bench: Bench) -> None:
    """Root may read them outside; a user, some of them."""
    lines = f"cd /proc; for file in {' '.join(jail.SECRET)}; do head -c 1 $file && echo $file; done"
    assert bench.run(["sh", "-c", f"({lines}) 2>/dev/null; true"]).answer in ("", None)
    assert any(os.path.exists(f"/proc/{name}") for name in jail.SECRET)
