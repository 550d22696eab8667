"""Which machine this is, as far as it decides speed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from arzbench.records import HostInfo
from arzbench.study import TrainConfig

_OWN_ENVS = "arzbench/"  # envs that take the training's device, unless env_kwargs names one


def host_info(device: str = "cpu", torch_threads: int = 1) -> HostInfo:
    """This host, for trainings on `device` with `torch_threads` threads."""
    return HostInfo(
        name=platform.node() or "unknown",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=_usable_cores(),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=platform.python_version(),
        device=(gpu_name() or "cpu") if device in ("cuda", "auto") else "cpu",
        torch_threads=torch_threads,
    )


def host_of(config: TrainConfig) -> HostInfo:
    """This host, for a training: with its GPU if the net or the env's roads may be there."""
    device = "cpu" if set(devices(config)) == {"cpu"} else "auto"
    return host_info(device, config.torch_threads)


def is_own_env(config: TrainConfig) -> bool:
    """Whether a training is on an env of this package."""
    return config.env.rpartition(":")[2].startswith(_OWN_ENVS)


def devices(config: TrainConfig) -> tuple[str, ...]:
    """Devices a training asks for: its net's, and in an env of this package that of the roads."""
    if not is_own_env(config):
        return (config.device,)
    return config.device, str(config.env_kwargs.get("device", config.device))


def gpu_name() -> str | None:
    """The first NVIDIA GPU's name, None without one or without its driver's tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = answer.stdout.strip().splitlines()
    return names[0].strip() if names else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Cores this process may use: a container's or a job's limit counts, not the machine's size."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)
