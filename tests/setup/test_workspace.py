# SPDX-License-Identifier: Apache-2.0
import pytest

from setup import stamp
from setup.workspace import _sources


@pytest.fixture
def clone(tmp_path):
    package = tmp_path / "ros2_ws" / "src" / "nodes"
    for folder in (package / "nodes", package / "msg", tmp_path / "config", tmp_path / "core"):
        folder.mkdir(parents=True)
    (package / "setup.py").write_text("version 1")
    (package / "nodes" / "arm.py").write_text("a")
    (package / "msg" / "Delta.msg").write_text("float64 x")
    (tmp_path / "config" / "arm.yaml").write_text("rate: 5")
    (tmp_path / "core" / "inside.py").write_text("")
    (tmp_path / "ros2_ws" / "src" / "core").symlink_to(tmp_path / "core")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "rebuilds"),
    [
        ("ros2_ws/src/nodes/nodes/arm.py", False),
        ("ros2_ws/src/core/new.py", False),
        ("ros2_ws/src/nodes/setup.py", True),
        ("ros2_ws/src/nodes/msg/Delta.msg", True),
        ("ros2_ws/src/nodes/nodes/new.py", True),
        ("config/arm.yaml", False),
        ("config/new.yaml", True),
    ],
)
def test_only_what_is_not_installed_as_a_link_needs_a_build(clone, path, rebuilds):
    before = stamp.digest(_sources(clone))
    (clone / path).write_text("changed")
    assert (stamp.digest(_sources(clone)) != before) is rebuilds


def test_what_python_leaves_behind_needs_no_build(clone):
    before = stamp.digest(_sources(clone))
    cache = clone / "ros2_ws" / "src" / "nodes" / "nodes" / "__pycache__"
    cache.mkdir()
    (cache / "arm.cpython-311.pyc").touch()
    assert stamp.digest(_sources(clone)) == before


def test_a_digest_keeps_its_parts_apart():
    assert stamp.digest(["ab", "c"]) != stamp.digest(["a", "bc"])


def test_a_stamp_is_current_for_its_own_key_only(tmp_path):
    path = tmp_path / "stamp"
    assert not stamp.is_current(path, "key")
    stamp.write(path, "key")
    assert stamp.is_current(path, "key")
    assert not stamp.is_current(path, "other")
