# SPDX-License-Identifier: Apache-2.0
"""Recordings to a data set: the right rows with the right frames, and reasons for every refusal."""

import numpy as np
import pytest

from lapa_core.data.commands import ExportConfig, main
from lapa_core.data.episode import open_source
from lapa_core.data.export import export_recordings
from lapa_core.data.recorded_rows import RowLimits, longest_run, newest_before
from lapa_core.errors import DataError
from lapa_core.robot.contract import load_contract


def export(folder, out, **kwargs):
    return export_recordings(folder, out, **kwargs)


def refusal(folder, out, **kwargs):
    reports = []
    with pytest.raises(DataError, match="none of 1 recordings"):
        export_recordings(folder, out, on_report=reports.append, **kwargs)
    assert len(reports) == 1
    return "; ".join(reports[0].rows.refusals)


def test_rows_are_the_applied_deltas_with_the_frames_before_them(tmp_path, plan, stamps):
    plan.write(tmp_path / "a.mcap")
    (report,) = export(tmp_path, tmp_path / "set")
    assert report.accepted
    assert (report.rows.rows, report.rows.not_applied, report.rows.dropped) == (10, 0, 0)
    assert report.rows.rate_hz == pytest.approx(5, rel=1e-6)
    assert report.rows.max_gap_s == pytest.approx(0.2)
    assert 0 <= report.rows.staleness_p95_s <= 0.05
    source = open_source(tmp_path / "set")
    episode = source.episode(0)
    assert episode.instruction == plan.instruction
    # Picture n is taken at start - 0.1 + n / 20, observation k is made at start + k / 5.
    assert stamps.read_all(episode.frames) == [2 + 4 * k for k in range(10)]
    np.testing.assert_allclose(episode.actions[:, 0], 0.001 * np.arange(10), atol=1e-7)
    np.testing.assert_allclose(episode.actions[:, 5], 0.01 * np.arange(10), atol=1e-7)
    np.testing.assert_array_equal(episode.actions[:, 6], np.arange(10) % 2)
    np.testing.assert_allclose(episode.states[:, 0], np.arange(10) / 5, atol=1e-6)
    np.testing.assert_allclose(episode.states[:, 3:6], [[0, 0, 0.1]] * 10, atol=1e-6)
    np.testing.assert_allclose(episode.states[:, 6], 0.5)
    columns = source.columns(0)
    captured_s = columns["observation.capture_time"] - plan.start_s
    np.testing.assert_allclose(captured_s, np.arange(10) / 5, atol=1e-6)
    contract = load_contract("wx250s_sim")
    assert source.metadata["contract_hash"] == contract.hash
    assert source.info["robot_type"] == "wx250s"
    assert source.metadata["provenance"]["commit"]


def test_refused_deltas_are_no_rows(tmp_path, plan):
    plan.refused = (0, 4, 9)
    plan.write(tmp_path / "a.mcap")
    (report,) = export(tmp_path, tmp_path / "set")
    assert (report.rows.rows, report.rows.not_applied) == (7, 3)
    actions = open_source(tmp_path / "set").episode(0).actions
    np.testing.assert_allclose(actions[:, 0], [0.001 * k for k in (1, 2, 3, 5, 6, 7, 8)], atol=1e-7)


def test_two_deltas_between_two_states_are_both_rows(tmp_path, plan):
    """arm_state comes at a fixed rate, so one message may confirm two deltas by its count."""
    plan.pause_after = {3: -0.19}
    plan.write(tmp_path / "a.mcap")
    (report,) = export(tmp_path, tmp_path / "set")
    assert report.rows.rows == 10


def test_a_hole_in_the_deltas_refuses_the_episode(tmp_path, plan):
    plan.unrecorded = (5,)
    plan.write(tmp_path / "a.mcap")
    assert "applied 1 deltas that the recording does not hold" in refusal(
        tmp_path, tmp_path / "set"
    )


def test_a_delta_from_before_the_recording_is_no_hole(tmp_path, plan):
    plan.unrecorded = (0,)
    plan.write(tmp_path / "a.mcap")
    (report,) = export(tmp_path, tmp_path / "set")
    assert report.rows.rows == 9


