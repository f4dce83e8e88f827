# SPDX-License-Identifier: Apache-2.0
"""The Gymnasium environment `lapa/Tabletop-v0`: one instruction, frames in, end-effector deltas out, at 5 Hz.

Actions go through `ArmController`, as in the arm node: applied once to the commanded target, then sampled at the
contract's command rate as joint targets for the servos. What trains here runs there.
"""

from __future__ import annotations

import string
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ActionError, ContractError
from lapa_core.image import preprocess
from lapa_core.robot.contract import RobotContract, load_contract
from lapa_core.robot.controller import ArmController
from lapa_core.sim.appearance import get_appearance
from lapa_core.sim.instructions import FAMILIES
from lapa_core.sim.layout import Layout, sample_layout
from lapa_core.sim.tasks import Task, parse_instruction, sample_task
from lapa_core.sim.world import TabletopWorld

Observation = dict[str, Any]
Action = NDArray[np.floating[Any]]


class TabletopEnv(gymnasium.Env[Observation, Action]):
    """A table with four coloured blocks and an instruction about one of them.

    Observation: `image` (image_px, image_px, 3) uint8 of the front camera, through `lapa_core.image.preprocess`;
    `instruction` text. Action: (7,) `EndEffectorDelta` array. Reward: 1 when the task is done, else 0; the episode
    then terminates. It is truncated after `max_steps`. An action that the controller refuses is no error: the arm
    holds, `info["refused"]` counts it and `info["refusal"]` says why.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(
        self,
        *,
        domain: str = "default",
        families: tuple[str, ...] = FAMILIES,
        contract: str | RobotContract | None = None,
        image_px: int | None = None,
        max_steps: int = 60,
        render_mode: str | None = None,
        render_px: int = 480,
    ):
        """Build the world.

        Args:
            domain: a key of `lapa_core.sim.appearance.DOMAINS`.
            families: families of tasks to draw from.
            contract: robot contract, or its name; None takes the domain's.
            image_px: side of the observed image [px]; None takes the contract's.
            max_steps: control steps before truncation.
            render_mode: None or `rgb_array`.
            render_px: side of `render`'s image [px].

        Raises:
            ContractError: an argument is not allowed.
            SetupError: MuJoCo or GL is missing.
        """
        unknown = sorted(set(families) - set(FAMILIES))
        if unknown or not families:
            raise ContractError(f"families are {families}; allowed are some of {FAMILIES}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ContractError(f"render_mode is {render_mode!r}; allowed is None or 'rgb_array'")
        if max_steps < 1:
            raise ContractError(f"max_steps is {max_steps}; it must be at least 1")
        chosen = get_appearance(domain).contract if contract is None else contract
        self.contract = load_contract(chosen) if isinstance(chosen, str) else chosen
        self.controller = ArmController(self.contract)
        self.world = TabletopWorld(domain, arm=self.contract.arm)
        self.domain = domain
        self.render_mode = render_mode
        self.max_steps = max_steps
        self._families = tuple(families)
        self._render_px = render_px
        self._camera_px = min(
            self.contract.cameras["front"].width_px, self.contract.cameras["front"].height_px
        )
        self._image_px = (
            image_px if image_px is not None else self.contract.cameras["front"].image_px
        )
        self._substeps = round(self.contract.command_rate_hz / self.contract.control_rate_hz)
        self.task: Task = parse_instruction("point to the red block")
        self._steps = 0
        self._refused = 0
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (self._image_px, self._image_px, 3), np.uint8),
                "instruction": spaces.Text(max_length=80, charset=string.ascii_lowercase + " "),
            }
        )
        caps = [self.contract.max_translation_m] * 3 + [self.contract.max_rotation_rad] * 3
        self.action_space = spaces.Box(
            np.array([*(-cap for cap in caps), 0.0], dtype=np.float32),
            np.array([*caps, 1.0], dtype=np.float32),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: reseeds tasks and layouts.
            options: `instruction` (a known sentence) or `family` fixes the task; `layout` (a `Layout`) the start.

        Raises:
            ContractError: an option is unknown, or an instruction or family is.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        if extra := sorted(set(options) - {"instruction", "family", "layout"}):
            raise ContractError(
                f"reset options {extra} are unknown; allowed are instruction, family and layout"
            )
        if "instruction" in options:
            self.task = parse_instruction(options["instruction"])
        else:
            families = (options["family"],) if "family" in options else self._families
            self.task = sample_task(self.np_random, families)
        layout: Layout = options.get("layout") or sample_layout(self.np_random, self.task)
        self.world.reset(layout=layout)
        self.controller.reset(self.world.joints_rad, 0.0)
        self._steps = 0
        self._refused = 0
        return self._observe(), self._info("")

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one end-effector delta and run one control period."""
        refusal = ""
        now_s = self.world.time_s
        try:
            self.controller.apply(EndEffectorDelta.from_array(action), now_s)
        except ActionError as error:
            refusal = str(error)
            self._refused += 1
        for tick in range(self._substeps):
            joints_rad = self.controller.sample(now_s + tick / self.contract.command_rate_hz)
            self.world.set_joint_targets(joints_rad, self.controller.gripper)
            self.world.step(1.0 / self.contract.command_rate_hz)
        self._steps += 1
        info = self._info(refusal)
        done = bool(info["success"])
        return self._observe(), float(done), done, not done and self._steps >= self.max_steps, info

    def render(self) -> NDArray[np.uint8]:
        """Return the front camera's image with shadows, (render_px, render_px, 3) uint8, for people."""
        return self.world.render("front", self._render_px, fine=True)

    def close(self) -> None:
        """Free the GL contexts."""
        self.world.close()

    def _observe(self) -> Observation:
        frame = self.world.render("front", self._camera_px)
        return {"image": preprocess(frame, self._image_px), "instruction": self.task.instruction}

    def _info(self, refusal: str) -> dict[str, Any]:
        return {
            "success": self.task.success(self.world),
            "family": self.task.family,
            "ee_position_m": self.world.ee_pose_44[:3, 3],
            "refused": self._refused,
            "refusal": refusal,
            "steps": self._steps,
        }
