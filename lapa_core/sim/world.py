# SPDX-License-Identifier: Apache-2.0
"""The simulated table: physics, joint servos and cameras, with no notion of policy, control rate or reward.

The Gymnasium environment and the ROS `sim` node both drive this class with joint targets, as the real arm is driven.
Not thread-safe; a GL context belongs to the thread that first rendered.
"""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapa_core.errors import ActionError, ContractError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.kinematics import solve_ik
from lapa_core.robot.models import ArmModel
from lapa_core.sim.appearance import Appearance, get_appearance
from lapa_core.sim.arm_mjcf import FINGER_JOINTS
from lapa_core.sim.distractors import DistractorPaths
from lapa_core.sim.geometry import BLOCK_SIZE_M, TOOL_DOWN_ROTATION, TOOL_HEIGHT_M
from lapa_core.sim.gl import load_mujoco, open_renderer
from lapa_core.sim.layout import Layout, sample_layout
from lapa_core.sim.scene import BLOCK_NAMES, CAMERA_NAMES, MAX_IMAGE_PX, TIMESTEP_S, build_mjcf

Array = NDArray[np.float64]
_SEED_RAD = np.array(
    [0.0, -0.04, 0.81, 0.0, 0.80, 0.0]
)  # tool down in front of the base; where IK starts


