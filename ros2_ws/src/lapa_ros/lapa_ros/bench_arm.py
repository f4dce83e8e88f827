# SPDX-License-Identifier: Apache-2.0
"""`lapa bench arm`: from a delta to the joint command that carries it, and to the arm, over real DDS.

The arm node runs as on an arm of motors, with the backend `interbotix`, against the fake driver; each is a process of
its own.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from rclpy.node import Node
from sensor_msgs.msg import JointState
from tqdm import tqdm

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ContractError
from lapa_core.robot.contract import RobotContract, load_contract
from lapa_ros import qos
from lapa_ros.bench_graph import node_process, spun
from lapa_ros.deltas import to_message
from lapa_ros.interbotix_link import load_interfaces
from lapa_ros.params import DRIVER_MESSAGES, DRIVER_PACKAGES
from lapa_ros.realtime import take_priority
from lapa_ros.remote import GraphError, wait_until

_STEP_M = 0.01
"""Length of a delta; they go to and fro, sideways, which turns the waist [m]."""


@dataclass(frozen=True, kw_only=True)
class BenchArmConfig:
    """Send deltas at the contract's control rate; time the joint commands that answer them, and the arm."""

    contract: str = "wx250s"
    """Robot contract, a name or a path; says the control and the command rate."""
    deltas: int = 200
    """Deltas to send."""
    driver_package: str = "lapa_xs_msgs"
    """As the arm node's: its way to the fake driver. The other ways are Interbotix's, and must be installed."""
    realtime_priority: int = 10
    """As the arm node's; this process, which tells the time, takes it too. 0 is none."""

    def __post_init__(self) -> None:
        if self.driver_package not in DRIVER_PACKAGES:
            raise ContractError(
                f"driver_package is {self.driver_package!r}; allowed are {', '.join(DRIVER_PACKAGES)}"
            )
        if self.deltas < 10:
            raise ContractError(f"deltas is {self.deltas}; at least 10 are needed")

    def messages(self) -> str:
        """Return the package of the driver's messages."""
        return self.driver_package if self.driver_package in DRIVER_MESSAGES else DRIVER_MESSAGES[0]


class _Rig(Node):
    """Sends deltas, and listens to what the arm node sends to the driver and the driver says.

    Attributes:
        state: the newest arm state.
        answered_s: when the joint command came that differs from the one before the last delta; NaN before [s].
        waist: times [s] and measured positions [rad] of the waist.
    """

    def __init__(self, contract: RobotContract, package: str):
        super().__init__("bench_arm")
        self._contract = contract
        self.state: ArmState | None = None
        self.answered_s = float("nan")
        self.waist: list[tuple[float, float]] = []
        self._target: list[float] | None = None
        self._waits_for: list[float] | None = None
        self._deltas = self.create_publisher(DeltaMsg, "delta", qos.DELTA)
        messages, _ = load_interfaces(package)
        self.create_subscription(
            messages.JointGroupCommand, "commands/joint_group", self._on_command, qos.JOINT_STATES
        )
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES)
        self.create_subscription(ArmState, "arm_state", self._on_state, qos.STATE)

    def hears_all(self) -> bool:
        """Return whether the arm holds, and its commands and joint states arrive: discovery takes its time."""
        holds = self.state is not None and self.state.mode == ArmState.MODE_HOLDING
        return holds and self._target is not None and bool(self.waist)

    def send(self, number: int) -> float:
        """Send a delta and return when, by the monotonic clock [s]."""
        step_m = _STEP_M if number % 2 else -_STEP_M
        now_s = self.get_clock().now().nanoseconds * 1e-9
        message = to_message(
            EndEffectorDelta.from_array((0, step_m, 0, 0, 0, 0, 1)), source="policy", sequence=number + 1,
            stamp_s=now_s, observation_s=now_s, contract_hash=self._contract.hash,
        )  # fmt: skip
        self.answered_s, self._waits_for = float("nan"), self._target
        sent_s = time.monotonic()
        self._deltas.publish(message)
        return sent_s

    def _on_command(self, message: Any) -> None:
        now_s = time.monotonic()
        target = list(message.cmd)
        if self._waits_for is not None and target != self._waits_for:
            self.answered_s, self._waits_for = now_s, None
        self._target = target

    def _on_joints(self, message: JointState) -> None:
        self.waist.append((time.monotonic(), message.position[message.name.index("waist")]))

    def _on_state(self, state: ArmState) -> None:
        self.state = state


