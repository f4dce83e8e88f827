# SPDX-License-Identifier: Apache-2.0
"""The fake driver, the arm node and a person beside them, each a process or a node of its own."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros import qos
from lapa_ros.deltas import to_message
from lapa_ros.interbotix_link import messages_here
from lapa_ros.remote import GraphError, call
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.paths import config_dir
from lapa_core.robot.contract import load_contract

JOINT_STATE_AGE_S = 0.4
MESSAGES = messages_here()
"""What the fake driver speaks, and the arm node with it."""


def patient_contract(folder):
    """Write the contract wx250s but for one limit: on a machine that is busy with tests, joint states may be late."""
    text = (config_dir() / "robots/wx250s.yaml").read_text()
    text = text.replace(
        "max_joint_state_age_s: 0.1 ", f"max_joint_state_age_s: {JOINT_STATE_AGE_S} "
    )
    path = folder / "wx250s.yaml"
    path.write_text(text)
    assert load_contract(str(path)).max_joint_state_age_s == JOINT_STATE_AGE_S
    return str(path)


@contextmanager
def _process(module, given):
    process = subprocess.Popen([sys.executable, "-m", module, "--ros-args", *given])
    try:
        yield process
    finally:  # so that it takes leave: a participant that is killed is counted for 20 s more
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def driver(**params):
    """The fake driver in a process of its own."""
    given = [item for key, value in params.items() for item in ("-p", f"{key}:={value}")]
    with _process("lapa_ros.fake_driver.node", given) as process:
        yield process


class Person:
    """Watches the arm and the driver, commands, calls services, breaks things."""

    def __init__(self, spinner, contract_file):
        self.wait = spinner.wait
        self.contract_file, self.contract = contract_file, load_contract(contract_file)
        self.node = spinner.add(Node("person"))
        self.states, self.joints = [], []
        self.node.create_subscription(ArmState, "arm_state", self.states.append, qos.STATE)
        self.node.create_subscription(
            JointState, "joint_states", self.joints.append, qos.JOINT_STATES
        )
        self._delta = self.node.create_publisher(DeltaMsg, "delta", qos.DELTA)
        self._fault = self.node.create_publisher(String, "fake_fault", qos.EVENTS)
        self._sequence = 0

    def now_s(self):
        return self.node.get_clock().now().nanoseconds * 1e-9

    def send(self, x=0.01, source="policy"):
        self._sequence += 1
        delta = EndEffectorDelta.from_array((x, 0, 0, 0, 0, 0, 1.0))
        self._delta.publish(to_message(
            delta, source=source, sequence=self._sequence, stamp_s=self.now_s(), observation_s=None,
            contract_hash=self.contract.hash,
        ))  # fmt: skip

    def stream(self, condition, what, limit_s=10.0, x=0.01):
        """Command at the contract's rate, back and forth, until a condition; return how long that took [s]."""
        begun_s, next_s, sign = time.monotonic(), 0.0, 1
        while not condition():
            now_s = time.monotonic()
            assert now_s - begun_s < limit_s, f"waited {limit_s} s for {what}"
            if now_s >= next_s:
                self.send(sign * x)
                next_s, sign = now_s + 0.2, -sign
            time.sleep(0.005)
        return time.monotonic() - begun_s

    def inject(self, fault):
        self.wait(self._fault.get_subscription_count, "the driver")
        self._fault.publish(String(data=fault))

    def call(self, name):
        client = self.node.create_client(Trigger, f"arm/{name}")
        assert client.wait_for_service(10.0)
        return call(client, Trigger.Request())

    def mode(self):
        return self.states[-1].mode if self.states else None

    def wait_mode(self, mode, limit_s=15.0):
        self.wait(lambda: self.mode() == mode, f"mode {mode}", limit_s)


@contextmanager
def arm_process(contract_file, *, package=MESSAGES, speed_rad_s=1.2, park=False):
    """The arm node in a process of its own; its log is a pipe."""
    params = {"backend": "interbotix", "driver_package": package, "contract": contract_file,
              "move_speed_rad_s": speed_rad_s, "park_on_shutdown": str(park).lower()}  # fmt: skip
    given = [item for key, value in params.items() for item in ("-p", f"{key}:={value}")]
    with _process("lapa_ros.arm_node", given) as process:
        yield process


def attempt(act, *arguments):
    """Return what it returns, or None where the graph refuses."""
    try:
        return act(*arguments)
    except GraphError:
        time.sleep(0.3)
        return None
