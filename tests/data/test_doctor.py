# SPDX-License-Identifier: Apache-2.0
"""The doctor of recordings: every fault with its reason, decisions of a reviewer respected, nothing written."""

import pytest

from lapa_core.data.curation import Mark, add_mark
from lapa_core.data.doctor import DoctorConfig, examine, main
from lapa_core.data.export import export_recordings
from lapa_core.errors import DataError
from lapa_core.robot.contract import load_contract


def test_a_folder_of_recordings_is_examined(tmp_path, plan, capsys):
    plan.write(tmp_path / "a.mcap")
    plan.write(tmp_path / "b.mcap")
    main(DoctorConfig(path=tmp_path))
    assert "sound; 2 recordings, 20 rows, 1 instructions" in capsys.readouterr().out

    whole = (tmp_path / "a.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    plan.pause_after = {4: 3.0}
    plan.write(tmp_path / "paused.mcap")
    plan.write(tmp_path / "open.mcap.part", finish=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with pytest.raises(DataError, match="3 of 5 recordings"):
        main(DoctorConfig(path=tmp_path))

    reasons = {
        r.path.name: "; ".join(r.rows.refusals) for r in examine(DoctorConfig(path=tmp_path))
    }
    assert reasons["a.mcap"] == reasons["b.mcap"] == ""
    assert "cut short or damaged" in reasons["cut.mcap"]
    assert "3.20 s lie between two rows" in reasons["paused.mcap"]
    assert "unfinished" in reasons["open.mcap.part"]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

    for name in ("cut.mcap", "open.mcap.part"):
        add_mark(tmp_path, Mark(episode=name, keep=False))
    add_mark(tmp_path, Mark(episode="paused.mcap", last_s=0.9))
    main(DoctorConfig(path=tmp_path))
    assert "sound; 3 recordings, 24 rows" in capsys.readouterr().out


def test_decisions_about_recordings_that_are_not_there_are_refused(tmp_path, plan):
    plan.write(tmp_path / "a.mcap")
    add_mark(tmp_path, Mark(episode="b.mcap", keep=False))
    with pytest.raises(DataError, match=r"names \['b.mcap'\], which are not there"):
        examine(DoctorConfig(path=tmp_path))


def test_a_folder_of_which_nothing_is_left_is_not_sound(tmp_path, plan):
    plan.write(tmp_path / "a.mcap")
    add_mark(tmp_path, Mark(episode="a.mcap", keep=False))
    with pytest.raises(DataError, match="a reviewer dropped every recording"):
        main(DoctorConfig(path=tmp_path))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.mcap file"):
        main(DoctorConfig(path=tmp_path))


def test_recordings_of_two_robots_are_not_sound_together(tmp_path, plan):
    plan.write(tmp_path / "a.mcap")
    other = load_contract("vx300s_sim")
    plan.contract_name, plan.contract_hash, plan.arm_hash = other.name, other.hash, other.hash
    plan.write(tmp_path / "b.mcap")
    first, second = examine(DoctorConfig(path=tmp_path))
    assert first.accepted
    assert "used robot contract" in second.line()


def test_two_recordings_of_one_name_are_refused(tmp_path, plan):
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        plan.write(tmp_path / folder / "a.mcap")
    for judge_all in (
        lambda: examine(DoctorConfig(path=tmp_path)),
        lambda: export_recordings(tmp_path, tmp_path / "set"),
    ):
        with pytest.raises(DataError, match="have one name"):
            judge_all()
