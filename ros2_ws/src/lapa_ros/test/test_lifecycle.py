# SPDX-License-Identifier: Apache-2.0
"""Every managed node goes through its states by the standard services, twice, and fails honestly."""

import signal
import subprocess
import sys
import threading
import time
from functools import partialmethod

import pytest
from lapa_ros.arm_node import ArmNode
from lapa_ros.evaluate_node import EvaluateNode
from lapa_ros.lifecycle import ManagedNode
from lapa_ros.operator_node import OperatorNode
from lapa_ros.policy_logic import PolicyWorker
from lapa_ros.policy_node import PolicyNode
from lapa_ros.recorder_node import RecorderNode
from lapa_ros.remote import GraphError, wait_future
from lapa_ros.sim_node import SimNode
from lapa_ros.teleop_node import TeleopNode
from lapa_ros.worker_node import WorkerNode
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from toy_policy import save_toy_policy

from lapa_core.errors import SetupError
from lapa_core.sim.world import TabletopWorld

ROUND = [
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
]


def entities(node):
    return sum(
        len(list(kind))
        for kind in (
            node.publishers, node.subscriptions, node.services, node.clients, node.timers, node.waitables,
        )
    )  # fmt: skip


@pytest.mark.parametrize("kind", [EvaluateNode, OperatorNode, TeleopNode])
def test_what_set_up_made_is_given_back(ros_domain, tmp_path, kind):
    out = [Parameter("out", value=str(tmp_path))] if kind is EvaluateNode else []
    node = kind(parameter_overrides=out)
    before = entities(node)
    for _ in range(2):
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        assert entities(node) > before
        assert node.trigger_cleanup() is TransitionCallbackReturn.SUCCESS
        assert entities(node) == before
    node.destroy_node()


def test_a_node_that_was_never_configured_keeps_its_services_at_shutdown(ros_domain):
    node = ArmNode()
    before = entities(node)
    node.trigger_shutdown()
    assert entities(node) == before
    node.destroy_node()


@pytest.mark.parametrize("kind", [SimNode, ArmNode, RecorderNode, PolicyNode])
def test_states_are_reached_twice_by_services(spinner, tmp_path, kind):
    overrides = {
        RecorderNode: {"folder": str(tmp_path)},
        PolicyNode: {"checkpoint": str(save_toy_policy(tmp_path / "toy"))}
        if kind is PolicyNode
        else {},
    }.get(kind, {})
    node = spinner.add(
        kind(parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()])
    )
    client = spinner.add(Node("lifecycle_client"))
    change = client.create_client(ChangeState, f"{node.get_name()}/change_state")
    get = client.create_client(GetState, f"{node.get_name()}/get_state")
    assert change.wait_for_service(10.0)
    assert get.wait_for_service(10.0)
    before = entities(node)
    for transition, state in [*ROUND, *ROUND]:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert wait_future(change.call_async(request), "change_state", 20.0).success
        assert (
            wait_future(get.call_async(GetState.Request()), "get_state", 5.0).current_state.id
            == state
        )
    assert entities(node) == before


class Clumsy(ManagedNode):
    """Breaks where it is told to."""

    def __init__(self, breaks_in):
        super().__init__("arm")
        self.calls, self._breaks_in = [], breaks_in

    def _do(self, name):
        self.calls.append(name)
        if name == self._breaks_in:
            raise RuntimeError(f"{name} is broken")

    def setup(self):
        self._do("setup")

    def start(self):
        self._do("start")

    def stop(self):
        self._do("stop")

    def teardown(self):
        self._do("teardown")


@pytest.fixture
def clumsy(ros_domain):
    nodes = []

    def make(breaks_in):
        nodes.append(Clumsy(breaks_in))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_a_broken_teardown_leaves_nothing_of_ours_behind(clumsy):
    node = clumsy("teardown")
    before = entities(node)
    node.trigger_configure()
    assert entities(node) > before
    assert node.trigger_cleanup() is TransitionCallbackReturn.FAILURE
    assert entities(node) == before


def test_a_broken_set_up_is_cleaned_up_and_fails_the_transition(clumsy):
    node = clumsy("setup")
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert node.calls == ["setup", "teardown"]


def test_a_broken_start_leaves_the_node_inactive(clumsy):
    node = clumsy("start")
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.FAILURE
    assert not node.active


def test_shutdown_stops_before_it_tears_down(clumsy):
    node = clumsy(None)
    node.trigger_configure()
    node.trigger_activate()
    node.trigger_shutdown()
    assert node.calls == ["setup", "start", "stop", "teardown"]


def test_a_simulator_that_cannot_render_says_only_that(ros_domain, monkeypatch, capfd):
    """Regression pinned: what was not made yet could not be given back, and a second traceback hid the first."""

    def render(*_):
        raise SetupError("no EGL here")

    monkeypatch.setattr(TabletopWorld, "render", render)
    node = SimNode()
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()
    said = capfd.readouterr().err
    assert "cannot configure: no EGL here" in said
    assert "Traceback" not in said


