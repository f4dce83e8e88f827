# SPDX-License-Identifier: Apache-2.0
"""Repair of the ROS 2 wheels: their CMake exports name headers of the container that built them.

`find_package` of an interface package fails on those paths. Needed for the Jazzy wheels of ros-python-wheels;
can go when the wheels export relative paths.
"""

import re
import sys
import sysconfig
from pathlib import Path

# The interpreters of a manylinux build image lie in folders named after their tags (`cp311-cp311`), wherever that is.
_BUILD_PYTHON = r'/[^;"\s]*/cp3\d+-cp3\d+t?'
_PYTHON_INCLUDE = re.compile(_BUILD_PYTHON + r"/include/python3\.\d+t?")
_NUMPY_INCLUDE = re.compile(_BUILD_PYTHON + r'/[^;"\s]+/site-packages/numpy/_core/include')


def rewrite(text: str, python_include: str, numpy_include: str) -> str:
    """Return the CMake text with both header directories replaced.

    Args:
        text: content of one exported `.cmake` file.
        python_include: directory that holds `Python.h`.
        numpy_include: directory that holds `numpy/arrayobject.h`.
    """
    text = _PYTHON_INCLUDE.sub(lambda _: python_include, text)
    return _NUMPY_INCLUDE.sub(lambda _: numpy_include, text)


def fix_wheels(prefix: Path, python_include: str, numpy_include: str) -> list[Path]:
    """Repair every `.cmake` file under `prefix/share`; a second call changes nothing.

    Returns:
        The files that changed.
    """
    changed = []
    for path in sorted((prefix / "share").rglob("*.cmake")):
        before = path.read_text(encoding="utf-8")
        after = rewrite(before, python_include, numpy_include)
        if after != before:
            # pip hard-links or copies; a new file never alters a shared original.
            path.unlink()
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


def main() -> None:
    """Repair the environment whose interpreter runs this module."""
    import numpy

    python_include = sysconfig.get_paths()["include"]
    changed = fix_wheels(Path(sys.prefix), python_include, numpy.get_include())
    print(f"header paths: {len(changed)} CMake files of the ROS 2 wheels rewritten")


if __name__ == "__main__":
    main()
