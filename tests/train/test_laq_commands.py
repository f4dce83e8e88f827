# SPDX-License-Identifier: Apache-2.0
"""Bridge's teleoperation and plain video files through `data index`, the commands of the LAQ, and `vla pretrain`."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from lapa_core import cli
from lapa_core.data.clip_index import ClipIndex
from lapa_core.laq.labels import LatentLabels
from lapa_core.vla.checkpoint import load_vla


@pytest.fixture(params=["bridge", "videos"])
def source(request, tmp_path):
    """A folder of data, and the number of clips in it."""
    if request.param == "bridge":
        return request.getfixturevalue("bridge"), 15
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, codec in (("a.mp4", "libx264"), ("b.webm", "libvpx-vp9")):
        write_video(folder / name, codec)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder, 2


def write_video(path, codec):
    """A bright square that wanders over a dark board, 5 frames per second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(5))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for t in range(30):
            image = np.full((64, 64, 3), 40, np.uint8)
            image[(7 * t) % 48 :, :][:16, (5 * t) % 48 : (5 * t) % 48 + 16] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.slow
def test_from_a_folder_to_a_report(source, tmp_path, capsys):
    data, clips = source
    index, run, labels = tmp_path / "index", tmp_path / "laq", tmp_path / "labels"
    quiet = ["--no-progress"]
    training = ["--gap-s", "0.6", "--steps", "6", "--workers", "0", *quiet]
    cli.main(["data", "index", "--data", str(data), "--out", str(index), "--workers", "1", *quiet])
    assert f"{clips} clips" in capsys.readouterr().out
    cli.main(["laq", "train", "debug", "--data", str(index), "--out", str(run), *training])
    model = ["--checkpoint", str(run / "checkpoint"), "--data", str(index)]
    cli.main(["laq", "label", *model, "--out", str(labels), *quiet])
    cli.main(["laq", "report", *model, "--out", str(tmp_path / "report"), *quiet])

    made = ["--data", str(index), "--labels", str(labels), "--out", str(tmp_path / "vla")]
    cli.main(["vla", "pretrain", "debug", *made, "--max-episodes", "0", *training[2:]])
    assert load_vla(tmp_path / "vla" / "checkpoint").config["gap_s"] == 0.6

    opened = ClipIndex.load(index)
    pairs = sum(len(opened.pairs(clip, 0.6)) for clip in opened.clips)
    assert len(LatentLabels.load(labels).codes_PK) == pairs
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["verdict"]
    assert "<html" in (tmp_path / "report" / "report.html").read_text()
    assert ("broken.mp4" in (index / "index.json").read_text()) == (data.name == "videos")
