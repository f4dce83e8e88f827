# SPDX-License-Identifier: Apache-2.0
"""One world and one environment for all tests of a module: building them costs more than using them."""

import pytest


@pytest.fixture(scope="module")
def world():
    from lapa_core.sim.world import TabletopWorld

    with TabletopWorld() as made:
        yield made


@pytest.fixture(scope="module")
def env():
    from lapa_core.sim.env import TabletopEnv

    made = TabletopEnv()
    yield made
    made.close()
