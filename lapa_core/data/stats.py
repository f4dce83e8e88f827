# SPDX-License-Identifier: Apache-2.0
"""Statistics of features as LeRobot v3 stores them: per episode, and aggregated over the data set.

The quantiles of a data set are count-weighted means of those of its episodes, because that is what
the format's own tools write; action bins are therefore never taken from here. Imports numpy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_MAX_IMAGES = 16

FeatureStats = dict[str, NDArray]


def numeric_stats(rows: NDArray) -> FeatureStats:
    """Statistics of (T,) or (T, n) rows over time; a scalar feature counts as n = 1."""
    values = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    return _stats(values, count=len(rows))


def image_stats(frames_THWC: NDArray[np.uint8]) -> FeatureStats:
    """Per channel statistics in [0, 1], each (3, 1, 1), of evenly chosen frames."""
    count = min(len(frames_THWC), _MAX_IMAGES)
    chosen = np.unique(np.linspace(0, len(frames_THWC) - 1, count).astype(int))
    channels = [_histogram_stats(frames_THWC[chosen, ..., channel]) for channel in range(3)]
    stats: FeatureStats = {
        name: np.array([channel[name] for channel in channels]).reshape(3, 1, 1)
        for name in channels[0]
    }
    stats["count"] = np.array([len(chosen)])
    return stats


def aggregate(
    total: Mapping[str, FeatureStats], episode: Mapping[str, FeatureStats]
) -> dict[str, FeatureStats]:
    """Add the statistics of one more episode to those of a data set (empty at first)."""
    return {
        name: _merge(total[name], stats) if name in total else stats
        for name, stats in episode.items()
    }


def to_json(stats: Mapping[str, FeatureStats]) -> dict[str, dict[str, list]]:
    """Return plain lists, as `meta/stats.json` holds them."""
    return {
        name: {key: np.asarray(value).tolist() for key, value in entry.items()}
        for name, entry in stats.items()
    }


def from_json(stats: Mapping[str, Mapping[str, list]]) -> dict[str, FeatureStats]:
    """Inverse of `to_json`."""
    return {
        name: {key: np.asarray(value) for key, value in entry.items()}
        for name, entry in stats.items()
    }


def _histogram_stats(values: NDArray[np.uint8]) -> dict[str, float]:
    """Exact statistics of bytes from their histogram, several times quicker than from the pixels."""
    histogram = np.bincount(values.ravel(), minlength=256)
    levels = np.arange(256) / 255.0
    present = np.flatnonzero(histogram)
    mean = float(histogram @ levels) / values.size
    cumulative = np.cumsum(histogram) / values.size
    stats = {
        "min": levels[present[0]],
        "max": levels[present[-1]],
        "mean": mean,
        "std": float(np.sqrt(histogram @ (levels - mean) ** 2 / values.size)),
    }
    stats.update({n: levels[np.searchsorted(cumulative, q)] for n, q in QUANTILES.items()})
    return stats


def _stats(values: NDArray, count: int) -> FeatureStats:
    stats: FeatureStats = {
        "min": values.min(axis=0).astype(np.float64),
        "max": values.max(axis=0).astype(np.float64),
        "mean": values.mean(axis=0, dtype=np.float64),
        "std": values.std(axis=0, dtype=np.float64),
        "count": np.array([count]),
    }
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    stats.update({name: quantiles[k].astype(np.float64) for k, name in enumerate(QUANTILES)})
    return stats


def _merge(a: FeatureStats, b: FeatureStats) -> FeatureStats:
    count = a["count"] + b["count"]
    weight_a, weight_b = a["count"][0] / count[0], b["count"][0] / count[0]
    mean = weight_a * a["mean"] + weight_b * b["mean"]
    variance = weight_a * (a["std"] ** 2 + (a["mean"] - mean) ** 2)
    variance = variance + weight_b * (b["std"] ** 2 + (b["mean"] - mean) ** 2)
    merged: FeatureStats = {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": count,
    }
    merged.update({name: weight_a * a[name] + weight_b * b[name] for name in QUANTILES})
    return merged
