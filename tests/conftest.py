# SPDX-License-Identifier: Apache-2.0
"""Which tiers run here. Imports nothing heavy: the pure tests must start at once."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Before torch is imported: in models as small as the tests', threads mostly wait for each other, and on a busy
# machine for most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


THREADS_END_S = 5.0
"""Longest time that a test's threads may take to end after it [s]."""
EXIT_S = 60.0
"""Longest time that this process may take to end after the last test [s]."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail the test that leaves a thread behind which this process would wait for at its end."""
    before = set(threading.enumerate())
    yield
    end_s = time.monotonic() + THREADS_END_S
    while left := [t for t in threading.enumerate() if t not in before and not t.daemon]:
        assert time.monotonic() < end_s, f"the test left threads behind: {left}"
        time.sleep(0.01)


def pytest_unconfigure() -> None:
    """Show what keeps this process from ending, and end it with an error."""
    faulthandler.dump_traceback_later(EXIT_S, exit=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason printed, the tiers that this machine or shell cannot run."""
    reasons = {"ros": _why_no_ros, "gpu": _why_no_gpu}
    for marker, why in reasons.items():
        chosen = [item for item in items if item.get_closest_marker(marker)]
        if chosen and (reason := why()):
            # This machine cannot run them. `make test` fails if not one end-to-end test has run.
            for item in chosen:
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_ros() -> str | None:
    missing = [name for name in ("rclpy", "lapa_msgs") if find_spec(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} here: `make test`, or `. setup/env.sh` first"
    return None


def _why_no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no CUDA device"


@pytest.fixture(scope="session")
def bridge() -> Path:
    """The excerpts of BridgeData V2: real robot data, under a licence of its own and so not in this repository."""
    root = Path(os.environ.get("LAPA_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    path = root / "bridge_v2_sample"
    if not path.is_dir():
        # Their licence keeps the excerpts out of this repository. CI has them, and skips nothing here.
        pytest.skip(f"no Bridge sample at {path}; set LAPA_SHARED_DATA to the folder that holds it")
    return path
