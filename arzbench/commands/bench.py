"""`arzbench bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from arzbench import options, store
from arzbench.clock import SystemClock
from arzbench.errors import UsageError, unknown
from arzbench.options import switch, value
from arzbench.report.console import make_console, say, show
from arzbench.report.sheets import host_line
from arzbench.traffic.bench.record import bench_sheets
from arzbench.units import format_duration
from arzbench.wiring import checks


def bench(
    device: options.Device = None,
    quick: Annotated[bool, switch("--quick", "Fewer and shorter rounds, one batch size.")] = False,
    output: Annotated[Path | None, value("--output", "FILE", "Keep the raw record here as JSON.")] = None,
    as_json: options.Json = False,
) -> None:
    """Measure the traffic engine against the most this core can compute."""
    if device is not None and device not in checks.DEVICES:
        raise unknown("device", device, checks.DEVICES)
    if device == "cuda":
        checks.require_gpu()
        checks.require_numba_cuda()
    checks.require_packages("gymnasium", "numba")
    if output is not None:
        checks.ensure_file(output, "--output")
    console, errors = make_console(), make_console(stderr=True)
    from arzbench.traffic.bench.timing import measure
    from arzbench.traffic.env.batch import choose_device

    try:
        chosen = choose_device(device or "cpu")
    except ValueError as error:  # a GPU that Numba cannot use
        raise UsageError(str(error), "see what is here: arzbench doctor") from error
    with errors.status("") as status:
        record = measure(SystemClock(), device=chosen, quick=quick, progress=status.update)
    if output is not None:
        store.save(output, "arzbench/bench", record)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/bench", record))
        return
    say(console, f"host: {host_line(record.host)}")
    show(console, bench_sheets(record))
    raw = f"; raw values: {output}" if output is not None else ""
    say(console, f"measured {record.created} in {format_duration(record.took_s)}{raw}")
