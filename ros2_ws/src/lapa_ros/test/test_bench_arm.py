# SPDX-License-Identifier: Apache-2.0
"""The arm bench's arithmetic, and the end of its processes; its figures, of `lapa bench arm`, are in docs/safety.md."""

import time

import numpy as np
import pytest
from lapa_ros.bench_arm import BenchArmConfig, _half_way
from lapa_ros.bench_graph import node_process
from lapa_ros.remote import GraphError

from lapa_core.errors import ContractError


def test_half_of_the_way_is_found_to_and_fro_and_between_two_measurements():
    times_s = np.arange(0.0, 0.61, 0.01)
    waist_rad = np.interp(times_s, [0.0, 0.1, 0.2, 0.3, 0.4, 0.6], [0.0, 0.0, 0.04, 0.04, 0.0, 0.0])
    sent_s = np.array([0.003, 0.25, 0.55])
    half_way_s = _half_way(np.stack([times_s, waist_rad], axis=1), sent_s)
    np.testing.assert_allclose(half_way_s, [0.15, 0.35], atol=1e-9)


def test_a_pause_of_the_joint_states_is_named():
    waist = np.array([[0.0, 0.0], [0.1, 0.0], [0.5, 0.04]])
    with pytest.raises(GraphError, match=r"in the 0\.20 s after delta 1"):
        _half_way(waist, np.array([0.2, 0.4]))


def test_too_few_deltas_for_a_percentile_are_refused():
    with pytest.raises(ContractError, match="at least 10"):
        BenchArmConfig(deltas=9)


def test_a_process_that_does_not_hear_its_interrupt_is_not_left_behind(tmp_path, monkeypatch):
    deaf, ready = tmp_path / "deaf.py", tmp_path / "ready"
    deaf.write_text(
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with node_process("deaf", {}, end_s=0.2) as process:
        end_s = time.monotonic() + 20.0
        while not ready.exists():
            assert time.monotonic() < end_s
            time.sleep(0.01)
    assert process.returncode == -9
