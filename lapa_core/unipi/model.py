# SPDX-License-Identifier: Apache-2.0
"""The video diffusion model: the current frame and an instruction to the frames that come next.

UniPi and AVDC (Ko et al., 2024) denoise the frames themselves with convolutions over space and time, told what to do
by a frozen text encoder. Here the U-Net denoises what *changes* from the current frame, all future frames lie in its
channels, and the policy's small trunk tells it what shall happen, in view of that frame: it is what minutes on a CPU
core can train. The clean change is predicted rather than the noise.

Shapes: B windows, F future frames, S image side [px], C = 3 F channels, L words, D told.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from lapa_core.unipi.config import GROUPS, VideoConfig
from lapa_core.unipi.windows import WindowBatch
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.trunk import FilmTrunk
from lapa_core.vla.words import UNKNOWN, Vocabulary


class VideoDiffusion(nn.Module):
    """Current frame + instruction -> future frames, by denoising."""

    change_std: Tensor

    def __init__(self, config: VideoConfig, text: Vocabulary, change_std: float = 1.0):
        """Make an untrained model.

        Args:
            config: sizes.
            text: the known words.
            change_std: standard deviation of a pixel's change from the current frame to a future one.
        """
        super().__init__()
        self.config, self.text = config, text
        self.register_buffer("change_std", torch.tensor(change_std))
        self.noising = DDIMScheduler(
            config.noise_steps, beta_schedule="squaredcos_cap_v2", prediction_type="sample",
            clip_sample=False, timestep_spacing="trailing",
        )  # fmt: skip
        self.trunk = FilmTrunk(_trunk(config), len(text))
        with torch.no_grad():
            self.trunk.text.embedding.weight[UNKNOWN] = (
                0.0  # no training text has it: it says nothing
            )
        width = 4 * config.widths[0]
        self.told = nn.Sequential(
            nn.Linear(config.features, width), nn.SiLU(), nn.Linear(width, width)
        )
        levels, places = len(config.widths), config.patch_px**2
        self.unet = UNet2DModel(
            sample_size=config.image_px // config.patch_px,
            in_channels=3 * (config.frames + 1) * places,
            out_channels=3 * config.frames * places,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            block_out_channels=config.widths,
            layers_per_block=config.layers,
            norm_num_groups=GROUPS,
            add_attention=False,
            class_embed_type="identity",
            resnet_time_scale_shift="scale_shift",
        ).to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.change_std.device

    def encode(self, instructions: list[str]) -> Tensor:
        """Return padded word indices (B, L)."""
        ids = [
            torch.from_numpy(self.text.encode(each, self.config.max_words)) for each in instructions
        ]
        return torch.stack(ids).to(self.device)

    def loss(self, batch: WindowBatch, words_BL: Tensor) -> Tensor:
        """Return the squared error of the denoised change, in its variances, over the frames that are there."""
        scale = self.change_std / self.config.signal
        change_BCSS = ((batch.later_BF3SS - batch.first_B3SS[:, None]) / scale).flatten(1, 2)
        time_B = torch.randint(self.config.noise_steps, (len(change_BCSS),)).to(self.device)
        noise_BCSS = torch.randn(change_BCSS.shape).to(self.device)
        noisy_BCSS = self.noising.add_noise(change_BCSS, noise_BCSS, time_B)
        told_BD = self._tell(batch.first_B3SS, words_BL)
        error_BCSS = self._denoise(noisy_BCSS, batch.first_B3SS, told_BD, time_B) - change_BCSS
        error_BF = (error_BCSS / self.config.signal).square().unflatten(1, (-1, 3)).mean((2, 3, 4))
        return (error_BF * batch.known_BF).sum() / batch.known_BF.sum()

    @torch.no_grad()
    def plan(self, first_B3SS: Tensor, words_BL: Tensor, noise_BCSS: Tensor, steps: int) -> Tensor:
        """Return future frames (B, F, 3, S, S) in [0, 1].

        Args:
            first_B3SS: current frames in [0, 1].
            words_BL: from `encode`.
            noise_BCSS: what the denoising begins with, see `noise`.
            steps: denoising steps.
        """
        self.noising.set_timesteps(steps)
        told_BD, change_BCSS = self._tell(first_B3SS, words_BL), noise_BCSS
        for time in self.noising.timesteps:
            time_B = time.to(self.device).expand(len(first_B3SS))
            clean_BCSS = self._denoise(change_BCSS, first_B3SS, told_BD, time_B)
            change_BCSS = self.noising.step(clean_BCSS, time, change_BCSS).prev_sample
        change_BF3SS = change_BCSS.unflatten(1, (self.config.frames, 3))
        scale = self.change_std / self.config.signal
        return (first_B3SS[:, None] + scale * change_BF3SS).clamp(0.0, 1.0)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Return noise (B, C, S, S) for so many plans, drawn on the CPU."""
        side = self.config.image_px
        shape = (count, 3 * self.config.frames, side, side)
        return torch.randn(shape, generator=generator).to(self.device)

    def _tell(self, first_B3SS: Tensor, words_BL: Tensor) -> Tensor:
        """Return what the U-Net is told of frame and words (B, D)."""
        told_BD: Tensor = self.told(self.trunk(first_B3SS, words_BL))
        return told_BD

    def _denoise(
        self, noisy_BCSS: Tensor, first_B3SS: Tensor, told_BD: Tensor, time_B: Tensor
    ) -> Tensor:
        """Return the clean change (B, C, S, S) that a noisy one hides, in the units of what is noised."""
        patch = self.config.patch_px
        seen = F.pixel_unshuffle(torch.cat([noisy_BCSS, 2.0 * first_B3SS - 1.0], dim=1), patch)
        seen = seen.contiguous(memory_format=torch.channels_last)
        clean = F.pixel_shuffle(self.unet(seen, time_B, class_labels=told_BD).sample, patch)
        return self.config.signal * clean


def _trunk(config: VideoConfig) -> TrunkConfig:
    return TrunkConfig(
        image_px=config.image_px,
        width=config.trunk_width,
        blocks=config.trunk_blocks,
        keypoints=config.keypoints,
        text_dim=config.text_dim,
        features=config.features,
        max_words=config.max_words,
    )
