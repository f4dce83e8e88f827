# SPDX-License-Identifier: Apache-2.0
"""Import of RLDS and videos, and the `lapa data` commands."""

import numpy as np
import pytest

from lapa_core.data import doctor
from lapa_core.data.commands import ExportConfig, ImportConfig, InfoConfig, main
from lapa_core.data.convert import hold, import_source
from lapa_core.data.episode import open_source
from lapa_core.data.verify import verify
from lapa_core.errors import DataError


def test_bridge_import_keeps_actions_exactly(bridge, tmp_path):
    report = import_source(bridge, tmp_path / "set", cameras=("image_0", "image_1"))
    assert (report.num_episodes, report.num_frames, report.refusals) == (15, 150, [])
    assert verify(tmp_path / "set").problems == ()
    before, after = open_source(bridge), open_source(tmp_path / "set")
    for index in (0, 14):
        a, b = before.episode(index), after.episode(index)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.states, b.states)
        assert a.instruction == b.instruction
        error = a.frames.astype(float) - b.frames
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 30
    again = import_source(bridge, tmp_path / "set", cameras=("image_0", "image_1"))
    assert (again.num_episodes, again.num_known) == (0, 15)


def test_import_of_a_missing_camera_is_refused(bridge, tmp_path):
    with pytest.raises(DataError, match=r"no episode .* could be imported.*one colour"):
        import_source(bridge, tmp_path / "set", cameras=("image_3",))


def test_variable_rate_is_held_on_the_grid(tmp_path, stamps, write_video):
    times_s = [0.0, 0.1, 0.5, 0.52, 1.0]
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/a.webm", stamps.clip(0, 5), times_s, "libvpx-vp9")
    with pytest.raises(DataError, match="no constant whole rate"):
        import_source(tmp_path / "clips", tmp_path / "set")
    report = import_source(tmp_path / "clips", tmp_path / "set", fps=5, image_px=64)
    assert report.num_frames == 6
    source = open_source(tmp_path / "set")
    assert stamps.read_all(source.episode(0).frames) == [0, 1, 1, 3, 3, 4]
    captured_s = source.columns(0)["observation.capture_time"]
    np.testing.assert_allclose(captured_s, [0, 0.1, 0.1, 0.52, 0.52, 1.0], atol=2e-3)


def test_hold_never_takes_a_later_frame():
    np.testing.assert_array_equal(hold(np.arange(10) / 10, 10), np.arange(10))
    np.testing.assert_array_equal(hold(np.array([0.0, 0.19, 0.41]), 5), [0, 1, 1])


def test_one_bad_video_is_named_and_the_rest_imported(tmp_path, stamps, write_video):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/a.mp4", stamps.clip(0, 5), np.arange(5) / 5)
    (tmp_path / "clips/b.mp4").write_text("torn")
    report = import_source(tmp_path / "clips", tmp_path / "set")
    assert report.num_episodes == 1
    assert len(report.refusals) == 1
    assert "b.mp4" in report.refusals[0]


def test_lerobot_needs_no_import(make_set, tmp_path):
    with pytest.raises(DataError, match="LeRobot v3 data set already"):
        import_source(make_set(), tmp_path / "other")


def test_commands_say_what_they_did(tmp_path, plan, stamps, write_video, capsys):
    plan.write(tmp_path / "good.mcap")
    plan.outcome = "timeout"
    plan.write(tmp_path / "late.mcap")
    plan.write(tmp_path / "killed.mcap.part", finish=False)
    main(ExportConfig(recordings=tmp_path, out=tmp_path / "set", recover=True))
    said = capsys.readouterr().out
    assert "good.mcap: 10 rows at 5.00 Hz" in said
    assert "killed.mcap: REFUSED: its outcome is 'interrupted'" in said
    assert "late.mcap: REFUSED: its outcome is 'timeout'" in said
    assert "1 episodes (10 rows) exported, 0 were there before, 2 refused" in said
    doctor.main(doctor.DoctorConfig(path=tmp_path / "set"))
    assert "sound; 1 episodes, 10 rows, 1 videos" in capsys.readouterr().out
    main(InfoConfig(path=tmp_path / "set"))
    said = capsys.readouterr().out
    assert f"1 x {plan.instruction!r}" in said
    assert "lapa/contract_hash" in said
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/a.mp4", stamps.clip(0, 5), np.arange(5) / 5)
    main(ImportConfig(source=tmp_path / "clips", out=tmp_path / "imported"))
    assert "1 episodes (5 frames) imported" in capsys.readouterr().out
