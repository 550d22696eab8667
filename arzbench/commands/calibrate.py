"""`arzbench calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console

from arzbench import options, store
from arzbench.choose_study import DEFAULT_STUDY
from arzbench.clock import SystemClock
from arzbench.errors import UsageError
from arzbench.measure.calibrate import calibrate as measure
from arzbench.options import as_flags, count, switch, value
from arzbench.profiles import calibrations_folder, save_calibration
from arzbench.report.console import make_console, say, show
from arzbench.report.message_sheets import message_sheets
from arzbench.report.run_display import calibration_progress
from arzbench.report.sheets import calibration_sheets, host_line, study_line
from arzbench.report.tuning_sheets import tuning_lines, tuning_sheets
from arzbench.study import Study
from arzbench.units import format_duration, parse_duration
from arzbench.wiring.checks import on_device, require_training_stack, undone
from arzbench.wiring.describing import Naming
from arzbench.wiring.tuning import Tuner

#: how long a calibration takes at most, unless told otherwise
MAX_TIME, TUNE_TIME = "60s", "5m"
WORKER = (sys.executable, "-m", "arzbench.worker", "measure")


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
    max_time: Annotated[
        str | None,
        value("--max-time", "TIME", "Measure no longer than about this (60s; with --tune 5m)."),
    ] = None,
    tune: Annotated[
        bool, switch("--tune", "Find the fastest n_envs, vec_env, torch_threads and device for the study.")
    ] = False,
    folder: options.Dir = Path(),
    as_json: options.Json = False,
) -> None:
    """Measure what each phase of a training costs here, with and without logging."""
    max_s = parse_duration(max_time or (TUNE_TIME if tune else MAX_TIME))
    if tune and (script or factory):
        raise _of_code(str(script or factory))
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
    if tune:
        if chosen.built:
            raise _of_code(f"a factory of study {chosen.name}")
        words = [("study", study), ("env", env), ("algo", algo), *(("set", c) for c in changes or ())]
        words += [("set", f"total_timesteps={timesteps}")] if timesteps and env else []
        words += [("set", f"device={device}")] if device else []
        words += [("dir", str(folder))] if folder != Path() else []
        _tune(chosen, as_flags(words), console, folder, steps, repetitions, max_s, as_json=as_json)
        return
    with undone(records):
        store.ensure_writable(records)
        say(console, f"calibrating {study_line(chosen)}")
        with calibration_progress(console) as progress:
            calibration = measure(
                chosen,
                WORKER,
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


def _tune(
    study: Study,
    flags: str,
    console: Console,
    folder: Path,
    steps: int,
    repetitions: int,
    max_s: float,
    *,
    as_json: bool,
) -> None:
    """Find the fastest settings of `study`, which `flags` name.

    Raises:
        ArzbenchError: it cannot be measured as written.
        KeyboardInterrupt: after what was measured until then has been kept and shown.
    """
    records = calibrations_folder(folder)
    with undone(records):
        store.ensure_writable(records)
        say(console, f"tuning {study_line(study)}")
        with calibration_progress(console) as progress:
            tuner = Tuner(
                study,
                WORKER,
                SystemClock(),
                steps=steps,
                repetitions=repetitions,
                max_s=max_s,
                working=folder,
                records=records,
                progress=progress,
            )
            say(
                console,
                f"{len(tuner.trials)} candidates to begin with, about {format_duration(max_s)} at most "
                "(--max-time); Ctrl-C ends it and keeps what was measured",
            )
            tuner.search()
        found = tuner.result(flags, tuner.save())
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/tuning", found))
        sys.stdout.flush()
    else:
        say(console, f"host: {host_line(found.host)}")
        show(console, tuning_sheets(found))
        for line in tuning_lines(found):
            say(console, line)
    if found.interrupted:
        raise KeyboardInterrupt


def _of_code(what: str) -> UsageError:
    return UsageError(
        f"--tune changes settings of a study, and {what} decides its own",
        "change them there, and calibrate again; --tune takes --study, or --env and --algo",
    )
