# SPDX-License-Identifier: Apache-2.0
"""Shortest paths for the tool between round obstacles: a visibility graph over rings of points. Numpy only.

The tool moves at one height, so it goes around blocks, never over them. The path depends on the present positions
only; that keeps the scripted expert a function of what a policy sees in one frame.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_RING_POINTS = 8
_RING = np.stack(
    [f(np.arange(_RING_POINTS) * 2 * np.pi / _RING_POINTS) for f in (np.cos, np.sin)], axis=1
)
_RING_SCALE = 1.02 / np.cos(
    np.pi / _RING_POINTS
)  # chords between neighbours stay outside the circle
_TOUCH_M = 1e-6


def shortest_path(
    start: Array, goal: Array, centres_N2: Array, radius_m: float, low: Array, high: Array
) -> Array:
    """Return the points, (K, 2) [m], of the shortest path: `start` first, `goal` last.

    An obstacle that already holds start or goal shrinks until it touches that point: a path may always leave.
    Where every way is walled in, the path is the straight line.

    Args:
        start: (2,) where the tool is [m].
        goal: (2,) where it should go [m].
        centres_N2: obstacle centres [m]; N may be 0.
        radius_m: radius of every obstacle, the tool's own size included [m].
        low: (2,) lowest corner that waypoints may be in [m].
        high: (2,) highest corner [m].
    """
    centres = np.asarray(centres_N2, dtype=np.float64).reshape(-1, 2)
    ends = np.minimum(_distances(start[None], centres)[0], _distances(goal[None], centres)[0])
    radii = np.minimum(radius_m, ends - _TOUCH_M)
    if _clear(start[None], goal[None], centres, radii)[0]:
        return np.stack([start, goal])
    ring = (centres[:, None] + radius_m * _RING_SCALE * _RING).reshape(-1, 2)
    inside = (ring >= low).all(axis=1) & (ring <= high).all(axis=1)
    free = (_distances(ring, centres) >= radii).all(axis=1)
    nodes = np.concatenate([start[None], goal[None], ring[inside & free]])
    first, second = np.triu_indices(len(nodes), 1)
    lengths = np.linalg.norm(nodes[first] - nodes[second], axis=1)
    lengths[~_clear(nodes[first], nodes[second], centres, radii)] = np.inf
    edges = np.full((len(nodes), len(nodes)), np.inf)
    edges[first, second] = edges[second, first] = lengths
    to_goal = _lengths_to(1, edges)
    if not np.isfinite(to_goal[0]):
        return np.stack([start, goal])
    path = [0]
    while path[-1] != 1:
        path.append(int(np.argmin(edges[path[-1]] + to_goal)))
    return nodes[path]


def point_along(path_K2: Array, distance_m: float) -> Array:
    """Return the point, (2,) [m], `distance_m` along a path; its end where the path is shorter."""
    for begin, end in pairwise(path_K2):
        length = float(np.linalg.norm(end - begin))
        if distance_m < length:
            return begin + (end - begin) * (distance_m / length)
        distance_m -= length
    return path_K2[-1]


def _lengths_to(goal: int, edges_NN: Array) -> Array:
    """Return the (N,) shortest path lengths from every node to `goal`: Dijkstra on a dense graph."""
    lengths = np.full(len(edges_NN), np.inf)
    lengths[goal] = 0.0
    open_nodes = np.ones(len(edges_NN), dtype=bool)
    while open_nodes.any():
        node = int(np.argmin(np.where(open_nodes, lengths, np.inf)))
        if not open_nodes[node] or not np.isfinite(lengths[node]):
            break
        open_nodes[node] = False
        lengths = np.minimum(lengths, lengths[node] + edges_NN[node])
    return lengths


def _distances(points_N2: Array, centres_M2: Array) -> Array:
    return np.linalg.norm(points_N2[:, None] - centres_M2[None], axis=-1)


def _clear(
    starts_K2: Array, ends_K2: Array, centres_N2: Array, radii_N: Array
) -> NDArray[np.bool_]:
    """Return, for K segments, whether each stays outside every circle."""
    along = ends_K2 - starts_K2
    squared = np.maximum((along**2).sum(axis=1), 1e-12)[:, None]
    to_centre = centres_N2[None] - starts_K2[:, None]
    share = np.clip((to_centre * along[:, None]).sum(axis=-1) / squared, 0.0, 1.0)
    nearest = starts_K2[:, None] + share[..., None] * along[:, None]
    return (np.linalg.norm(centres_N2[None] - nearest, axis=-1) >= radii_N[None] - _TOUCH_M).all(
        axis=1
    )
