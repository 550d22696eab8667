#!/usr/bin/env python3
"""Figures and measured numbers of docs/concepts/arz.md: orders, Riemann problems, the capacity drop.

`figures.py` writes docs/concepts/arz-*.png and the table of the capacity drop into the page: two minutes.
It draws what the tests assert: the problems are those of tests/traffic/physics.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from arzbench.traffic.physics import cpu  # noqa: E402
from arzbench.traffic.physics.parameters import PARAMETER_SETS  # noqa: E402
from arzbench.traffic.physics.scenario import LEFT, Scenario  # noqa: E402
from tests.traffic.physics.riemann import JAM, contact_errors, problem, solved  # noqa: E402

PAGES = ROOT / "docs" / "concepts"
BEGIN, END = "<!-- made by scripts/figures.py -->", "<!-- end -->"
SIZES = {"weno5": [50, 100, 200, 400], "muscl": [100, 200, 400, 800], "first_order": [200, 400, 800, 1600]}
FREEWAY = PARAMETER_SETS["freeway"]
RISE, MEAN, HELD = 720, 20, 240  # decisions: demand rises, a mean is taken, the end counts as discharge


def save(figure: Any, name: str) -> None:
    figure.savefig(PAGES / f"arz-{name}.png", dpi=90)


def draw_orders() -> None:
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for scheme, sizes in SIZES.items():
        errors = contact_errors(scheme, sizes, 5 / 3 if scheme == "weno5" else 1.0)
        order = np.log2(errors[-2] / errors[-1])
        axes.loglog(sizes, errors, "o-", label=f"{scheme}, last order {order:.2f}")
        print(
            scheme,
            sizes,
            [f"{e:.2g}" for e in errors],
            np.round(np.log2(errors[:-1] / np.array(errors[1:])), 2),
        )
    axes.set(xlabel="cells", ylabel="L1 error of a smooth contact after 15 s")
    axes.legend()
    save(figure, "orders")


def draw_riemann() -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    fine = np.linspace(-250, 250, 4001)
    for axes, case in zip(
        figure.subplots(2, 2).flat, ("shock", "queue discharge", "contact", "vacuum opens"), strict=True
    ):
        axes.plot(
            fine, problem(case, motorcycles=True).sample(fine / 15.0)[0] / JAM, "k-", lw=1, label="exact"
        )
        for scheme, mark in (("weno5", "."), ("muscl", "+"), ("first_order", "x")):
            _, density = solved(case, True, scheme, 100)
            axes.plot(np.arange(-245, 250, 10), density[25:75] / JAM, mark, ms=4, label=scheme)
        axes.set(title=case, xlabel="m from the jump", ylabel="density / jam density")
    figure.axes[0].legend(fontsize=8)
    save(figure, "riemann")


def breakdown(kind: str, share: float, top: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Demand and mean flow past the exit [veh/s] as demand rises; the largest flow, and the queue's."""
    ramp = 600.0 if kind == "merge" else None
    scenario = Scenario(parameters=FREEWAY, stop_line=None, ramp=ramp)
    state = cpu.init(scenario, 1)
    if kind == "lane drop":
        lanes = np.where(np.arange(scenario.n_cells) < 70, 1.0, 2 / 3)
        state.profile[:] = scenario.profile(jam=lanes * FREEWAY.rho_jam)
    demand = np.minimum(np.linspace(0.5, top, RISE + 1), top)[np.minimum(np.arange(RISE + HELD), RISE)]
    flow = np.empty(len(demand))
    for i, wish in enumerate(demand):
        origins = [wish] if ramp is None else [wish - 0.2, 0.2]
        before = state.totals[0, LEFT]
        arrivals = np.outer(origins, [share, 1 - share])[None]
        cpu.step(scenario, state, arrivals, np.zeros(1, np.int64))
        flow[i] = (state.totals[0, LEFT] - before) / scenario.decision_s
    mean = np.convolve(flow, np.full(MEAN, 1 / MEAN), "valid")
    return demand[MEAN - 1 :], mean, float(mean.max()), float(flow[-HELD:].mean())


def draw_capacity_drop() -> list[str]:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, *panels = figure.subplots(1, 3)
    x = np.linspace(0, 1, 201)
    for name in ("default", "freeway"):
        p = PARAMETER_SETS[name]
        ve = np.maximum(p.v_free_c - p.a_c * p.k_c * x**2 - p.b_c * x, p.v_floor_c)
        left.plot(x, p.rho_jam * x * ve, label=f"flow, {name}")
        left.plot(x, (ve + p.k_c * x**2) / p.v_free_c, ":", label=f"w / free speed, {name}")
    left.set(xlabel="density / jam density, cars", ylabel="veh/s; -")
    left.legend(fontsize=7)
    lines = [
        "| bottleneck | motorcycles | largest flow [veh/s] | of a queue [veh/s] | drop |",
        "|---|---|---|---|---|",
    ]
    for axes, (kind, top) in zip(panels, (("lane drop", 1.1), ("merge", 1.5)), strict=True):
        for share in (0.2, 0.3, 0.4):
            demand, mean, free, queued = breakdown(kind, share, top)
            lines.append(f"| {kind} | {share:.0%} | {free:.3f} | {queued:.3f} | {1 - queued / free:.1%} |")
            print(lines[-1], flush=True)
            axes.plot(np.arange(len(mean)) / 240, mean, label=f"{share:.0%} motorcycles")
        axes.plot(np.arange(len(demand)) / 240, demand, "k:", lw=1, label="demand")
        axes.set(title=kind, xlabel="h", ylabel="veh/s past the exit, 5 min mean", ylim=(0.4, 1.5))
        axes.legend(fontsize=7)
    save(figure, "capacity-drop")
    return lines


def main() -> None:
    draw_orders()
    draw_riemann()
    lines = draw_capacity_drop()
    page = PAGES / "arz.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + "\n".join([BEGIN, *lines, END]) + rest.partition(END)[2])


if __name__ == "__main__":
    main()
