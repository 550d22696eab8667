"""What all tests share: one thread, reproducible examples, the incident's logs."""

import os

# Before anything imports NumPy or torch: two threads on a busy machine are slower than one, and the
# number of threads changes the last bits of a training.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import warnings
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# The same examples everywhere, and no verdict that depends on how fast a machine is.
hypothesis.settings.register_profile("arzbench", derandomize=True, deadline=None)
hypothesis.settings.load_profile("arzbench")


@pytest.fixture(scope="session")
def incident_data() -> Path:
    """The folder with the incident's logs, kept beside the repository because they are large."""
    folder = ROOT.parent / "shared" / "data" / "incident"
    if not folder.is_dir():
        reason = "the incident's logs are not here (../shared/data/incident): their facts go unchecked"
        warnings.warn(reason, pytest.PytestWarning, stacklevel=1)
        pytest.skip(reason)
    return folder
