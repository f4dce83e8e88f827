# SPDX-License-Identifier: Apache-2.0
"""A recorded episode on the arm: every delta confirmed, nothing after a refusal, the wrong robot refused."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from lapa_msgs.msg import ArmState
from lapa_ros.arm_node import ArmNode
from lapa_ros.remote import GraphError
from lapa_ros.replay_node import ReplayNode
from lapa_ros.replay_player import Player, approach, check
from rclpy.parameter import Parameter
from scipy.spatial.transform import Rotation

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.data.lerobot import LeRobotWriter
from lapa_core.data.lerobot_format import STATE_NAMES, make_features
from lapa_core.data.replay import Replay, read_replay
from lapa_core.errors import ContractError, DataError
from lapa_core.robot.kinematics import forward_kinematics


def moves(count=5, step_m=0.01):
    actions = np.zeros((count, 7))
    actions[:, 1] = step_m
    return actions


@pytest.fixture
def replay(contract):
    actions = moves()
    states = np.zeros((5, 7))
    states[1:, :3] = np.cumsum(actions[:-1, :3], axis=0)
    return Replay(
        label="test", instruction="go left", actions=actions, states=states, rate_hz=5.0,
        contract_hash=contract.hash,
    )  # fmt: skip


class Arm:
    """Answers at once; refuses from a given delta on."""

    def __init__(self, refuse_from=100, silent_from=100):
        self.state, self.sent, self.rest = ArmState(), 0, None
        self._refuse_from, self._silent_from = refuse_from, silent_from

    def publish(self, delta):
        self.sent += 1
        state = ArmState(refused=self.state.refused, last_applied_source="policy")
        state.applied = self.state.applied
        state.last_applied_sequence = self.state.last_applied_sequence
        state.measured_pose = self.state.measured_pose
        if self.sent >= self._silent_from:
            return self.sent
        if self.sent >= self._refuse_from:
            state.refused += 1
            state.last_refusal = "outside the workspace"
        else:
            state.mode = ArmState.MODE_TRACKING
            state.last_applied_sequence = self.sent
            state.applied += 1
            state.measured_pose.position.y += delta.translation_m[1] - 0.001
        self.state = state
        return self.sent


def play(replay, arm, **how):
    player = Player(replay, 0.001, arm.publish, lambda: arm.state, lambda: arm.rest)
    return player.run(threading.Event(), **how)


def test_the_path_is_compared_with_the_recorded_one(replay):
    arm = Arm()
    report = play(replay, arm)
    assert report.applied == 5
    np.testing.assert_allclose(report.deviation_m, 0.001 * np.arange(5), atol=1e-9)
    assert "2.0 mm from the recorded one on average, 4.0 mm at most" in str(report)


def test_nothing_is_sent_after_a_refusal(replay):
    arm = Arm(refuse_from=3)
    with pytest.raises(GraphError, match="delta 3 of 5: outside the workspace"):
        play(replay, arm)
    assert arm.sent == 3


def test_a_hold_ends_the_replay(replay):
    class HeldArm(Arm):
        @property
        def state(self):
            return self._state

        @state.setter
        def state(self, state):
            if getattr(self, "sent", 0) == 3:
                state.mode, state.reason = ArmState.MODE_HOLDING, "held by request"
            self._state = state

    arm = HeldArm()
    with pytest.raises(GraphError, match="no longer follows after delta 3 of 5: held by request"):
        play(replay, arm)
    assert arm.sent == 3


def test_a_hold_that_a_delta_on_its_way_undoes_ends_the_replay(replay):
    """Regression pinned: between two looks the arm held, followed again, and the replay went on."""

    class HeldArm(Arm):
        def publish(self, delta):
            sent = super().publish(delta)
            if sent == 3:  # it held just before, and the delta made it follow again
                self.rest = ArmState(mode=ArmState.MODE_HOLDING, reason="held by request")
            return sent

    arm = HeldArm()
    with pytest.raises(GraphError, match="held before delta 3 of 5: held by request"):
        play(replay, arm)
    assert arm.sent == 3


def test_a_hold_between_the_way_to_an_episode_and_the_episode_ends_the_replay(replay):
    """Regression pinned: the episode's first delta undid it."""
    arm = Arm()
    play(replay, arm)
    arm.state.mode, arm.state.reason = ArmState.MODE_HOLDING, "held by request"
    with pytest.raises(GraphError, match="held by request"):
        play(replay, arm, following=True)
    assert arm.sent == 5


