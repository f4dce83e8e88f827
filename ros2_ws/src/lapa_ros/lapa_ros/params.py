# SPDX-License-Identifier: Apache-2.0
"""Every parameter of every node, once: a frozen dataclass whose fields carry description, unit and bounds.

`declare` turns such a class into declared, described, bounded, read-only ROS parameters and returns its
filled instance. `config/nodes/*.yaml` holds the same keys (a test compares them). Imports no rclpy at module level,
so that the table can be read anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

Params = TypeVar("Params")

DRIVER_MESSAGES = ("interbotix_xs_msgs", "lapa_xs_msgs")
"""Packages with the Interbotix driver's interfaces: its own, and ours with the same fields, for the fake driver."""
DRIVER_PACKAGES = ("interbotix_xs_modules", *DRIVER_MESSAGES)
"""What the arm node can talk to the driver through: Interbotix's Python API, or the topics themselves."""


def param(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Describe one parameter: its default (and with it its type), meaning with unit, and what is allowed."""
    metadata = {"text": text, "low": low, "high": high, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _autostart() -> Any:
    return param(True, "Configure and activate at start; false waits for `ros2 lifecycle set`.")


def _contract() -> Any:
    return param(
        "wx250s_sim", "Robot contract: a name in config/robots or the path of a .yaml file."
    )


@dataclass(frozen=True, kw_only=True)
class SimParams:
    """Parameters of `sim_node`."""

    autostart: bool = _autostart()
    contract: str = _contract()
    domain: str = param("default", "Look of the scene: a key of lapa_core.sim's DOMAINS.")
    seed: int = param(0, "Seed of the scene that is laid out at start [1].", low=0)
    command_timeout_s: float = param(
        0.3,
        "Without a joint command for this long the arm holds its measured joints [s].",
        low=0.02,
        high=10.0,
    )
    max_catch_up_s: float = param(
        0.2,
        "Real time that is made up for after a stall; more is dropped and reported [s].",
        low=0.0,
        high=5.0,
    )
    jpeg_quality: int = param(95, "Quality of the compressed camera stream [1].", low=1, high=100)
    spectator_rate_hz: float = param(
        0.0,
        "Rate of a 480 px view for people on camera/spectator; 0 is off [Hz].",
        low=0.0,
        high=30.0,
    )


@dataclass(frozen=True, kw_only=True)
class ArmParams:
    """Parameters of `arm_node`."""

    autostart: bool = _autostart()
    contract: str = _contract()
    backend: str = param(
        "sim", "What the joint targets go to.", choices=("sim", "interbotix", "dry_run")
    )
    driver_package: str = param(
        "interbotix_xs_modules",
        "Way to the interbotix backend's driver: Interbotix's Python API, or bare messages.",
        choices=DRIVER_PACKAGES,
    )
    driver_has_motors: bool = param(
        True, "False for Interbotix's xs_sdk_sim: faults and torque of its motors cannot be read."
    )
    realtime_priority: int = param(
        10,
        "Priority of the interbotix backend under SCHED_FIFO where the system allows it; 0 is none.",
        low=0,
        high=49,
    )
    sources: list[str] = param(
        ["operator", "policy"],
        "Whose deltas are applied, highest first: a higher source takes the arm from a lower one.",
    )
    handover_s: float = param(
        1.0,
        "After its last delta a source keeps the arm from lower ones for this long [s].",
        low=0.1,
        high=60.0,
    )
    state_rate_hz: float = param(20.0, "Rate of arm_state [Hz].", low=1.0, high=100.0)
    max_command_age_s: float = param(
        0.15, "A delta stamped longer ago than this is refused as stale [s].", low=0.005, high=5.0
    )
    move_speed_rad_s: float = param(
        1.2,
        "Peak joint speed of the moves to the ready and to the sleep pose [rad/s].",
        low=0.05,
        high=3.0,
    )
    park_on_shutdown: bool = param(
        False, "Move to the sleep pose before the node ends; false holds the measured joints."
    )


@dataclass(frozen=True, kw_only=True)
class PolicyParams:
    """Parameters of `policy_node`."""

    autostart: bool = _autostart()
    contract: str = _contract()
    checkpoint: str = param(
        "",
        "Folder of the policy checkpoint, or ws://host:port of a `lapa serve`; empty takes the one that ships with "
        "lapa_core.",
    )
    server_timeout_s: float = param(
        1.0,
        "With a server: how long one answer may take before the connection is given up and made anew [s].",
        low=0.05,
        high=4.0,
    )
    server_token_file: str = param(
        "",
        "With a server: file with its token; empty takes the environment variable LAPA_SERVE_TOKEN.",
    )
    camera_topic: str = param(
        "", "Camera topic without /image_raw; empty takes the contract's front camera."
    )
    transport: str = param(
        "raw", "Which of the camera's topics to use.", choices=("raw", "compressed")
    )
    instruction: str = param(
        "", "What to do from the start; empty waits for a topic or an action goal."
    )
    max_duration_s: float = param(
        30.0,
        "Longest FollowInstruction goal, and its limit where the goal gives none [s].",
        low=0.1,
        high=3600.0,
    )
    num_threads: int = param(1, "CPU threads of the inference [1].", low=1, high=64)


@dataclass(frozen=True, kw_only=True)
class RecorderParams:
    """Parameters of `recorder_node`."""

    autostart: bool = _autostart()
    contract: str = _contract()
    folder: str = param(
        "outputs/recordings", "Folder of the episodes, one .mcap file each; made if absent."
    )
    topics: list[str] = param(
        [
            "camera/front/image_raw/compressed sensor_msgs/msg/CompressedImage",
            "joint_states sensor_msgs/msg/JointState",
            "delta lapa_msgs/msg/EndEffectorDelta",
            "arm_state lapa_msgs/msg/ArmState",
            "task_state lapa_msgs/msg/TaskState",
            "recorder_event lapa_msgs/msg/RecorderEvent",
            "joy sensor_msgs/msg/Joy",
        ],
        "What is recorded: topic, relative to the namespace, and type.",
    )
    required: list[str] = param(
        ["camera/front/image_raw/compressed", "joint_states", "arm_state"],
        "Topics that must be heard for an episode to start; a silent one would make it useless.",
    )
    queue_size: int = param(
        512, "Messages that wait for the disk before new ones are dropped [1].", low=1, high=100000
    )
    flush_period_s: float = param(
        0.5, "Longest time between two syncs to the disk [s].", low=0.05, high=10.0
    )
    num_wanted: int = param(450, "Episodes the session aims at; only shown [1].", low=0)
    state_rate_hz: float = param(2.0, "Rate of recorder_state [Hz].", low=1.0, high=20.0)


@dataclass(frozen=True, kw_only=True)
class SessionParams:
    """Parameters of `session_node`, which leads an operator through a session file."""

    autostart: bool = _autostart()
    contract: str = _contract()
    session: str = param(
        "tabletop", "Session file: a name in config/sessions or the path of a .yaml file."
    )
    operator_name: str = param("", "Who demonstrates; empty takes the session file's `operator`.")
    folder: str = param(
        "outputs/recordings", "Folder that the recorder writes to; progress is what lies there."
    )
    lay_out: bool = param(
        False, "Before each recording, let the simulator lay out the scene and put the arm there."
    )
    state_rate_hz: float = param(2.0, "Rate of session_state [Hz].", low=0.1, high=20.0)
    max_staleness_s: float = param(
        0.3, "Oldest frame or pose of a row of a kept episode [s].", low=0.01, high=5.0
    )
    max_gap_s: float = param(
        1.0, "Longest time between two rows of a kept episode [s].", low=0.05, high=60.0
    )
    max_rate_deviation: float = param(
        0.2,
        "Largest relative difference between its rate and the contract's [1].",
        low=0.01,
        high=1.0,
    )
    max_dropped_fraction: float = param(
        0.05,
        "Largest share of its deltas left out for want of a fresh frame or pose [1].",
        low=0.0,
        high=0.9,
    )
    min_rows: int = param(2, "Fewest rows of a kept episode [1].", low=1, high=10000)
    max_still_share: float = param(
        0.5, "Largest share of its rows in which nothing moves [1].", low=0.0, high=1.0
    )
    max_saturated_share: float = param(
        0.5, "Largest share of its deltas at the contract's caps [1].", low=0.0, high=1.0
    )


@dataclass(frozen=True, kw_only=True)
class OperatorParams:
    """Parameters of `operator_node`, the scripted demonstrator of the simulation."""

    autostart: bool = _autostart()
    contract: str = _contract()
    episodes: int = param(1, "Episodes to demonstrate before the node ends [1].", low=1)
    seed: int = param(0, "Seed of the first scene; the next ones count up [1].", low=0)
    record: bool = param(True, "Record each episode with the recorder node.")
    session: bool = param(
        False,
        "Demonstrate what the session node asks for, until it is done, instead of `episodes`.",
    )
    keep_failures: bool = param(
        False, "Save episodes that did not succeed, instead of discarding them."
    )
    max_steps: int = param(
        60, "Commands after which an episode counts as failed [1].", low=1, high=1000
    )


@dataclass(frozen=True, kw_only=True)
class ReplayParams:
    """Parameters of `replay_node`, which plays a recorded episode on the arm."""

    autostart: bool = _autostart()
    contract: str = _contract()
    path: str = param("", "Recording (.mcap), or folder of a LeRobot data set.")
    episode: int = param(0, "Episode of the data set [1].", low=0)
    checkpoint: str = param(
        "",
        'Policy checkpoint whose bins every action goes through; "" plays the actions as they are.',
    )
    speed: float = param(
        1.0,
        "Share of the recorded rate of deltas; each is driven as fast as at 1, with a pause after it [1].",
        low=0.1,
        high=1.0,
    )
    ready: bool = param(
        True,
        "Move to the contract's ready pose and from there to where the episode begins first; false starts where the "
        "arm is.",
    )


@dataclass(frozen=True, kw_only=True)
class TeleopParams:
    """Parameters of `teleop_node`, through which a person drives the arm."""

    autostart: bool = _autostart()
    contract: str = _contract()
    device: str = param(
        "keyboard",
        "What publishes `joy`, and so whose map reads it.",
        choices=("keyboard", "joystick", "spacemouse", "joy"),
    )
    motion: str = param(
        "device",
        "What moves the arm while the switch is down: the device, or the joint states of a leader arm.",
        choices=("device", "leader"),
    )
    frame: str = param(
        "base",
        "Axes that a deflection is along: those of base_link, or those of the tool.",
        choices=("base", "tool"),
    )
    linear_speed_m_s: float = param(
        0.1, "Translation at full deflection; the contract caps it too [m/s].", low=0.001, high=1.0
    )
    angular_speed_rad_s: float = param(
        0.5, "Rotation at full deflection; the contract caps it too [rad/s].", low=0.01, high=3.0
    )
    slow_factor: float = param(
        0.3, "Factor on both speeds while `slow` is down [1].", low=0.01, high=1.0
    )
    dead_zone: float = param(
        0.1, "Deflection up to which an axis counts as centred [1].", low=0.0, high=0.9
    )
    input_timeout_s: float = param(
        0.25,
        "A device that is silent for this long has let go of the switch [s].",
        low=0.05,
        high=1.0,
    )
    joystick_axes: list[str] = param(
        ["x +1", "y +0", "z +4", "rz +3", "rx +6", "ry +7"],
        "Motion, sign and axis of a gamepad: sticks left and right, then the cross.",
    )
    joystick_buttons: list[str] = param(
        [
            "hold 5",
            "gripper 0",
            "slow 4",
            "stop 1",
            "clear 2",
            "ready 3",
            "record 7",
            "save 8",
            "discard 6",
            "redo 9",
            "undo 10",
        ],
        "Meaning and number of a gamepad's buttons: RB A LB B X Y Start Guide Back, left stick, right stick.",
    )
    spacemouse_axes: list[str] = param(
        ["x +0", "y +1", "z +2", "rx +3", "ry +4", "rz +5"],
        "Motion, sign and axis of a SpaceMouse.",
    )
    spacemouse_buttons: list[str] = param(
        ["hold 0", "gripper 1"], "Meaning and number of a SpaceMouse's buttons: left, right."
    )
    leader_model: str = param(
        "wx250s", "Robot model of the leader arm, whose joint states come on leader/joint_states."
    )
    leader_scale: float = param(
        1.0, "Follower's translation per translation of the leader [1].", low=0.05, high=2.0
    )


@dataclass(frozen=True, kw_only=True)
class TeleopInputParams:
    """Parameters of `teleop_input_node`, which publishes a device of this machine as `joy`."""

    autostart: bool = _autostart()
    contract: str = _contract()
    device: str = param("keyboard", "What to read.", choices=("keyboard", "joystick", "spacemouse"))
    path: str = param(
        "", "Its path or name; empty is this terminal, /dev/input/js0 or the first SpaceMouse."
    )
    rate_hz: float = param(
        50.0, "Rate of joy, also while nothing changes, so that silence means something [Hz].",
        low=10.0, high=200.0,
    )  # fmt: skip
    key_hold_s: float = param(
        0.18,
        "A key counts as down for so long after its last character; a tap is one control period [s].",
        low=0.05,
        high=0.5,
    )
    keys: list[str] = param(
        ["w x+", "s x-", "a y+", "d y-", "e z+", "q z-", "u rx+", "o rx-", "i ry+", "k ry-", "j rz+",
         "l rz-", "g gripper", "f hold", "t slow", "space stop", "c clear", "r ready", "R record", "S save",
         "D discard", "A redo", "U undo"],
        "Key and motion with its sign, or key and button.",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """Parameters of `evaluate_node`, which leads the policy through instructions in the simulation."""

    autostart: bool = _autostart()
    contract: str = _contract()
    episodes: int = param(20, "Instructions to follow [1].", low=1, high=10000)
    seed: int = param(900000, "Seed of the first scene; the next ones count up [1].", low=0)
    max_steps: int = param(
        60, "Control periods after which an instruction has failed [1].", low=1, high=1000
    )
    out: str = param("outputs/evaluate", "Folder of the summary, the video and the contact sheet.")
    video: bool = param(
        True,
        "Write a video and a contact sheet of the first 100 episodes, where the simulator has a spectator view.",
    )


PARAMETERS: dict[str, type] = {
    "replay": ReplayParams,
    "sim": SimParams,
    "arm": ArmParams,
    "policy": PolicyParams,
    "recorder": RecorderParams,
    "operator": OperatorParams,
    "session": SessionParams,
    "teleop": TeleopParams,
    "teleop_input": TeleopInputParams,
    "evaluate": EvaluateParams,
}
"""Node name -> its parameters."""


def declare(node: Any, table: type[Params]) -> Params:
    """Declare every parameter of `table` on a node and return the values it was started with.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: a value is out of its bounds.
        rclpy.exceptions.InvalidParameterTypeException: a value is of another type.
    """
    values = {}
    for item in fields(table):  # type: ignore[arg-type]
        default = item.default_factory() if callable(item.default_factory) else item.default
        values[item.name] = node.declare_parameter(item.name, default, _descriptor(item)).value
    instance = table(**values)
    for item in fields(table):  # type: ignore[arg-type]
        _check_choice(node.get_name(), item, values[item.name])
    return instance


def _descriptor(item: Any) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    meta = item.metadata
    constraint = f"One of: {', '.join(meta['choices'])}." if meta["choices"] else ""
    descriptor = ParameterDescriptor(
        description=meta["text"], additional_constraints=constraint, read_only=True
    )
    if meta["low"] is not None:
        low, high = meta["low"], meta["high"]
        if isinstance(item.default, float):
            bounds = FloatingPointRange(
                from_value=float(low), to_value=float("inf") if high is None else float(high)
            )
            descriptor.floating_point_range = [bounds]
        else:
            bounds = IntegerRange(
                from_value=int(low), to_value=2**62 if high is None else int(high), step=1
            )
            descriptor.integer_range = [bounds]
    return descriptor


def _check_choice(node_name: str, item: Any, value: Any) -> None:
    from rclpy.exceptions import InvalidParameterValueException

    choices = item.metadata["choices"]
    if choices and value not in choices:
        raise InvalidParameterValueException(
            item.name, value, f"{node_name} allows one of {list(choices)}"
        )
