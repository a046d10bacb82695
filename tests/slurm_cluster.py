"""A real SLURM on this machine: a controller and two nodes, each a slurmd of its own, without the system's services."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from tests.waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
NODES = ("n1", "n2")
OF_NODE = "SLURMD_NODENAME"  # in the environment of what a node works on
NOTICED = 10  # seconds after which a silent node counts as down
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdTimeout={noticed}
KillWait=2
MinJobAge=300
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_no_slurm() -> str:
    """Why there can be no cluster here; "" if there can."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"{', '.join(missing)} is not installed (slurm-wlm and munge)"
    return "" if os.geteuid() == 0 else "a cluster needs root"


class Cluster:
    """A running cluster.

    Attributes:
        config: its slurm.conf, by which SLURM's programs find it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"

    def start(self) -> None:
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        ports = [_free_port() for _ in range(3)]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        values = {"folder": self.folder, "host": socket.gethostname(), "controller": ports[0], "noticed": NOTICED}
        self.config.write_text(CONFIG.format(**values, nodes=nodes), encoding="utf-8")
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self.run("munged", *options, f"--seed-file={self.folder / 'munge.seed'}", "--force")
        self.run("slurmctld", "-f", str(self.config))
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self.run("sinfo", "-N", "-h", "-o", "%t").split() == ["idle"] * len(NODES))

    def start_node(self, node: str) -> None:
        self.run("slurmd", "-N", node, "-f", str(self.config))

    def kill_node(self, node: str) -> None:
        """As if its machine lost its power: its slurmd, and everything that works on it."""
        slurmd = psutil.Process(int((self.folder / f"slurmd-{node}.pid").read_text()))
        tasks = [process for process in psutil.process_iter() if _environment(process).get(OF_NODE) == node]
        daemons = [process for task in tasks for process in task.parents() if process.name().startswith("slurmstepd")]
        for process in [slurmd, *daemons, *tasks]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def run(self, *command: str) -> str:
        """What one of SLURM's programs prints."""
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"SLURM_CONF": str(self.config)},
        )
        return done.stdout

    def end(self) -> None:
        with suppress(subprocess.SubprocessError):
            self.run("scancel", "--me", "--signal=KILL", "--full")
            self.run("scancel", "--me")
        for name in ("slurmctld.pid", *(f"slurmd-{node}.pid" for node in NODES), "munged.pid"):
            with suppress(OSError, ValueError, psutil.NoSuchProcess):
                process = psutil.Process(int((self.folder / name).read_text()))
                process.send_signal(signal.SIGKILL)
                process.wait(10)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _free_port() -> int:
    with closing(socket.socket()) as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])