def test_without_arm_state_the_episode_is_refused_unless_accepted(tmp_path, plan):
    plan.arm_state = False
    plan.write(tmp_path / "a.mcap")
    assert "accept unconfirmed" in refusal(tmp_path, tmp_path / "set")
    limits = RowLimits(accept_unconfirmed=True)
    (report,) = export(tmp_path, tmp_path / "loose", limits=limits)
    assert report.rows.rows == 10
    source = open_source(tmp_path / "loose")
    assert source.episode(0).states is None
    assert "not confirmed" in source.metadata["action_kind"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"outcome": "timeout"}, "its outcome is 'timeout'"),
        ({"instruction": " "}, "instruction is empty"),
        ({"contract_hash": "0" * 64}, "the recorder used robot contract '000000000000'"),
        ({"arm_hash": "0" * 64}, "the arm used robot contract"),
        ({"refused": range(10)}, "applied none of the deltas"),
        ({"camera_until_s": 0.9}, "no frame or pose within 0.3 s"),
        ({"camera_until_s": -1.0}, "no frame was recorded of camera front"),
        ({"camera_offset_s": 500.0}, "camera front is stamped later than every observation"),
        ({"camera_offset_s": -500.0}, "497.95 s before every observation"),
        ({"pause_after": {4: 3.0}}, "3.20 s lie between two rows"),
        ({"period_s": 0.5}, "rows come at 2.00 Hz"),
        ({"steps": 1}, "it has 1 rows; at least 2"),
        ({"size_px": 64}, "pictures of shape [(64, 64, 3)]; the contract says 128 x 128"),
        ({"rotation_rad": float("nan")}, "measured pose is not finite"),
    ],
)
def test_bad_recordings_are_refused_with_the_reason(tmp_path, plan, change, reason):
    for name, value in change.items():
        setattr(plan, name, value)
    plan.write(tmp_path / "a.mcap")
    assert reason in refusal(tmp_path, tmp_path / "set")
    assert not (tmp_path / "set" / "data").exists()


@pytest.mark.parametrize("field", ["applied", "measured_gripper", "observation_stamp"])
def test_a_recording_of_older_messages_is_refused_and_others_are_exported(tmp_path, plan, field):
    plan.write(tmp_path / "b.mcap")
    plan.undefined = field
    plan.write(tmp_path / "a.mcap")
    old, new = export(tmp_path, tmp_path / "set")
    assert f"lack ['{field}']" in old.line()
    assert new.accepted


def test_limits_can_be_widened(tmp_path, plan):
    plan.pause_after, plan.outcome = {4: 3.0}, "timeout"
    plan.write(tmp_path / "a.mcap")
    (report,) = export(
        tmp_path, tmp_path / "set", outcomes=("timeout",), limits=RowLimits(max_gap_s=5.0)
    )
    assert report.rows.rows == 10


def test_export_again_adds_only_what_is_new(tmp_path, plan):
    plan.write(tmp_path / "a.mcap")
    export(tmp_path, tmp_path / "set")
    plan.instruction = "point to the blue block"
    plan.write(tmp_path / "b.mcap")
    reports = export(tmp_path, tmp_path / "set")
    assert [report.known for report in reports] == [True, False]
    source = open_source(tmp_path / "set")
    assert [source.instruction(i) for i in range(len(source))] == [
        "push the red block to the left",
        "point to the blue block",
    ]


def test_good_ones_survive_bad_ones(tmp_path, plan):
    plan.write(tmp_path / "b.mcap")
    (tmp_path / "a.mcap").write_text("torn")
    reports = export(tmp_path, tmp_path / "set")
    assert [report.accepted for report in reports] == [False, True]
    assert "REFUSED" in reports[0].line()
    assert len(open_source(tmp_path / "set")) == 1


def test_namespaced_topics_are_found(tmp_path, plan):
    plan.namespace = "/robot_1"
    plan.write(tmp_path / "a.mcap")
    (report,) = export(tmp_path, tmp_path / "set")
    assert report.rows.rows == 10


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \.mcap file"):
        export(tmp_path, tmp_path / "set")


def test_unfinished_recording_is_refused_and_kept(tmp_path, plan):
    plan.write(tmp_path / "a.mcap.part", finish=False)
    assert "it is unfinished" in refusal(tmp_path, tmp_path / "set")
    assert (tmp_path / "a.mcap.part").is_file()