class TabletopWorld:
    """An arm, a board and four coloured blocks. Positions are in `base_link`; the board's surface is z = 0."""

    def __init__(
        self, appearance: Appearance | str = "default", seed: int = 0, arm: ArmModel | None = None
    ):
        """Build the world and reset it.

        Args:
            appearance: what the cameras see, or the name of a domain.
            seed: seed of the layout drawn when `reset` gets none.
            arm: the arm; None is the one of the appearance's contract.

        Raises:
            SetupError: MuJoCo is not installed.
            ContractError: no such domain.
        """
        self._mujoco = load_mujoco()
        self.appearance = get_appearance(appearance) if isinstance(appearance, str) else appearance
        self.arm = arm if arm is not None else load_contract(self.appearance.contract).arm
        self.model = self._mujoco.MjModel.from_xml_string(build_mjcf(self.arm, self.appearance))
        self.data = self._mujoco.MjData(self.model)
        self._renderers: dict[tuple[int, bool], Any] = {}
        # Also runs at exit, before PyOpenGL is torn down: a context freed later makes it complain.
        weakref.finalize(
            self, _close_renderers, self._renderers
        ).atexit = False  # `open_renderer` closes what is left then
        self._rng = np.random.default_rng(seed)
        joint_of = self.model.joint
        self._arm_qpos = np.array([joint_of(name).qposadr[0] for name in self.arm.joint_names])
        self._arm_qvel = np.array([joint_of(name).dofadr[0] for name in self.arm.joint_names])
        self._finger_qpos = np.array([joint_of(name).qposadr[0] for name in FINGER_JOINTS])
        self._block_qpos = {name: int(joint_of(f"{name}_block").qposadr[0]) for name in BLOCK_NAMES}
        self._block_body = {name: int(self.model.body(f"{name}_block").id) for name in BLOCK_NAMES}
        self._ee_site = int(self.model.site("ee_gripper_link").id)
        self._distractors: DistractorPaths | None = None
        self.start_positions_m: dict[str, Array] = {}
        """Block positions at the last `mark_start` [m]; push distances are counted from here."""
        self.reset()

    def reset(
        self,
        seed: int | None = None,
        layout: Layout | None = None,
        joints_rad: ArrayLike | None = None,
    ) -> Layout:
        """Place the blocks, bring the arm over the layout's tool position, and stop every motion.

        Args:
            seed: reseeds the layouts drawn here; None goes on.
            layout: where things start; None draws one.
            joints_rad: (6,) joints to start from instead of the layout's tool position [rad].

        Raises:
            ContractError: the arm cannot reach the layout's tool position.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        layout = layout if layout is not None else sample_layout(self._rng)
        if joints_rad is None:
            joints_rad = tool_down_joints(self.arm, layout.tool_xy_m)
        self._mujoco.mj_resetData(self.model, self.data)
        for name, pose in layout.blocks.items():
            half = 0.5 * pose.yaw_rad
            address = self._block_qpos[name]
            self.data.qpos[address : address + 7] = [
                pose.x_m, pose.y_m, BLOCK_SIZE_M / 2, np.cos(half), 0.0, 0.0, np.sin(half),
            ]  # fmt: skip
        self.data.qpos[self._arm_qpos] = np.asarray(joints_rad, dtype=np.float64)
        self.set_joint_targets(self.data.qpos[self._arm_qpos], 0.0)
        self.data.qpos[self._finger_qpos] = self.data.ctrl[6:]
        if self.appearance.distractors:
            self._distractors = DistractorPaths(self.appearance.distractors, layout)
            self._move_distractors(0.0)
        self._mujoco.mj_forward(self.model, self.data)
        self.mark_start()
        return layout

    def mark_start(self) -> None:
        """Count push distances from where the blocks are now: a new instruction starts without a reset."""
        self.start_positions_m = self.block_positions_m

    def set_joint_targets(self, joints_rad: ArrayLike, gripper: float) -> None:
        """Set the servo targets: (6,) joints [rad], clipped to their limits, and gripper, 0 closed to 1 open.

        Raises:
            ActionError: a target is not finite or of the wrong shape; the old targets stay.
        """
        joints = np.asarray(joints_rad, dtype=np.float64)
        if joints.shape != (6,) or not np.isfinite(joints).all() or not np.isfinite(gripper):
            raise ActionError(
                f"joint targets {joints.tolist()}, gripper {gripper}: six and one finite numbers are needed"
            )
        closed, opened = self.arm.finger_gap_m
        finger = 0.5 * (closed + float(np.clip(gripper, 0.0, 1.0)) * (opened - closed))
        self.data.ctrl[:6] = np.clip(joints, self.arm.lower_rad, self.arm.upper_rad)
        self.data.ctrl[6:] = (finger, -finger)

    def step(self, seconds: float) -> None:
        """Advance the physics by `seconds`, rounded to whole physics steps of `TIMESTEP_S`."""
        steps = max(1, round(seconds / TIMESTEP_S))
        self._move_distractors(self.data.time + steps * TIMESTEP_S)
        self._mujoco.mj_step(self.model, self.data, nstep=steps)
        # mj_step leaves poses of one physics step ago; what is measured and rendered must be of now.
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)

    def _move_distractors(self, time_s: float) -> None:
        if self._distractors is not None:
            self.data.mocap_pos[:], self.data.mocap_quat[:] = self._distractors.at(time_s)

    @property
    def time_s(self) -> float:
        """Simulated time since the reset [s]."""
        return float(self.data.time)

    @property
    def joints_rad(self) -> Array:
        """(6,) measured joints [rad]."""
        return self.data.qpos[self._arm_qpos].copy()

    @property
    def joint_velocities_rad_s(self) -> Array:
        """(6,) measured joint velocities [rad/s]."""
        return self.data.qvel[self._arm_qvel].copy()

    @property
    def gripper(self) -> float:
        """Measured gripper opening, 0 closed to 1 open."""
        closed, opened = self.arm.finger_gap_m
        left, right = self.data.qpos[self._finger_qpos]
        return float(np.clip((left - right - closed) / (opened - closed), 0.0, 1.0))

    @property
    def ee_pose_44(self) -> Array:
        """(4, 4) measured pose of `ee_gripper_link` in `base_link`."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self._ee_site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self._ee_site]
        return pose

    @property
    def tool_xy_m(self) -> Array:
        """(2,) measured position of the tool over the board [m]."""
        return self.data.site_xpos[self._ee_site, :2].copy()

    @property
    def block_positions_m(self) -> dict[str, Array]:
        """Centre of every block, (3,) [m], by colour."""
        return {name: self.data.xpos[body].copy() for name, body in self._block_body.items()}

    def render(
        self, camera: str = "front", size_px: int = 128, fine: bool = False
    ) -> NDArray[np.uint8]:
        """Return a square RGB image, (size_px, size_px, 3) uint8.

        Args:
            camera: `front` or `wrist`.
            size_px: side [px], at most `MAX_IMAGE_PX`.
            fine: with shadows and multisampling, for people; ten times slower, and not what policies are trained on.

        Raises:
            ContractError: no such camera, or a size out of range.
            SetupError: no GL.
        """
        if camera not in CAMERA_NAMES:
            raise ContractError(f"camera {camera!r} is unknown; allowed are {CAMERA_NAMES}")
        if not 16 <= size_px <= MAX_IMAGE_PX:
            raise ContractError(f"size_px is {size_px}; allowed is 16 to {MAX_IMAGE_PX}")
        renderer = self._renderer(size_px, fine)
        renderer.update_scene(self.data, camera)
        return renderer.render()

    def _renderer(self, size_px: int, fine: bool) -> Any:
        if (size_px, fine) not in self._renderers:
            quality = self.model.vis.quality  # read when the GL context is made
            quality.shadowsize, quality.offsamples = (2048, 4) if fine else (0, 0)
            quality.numslices, quality.numstacks = (48, 24) if fine else (12, 6)
            renderer = open_renderer(self.model, size_px)
            flags = self._mujoco.mjtRndFlag
            renderer.scene.flags[flags.mjRND_SHADOW] = fine
            renderer.scene.flags[flags.mjRND_REFLECTION] = False
            self._renderers[size_px, fine] = renderer
        return self._renderers[size_px, fine]

    def close(self) -> None:
        """Free the GL contexts; `render` makes new ones."""
        _close_renderers(self._renderers)

    def __enter__(self) -> TabletopWorld:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _close_renderers(renderers: dict[tuple[int, bool], Any]) -> None:
    while renderers:
        renderers.popitem()[1].close()


def tool_down_joints(arm: ArmModel, xy_m: ArrayLike, height_m: float = TOOL_HEIGHT_M) -> Array:
    """Return (6,) joints [rad] that put `ee_gripper_link` at `xy_m`, `height_m` [m], pointing at the board.

    Raises:
        ContractError: out of reach.
    """
    x_m, y_m = np.asarray(xy_m, dtype=np.float64)
    target = np.eye(4)
    target[:3, :3] = TOOL_DOWN_ROTATION
    target[:3, 3] = (x_m, y_m, height_m)
    seed = _SEED_RAD.copy()
    seed[[0, 5]] = np.arctan2(y_m, x_m)  # the wrist turns back what the waist turns
    solution = solve_ik(arm, target, seed)
    if not solution.reached:
        raise ContractError(
            f"{arm.name} cannot point its tool down at ({x_m:.3f}, {y_m:.3f}, {height_m:.3f}) m; "
            "choose a point within 0.47 m of the base"
        )
    return solution.joints_rad
