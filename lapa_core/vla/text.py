# SPDX-License-Identifier: Apache-2.0
"""The text side of a policy model. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TextSide(ABC):
    """What turns an instruction into ids; it travels in the checkpoint, so that none is fetched to use a policy."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-able part, which goes into config.json."""

    def save(self, directory: Path) -> None:  # noqa: B027 (most text sides have no files)
        """Write the files that do not fit into config.json (a tokenizer's) into a checkpoint; here none."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, data: Mapping[str, Any]) -> TextSide:
        """Rebuild what `to_dict` and `save` left in a checkpoint."""
