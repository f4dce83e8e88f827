# SPDX-License-Identifier: Apache-2.0
"""The model half of a policy that plans: frames from the video model, actions from the inverse dynamics model.

A few actions of a plan are executed without looking, and then the next frames are planned from what the camera sees.

Shapes: F future frames, S image side [px].
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.caps import cut_to_caps
from lapa_core.errors import ContractError, DataError
from lapa_core.idm.checkpoint import LoadedIdm, load_idm
from lapa_core.policy import Decision
from lapa_core.train.augment import to_float
from lapa_core.unipi.checkpoint import IDM_FOLDER, LoadedVideo, load_video
from lapa_core.vla.checkpoint import POLICY


class PlanEngine:
    """Plans, and remembers the plan that it executes; one robot's, and not thread-safe."""

    def __init__(
        self,
        video: LoadedVideo,
        idm: LoadedIdm,
        *,
        temperature: float | None = None,
        seed: int = 0,
    ):
        """Take both models, and plan once, so that the first frame is as fast as the others.

        Args:
            video: weights and config of a policy's checkpoint.
            idm: for frames of the same size.
            temperature: standard deviation of the noise that a plan begins with; None takes the checkpoint's own.
            seed: of that noise.

        Raises:
            ContractError: a temperature that is negative or not finite.
        """
        config = video.config
        self._temperature = float(config["temperature"]) if temperature is None else temperature
        if not 0.0 <= self._temperature < math.inf:
            raise ContractError(
                f"temperature is {self._temperature}; allowed is 0 (no noise) and above"
            )
        self._video, self._idm = video.model, idm.model
        self._steps: int = config["sampling_steps"]
        self._replan_every: int = config["replan_every"]
        self._bins = ActionBins.from_dict(config["bins"])
        self._caps = {name: config[name] for name in ("max_translation_m", "max_rotation_rad")}
        self._generator = torch.Generator()
        self._instruction = ""
        self.reset()
        side = self._video.config.image_px
        self.step(np.zeros((side, side, 3), np.uint8), "")
        self.reset()
        self._generator.manual_seed(seed)

    def reset(self) -> None:
        """Drop the plan."""
        self._actions_F7: NDArray[np.float64] = np.zeros((0, 7))
        self._done = 0

    def step(self, frame_SS3: NDArray[np.uint8], instruction: str) -> Decision:
        """Return the next action of the plan; plan anew where it is executed, or was for another instruction.

        Raises:
            DataError: the frame has another size or type.
        """
        side = self._video.config.image_px
        if frame_SS3.shape != (side, side, 3) or frame_SS3.dtype != np.uint8:
            raise DataError(
                f"the frame is {frame_SS3.dtype} {frame_SS3.shape}; this policy takes uint8 ({side}, {side}, 3)"
            )
        spent = self._done >= min(self._replan_every, len(self._actions_F7))
        if spent or instruction != self._instruction:
            self._actions_F7, self._done = self._planned(frame_SS3, instruction), 0
            self._instruction = instruction
        left_H7 = self._actions_F7[self._done :].copy()
        self._done += 1
        return Decision(left_H7[0], self._bins.encode(left_H7[0]), None, left_H7)

    @torch.inference_mode()
    def _planned(self, frame_SS3: NDArray[np.uint8], instruction: str) -> NDArray[np.float64]:
        """Return the actions (F, 7) that lead along planned frames, inside the caps."""
        first_13SS = to_float(torch.from_numpy(frame_SS3[None]).to(self._video.device))
        noise = self._temperature * self._video.noise(1, self._generator)
        words_1L = self._video.encode([instruction])
        plan_F3SS = self._video.plan(first_13SS, words_1L, noise, self._steps)[0]
        before_F3SS = torch.cat([first_13SS, plan_F3SS[:-1]])
        actions_F7 = self._idm(before_F3SS, plan_F3SS).cpu().double().numpy()
        return cut_to_caps(actions_F7, **self._caps)


def load_planner(
    directory: str | Path, device: str = "cpu", *, temperature: float | None = None, seed: int = 0
) -> PlanEngine:
    """Rebuild the engine of a policy checkpoint that `lapa unipi policy` made; see `Policy.load`.

    Raises:
        CheckpointError: missing, damaged, or not such a policy.
        ContractError: a temperature that is negative or not finite.
    """
    video = load_video(directory, device, kind=POLICY)
    idm = load_idm(Path(directory) / IDM_FOLDER, device)
    return PlanEngine(video, idm, temperature=temperature, seed=seed)
