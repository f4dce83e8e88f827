# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of the README."""

import itertools

import numpy as np
import pytest
from PIL import Image

from lapa_core.errors import ContractError
from lapa_core.sim.appearance import DOMAINS
from lapa_core.sim.gallery import GalleryConfig, main, render_gallery


def test_gallery_is_written_and_its_frames_differ(tmp_path, capsys):
    out = tmp_path / "new" / "gallery.png"
    main(GalleryConfig(out=out, rows=1, columns=2, frame_px=64, fine=False))
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape[1] == 2 * 64 + 6
    first, last = sheet[26:90, :64], sheet[26:90, 70:134]
    assert np.abs(first - last).mean() > 1, "the arm has moved"
    assert str(out) in capsys.readouterr().out


def test_all_domains_share_one_sheet_and_differ(tmp_path):
    config = GalleryConfig(
        out=tmp_path / "x.png", domain="all", rows=1, columns=2, frame_px=64, fine=False
    )
    sheet = render_gallery(config).astype(int)
    rows = np.split(sheet, len(DOMAINS))
    for one, other in itertools.pairwise(rows):
        assert np.abs(one[26:90] - other[26:90]).mean() > 10


def test_an_empty_gallery_is_refused(tmp_path):
    with pytest.raises(ContractError, match="rows"):
        GalleryConfig(out=tmp_path / "x.png", rows=0)
