# SPDX-License-Identifier: Apache-2.0
"""Says at once, and in words, when a device that was asked for is not there."""

from __future__ import annotations

from lapa_core.errors import ContractError, SetupError


def check_device(name: str) -> None:
    """Refuse a torch device that does not exist here.

    Raises:
        ContractError: torch knows no such device.
        SetupError: it is a GPU that this machine or this build of torch has not.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ContractError(f"device is {name!r}; allowed are cpu, cuda, cuda:0 ...") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise SetupError(
                f"device is {name!r}, but torch {torch.__version__} sees {count} GPU(s); use --device cpu, or a "
                "machine with a GPU and torch's CUDA build"
            )
    elif device.type != "cpu":
        raise ContractError(f"device is {name!r}; allowed are cpu, cuda, cuda:0 ...")
