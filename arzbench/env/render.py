"""Space-time plots of density as plain RGB arrays."""

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
