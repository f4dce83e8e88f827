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


@pytest.mark.parametrize("name", NAMES)
def test_ready_pose_is_inside_the_workspace(name):
    from lapa_core.robot.controller import ArmController

    contract = load_contract(name)
    position = ArmController(contract).target_44[:3, 3]
    assert (position >= contract.workspace_min_m).all()
    assert (position <= contract.workspace_max_m).all()


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
            "watchdog_s is 0.1; allowed is at least two control periods",
        ),
        ("watchdog_s: 0.6", "watchdog_s: .nan", "watchdog_s is nan"),
        ("robot_model: wx250s", "robot_model: wx200", "'wx200' is unknown"),
        ("encoding: rgb8", "encoding: mono8", "cameras.front.encoding is 'mono8'"),
        ("    topic:", "    tropic:", "cameras.front has unknown keys \\['tropic'\\]"),
        ("stop: hold", "stop: torque_off", "stop is 'torque_off'; allowed is hold"),
        ("ready_joints_rad: [0.0,", "ready_joints_rad: [9.0,", "inside the joint limits"),
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
