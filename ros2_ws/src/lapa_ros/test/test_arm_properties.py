# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order: what a real arm is sent is finite, and near its last target or where it is."""

import contextlib
from dataclasses import replace

import numpy as np
from conftest import Clock
from fake_rig import Rig
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lapa_ros.arm_logic import Mode

from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract

CONTRACTS = [replace(load_contract("wx250s"), interpolation_s=share_s) for share_s in (0.18, 0.02)]
"""The one that is shipped, and one whose motions only the joints' speed bounds."""
OBEYING = (Mode.HOLDING, Mode.TRACKING)
STEP = st.floats(-0.028, 0.028)
"""Three of them are within the caps; without such deltas hardly any would be applied."""
NUMBER = st.one_of(st.floats(-0.06, 0.06), st.sampled_from([np.nan, np.inf, 1e300]))


def _try(act, *arguments):
    with contextlib.suppress(ActionError):
        act(*arguments)


def load(rig, joint, sag_rad):
    """What a joint carries, or a hand that pushes it."""
    rig.arm.motors[joint].sag = sag_rad


def command(rig, values, source, age_s):
    before, mode, sent = rig.logic.applied, rig.logic.mode, len(rig.link.group)
    made = rig.make(
        values=(*values, 1.0), source=source, stamp_s=rig.clock() - age_s, observation_s=None
    )
    applied = rig.logic.command(made, rig.clock())
    assert rig.logic.applied - before == applied
    assert len(rig.link.group) - sent == applied, (
        "a delta is answered by one target, a refusal by none"
    )
    assert not applied or (mode in OBEYING and np.isfinite(values).all() and 0.0 <= age_s <= 0.15)


EVENTS = st.one_of(
    st.tuples(
        st.just(command),
        st.tuples(*[STEP] * 6),
        st.sampled_from(["operator", "policy"]),
        st.sampled_from([0.0, 0.1]),
    ),
    st.tuples(
        st.just(command),
        st.tuples(*[NUMBER] * 6),
        st.sampled_from(["operator", "policy", "stranger"]),
        st.sampled_from([0.0, 0.1, 0.2, -1.0]),
    ),
    st.tuples(st.just(lambda rig, fault: rig.arm.inject(fault)),
              st.sampled_from(["stuck elbow", "overload waist", "limp", "dead_bus", "silent", "mend",
                               "mend"])),
    st.tuples(st.just(load), st.sampled_from(["shoulder", "elbow", "wrist_angle"]), st.floats(-0.12, 0.12)),
    st.tuples(st.just(lambda rig: rig.logic.stop())),
    st.tuples(st.just(lambda rig, name: _try(getattr(rig.logic, name), rig.clock())),
              st.sampled_from(["clear", "hold", "park", "move_to_ready", "release"])),
    st.tuples(st.just(lambda rig: (rig.logic.halt("deactivated"), rig.logic.begin()))),
)  # fmt: skip


class Watched(Rig):
    """Checks every target at the moment when it is sent."""

    def watch(self):
        send, self.last_rad = self.link.command_arm, np.array(self.link.group[-1])
        self.last_s, self.heard, self.anew = self.clock(), len(self.said), False
        period_s = 1.0 / self.contract.command_rate_hz

        def command_arm(joints_rad):
            target_rad, measured_rad = np.array(joints_rad), self.backend.measured().joints_rad
            assert np.isfinite(target_rad).all()
            most_rad = np.pi * min(self.clock() - self.last_s, period_s) + 1e-6
            near = np.abs(target_rad - measured_rad) <= np.pi * period_s + 1e-6  # it may be sinking
            low, high = (
                np.minimum(measured_rad, self.last_rad),
                np.maximum(measured_rad, self.last_rad),
            )
            between = (low - 1e-6 <= target_rad) & (target_rad <= high + 1e-6)
            # A hold is said, an activation is not; an arm that comes back was sent nothing meanwhile.
            held = any(not text.startswith("tracking") for text in self.said[self.heard :])
            anchored = held or self.anew or self.clock() - self.last_s > 2.0 * period_s
            slow = np.abs(target_rad - self.last_rad).max() <= most_rad
            assert slow or (anchored and (near | between).all()), (
                "near the last target, or between it and where the arm is"
            )
            self.last_rad, self.last_s = target_rad, self.clock()
            self.heard, self.anew = len(self.said), False
            send(joints_rad)

        self.link.command_arm = command_arm


@settings(max_examples=100, phases=[Phase.explicit, Phase.generate], deadline=None)
@given(
    st.sampled_from(CONTRACTS),
    st.lists(st.tuples(EVENTS, st.floats(0.0, 0.6)), min_size=1, max_size=12),
)
def test_no_order_of_events_makes_a_real_arm_jump(contract, events):
    rig = Watched(contract, Clock())
    rig.watch()
    for (act, *arguments), pause_s in events:
        stopped = rig.logic.mode is Mode.STOPPED
        rig.anew |= act is not command
        act(rig, *arguments)
        if stopped and act is command:
            assert rig.logic.mode is Mode.STOPPED
        rig.run(pause_s)
    assert rig.arm.torque_cuts == 0 or rig.logic.mode in (Mode.WAITING, Mode.STOPPED)


def lose_sight(rig):
    """For less than what makes a driver count as started again."""
    rig.arm.silent = True
    rig.run(0.3)
    rig.arm.silent = False
    rig.run(0.1)


HOLDS = st.sampled_from([
    lambda rig: rig.command(x=0.0),
    lambda rig: rig.command(x=0.2),
    lambda rig: rig.logic.stop(),
    lambda rig: _try(rig.logic.clear, rig.clock()),
    lambda rig: _try(rig.logic.hold, rig.clock()),
    lambda rig: (rig.logic.halt("deactivated"), rig.logic.begin()),
    lose_sight,
])  # fmt: skip
"""What asks for no motion."""


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate], deadline=None)
@given(
    st.sampled_from(["shoulder", "elbow"]),
    st.floats(0.0, 0.14),
    st.lists(st.tuples(HOLDS, st.floats(0.0, 0.6)), min_size=5, max_size=25),
)
def test_no_order_of_holds_lets_an_arm_sink_further_than_its_load_does(joint, sag_rad, events):
    rig = Rig(CONTRACTS[0], Clock())
    rig.run(0.5)
    before_rad = rig.joints_rad()
    load(rig, joint, sag_rad)
    rig.run(0.5)
    for act, pause_s in events:
        act(rig)
        rig.run(pause_s)
        arm = rig.contract.arm
        assert (rig.logic.sent_rad >= arm.lower_rad).all()
        assert (rig.logic.sent_rad <= arm.upper_rad).all()
    rig.run(0.5)
    assert np.abs(rig.joints_rad() - before_rad).max() <= sag_rad + 0.01
