# SPDX-License-Identifier: Apache-2.0
"""Processes are stopped in order, deaths are named, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lapa_core.supervisor import ProcessPlan, Supervisor

PATIENT = """
import signal, sys, time
def leave(*_):
    print("left", flush=True)
    print("at", time.monotonic_ns(), flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, leave)
print("up", flush=True)
time.sleep(60)
"""


def plan(name, code, **kwargs):
    return ProcessPlan(name=name, command=[sys.executable, "-S", "-c", code], **kwargs)


class Log(list):
    def __call__(self, name, line):
        self.append((name, line))

    def wait_for(self, *entries, limit_s=10.0):
        end_s = time.monotonic() + limit_s
        while not set(entries) <= set(self):
            assert time.monotonic() < end_s, f"waited for {entries}, got {list(self)}"
            time.sleep(0.01)


@pytest.fixture
def log():
    return Log()


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_end_in_reverse_order_and_cleanly(log):
    with Supervisor([plan("first", PATIENT), plan("second", PATIENT)], os.environ, log):
        log.wait_for(("first", "up"), ("second", "up"))
    left_ns = {name: int(line.split()[1]) for name, line in log if line.startswith("at ")}
    assert left_ns["second"] < left_ns["first"]


def test_a_death_is_named_with_its_signal_and_the_others_go_on(log):
    interrupted = threading.Event()
    with Supervisor(
        [plan("healthy", PATIENT), plan("victim", PATIENT)], os.environ, log
    ) as supervisor:
        log.wait_for(("victim", "up"), ("healthy", "up"))
        supervisor.kill("victim")
        waiter = threading.Thread(target=lambda: codes.append(supervisor.wait(interrupted)))
        codes = []
        waiter.start()
        log.wait_for(("lapa", "victim has died (signal SIGKILL)"))
        assert ("healthy", "left") not in log
        interrupted.set()
        waiter.join(5.0)
    assert codes == [1]


def test_the_process_that_ends_all_gives_the_status(log):
    with Supervisor(
        [plan("node", PATIENT), plan("boss", "raise SystemExit(7)", ends_all=True)], os.environ, log
    ) as s:
        assert s.wait(threading.Event()) == 7


def test_interrupted_without_a_death_is_success(log):
    interrupted = threading.Event()
    interrupted.set()
    with Supervisor([plan("node", PATIENT)], os.environ, log) as supervisor:
        assert supervisor.wait(interrupted) == 0


def test_what_a_background_job_starts_hears_the_interrupt(log):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the shell starts `lapa up ... &`
    try:
        sleeper = "print('up', flush=True); import time; time.sleep(60)"
        with Supervisor([plan("node", sleeper)], os.environ, log):
            log.wait_for(("node", "up"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [line for name, line in log if name == "lapa"]


def test_when_all_have_died_there_is_nothing_to_wait_for(log):
    with Supervisor([plan("node", "raise SystemExit(3)")], os.environ, log) as supervisor:
        assert supervisor.wait(threading.Event()) == 1
    assert ("lapa", "node has died (exit status 3)") in log


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux tells children of their parent's death"
)
def test_children_end_even_when_the_parent_is_killed(tmp_path):
    pid_file = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    parent = f"""
import os, sys, time
from lapa_core.supervisor import ProcessPlan, Supervisor
with Supervisor([ProcessPlan(name="c", command=[sys.executable, "-S", "-c", {child!r}])], os.environ, print):
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    end_s = time.monotonic() + 10.0
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5.0)
    while is_running(pid):
        assert time.monotonic() < end_s, "the child outlived its parent"
        time.sleep(0.02)


def test_a_program_that_cannot_be_started_leaves_the_others_not_running(log):
    missing = ProcessPlan(name="missing", command=["/does/not/exist"])
    supervisor = Supervisor([plan("first", PATIENT), missing], os.environ, log)
    with pytest.raises(FileNotFoundError), supervisor:
        pass
    assert [process.poll() is not None for _, process in supervisor._processes] == [True]