class Lasting(WorkerNode):
    """Works until it is allowed to end."""

    def __init__(self):
        super().__init__("operator")
        self.may_end, self.ended = threading.Event(), []

    def work(self):
        self.may_end.wait(20.0)
        self.ended.append(self.stop_asked.is_set())


def test_work_that_has_not_ended_is_not_begun_beside_itself(ros_domain, capfd):
    """Regression pinned: the second activation took back what the first deactivation had asked for."""
    node = Lasting()
    node.trigger_configure()
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    node.trigger_deactivate()
    assert node.trigger_activate() is TransitionCallbackReturn.FAILURE
    assert "has not" in capfd.readouterr().err
    node.may_end.set()
    assert node.finished.wait(20.0)
    assert node.ended == [True]
    node.destroy_node()


def test_work_that_has_not_ended_keeps_what_it_uses(ros_domain, capfd):
    """Regression pinned: cleaning up destroyed the clients and publishers of a thread that still worked."""
    node = Lasting()
    unconfigured = entities(node)
    node.trigger_configure()
    configured = entities(node)
    node.trigger_activate()
    node.trigger_deactivate()
    assert node.trigger_cleanup() is TransitionCallbackReturn.FAILURE
    assert "has not ended" in capfd.readouterr().err
    assert entities(node) == configured
    node.may_end.set()
    assert node.finished.wait(20.0)
    node._thread.join()
    assert node.trigger_cleanup() is TransitionCallbackReturn.SUCCESS
    assert entities(node) == unconfigured
    node.destroy_node()


@pytest.mark.parametrize(
    ("error", "said", "traceback"),
    [
        (GraphError("no arm"), "operator ended: no arm", False),
        (ZeroDivisionError("oh"), "oh", True),
    ],
)
def test_work_that_fails_ends_its_process_with_an_error(ros_domain, capfd, error, said, traceback):
    class Broken(Lasting):
        def work(self):
            raise error

    node = Broken()
    node.trigger_configure()
    node.trigger_activate()
    assert node.finished.wait(20.0)
    assert node.exit_code == 1
    node.destroy_node()
    log = capfd.readouterr().err
    assert said in log
    assert ("Traceback" in log) is traceback


def test_a_value_out_of_bounds_is_one_line_and_a_mistake_of_ours_a_traceback(ros_domain):
    command = [sys.executable, "-m", "lapa_ros.arm_node", "--ros-args", "-p"]
    wrong = subprocess.run(
        [*command, "max_command_age_s:=-1.0"], capture_output=True, text=True, timeout=60
    )
    assert wrong.returncode == 2
    assert "cannot start: InvalidParameterValueException" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stdout + wrong.stderr
    mistaken = "from lapa_ros.lifecycle import run; run(lambda: 1 / 0)"
    broken = subprocess.run(
        [sys.executable, "-c", mistaken], capture_output=True, text=True, timeout=60
    )
    assert broken.returncode == 1
    assert "ZeroDivisionError" in broken.stderr


@pytest.mark.parametrize("simulated", [False, True])
def test_a_node_keeps_the_clock_that_it_started_with(ros_domain, simulated):
    """Regression pinned: a clock set later passed a real arm's check, and cleaning up destroyed its subscription."""
    node = ArmNode(parameter_overrides=[Parameter("use_sim_time", value=simulated)])
    before = node.get_clock().ros_time_is_active
    (other,) = node.set_parameters([Parameter("use_sim_time", value=not simulated)])
    assert not other.successful
    assert "starts" in other.reason
    (same,) = node.set_parameters([Parameter("use_sim_time", value=simulated)])
    assert same.successful
    assert node.get_clock().ros_time_is_active is before is simulated
    node.destroy_node()


def test_an_inference_that_has_not_ended_is_not_joined_by_another(
    ros_domain, tmp_path, monkeypatch
):
    may_end = threading.Event()
    monkeypatch.setattr(PolicyWorker, "turn", lambda _: may_end.wait())
    monkeypatch.setattr(PolicyWorker, "stop", partialmethod(PolicyWorker.stop, 0.05))
    toy = Parameter("checkpoint", value=str(save_toy_policy(tmp_path / "toy")))
    node = PolicyNode(parameter_overrides=[toy])
    for transition in (node.trigger_configure, node.trigger_activate, node.trigger_deactivate):
        assert transition() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.FAILURE
    assert node.trigger_cleanup() is TransitionCallbackReturn.FAILURE
    may_end.set()
    node._worker._thread.join(5.0)
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    node.trigger_shutdown()
    node.destroy_node()


def test_interrupts_while_the_process_ends_do_not_kill_it(ros_domain):
    """Regression pinned: Ctrl-C and `ros2 launch` interrupt a node twice, and the second one ended it by the signal."""
    command = [sys.executable, "-m", "lapa_ros.arm_node", "--ros-args", "-p", "backend:=dry_run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process, process.stdout:
        assert any("joint states arrive" in line for line in process.stdout)
        end_s = time.monotonic() + 20.0
        while process.poll() is None and time.monotonic() < end_s:
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0
