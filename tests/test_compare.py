"""`arzbench compare`: the same held-out episodes for all, right intervals, one clear error."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from arzbench import runs
from arzbench.commands.run import run
from arzbench.report.comparison import PolicyResult, compare_policies, comparison_sheets, relative_difference
from tests.calls import call, refused

STUDY = """
schema = "arzbench/study"
version = 1
name = "{name}"
env = "{env}"
algo = "ppo"
total_timesteps = 32
n_envs = 2
vec_normalize = {normalize}
env_kwargs = {kwargs}
[hyperparameters]
n_steps = 16
batch_size = 16
"""
LIGHT = '{scheme = "first_order", demand = "rush"}'


def train(folder: Path, name: str, env: str, kwargs: str = "{}", normalize: str = "false") -> None:
    file = folder / "profiles" / "studies" / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(STUDY.format(name=name, env=env, kwargs=kwargs, normalize=normalize))
    assert run(study=name, timesteps=32, folder=folder) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on the crossing, one that normalises, and one on CartPole-v1, the newest."""
    folder = tmp_path_factory.mktemp("compare")
    train(folder, "light", "arzbench/TrafficLight-v0", LIGHT)
    train(folder, "normal", "arzbench/RampMetering-v0", '{scheme = "first_order"}', "true")
    train(folder, "pole", "CartPole-v1")
    return folder


def as_json(arguments: str, folder: Path) -> dict:
    told = call(f"compare --json {arguments}", folder)
    assert told.code == 0, told.err
    return json.loads(told.out)


def test_the_crossing_is_compared_with_its_baselines(place: Path) -> None:
    found = as_json("--study light --seeds 3", place)
    names = [(p["name"], p["kind"]) for p in found["policies"]]
    assert names == [("fixed_time", "baseline"), ("max_pressure", "baseline"),
                     ("longest_queue", "baseline"), ("light", "trained")]  # fmt: skip
    assert found["seeds"] == [2**33, 2**33 + 1, 2**33 + 2]  # none that a training can draw
    for policy in found["policies"]:
        assert policy["counters"]["negative_cells"] == policy["counters"]["overfull_cells"] == 0
        assert set(policy["values"]) == {
            "delay [veh h]", "throughput [veh]", "queue [veh]", "stops [veh]", "return",
        }  # fmt: skip
        np.testing.assert_allclose(
            policy["values"]["return"], -3.6 * np.array(policy["values"]["delay [veh h]"])
        )
    pairs = {(d["policy"], d["baseline"]) for d in found["differences"]}
    assert {("light", "fixed_time"), ("light", "max_pressure"), ("max_pressure", "fixed_time")} <= pairs


def test_a_model_by_its_file_is_the_run_s(place: Path) -> None:
    (one,) = [r for r in runs.newest_first(place) if r.record.study.name == "light"]
    file = runs.checkpoints_folder(place, one.record.id) / "light.zip"
    by_run = as_json(f"--run {one.record.id} --seeds 2", place)
    by_file = as_json(f"--model {file} --study light --seeds 2", place)
    assert by_file["policies"][-1]["values"] == by_run["policies"][-1]["values"]
    elsewhere = as_json('--study light --set env_kwargs.demand="quiet" --seeds 2', place)
    assert sum(elsewhere["policies"][0]["values"]["delay [veh h]"]) < sum(
        by_run["policies"][0]["values"]["delay [veh h]"]
    )


def test_a_held_out_episode_is_that_of_the_single_env(place: Path) -> None:
    import gymnasium

    from arzbench.traffic.env.crossing import FixedTime

    found = as_json("--study light --seeds 2", place)["policies"][0]["values"]["delay [veh h]"]
    env = gymnasium.make("arzbench/TrafficLight-v0", scheme="first_order", demand="rush")
    controller = FixedTime()
    env.reset(seed=2**33 + 1)
    delay = sum(env.step(controller.action(env))[4]["delay"] for _ in range(240))
    assert found[1] == pytest.approx(delay / 3600, rel=1e-12)


