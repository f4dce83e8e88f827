# SPDX-License-Identifier: Apache-2.0
"""`lapa bench video`: three loaders on the same clips, figures that fit together, one JSON object last."""

import json

import numpy as np
import pytest
from PIL import Image

from lapa_core import cli
from lapa_core.bench.clips import HEIGHT_PX, RATE_HZ, WIDTH_PX, draw_clip, make_clips
from lapa_core.bench.map_style import RandomPairs, make_loader
from lapa_core.bench.video import BenchVideoConfig, mean_visit_frames
from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.mixture import Corpus
from lapa_core.data.video import decode_frames, read_packets
from lapa_core.data.visits import VisitPlan
from lapa_core.errors import DataError
from lapa_core.image import preprocess


@pytest.mark.slow
def test_the_last_line_is_the_result(capsys):
    words = (
        "bench video --clips 3 --frames 24 --image-px 32 --batch-size 4 --seconds 0.2 --workers 0"
    )
    cli.main(words.split())
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["clips"] == 3
    assert result["frames_per_visit"] == 24
    assert result["config"]["options"]["pairs_per_visit"] == 24
    rates = [value for name, value in result.items() if name.endswith("_per_cpu_s")]
    assert len(rates) == 6
    assert min(rates) > 0
    ours, limit = result["ours_pairs_per_cpu_s"], result["limit_pairs_per_cpu_s"]
    assert result["share_of_limit"] == pytest.approx(ours / limit, rel=1e-2)
    mapped = result["map_style_pairs_per_cpu_s"]
    assert result["ratio_to_map_style"] == pytest.approx(ours / mapped, rel=1e-2)
    assert limit == pytest.approx(result["decode_resize_frames_per_cpu_s"] * 24 / 24, rel=1e-2)
    assert lines[0].split()[0] == "decode_resize_frames_per_cpu_s"


def test_clips_are_like_those_they_stand_for(tmp_path):
    make_clips(tmp_path, clips=2, frames=6)
    table = read_packets(tmp_path / "00001.webm")
    np.testing.assert_allclose(table.times_s, np.arange(6) / RATE_HZ, atol=1e-3)
    assert table.keyframes.tolist() == [0]
    frames = [frame for _, frame in decode_frames(tmp_path / "00001.webm")]
    assert frames[0].shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert 10 < frames[0].std() < 90
    assert np.abs(frames[0].astype(int) - frames[5]).mean() > 1


def test_map_style_loader_reads_the_right_frames(tmp_path):
    """It is no straw man: what it is measured at is correct reading."""
    make_clips(tmp_path / "in", clips=2, frames=12)
    index = build_index(
        IndexConfig(data=tmp_path / "in", out=tmp_path / "out", workers=1, progress=False)
    )
    pairs = RandomPairs(index, 0.5, 32)
    expected = []
    for clip in index.clips:
        pairs_P2 = index.pairs(clip, 0.5)
        np.testing.assert_array_equal(pairs_P2, [[k, k + 6] for k in range(6)])
        frames = index.read(clip, np.arange(12), 32)
        expected += [(frames[a], frames[b]) for a, b in pairs_P2]
    for number in (7, 0, 11, 3):
        for found, right in zip(pairs[number], expected[number], strict=True):
            np.testing.assert_array_equal(found.numpy(), right)
    first, _ = next(iter(make_loader(pairs, batch_size=5, workers=0)))
    assert first.shape == (5, 32, 32, 3)


def test_pictures_are_measured_as_videos_are(tmp_path, capsys):
    (tmp_path / "in/clip").mkdir(parents=True)
    frames = draw_clip(12, np.random.default_rng(0))
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"in/clip/{number}.png")
    (tmp_path / "in/frames.json").write_text('{"fps": 12}')
    index = build_index(
        IndexConfig(data=tmp_path / "in", out=tmp_path / "out", workers=1, progress=False)
    )
    first, later = RandomPairs(index, 0.5, 32)[3]
    np.testing.assert_array_equal(first, preprocess(frames[3], 32))
    np.testing.assert_array_equal(later, preprocess(frames[9], 32))
    cli.main(
        f"bench video --data {tmp_path / 'out'} --image-px 32 --batch-size 4 --seconds 0.1 --workers 0".split()
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["frames_per_visit"] == 12


def test_frames_of_a_visit_include_the_way_to_it(tmp_path):
    """24 frames of one group at 12 Hz: the second window of 10 pairs begins at frame 9 and is reached from frame 0."""
    make_clips(tmp_path / "in", clips=1, frames=24)
    index = build_index(
        IndexConfig(data=tmp_path / "in", out=tmp_path / "out", workers=1, progress=False)
    )
    corpus = Corpus(index=index, gap_s=0.5)
    plan = VisitPlan([corpus], pairs_per_visit=2, span_frames=10, seed=0)
    assert plan.windows_W3[0].tolist() == [[0, 0, 9], [0, 9, 18]]
    assert mean_visit_frames(plan) == np.mean([8 + 6 + 1, 23 + 1])


def test_nothing_to_measure_is_refused():
    with pytest.raises(DataError, match="clips is 0"):
        BenchVideoConfig(clips=0)
