"""How far actual times lie from predicted ones: from the host's own record of finished runs.

The logarithm of actual / predicted of a run is taken as a sum of normal parts: one of the host, which all
its runs share, one of the training, one of the calibration, and the run's own. How large these parts usually
are is not known beforehand: they are averaged over a grid, each combination weighted by how well it explains
the record, beside a prior. So a training that ran here before is predicted by what it took, with a narrow
interval, a new one by what others took, with a wide one, and without a record the prior alone remains.

Best linear unbiased prediction: Henderson, Biometrics 31 (1975) 423; variances averaged instead of estimated
as in Gelman, Bayesian Analysis 1 (2006) 515.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from arzbench.digest import digest
from arzbench.records import Spread
from arzbench.study import Study

#: standard deviation of what all runs of a host share
HOST_SIGMA = 0.05
#: medians of the prior of the other three: of a training, of a calibration, of a run
MEDIANS = (0.04, 0.03, 0.05)
#: and its width: the standard deviation of their logarithms
WIDTH = 0.5
#: values that are averaged over. With the prior alone they come to 10 %: identical trainings back to back
#: on idle shared machines differed by 5 to 10 % (coefficient of variation), and prices err as well
STEPS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
#: runs that are looked at, the newest
RECENT = 100
#: a calibration from another machine says much less
FOREIGN_LOG_SIGMA = 0.35
#: one that was named to plan for its machine: another session there; the incident's two sessions on
#: the same kind of machine took 0.48 and 0.59 s per env step, log(0.59 / 0.48) = 0.21
ELSEWHERE_LOG_SIGMA = 0.21
FloatArray = npt.NDArray[np.float64]


class PastRun(NamedTuple):
    """A finished run of this host."""

    ratio: float  # actual / predicted by prices alone
    training: str  # what was trained: `training_key`
    calibration: str  # the id of the one that priced it
    within_p90: bool | None = None  # whether it ended by the P90 it was given


def training_key(study: Study) -> str:
    """The same for studies that train the same, however long."""
    return digest(sorted({t.workload_digest() for t in study.trainings}))


def spread_from(
    past: Sequence[PastRun],
    *,
    training: str = "",
    calibration: str = "",
    foreign: bool = False,
    named: str = "",
) -> Spread:
    """Of one more run of `training` priced by `calibration`, from the `past` ones or a stated prior.

    A `foreign` calibration says little of this machine; where it was `named`, its own is meant.
    """
    if foreign and named:
        source = f"prices of {named}, for another session there: widened ({ELSEWHERE_LOG_SIGMA:.0%})"
        return Spread(source=source, log_sigma=ELSEWHERE_LOG_SIGMA)
    if foreign:
        return Spread(source="calibration of another machine: widened", log_sigma=FOREIGN_LOG_SIGMA)
    recent = list(past)[-RECENT:]
    centre, sigma, share = _predict(recent, training, calibration)
    return Spread(
        source=_source(recent, training, calibration, sigma),
        ratios=tuple(run.ratio for run in recent),
        log_centre=centre,
        log_sigma=sigma,
        price_share=share,
    )


def _source(past: Sequence[PastRun], training: str, calibration: str, sigma: float) -> str:
    if not past:
        return f"prior ({sigma:.0%}; no finished run on this host yet)"
    same = sum(run.training == training for run in past)
    priced = sum(run.calibration == calibration for run in past)
    text = f"{len(past)} finished run(s) on this host, {same} of this training, {priced} by this calibration"
    judged = [run.within_p90 for run in past if run.within_p90 is not None]
    return f"{text}; {sum(judged)} of {len(judged)} ended by their P90" if judged else text


def _predict(past: Sequence[PastRun], training: str, calibration: str) -> tuple[float, float, float]:
    """Mean and standard deviation of the next run's log ratio, and what is unknown of the prices' error."""
    grid = np.array(list(itertools.product(STEPS, repeat=3)))
    of_training, of_calibration, of_run = (grid**2).T
    host = HOST_SIGMA**2
    weight = -0.5 * ((np.log(grid / MEDIANS) / WIDTH) ** 2).sum(axis=1)
    mean = np.zeros(len(grid))
    lasting = variance = host + of_training + of_calibration  # of all but the run's own part
    if past:
        log_ratios = np.log([run.ratio for run in past])
        trained, priced = [run.training for run in past], [run.calibration for run in past]
        covariance = (
            host
            + of_training[:, None, None] * _same(trained, trained)
            + of_calibration[:, None, None] * _same(priced, priced)
            + of_run[:, None, None] * np.eye(len(past))
        )
        with_next = (
            host
            + of_training[:, None] * _same([training], trained)
            + of_calibration[:, None] * _same([calibration], priced)
        )
        root = np.linalg.cholesky(covariance)
        right = np.stack([np.broadcast_to(log_ratios, with_next.shape), with_next], axis=-1)
        seen, ahead = np.moveaxis(np.linalg.solve(root, right), -1, 0)
        mean = (ahead * seen).sum(axis=1)
        variance = lasting - (ahead**2).sum(axis=1)
        diagonal = np.diagonal(root, axis1=1, axis2=2)
        weight = weight - 0.5 * (seen**2).sum(axis=1) - np.log(diagonal).sum(axis=1)
    shares = np.exp(weight - weight.max())
    shares /= shares.sum()
    centre = float(shares @ mean)
    sigma = math.sqrt(float(shares @ (variance + of_run + mean**2)) - centre**2)
    if all(run.calibration != calibration for run in past):
        return centre, sigma, 1.0
    return centre, sigma, math.sqrt(float(shares @ variance) / float(shares @ lasting))


def _same(some: Sequence[str], others: Sequence[str]) -> FloatArray:
    """1 where two names are the same, shape (some, others)."""
    return np.array([[float(a == b) for b in others] for a in some])
