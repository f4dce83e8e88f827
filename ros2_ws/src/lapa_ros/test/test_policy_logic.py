# SPDX-License-Identifier: Apache-2.0
"""When the policy acts, and what it says when it does not."""

import time

import numpy as np
import pytest
from lapa_ros.arm_report import ArmReport
from lapa_ros.mailbox import Mailbox
from lapa_ros.policy_logic import PolicyWorker, Readiness

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import DataError
from lapa_core.policy import PolicyStep


class Thinker:
    """A policy whose thinking takes the time it is told."""

    def __init__(self, clock):
        self.takes_s, self.seen, self._clock = 0.01, [], clock
        self.error, self.num_episodes = None, 0

    def reset(self):
        self.num_episodes += 1

    def act(self, frame, instruction):
        self.seen.append((frame, instruction))
        self._clock.now_s += self.takes_s
        if self.error:
            raise self.error
        return PolicyStep(EndEffectorDelta.from_array(np.zeros(7)), np.zeros(7, np.int64), None)


class Bench:
    def __init__(self, contract, clock):
        self.clock, self.thinker = clock, Thinker(clock)
        self.box, self.said, self.thoughts, self.crashes = Mailbox(0.2), [], [], []
        self.readiness = Readiness(contract)
        self.readiness.instruct("push the red block left")
        self.hash = contract.hash
        self.arm_says()
        self.worker = PolicyWorker(
            policy=self.thinker, decode=lambda content: content, mailbox=self.box, readiness=self.readiness,
            emit=self.thoughts.append, clock=clock, say=lambda level, text: self.said.append((level, text)),
            period_s=0.2, on_crash=lambda: self.crashes.append(1),
        )  # fmt: skip
        self.worker.POLL_S = 0.0

    def arm_says(self, obeys=True, reason="", contract_hash=None):
        self.readiness.hear_arm(
            ArmReport(
                received_s=self.clock(),
                obeys=obeys,
                reason=reason,
                contract_hash=contract_hash or self.hash,
            )
        )

    def frame(self, name="frame", age_s=0.0):
        self.box.put(self.clock() - age_s, name)
        self.worker.turn()

    def frames(self, count):
        for _ in range(count):
            self.clock.now_s += 0.2
            self.arm_says()
            self.frame()


@pytest.fixture
def bench(contract, clock):
    return Bench(contract, clock)


def test_the_same_words_asked_again_are_another_episode(bench):
    bench.frames(2)
    assert bench.thinker.num_episodes == 1
    bench.readiness.instruct("push the red block left")
    bench.frames(2)
    assert bench.thinker.num_episodes == 2


def test_a_due_frame_becomes_one_thought(bench):
    bench.frame("a")
    bench.worker.turn()
    assert bench.thinker.seen == [("a", "push the red block left")]
    assert [thought.observation_s for thought in bench.thoughts] == [1000.0]
    assert bench.worker.waiting_for == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b.readiness.instruct(""), "no instruction"),
        (lambda b: setattr(b.readiness, "arm", None), "no arm state"),
        (lambda b: b.arm_says(obeys=False, reason="stopped by a person"), "stopped by a person"),
        (lambda b: b.arm_says(contract_hash="f" * 64), "contract ffff"),
        (lambda b: setattr(b.clock, "now_s", b.clock() + 0.6), "silent"),
    ],
)
def test_it_does_not_act_and_says_why_once(bench, change, reason):
    change(bench)
    for _ in range(3):
        bench.frame()
        bench.worker.turn()
    assert bench.thoughts == []
    matching = [text for _, text in bench.said if reason in text]
    assert len(matching) == 1


def test_no_camera_and_a_stale_camera_are_told_apart(bench):
    bench.worker.turn()
    assert "no camera frame" in bench.worker.waiting_for
    bench.frame(age_s=0.5)
    assert "stale" in bench.worker.waiting_for
    assert bench.thoughts == []


def test_a_frame_from_the_future_is_not_acted_on_and_told(bench):
    bench.frame(age_s=-30.0)
    assert "in the future" in bench.worker.waiting_for
    assert bench.thoughts == []


def lines_with(bench, words):
    return [text for _, text in bench.said if words in text]


