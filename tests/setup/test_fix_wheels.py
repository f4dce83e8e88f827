# SPDX-License-Identifier: Apache-2.0
from setup.fix_wheels import fix_wheels

STALE = (
    'set_target_properties(t PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "/image/cp312-cp312/include/python3.12;'
    '/image/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include;${_PREFIX}/include/t")\n'
)
OTHER = 'set(directory "/prefix/include/python3.12")\n'


def test_both_headers_are_rewritten_once_and_nothing_else(tmp_path):
    folder = tmp_path / "share" / "some_msgs" / "cmake"
    folder.mkdir(parents=True)
    stale, other = folder / "stale.cmake", folder / "other.cmake"
    stale.write_text(STALE)
    other.write_text(OTHER)

    assert fix_wheels(tmp_path, "/headers/python", "/headers/numpy") == [stale]
    assert stale.read_text() == (
        "set_target_properties(t PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "
        '"/headers/python;/headers/numpy;${_PREFIX}/include/t")\n'
    )
    assert other.read_text() == OTHER
    assert fix_wheels(tmp_path, "/headers/python", "/headers/numpy") == []
