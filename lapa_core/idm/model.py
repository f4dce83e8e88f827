# SPDX-License-Identifier: Apache-2.0
"""The inverse dynamics model: keypoints of both frames, their differences, one hidden layer, an action.

The paper's VPT has a ResNet18 and an MLP for it. A difference of keypoints is what the latent action model of the
simulator reads motion off (`lapa_core.laq.conv`), and here too it needs few labels: on held-out videos, 50 recorded
episodes give an R2 to the true displacement of 0.97, 449 give 0.99 (docs/learning.md).

Shapes: B pairs, C channels, H W pixels, A action dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapa_core.idm.config import IdmModelConfig
from lapa_core.keypoints import GROUPS, Keypoints
from lapa_core.laq.action_head import ActionHead


class InverseDynamics(nn.Module):
    """Keypoints(x1) - keypoints(x0) -> action."""

    def __init__(self, config: IdmModelConfig, mean_A: Tensor, std_A: Tensor):
        """Make an untrained model, which says the labelled actions' mean.

        Args:
            config: sizes.
            mean_A: mean of the labelled actions [m, rad, opening].
            std_A: their standard deviation; dimensions that never change count as 1.
        """
        super().__init__()
        self.image_px = config.image_px
        width = config.width
        self.encoder = nn.Sequential(
            *_convolution(3, width, kernel=4, stride=2),
            *_convolution(width, width),
            *_convolution(width, width),
            Keypoints(width, config.keypoints, config.image_px // 2),
        )
        self.hidden = nn.Sequential(nn.Linear(2 * config.keypoints, config.hidden), nn.SiLU())
        self.head = ActionHead(config.hidden, mean_A, std_A)

    def _features(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        before, after = self.encoder(2.0 * torch.cat([x0_BCHW, x1_BCHW]) - 1.0).chunk(2)
        return self.hidden(after - before)

    def forward(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the action (B, A) between frames in [0, 1] that are a control period apart [m, rad, opening]."""
        return self.head.physical(self._features(x0_BCHW, x1_BCHW))

    def loss(self, x0_BCHW: Tensor, x1_BCHW: Tensor, actions_BA: Tensor) -> Tensor:
        """Return the mean squared error in squared standard deviations of the labelled actions."""
        return self.head.loss(self._features(x0_BCHW, x1_BCHW), actions_BA)


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1
) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=1),
        nn.GroupNorm(GROUPS, channels_out),
        nn.SiLU(),
    )
