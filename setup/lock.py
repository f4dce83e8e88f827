# SPDX-License-Identifier: Apache-2.0
"""`make lock`: resolve the direct dependencies into setup/requirements/lock.txt. Needs `uv` on the path.

The lock is one for all supported versions of Python and is given to pip as a constraints file. It is made with
uv but installed with pip, and without hashes, because pip then still obeys a machine's own configuration: a
local wheel folder (`find-links`) or an index that offers `torch==2.13.0+cpu` satisfies `torch==2.13.0`.
"""

import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
GROUPS = ("core", "dev", "ros")
_HEADER = """\
# Made by `make lock` from core.in, dev.in and ros.in: every exact version, for Python 3.10 to 3.12.
# A constraints file (`pip install -c`). The CUDA libraries are absent on purpose: torch pins them itself, and
# its CPU wheel has none.
"""
_LEFT_OUT = re.compile(r"^(nvidia-|cuda-|triton==)|; sys_platform == 'win32'$")


def left_in(lines: list[str]) -> list[str]:
    """Return the resolved lines less what torch's CUDA build pins itself and what only Windows needs."""
    return [line for line in lines if not _LEFT_OUT.search(line)]


def main() -> None:
    """Resolve again; versions in the present lock stay as long as they satisfy the direct dependencies."""
    lock = REQUIREMENTS / "lock.txt"
    command = ["uv", "pip", "compile", "--universal", "--python-version", "3.10", "--quiet"]
    command += ["--no-header", "--no-annotate", "--output-file", str(lock)]
    command += [str(REQUIREMENTS / f"{group}.in") for group in GROUPS]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit("make lock needs uv, which is not on the path: `pip install uv`")
    lines = left_in(lock.read_text(encoding="utf-8").splitlines())
    lock.write_text(_HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{lock}: {len(lines)} versions")


if __name__ == "__main__":
    main()
