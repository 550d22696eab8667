"""Space-time plots of density, as plain RGB arrays and in a window."""

import importlib
import importlib.util
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

# From empty road to jam.
COLOURS = np.array([[247, 251, 255], [107, 174, 214], [253, 174, 97], [165, 0, 38]], np.float64)
SCALE = 2  # pixels for one cell and for one decision


def space_time_image(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image, time to the right and space upward, roads above each other.

    Args:
        density: Density over jam density, shape (decisions, roads, cells).

    Returns:
        RGB image, shape (SCALE * (roads * (cells + 1) - 1), SCALE * decisions, 3).
    """
    decisions, roads, cells = density.shape
    rows = np.full((roads * (cells + 1) - 1, decisions), np.nan)
    for road in range(roads):
        start = road * (cells + 1)
        rows[start : start + cells] = density[:, road, ::-1].T
    stops = np.linspace(0.0, 1.0, len(COLOURS))
    level = np.clip(np.nan_to_num(rows), 0.0, 1.0)
    image = np.stack([np.interp(level, stops, COLOURS[:, i]) for i in range(3)], axis=-1)
    image[np.isnan(rows)] = 0.0  # a black line between roads
    out: NDArray[np.uint8] = np.repeat(np.repeat(image, SCALE, 0), SCALE, 1).astype(np.uint8)
    return out


def why_no_window() -> str | None:
    """What is missing for a window here; None if nothing is. Loads nothing."""
    if importlib.util.find_spec("matplotlib") is None:
        return 'the package matplotlib: pip install "arzbench[plot]"'
    if sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    ):
        return None
    return "a display (neither DISPLAY nor WAYLAND_DISPLAY is set); MPLBACKEND=agg draws offscreen"


class Window:
    """A window that shows the latest image, through matplotlib.

    An offscreen backend is taken only if `MPLBACKEND` asks for it.
    """

    def __init__(self, title: str) -> None:
        """Open the window.

        Raises:
            ValueError: If there can be no window here; the message says what is missing.
        """
        if (missing := why_no_window()) is not None:
            raise ValueError(f"render_mode='human' needs {missing}; or use render_mode='rgb_array'")
        self._pyplot: Any = importlib.import_module("matplotlib.pyplot")
        backend = str(self._pyplot.get_backend())
        if backend.lower() == "agg" and not os.environ.get("MPLBACKEND"):
            raise ValueError(
                "render_mode='human' needs a window toolkit that matplotlib can use, such as tkinter or "
                "PyQt6, and a display that answers; or use render_mode='rgb_array'"
            )
        self.figure, self._axes = self._pyplot.subplots(layout="constrained")
        self.figure.canvas.manager.set_window_title(title)
        self._axes.set(xlabel="decision", ylabel="cell, roads above each other")
        self._image: Any = None

    def show(self, image: NDArray[np.uint8]) -> None:
        """Show an image of `space_time_image`; returns at once."""
        height, width = image.shape[0] // SCALE, image.shape[1] // SCALE
        extent = (0, width, 0, height)
        if self._image is None:
            self._image = self._axes.imshow(image, extent=extent, aspect="auto", interpolation="nearest")
            if self._pyplot.get_backend().lower() != "agg":
                self._pyplot.show(block=False)
        self._image.set(data=image, extent=extent)
        self._axes.set(xlim=(0, width), ylim=(0, height))
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window."""
        self._pyplot.close(self.figure)