def test_slow_inference_is_said_once_and_when_it_is_over_while_commands_go_out(bench):
    bench.thinker.takes_s = 0.25
    bench.frames(8)
    assert len(bench.thoughts) == 8
    assert len(lines_with(bench, "more than the period")) == 1
    assert bench.worker.waiting_for == ""
    assert "more than the period" in bench.worker.troubles.describe()
    bench.thinker.takes_s = 0.01
    bench.frames(15)
    assert lines_with(bench, "over: ") == ["over: slow inference (8 times)"]
    assert bench.worker.troubles.describe() == ""


def test_inference_that_outlasts_its_frame_is_a_blocker_said_once(bench, contract):
    bench.thinker.takes_s = contract.max_observation_age_s + 0.1
    bench.frames(8)
    assert bench.thoughts == []
    assert "inference is too slow" in bench.worker.waiting_for
    assert len(lines_with(bench, "no command")) == 1
    bench.thinker.takes_s = 0.01
    bench.frames(15)
    assert len(bench.thoughts) == 15
    assert bench.worker.waiting_for == ""
    assert "over: late thoughts (8 times)" in lines_with(bench, "over: ")


@pytest.mark.parametrize("asked", [("something else",), ("", "push the red block left")])
def test_what_is_asked_during_inference_voids_the_thought_even_in_the_same_words(bench, asked):
    real = bench.thinker.act

    def distracted(frame, instruction):
        for words in asked:
            bench.readiness.instruct(words)
        return real(frame, instruction)

    bench.thinker.act = distracted
    bench.frame()
    assert len(bench.thinker.seen) == 1
    assert bench.thoughts == []


def test_a_stop_that_is_cleared_during_inference_voids_the_thought(bench):
    """Regression pinned: a thought from before the stop went out after the clear."""
    real = bench.thinker.act

    def interrupted(frame, instruction):
        bench.arm_says(obeys=False, reason="stopped by a person")
        bench.arm_says()
        return real(frame, instruction)

    bench.thinker.act = interrupted
    bench.frame()
    assert len(bench.thinker.seen) == 1
    assert bench.thoughts == []
    bench.thinker.act = real
    bench.frames(1)
    assert len(bench.thoughts) == 1, "the instruction outlives the stop"


def test_a_frame_that_was_taken_before_a_stop_is_not_acted_on_after_its_clear(bench):
    real = bench.box.take

    def take(timeout_s):
        letter = real(timeout_s)
        bench.arm_says(obeys=False, reason="stopped by a person")
        bench.arm_says()
        bench.box.take = real
        return letter

    bench.box.take = take
    bench.frame("before")
    assert bench.thinker.seen == []


def test_a_frame_that_was_taken_before_the_instruction_does_not_answer_it(bench):
    real = bench.box.take

    def take(timeout_s):
        letter = real(timeout_s)
        if not bench.thinker.seen:
            bench.readiness.instruct("something else")
            bench.box.take = real
        return letter

    bench.box.take = take
    bench.frame("before")
    assert bench.thinker.seen == []
    bench.clock.now_s += 0.05
    bench.frame("after")
    assert bench.thinker.seen == [("after", "something else")], "the next frame is due at once"


def test_frames_that_cannot_be_used_are_a_blocker_said_once_not_a_crash(bench):
    bench.thinker.error = DataError("no picture")
    bench.frames(8)
    assert len(lines_with(bench, "no picture")) == 1
    assert "no picture" in bench.worker.waiting_for
    bench.worker.turn()
    assert "no picture" in bench.worker.waiting_for, "until a frame can be used"
    bench.thinker.error = None
    bench.frames(15)
    assert len(bench.thoughts) == 15
    assert bench.worker.waiting_for == ""
    assert lines_with(bench, "over: ") == ["over: unusable frames (8 times)"]
    assert bench.crashes == []


def test_when_the_clock_is_set_back_the_policy_acts_again(bench):
    bench.frames(2)
    bench.clock.now_s -= 900.0
    bench.arm_says()
    bench.frames(3)
    assert len(bench.thoughts) == 4, "the first frame after the step is not believed yet"


@pytest.mark.filterwarnings("ignore")
def test_a_crash_of_the_thread_is_told(bench):
    bench.thinker.error = RuntimeError("out of memory")
    bench.box.put(bench.clock(), "frame")
    bench.worker.start()
    end_s = time.monotonic() + 5.0
    while not bench.crashes and time.monotonic() < end_s:
        time.sleep(0.01)
    assert bench.crashes
    assert any("out of memory" in text for _, text in bench.said)
    assert bench.worker.stop()
