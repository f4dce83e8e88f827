# SPDX-License-Identifier: Apache-2.0
"""A linear layer from the latent to actions, trained on a few labelled pairs beside the reconstruction.

Latents of videos alone keep whatever explains the later frame; a small pull towards the actions of some labelled
episodes keeps what an arm can do (Nikulin et al. 2025, "Latent Action Learning Requires Supervision in the Presence of
Distractors"). The head reads the chosen codes with a straight-through gradient where the model quantises in training,
and the continuous latent where codes are clustered afterwards.

Shapes: B pairs, K latent tokens, D numbers per token, A action dimensions, S image side [px].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.checkpoint import load_checkpoint, provenance, save_checkpoint
from lapa_core.errors import CheckpointError, DataError
from lapa_core.laq.base import LatentActionModel
from lapa_core.train.augment import to_float

KIND = "laq_action_head"
_CHUNK = 256


class ActionHead(nn.Module):
    """Linear in the latent; works in units of the labelled actions' standard deviations."""

    mean_A: Tensor
    std_A: Tensor

    def __init__(self, width: int, mean_A: Tensor, std_A: Tensor):
        """Make an untrained head, which says the mean: dimensions that never change stay there.

        Args:
            width: K x D, numbers in a latent.
            mean_A: mean of the labelled actions over a gap.
            std_A: their standard deviation; dimensions that never change count as 1.
        """
        super().__init__()
        self.linear = nn.Linear(width, len(mean_A))
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("mean_A", mean_A.clone())
        self.register_buffer("std_A", torch.where(std_A > 1e-8, std_A, torch.ones_like(std_A)))

    @classmethod
    def for_actions(cls, width: int, actions_PA: NDArray[np.float32]) -> ActionHead:
        """Make an untrained head with the statistics of all labelled pairs."""
        actions = torch.from_numpy(actions_PA).double()
        return cls(width, actions.mean(dim=0).float(), actions.std(dim=0, correction=0).float())

    def forward(self, latent_BKD: Tensor) -> Tensor:
        """Return actions (B, A) in standard deviations from their mean."""
        return self.linear(latent_BKD.flatten(1))

    def loss(self, latent_BKD: Tensor, actions_BA: Tensor) -> Tensor:
        """Return the mean squared error in squared standard deviations."""
        return F.mse_loss(self(latent_BKD).float(), (actions_BA - self.mean_A) / self.std_A)

    def physical(self, latent_BKD: Tensor) -> Tensor:
        """Return actions (B, A) in the labels' own units, summed over the model's gap."""
        return self(latent_BKD) * self.std_A + self.mean_A


def latent_width(model: LatentActionModel) -> int:
    """Return K x D, numbers in a latent of a model."""
    blank = np.zeros((1, model.image_px, model.image_px, 3), np.uint8)
    return model.encode(blank, blank).vectors_BKD.size


def head_input(model: LatentActionModel, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
    """Return what the head reads of pairs (B, K, D), differentiable."""
    codes_BK, vectors_BKD = model.encode_pair(x0_BCHW, x1_BCHW)
    if not model.quantiser.quantises_in_training:
        return vectors_BKD
    chosen_BKD = model.quantiser.vectors(codes_BK)
    return vectors_BKD + (chosen_BKD - vectors_BKD).detach()


@torch.no_grad()
def predict_actions(
    model: LatentActionModel,
    head: ActionHead,
    frames_t_BSSC: NDArray[np.uint8],
    frames_tH_BSSC: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """Return the actions (B, A) that a trained head reads off pairs of frames, in the labels' own units.

    Raises:
        DataError: unequal numbers of frames, or frames of another size than the model's.
    """
    side = (model.image_px, model.image_px, 3)
    if len(frames_t_BSSC) != len(frames_tH_BSSC) or not len(frames_t_BSSC):
        raise DataError(
            f"{len(frames_t_BSSC)} first frames and {len(frames_tH_BSSC)} later ones; give pairs"
        )
    if frames_t_BSSC.shape[1:] != side or frames_tH_BSSC.shape[1:] != side:
        raise DataError(
            f"frames have shapes {frames_t_BSSC.shape[1:]} and {frames_tH_BSSC.shape[1:]}; this model takes {side}"
        )
    device, parts = head.mean_A.device, []
    for first in range(0, len(frames_t_BSSC), _CHUNK):
        pair = (frames[first : first + _CHUNK] for frames in (frames_t_BSSC, frames_tH_BSSC))
        x0, x1 = (to_float(torch.from_numpy(np.ascontiguousarray(f)).to(device)) for f in pair)
        parts.append(head.physical(head_input(model, x0, x1)).cpu())
    return torch.cat(parts).numpy()


def save_action_head(
    directory: Path, tensors: dict[str, Tensor], *, laq_sha256: str, **facts: Any
) -> Path:
    """Save the state of a head.

    Args:
        directory: where it shall lie.
        tensors: `ActionHead.state_dict()`.
        laq_sha256: `weights_sha256` of the model that it reads.
        facts: what else its config shall tell.
    """
    config = {"kind": KIND, "laq_sha256": laq_sha256, **facts, "provenance": provenance()}
    return save_checkpoint(directory, tensors, config)


def load_action_head(
    directory: str | Path, device: str = "cpu", *, laq_sha256: str | None = None
) -> tuple[ActionHead, dict[str, Any]]:
    """Rebuild a head in evaluation mode, with its config.

    Args:
        directory: where it lies, usually `action_head/` beside the model's `checkpoint/`.
        device: torch device.
        laq_sha256: `weights_sha256` of the model that it shall read, if that shall be checked.

    Raises:
        CheckpointError: missing, damaged, no action head, or trained with another model.
    """
    tensors, config = load_checkpoint(directory, KIND)
    if laq_sha256 is not None and config.get("laq_sha256") != laq_sha256:
        raise CheckpointError(
            f"{directory} reads the latents of the model {str(config.get('laq_sha256'))[:12]}..., not of "
            f"{laq_sha256[:12]}...; give the head that lies beside the model"
        )
    try:
        width = tensors["linear.weight"].shape[1]
        head = ActionHead(width, tensors["mean_A"], tensors["std_A"])
        head.load_state_dict(tensors, strict=True)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{directory} does not fit its own description: {error}") from error
    return head.to(device).eval(), config
