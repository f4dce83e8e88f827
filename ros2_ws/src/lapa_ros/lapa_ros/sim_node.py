# SPDX-License-Identifier: Apache-2.0
"""`sim`: the MuJoCo table in the place of a robot and its camera. A shell around `SimLogic`."""

from __future__ import annotations

import sys

from builtin_interfaces.msg import Time
from lapa_msgs.msg import TaskState
from lapa_msgs.srv import ResetTask
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

from lapa_core.errors import ActionError, ContractError, LapaError
from lapa_core.robot.contract import load_contract
from lapa_ros import images, qos
from lapa_ros.deltas import FRAME
from lapa_ros.diagnostics import OK, WARN, Health
from lapa_ros.geometry import position_to_pose, to_pose
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.sim_logic import Pacer, SimLogic

SPECTATOR_PX = 480
CAMERA_FRAME = "front_camera_optical"


class SimNode(ManagedNode):
    """Publishes joint_states, the camera (raw and compressed) and task_state; follows joint_commands."""

    def __init__(self, **kwargs: object):
        super().__init__("sim", **kwargs)
        self._logic: SimLogic | None = None

    def setup(self) -> None:
        """Build the world, lay out the first scene, render once (loads the GL) and make the topics."""
        self._contract = load_contract(self.params.contract)
        self._camera = self._contract.cameras["front"]
        if self._camera.width_px != self._camera.height_px:
            raise ContractError(
                f"the simulator renders squares, the contract's front camera is "
                f"{self._camera.width_px} x {self._camera.height_px} px; choose another contract"
            )
        self._logic = SimLogic(
            self._contract,
            self.params.domain,
            self.params.command_timeout_s,
            self.params.max_catch_up_s,
            self.say,
        )
        self._logic.reset(self.params.seed, "")
        self._logic.world.render("front", self._camera.width_px)
        topic = self._camera.topic
        publisher = self.create_lifecycle_publisher
        self._joint_publisher = publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._image_publisher = publisher(Image, f"{topic}/image_raw", qos.CAMERA_DRIVER)
        self._jpeg_publisher = publisher(
            CompressedImage, f"{topic}/image_raw/compressed", qos.CAMERA_DRIVER
        )
        self._spectator_publisher = publisher(
            CompressedImage, "camera/spectator/compressed", qos.CAMERA_DRIVER
        )
        self._task_publisher = publisher(TaskState, "task_state", qos.STATE)
        self.create_service(ResetTask, "~/reset", self._reset)
        self._frames = 0

    def start(self) -> None:
        """Begin to simulate, in real time."""
        self._said_command = False
        self._camera_pace = Pacer(self._camera.rate_hz)
        self._spectator_pace = Pacer(self.params.spectator_rate_hz or 1.0)
        self._subscription = self.create_subscription(
            JointState, "joint_commands", self._on_command, qos.JOINT_COMMANDS
        )
        self._timer = self.create_timer(1.0 / self._contract.command_rate_hz, self._tick)

    def stop(self) -> None:
        """Let the world stand still."""
        self.destroy_timer(self._timer)
        self.destroy_subscription(self._subscription)

    def teardown(self) -> None:
        """Free the GL."""
        if self._logic is not None:
            self._logic.world.close()
            self._logic = None

    def health(self) -> Health:
        """Holding for want of commands is worth a warning."""
        logic = self._logic
        values = {"frames": self._frames, "episode": logic.episode, "seed": logic.seed}
        level = WARN if self.active and logic.holding else OK
        return Health(
            level, "holding: no joint commands" if logic.holding else "simulating", values
        )

    def _tick(self) -> None:
        now = self.get_clock().now()
        now_s, stamp = now.nanoseconds * 1e-9, now.to_msg()
        self._logic.advance(now_s)
        self._publish_joints(stamp)
        if self._camera_pace.due(now_s):
            self._publish_frame(stamp)
            self._publish_task(stamp)
        if self.params.spectator_rate_hz > 0 and self._spectator_pace.due(now_s):
            picture = self._logic.world.render("front", SPECTATOR_PX)
            header = Header(stamp=stamp, frame_id=CAMERA_FRAME)
            self._spectator_publisher.publish(
                images.to_compressed(picture, header, self.params.jpeg_quality)
            )

    def _publish_joints(self, stamp: Time) -> None:
        names, positions, velocities = self._logic.joint_states()
        message = JointState(name=names, position=positions, velocity=velocities)
        message.header.stamp = stamp
        self._joint_publisher.publish(message)

    def _publish_frame(self, stamp: Time) -> None:
        picture = self._logic.world.render("front", self._camera.width_px)
        header = Header(stamp=stamp, frame_id=CAMERA_FRAME)
        self._image_publisher.publish(images.to_image(picture, header))
        if self._jpeg_publisher.get_subscription_count():
            self._jpeg_publisher.publish(
                images.to_compressed(picture, header, self.params.jpeg_quality)
            )
        self._frames += 1

    def _publish_task(self, stamp: Time) -> None:
        logic, task = self._logic, self._logic.task
        state = TaskState(
            instruction=task.instruction, family=task.family, seed=logic.seed, episode=logic.episode,
            elapsed_s=logic.elapsed_s, success=logic.success(), domain=self.params.domain,
        )  # fmt: skip
        state.header = Header(stamp=stamp, frame_id=FRAME)
        blocks = logic.world.block_positions_m
        state.object_names = list(blocks)
        state.object_poses = [position_to_pose(position) for position in blocks.values()]
        state.end_effector_pose = to_pose(logic.world.ee_pose_44)
        self._task_publisher.publish(state)

    def _on_command(self, message: JointState) -> None:
        try:
            self._logic.command(message.name, message.position, self.now_s())
        except ActionError as error:
            if not self._said_command:
                self._said_command = True
                self.get_logger().error(f"joint command ignored: {error}")

    def _reset(
        self, request: ResetTask.Request, response: ResetTask.Response
    ) -> ResetTask.Response:
        try:
            task = self._logic.reset(request.seed, request.instruction)
        except LapaError as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok, response.instruction, response.family = True, task.instruction, task.family
        response.episode = self._logic.episode
        if self.active:  # before the answer, so that an arm that is told to hold knows where it is
            self._publish_joints(self.get_clock().now().to_msg())
        return response


def main() -> None:
    """Run the node."""
    sys.exit(run(SimNode))


if __name__ == "__main__":
    main()
