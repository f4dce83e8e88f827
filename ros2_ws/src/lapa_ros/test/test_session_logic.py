# SPDX-License-Identifier: Apache-2.0
"""Progress is what lies in the folder: it survives crashes, other days, people's decisions. On real episode files."""

import json

import pytest
from lapa_ros.episode_file import EpisodeFile
from lapa_ros.session_logic import SessionProgress
from lapa_ros.session_plan import SessionPlan, TaskPlan

from lapa_core.data.curation import Mark, add_mark, load_marks
from lapa_core.data.recorded_rows import RowLimits
from lapa_core.errors import DataError

LIMITS = RowLimits(min_rows=7)
PLAN = SessionPlan(
    name="mine",
    tasks={
        "push": TaskPlan(instructions=("push left", "slide left"), episodes=3),
        "point": TaskPlan(instructions=("point",), episodes=1, layouts=("near",)),
    },
    order="in_turn",
    seed=70,
)


class Recorder:
    """Writes episode files as the recorder does."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def __call__(self, facts, outcome="success", finish=True):
        self.count += 1
        metadata = {
            "extra": json.loads(facts), "outcome": "", "started_at": f"2026-11-23T10:00:{self.count:02}",
        }  # fmt: skip
        file = EpisodeFile(
            self.folder, f"ep_{self.count:02}", [], metadata, queue_size=4, flush_period_s=0.5
        )
        if finish:
            return file.finish(lambda: {"outcome": outcome})
        file._join(1.0)
        file._stream.close()  # as a kill leaves it
        return file._part


@pytest.fixture
def record(tmp_path):
    return Recorder(tmp_path)


def fill(progress, record, times):
    for _ in range(times):
        progress.keep(record(progress.facts(progress.next_slot(), LIMITS)))


def test_it_goes_from_slot_to_slot_until_all_are_filled(tmp_path, record):
    progress = SessionProgress(PLAN, tmp_path)
    seen = []
    while (slot := progress.next_slot()) is not None:
        seen.append((slot.task, slot.number, slot.instruction, slot.layout, slot.seed))
        fill(progress, record, 1)
    assert seen == [
        ("push", 0, "push left", "", 70),
        ("point", 0, "point", "near", 73),
        ("push", 1, "slide left", "", 71),
        ("push", 2, "push left", "", 72),
    ]
    assert (progress.num_kept, progress.task_kept("push"), progress.task_kept("point")) == (4, 3, 1)


def test_another_process_on_another_day_finds_the_same(tmp_path, record):
    progress = SessionProgress(PLAN, tmp_path)
    fill(progress, record, 2)
    record(progress.facts(progress.next_slot(), LIMITS), finish=False)  # and a crash
    again = SessionProgress(PLAN, tmp_path)
    assert again.num_kept == 2
    assert again.next_slot() == progress.next_slot()
    assert not again.unreadable


@pytest.mark.parametrize("outcome", ["interrupted", "discarded", "timeout"])
def test_only_successes_count(tmp_path, record, outcome):
    progress = SessionProgress(PLAN, tmp_path)
    record(progress.facts(progress.next_slot(), LIMITS), outcome)
    assert SessionProgress(PLAN, tmp_path).num_kept == 0


def test_recordings_of_others_and_damaged_files_do_not_count(tmp_path, record):
    record("{}")
    record(json.dumps({"session": "theirs", "task": "push", "number": 0}))
    (tmp_path / "ep_broken.mcap").write_bytes(b"not an mcap")
    progress = SessionProgress(PLAN, tmp_path)
    assert progress.num_kept == 0
    assert "ep_broken.mcap" in progress.unreadable[0]


def test_a_slot_that_was_recorded_twice_counts_once(tmp_path, record):
    progress = SessionProgress(PLAN, tmp_path)
    facts = progress.facts(progress.next_slot(), LIMITS)
    for _ in range(2):
        progress.keep(record(facts))
    assert progress.num_kept == SessionProgress(PLAN, tmp_path).num_kept == 1


def test_a_shorter_plan_counts_no_more_than_it_wants(tmp_path, record):
    fill(SessionProgress(PLAN, tmp_path), record, 4)
    short = SessionPlan(
        name="mine", tasks={"push": TaskPlan(instructions=("push left",), episodes=1)}
    )
    assert SessionProgress(short, tmp_path).num_kept == 1


def test_undo_opens_the_newest_slot_keeps_the_file_and_lasts(tmp_path, record):
    progress = SessionProgress(PLAN, tmp_path)
    fill(progress, record, 2)
    undone = progress.undo()
    assert (undone.name, undone.is_file()) == ("ep_02.mcap", True)
    assert progress.next_slot().task == "point"
    assert load_marks(tmp_path)["ep_02.mcap"].keep is False
    again = SessionProgress(PLAN, tmp_path)
    assert again.num_kept == 1
    assert again.undo().name == "ep_01.mcap"
    with pytest.raises(DataError, match="nothing to undo"):
        again.undo()


def test_a_reviewer_who_drops_an_episode_asks_for_it_again(tmp_path, record):
    fill(SessionProgress(PLAN, tmp_path), record, 4)
    add_mark(tmp_path, Mark(episode="ep_03.mcap", keep=False, note="blurred"))
    progress = SessionProgress(PLAN, tmp_path)
    assert (progress.next_slot().task, progress.next_slot().number) == ("push", 1)
    add_mark(tmp_path, Mark(episode="ep_03.mcap", keep=True))
    assert SessionProgress(PLAN, tmp_path).next_slot() is None


def test_a_decision_that_was_made_in_the_folder_above_counts_too(tmp_path, record):
    fill(SessionProgress(PLAN, tmp_path), record, 4)
    add_mark(tmp_path.parent, Mark(episode=f"{tmp_path.name}/ep_03.mcap", keep=False))
    assert SessionProgress(PLAN, tmp_path).next_slot().number == 1


def test_a_recording_says_by_which_limits_it_is_to_be_judged(tmp_path, record):
    progress = SessionProgress(PLAN, tmp_path)
    facts = json.loads(progress.facts(progress.next_slot(), LIMITS))
    assert SessionProgress(PLAN, record(json.dumps(facts)).parent).newest().limits == LIMITS
    older = {key: value for key, value in facts.items() if key != "limits"}
    for unknown in (older, {**facts, "limits": {"of_another_version": 1}}):
        record(json.dumps(unknown))
        assert SessionProgress(PLAN, tmp_path).newest().limits is None
