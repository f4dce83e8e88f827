# SPDX-License-Identifier: Apache-2.0
"""Read a folder of ordinary video files as episodes without actions, one per file.

Times are those stored in the file, so a variable frame rate is kept as it is. Imports numpy and av.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lapa_core.data.episode import Episode
from lapa_core.data.video import decode_frames, read_timestamps
from lapa_core.errors import DataError
from lapa_core.image import preprocess

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")
INSTRUCTIONS_NAME = "instructions.jsonl"


class VideoFolderSource:
    """Every video under a folder, in order of its path.

    `instructions.jsonl` may give each video its text, one object per line:
    `{"video": "clips/0001.webm", "instruction": "push the red block"}`.

    Args:
        path: the folder.

    Raises:
        DataError: there is no video, or `instructions.jsonl` is malformed or names a missing video.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.videos = sorted(
            p for p in self.path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()
        )
        if not self.videos:
            raise DataError(f"{self.path} holds no video; allowed are {', '.join(VIDEO_SUFFIXES)}")
        self._instructions = self._read_instructions()

    def __len__(self) -> int:
        return len(self.videos)

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Decode one video; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: the file is damaged, cut short, or has fewer than two frames.
        """
        if not 0 <= index < len(self.videos):
            raise DataError(f"video {index} does not exist; {self.path} has {len(self)} videos")
        path = self.videos[index]
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
            instruction=self._instructions.get(path.relative_to(self.path).as_posix(), ""),
            fps=(len(times_s) - 1) / (times_s[-1] - start_s),
            timestamps_s=np.asarray(times_s) - start_s,
            source=str(path),
        )

    def _read_instructions(self) -> dict[str, str]:
        path = self.path / INSTRUCTIONS_NAME
        if not path.is_file():
            return {}
        known = {video.relative_to(self.path).as_posix() for video in self.videos}
        instructions: dict[str, str] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                video, instruction = entry["video"], entry["instruction"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f'{path} line {number} is {line[:80]!r}; {{"video": ..., "instruction": ...}} '
                    "is needed"
                ) from error
            if video not in known or video in instructions or not isinstance(instruction, str):
                found = "named twice" if video in instructions else "missing or without a text"
                raise DataError(
                    f"{path} line {number}: video {video!r} is {found}; correct the line"
                )
            instructions[video] = instruction
        return instructions
