"""Windows: drawn offscreen here; where there can be none, one clear error."""

import importlib.util
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

from arzbench.traffic.env import ENVIRONMENTS

pytest.importorskip("matplotlib")
NAMES = sorted(ENVIRONMENTS)


@pytest.fixture
def offscreen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.usefixtures("offscreen")
def test_checkers_have_nothing_to_say_of_a_window() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(NAMES[0], scheme="first_order", render_mode="human").unwrapped
        assert env.metadata["render_modes"] == ["human", "rgb_array"]
        gymnasium_check(env)
        env.close()
        env.close()


@pytest.mark.usefixtures("offscreen")
def test_a_window_shows_what_rgb_array_returns() -> None:
    options = {"scheme": "first_order", "demand": "rush"}
    human = gymnasium.make("arzbench/TrafficLight-v0", render_mode="human", **options).unwrapped
    array = gymnasium.make("arzbench/TrafficLight-v0", render_mode="rgb_array", **options).unwrapped
    for env in (human, array):
        env.reset(seed=3)
        for action in (0, 1, 1, 0, 0):
            env.step(action)
    assert human.render() is None
    np.testing.assert_array_equal(human._window._image.get_array(), array.render())
    canvas = human._window.figure.canvas
    canvas.draw()
    assert len(np.unique(np.asarray(canvas.buffer_rgba()).reshape(-1, 4), axis=0)) > 10
    human.close()


@pytest.mark.usefixtures("nowhere")
def test_without_a_display_there_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"needs a display .* or use render_mode='rgb_array'"):
        gymnasium.make(NAMES[0], render_mode="human")
    env = gymnasium.make(NAMES[0], scheme="first_order").unwrapped
    assert env.metadata["render_modes"] == ["rgb_array"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(env)


@pytest.mark.usefixtures("offscreen")
def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "matplotlib" else found(name, *more)
    )
    with pytest.raises(ValueError, match=r"arzbench\[plot\]"):
        gymnasium.make(NAMES[0], render_mode="human")


def test_a_display_without_a_toolkit_is_told(nowhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot

    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(matplotlib.pyplot, "get_backend", lambda: "agg")
    with pytest.raises(ValueError, match="window toolkit"):
        gymnasium.make(NAMES[0], render_mode="human")
