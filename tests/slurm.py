"""A Slurm cluster of one node: Debian's own daemons, on loopback, with a key of their own.

They and their clients meet at a socket in /run, which is a folder of the test for them.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path

from tests.conftest import need_tool

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/slurm
CredType=cred/slurm
AuthInfo=keyfile={folder}/slurm.key
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""
PATIENCE = 120
# Of bwrap: it stays between us and the daemon, and takes the daemon's children along.
ENDS_WITH_US = ["--die-with-parent", "--unshare-pid", "--proc", "/proc"]


class SlurmCluster:
    """It starts in about a second and ends with the block.

    with SlurmCluster(folder) as cluster:
        cluster.submit(script).wait()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        run = ["--bind", str(folder / "run"), "/run"]
        self._inside = ["bwrap", "--dev-bind", "/", "/", *run]
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmCluster:
        programs = [need_tool(name) for name in ("slurmctld", "slurmd")]
        need_tool("bwrap")
        for name in ("state", "spool", "run"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "slurm.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        text = CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            ports=[listener.getsockname()[1] for listener in sockets],
            user=getpass.getuser(),
            folder=self.folder,
        )
        for listener in sockets:
            listener.close()
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        with (self.folder / "log").open("ab") as log:
            for program in programs:
                self._daemons.append(
                    subprocess.Popen(
                        [*self._inside, *ENDS_WITH_US, program, "-D"],
                        env=self.environment,
                        stderr=log,
                    )
                )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while self._ask("sinfo", "--noheader", "--format=%T") != "idle":
            assert time.monotonic() < give_up, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _stop(self) -> None:
        for daemon in self._daemons:
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(PATIENCE)

    def submit(self, script: Path, *options: str) -> subprocess.Popen[str]:
        """Submit a script from its folder; the process ends with the job, and like it."""
        return subprocess.Popen(
            [*self._inside, "sbatch", "--wait", *options, str(script)],
            env=self.environment,
            cwd=script.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            [*self._inside, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()
