# SPDX-License-Identifier: Apache-2.0
"""Every stage at debug size on real input: BridgeData teleoperation (RLDS), and plain video files."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lapa_core.data.episode import open_source
from lapa_core.laq.label import label
from lapa_core.laq.label_config import LaqLabelConfig, LaqProbeConfig
from lapa_core.laq.presets import LAQ_TRAIN
from lapa_core.laq.probe import probe
from lapa_core.laq.train import train as train_laq
from lapa_core.policy import Policy
from lapa_core.presets import VLA_FINETUNE, VLA_PRETRAIN
from lapa_core.vla.finetune import train as finetune
from lapa_core.vla.pretrain import train as pretrain

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache of decoded frames for this file, not the user's."""
    root = tmp_path_factory.getbasetemp() / "frames"
    monkeypatch.setenv("LAPA_CACHE", str(root))


@pytest.mark.parametrize("design", ["debug", "debug_paper"])
def test_all_stages_run_on_bridge(tmp_path, bridge, design):
    quiet = {"progress": False, "steps": 3, "save_every": 0}
    laq = train_laq(
        replace(LAQ_TRAIN[design], data=bridge, out=tmp_path / "laq", gap_s=0.6, **quiet)
    )
    labels = label(
        LaqLabelConfig(
            data=bridge, checkpoint=laq.checkpoint, out=tmp_path / "labels", max_episodes=8
        )
    )
    recipe = replace(
        VLA_PRETRAIN["debug"], data=bridge, labels=labels, out=tmp_path / "pretrain", **quiet
    )
    trained = pretrain(recipe)
    recipe = replace(
        VLA_FINETUNE["debug"],
        data=bridge,
        init=trained.checkpoint,
        head_steps=1,
        out=tmp_path,
        **quiet,
    )
    policy = Policy.load(finetune(replace(recipe, out=tmp_path / "policy")).checkpoint)
    frame = open_source(bridge).episode(0).frames[0]
    step = policy.act(frame, "put the carrot on the plate")
    assert np.isfinite(step.delta.to_array()).all()
    assert np.linalg.norm(step.delta.translation_m) <= policy.config["max_translation_m"]


def test_the_probe_runs_on_bridge(tmp_path, bridge):
    laq = train_laq(
        replace(
            LAQ_TRAIN["debug"],
            data=bridge,
            out=tmp_path,
            gap_s=0.6,
            steps=3,
            save_every=0,
            progress=False,
        )
    )
    report = probe(LaqProbeConfig(data=bridge, checkpoint=laq.checkpoint))
    assert report.pairs > 20
    assert report.r2_codes < 1.0
    assert abs(report.r2_shuffled_codes) < 0.5


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
def test_the_laq_trains_from_plain_video_files(tmp_path, bridge, suffix, codec):
    import av

    source = open_source(bridge)
    for index in range(3):
        frames = source.episode(index, image_px=64).frames[:12]
        with av.open(str(tmp_path / f"clip{index}.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(5))
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    recipe = replace(
        LAQ_TRAIN["debug"], data=tmp_path, out=tmp_path / "run", gap_s=0.6, steps=3, progress=False
    )
    trained = train_laq(recipe)
    assert (trained.checkpoint / "model.safetensors").is_file()
    assert trained.history[0][1]["loss"] > 0
