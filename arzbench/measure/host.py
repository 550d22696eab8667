"""Which machine this is, as far as it decides speed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from arzbench.records import HostInfo
from arzbench.study import TrainConfig


def host_info(device: str = "cpu", torch_threads: int = 1) -> HostInfo:
    """This host, for trainings on `device` with `torch_threads` threads."""
    return HostInfo(
        name=platform.node() or "unknown",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_name(),
        # a container's or a job's limit counts, not the machine's size
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=platform.python_version(),
        device=(gpu_name() or "cpu") if device in ("cuda", "auto") else "cpu",
        torch_threads=torch_threads,
    )


def host_of(config: TrainConfig) -> HostInfo:
    """This host, for a training: with its GPU if the net or the env's roads may be there."""
    device = "cpu" if set(devices(config)) == {"cpu"} else "auto"
    return host_info(device, config.torch_threads)


def devices(config: TrainConfig) -> tuple[str, ...]:
    """Devices a training asks for: its net's, and in an env of this package that of the roads."""
    if not config.own_env:
        return (config.device,)
    return config.device, str(config.env_kwargs.get("device", config.device))


def ask_system(command: Sequence[str]) -> str | None:
    """Return what `command` prints, None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def gpu_name() -> str | None:
    """The first NVIDIA GPU's name, None without one or without its driver's tool."""
    names = (ask_system(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").split("\n")
    return names[0].strip() or None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
