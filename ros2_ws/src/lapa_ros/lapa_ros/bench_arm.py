# SPDX-License-Identifier: Apache-2.0
"""`lapa bench arm`: from a delta to the joint command that carries it, through the arm node, over real DDS.

The arm node is a process of its own. Joint states come from here at 100 Hz and follow its commands, so that nothing but
the node and the middleware is measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import rclpy
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from tqdm import tqdm

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ContractError
from lapa_core.robot.contract import RobotContract, load_contract
from lapa_core.ros_env import free_domain_id
from lapa_ros import qos
from lapa_ros.arm_backends import GRIPPER
from lapa_ros.deltas import to_message
from lapa_ros.remote import wait_until

_STEP_M = 0.01
"""Length of a delta; they go to and fro [m]."""


@dataclass(frozen=True, kw_only=True)
class BenchArmConfig:
    """Send deltas at the contract's control rate and time the joint commands that answer them."""

    contract: str = "wx250s_sim"
    """Robot contract, a name or a path; says the control and the command rate."""
    deltas: int = 200
    """Deltas to send."""

    def __post_init__(self) -> None:
        if self.deltas < 10:
            raise ContractError(f"deltas is {self.deltas}; at least 10 are needed")


class _Rig(Node):
    """Stands for the arm, and for the source of deltas."""

    def __init__(self, contract: RobotContract):
        super().__init__("bench_arm")
        self._contract = contract
        self.state: ArmState | None = None
        self.answered_s = float("nan")
        self._target = [*contract.ready_joints_rad, contract.ready_gripper]
        self._joints = list(self._target)
        self._waits_for: list[float] | None = None
        self._deltas = self.create_publisher(DeltaMsg, "delta", qos.DELTA)
        self._states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_commands", self._on_command, qos.JOINT_COMMANDS)
        self.create_subscription(ArmState, "arm_state", self._on_state, qos.STATE)
        self.create_timer(0.01, self._send_states)

    def send(self, number: int) -> float:
        """Send a delta and return when, by the monotonic clock [s]; `answered_s` is set by its joint command."""
        step_m = _STEP_M if number % 2 else -_STEP_M
        now_s = self.get_clock().now().nanoseconds * 1e-9
        message = to_message(
            EndEffectorDelta.from_array((0, step_m, 0, 0, 0, 0, 0)), source="policy", sequence=number + 1,
            stamp_s=now_s, observation_s=now_s, contract_hash=self._contract.hash,
        )  # fmt: skip
        self.answered_s, self._waits_for = float("nan"), list(self._target)
        sent_s = time.monotonic()
        self._deltas.publish(message)
        return sent_s

    def _on_command(self, message: JointState) -> None:
        now_s = time.monotonic()
        target = list(message.position)
        moved = self._waits_for is not None and any(
            abs(a - b) > 1e-9 for a, b in zip(target, self._waits_for, strict=True)
        )
        if moved:
            self.answered_s, self._waits_for = now_s, None
        self._target = target

    def _on_state(self, state: ArmState) -> None:
        self.state = state

    def _send_states(self) -> None:
        model = self._contract.arm
        closed_m, open_m = model.finger_gap_m
        self._joints = list(self._target)
        gap_m = closed_m + self._joints[6] * (open_m - closed_m)
        message = JointState(
            name=[*model.joint_names, GRIPPER], position=[*self._joints[:6], gap_m]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)


def measure(config: BenchArmConfig) -> dict[str, Any]:
    """Run in a ROS domain of its own and return the figures."""
    contract = load_contract(config.contract)
    os.environ["ROS_DOMAIN_ID"] = str(free_domain_id())
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init()
    rig, executor, stop = _Rig(contract), SingleThreadedExecutor(), threading.Event()
    executor.add_node(rig)
    thread = threading.Thread(target=_spin, args=(executor, stop.is_set), daemon=True)
    thread.start()
    arguments = ["-p", f"contract:={config.contract}", "-p", "backend:=sim"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lapa_ros.arm_node", "--ros-args", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        latency_s = _latencies(rig, contract, config.deltas, stop)
        refused = rig.state.refused if rig.state is not None else -1
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20.0)
        stop.set()
        thread.join(5.0)
        executor.remove_node(rig)
        rig.destroy_node()
        rclpy.try_shutdown()
    latency_ms = 1e3 * latency_s
    figures = {
        "p50": np.median(latency_ms),
        "p99": np.percentile(latency_ms, 99),
        "max": latency_ms.max(),
    }
    return {
        "bench": "arm",
        "config": asdict(config),
        "command_rate_hz": contract.command_rate_hz,
        "deltas": len(latency_s),
        "refused": int(refused),
        "latency_ms": {name: round(float(value), 2) for name, value in figures.items()},
    }


def _latencies(rig: _Rig, contract: RobotContract, count: int, stop: threading.Event) -> np.ndarray:
    holding = ArmState.MODE_HOLDING
    wait_until(
        lambda: rig.state is not None and rig.state.mode == holding, "the arm node", 30.0, stop
    )
    latency_s = []
    for number in tqdm(range(count), desc="deltas", unit="delta"):
        begin_s = rig.send(number)
        wait_until(lambda: rig.answered_s == rig.answered_s, "a joint command", 1.0, stop)
        latency_s.append(rig.answered_s - begin_s)
        jitter_s = 0.003 * (number % 7)  # so that deltas meet every phase of the node's timer
        time.sleep(max(0.0, begin_s + 1.0 / contract.control_rate_hz + jitter_s - time.monotonic()))
    return np.array(latency_s)


def _spin(executor: SingleThreadedExecutor, stopped: Callable[[], bool]) -> None:
    while not stopped():
        executor.spin_once(timeout_sec=0.05)


def main(config: BenchArmConfig) -> None:
    """Measure, and print one JSON object on the last line."""
    print(json.dumps(measure(config)))
