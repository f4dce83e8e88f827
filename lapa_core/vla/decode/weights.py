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
        self._places = [
            (owner, name, item)
            for module in model.modules()
            for owner in (module._parameters, module._buffers, module._modules)
            for name, item in owner.items()
        ]
        self._states = [_state(item) for *_, item in self._places]

    def holds(self) -> bool:
        """Return whether every module, parameter and buffer is the same object at the same place with the same values.

        A module that is new or gone shows in its parent; new entries beside the old ones are read by nothing recorded.
        """
        return all(
            owner.get(name) is item and _state(item) == state
            for (owner, name, item), state in zip(self._places, self._states, strict=True)
        )


def _state(item: object) -> tuple[int, int]:
    if not isinstance(item, Tensor):
        return 0, 0
    return item.data_ptr(), -1 if item.is_inference() else item._version
