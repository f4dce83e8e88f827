# SPDX-License-Identifier: Apache-2.0
"""A node whose launcher or terminal is gone ends as on SIGTERM: an arm parks, an episode is saved."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from lapa_core.launcher import LOOK_S

ARM = [sys.executable, "-m", "lapa_ros.arm_node", "--ros-args", "-p", "backend:=dry_run"]
PARKING_ARM = [*ARM, "-p", "park_on_shutdown:=true", "-p", "move_speed_rad_s:=3.0"]
LAUNCHER = """
import os, subprocess, sys, time
from lapa_core.launcher import LAUNCHER_VARIABLE, Process
environ = {**os.environ, LAUNCHER_VARIABLE: Process.this().text()}
subprocess.Popen(["sh", "-c", sys.argv[1] + "; :"], env=environ)  # sh stays between the two
time.sleep(120)
"""


LIMIT_S = 60.0
"""Longest time that a test waits for what it started [s]."""


@contextmanager
def started(command, **options):
    """Yield a process that starts an arm node, once that knows where the arm is; its `stdout` has what both say."""
    process = subprocess.Popen(
        ["env", "--default-signal=HUP", *command],  # this one may run under nohup
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **options,
    )  # fmt: skip
    too_late = threading.Timer(LIMIT_S, os.killpg, (process.pid, signal.SIGKILL))
    too_late.start()
    try:
        with process, process.stdout:
            assert any("joint states arrive" in line for line in process.stdout)
            yield process
            process.kill()
    finally:
        too_late.cancel()


def test_an_arm_whose_launcher_is_gone_parks_and_ends(ros_domain):
    with started([sys.executable, "-c", LAUNCHER, shlex.join(PARKING_ARM)]) as launcher:
        time.sleep(2.0 * LOOK_S)
        launcher.kill()
        gone_s = time.monotonic()
        notice = f"process {launcher.pid}, which started this node, is gone: ending"
        lines = []
        for line in launcher.stdout:  # until the node and the shell around it have ended
            lines.append(line)
            if notice in line:
                print(f"noticed after {time.monotonic() - gone_s:.2f} s")
                assert time.monotonic() - gone_s < LOOK_S + 1.0
    text = "".join(lines)
    assert notice in text
    assert "parked: in the sleep pose" in text
    assert "NOT PARKED" not in text


def test_an_arm_whose_terminal_is_closed_parks_and_ends(ros_domain):
    with started(PARKING_ARM) as arm:
        arm.send_signal(signal.SIGHUP)
        text = arm.stdout.read()
        assert arm.wait(10.0) == 0
    assert "parked: in the sleep pose" in text


def test_an_arm_that_was_told_to_outlive_its_terminal_does(ros_domain):
    with started(["nohup", *ARM], stdin=subprocess.DEVNULL) as arm:
        arm.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert arm.poll() is None
        arm.send_signal(signal.SIGTERM)
        assert arm.wait(10.0) == 0
