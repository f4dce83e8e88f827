# SPDX-License-Identifier: Apache-2.0
"""Notices when a model's weights are no longer those that something was computed or recorded with."""

from __future__ import annotations

from torch import Tensor, nn


class WeightsMark:
    """Remembers a model's tensors: which they are, where they lie, how often they were written to.

    Comparing looks at addresses and counters only: no wait for the device. It keeps no reference to the model itself.
    """

    def __init__(self, model: nn.Module):
        """Mark the model as it is now."""
        modules = list(model.modules())
        self._parts = [
            (owner._modules, name, part)
            for owner in modules
            for name, part in owner._modules.items()
        ]
        self._tensors = [
            (owner, name, tensor, *_state(tensor))
            for module in modules
            for owner in (module._parameters, module._buffers)
            for name, tensor in owner.items()
            if tensor is not None
        ]

    def holds(self) -> bool:
        """Return whether every module, parameter and buffer is the same object at the same place with the same values.

        New ones beside the old are read by nothing that was recorded.
        """
        return all(owner.get(name) is part for owner, name, part in self._parts) and all(
            owner.get(name) is tensor and _state(tensor) == (address, writes)
            for owner, name, tensor, address, writes in self._tensors
        )


def _state(tensor: Tensor) -> tuple[int, int]:
    """Return where a tensor (of a sharded one, this process's part) lies, and how often it was written to.

    Those of inference mode do not count their writes.
    """
    tensor = getattr(tensor, "_local_tensor", tensor)
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version
