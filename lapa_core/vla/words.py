# SPDX-License-Identifier: Apache-2.0
"""Words to numbers: a closed vocabulary with `<unk>`, fitted on the training instructions. Imports numpy only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.vla.text import TextSide

PAD, UNKNOWN = 0, 1
_SPECIAL = ("<pad>", "<unk>")


def split_words(text: str) -> list[str]:
    """Return the lower-case words of an instruction, punctuation dropped."""
    return re.findall(r"[a-z0-9]+", text.lower())


class Vocabulary(TextSide):
    """Known words; every other word is `<unk>`."""

    def __init__(self, words: Sequence[str]):
        """Take the words in their order, the two special ones first.

        Raises:
            DataError: the special words are missing or a word occurs twice.
        """
        if tuple(words[:2]) != _SPECIAL or len(set(words)) != len(words):
            raise DataError(
                f"a vocabulary begins with {_SPECIAL} and has no word twice; given {list(words[:4])} ..."
            )
        self.words = tuple(words)
        self._index = {word: i for i, word in enumerate(words)}

    @classmethod
    def fit(cls, instructions: Iterable[str]) -> Vocabulary:
        """Collect the words of all instructions, sorted."""
        return cls(
            [*_SPECIAL, *sorted({word for text in instructions for word in split_words(text)})]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the words."""
        return {"words": list(self.words)}

    @classmethod
    def load(cls, directory: Path, data: Mapping[str, Any]) -> Vocabulary:
        """Rebuild the list from `to_dict`'s form; it has no file."""
        return cls(data["words"])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, max_words: int) -> NDArray[np.int64]:
        """Return word indices, padded with zeros to (max_words,); at least one word, `<unk>` if there is none."""
        indices = [self._index.get(word, UNKNOWN) for word in split_words(text)][:max_words] or [
            UNKNOWN
        ]
        return np.array(indices + [PAD] * (max_words - len(indices)), dtype=np.int64)
