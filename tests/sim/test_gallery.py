# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of the README."""

import numpy as np
import pytest
from PIL import Image

from lapa_core.errors import ContractError
from lapa_core.sim.gallery import GalleryConfig, main


def test_gallery_is_written_and_its_frames_differ(tmp_path, capsys):
    out = tmp_path / "new" / "gallery.png"
    main(GalleryConfig(out=out, rows=1, columns=2, frame_px=64, fine=False))
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape[1] == 2 * 64 + 6
    first, last = sheet[26:90, :64], sheet[26:90, 70:134]
    assert np.abs(first - last).mean() > 1, "the arm has moved"
    assert str(out) in capsys.readouterr().out


def test_an_empty_gallery_is_refused(tmp_path):
    with pytest.raises(ContractError, match="rows"):
        GalleryConfig(out=tmp_path / "x.png", rows=0)
