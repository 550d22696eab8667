"""Any values of the options of `plan`: a plan, or one clear error."""

import shlex
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calls import CARTPOLE, calibrated, call


@pytest.fixture(scope="module")
def calibrated_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    calibrated(folder)
    return folder


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
NUMBER = st.one_of(st.integers(), st.floats(), st.decimals()).map(str)
TIME = st.builds(
    lambda n, unit: f"{n}{unit}", st.integers(0, 10**7), st.sampled_from(["s", "m", "h", "d", ""])
)
KEY = st.sampled_from(
    ["n_steps", "batch_size", "n_epochs", "total_timesteps", "gamma", "seed", "n_envs",
     "evaluation.eval_freq",
     "evaluation.n_eval_episodes", "checkpoint.checkpoint_freq", "logging.mode", "baseline.episodes", "env"]
)  # fmt: skip
OPTION = st.one_of(
    st.tuples(st.just("--quota"), st.one_of(TIME, TIME, TEXT, NUMBER)),
    st.tuples(st.just("--confidence"), st.one_of(st.floats(0.5, 1).map(str), NUMBER, TEXT)),
    st.tuples(
        st.just("--platform"), st.one_of(st.sampled_from(["local", "kaggle-cpu", "kaggle-p100"]), TEXT)
    ),
    st.tuples(st.just("--set"), st.builds("{}={}".format, KEY, st.one_of(NUMBER, TEXT))),
    st.tuples(st.just("--set"), TEXT),
)


@given(options=st.lists(OPTION, max_size=3), named=st.booleans())
def test_any_options_give_a_plan_or_one_clear_error(
    calibrated_place: Path, options: list[tuple[str, str]], named: bool
) -> None:
    study = shlex.split(CARTPOLE) if named else []
    words = ["plan", "--json", *study, *(word for pair in options for word in pair)]
    ended = call(words, calibrated_place)
    assert ended.code in (0, 2, 3), ended.err
    if ended.code == 0:
        plan = msgspec.json.decode(ended.out)
        assert plan["schema"] == "arzbench/plan"
        assert ended.err == ""
    else:
        assert ended.err.startswith("error: ")
        assert ended.out == ""
