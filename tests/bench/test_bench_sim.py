# SPDX-License-Identifier: Apache-2.0
"""`lapa bench sim` ends in one JSON object with what it promises."""

import json

import pytest

from lapa_core.bench.sim import BenchSimConfig, main
from lapa_core.errors import ContractError
from lapa_core.sim.instructions import FAMILIES


def test_the_last_line_is_the_result(capsys):
    main(BenchSimConfig(steps=5, seeds=1, noise=False))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["steps_per_cpu_second"] > 10
    assert set(result["expert"]) == set(FAMILIES)
    assert all(row["success"] == 1.0 for row in result["expert"].values())
    assert result["config"]["steps"] == 5


def test_nothing_to_measure_is_refused():
    with pytest.raises(ContractError, match="steps"):
        BenchSimConfig(steps=0)
