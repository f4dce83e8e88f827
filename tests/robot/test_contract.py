# SPDX-License-Identifier: Apache-2.0
"""Contracts load strictly, and their hash depends on values only."""

import dataclasses

import pytest
import yaml

from lapa_core.errors import ContractError
from lapa_core.paths import config_dir
from lapa_core.robot.contract import load_contract

NAMES = sorted(p.stem for p in (config_dir() / "robots").glob("*.yaml"))
TEXT = (config_dir() / "robots" / "wx250s_sim.yaml").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_contract_loads_under_its_own_name(name):
    assert load_contract(name).name == name


def test_hash_ignores_comments_and_order_but_no_value(tmp_path):
    contract = load_contract("wx250s_sim")
    shuffled = tmp_path / "shuffled.yaml"
    shuffled.write_text(yaml.safe_dump(yaml.safe_load(TEXT), sort_keys=True))
    assert load_contract(shuffled).hash == contract.hash
    assert dataclasses.replace(contract, watchdog_s=0.7).hash != contract.hash


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("watchdog_s: 0.6", "watchdog: 0.6", "unknown keys \\['watchdog'\\]"),
        ("watchdog_s: 0.6", "", "lacks the keys \\['watchdog_s'\\]"),
        ("watchdog_s: 0.6", "watchdog_s: 0.6\nwatchdog_s: 0.7", "given twice"),
        (
            "watchdog_s: 0.6",
            "watchdog_s: 0.1",
            "watchdog_s is 0.1; allowed is two to five control periods, 0.4 to 1",
        ),
        ("watchdog_s: 0.6", "watchdog_s: 60.0", "watchdog_s is 60.0; allowed is two to five"),
        (
            "max_joint_state_age_s: 0.2",
            "max_joint_state_age_s: 20.0",
            "max_joint_state_age_s is 20.0; allowed is at most watchdog_s, 0.6",
        ),
        ("watchdog_s: 0.6", "watchdog_s: .nan", "watchdog_s is nan"),
        ("robot_model: wx250s", "robot_model: wx200", "'wx200' is unknown"),
        ("encoding: rgb8", "encoding: mono8", "cameras.front.encoding is 'mono8'"),
        ("    topic:", "    tropic:", "cameras.front has unknown keys \\['tropic'\\]"),
        ("stop: hold", "stop: torque_off", "stop is 'torque_off'; allowed is hold"),
        (
            "ready_joints_rad: [0.0,",
            "ready_joints_rad: [9.0,",
            "ready_joints_rad \\(waist\\) is 9.0; allowed is -3.092 to 3.092 rad, the joint limits",
        ),
        (
            "ready_joints_rad: [0.0, -0.0378, 0.8063",
            "ready_joints_rad: [0.0, -0.0378, 1.5600",
            "ready_joints_rad \\(elbow\\) is 1.56; allowed is -2.097 to 1.556 rad",
        ),
        (
            "ready_joints_rad: [0.0,",
            "ready_joints_rad: [1.5,",
            "x of the ready pose \\(ready_joints_rad\\) is 0.0156 m; allowed is 0.13 to 0.46 m, the workspace",
        ),
        (
            "workspace_min_m: [0.13, -0.20, 0.015]",
            "workspace_min_m: [0.13, -0.20, 0.100]",
            "z of the ready pose .* is 0.03.* m; allowed is 0.1 to 0.3 m",
        ),
        ("workspace_min_m: [0.13,", "workspace_min_m: [0.63,", "workspace_max_m \\(x\\)"),
    ],
)
def test_wrong_files_are_refused_with_the_key(tmp_path, old, new, message):
    assert old in TEXT
    path = tmp_path / "bad.yaml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ContractError, match=message):
        load_contract(path)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ContractError, match="wx250s_sim"):
        load_contract("wx250s_simm")
