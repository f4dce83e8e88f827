# SPDX-License-Identifier: Apache-2.0
"""A reviewer's decisions: obeyed by the export, kept beside the recordings, never lost, never misread."""

import json

import numpy as np
import pytest

from lapa_core.data.curation import CURATION_NAME, Mark, add_mark, load_marks
from lapa_core.data.episode import open_source
from lapa_core.data.export import export_recordings
from lapa_core.data.recorded_rows import RowLimits
from lapa_core.data.replay import read_replay
from lapa_core.errors import DataError


def test_the_last_decision_counts_and_earlier_ones_stay_in_the_file(tmp_path):
    add_mark(tmp_path, Mark(episode="a.mcap", keep=False, note="shaky"))
    add_mark(tmp_path, Mark(episode="sub/b.mcap", first_s=0.5))
    add_mark(tmp_path, Mark(episode="a.mcap", last_s=3.0))
    assert load_marks(tmp_path) == {
        "a.mcap": Mark(episode="a.mcap", last_s=3.0),
        "sub/b.mcap": Mark(episode="sub/b.mcap", first_s=0.5),
    }
    assert len((tmp_path / CURATION_NAME).read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1 is no JSON"),
        ('{"keep": false}', "an object with"),
        ('{"episode": "a", "trim": 3}', "an object with"),
        ('{"episode": "a", "keep": "no"}', "keep true or false"),
        ('{"episode": "a", "first_s": 2, "last_s": 1}', "rows from 2 to 1 s"),
        ('{"episode": "a", "first_s": true}', "first_s is True"),
        ('{"episode": "a", "last_s": NaN}', "last_s is nan"),
        ('{"episode": "a", "last_s": Infinity}', "last_s is inf; null keeps all"),
    ],
)
def test_lines_that_make_no_sense_are_refused(tmp_path, line, reason):
    (tmp_path / CURATION_NAME).write_text(line + "\n")
    with pytest.raises(DataError, match=reason):
        load_marks(tmp_path)


def test_a_note_may_hold_what_only_python_takes_for_the_end_of_a_line(tmp_path):
    line = '{"episode": "a.mcap", "keep": false, "note": "one\u2028two"}'
    (tmp_path / CURATION_NAME).write_text(line + "\n", encoding="utf-8")
    assert load_marks(tmp_path)["a.mcap"].note == "one\u2028two"


