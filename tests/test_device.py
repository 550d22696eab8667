"""`--device` and `env_kwargs.device`: what asks for a GPU, what is refused without one, what is recorded."""

from pathlib import Path

import pytest

from arzbench.errors import UsageError
from arzbench.measure import host
from arzbench.study import Study
from arzbench.study_changes import change_study
from arzbench.wiring import checks
from tests import worlds
from tests.calls import refused

OWN = "arzbench/TrafficLight-v0"


def study(env: str = OWN, *changes: str) -> Study:
    return change_study(worlds.study(worlds.config(algo="dqn", env=env, total_timesteps=1000)), changes)


@pytest.mark.parametrize(
    ("asked", "env", "changes"),
    [
        (("cpu", "cpu"), OWN, []),
        (("cuda", "cuda"), OWN, ["device=cuda"]),
        (("auto", "auto"), OWN, ["device=auto"]),
        (("cuda", "cpu"), OWN, ["device=cuda", "env_kwargs.device=cpu"]),
        (("cpu", "cuda"), OWN, ["env_kwargs.device=cuda"]),
        (("cpu", "cuda"), f"arzbench.traffic.env:{OWN}", ["env_kwargs.device=cuda"]),
        (("cuda",), "CartPole-v1", ["device=cuda"]),
        (("cpu",), "CartPole-v1", ["env_kwargs.device=cuda"]),  # an argument of its own
    ],
)
def test_the_roads_are_where_the_net_is_unless_told(
    asked: tuple[str, ...], env: str, changes: list[str]
) -> None:
    (config,) = study(env, *changes).trainings
    assert host.devices(config) == asked


def test_the_device_is_part_of_what_is_calibrated() -> None:
    kinds = [study(), study(OWN, "device=cuda"), study(OWN, "env_kwargs.device=cuda")]
    assert len({s.trainings[0].workload_digest() for s in kinds}) == 3


@pytest.mark.parametrize("gpu", [None, "Tesla T4"])
def test_the_record_says_which_device_auto_is(monkeypatch: pytest.MonkeyPatch, gpu: str | None) -> None:
    monkeypatch.setattr(host, "gpu_name", lambda: gpu)
    for change in ("device=auto", "env_kwargs.device=auto"):
        assert host.host_of(study(OWN, change).trainings[0]).device == (gpu or "cpu")
    assert host.host_of(study().trainings[0]).device == "cpu"


@pytest.mark.parametrize("options", ["--device cuda", "--set device=cuda", "--set env_kwargs.device=cuda"])
@pytest.mark.parametrize("command", ["calibrate", "run --timesteps 100"])
def test_without_a_gpu_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: str
) -> None:
    monkeypatch.setattr(checks, "gpu_name", lambda: None)
    texts = ("device 'cuda': no NVIDIA GPU was found on this machine", "use --device cpu (or auto)")
    refused(f"{command} --env {OWN} --algo dqn {options}", tmp_path, *texts)


def test_the_traffic_model_needs_numba_cuda_there_and_the_net_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "gpu_name", lambda: "Tesla T4")
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    for asked in (study(OWN, "device=cuda"), study(OWN, "env_kwargs.device=cuda")):
        with pytest.raises(UsageError, match="needs numba-cuda there") as caught:
            checks.on_device(asked, None)
        assert 'pip install "arzbench[cuda]"' in caught.value.hint
    checks.on_device(study(OWN, "device=cuda", "env_kwargs.device=cpu"), None)
    checks.on_device(study("CartPole-v1", "device=cuda"), None)


def test_an_unknown_device_of_the_roads_is_told() -> None:
    with pytest.raises(UsageError, match="unknown device 'gpu'") as caught:
        checks.on_device(study(OWN, "env_kwargs.device=gpu"), None)
    assert "auto, cpu, cuda" in caught.value.hint


def test_the_env_is_made_on_the_device_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from arzbench.sb3.building import make_env
    from arzbench.sb3.workload import SB3Workload
    from arzbench.traffic.env import batch

    SB3Workload().load()
    monkeypatch.setattr(batch, "missing_for_cuda", lambda: "no NVIDIA GPU was found on this machine")
    (config,) = study(OWN, "device=auto").trainings
    assert make_env(config).unwrapped.batch.device == "cpu"
    for changes in (["device=cuda"], ["env_kwargs.device=cuda"]):
        with pytest.raises(UsageError, match="device='cuda': no NVIDIA GPU was found"):
            make_env(study(OWN, *changes).trainings[0])
    (config,) = study(OWN, "device=cuda", "env_kwargs.device=cpu").trainings
    assert make_env(config).unwrapped.batch.device == "cpu"
