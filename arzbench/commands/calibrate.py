"""`arzbench calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from arzbench import options, store
from arzbench.choose_study import DEFAULT_STUDY
from arzbench.clock import SystemClock
from arzbench.measure.calibrate import calibrate as measure
from arzbench.options import count, value
from arzbench.profiles import calibrations_folder, save_calibration
from arzbench.report.console import make_console, say, show
from arzbench.report.message_sheets import message_sheets
from arzbench.report.run_display import calibration_progress
from arzbench.report.sheets import calibration_sheets, host_line, study_line
from arzbench.units import format_duration, parse_duration
from arzbench.wiring.checks import on_device, require_training_stack, undone
from arzbench.wiring.describing import Naming


def calibrate(
    script: options.Script = None,
    arguments: options.Arguments = None,
    factory: options.Factory = None,
    study: options.Study = None,
    env: options.Env = None,
    algo: options.Algo = None,
    changes: options.Set = None,
    timesteps: Annotated[int | None, count("--timesteps", "total_timesteps with --env and --algo.")] = None,
    device: options.Device = None,
    steps: Annotated[int, count("--steps", "Measure at least this many training steps.")] = 100,
    repetitions: Annotated[
        int, count("--repetitions", "Fresh processes; the first has cold caches.", least=2)
    ] = 4,
    max_time: Annotated[str, value("--max-time", "TIME", "Measure no longer than about this.")] = "60s",
    folder: options.Dir = Path(),
    as_json: options.Json = False,
) -> None:
    """Measure what each phase of a training costs here, with and without logging."""
    max_s = parse_duration(max_time)
    if not (script or factory or env or algo or study):
        study = DEFAULT_STUDY
    naming = Naming(
        script=script,
        arguments=arguments or (),
        factory=factory,
        study=study,
        env=env,
        algo=algo,
        changes=changes or (),
        timesteps=timesteps,
    )
    chosen = naming.find(folder)
    assert chosen is not None
    chosen = on_device(chosen, device)
    require_training_stack(chosen)
    records = calibrations_folder(folder)
    console = make_console(stderr=as_json)
    with undone(records):
        store.ensure_writable(records)
        say(console, f"calibrating {study_line(chosen)}")
        with calibration_progress(console) as progress:
            calibration = measure(
                chosen,
                (sys.executable, "-m", "arzbench.worker", "measure"),
                SystemClock(),
                steps=steps,
                repetitions=repetitions,
                max_s=max_s,
                folder=records,
                progress=progress,
            )
        path = save_calibration(folder, calibration)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/calibration", calibration))
        return
    say(console, f"host: {host_line(calibration.host)}")
    show(console, [*calibration_sheets(calibration), *message_sheets(calibration)])
    say(console, f"took {format_duration(calibration.took_s)}; raw values: {path}")
    say(console, "next: arzbench plan --quota 12h")
