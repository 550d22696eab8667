"""Bad input: one message with the value and the fix, the documented exit code, and nothing written."""

from pathlib import Path

import msgspec
import pytest

from arzbench import store
from arzbench.measure.host import host_info
from tests.calls import CARTPOLE, calibrated, call, listing, refused

LONG = "x" * 5000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a calibration and files that are broken in many ways."""
    calibrated(tmp_path)
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "folder.json").mkdir()
    head = 'schema = "arzbench/study"\nversion = 1\nname = "s"\n'
    good = head + 'env = "CartPole-v1"\nalgo = "ppo"\ntotal_timesteps = 1000\n'
    platform = (
        'schema = "arzbench/platform"\nversion = 1\ntitle = "t"\nsource = "s"\nchecked = "2026-01-01"\n'
    )
    files = {
        "broken.toml": "name = [",
        "wrong-types.toml": head + 'env = 5\nalgo = "ppo"\ntotal_timesteps = "many"\nn_envs = 1.5\n',
        "typo.toml": good + "total_timestep = 5\n[hyperparameters]\nn_stpes = 5\n",
        "nan.toml": good + "[hyperparameters]\ngamma = nan\n",
        "bad-limit.toml": platform + "session_s = -1\n",
        "broken.json": '{"schema": "arzbench/plan", ',
        "other.json": '{"schema": "arzbench/run", "version": 1}',
        "newer.json": '{"schema": "arzbench/plan", "version": 99}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


# (arguments, what must be told); all are wrong usage
REFUSED = [
    # commands and options
    ("trian", ["unknown command 'trian'", "calibrate, ", "plan, quota, report, run"]),
    ("plam", ["unknown command 'plam'", "did you mean 'plan'?"]),
    ("plan --qouta 1h", ["--qouta", "--quota", "arzbench plan --help"]),
    ("plan --quota", ["--quota", "requires an argument"]),
    ("plan extra", ["no script 'extra'", "calls arzbench.learn"]),
    # algorithms, envs and hyper-parameters
    (
        "plan --env CartPole-v1 --algo pppo",
        ["'pppo'", "did you mean 'ppo'?", "a2c, ars, crossq, ddpg, dqn"],
    ),
    ("plan --env CartPole-v1 --algo ''", ["unknown algorithm ''", "a2c, ars"]),
    ("plan --algo ppo", ["--env is missing"]),
    ("plan --env CartPole-v1", ["--algo is missing", "a2c, ars"]),
    (f"plan {CARTPOLE} --set n_stpes=5", ["'n_stpes'", "n_steps"]),
    (f"plan {CARTPOLE} --set n_steps=many", ["n_steps=many", "int"]),
    (f"plan {CARTPOLE} --set n_steps=0", ["n_steps = 0", "at least 1"]),
    (f"plan {CARTPOLE} --set seed=-1", ["seed = -1", "negative"]),
    (f"plan {CARTPOLE} --set n_steps.x=5", ["n_steps.x", "not a table"]),
    (f"plan {CARTPOLE} --set evaluation=5", ["evaluation=5", "object"]),
    (f"plan {CARTPOLE} --set evaluation.often=5", ["evaluation.often", "eval_freq"]),
    (f"plan {CARTPOLE} --set logging.mode=loud", ["loud", "off, periodic, every"]),
    (f"plan {CARTPOLE} --set gamma=nan", ["gamma = nan", "finite"]),
    (f"plan {CARTPOLE} --set env_kwargs.x=-inf", ["env_kwargs.x = -inf", "finite"]),
    (f"plan {CARTPOLE} --set learning_rate=1e999", ["learning_rate = inf", "finite"]),
    (f"plan {CARTPOLE} --set 'policy_kwargs={{a=[1, nan]}}'", ["policy_kwargs.a.1 = nan"]),
    (f"plan {CARTPOLE} --set n_steps", ["'n_steps'", "key=value", "--set n_steps=512"]),
    (f"plan {CARTPOLE} --set =5", ["'=5'", "key=value"]),
    ("plan --study incident --set algo=ppo", ["algo", "--env and --algo"]),
    ("plan --study incident --env CartPole-v1", ["--study and --env each name a study", "one of them"]),
    # numbers
    ("plan --quota 12x", ["'12x'", "45s", "1-06:00:00"]),
    (f"plan --quota {LONG}", [repr(LONG), "45s"]),
    (f"plan {CARTPOLE} --confidence nan", ["--confidence nan", "0.95"]),
    (f"plan {CARTPOLE} --confidence 1", ["--confidence 1", "0.95"]),
    (f"plan {CARTPOLE} --confidence sure", ["'sure'", "0.95"]),
    ("calibrate --steps 0", ["--steps 0", "at least 1"]),
    ("calibrate --steps 1.5", ["'1.5'", "whole number"]),
    (f"calibrate --steps {'9' * 5000}", ["whole number"]),
    ("calibrate --repetitions 1", ["--repetitions 1", "at least 2"]),
    ("calibrate --max-time 5", ["'5'", "45s"]),
    (f"run {CARTPOLE} --timesteps nan", ["'nan'", "--timesteps 1000"]),
    ("run --timesteps 1000000", ["1,000,000", "100,000", "--set total_timesteps=N"]),
    ("run --timesteps 511", ["--timesteps 511", "at least --timesteps 512"]),
    # names
    ("plan --platform kagle-cpu", ["'kagle-cpu'", "did you mean 'kaggle-cpu'?", "colab-free"]),
    ("plan --platform ../x", ["'../x'", "kaggle-cpu"]),
    ("plan --study incidnt", ["'incidnt'", "did you mean 'incident'?", "cartpole-ppo"]),
    ("plan --study ''", ["unknown study ''", "cartpole-ppo"]),
    ("plan --study ü☃", ["'ü☃'", "cartpole-ppo"]),
    (f"plan --study {LONG}", ["too long", "shorten"]),
    (f"plan --platform {LONG}", ["too long", "shorten"]),
    (f"plan --dir {LONG}", ["too long", "shorten"]),
    (f"run --plan {LONG}", ["File name too long"]),
    ("calibrate --device gpu", ["'gpu'", "auto, cpu, cuda"]),
    ("run --auto-budget --device cpu", ["--device", "--study NAME"]),
    # files
    ("plan --study a-file", ["'a-file'", "cartpole-ppo"]),
    ("plan --study folder.toml", ["'folder.toml'", "cartpole-ppo"]),
    ("plan --study broken.toml", ["broken.toml", "not valid TOML", "docs/reference/formats.md"]),
    ("plan --study wrong-types.toml", ["wrong-types.toml", "env:", "total_timesteps:", "n_envs:"]),
    ("plan --study typo.toml", ["'total_timestep'", "'n_stpes'", "total_timesteps", "n_steps"]),
    ("plan --study nan.toml", ["nan.toml", "gamma = nan"]),
    ("plan --platform folder.toml", ["'folder.toml'", "kaggle-cpu"]),
    ("plan --platform bad-limit.toml", ["session_s = -1", "greater than zero"]),
    ("run --plan none.json", ["no plan at none.json", "arzbench plan"]),
    ("run --plan folder.json", ["folder.json", "directory", "arzbench plan"]),
    ("run --plan broken.json", ["broken.json", "not valid JSON"]),
    ("run --plan other.json", ["other.json", "arzbench/plan", "arzbench/run"]),
    ("run --plan newer.json", ["newer.json", "version 99", "pip install --upgrade"]),
    # folders
    ("plan --dir a-file", ["--dir a-file is not a folder"]),
    ("report --dir a-file", ["--dir a-file is not a folder"]),
    (f"plan {CARTPOLE} --output folder.json", ["folder.json", "it is a folder", "--output"]),
    (f"plan {CARTPOLE} --output a-file/plan.json", ["cannot write in a-file", "--output"]),
    # what is not there
    (
        "plan --study incident",
        ["no fitting calibration", "another workload", "arzbench calibrate --study incident"],
    ),
    ("plan --dir nowhere", ["no fitting calibration", "arzbench calibrate"]),
    ("run --auto-budget --dir nowhere", ["no fitting calibration", "arzbench calibrate"]),
    ("report", ["no run in reports", "arzbench run --auto-budget"]),
    ("run --run mine", ["no run in reports"]),
    # contradictions
    ("run", ["how much to train", "--auto-budget", "--plan FILE", "--timesteps N", "--run ID"]),
    ("run --auto-budget --timesteps 5", ["--auto-budget, --plan and --timesteps exclude each other"]),
    ("run --plan x.json --timesteps 5", ["--auto-budget, --plan and --timesteps exclude each other"]),
    ("run --run x --fresh", ["--run", "--fresh", "give one of them"]),
    ("run --auto-budget --quota 1h --option Z", ["'Z'", "A, B, C"]),
    ("plan --quota 13h --platform kaggle-cpu", ["--quota 13h", "kaggle-cpu", "--quota 43200s"]),
]


@pytest.mark.parametrize(("arguments", "told"), REFUSED, ids=[a[:60] for a, _ in REFUSED])
def test_bad_input_is_told_in_one_message(arguments: str, told: list[str], place: Path) -> None:
    refused(arguments, place, *told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--env CartPole-v9 --algo ppo", ["'CartPole-v9'", "did you mean 'CartPole-v1'?"]),
        ("--env arzbench/TraficLight-v0 --algo dqn", ["did you mean 'arzbench/TrafficLight-v0'?"]),
        ("--env CartPole-v1 --algo sac", ["SAC", "Discrete(2)", "a2c, ars, dqn"]),
        ("--env CartPole-v1 --algo ppo --set learning_rate=fast", ["learning_rate = 'fast'", "a schedule"]),
        ("--env CartPole-v1 --algo ppo --set env_kwargs.wings=2", ["CartPole-v1", "wings"]),
        ("--env no.such.module:X-v0 --algo ppo", ["no.such.module:X-v0", "no.such"]),
    ],
)
def test_a_training_that_cannot_be_made_leaves_no_run(
    arguments: str, told: list[str], tmp_path: Path
) -> None:
    refused(f"run {arguments} --timesteps 4096", tmp_path, *told)


def test_calibrating_an_unknown_env_leaves_nothing(tmp_path: Path) -> None:
    ended = call("calibrate --env CartPole-v9 --algo ppo --dir deep/er", tmp_path)
    assert ended.code == 2, ended.err
    assert "unknown env 'CartPole-v9'" in ended.err
    assert listing(tmp_path) == {}


@pytest.mark.parametrize(
    ("in_the_way", "arguments"),
    [
        ("profiles", "calibrate"),
        ("reports/plans", f"plan {CARTPOLE}"),
        ("reports", f"run {CARTPOLE} --timesteps 512"),
        ("checkpoints", f"run {CARTPOLE} --timesteps 512"),
    ],
)
def test_a_file_in_the_place_of_a_folder(in_the_way: str, arguments: str, tmp_path: Path) -> None:
    if in_the_way != "profiles":
        calibrated(tmp_path)
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("in the way")
    refused(arguments, tmp_path, f"cannot write in {in_the_way}", "--dir")


def test_a_calibration_of_another_host_is_refused_and_can_be_allowed(tmp_path: Path) -> None:
    path = calibrated(tmp_path)
    path.write_text(path.read_text().replace(f'"name": "{host_info().name}"', '"name": "elsewhere"'))
    refused(f"plan {CARTPOLE} --quota 1h", tmp_path, "another host (name 'elsewhere')", "--allow-foreign")
    allowed = call(f"plan {CARTPOLE} --quota 1h --allow-foreign", tmp_path)
    assert allowed.code == 0, allowed.err
    assert "not measured here" in allowed.out
    assert "widened" in allowed.out


def test_a_damaged_calibration_is_named(tmp_path: Path) -> None:
    path = calibrated(tmp_path)
    path.write_text("{")
    refused("plan", tmp_path, path.name)


def test_a_quota_too_short_names_the_least_that_works(place: Path) -> None:
    for command in ("plan", "run --auto-budget"):
        error = refused(f"{command} --quota 2s", place, "2.0 s is too short", code=3)
    least = error.rpartition("--quota ")[2].strip()
    assert call(f"plan --quota {least}", place).code == 0
    one_less = f"{int(least.removesuffix('s')) - 1}s"
    assert call(f"plan --quota {one_less}", place).code == 3


@pytest.mark.parametrize("what", ["run.json", "ledger.jsonl", "plan.json"])
def test_a_damaged_or_unknown_run_is_named(what: str, place: Path) -> None:
    assert call("plan --output plan.json", place).code == 0
    run = place / "reports" / "mine"
    run.mkdir(parents=True)
    plan = msgspec.json.decode((place / "plan.json").read_bytes())
    record = {key: plan[key] for key in ("created", "study", "study_digest", "host")}
    record |= {"id": "mine", "budgets": [512], "why": "a test", "quota_s": None, "predicted": None}
    (run / "run.json").write_bytes(store.encode("arzbench/run", record))
    assert call("report --run mine", place).code == 0
    refused("report --run yours", place, "unknown run 'yours'", "valid: mine")
    (run / what).write_text('{"kind":\n{}\n')
    refused("report", place, f"reports/mine/{what}")


def test_help_names_the_exit_codes_and_where_to_start(tmp_path: Path) -> None:
    ended = call("--help", tmp_path)
    assert ended.code == 0
    said = " ".join(ended.out.split())
    assert "2 wrong usage, 3 will not fit the quota, 4 stopped with more to do" in said
    assert "arzbench calibrate" in said
