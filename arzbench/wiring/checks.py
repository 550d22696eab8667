"""What a command checks before it begins: devices, packages, files."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from arzbench import store
from arzbench.errors import UsageError, unknown
from arzbench.importing import named_module, resolved
from arzbench.measure.host import devices, gpu_name
from arzbench.study import Study, is_reference
from arzbench.study_changes import change_study

DEVICES = ("auto", "cpu", "cuda")


def on_device(study: Study, device: str | None) -> Study:
    """`study` on `device` (None: as it says).

    Raises:
        UsageError: an unknown device, or cuda where no GPU is found.
    """
    if device is not None:
        if device not in DEVICES:
            raise unknown("device", device, DEVICES)
        study = change_study(study, [f'device="{device}"'])
    for config in study.trainings:
        asked_for = devices(config)
        for asked in asked_for:
            if asked not in DEVICES:
                raise unknown("device", asked, DEVICES, f"in training {config.name!r}")
        if "cuda" in asked_for:
            require_gpu()
        if "cuda" in asked_for[1:]:
            require_numba_cuda()
    return study


def require_gpu() -> None:
    """Raise a `UsageError` unless an NVIDIA GPU is found."""
    if gpu_name() is None:
        message = "device 'cuda': no NVIDIA GPU was found on this machine"
        raise UsageError(message, "use --device cpu (or auto)")


def require_numba_cuda() -> None:
    """Raise a `UsageError` unless what runs the traffic model on a GPU is installed."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise UsageError(
            "device 'cuda': the traffic model needs numba-cuda there, and it is not installed",
            'pip install "arzbench[cuda]"\nor leave the env on the CPU: --set env_kwargs.device=cpu',
        )


def require_training_stack(study: Study | None = None) -> None:
    """Raise a `UsageError` unless what trains (`study`) is there; imported is only what the study names."""
    trainings = () if study is None else study.trainings
    own_envs = any(config.own_env for config in trainings)
    require_packages("torch", "stable_baselines3", "gymnasium", *(["numba"] if own_envs else []))
    for config in trainings:
        library = config.LIBRARY.partition(":")[0]
        if library and importlib.util.find_spec(library) is None:
            raise UsageError(
                f"{config.algo} is an algorithm of sb3-contrib, which is not installed",
                'pip install "arzbench[contrib]"',
            )
        if (module := config.env.rpartition(":")[0]) and is_reference(f"{module}:_"):
            named_module(module, "env", config.env)
        for key, value in {**config.hyperparameters, "policy": config.policy}.items():
            resolved(value, key)
        resolved(config.wrappers or (), "wrappers")


def require_packages(*names: str) -> None:
    """Raise a `UsageError` unless the packages `names` are installed; nothing is imported."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"this command trains, and {', '.join(missing)} cannot be found", 'pip install "arzbench[train]"'
        )


@contextlib.contextmanager
def undone(folder: Path) -> Iterator[None]:
    """A block that fails leaves no empty folder: those it made, `folder` or above it, are removed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def ensure_file(path: Path, flag: str) -> None:
    """Raise a `UsageError` unless `path` can be written as a file; `flag` is what chooses it."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", f"name a file with {flag}")
    store.ensure_writable(path.parent, flag)
