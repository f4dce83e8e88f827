# SPDX-License-Identifier: Apache-2.0
"""The priority of the arm node's process; each case in a process of its own, which keeps it."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, threading
from lapa_ros.realtime import take_priority
{become}
here = threading.Event()
threading.Thread(target=here.wait).start()
why = take_priority({priority})
threading.Thread(target=here.wait).start()
print({{os.sched_getscheduler(int(tid)) for tid in os.listdir("/proc/self/task")}})
print(why)
here.set()
"""
NOBODY = 65534


def run(priority, user=None):
    become = f"os.setgid({user}), os.setuid({user})" if user else ""
    script = SCRIPT.format(priority=priority, become=become)
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert answer.returncode == 0, answer.stderr
    policies, why = answer.stdout.splitlines()
    return policies, why


def may_have_priority():
    script = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_have_priority(), reason="this user may not have a real-time priority")
def test_every_thread_has_it_also_those_of_before_and_after():
    assert run(10) == (str({os.SCHED_FIFO}), "")


def test_zero_leaves_all_as_it_is():
    assert run(0) == (str({os.sched_getscheduler(0)}), "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not")
def test_where_it_is_not_allowed_the_reason_says_what_allows_it():
    policies, why = run(10, NOBODY)
    assert policies == str({os.sched_getscheduler(0)})
    assert "rtprio 10" in why
