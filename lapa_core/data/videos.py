# SPDX-License-Identifier: Apache-2.0
"""Read a folder of ordinary video files as episodes without actions, one per file.

Times are those stored in the file, so a variable frame rate is kept as it is. Imports numpy and av.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lapa_core.data.episode import Episode, OnePathEach
from lapa_core.data.instructions import read_instructions
from lapa_core.data.video import decode_frames, read_timestamps
from lapa_core.errors import DataError
from lapa_core.image import preprocess

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")


class VideoFolderSource(OnePathEach):
    """Every video under a folder, in order of its path.

    `instructions.jsonl` may give each video its text, one object per line:
    `{"video": "clips/0001.webm", "instruction": "push the red block"}`.

    Args:
        path: the folder.

    Raises:
        DataError: there is no video, or `instructions.jsonl` is malformed or names a missing video.
    """

    KIND = "video"

    def __init__(self, path: str | Path) -> None:
        videos = (p for p in Path(path).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        lacks = f"video; allowed are {', '.join(VIDEO_SUFFIXES)}"
        super().__init__(path, sorted(p for p in videos if not p.is_dir()), lacks)
        self.instructions = read_instructions(self.path, set(self.origins()))

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Decode one video; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: the file is damaged, cut short, or has fewer than two frames.
        """
        path = self.at(index)
        promised_s = read_timestamps(path)
        times_s, frames = [], []
        for time_s, frame in decode_frames(path):
            times_s.append(time_s)
            frames.append(frame if image_px is None else preprocess(frame, image_px))
        if len(times_s) != len(promised_s):
            raise DataError(
                f"{path}: {len(times_s)} of {len(promised_s)} frames can be decoded; the file is "
                "damaged: copy or record it again"
            )
        if len(times_s) < 2:
            raise DataError(f"{path} has one frame; a video of at least two is needed")
        start_s = times_s[0]
        return Episode(
            frames=np.stack(frames),
            instruction=self.instructions.get(self.origin(index), ""),
            fps=(len(times_s) - 1) / (times_s[-1] - start_s),
            timestamps_s=np.asarray(times_s) - start_s,
            source=str(path),
        )
