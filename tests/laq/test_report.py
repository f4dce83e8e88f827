# SPDX-License-Identifier: Apache-2.0
"""The report on models whose quality is known: it must say good of the good one, and name what fails in the others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.video import VideoQuality, encode_video
from lapa_core.errors import ContractError, DataError
from lapa_core.laq.checkpoint import build_laq, save_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.report.config import LaqReportConfig
from lapa_core.laq.report.pairs import pairs_of_store
from lapa_core.laq.report.run import Written, make_report, open_report_pairs, write_report
from tests.laq.dots import DotModel
from tests.toy import toy_store

FACTS = {"weights_sha256": "0" * 64, "training": {"data": "toy"}}


def config(out: Path, **changes) -> LaqReportConfig:
    base = LaqReportConfig(
        checkpoint=Path("dots"), data=Path("toy"), out=out, permutations=20, progress=False
    )
    return replace(base, **changes)


def report_on(out: Path, model: DotModel, store=None) -> Written:
    store = store if store is not None else toy_store(episodes=16)
    pairs = pairs_of_store(store, 0.4, max_pairs=0, seed=0)
    return write_report(config(out), model, FACTS, pairs)


def criterion(written: Written, key: str) -> dict:
    found = json.loads(written.document.read_text())["verdict"]["criteria"]
    return next(entry for entry in found if entry["key"] == key)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Written:
    return report_on(tmp_path_factory.mktemp("good"), DotModel("true"))


def test_codes_that_are_the_actions_are_good(good):
    found = json.loads(good.document.read_text())
    assert found["verdict"]["level"] == "good"
    assert found["actions"]["nmi"] > 0.95
    assert found["actions"]["nmi_null"]["mean"] < 0.15
    assert found["actions"]["r2"]["codes"] > 0.95
    assert found["actions"]["dimensions"] == ["dx", "dy"]
    assert found["actions"]["constant"] == ["dz", "rx", "ry", "rz", "gripper"]
    assert found["codes"]["perplexity"] == pytest.approx([4.0])
    assert found["codes"]["past_future_cosine"] == pytest.approx(-1.0, abs=1e-3)
    assert found["codes"]["still_share"] == 1.0
    assert found["pictures"]["gain_db"] > 20
    assert found["pictures"]["delta_db"] > 20
    assert found["pictures"]["closer_share"] == 1.0


def test_random_codes_are_near_zero_and_the_verdict_says_so(tmp_path):
    written = report_on(tmp_path, DotModel("random"))
    actions = written.report.actions
    assert actions.r2["codes"] < 0.05
    assert abs(actions.nmi_excess) < 0.05
    assert criterion(written, "codes name the motion")["level"] == "not usable"
    assert criterion(written, "decoder needs the codes")["level"] == "not usable"
    assert "codes name the motion" in written.report.verdict.summary
    assert "<strong>Not usable</strong>" in written.page.read_text()


def test_a_probe_that_finds_nothing_anywhere_says_so(tmp_path):
    store = toy_store(episodes=8)
    store.actions[:, :2] = np.random.default_rng(0).normal(size=(len(store), 2))
    left_out = report_on(tmp_path, DotModel("true"), store).report.left_out
    assert left_out[0].startswith("A firm word on the actions")


def test_a_collapse_is_named(tmp_path):
    written = report_on(tmp_path, DotModel("collapsed"))
    assert written.report.verdict.level == "not usable"
    assert "codes collapsed" in written.report.verdict.summary
    assert "have collapsed" in written.report.verdict.advice[0]
    assert written.report.codes.joint_used == 1


def test_a_reader_of_places_is_found_by_the_controls(tmp_path):
    codes = report_on(tmp_path, DotModel("place")).report.codes
    assert codes.past_future_cosine > 0.9
    assert codes.still_share < 0.95


def test_without_actions_the_report_says_so_and_is_at_most_usable(tmp_path):
    store = replace(toy_store(episodes=8), actions=None)
    written = report_on(tmp_path, DotModel("true"), store)
    assert written.report.actions is None
    assert written.report.verdict.level == "usable"
    assert "Whether the codes are actions was not measured" in written.page.read_text()
    assert any("the data have none" in reason for reason in written.report.left_out)


def test_three_episodes_are_too_few_for_a_probe(tmp_path):
    written = report_on(tmp_path, DotModel("true"), toy_store(episodes=3))
    assert any("3 episodes" in reason for reason in written.report.left_out)


def test_a_model_that_paints_nothing_has_no_picture_parts(tmp_path):
    model = DotModel("true")
    model.paints = False
    written = report_on(tmp_path, model)
    assert written.report.pictures is None
    assert "What the decoder paints" not in written.page.read_text()
    assert any(reason.startswith("Pictures") for reason in written.report.left_out)


def test_the_worst_pair_is_named_by_its_frames(tmp_path):
    store = toy_store(episodes=16)
    store.frames[store.episode_offsets[5] + 7] = 255  # the last frame of episode 5 is blown out
    page = report_on(tmp_path, DotModel("true"), store).page.read_text()
    worst = page.index("Where it is worst")
    assert re.search(r"episode (\d+), frames (\d+) to (\d+)", page[worst:]).groups() == (
        "5",
        "5",
        "7",
    )


def test_tasks_that_alternate_do_not_split_the_probe_by_task():
    pairs = pairs_of_store(toy_store(episodes=16), 0.4, max_pairs=0, seed=0)
    fitted = {int(episode) % 4 for episode in pairs.episode_P[pairs.folds_P % 2 == 0]}
    assert len(fitted) > 2  # even episodes as recorded move along one axis only
    one_fold_each = {(int(e), int(f)) for e, f in zip(pairs.episode_P, pairs.folds_P, strict=True)}
    assert len(one_fold_each) == 16


def test_max_pairs_bounds_the_work_and_keeps_pairs_inside_episodes():
    store = toy_store(episodes=16)
    pairs = pairs_of_store(store, 0.4, max_pairs=20, seed=1)
    assert len(pairs) == len(pairs.triplets_T3) == 20
    assert (np.diff(pairs.triplets_T3, axis=1) == 2).all()
    assert pairs.available == len(store.valid_pairs(0.4))
    assert (np.diff(pairs.number_P2, axis=1) == 2).all()
    assert (pairs.number_P2 < 8).all()


def test_a_checkpoint_gives_the_same_bytes_twice(tmp_path):
    design = ConvLaqConfig(width=8, codes=4)
    model = build_laq(design)
    checkpoint = save_laq(tmp_path / "laq", model, design, gap_s=0.4)
    store = toy_store(episodes=8)
    first, second = (
        make_report(config(tmp_path / name, checkpoint=checkpoint, max_pairs=24), store)
        for name in "ab"
    )
    assert first.page.read_bytes() == second.page.read_bytes()
    assert first.document.read_bytes() == second.document.read_bytes()
    assert json.loads(first.document.read_text())["about"]["pairs"] == 24


def test_an_index_of_videos_is_measured_without_actions(tmp_path):
    store = toy_store(episodes=5)
    (tmp_path / "videos").mkdir()
    for number in range(5):
        frames = store.subset([number]).frames
        encode_video(tmp_path / "videos" / f"{number}.mp4", frames, 5, VideoQuality(crf=1))
    settings = IndexConfig(
        data=tmp_path / "videos", out=tmp_path / "index", workers=1, progress=False
    )
    build_index(settings)
    asked = config(tmp_path / "out", data=tmp_path / "index", first_episode=1, max_pairs=16)
    pairs = open_report_pairs(asked, 32, 0.4)
    assert pairs.available == len(store.valid_pairs(0.4)) * 4 // 5
    assert sorted(pairs.names) == [1, 2, 3, 4]
    assert pairs.names[2] == "clip 2 (2.mp4)"
    first, later = pairs.frames(slice(0, 1))
    own = store.subset([pairs.episode_P[0]]).frames[pairs.number_P2[0]]
    assert np.abs(np.concatenate([first, later]).astype(int) - own).mean() < 3
    written = write_report(asked, DotModel("true"), FACTS, pairs)
    assert written.report.codes.past_future_cosine < -0.9
    assert written.report.pictures.gain_db > 3
    assert written.report.actions is None


def test_an_index_without_a_long_enough_clip_is_refused(tmp_path):
    store = toy_store(episodes=1)
    (tmp_path / "videos").mkdir()
    encode_video(tmp_path / "videos" / "a.mp4", store.frames, 5, VideoQuality())
    settings = IndexConfig(
        data=tmp_path / "videos", out=tmp_path / "index", workers=1, progress=False
    )
    build_index(settings)
    with pytest.raises(DataError, match="lies 9 s apart"):
        open_report_pairs(config(tmp_path, data=tmp_path / "index"), 32, 9)


def test_wrong_numbers_are_refused(tmp_path):
    with pytest.raises(ContractError, match="max_pairs is 3"):
        config(tmp_path, max_pairs=3)
    design = ConvLaqConfig(width=8, codes=4)
    checkpoint = save_laq(tmp_path / "laq", build_laq(design), design, gap_s=0.4)
    with pytest.raises(DataError, match="allowed is 0 to 7"):
        make_report(config(tmp_path, checkpoint=checkpoint, first_episode=8), toy_store(episodes=8))


def test_the_page_asks_for_nothing_from_outside(good):
    page = good.page.read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(addresses) > 20
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert "@import" not in page
    assert "<script" not in page
    assert not re.findall(r"url\((?!#)", page)


def browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no chromium here: `apt-get install chromium`")
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_fits_a_phone_and_a_desktop_in_a_real_browser(good, tmp_path, width):
    frame = (
        tmp_path / "frame.html"
    )  # a window cannot be made as narrow as a phone, a frame in it can
    frame.write_text(
        f'<body><iframe src="{good.page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe><script>'
        "document.querySelector('iframe').onload = (event) => {"
        "  const page = event.target.contentDocument, root = page.documentElement, out = document.body.dataset;"
        "  out.width = root.scrollWidth; out.height = root.scrollHeight;"
        "  const right = (element) => element.getBoundingClientRect().right;"
        "  out.over = [...page.querySelectorAll('.card *')]"
        "    .filter((e) => right(e) > right(e.closest('.card')) + 0.5).length;"
        "  out.broken = [...page.images].filter((i) => !i.naturalWidth).length; }</script></body>"
    )
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--hide-scrollbars", "--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    found = dict(re.findall(r'data-(width|height|broken|over)="(\d+)"', shown))
    assert int(found["width"]) <= width
    assert int(found["height"]) > 2000
    assert found["broken"] == found["over"] == "0"
