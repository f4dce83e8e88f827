# SPDX-License-Identifier: Apache-2.0
"""The deltas of one recorded episode, to be played on the arm before any policy may. Decodes no picture.

Imports numpy, no torch: a checkpoint's bins are in its configuration file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import load_config
from lapa_core.data import lerobot_format as fmt
from lapa_core.data.curation import mark_of
from lapa_core.data.judge import RECORDING, judge
from lapa_core.data.lerobot import LeRobotSource
from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """What was done in an episode."""

    label: str
    """Where it came from."""
    instruction: str
    """What it does."""
    actions: NDArray[np.float64]
    """(T, 7) deltas in the order of `ACTION_NAMES`."""
    states: NDArray[np.float64] | None
    """(T, 7) measured pose before each delta; None where none was recorded, or under no contract."""
    rate_hz: float
    """Deltas per second."""
    contract_hash: str
    """Contract that it was recorded under; "" where the data set does not say."""


def read_replay(path: Path, episode: int = 0) -> Replay:
    """Read an episode of a LeRobot data set, or a recording (`.mcap`).

    Raises:
        DataError: there is no such episode, its actions are no deltas of ours, or the recording would not be exported,
            as a reviewer decided, too.
    """
    if path.is_file() and path.name.endswith(RECORDING):
        return _recorded(path)
    source = LeRobotSource(path)
    columns = source.columns(episode)
    actions = columns.get(fmt.ACTION)
    if actions is None or actions.ndim != 2 or actions.shape[1] != 7:
        raise DataError(f"{path} episode {episode} has no actions of seven numbers to replay")
    names = source.features[fmt.ACTION].get("names")
    if list(names or ()) != list(ACTION_NAMES):
        raise DataError(
            f"the actions of {path} are {names}; only deltas {list(ACTION_NAMES)} may move the arm"
        )
    contract_hash = str(source.metadata.get("contract_hash") or "")
    states = columns.get(fmt.STATE) if contract_hash else None
    return Replay(
        label=f"{path} episode {episode}",
        instruction=source.instruction(episode),
        actions=actions.astype(np.float64),
        states=None if states is None or states.shape[1:] != (7,) else states.astype(np.float64),
        rate_hz=source.fps,
        contract_hash=contract_hash,
    )


def through_bins(replay: Replay, checkpoint: Path) -> Replay:
    """Return the replay as a policy could at best have done it: each action encoded and decoded by its bins.

    Raises:
        CheckpointError: the folder holds no policy.
    """
    bins = ActionBins.from_dict(load_config(checkpoint, "policy")["bins"])
    decoded = np.stack([bins.decode(row) for row in bins.encode(replay.actions)])
    return replace(
        replay, actions=decoded, label=f"{replay.label} through the bins of {checkpoint}"
    )


def _recorded(path: Path) -> Replay:
    judged = judge(path, mark=mark_of(path))
    if judged.rows is None or judged.contract is None:
        raise DataError(f"{path}: {'; '.join(judged.report.rows.refusals)}")
    return Replay(
        label=path.name,
        instruction=judged.report.instruction,
        actions=judged.rows.actions,
        states=judged.rows.states,
        rate_hz=judged.contract.control_rate_hz,
        contract_hash=judged.contract.hash,
    )
