# SPDX-License-Identifier: Apache-2.0
"""Deltas compose as the contract says, and cannot hold nonsense."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.actions.pose import apply_delta, delta_between, pose_to_vector, vector_to_pose
from lapa_core.errors import ActionError

small = st.floats(-1.5, 1.5)


@given(st.tuples(*[small] * 6), st.tuples(*[small] * 6))
def test_delta_between_is_the_inverse_of_apply_delta(start, move):
    start_44 = vector_to_pose(np.array(start))
    delta = EndEffectorDelta(move[:3], move[3:], 0.5)
    end_44 = apply_delta(start_44, delta)
    again_44 = apply_delta(start_44, delta_between(start_44, end_44, 0.5))
    assert np.allclose(again_44, end_44, atol=1e-9)


def test_rotation_is_about_the_end_effector_point_in_base_axes():
    start_44 = vector_to_pose(np.array([0.3, 0.1, 0.2, 0.0, np.pi / 2, 0.0]))
    turned_44 = apply_delta(start_44, EndEffectorDelta((0, 0, 0), (0, 0, 0.2), 1.0))
    assert np.allclose(turned_44[:3, 3], start_44[:3, 3])
    expected = Rotation.from_rotvec([0, 0, 0.2]) * Rotation.from_rotvec([0, np.pi / 2, 0])
    assert np.allclose(turned_44[:3, :3], expected.as_matrix())


@given(st.tuples(*[small] * 6))
def test_pose_vector_round_trip(vector):
    assert np.allclose(pose_to_vector(vector_to_pose(np.array(vector))), vector, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", range(7))
def test_numbers_that_are_not_finite_are_refused(index, value):
    action = np.zeros(7)
    action[index] = value
    with pytest.raises(ActionError):
        EndEffectorDelta.from_array(action)


@pytest.mark.parametrize("gripper", [-0.01, 1.01])
def test_gripper_outside_its_range_is_refused(gripper):
    with pytest.raises(ActionError, match="0 \\(closed\\) to 1 \\(open\\)"):
        EndEffectorDelta((0, 0, 0), (0, 0, 0), gripper)


@pytest.mark.parametrize("shape", [(6,), (8,), (1, 7)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ActionError, match="allowed is \\(7,\\)"):
        EndEffectorDelta.from_array(np.zeros(shape))


def test_a_delta_cannot_be_changed_after_it_was_checked():
    delta = EndEffectorDelta.from_array(np.zeros(7))
    with pytest.raises(ValueError, match="read-only"):
        delta.translation_m[0] = np.nan
