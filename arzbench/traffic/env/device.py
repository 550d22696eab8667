"""Which device computes a batch's roads; importing this loads no CUDA."""

from importlib.util import find_spec

DEVICES = ("cpu", "cuda", "auto")


def lacking() -> str:
    """What `cuda` lacks here, in words; nothing where it can be used, in Numba's simulator too."""
    from numba import config, cuda

    if not cuda.is_available():
        return "no NVIDIA GPU was found on this machine"
    if not config.ENABLE_CUDASIM and find_spec("numba_cuda") is None:
        return 'numba-cuda is not installed (pip install "arzbench[cuda]")'
    return ""


def choose(device: str) -> str:
    """Return `cpu` or `cuda`; `auto` is the CPU where `cuda` cannot be used.

    Raises:
        ValueError: If there is no such device, or none here.
    """
    if device not in DEVICES:
        raise ValueError(f"device={device!r} is not one of {', '.join(DEVICES)}")
    if device == "cpu":
        return device
    lack = lacking()
    if lack and device == "cuda":
        raise ValueError(f"device='cuda': {lack}; use device='cpu', or 'auto' for what there is")
    return "cpu" if lack else "cuda"