def test_data_set_of_another_contract_is_not_continued(tmp_path, plan, make_set):
    """The whole export stops: every further episode would meet the same wall."""
    plan.write(tmp_path / "a.mcap")
    with pytest.raises(DataError, match="holds a data set whose features"):
        export(tmp_path, make_set())


def test_newest_before_takes_no_later_stamp():
    stamps_s = np.array([3.0, 1.0, 2.0])  # out of order, as networks deliver
    index, age_s = newest_before(stamps_s, np.array([0.5, 1.0, 2.9, 9.0]))
    np.testing.assert_array_equal(index[1:], [1, 2, 0])
    np.testing.assert_allclose(age_s, [np.inf, 0.0, 0.9, 6.0])


def test_delta_without_an_observation_is_matched_by_its_own_stamp(tmp_path, plan, stamps):
    plan.answers = False
    plan.write(tmp_path / "a.mcap")
    (report,) = export(tmp_path, tmp_path / "set")
    assert report.rows.without_observation == 10
    # Such a delta is stamped 30 ms after the picture; the next picture comes after 50 ms.
    frames = open_source(tmp_path / "set").episode(0).frames
    assert stamps.read_all(frames) == [2 + 4 * k for k in range(10)]


def test_newest_before_takes_the_frame_of_the_instant_itself_after_a_float_rounded_its_stamp():
    stamps_s = np.array([1763839173.05, 1763839173.1])
    index, age_s = newest_before(stamps_s, np.nextafter(stamps_s, 0.0)[1:])
    assert index.tolist() == [1]
    assert age_s.tolist() == [0.0]


HOLE_S = (7.06, 7.44)
"""Without a picture in between, the delta that answers 7.4 s, number 37, has none that is fresh."""


def test_no_applied_delta_is_missing_between_two_rows(tmp_path, plan):
    """A chunk of actions across the hole would leave out a move that the arm made."""
    plan.steps, plan.camera_gap_s = 80, HOLE_S
    plan.write(tmp_path / "a.mcap")
    reports = []
    with pytest.raises(DataError, match="none of 1 recordings"):
        export(tmp_path, tmp_path / "set", on_report=reports.append)
    assert "1 (at 7.53 s) of 80 applied deltas have no frame" in reports[0].line()
    assert "38 with those that they part from the rest" in reports[0].line()

    half = RowLimits(max_dropped_fraction=0.5, max_saturated_share=1.0)
    (report,) = export(tmp_path, tmp_path / "set", limits=half)
    assert (report.rows.rows, report.rows.dropped, report.rows.parted) == (42, 1, 37)
    assert "1 (at 7.53 s) dropped, 37 parted from the rows by those" in report.line()
    actions = open_source(tmp_path / "set").episode(0).actions
    np.testing.assert_allclose(actions[:, 0], 0.001 * np.arange(38, 80), atol=1e-7)


def test_a_hole_near_the_end_costs_the_end(tmp_path, plan, capsys):
    plan.steps, plan.camera_gap_s = 40, HOLE_S
    plan.write(tmp_path / "a.mcap")
    limits = RowLimits(max_dropped_fraction=0.1)
    main(ExportConfig(recordings=tmp_path, out=tmp_path / "set", limits=limits))
    printed = capsys.readouterr().out
    assert "3 of 40 applied deltas were left out, of 1 episodes" in printed
    actions = open_source(tmp_path / "set").episode(0).actions
    np.testing.assert_allclose(actions[:, 0], 0.001 * np.arange(37), atol=1e-7)


def test_achieved_deltas_do_not_bridge_a_hole(tmp_path, plan):
    plan.steps, plan.camera_gap_s = 40, HOLE_S
    plan.write(tmp_path / "a.mcap")
    limits = RowLimits(max_dropped_fraction=0.1)
    export(tmp_path, tmp_path / "set", limits=limits, actions="achieved")
    actions = open_source(tmp_path / "set").episode(0).actions
    np.testing.assert_allclose(actions[:, 0], 0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "run"), [("", ""), ("000", "000"), ("111", "111"), ("0110", "0110"), ("101", "100"), ("1011", "0011")]
)  # fmt: skip
def test_the_longest_run(wanted, run):
    found = longest_run(np.array([c == "1" for c in wanted], dtype=bool))
    assert "".join("01"[int(one)] for one in found) == run
