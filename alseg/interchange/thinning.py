"""Strokes and areas thinned to points, by a rule that has no chance in it."""

from __future__ import annotations

import numpy as np


def thinned(values: np.ndarray, distance: int) -> np.ndarray:
    """Points of a map of classes, int64 [n, 2] as (y, x), row by row.

    values: integers [H, W], -1 where nothing is labelled. Within each 8-connected region of one class, pixels are
    taken from the inside out (by their Euclidean distance to the nearest pixel that is not of the region, ties row
    by row), each unless one that lies less than `distance` pixels away was taken before it. So a stroke gives
    points along its middle, every region gives at least one, and no pixel is `distance` or farther from a point
    of its region.
    """
    from scipy import ndimage

    regions = np.zeros(values.shape, np.int64)
    depth = np.zeros(values.shape)
    for value in np.unique(values[values >= 0]):
        own = values == value
        found, _ = ndimage.label(own, np.ones((3, 3)))
        regions += np.where(own, found + regions.max(), 0)
        depth[own] = ndimage.distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1][own]  # the image's border is an edge
    ys, xs = np.nonzero(regions)
    order = np.argsort(-depth[ys, xs], kind="stable")
    reach = np.arange(1 - distance, distance)
    near = reach[:, None] ** 2 + reach[None] ** 2 < distance**2
    free, taken = regions.copy(), []
    for y, x in zip(ys[order].tolist(), xs[order].tolist(), strict=True):
        if free[y, x]:
            taken.append((y, x))
            top, left = max(0, y - distance + 1), max(0, x - distance + 1)
            window = (slice(top, y + distance), slice(left, x + distance))
            part = free[window]
            disc = near[top - y + distance - 1 :, left - x + distance - 1 :][: part.shape[0], : part.shape[1]]
            part[disc & (regions[window] == regions[y, x])] = 0
    return np.array(sorted(taken), np.int64).reshape(-1, 2)
