"""The recipes for schedulers, typed as they stand, under the real schedulers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need_tool
from tests.script_blocks import blocks
from tests.slurm import PATIENCE, SlurmCluster
from tests.tools import lack
from tests.waiting import eventually

pytestmark = pytest.mark.slow  # the daemons of Slurm and cron are started

PAGES = Path(__file__).parents[2] / "rebyte_cli" / "manual" / "pages"


def install(folder: Path) -> None:
    """Put the command under test into `folder`."""
    folder.mkdir(parents=True)
    program = folder / "rebyte"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rebyte_cli "$@"\n')
    program.chmod(0o755)


def test_case_84_a_slurm_array(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is submitted again, even twice at once, loses no result and creates nothing."""
    install(home / "bin")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("REBYTE_PROFILE", "local")
    (script,) = (
        block
        for block in blocks((PAGES / "rebyte-shards.7.md").read_text(), "bash")
        if "#SBATCH" in block
    )
    job = home / "job.sh"
    job.write_text(script)
    lines = [json.dumps({"prompt": f"Check page {number}"}) for number in range(8)]
    (home / "tasks.jsonl").write_text("\n".join(lines) + "\n")

    def results() -> dict[str, list[str]]:
        return {
            path.name: sorted(json.loads(line)["id"] for line in path.read_text().splitlines())
            for path in home.glob("results.*.jsonl")
        }

    with SlurmCluster(home / "slurm") as cluster:
        first = cluster.submit(job)
        told = first.communicate(timeout=PATIENCE)[0]
        logs = [path.read_text() for path in home.glob("slurm-*.out")]
        assert first.returncode == 0, (told, logs)
        made = results()
        again = [cluster.submit(job, "--array=3") for _ in range(2)]
        for process in again:
            process.communicate(timeout=PATIENCE)
        assert 0 in [process.returncode for process in again]
    assert sorted(made) == [f"results.{number}.jsonl" for number in range(4)]
    assert len({task for part in made.values() for task in part}) == 8
    assert results() == made


# Cron with a clock that is about to strike: a quarter past two on a Monday.
BEFORE = "@2026-02-09 02:14:58"


def test_case_84_the_line_for_cron_under_cron(home: Path) -> None:
    """In a separate mount namespace, so that the crontabs of this machine stay out of it."""
    if os.geteuid() != 0:
        lack("cron runs as root")
    need_tool("bwrap")
    cron = need_tool("cron")
    install(home / ".local" / "bin")
    (line,) = blocks((PAGES / "rebyte-examples.7.md").read_text(), "crontab")
    tables = home / "spool" / "crontabs"
    tables.mkdir(parents=True)
    table = tables / "root"
    table.write_text(f'HOME={home}\nMAILTO=""\nREBYTE_PROFILE=local\n{line}')
    table.chmod(0o600)
    jail = ["bwrap", "--dev-bind", "/", "/", "--die-with-parent", "--unshare-pid"]
    jail += ["--tmpfs", "/run", "--tmpfs", "/dev/shm"]
    jail += ["--bind", str(home / "spool"), "/var/spool/cron"]
    if os.path.exists("/etc/crontab"):  # the jobs of this machine
        jail += ["--tmpfs", "/etc/cron.d", "--ro-bind", os.devnull, "/etc/crontab"]
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    preload = library or need_tool("faketime")
    clock = ["env", f"LD_PRELOAD={preload}", f"FAKETIME={BEFORE}", "TZ=UTC"]
    with subprocess.Popen([*jail, *clock, cron, "-f"], stdin=subprocess.DEVNULL) as daemon:
        try:
            eventually(lambda: (home / "audits.log").exists() and bool(ids(home)), seconds=PATIENCE)
        finally:
            daemon.kill()
    (created,) = ids(home)
    assert created


def ids(home: Path) -> list[str]:
    return (home / "audits.log").read_text().split()
