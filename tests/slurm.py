"""A throw-away Slurm on loopback: a controller and one node, no accounting, no control groups. Needs root.

A requeued job is held back until the credentials of its first start expired (`cred_expire`, at least 5 s).
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "sbatch", "scontrol", "squeue", "scancel")
SYSTEM = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", os.environ.get("PATH", "")])
CONF = """
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/sock/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=5
KillWait=5
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=01:00:00 DefaultTime=00:10:00 State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; empty where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM) is None]
    if missing:
        return f"SLURM IS NOT TESTED: no {', '.join(missing)} (install slurm-wlm and munge)"
    return "" if os.geteuid() == 0 else "SLURM IS NOT TESTED: starting it needs root"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Slurm:
    """Up while it is entered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "PATH": SYSTEM, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool", "sock", "munge"):
            (self.folder / name).mkdir(mode=0o700 if name == "munge" else 0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        names = {"host": host, "folder": self.folder, "port": free_port(), "node_port": free_port()}
        (self.folder / "slurm.conf").write_text(CONF.format(**names))
        munge = [f"--{name}-file={self.folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={self.folder}/sock/munge.sock", *munge)
        self._until(lambda: (self.folder / "sock" / "munge.sock").exists())
        self._start("slurmctld", "-D", "-c")
        stepd = shutil.which("slurmstepd", path=SYSTEM)
        self._start("slurmd", "-D", "-N", "n1", "-d", str(stepd))
        self._until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%t"))
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--user=root")
        for _ in range(100):
            if not self.ask("squeue", "-h"):
                break
            time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def ask(self, *command: str, folder: Path | None = None) -> str:
        """What a command prints, called in `folder`; empty where it fails."""
        done = subprocess.run(
            command, env=self.environ, cwd=folder, capture_output=True, text=True, timeout=30
        )
        return done.stdout if done.returncode == 0 else ""

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, ..."""
        shown = self.ask("scontrol", "show", "job", job)
        return shown.partition("JobState=")[2].partition(" ")[0]

    def _start(self, program: str, *arguments: str) -> None:
        log = (self.folder / f"{program}.out").open("wb")
        path = str(shutil.which(program, path=SYSTEM))
        self._daemons.append(subprocess.Popen([path, *arguments], env=self.environ, stdout=log, stderr=log))

    def _until(self, ready: object) -> None:
        for _ in range(600):
            if callable(ready) and ready():
                return
            time.sleep(0.1)
        logs = "\n".join(p.read_text()[-1500:] for p in sorted(self.folder.glob("*.out")))
        raise AssertionError(f"Slurm did not come up:\n{logs}")
