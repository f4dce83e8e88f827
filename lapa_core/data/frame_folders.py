# SPDX-License-Identifier: Apache-2.0
"""Read folders of numbered pictures, one sub-folder per clip, as episodes without actions.

Pictures have no times, so the rate comes from `frames.json` (`{"fps": 12}`) in the clip's folder or in the data
folder, or from an argument; it is never guessed. Imports numpy and Pillow.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lapa_core.data.episode import Episode, OnePathEach
from lapa_core.data.instructions import read_instructions
from lapa_core.data.kept import Kept
from lapa_core.errors import DataError
from lapa_core.image import PICTURE_DAMAGE, preprocess, read_rgb

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
FRAMES_NAME = "frames.json"
KEPT_BYTES = 64 * 2**20
"""Memory of a process for the names of pictures [bytes], about half a million."""
_NAME_BYTES = 128

_names: Kept[list[str]] = Kept(KEPT_BYTES, lambda names: _NAME_BYTES * len(names))


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which `frame10.jpg` follows `frame9.jpg`."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts], path.name


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures that lie in a folder, in natural order."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
    return sorted(found, key=natural_key)


def picture_names(folder: Path) -> list[str]:
    """Return the names of what `list_pictures` finds, from memory while nothing is added to the folder or taken out."""
    key = (folder, folder.stat().st_mtime_ns)
    return _names.get(key, lambda: [path.name for path in list_pictures(folder)])


def list_clip_folders(root: Path) -> list[Path]:
    """Return every folder below `root` that holds pictures itself, in order of its path."""
    return sorted(
        {p.parent for p in root.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES} - {root}
    )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return a picture as RGB (H, W, 3), or raise DataError when it is damaged."""
    try:
        return read_rgb(path)
    except PICTURE_DAMAGE as error:
        raise DataError(f"{path}: the picture cannot be read ({error}); copy it again") from error


def read_size(path: Path) -> tuple[int, int]:
    """Return width and height of a picture [px] from its header, or raise DataError when it is damaged."""
    try:
        with Image.open(path) as image:
            return image.size
    except PICTURE_DAMAGE as error:
        raise DataError(f"{path}: the picture cannot be read ({error}); copy it again") from error


def read_rate(root: Path, folder: Path, fps: float | None) -> float:
    """Return the frames per second of a clip: of its own `frames.json`, else the argument, else the data folder's.

    Raises:
        DataError: none says it, or a file is malformed.
    """
    own, common = folder / FRAMES_NAME, root / FRAMES_NAME
    if own.is_file():
        return _parse_rate(own)
    if fps is not None:
        return _check_rate(fps, "the argument fps")
    if common.is_file():
        return _parse_rate(common)
    raise DataError(
        f"{folder}: nothing says how many pictures a second these are; write {common} with "
        '{"fps": 12} (or the true rate), or give fps'
    )


def _parse_rate(path: Path) -> float:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error})") from error
    if not isinstance(document, dict) or set(document) != {"fps"}:
        raise DataError(f'{path} holds {str(document)[:80]}; exactly {{"fps": number}} is needed')
    return _check_rate(document["fps"], str(path))


def _check_rate(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise DataError(
            f"{where} says fps {value!r}; a positive number of frames per second is needed"
        )
    return float(value)


class FrameFolderSource(OnePathEach):
    """Every folder of pictures under a folder, in order of its path.

    `instructions.jsonl` may give each its text: `{"video": "clips/0001", "instruction": "push the red block"}`.

    Args:
        path: the data folder.
        fps: pictures per second, for clips without a `frames.json` of their own.

    Raises:
        DataError: there is no picture, or no rate, or `instructions.jsonl` is malformed.
    """

    KIND = "frames"

    def __init__(self, path: str | Path, *, fps: float | None = None) -> None:
        lacks = f"sub-folder with pictures ({', '.join(PICTURE_SUFFIXES)})"
        super().__init__(path, list_clip_folders(Path(path)), lacks)
        self.rates = [read_rate(self.path, folder, fps) for folder in self.paths]
        self.instructions = read_instructions(self.path, set(self.origins()))

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one folder; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: a picture is damaged, sizes differ, or there are fewer than two.
        """
        folder = self.at(index)
        pictures = list_pictures(folder)
        if len(pictures) < 2:
            raise DataError(f"{folder} has one picture; a clip of at least two is needed")
        frames = [read_picture(path) for path in pictures]
        if image_px is not None:
            frames = [preprocess(frame, image_px) for frame in frames]
        sizes = sorted({frame.shape for frame in frames})
        if len(sizes) > 1:
            raise DataError(f"{folder}: pictures have sizes {sizes}; one size is needed")
        return Episode(
            frames=np.stack(frames),
            instruction=self.instructions.get(self.origin(index), ""),
            fps=self.rates[index],
            source=str(folder),
        )
