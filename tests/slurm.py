"""A Slurm cluster on this machine: Debian's own daemons, on loopback, with a key of their own.

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
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/slurm
CredType=cred/slurm
AuthInfo=keyfile={folder}/slurm.key
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 State=UNKNOWN"
PATIENCE = 120
# It stays between us and the daemon, and takes the daemon's children along.
PIDS = ["--unshare-pid", "--proc", "/proc"]
if os.geteuid() == 0:
    # A job can make sandboxes only where nothing of /proc is covered, as bwrap does for root. The
    # first process waits for every child.
    PIDS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    PIDS += ["sh", "-c", '"$@"; exit', "sh"]
ENDS_WITH_US = ["--die-with-parent", *PIDS]


class SlurmCluster:
    """It starts in about a second and ends with the block.

    with SlurmCluster(folder) as cluster:
        cluster.submit(script).wait()

    `inside` are the words in front of a client's command. `nodes` are the names of its nodes.
    """

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.folder = folder
        # Short names: slurmd makes sockets in folders of these names, whose paths may be 107 bytes.
        self.nodes = [f"n{number}" for number in range(nodes)]
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        run = ["--bind", str(folder / "run"), "/run"]
        self.inside = ["bwrap", "--dev-bind", "/", "/", *run]
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmCluster:
        controller, worker = (need_tool(name) for name in ("slurmctld", "slurmd"))
        programs = [[controller], *([worker, "-N", name] for name in self.nodes)]
        need_tool("bwrap")
        for name in ("state", "run", *self.nodes):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "slurm.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in programs]
        host = socket.gethostname().partition(".")[0]
        ports = [listener.getsockname()[1] for listener in sockets]
        text = CONFIG.format(
            host=host,
            ports=ports,
            nodes="\n".join(
                NODE.format(name=name, host=host, port=port)
                for name, port in zip(self.nodes, ports[1:], strict=True)
            ),
            user=getpass.getuser(),
            folder=self.folder,
        )
        for listener in sockets:
            listener.close()
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        with (self.folder / "log").open("ab") as log:
            for words in programs:
                self._daemons.append(
                    subprocess.Popen(
                        [*self.inside, *ENDS_WITH_US, *words, "-D"],
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
        idle = ["idle"] * len(self.nodes)
        while self.ask("sinfo", "--noheader", "--Node", "--format=%T").split() != idle:
            assert time.monotonic() < give_up, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _stop(self) -> None:
        for daemon in self._daemons:
            daemon.kill()
        for daemon in self._daemons:
            daemon.wait(PATIENCE)

    def submit(self, script: Path, *options: str) -> subprocess.Popen[str]:
        """Submit a script from its folder; the process ends with the job, and like it."""
        return subprocess.Popen(
            [*self.inside, "sbatch", "--wait", *options, str(script)],
            env=self.environment,
            cwd=script.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, *words: str) -> str:
        """What a client's command prints."""
        done = subprocess.run(
            [*self.inside, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()
