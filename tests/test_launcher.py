# SPDX-License-Identifier: Apache-2.0
"""A node's launcher is seen to end, however it ended, and nothing else is taken for it."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from lapa_core import launcher
from lapa_core.errors import SetupError
from lapa_core.launcher import LAUNCHER_VARIABLE, LOOK_S, LauncherWatch, Process


def test_a_process_is_the_same_after_it_was_written_and_read():
    this = Process.this()
    assert this.pid == os.getpid()
    assert Process.parse(this.text()) == this
    assert not this.is_gone()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the start of a process is in /proc")
def test_a_later_process_of_the_same_number_is_another():
    assert dataclasses.replace(Process.this(), started="1").is_gone()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a zombie is seen in /proc")
def test_a_process_that_nobody_has_waited_for_is_gone():
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert not process.is_gone()
    child.kill()
    end_s = time.monotonic() + 10.0
    while not process.is_gone():
        assert time.monotonic() < end_s
        time.sleep(0.01)
    child.communicate()
    assert process.is_gone()


def test_a_process_of_another_namespace_cannot_be_judged():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    gone = dataclasses.replace(Process.this(), pid=child.pid, started="1")
    assert gone.is_gone()
    assert not dataclasses.replace(gone, namespace="pid:[1]").is_gone()


def test_another_users_process_runs(monkeypatch):
    def not_ours(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_ours)
    assert not Process.this().is_gone()


def test_a_node_that_is_started_by_hand_watches_nobody():
    assert not LauncherWatch.from_environment({}).is_gone()


def test_what_a_node_starts_does_not_inherit_its_launcher():
    environ = {LAUNCHER_VARIABLE: Process.this().text()}
    assert LauncherWatch.from_environment(environ).launcher == Process.this()
    assert environ == {}


def test_a_watch_looks_twice_a_second(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(launcher.time, "monotonic", lambda: now_s[0])
    watch = LauncherWatch(dataclasses.replace(Process.this(), started="1"))
    looks = []
    for _ in range(4):
        looks.append(watch.is_gone())
        now_s[0] += LOOK_S / 2
    assert looks == [True, False, True, False]


@pytest.mark.parametrize("text", ["bash", "12", "0,,", "-3,pid:[1],5", "12,a,b,c"])
def test_what_no_launcher_wrote_is_refused_with_what_to_do(text):
    with pytest.raises(SetupError, match=f"{LAUNCHER_VARIABLE} is '.*unset it"):
        Process.parse(text)
