"""`arzbench bench`."""

from __future__ import annotations

import sys
from pathlib import Path

from arzbench import store
from arzbench.clock import SystemClock
from arzbench.commands.common import (
    DEVICES,
    ensure_file,
    require_gpu,
    require_numba_cuda,
    require_training_stack,
)
from arzbench.errors import UsageError, unknown
from arzbench.report.console import make_console, say, show
from arzbench.report.sheets import host_line
from arzbench.traffic.bench.record import bench_sheets
from arzbench.units import format_duration


def run_bench(*, device: str, quick: bool, output: Path | None, as_json: bool) -> None:
    """Measure, show what it says; keep the raw record where `output` says.

    Raises:
        UsageError: an unknown device, cuda without a GPU, a file that cannot be written.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda":
        require_gpu()
        require_numba_cuda()
    require_training_stack("numba")
    if output is not None:
        ensure_file(output, "--output")
    console, errors = make_console(), make_console(stderr=True)
    from arzbench.traffic.bench.timing import measure
    from arzbench.traffic.env.batch import choose_device

    try:
        chosen = choose_device(device)
    except ValueError as error:  # a GPU that Numba cannot use
        raise UsageError(str(error), "see what is here: arzbench doctor") from error
    with errors.status("") as status:
        bench = measure(SystemClock(), device=chosen, quick=quick, progress=status.update)
    if output is not None:
        store.save(output, "arzbench/bench", bench)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/bench", bench))
        return
    say(console, f"host: {host_line(bench.host)}")
    show(console, bench_sheets(bench))
    kept = f"; raw values: {output}" if output is not None else ""
    say(console, f"measured {bench.created} in {format_duration(bench.took_s)}{kept}")
