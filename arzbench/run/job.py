"""One session of a job: goes on where the last one ended, and ends before its deadline."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.clock import Clock
from arzbench.digest import digest
from arzbench.errors import ArzbenchError, ExitCode, SessionsUsedError, StateError, UsageError
from arzbench.facts import Phase, StopReason
from arzbench.measure.host import host_of
from arzbench.predict.landing import LEAVE_S, UPLOAD_MOST_S
from arzbench.predict.remaining import Predict, RunState
from arzbench.records import CostModel, Plan
from arzbench.run import ledger as ledgers
from arzbench.run.context import EndPrediction, RunContext, RunProgress
from arzbench.run.control import TrainingControl
from arzbench.run.guard import SURPRISE, Guard
from arzbench.run.ledger_writer import LedgerWriter
from arzbench.run.progress import Display, Progress, told_if_slow
from arzbench.run.resume import ResumePoint, find_resume_point, model_file
from arzbench.run.signals import Signals
from arzbench.run.stall import StallWatcher
from arzbench.saves.checkpoints import Checkpoint, CheckpointStore
from arzbench.saves.lock import only_run
from arzbench.saves.saver import Saver
from arzbench.saves.uploads import UNLIMITED_FLUSH_S, Uploads
from arzbench.study import Study, TrainConfig
from arzbench.training_state import TIERS
from arzbench.user_code import users_trace
from arzbench.workload import AbstractTraining, AbstractWorkload, StopTraining

__all__ = ["Display", "Predict", "Progress", "RunOutcome", "RunRequest", "RunState", "open_job", "run_job"]

EXIT_CODES = {
    StopReason.FINISHED: ExitCode.OK,
    StopReason.BUDGET: ExitCode.OK,
    StopReason.DEADLINE: ExitCode.MORE_TO_DO,
    StopReason.SIGNAL: ExitCode.MORE_TO_DO,
    StopReason.FAILED: ExitCode.FAILURE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What to run, and where it is kept."""

    study: Study
    budgets: tuple[int, ...]  # training env steps, per training; 0 leaves one out
    quota_s: float | None = None  # of this session
    plan: Plan | None = None
    run_id: str
    run_folder: Path  # plan.json, ledger.jsonl, error.txt
    checkpoint_folder: Path  # checkpoints and exported models
    session_start: float  # clock.now() when the quota began: at the start of the process
    max_sessions: int | None = None  # of the run in all
    sessions: int = 0  # known to have begun, elsewhere too
    stall_s: float | None = None  # without a step until it is reported; None: never
    leave_s: float = LEAVE_S  # from the return of `run_job` to the end of the process
    predict: Predict | None = None
    uploads: Uploads | None = None  # where checkpoints are copied to
    save_beside: bool = True  # in a thread; not where time is not the machine's


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a session ended. Times in seconds."""

    reason: StopReason
    detail: str
    num_timesteps: tuple[int, ...]  # per training, over all sessions
    elapsed_s: float  # of the job, over all its sessions
    session_s: float
    session: int
    slack_s: float | None  # left of the quota; None without one
    checkpoint: Path | None  # the newest
    notes: tuple[str, ...] = ()
    sessions_left: int | None = None  # that the run may still have; None without a limit
    trace: str = ""  # where in the user's own code an error came from

    @property
    def exit_code(self) -> ExitCode:
        """What the process tells the shell."""
        code = EXIT_CODES[self.reason]
        used_up = code is ExitCode.MORE_TO_DO and self.sessions_left == 0
        return ExitCode.SESSIONS_USED if used_up else code


def run_job(request: RunRequest, workload: AbstractWorkload, clock: Clock, display: Display) -> RunOutcome:
    """Run the trainings of a study to their budgets, or until the deadline or a signal.

    After a deadline or a signal everything is durable when this returns: leave at once (`os._exit`).

    Raises:
        UsageError: the workload cannot run here, a folder cannot be written, or a checkpoint is of
            a newer arzbench. Nothing was written to the run.
        StateError: another run holds the folder, or no sound checkpoint of this study is left.
        StopTraining: asked to end while the workload was loaded. Nothing was written to the run.
    """
    with open_job(request, workload, clock, display) as job:
        job.train_all()
        return job.end()


@contextlib.contextmanager
def open_job(
    request: RunRequest, workload: AbstractWorkload, clock: Clock, display: Display
) -> Iterator[Job]:
    """One session of a job, its trainings to be asked for one by one; raises as `run_job` does."""
    if len(request.budgets) != len(request.study.trainings):
        raise UsageError(f"{len(request.budgets)} budgets for {len(request.study.trainings)} trainings")
    with contextlib.ExitStack() as stack:
        stack.callback(display.close)
        signals = stack.enter_context(Signals())
        store.ensure_writable(request.run_folder)
        store.ensure_writable(request.checkpoint_folder)
        stack.enter_context(only_run(request.checkpoint_folder))
        CheckpointStore(request.checkpoint_folder, 1, clock).clean()
        resume = find_resume_point(request.study, request.checkpoint_folder, clock)
        with signals.at_once():
            versions = workload.load()
            for config in _to_check(request, resume):
                workload.check(config)
        context = _open_session(request, resume, versions, signals, clock, display)
        stack.callback(context.ledger.close)
        if request.uploads is not None:
            stack.callback(request.uploads.close)
        stack.callback(context.saver.close)
        yield Job(request, workload, resume, context, signals)


def _to_check(request: RunRequest, resume: ResumePoint) -> list[TrainConfig]:
    """One training of each kind that will be made anew: a check builds an env and costs seconds."""
    new = zip(request.study.trainings, request.budgets, resume.by_training, strict=True)
    kinds = {t.workload_digest(): t for t, budget, saved in new if budget and saved is None}
    return list(kinds.values())


def _open_session(
    request: RunRequest,
    resume: ResumePoint,
    versions: dict[str, str],
    signals: Signals,
    clock: Clock,
    display: Display,
) -> RunContext:
    start = request.session_start
    guard = Guard(
        clock,
        signals,
        session_start=start,
        quota_s=request.quota_s,
        leave_s=request.leave_s,
        uploads=request.uploads is not None,
    )
    newest = resume.newest
    manifest = None if newest is None else newest.manifest
    ledger = LedgerWriter(request.run_folder / ledgers.FILE, manifest, start, clock, request.sessions)
    if request.max_sessions is not None and ledger.session > request.max_sessions:
        raise SessionsUsedError(
            f"run {request.run_id} has had its {request.max_sessions} sessions",
            f"one more: --max-sessions {ledger.session}",
        )
    if request.uploads is not None:
        request.uploads.take(request.run_id, request.budgets, ledger.session, clock.wall().isoformat())
    guard.resumed(ledger.saves, 0 if newest is None else newest.bytes)
    return RunContext(
        study=request.study,
        budgets=request.budgets,
        start=start,
        quota_s=request.quota_s,
        clock=clock,
        guard=guard,
        ledger=ledger,
        display=display,
        saver=Saver(beside=request.save_beside),
        predict=request.predict,
        versions=versions,
        uploads=request.uploads,
    )


class Job:
    """The trainings of a study, in order.

    Attributes:
        error: What a training raised that ended the session; None for another end.
        env_errors: How many errors of envs the session goes on after, where a study allows no more.
    """

    def __init__(
        self,
        request: RunRequest,
        workload: AbstractWorkload,
        resume: ResumePoint,
        context: RunContext,
        signals: Signals,
    ) -> None:
        """Write the session's first entry in the ledger."""
        self._request = request
        self._workload = workload
        self._resume = resume
        self._context = context
        ledger, newest = context.ledger, resume.newest
        self._progress = RunProgress(
            steps=resume.steps,
            observed=[ledger.observed(index) for index in range(len(request.budgets))],
            episode_s=ledger.episode_s,
            checkpoint=None if newest is None else newest.path,
        )
        self._end_prediction = EndPrediction(context, self._progress)
        self._signals = signals
        self._notes = self._progress.notes
        self.env_errors = 0
        self._env_errors_met = 0
        self._training: AbstractTraining | None = None  # not closed yet
        self._compiled = False
        self._built_s = 0.0  # the longest that making a training took
        self._ended_early: set[int] = set()  # trainings that ended by their own will
        self._stopped: tuple[StopReason, str] | None = None
        self.error: BaseException | None = None
        self._begin()
        if context.uploads is not None and newest is not None:
            context.uploads.offer(newest.path)  # a session before may not have got to it

    def train_all(self) -> None:
        """Each training in order, as far as the session goes."""
        for index in range(len(self._request.budgets)):
            if not self.train(index):
                return

    def train(self, index: int) -> bool:
        """One training to its budget, its final state saved and its model exported; whether it got there."""
        while self._stopped is None and not self._train_or_stop(index):
            pass
        return self._stopped is None

    def _train_or_stop(self, index: int) -> bool:
        """Whether the training is done; it is to be tried once more where an env failed, and may."""
        context, ledger = self._context, self._context.ledger
        watched = (context.guard, ledger, self._request.run_folder, context.clock, self._request.stall_s)
        try:
            with StallWatcher(*watched):  # not while the last upload is waited for
                self._train(index)
            return True
        except StopTraining as stop:
            reason, detail = stop.reason, stop.detail
            if not self._progress.worked:
                detail = f"nothing was done in this session: {detail}"
            if reason is StopReason.DEADLINE and not self._progress.worked and ledger.idle_before:
                # "more to do" would be repeated for ever
                reason = StopReason.FAILED
                detail = f"no session of this quota gets further; give it a longer one (--quota). {detail}"
            self._stopped = reason, detail
        except (Exception, SystemExit) as error:  # an env may call sys.exit
            if not self._back_to_save(error, index):
                self.fail(error)
        return False

    def _back_to_save(self, error: BaseException, index: int) -> bool:
        """Whether `error` is an env's and one may go on after it: the training is where it was last saved."""
        config = self._request.study.trainings[index]
        allowed = max(config.env_errors or 0, self.env_errors)
        if self._env_errors_met >= allowed or not self._workload.is_of_env(error):
            return False
        self._env_errors_met += 1
        if self._training is not None:
            with contextlib.suppress(Exception):  # its connection may be gone
                self._training.close()
        with contextlib.suppress(ArzbenchError):
            folder = self._request.checkpoint_folder
            self._resume = find_resume_point(self._request.study, folder, self._context.clock)
        saved = self._resume.by_training[index]
        text = (
            f"{config.name}: the env failed ({_describe(error)}), {self._env_errors_met} of {allowed} times "
            f"allowed; back to step {self._resume.steps[index]:,}"
        )
        self._notes.append(text)
        self._context.display.say(f"  {text}")
        self._context.ledger.write(
            "env_error",
            error=_describe(error),
            number=self._env_errors_met,
            allowed=allowed,
            back_to=None if saved is None else saved.path.name,
            rewound_to=0 if self._resume.newest is None else self._resume.newest.manifest.ledger,
        )
        return True

    def fail(self, error: BaseException) -> None:
        """End the session for what the user's code raised, if nothing ended it before."""
        if self._stopped is not None:
            return
        self.error = error
        self._stopped = StopReason.FAILED, _describe(error)
        text = f"session {self._context.ledger.session}, step {self._context.ledger.step}\n\n"
        text += "".join(traceback.format_exception(error))
        with contextlib.suppress(StateError):  # a full disk may be the very error
            store.write_atomic(self._request.run_folder / "error.txt", text.encode())

    def stop(self, detail: str) -> None:
        """End the session as failed for want of what `detail` says, if nothing ended it before."""
        self._stopped = self._stopped or (StopReason.FAILED, detail)

    @property
    def reason(self) -> StopReason | None:
        """Why the session goes no further; None as long as it does."""
        return None if self._stopped is None else self._stopped[0]

    @property
    def detail(self) -> str:
        """More of the reason, in words."""
        return "" if self._stopped is None else self._stopped[1]

    @property
    def steps(self) -> list[int]:
        """Training env steps done, per training."""
        return self._progress.steps

    @property
    def elapsed_s(self) -> float:
        """Seconds that the job has taken, over all its sessions."""
        return self._context.ledger.elapsed_s

    @property
    def left_s(self) -> float | None:
        """Seconds left of the quota; None without one."""
        if self._context.quota_s is None:
            return None
        return self._context.guard.deadline - self._context.clock.now()

    def whole(self, index: int) -> bool:
        """Whether a training is done to the study's own end."""
        total = self._request.study.trainings[index].total_timesteps
        return self._progress.steps[index] >= total or index in self._ended_early

    def end(self) -> RunOutcome:
        """Write the session's last entry in the ledger, and wait for the last upload."""
        if self._stopped is None:
            whole = all(map(self.whole, range(len(self._request.budgets))))
            self._stopped = (StopReason.FINISHED if whole else StopReason.BUDGET), ""
        return self._end(*self._stopped)

    def _begin(self) -> None:
        request, ledger, newest = self._request, self._context.ledger, self._resume.newest
        first = request.study.trainings[0]
        host = host_of(first)
        versions = self._context.versions
        plan_file = request.run_folder / "plan.json"
        if request.plan is not None and not plan_file.exists():
            store.save(plan_file, "arzbench/plan", request.plan)
        self._notes += [f"skipped {name}: {why}" for name, why in self._resume.skipped.items()]
        if newest is not None:
            before = ledger.previous_host
            differs = [] if before is None else host.differs_from(before)
            known = newest.manifest.versions
            differs += sorted(k for k in {*known, *versions} if known.get(k) != versions.get(k))
            if differs:
                self._notes.append(f"resumed with other {', '.join(differs)}: not bitwise the same")
        took = self._context.clock.now() - request.session_start - self._workload.checked_s
        ledger.write(
            "session",
            {Phase.IMPORT.value: (max(0.0, took), 1)},
            run=request.run_id,
            study=digest(request.study),
            plan=None if request.plan is None else request.plan.id,
            budgets=request.budgets,
            quota_s=request.quota_s,
            host=msgspec.to_builtins(host),
            versions=versions,
            resumed_from=None if newest is None else newest.path.name,
            tier=None if newest is None else newest.manifest.tier,
            rewound_to=ledger.rewound_to,
            notes=self._notes,
        )

    def _train(self, index: int) -> None:
        guard = self._context.guard
        config, saved = self._request.study.trainings[index], self._resume.by_training[index]
        budget = self._request.budgets[index]
        model = self._request.checkpoint_folder / model_file(self._request.study, index)
        done = saved is not None and saved.manifest.done and saved.manifest.num_timesteps >= budget
        if not budget or (done and model.exists()):
            return
        self._context.ledger.training, self._context.ledger.step = index, self._progress.steps[index]
        guard.begin(config, self._model(config))
        guard.require(max(guard.cost_of(Phase.BUILD), SURPRISE * self._built_s), f"building {config.name}")
        if not self._compiled:
            with self._signals.at_once():
                self._compile(config)
        checkpoints = CheckpointStore(
            self._request.checkpoint_folder,
            config.checkpoint.keep_last,
            self._context.clock,
            pinned=None if self._context.uploads is None else self._context.uploads.pinned,
        )
        checkpoints.skipped.update(self._resume.skipped)
        checkpoints.adopt(saved)
        control = TrainingControl(self._context, self._progress, self._end_prediction, index, checkpoints)
        if saved is not None:
            control.best, control.awaited = saved.manifest.best, saved.manifest.awaits or None
        began = self._context.clock.now()
        self._training = None
        waiting = told_if_slow(self._context.display.say, f"making {config.env} for {config.name}")
        with self._signals.at_once(), waiting:
            training = self._training = self._create(control, config, budget, saved)
        if training.unsaved:
            self._notes.append(f"not saved with {config.name}: {'; '.join(training.unsaved[:5])}")
        self._built_s = max(self._built_s, self._context.clock.now() - began)
        control.start(training, save_first=saved is None and max(config.env_errors or 0, self.env_errors) > 0)
        aside = model.with_name(f".{model.name}")
        self._drive(training, control, index, aside, done=done)
        os.replace(aside, model)
        store.fsync_directory(model.parent)
        training.close()

    def _drive(
        self, training: AbstractTraining, control: TrainingControl, index: int, model: Path, *, done: bool
    ) -> None:
        """Run a training unless `done`, and export it to `model` beside its last save. Both are durable."""
        try:
            if not done:
                try:
                    training.run(control)
                except StopTraining:
                    control.flush(training)
                    self._tell_how(training)
                    if training.consistent:
                        control.save(training)
                    else:
                        control.finish_save()
                        self._progress.steps[index] = control.kept_steps
                    raise
                self._tell_how(training)
                control.begin_save(training, done=True)
            if training.ended:
                self._ended_early.add(index)
                self._notes.append(f"{training.config.name}: {training.ended}")
            try:
                name = self._request.study.trainings[index].name
                # within what is held back for a save
                self._context.guard.require(0.0, f"exporting {name}")
                training.export(str(model))
                with model.open("rb") as file:
                    os.fsync(file.fileno())  # a next session trusts what bears its final name
            finally:
                control.finish_save()
        except (Exception, SystemExit):
            with contextlib.suppress(StateError):  # a full disk may be the very error
                control.finish_save()
            with contextlib.suppress(StateError):
                control.flush(training)  # the time was spent; the state may be halfway and is not saved
            self._progress.steps[index] = control.kept_steps
            self._progress.observed[index] = control.kept_observed
            raise

    def _tell_how(self, training: AbstractTraining) -> None:
        if training.computed:
            self._context.ledger.write("computed", said=training.computed)

    def _create(
        self, control: TrainingControl, config: TrainConfig, budget: int, saved: Checkpoint | None
    ) -> AbstractTraining:
        clock, recorder = self._context.clock, control.recorder
        if saved is None:
            return self._workload.create(config, recorder, budget=budget)
        began = clock.ticks()
        training = self._workload.create(config, recorder, budget=budget, state=saved.load())
        # what `create` reported itself (building) is not counted twice
        reported = sum(seconds for seconds, _ in recorder.totals.values())
        recorder.add(Phase.RESTORE, max(0.0, clock.ticks() - began - reported))
        tier = training.resumed or saved.manifest.tier
        self._context.ledger.write("resumed", tier=tier, said=TIERS[tier], saved_as=saved.manifest.tier)
        if tier in ("reset", "unproven"):
            why = f" ({'; '.join(training.unseen[:5])})" if training.unseen else ""
            self._notes.append(f"{config.name} went on from {saved.path.name}, {TIERS[tier]}{why}")
        return training

    def _compile(self, config: TrainConfig) -> None:
        """Pay for just-in-time compilation before the first training, as a calibration measures it."""
        self._compiled = True
        clock = self._context.clock
        began = clock.ticks()
        self._workload.first_step(config)
        took = self._workload.checked_s + clock.ticks() - began
        self._context.ledger.write("phases", {Phase.JIT.value: (took, 1)})

    def _model(self, config: TrainConfig) -> CostModel | None:
        """The plan's prices for a training."""
        models = () if self._request.plan is None else self._request.plan.models
        identity = config.workload_digest()
        return next((m for m in models if m.workload == identity), None)

    def _end(self, reason: StopReason, detail: str) -> RunOutcome:
        ledger = self._context.ledger
        now, most = self._context.clock.now(), self._request.max_sessions
        slack = None if self._context.quota_s is None else self._context.guard.deadline - now
        ledger.write(
            "stop",
            reason=reason.name.lower(),
            said=reason.value,
            detail=detail,
            worked=self._progress.worked,
            num_timesteps=self._progress.steps,
            session_s=now - self._context.start,
            slack_s=slack,
            checkpoint=None if self._progress.checkpoint is None else self._progress.checkpoint.name,
        )
        ledger.sync()
        if self._context.uploads is not None:
            left_s = UPLOAD_MOST_S if reason is StopReason.SIGNAL else UNLIMITED_FLUSH_S
            if slack is not None:
                left_s = min(left_s, slack - self._request.leave_s)
            self._notes += self._context.uploads.flush(left_s)
            slack = None if slack is None else self._context.guard.deadline - self._context.clock.now()
        return RunOutcome(
            reason=reason,
            detail=detail,
            num_timesteps=tuple(self._progress.steps),
            elapsed_s=ledger.elapsed_s,
            session_s=now - self._context.start,
            session=ledger.session,
            slack_s=slack,
            checkpoint=self._progress.checkpoint,
            notes=tuple(self._notes),
            sessions_left=None if most is None else most - ledger.session,
            trace=users_trace(self.error),
        )


def _describe(error: BaseException) -> str:
    """The error in one line, with its hint where it has one."""
    if isinstance(error, ArzbenchError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return f"{type(error).__name__}: {error}"
