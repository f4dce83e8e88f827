# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order: what a real arm is sent is finite, and near its last target or where it is."""

import contextlib

import numpy as np
from conftest import Clock
from fake_rig import Rig
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lapa_ros.arm_logic import Mode

from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract

CONTRACT = load_contract("wx250s")
OBEYING = (Mode.HOLDING, Mode.TRACKING)
NUMBER = st.one_of(st.floats(-0.06, 0.06), st.sampled_from([np.nan, np.inf, 1e300]))


def _try(act, *arguments):
    with contextlib.suppress(ActionError):
        act(*arguments)


def command(rig, values, source, age_s):
    before, mode = rig.logic.applied, rig.logic.mode
    made = rig.make(
        values=(*values, 1.0), source=source, stamp_s=rig.clock() - age_s, observation_s=None
    )
    applied = rig.logic.command(made, rig.clock())
    assert rig.logic.applied - before == applied
    assert not applied or (mode in OBEYING and np.isfinite(values).all() and 0.0 <= age_s <= 0.15)


EVENTS = st.one_of(
    st.tuples(
        st.just(command),
        st.tuples(*[NUMBER] * 6),
        st.sampled_from(["operator", "policy", "stranger"]),
        st.sampled_from([0.0, 0.1, 0.2, -1.0]),
    ),
    st.tuples(st.just(lambda rig, fault: rig.arm.inject(fault)),
              st.sampled_from(["stuck elbow", "overload waist", "limp", "dead_bus", "silent", "mend", "mend"])),
    st.tuples(st.just(lambda rig, name: _try(getattr(rig.logic, name))), st.sampled_from(["stop", "clear", "hold"])),
    st.tuples(st.just(lambda rig, name: _try(getattr(rig.logic, name), rig.clock())),
              st.sampled_from(["park", "move_to_ready", "release"])),
    st.tuples(st.just(lambda rig: (rig.logic.halt("deactivated"), rig.logic.begin()))),
)  # fmt: skip


class Watched(Rig):
    """Checks every target at the moment when it is sent."""

    def watch(self):
        send, self.last_rad = self.link.command_arm, np.array(self.link.group[-1])
        most_rad = np.pi / CONTRACT.command_rate_hz + 1e-6

        def command_arm(joints_rad):
            target_rad, measured_rad = np.array(joints_rad), self.backend.measured().joints_rad
            assert np.isfinite(target_rad).all()
            anchored = np.abs(target_rad - measured_rad).max() <= most_rad  # it may be sinking
            slow = np.abs(target_rad - self.last_rad).max() <= most_rad
            assert anchored or slow, "a target is near the last one, or is where the arm is"
            self.last_rad = target_rad
            send(joints_rad)

        self.link.command_arm = command_arm


@settings(max_examples=100, phases=[Phase.explicit, Phase.generate], deadline=None)
@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 0.6)), min_size=1, max_size=12))
def test_no_order_of_events_makes_a_real_arm_jump(events):
    rig = Watched(CONTRACT, Clock())
    rig.watch()
    for (act, *arguments), pause_s in events:
        stopped = rig.logic.mode is Mode.STOPPED
        act(rig, *arguments)
        if stopped and act is command:
            assert rig.logic.mode is Mode.STOPPED
        rig.run(pause_s)
    assert rig.arm.torque_cuts == 0 or rig.logic.mode in (Mode.WAITING, Mode.STOPPED)
