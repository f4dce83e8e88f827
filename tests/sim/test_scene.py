# SPDX-License-Identifier: Apache-2.0
"""The simulated arm is the real one: same kinematics, same limits, pictures that a policy can read."""

import numpy as np
import pytest

from lapa_core.errors import ContractError
from lapa_core.robot.kinematics import forward_kinematics
from lapa_core.robot.models import ARM_MODELS
from lapa_core.sim.appearance import BLOCK_RGB, DOMAINS, get_appearance
from lapa_core.sim.arm_mjcf import FINGER_JOINTS
from lapa_core.sim.gl import load_mujoco
from lapa_core.sim.scene import build_mjcf

mujoco = load_mujoco()
MODELS = pytest.mark.parametrize("arm", ARM_MODELS.values(), ids=ARM_MODELS.keys())


def compiled(arm, domain="default"):
    model = mujoco.MjModel.from_xml_string(build_mjcf(arm, DOMAINS[domain]))
    return model, mujoco.MjData(model)


@MODELS
def test_simulated_kinematics_are_the_product_of_exponentials(arm):
    model, data = compiled(arm)
    address = [model.joint(name).qposadr[0] for name in arm.joint_names]
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints = rng.uniform(arm.lower_rad, arm.upper_rad)
        data.qpos[address] = joints
        mujoco.mj_kinematics(model, data)
        site, expected = data.site("ee_gripper_link"), forward_kinematics(arm, joints)
        assert np.allclose(site.xpos, expected[:3, 3], atol=1e-9)
        assert np.allclose(site.xmat.reshape(3, 3), expected[:3, :3], atol=1e-9)


@MODELS
def test_simulated_limits_are_those_of_the_arm(arm):
    model, _ = compiled(arm)
    for index, name in enumerate(arm.joint_names):
        wanted = [arm.lower_rad[index], arm.upper_rad[index]]
        assert np.allclose(model.joint(name).range, wanted)
        assert np.allclose(model.actuator(name).ctrlrange, wanted)
    near, far = (gap / 2 for gap in arm.finger_gap_m)
    assert np.allclose(
        [model.joint(name).range for name in FINGER_JOINTS], [[near, far], [-far, -near]]
    )


def test_domains_change_what_is_seen_and_nothing_else():
    arm = ARM_MODELS["wx250s"]
    (default, _), (shifted, _) = compiled(arm), compiled(arm, "shifted")
    for same in (
        "body_mass",
        "geom_size",
        "geom_friction",
        "actuator_gainprm",
        "jnt_range",
        "body_pos",
    ):
        assert np.array_equal(getattr(default, same), getattr(shifted, same)), same
    assert not np.allclose(default.cam("front").pos, shifted.cam("front").pos)
    assert not np.allclose(default.light("lamp").dir, shifted.light("lamp").dir)
    for block in BLOCK_RGB:
        assert np.array_equal(
            default.geom(f"{block}_block").rgba, shifted.geom(f"{block}_block").rgba
        )
    with pytest.raises(ContractError, match="shifted"):
        get_appearance("shiftd")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_policy_sees_the_blocks_and_the_light_is_within_range(domain):
    from lapa_core.image import preprocess
    from lapa_core.sim.world import TabletopWorld

    with TabletopWorld(domain) as world:
        for seed in range(4):
            layout = world.reset(seed=seed)
            image = preprocess(world.render("front", 128), 64).astype(int)
            assert image.max() < 250, "nothing may saturate"
            red = (image[..., 0] > 100) & (image[..., 1] < 70) & (image[..., 2] < 70)
            if np.hypot(layout.blocks["red"].x_m - 0.3, layout.blocks["red"].y_m) < 0.08:
                assert 35 < red.sum() < 120, "a block covers about 8 x 10 pixels of 64 x 64"
