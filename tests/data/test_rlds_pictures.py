# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of RLDS records: the right ones, and a record is checked once."""

import os
import shutil

import numpy as np
import pytest

from lapa_core.data.rlds import RldsSource
from lapa_core.data.tfrecord import RecordPlace
from lapa_core.errors import DataError
from tests.data.conftest import index_of


@pytest.fixture
def records(tmp_path, bridge):
    shutil.copytree(bridge, tmp_path / "bridge")
    (file,) = (tmp_path / "bridge").rglob("*.tfrecord*")
    return index_of(tmp_path / "bridge", tmp_path / "out"), file


def test_pictures_of_records(records):
    index, file = records
    source = RldsSource(file.parent)
    for number in (0, 7, 14):
        frames = source.episode(number, 64).frames
        for wanted in ([3, 0, 9], [5]):
            np.testing.assert_array_equal(
                index.read(index.clips[number], wanted, 64), frames[wanted]
            )


def test_records_that_were_checked_are_not_checked_again(records, monkeypatch):
    """But those of a file that changed are."""
    index, file = records
    clip = index.clips[3]
    first = index.read(clip, [1], 64)
    with monkeypatch.context() as patch:
        patch.setattr(RecordPlace, "read", lambda place: pytest.fail("the record is read whole"))
        np.testing.assert_array_equal(index.read(clip, [1], 64), first)
    data = bytearray(file.read_bytes())
    offset, length, _ = clip.address.split(":", 2)
    data[int(offset) + int(length) // 2] ^= 0xFF
    file.write_bytes(data)
    later_ns = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(later_ns, later_ns))
    with pytest.raises(DataError, match="does not match its checksum"):
        index.read(clip, [1], 64)
    assert len(index.read(index.clips[4], [1], 64)) == 1
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        index.read(clip, [1], 64)
