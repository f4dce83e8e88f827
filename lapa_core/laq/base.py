# SPDX-License-Identifier: Apache-2.0
"""The interface that every latent action model has, and the batching behind its numpy side.

Shapes: B pairs, K latent tokens per pair, N codes per token, D numbers per token, S image side [px].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.errors import DataError
from lapa_core.laq.quantise import Quantiser
from lapa_core.train.augment import to_float

_CHUNK_PIXELS = 2**21
"""Pixels of the frames that are encoded at once: 32 frames of 256 px."""
_MOST_FRAMES = 256


class LatentActions(NamedTuple):
    """What happened between the two frames of each pair."""

    codes_BK: NDArray[np.int64]
    """One code per latent token, 0 to N - 1."""
    vectors_BKD: NDArray[np.float32]
    """The continuous vectors before quantisation."""


class LatentActionModel(nn.Module, ABC):
    """Encoder of frame pairs into codes, decoder of (frame, codes) into the later frame."""

    image_px: int
    """Side of the square frames that the model takes [px]."""
    tokens: int
    """K, latent tokens per pair."""
    codes: int
    """N, codes per token."""
    quantiser: Quantiser
    """What makes codes of the continuous vectors."""
    paints: bool = True
    """Whether predictions are images; without, `render` and `decode` are refused."""

    @abstractmethod
    def predict(self, x0_BCHW: Tensor, x1_BCHW: Tensor, start_BCHW: Tensor) -> Tensor:
        """Encode the motion from x0 to x1 and return what it makes of `start`, in training's own way.

        `start` is x0, or x0 shifted: then only what does not depend on the place helps.
        """

    @abstractmethod
    def encode_pair(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes (B, K) int64 and continuous vectors (B, K, D), without noise."""

    @abstractmethod
    def render(self, x0_BCHW: Tensor, codes_BK: Tensor) -> Tensor:
        """Return the later frame that these codes describe (the world model's step)."""

    def centres(self) -> NDArray[np.float32]:
        """Return the vector of every code (N, D)."""
        return self.quantiser.centres().detach().float().cpu().numpy()

    def target(self, x_BCHW: Tensor) -> Tensor:
        """Return what a prediction of these later frames is compared with; the frames, unless a design says else."""
        return x_BCHW

    def auxiliary_loss(self) -> Tensor:
        """Return what the last `predict` adds to the loss (a quantiser's commitment); zero for most."""
        return self.quantiser.auxiliary_loss()

    def set_step(self, *, seed: int, step: int, rank: int = 0, world: int = 1) -> None:
        """Say which step the next `predict` belongs to, so that its noise depends on nothing else.

        Args:
            seed: seed of the run.
            step: optimizer step, from 0.
            rank: which of `world` processes this is; its batch is the rank-th equal part of the joint batch.
            world: processes that train together.
        """
        self.quantiser.set_step(seed=seed, step=step, rank=rank, world=world)

    def after_step(self, step: int, total_steps: int) -> dict[str, float]:
        """Maintain the codebook after every optimizer step, on all ranks alike; return metrics of what was found."""
        return self.quantiser.after_step(step, total_steps)

    def fit_codebook(self, vectors_BKD: Tensor, seed: int) -> None:
        """Fit the codebook after training, for models whose codes are not trained with the rest."""
        self.quantiser.fit(vectors_BKD, seed)

    @torch.no_grad()
    def encode(
        self, frames_t_BSSC: NDArray[np.uint8], frames_tH_BSSC: NDArray[np.uint8]
    ) -> LatentActions:
        """Label pairs of uint8 RGB frames, each (B, image_px, image_px, 3), in evaluation mode.

        Raises:
            DataError: frames of another size or of unequal number.
        """
        self._check(frames_t_BSSC)
        self._check(frames_tH_BSSC)
        if len(frames_t_BSSC) != len(frames_tH_BSSC):
            raise DataError(
                f"{len(frames_t_BSSC)} first frames but {len(frames_tH_BSSC)} later ones; give pairs"
            )
        with self._evaluating():
            parts = [
                self.encode_pair(
                    self._image(frames_t_BSSC[chunk]), self._image(frames_tH_BSSC[chunk])
                )
                for chunk in self._chunks(len(frames_t_BSSC))
            ]
        codes, vectors = zip(*parts, strict=True)
        return LatentActions(
            torch.cat(codes).cpu().numpy(), torch.cat(vectors).float().cpu().numpy()
        )

    @torch.no_grad()
    def decode(
        self, frames_t_BSSC: NDArray[np.uint8], codes_BK: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Render the frames that follow when these codes happen; uint8 in, uint8 out.

        Raises:
            DataError: frames of another size, or codes that do not exist.
        """
        self._check(frames_t_BSSC)
        codes_BK = np.asarray(codes_BK)
        exists = (codes_BK >= 0) & (codes_BK < self.codes)
        if codes_BK.shape != (len(frames_t_BSSC), self.tokens) or not exists.all():
            raise DataError(
                f"codes have shape {codes_BK.shape}; allowed is ({len(frames_t_BSSC)}, {self.tokens}), "
                f"each from 0 to {self.codes - 1}"
            )
        codes = torch.from_numpy(codes_BK.astype(np.int64)).to(self._device)
        with self._evaluating():
            images = [
                _to_bytes(self.render(self._image(frames_t_BSSC[chunk]), codes[chunk]))
                for chunk in self._chunks(len(codes))
            ]
        return np.concatenate(images)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switch to evaluation mode for a while, also if it ends with an error."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _image(self, frames_BSSC: NDArray[np.uint8]) -> Tensor:
        return to_float(torch.from_numpy(np.ascontiguousarray(frames_BSSC)).to(self._device))

    def _chunks(self, frames: int) -> list[slice]:
        size = min(_MOST_FRAMES, max(1, _CHUNK_PIXELS // self.image_px**2))
        return [slice(i, i + size) for i in range(0, max(1, frames), size)]

    def _check(self, frames_BSSC: NDArray[np.uint8]) -> None:
        side = self.image_px
        if (
            frames_BSSC.ndim != 4
            or frames_BSSC.shape[1:] != (side, side, 3)
            or frames_BSSC.dtype != np.uint8
        ):
            raise DataError(
                f"frames are {frames_BSSC.dtype} of shape {frames_BSSC.shape}; this model takes uint8 "
                f"(B, {side}, {side}, 3): load the data at image_px={side}"
            )


def _to_bytes(image_BCSS: Tensor) -> NDArray[np.uint8]:
    image_BCSS = (image_BCSS.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return image_BCSS.permute(0, 2, 3, 1).cpu().numpy()
