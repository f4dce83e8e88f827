# SPDX-License-Identifier: Apache-2.0
"""`lapa unipi policy`: join a video diffusion model and an inverse dynamics model to a policy of one folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np

from lapa_core.actions.bins import MAX_BINS, ActionBins
from lapa_core.checkpoint import provenance, save_checkpoint
from lapa_core.errors import CheckpointError
from lapa_core.idm.checkpoint import LoadedIdm, load_idm
from lapa_core.policy import PLANS
from lapa_core.robot.contract import RobotContract, load_contract
from lapa_core.unipi.checkpoint import IDM_FOLDER, LoadedVideo, described, load_video
from lapa_core.unipi.config import UnipiPolicyConfig
from lapa_core.vla.checkpoint import POLICY, policy_facts

__all__ = ["UnipiPolicyConfig", "join", "main"]


def join(config: UnipiPolicyConfig) -> Path:
    """Write the policy and return its directory; the contract is the one of the inverse dynamics model's labels.

    Raises:
        CheckpointError: one of the models is missing or damaged, or they do not fit each other or the arm.
    """
    video, idm = load_video(config.video), load_idm(config.idm)
    contract = load_contract(idm.config["contract"])
    _check(config, video, idm, contract)
    facts = {
        **described(video.model),
        **policy_facts(idm.config["contract"], even_bins(contract), config.temperature),
        "decoder": PLANS,
        "period_s": video.config["period_s"],
        "replan_every": config.replan_every,
        "sampling_steps": config.sampling_steps or video.config["sampling_steps"],
        "chunk": video.model.config.frames,
        "video": video.config["weights_sha256"],
        "idm": idm.config["weights_sha256"],
    }
    return save_checkpoint(
        config.out / "checkpoint",
        dict(video.model.state_dict()),
        {"kind": POLICY, **facts, "provenance": provenance()},
        beside=lambda folder: _add_idm(config.idm, folder),
    )


def even_bins(contract: RobotContract) -> ActionBins:
    """Return bins of equal width over what the arm takes; they name a continuous action, and none is made of them."""
    caps = [contract.max_translation_m] * 3 + [contract.max_rotation_rad] * 3
    lows_highs = [(-cap, cap) for cap in caps] + [(0.0, 1.0)]
    return ActionBins([np.linspace(low, high, MAX_BINS + 1) for low, high in lows_highs])


def _check(
    config: UnipiPolicyConfig, video: LoadedVideo, idm: LoadedIdm, contract: RobotContract
) -> None:
    side = video.model.config.image_px
    if idm.model.image_px != side:
        raise CheckpointError(
            f"{config.idm} looks at frames of {idm.model.image_px} px, {config.video} plans frames of {side} px; train "
            f"one of them again with --model.image-px of the other"
        )
    periods = {config.video: video.config["period_s"], config.idm: idm.config["gap_s"]}
    for checkpoint, period_s in periods.items():
        if not math.isclose(period_s, 1.0 / contract.control_rate_hz, rel_tol=0.01):
            raise CheckpointError(
                f"{checkpoint} is for frames {period_s:g} s apart, {contract.name} is commanded at "
                f"{contract.control_rate_hz:g} Hz; train it on frames {1.0 / contract.control_rate_hz:g} s apart"
            )
    if config.replan_every > video.model.config.frames:
        raise CheckpointError(
            f"replan_every is {config.replan_every}, but {config.video} plans {video.model.config.frames} frames; give "
            "at most as many"
        )
    if config.sampling_steps > video.model.config.noise_steps:
        raise CheckpointError(
            f"sampling_steps is {config.sampling_steps}; {config.video} allows 1 to {video.model.config.noise_steps}"
        )


def _add_idm(idm: Path, folder: Path) -> None:
    shutil.copytree(idm, folder / IDM_FOLDER)


def main(config: UnipiPolicyConfig) -> None:
    """Join, and say where the policy is."""
    print(f"policy: {join(config)}")
