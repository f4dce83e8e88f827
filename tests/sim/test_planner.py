# SPDX-License-Identifier: Apache-2.0
"""Paths: around obstacles, the short way, out of obstacles, and never nowhere."""

from itertools import pairwise

import numpy as np

from lapa_core.sim.planner import point_along, shortest_path

LOW, HIGH = np.array([0.0, 0.0]), np.array([1.0, 1.0])
NOTHING = np.empty((0, 2))


def length(path):
    return sum(np.linalg.norm(b - a) for a, b in pairwise(path))


def clearance(path, centre):
    points = np.concatenate([np.linspace(a, b, 50) for a, b in pairwise(path)])
    return np.linalg.norm(points - centre, axis=1).min()


def test_free_space_is_crossed_straight():
    path = shortest_path(LOW, HIGH, NOTHING, 0.1, LOW, HIGH)
    assert np.array_equal(path, [LOW, HIGH])


def test_an_obstacle_is_passed_on_the_nearer_side():
    start, goal, centre = np.array([0.1, 0.5]), np.array([0.9, 0.5]), np.array([0.5, 0.53])
    path = shortest_path(start, goal, centre, 0.1, LOW, HIGH)
    assert clearance(path, centre) > 0.0999
    assert path[:, 1].min() < 0.5, "the obstacle is above the line, so the path goes below"
    assert length(path) < 0.9


def test_the_far_side_is_taken_where_the_near_one_is_out_of_bounds():
    start, goal, centre = np.array([0.1, 0.08]), np.array([0.9, 0.08]), np.array([0.5, 0.10])
    path = shortest_path(start, goal, centre, 0.1, LOW, HIGH)
    assert path[:, 1].max() > 0.2
    assert clearance(path, centre) > 0.0999


def test_a_start_inside_an_obstacle_leaves_it_without_going_deeper():
    start, goal, centre = np.array([0.47, 0.5]), np.array([0.9, 0.5]), np.array([0.5, 0.5])
    path = shortest_path(start, goal, centre, 0.1, LOW, HIGH)
    assert np.array_equal(path[-1], goal)
    assert clearance(path, centre) > 0.0299


def test_a_walled_in_goal_is_headed_for_directly():
    goal = np.array([0.5, 0.5])
    angles = np.arange(12) * np.pi / 6
    wall = goal + 0.2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    path = shortest_path(LOW, goal, wall, 0.08, LOW, HIGH)
    assert np.array_equal(path, [LOW, goal])


def test_point_along_follows_corners_and_stops_at_the_end():
    path = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert np.allclose(point_along(path, 0.4), [0.4, 0.0])
    assert np.allclose(point_along(path, 1.5), [1.0, 0.5])
    assert np.allclose(point_along(path, 9.0), [1.0, 1.0])
