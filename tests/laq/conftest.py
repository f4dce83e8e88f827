# SPDX-License-Identifier: Apache-2.0
"""Videos, their index, a checkpoint, and the labels that one undisturbed process makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

CLIPS, LENGTH = 16, 40


class LabelWorld(NamedTuple):
    """What a labelling run needs, on disk."""

    root: Path
    clips: int
    length: int

    def config(self, out: Path | None, **changes):
        """Label the index into many small shards."""
        from lapa_core.laq.label_config import LaqLabelConfig

        fields = {
            "data": self.root / "index",
            "checkpoint": self.root / "checkpoint",
            "shard_rows": 4,
            "batch_size": 4,
            "progress": False,
            **changes,
        }
        return LaqLabelConfig(out=out, **fields)


@pytest.fixture(scope="session")
def label_world(tmp_path_factory):
    from lapa_core.data.index import IndexConfig, build_index
    from tests.laq.test_label import save_model

    root = tmp_path_factory.mktemp("label_world")
    write_videos(root / "videos")
    build_index(IndexConfig(data=root / "videos", out=root / "index", workers=1, progress=False))
    save_model(root / "checkpoint")
    return LabelWorld(root, CLIPS, LENGTH)


@pytest.fixture(scope="session")
def undisturbed(label_world, tmp_path_factory):
    """The folder that one process writes when nothing happens."""
    from lapa_core.laq.label import label

    return label(label_world.config(tmp_path_factory.mktemp("undisturbed") / "labels"))


def write_videos(folder: Path) -> None:
    import av

    from tests.toy import toy_store

    folder.mkdir()
    store = toy_store(episodes=CLIPS, length=LENGTH)
    for clip in range(CLIPS):
        with av.open(str(folder / f"{clip:02d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            for frame in store.frames[clip * LENGTH : (clip + 1) * LENGTH]:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
