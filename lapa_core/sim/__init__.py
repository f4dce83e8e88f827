# SPDX-License-Identifier: Apache-2.0
"""The simulated table. Importing this registers `lapa/Tabletop-v0` with Gymnasium, where that is installed."""

from importlib.util import find_spec

if find_spec("gymnasium") is not None:
    from gymnasium.envs.registration import register

    register(id="lapa/Tabletop-v0", entry_point="lapa_core.sim.env:TabletopEnv")
