# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import time

import pytest

from setup import leftovers, run_tests


@pytest.fixture
def stage(tmp_path):
    return lambda script: run_tests.Stage("a stage", ["/bin/sh", "-c", script], tmp_path)


def test_a_clean_stage_and_a_failed_one(stage):
    assert run_tests.run_stage(stage("true"), os.environ) is None
    assert run_tests.run_stage(stage("exit 3"), os.environ) == "a stage failed with exit status 3"


def test_an_orphan_is_reported_and_killed(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "end", lambda run, grace_s, end=leftovers.end: end(run, 0.2))
    # setsid: out of the process group and the session, as a launched node may be.
    message = run_tests.run_stage(stage("setsid sleep 60 & echo $! > pid"), os.environ)
    assert message is not None
    assert "left 1 processes behind: sleep 60" in message
    assert not _is_alive(int((tmp_path / "pid").read_text()))


def test_a_hang_is_reported_and_killed(stage, monkeypatch):
    monkeypatch.setattr(run_tests, "LIMIT_S", 0.2)
    start = time.monotonic()
    assert "hung" in str(run_tests.run_stage(stage("sleep 60"), os.environ))
    assert time.monotonic() - start < 10


def test_a_process_that_is_just_ending_is_no_orphan():
    environ = {**os.environ, leftovers.MARK: "ending"}
    process = subprocess.Popen(["/bin/sleep", "0.3"], env=environ)
    assert process.pid in leftovers.find("ending")
    assert leftovers.end("ending", grace_s=5.0) == {}
    process.wait()


@pytest.mark.parametrize(
    ("suite", "wrong"),
    [
        (None, "wrote no"),
        ('tests="0"', "of 0 tests 0 were skipped"),
        ('tests="3" skipped="3"', "of 3 tests 3 were skipped"),
        ('tests="3" skipped="2"', None),
        ('tests="3"', None),
    ],
)
def test_a_stage_in_which_no_test_ran_has_failed(tmp_path, suite, wrong):
    results = tmp_path / "results.xml"
    if suite is not None:
        results.write_text(f"<testsuites><testsuite {suite}/></testsuites>")
    said = run_tests.check_ran("the nodes", results)
    assert said is None if wrong is None else wrong in str(said)


def _is_alive(process: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{process}/stat") as status:
                if status.read().rpartition(")")[2].split()[0] == "Z":
                    return False
        except OSError:
            return False
        time.sleep(0.05)
    return True
