"""`arzbench calibrate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from arzbench import store
from arzbench.choose_study import DEFAULT_STUDY, choose_study
from arzbench.clock import SystemClock
from arzbench.commands.common import on_device, require_training_stack, undone
from arzbench.measure.calibrate import Worker, calibrate
from arzbench.profiles import calibrations_folder, save_calibration
from arzbench.report.console import make_console, say, show
from arzbench.report.message_sheets import sink_sheets
from arzbench.report.run_display import CalibrationProgress
from arzbench.report.sheets import calibration_sheets, host_line, study_line
from arzbench.units import format_duration, parse_duration


def run_calibrate(
    *,
    working: Path,
    study: str | None,
    env: str | None,
    algo: str | None,
    changes: Sequence[str],
    timesteps: int | None,
    device: str | None,
    steps: int,
    repetitions: int,
    max_time: str,
    as_json: bool,
) -> None:
    """Measure, save the raw record, show what it says."""
    max_s = parse_duration(max_time)
    if env is None and algo is None and study is None:
        study = DEFAULT_STUDY
    chosen = choose_study(working, study=study, env=env, algo=algo, changes=changes, timesteps=timesteps)
    assert chosen is not None
    chosen = on_device(chosen, device)
    require_training_stack()
    folder = calibrations_folder(working)
    console = make_console(stderr=as_json)
    with undone(folder):
        store.ensure_writable(folder)
        say(console, f"calibrating {study_line(chosen)}")
        worker = Worker(command=(sys.executable, "-m", "arzbench", "_worker"))
        with CalibrationProgress(console) as progress:
            calibration = calibrate(
                chosen,
                worker,
                SystemClock(),
                steps=steps,
                repetitions=repetitions,
                max_s=max_s,
                folder=folder,
                progress=progress.show,
            )
        path = save_calibration(working, calibration)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/calibration", calibration))
        return
    say(console, f"host: {host_line(calibration.host)}")
    show(console, [*calibration_sheets(calibration), *sink_sheets(calibration)])
    say(console, f"took {format_duration(calibration.took_s)}; raw values: {path}")
    say(console, "next: arzbench plan --quota 12h")