def test_a_normalising_model_comes_with_its_statistics(place: Path) -> None:
    found = as_json("--study normal --seeds 2", place)
    assert found["policies"][0]["name"] == "no_control"
    (one,) = [r for r in runs.newest_first(place) if r.record.study.name == "normal"]
    file = runs.checkpoints_folder(place, one.record.id) / "normal.zip"
    refused(f"compare --model {file} --study normal", place, "--run ID")


def test_another_env_is_compared_by_return_with_random_actions(place: Path) -> None:
    found = as_json("--seeds 4", place)  # the newest run
    assert [p["name"] for p in found["policies"]] == ["random", "pole"]
    assert set(found["policies"][0]["values"]) == {"return", "length [steps]"}
    assert as_json("--seeds 4", place) == found


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_tables_and_figure(place: Path) -> None:
    told = call("compare --study light --seeds 3 --plot picture.png", place)
    assert told.code == 0, told.err
    assert "3 held-out episodes" in told.out
    assert "max_pressure" in told.out
    assert "0 negative cells, 0 overfull cells" in told.out
    assert (place / "picture.png").read_bytes()[:4] == b"\x89PNG"
    for wrong, said in (("profiles", "it is a folder"), ("picture.xyz", "name it .png, .svg or .pdf")):
        refused(f"compare --study light --seeds 2 --plot {wrong}", place, said)


def test_a_figure_without_matplotlib(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "matplotlib" else found(name, *more)
    )
    refused("compare --study light --plot other.png", place, 'pip install "arzbench[plot]"')


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--run nonsense", "unknown run 'nonsense'"),
        ("--study nonsense", "nonsense"),
        ("--study cartpole-ppo", "no run of the study 'cartpole-ppo'"),
        ("--model absent.zip --study light", "no such file: absent.zip"),
        ("--model absent.zip", "add --study NAME, or --env ID --algo NAME"),
        ("--model profiles/studies/light.toml --study light", "not a PPO model"),
        ("--env CartPole-v1 --algo ppo", "add --model FILE.zip"),
        ("--run x --study light", "leave out the other flags"),
        ("--study light --seeds 1", "--seeds 1 is too small"),
        ("--study light --seeds 1_000_000", "--seeds 1000000 is too many"),
        ("--study light --training nonsense", "unknown training 'nonsense'"),
        ("--dir nowhere", "start one: arzbench run"),
        ("--study light --set env_kwargs.demand=heavy", "demand='heavy'"),
    ],
)
def test_bad_input_is_told_in_one_message(arguments: str, told: str, place: Path) -> None:
    refused(f"compare {arguments}", place, told)


def test_an_interval_covers_the_truth_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(5)
    covered, paired, apart = 0, [], []
    for _ in range(200):
        day = rng.normal(100, 20, 50)  # what a seed does to both policies
        baseline, values = day + rng.normal(0, 2, 50), 0.8 * day + rng.normal(0, 2, 50)
        _, low, high = relative_difference(values, baseline, 500)
        covered += low <= -0.2 <= high
        paired.append(high - low)
        _, low, high = relative_difference(rng.permutation(values), baseline, 500)
        apart.append(high - low)
    assert 180 <= covered <= 199
    assert np.mean(paired) < 0.3 * np.mean(apart)


def test_a_difference_to_nothing_or_to_a_negative_mean_has_the_right_sign() -> None:
    ones = np.ones(5)
    assert relative_difference(-ones, -2 * ones) == (0.5, 0.5, 0.5)  # a higher return
    results = [
        PolicyResult(name="a", kind="baseline", values={"m": (0.0, 0.0)}),
        PolicyResult(name="b", kind="trained", values={"m": (1.0, 2.0)}),
    ]
    comparison = compare_policies("E-v0", {}, "a test", [1, 2], results)
    assert comparison.differences[0].relative is None
    assert comparison_sheets(comparison)[1].rows == (("b", "a", "-"),)