def test_nothing_is_sent_to_an_arm_that_fell_silent(replay):
    arm = Arm(silent_from=2)
    with pytest.raises(GraphError, match="answer delta 2 of 5"):
        play(replay, arm)
    assert arm.sent == 2


def test_what_an_earlier_run_applied_confirms_nothing(replay):
    arm = Arm(refuse_from=1)
    arm.state.last_applied_source, arm.state.last_applied_sequence = "policy", 1
    with pytest.raises(GraphError, match="delta 1 of 5: outside the workspace"):
        play(replay, arm)


def test_the_way_to_where_the_episode_begins_is_straight_slow_and_ends_there(contract, replay):
    start_44 = forward_kinematics(contract.arm, np.array(contract.ready_joints_rad))
    end_44 = start_44.copy()
    turn = Rotation.from_rotvec([0.0, 0.1, 0.4])
    end_44[:3, :3] = turn.as_matrix() @ start_44[:3, :3]
    end_44[:3, 3] += [0.03, -0.11, 0.02]
    replay.states[:, :3] += end_44[:3, 3]
    replay.states[:, 3:6] = Rotation.from_matrix(end_44[:3, :3]).as_rotvec()
    replay.actions[:, 6] = 0.7

    way = approach(replay, contract, start_44).actions

    assert np.linalg.norm(way[:, :3], axis=1).max() <= 0.02 + 1e-9
    assert np.linalg.norm(way[:, 3:6], axis=1).max() <= 0.1 + 1e-9
    assert (way[:, 6] == 0.7).all()
    reached_44 = start_44.copy()
    for row in way:
        reached_44[:3, :3] = Rotation.from_rotvec(row[3:6]).as_matrix() @ reached_44[:3, :3]
        reached_44[:3, 3] += row[:3]
    np.testing.assert_allclose(reached_44, end_44, atol=1e-9)
    assert not len(approach(replay, contract, end_44).actions)
    assert not len(approach(replace(replay, states=None), contract, start_44).actions)

    replay.states[0, 2] = -0.5  # a pose that was measured a little outside the box, or a lot
    lowest_m = start_44[2, 3] + approach(replay, contract, start_44).actions[:, 2].sum()
    assert lowest_m == pytest.approx(contract.workspace_min_m[2])


@pytest.mark.parametrize(
    ("change", "speed", "reason"),
    [
        ({"contract_hash": "0" * 64}, 1.0, "replay it on the robot"),
        ({"rate_hz": 50.0}, 1.0, "has 50 deltas a second"),
        ({}, 0.3, "slower than 0.42 the watchdog"),
    ],
)
def test_episodes_that_do_not_belong_here_are_refused(contract, replay, change, speed, reason):
    with pytest.raises(ContractError, match=reason):
        check(replace(replay, **change), contract, speed)


def begins(contract, offset_m):
    """The ready pose, moved by so much, as a recording has it."""
    pose_44 = forward_kinematics(contract.arm, np.array(contract.ready_joints_rad))
    position_m = pose_44[:3, 3] + [0.0, offset_m, 0.0]
    return np.concatenate([position_m, Rotation.from_matrix(pose_44[:3, :3]).as_rotvec()])


@pytest.fixture
def data_set(tmp_path, contract):
    features = make_features(
        {"front": (32, 32)}, action_names=ACTION_NAMES, state_names=STATE_NAMES
    )
    metadata = {"contract_hash": contract.hash}
    writer = LeRobotWriter(tmp_path / "set", fps=5, features=features, metadata=metadata)
    for step_m, offset_m in ((0.01, 0.0), (0.2, 0.0), (0.01, -0.05)):
        actions, states = moves(step_m=step_m), np.zeros((5, 7))
        states[1:, :3] = np.cumsum(actions[:-1, :3], axis=0)
        states[:, :6] += begins(contract, offset_m)
        writer.add_episode(
            {"front": np.zeros((5, 32, 32, 3), np.uint8)},
            instruction="go",
            actions=actions,
            states=states,
        )
    return tmp_path / "set"