def test_a_file_of_another_encoding_is_refused(tmp_path):
    line = '{"episode": "a.mcap", "keep": false, "note": "stößt an"}'
    (tmp_path / CURATION_NAME).write_bytes(line.encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        load_marks(tmp_path)


def test_export_leaves_out_what_was_dropped_and_keeps_the_part_that_was_kept(
    tmp_path, plan, stamps
):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for name in ("a", "b", "c"):
        plan.write(recordings / f"{name}.mcap")
    before = {p.name: p.read_bytes() for p in recordings.iterdir()}
    add_mark(recordings, Mark(episode="a.mcap", keep=False, note="the block fell"))
    # The first picture is 0.1 s before delta 0; deltas are stamped at 0.13, 0.33, ... s after it.
    add_mark(recordings, Mark(episode="b.mcap", first_s=0.3, last_s=1.2))

    a, b, c = export_recordings(recordings, tmp_path / "set")

    assert a.rows.refusals == ("a reviewer dropped it: the block fell",)
    assert (b.rows.rows, b.rows.trimmed, c.rows.rows) == (5, 5, 10)
    source = open_source(tmp_path / "set")
    assert stamps.read_all(source.episode(0).frames) == [2 + 4 * k for k in range(1, 6)]
    assert source.origin(0) == "b.mcap, 0.3 to 1.2 s"
    assert {p.name: p.read_bytes() for p in recordings.glob("*.mcap")} == before

    again = export_recordings(recordings, tmp_path / "set")
    assert [report.known for report in again] == [False, True, True]
    add_mark(recordings, Mark(episode="b.mcap", first_s=0.5))
    add_mark(recordings, Mark(episode="c.mcap", keep=False))
    with pytest.raises(DataError, match="none of 3"):
        export_recordings(recordings, tmp_path / "set", on_report=(late := []).append)
    assert all("export to a new folder" in report.line() for report in late[1:])


def test_a_decision_starts_a_line_of_its_own_after_a_hand_edit_without_an_end(tmp_path):
    (tmp_path / CURATION_NAME).write_text('{"episode": "a.mcap", "keep": false}')
    add_mark(tmp_path, Mark(episode="b.mcap"))
    assert load_marks(tmp_path) == {
        "a.mcap": Mark(episode="a.mcap", keep=False),
        "b.mcap": Mark(episode="b.mcap"),
    }


@pytest.mark.parametrize("reviewed", [".", "all/monday"])
def test_decisions_of_another_folders_review_are_not_passed_over(tmp_path, plan, reviewed):
    monday = tmp_path / "all/monday"
    monday.mkdir(parents=True)
    plan.write(monday / "a.mcap")
    (folder := tmp_path / reviewed).mkdir(exist_ok=True)
    add_mark(folder, Mark(episode=(monday / "a.mcap").relative_to(folder).as_posix(), keep=False))
    with pytest.raises(DataError, match="would be ignored here; give the folder"):
        export_recordings(tmp_path / "all", tmp_path / "set")
    add_mark(tmp_path / "all", Mark(episode="monday/a.mcap"))
    (report,) = export_recordings(tmp_path / "all", tmp_path / "set")
    assert report.accepted


def test_export_refuses_decisions_about_recordings_that_are_not_there(tmp_path, plan):
    plan.write(tmp_path / "renamed.mcap")
    add_mark(tmp_path, Mark(episode="a.mcap", keep=False))
    with pytest.raises(DataError, match=r"names \['a.mcap'\], which are not there"):
        export_recordings(tmp_path, tmp_path / "set")


def test_a_recording_with_a_comma_in_its_name_is_exported_once(tmp_path, plan):
    plan.write(tmp_path / "push, red.mcap")
    export_recordings(tmp_path, tmp_path / "set")
    (again,) = export_recordings(tmp_path, tmp_path / "set")
    assert again.known


def test_a_replayed_recording_obeys_the_reviewer(tmp_path, plan):
    (tmp_path / "monday").mkdir()
    path = plan.write(tmp_path / "monday/a.mcap")
    assert len(read_replay(path).actions) == 10
    add_mark(tmp_path, Mark(episode="monday/a.mcap", last_s=0.9))
    assert len(read_replay(path).actions) == 4
    add_mark(tmp_path, Mark(episode="monday/a.mcap", keep=False, note="it hits the table"))
    with pytest.raises(DataError, match="a reviewer dropped it: it hits the table"):
        read_replay(path)


def test_a_recording_with_a_hole_is_replayed_only_up_to_it(tmp_path, plan):
    plan.steps = 40
    plan.camera_until_s = 7.45  # the last delta has no fresh frame; an export bears that
    plan.write(tmp_path / "a.mcap")
    assert len(read_replay(tmp_path / "a.mcap").actions) == 39
    plan.camera_until_s, plan.camera_gap_s = 1e9, (3.06, 3.44)
    plan.write(tmp_path / "b.mcap")
    with pytest.raises(DataError, match=r"1 \(at 3.53 s\) of 40 applied deltas have no frame"):
        read_replay(tmp_path / "b.mcap")
    add_mark(tmp_path, Mark(episode="b.mcap", last_s=3.5))
    assert len(read_replay(tmp_path / "b.mcap").actions) == 17


def test_nothing_left_after_trimming_is_a_refusal(tmp_path, plan):
    plan.write(tmp_path / "a.mcap")
    add_mark(tmp_path, Mark(episode="a.mcap", first_s=100.0))
    with pytest.raises(DataError, match="nothing is left after trimming"):
        export_recordings(tmp_path, tmp_path / "set")


def test_achieved_deltas_lead_from_pose_to_pose(tmp_path, plan):
    plan.write(tmp_path / "a.mcap")
    export_recordings(tmp_path, tmp_path / "set", actions="achieved")
    source = open_source(tmp_path / "set")
    episode = source.episode(0)
    # The measured x is the time since the start; the turn and the gripper stand still.
    expected = np.zeros((9, 7))
    expected[:, 0], expected[:, 6] = 0.2, 0.5
    np.testing.assert_allclose(episode.actions, expected, atol=1e-6)
    assert "achieved" in source.metadata["action_kind"]
    poses = episode.states[:-1, :3] + episode.actions[:-1, :3]
    np.testing.assert_allclose(poses, episode.states[1:, :3], atol=1e-6)


def test_still_episodes_and_saturated_ones_are_refused(tmp_path, plan):
    original = plan.delta

    def at(metres):
        def delta(step, stamp_s):
            moves = {"translation": {"x": metres, "y": 0.0, "z": 0.0}, "gripper": 0.0}
            return {**original(step, stamp_s), **moves, "rotation": {"x": 0.0, "y": 0.0, "z": 0.0}}

        return delta

    for name, metres, reason in (
        ("still", 0.0, "nothing moves in 100%"),
        ("fast", 0.05, "100% of"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        plan.delta = at(metres)
        plan.write(folder / "a.mcap")
        with pytest.raises(DataError, match=reason):
            export_recordings(folder, tmp_path / "set")
        limits = RowLimits(max_still_share=1.0, max_saturated_share=1.0)
        (report,) = export_recordings(folder, folder / "set", limits=limits)
        assert json.dumps([report.still_share, report.saturated_share]) == (
            "[1.0, 0.0]" if name == "still" else "[0.0, 1.0]"
        )
