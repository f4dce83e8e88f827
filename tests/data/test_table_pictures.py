# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of LeRobot tables: the right ones, and nothing but them is decoded."""

import io
import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lapa_core.errors import DataError
from tests.data.conftest import index_of, png

KEY = "observation.images.front"
LENGTHS = (6, 9, 4)


class Tables:
    """A set of three episodes whose pictures lie in one table: picture k of episode e is stamped 16 e + k."""

    def __init__(self, root, stamps, rows_per_group):
        self.root, self.rows_per_group = root, rows_per_group
        info = json.loads((root / "meta/info.json").read_text())
        info["features"][KEY]["dtype"] = "image"
        (root / "meta/info.json").write_text(json.dumps(info))
        (self.file,) = root.glob("data/*/*.parquet")
        self.plain = pq.read_table(self.file)
        numbers = [16 * episode + k for episode, n in enumerate(LENGTHS) for k in range(n)]
        self.cells = [{"bytes": png(stamps.draw(n)), "path": None} for n in numbers]
        self.write()

    def write(self):
        """Write the table, newer than before."""
        later_ns = self.file.stat().st_mtime_ns + 10**9
        table = self.plain.append_column(KEY, pa.array(self.cells))
        pq.write_table(
            table, self.file, row_group_size=self.rows_per_group, write_page_checksum=True
        )
        os.utime(self.file, ns=(later_ns, later_ns))


@pytest.fixture(params=[4, 100])
def tables(request, make_set, stamps):
    """Row groups that divide episodes, and one for all."""
    return Tables(make_set(lengths=LENGTHS), stamps, request.param)


def test_pictures_in_tables(tmp_path, tables, stamps):
    index = index_of(tables.root, tmp_path / "out")
    for number, clip in enumerate(index.clips):
        wanted = np.array([3, 0, 2])
        assert stamps.read_all(index.read(clip, wanted, 64)) == (16 * number + wanted).tolist()


def test_only_wanted_pictures_are_decoded(tmp_path, tables, stamps):
    tables.cells[6 + 5] = {"bytes": b"no picture", "path": None}
    tables.cells[6 + 6] = None
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    assert stamps.read_all(index.read(index.clips[1], [4, 7], 64)) == [20, 23]
    for number in (5, 6):
        with pytest.raises(DataError, match=f"picture {number} of episode 1 cannot be read"):
            index.read(index.clips[1], [4, number], 64)


def test_pictures_beside_the_table(tmp_path, tables, stamps):
    (tables.root / "images").mkdir()
    (tables.root / "images/0.png").write_bytes(png(stamps.draw(999)))
    tables.cells[2] = {"bytes": None, "path": "images/0.png"}
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    assert stamps.read_all(index.read(index.clips[0], [1, 2], 64)) == [1, 999]


def test_table_that_changed_is_read_anew_or_refused(tmp_path, tables, stamps):
    index = index_of(tables.root, tmp_path / "out")
    clip = index.clips[2]
    assert stamps.read_all(index.read(clip, [1], 64)) == [33]
    tables.cells[6 + 9 + 1] = {"bytes": png(stamps.draw(777)), "path": None}
    tables.write()
    assert stamps.read_all(index.read(clip, [1], 64)) == [777]
    tables.plain, tables.cells = tables.plain.slice(0, 18), tables.cells[:18]
    tables.write()
    with pytest.raises(DataError, match="3 rows of episode 2, 4 in one piece are needed"):
        index.read(clip, [1], 64)
    tables.file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        index.read(clip, [1], 64)


def test_bits_that_rot_are_refused(tmp_path, tables):
    """Where the decoder would not notice: most bytes of a JPEG may be any."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    stream = io.BytesIO()
    grey.save(stream, "JPEG")
    tables.cells[2] = {"bytes": stream.getvalue(), "path": None}
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    data = bytearray(tables.file.read_bytes())
    data[data.index(stream.getvalue()[1000:1100]) + 50] ^= 0x01
    tables.file.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        index.read(index.clips[0], [2], 64)


def test_names_that_rot_are_refused(tmp_path, tables):
    """The names of the columns have no checksum; one that is no text is an error of its own kind."""
    index = index_of(tables.root, tmp_path / "out")
    name = b"episode_index"
    tables.file.write_bytes(tables.file.read_bytes().replace(name, b"\xff" + name[1:]))
    with pytest.raises(DataError, match="cannot be read"):
        index.read(index.clips[0], [2], 64)
    with pytest.raises(DataError, match="cannot be read"):
        index_of(tables.root, tmp_path / "anew")


def test_episodes_that_the_tables_lack_are_unreadable(tmp_path, tables):
    tables.plain, tables.cells = tables.plain.slice(0, 18), tables.cells[:18]
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    assert len(index) == 2
    (reason,) = index.facts["unreadable"].values()
    assert "3 rows of episode 2, 4 in one piece are needed" in reason
    pq.write_table(tables.plain, tables.file)
    with pytest.raises(DataError, match=f"first of 3 reasons: .*no column {KEY}"):
        index_of(tables.root, tmp_path / "out")


def test_index_of_an_older_version_is_refused(tmp_path, tables):
    index = index_of(tables.root, tmp_path / "out")
    with pytest.raises(DataError, match="older version; run `lapa data index` again"):
        index.read(replace(index.clips[1], path=".", address="1"), [1], 64)