@pytest.mark.parametrize(("episode", "exit_code", "applied"), [(0, 0, 5), (1, 1, 0), (2, 0, 8)])
def test_an_episode_on_the_dry_run_arm(spinner, data_set, episode, exit_code, applied):
    """Episode 1 has deltas of 20 cm, beyond the contract's cap: the arm refuses the first.

    Episode 2 begins 5 cm from the ready pose: three deltas lead there first.
    """
    own = {"backend": "dry_run", "max_command_age_s": 0.5}
    arm = spinner.add(ArmNode(parameter_overrides=[Parameter(k, value=v) for k, v in own.items()]))
    arm.trigger_configure()
    arm.trigger_activate()
    own = {"path": str(data_set), "episode": episode}
    node = ReplayNode(parameter_overrides=[Parameter(k, value=v) for k, v in own.items()])
    spinner.add(node)
    node.trigger_configure()
    node.trigger_activate()
    spinner.wait(node.finished.is_set, "the replay's end", 60.0)
    assert node.exit_code == exit_code
    states = []
    node.create_subscription(ArmState, "arm_state", states.append, 10)
    spinner.wait(lambda: states and states[-1].mode == ArmState.MODE_HOLDING, "the arm to hold")
    assert states[-1].applied == applied


@pytest.mark.parametrize(
    ("how", "left_rad", "words"),
    [
        ("hold", 10.0, "rad from its ready pose (held by request"),
        ("hold", 0.08, "rad from its ready pose (held by request"),
        ("stop", 0.08, "the arm was stopped: stopped by a person"),
        ("end", 10.0, "stopped while waiting for the arm to hold"),
    ],
)
def test_nothing_is_played_where_the_arm_was_held_on_its_way_to_ready(
    spinner, data_set, contract, monkeypatch, how, left_rad, words
):
    """A person beside the arm calls ~/hold, or ~/stop and ~/clear, or ends the replay, while the arm moves to its ready
    pose: it stays there.

    Regressions pinned: on the last 0.1 rad, it went on; of a replay that was ended, it went on to the ready pose.
    """
    own = {"backend": "dry_run", "move_speed_rad_s": 0.3}
    arm = spinner.add(ArmNode(parameter_overrides=[Parameter(k, value=v) for k, v in own.items()]))
    arm.trigger_configure()
    arm.trigger_activate()
    spinner.wait(lambda: arm._logic.mode == ArmState.MODE_HOLDING, "the arm to hold")
    ready_rad = np.array(contract.ready_joints_rad)
    arm._logic.park(arm.now_s())  # so that it is away from its ready pose
    spinner.wait(
        lambda: np.abs(arm._logic.measured().joints_rad - ready_rad).max() > 0.3, "the arm to leave"
    )
    arm._logic.hold(arm.now_s())
    errors = []
    node = ReplayNode(parameter_overrides=[Parameter("path", value=str(data_set))])
    monkeypatch.setattr(node.get_logger(), "error", errors.append)
    spinner.add(node)
    node.trigger_configure()
    node.trigger_activate()
    spinner.wait(lambda: arm._logic.mode == ArmState.MODE_READYING, "the move to ready")
    spinner.wait(
        lambda: np.abs(arm._logic.measured().joints_rad - ready_rad).max() < left_rad, "its way"
    )
    if how == "stop":
        arm._logic.stop()
        time.sleep(0.2)  # the arm says it
        arm._logic.clear(arm.now_s())
    elif how == "hold":
        arm._logic.hold(arm.now_s())
    else:
        node.before_shutdown()  # as a signal does
    spinner.wait(node.finished.is_set, "the replay's end")
    assert arm._logic.mode == ArmState.MODE_HOLDING
    assert np.abs(arm._logic.measured().joints_rad - ready_rad).max() > 0.01
    assert node.exit_code == 1
    assert arm._logic.applied == 0
    assert words in errors[0]


def test_actions_that_are_no_deltas_of_ours_are_not_replayed(tmp_path):
    names = ("waist", "shoulder", "elbow", "roll", "pitch", "yaw", "gripper")
    features = make_features({"front": (32, 32)}, action_names=names)
    writer = LeRobotWriter(tmp_path / "joints", fps=5, features=features)
    frames = {"front": np.zeros((5, 32, 32, 3), np.uint8)}
    writer.add_episode(frames, instruction="go", actions=moves())
    with pytest.raises(DataError, match=r"'waist', .* only deltas"):
        read_replay(tmp_path / "joints")
