"""Policies compared on the same episodes: means, paired bootstrap intervals, tables and a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from arzbench.logs.plot import make_figure, save_figure
from arzbench.report.sheets import Sheet

RESAMPLES = 10_000
VIOLATIONS = ("negative_cells", "overfull_cells", "cfl_exceeded")


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy did: by measure, a value for each episode."""

    name: str
    kind: str  # baseline | trained
    values: dict[str, tuple[float, ...]]
    counters: dict[str, int] = {}  # of the traffic engine: how often limits and guards acted


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Mean of a policy less that of a baseline, over the size of the baseline's; 95 % interval."""

    policy: str
    baseline: str
    measure: str
    relative: float | None  # None: the baseline's mean is zero
    low: float | None
    high: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Policies on the same held-out episodes of one env."""

    env: str
    env_kwargs: dict[str, Any]
    source: str
    seeds: tuple[int, ...]
    policies: tuple[PolicyResult, ...]
    differences: tuple[Difference, ...]


def compare_policies(
    env: str,
    env_kwargs: Mapping[str, Any],
    source: str,
    seeds: Sequence[int],
    policies: Sequence[PolicyResult],
) -> Comparison:
    """Compare every policy with every baseline on every measure, but no baseline with a later one."""
    differences = []
    baselines = [p for p in policies if p.kind == "baseline"]
    for position, policy in enumerate(policies):
        for baseline in baselines[: position if policy.kind == "baseline" else None]:
            differences += list(_differences(policy, baseline))
    return Comparison(
        env=env,
        env_kwargs=dict(env_kwargs),
        source=source,
        seeds=tuple(seeds),
        policies=tuple(policies),
        differences=tuple(differences),
    )


def _differences(policy: PolicyResult, baseline: PolicyResult) -> Iterator[Difference]:
    for measure, values in policy.values.items():
        interval = relative_difference(np.array(values), np.array(baseline.values[measure]))
        relative, low, high = (x if math.isfinite(x) else None for x in interval)
        yield Difference(
            policy=policy.name,
            baseline=baseline.name,
            measure=measure,
            relative=relative,
            low=low,
            high=high,
        )


def relative_difference(
    values: NDArray[np.float64], baseline: NDArray[np.float64], resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """`(mean(values) - mean(baseline)) / |mean(baseline)|`, and its 95 % bootstrap interval.

    Episodes are resampled in pairs, so that what a seed does to both policies cancels (percentile
    interval; Efron & Tibshirani, An Introduction to the Bootstrap, 1993). Always the same resamples.
    """
    rows = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    with np.errstate(divide="ignore", invalid="ignore"):
        means, references = values[rows].mean(axis=1), baseline[rows].mean(axis=1)
        low, high = np.quantile((means - references) / np.abs(references), (0.025, 0.975))
        middle = (values.mean() - baseline.mean()) / np.abs(baseline.mean())
    return float(middle), float(low), float(high)


def comparison_sheets(comparison: Comparison) -> list[Sheet]:
    """Means of each policy, and its differences to each baseline."""
    measures = list(comparison.policies[0].values)
    first, last = comparison.seeds[0], comparison.seeds[-1]
    rows = [(p.name, *(_number(float(np.mean(p.values[m]))) for m in measures)) for p in comparison.policies]
    means = Sheet(
        title=f"mean of an episode, {len(comparison.seeds)} held-out episodes",
        columns=("policy", *measures),
        align="l" + "r" * len(measures),
        rows=tuple(rows),
        notes=(
            f"seeds {first} to {last}: those of a training are below 2^32, so none is among them",
            *_violations(comparison.policies),
        ),
    )
    pairs = dict.fromkeys((d.policy, d.baseline) for d in comparison.differences)
    by_key = {(d.policy, d.baseline, d.measure): d for d in comparison.differences}
    differences = Sheet(
        title="difference to the baseline, 95 % interval",
        columns=("policy", "baseline", *measures),
        align="ll" + "r" * len(measures),
        rows=tuple((*pair, *(_interval(by_key[(*pair, m)]) for m in measures)) for pair in pairs),
        notes=("episodes resampled in pairs 10,000 times; an interval without 0 is a difference",),
    )
    return [means, differences] if pairs else [means]


def _violations(policies: Sequence[PolicyResult]) -> Iterator[str]:
    """What should not happen and is never mended in silence, where there is an engine that counts it."""
    if any(p.counters for p in policies):
        counts = {n: sum(p.counters.get(n, 0) for p in policies) for n in VIOLATIONS}
        yield "violations in all episodes: " + ", ".join(
            f"{n} {name.replace('_', ' ')}" for name, n in counts.items()
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _interval(difference: Difference) -> str:
    if difference.relative is None:
        return "-"
    if difference.low is None or difference.high is None:
        return f"{difference.relative:+.1%}"
    return f"{difference.relative:+.1%} [{difference.low:+.1%}, {difference.high:+.1%}]"


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draw the first measure of each policy, and its differences to the baselines, into `path`."""
    figure = make_figure(10, 1.5 + 0.45 * len(comparison.policies))
    left, right = figure.subplots(1, 2)
    measure = next(iter(comparison.policies[0].values))
    for row, policy in enumerate(comparison.policies):
        values = np.array(policy.values[measure])
        color = "C0" if policy.kind == "baseline" else "C3"
        left.plot(values, np.full(len(values), row), "|", color=color, alpha=0.5)
        left.plot(values.mean(), row, "o", color=color)
    left.set_yticks(range(len(comparison.policies)), [p.name for p in comparison.policies])
    left.set_xlabel(measure)
    shown = [d for d in comparison.differences if d.measure == measure and d.relative is not None]
    for row, one in enumerate(shown):
        assert one.relative is not None
        low = one.relative if one.low is None else one.low
        high = one.relative if one.high is None else one.high
        right.plot([100 * low, 100 * high], [row, row], color="k")
        right.plot(100 * one.relative, row, "ko")
    right.set_yticks(range(len(shown)), [f"{d.policy} / {d.baseline}" for d in shown], fontsize=8)
    right.axvline(0.0, color="0.6", lw=1)
    right.set_xlabel(f"difference in {measure.partition(' [')[0]} [%], 95 % interval")
    for panel in (left, right):
        panel.invert_yaxis()
    save_figure(figure, path)
