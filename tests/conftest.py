# SPDX-License-Identifier: Apache-2.0
"""Which tiers run here. Imports nothing heavy: the pure tests must start at once."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Before torch is imported: in models as small as the tests', threads mostly wait for each other, and on a busy
# machine for most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason printed, the tiers that this machine or shell cannot run."""
    reasons = {"ros": _why_no_ros, "gpu": _why_no_gpu}
    for marker, why in reasons.items():
        chosen = [item for item in items if item.get_closest_marker(marker)]
        if chosen and (reason := why()):
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
        pytest.skip(f"no Bridge sample at {path}; set LAPA_SHARED_DATA to the folder that holds it")
    return path