def measure(config: BenchArmConfig) -> dict[str, Any]:
    """Run in a ROS domain of its own and return the figures.

    Raises:
        GraphError: the arm node does not hold, a delta is not answered by a joint command, or joint states pause.
    """
    contract = load_contract(config.contract)
    driver = {"contract": config.contract, "messages": config.messages(), "start": "ready"}
    arm = {
        "contract": config.contract,
        "driver_package": config.driver_package,
        "backend": "interbotix",
        "realtime_priority": str(config.realtime_priority),
    }
    with (
        spun(lambda: _Rig(contract, config.messages())) as rig,
        node_process("lapa_ros.fake_driver.node", driver),
        node_process("lapa_ros.arm_node", arm),
    ):
        if refused := take_priority(config.realtime_priority):
            print(f"warning: {refused}", file=sys.stderr)
        sent_s, command_s = _send_deltas(rig, contract, config.deltas)
        num_refused = rig.state.refused if rig.state is not None else -1
    half_way_s = _half_way(np.array(rig.waist), sent_s)
    return {
        "bench": "arm",
        "config": asdict(config),
        "command_rate_hz": contract.command_rate_hz,
        "interpolation_ms": 1e3 * contract.interpolation_s,
        "deltas": len(sent_s),
        "refused": int(num_refused),
        "command_ms": _figures(command_s - sent_s),
        "half_way_ms": _figures(half_way_s - sent_s[:-1]),
    }


def _send_deltas(rig: _Rig, contract: RobotContract, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return when each delta was sent and when its joint command came, both (count,) [s]."""
    never = threading.Event()
    wait_until(rig.hears_all, "the arm node and the driver", 30.0, never)
    gc.collect()
    gc.freeze()  # as in the arm node: who tells the time is not to stop for 20 ms
    sent_s, command_s = [], []
    for number in tqdm(range(count), desc="deltas", unit="delta"):
        sent_s.append(rig.send(number))
        wait_until(lambda: rig.answered_s == rig.answered_s, "a joint command", 1.0, never)
        command_s.append(rig.answered_s)
        jitter_s = 0.003 * (number % 7)  # so that deltas meet every phase of the node's timer
        next_s = sent_s[-1] + 1.0 / contract.control_rate_hz + jitter_s
        time.sleep(max(0.0, next_s - time.monotonic()))
    return np.array(sent_s), np.array(command_s)


def _half_way(waist: np.ndarray, sent_s: np.ndarray) -> np.ndarray:
    """Return when the waist was half-way from where it was at each delta to where it was at the next [s].

    Raises:
        GraphError: no joint state came in between.
    """
    times_s, positions_rad = waist.T
    half_way_s = []
    for number, (begin_s, end_s) in enumerate(pairwise(sent_s), start=1):
        within = (times_s >= begin_s) & (times_s <= end_s)
        if not within.any():
            raise GraphError(
                f"no joint states came in the {end_s - begin_s:.2f} s after delta {number}; "
                "this machine is too busy to measure on"
            )
        done_rad = np.abs(positions_rad[within] - np.interp(begin_s, times_s, positions_rad))
        half_way_s.append(np.interp(done_rad[-1] / 2.0, done_rad, times_s[within]))
    return np.array(half_way_s)


def _figures(seconds: np.ndarray) -> dict[str, float]:
    milliseconds = 1e3 * seconds
    figures = {
        "p50": np.median(milliseconds),
        "p99": np.percentile(milliseconds, 99),
        "max": milliseconds.max(),
    }
    return {name: round(float(value), 2) for name, value in figures.items()}


def main(config: BenchArmConfig) -> None:
    """Measure, and print one JSON object on the last line."""
    print(json.dumps(measure(config)))
