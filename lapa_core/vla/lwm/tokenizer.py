# SPDX-License-Identifier: Apache-2.0
"""The sentencepiece side: text to ids as the release's slow Llama tokenizer does it. Imports no torch.

That tokenizer finds special tokens by their spelling (`<s>`, `</s>`, `<unk>`) and encodes the texts between them one
by one. Here a text is only ever text: the special ids are put in by the code that means them (`prompt.py`), so that
no instruction can end or begin a sequence by what it spells. For instructions without these spellings the ids are
the same.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece

from lapa_core.errors import CheckpointError, DataError
from lapa_core.vla.text import TextSide

FILE = "tokenizer.model"
"""Name of the sentencepiece model inside a checkpoint, and in the release."""


class SentencePieceText(TextSide):
    """A sentencepiece model with the special ids of Llama: unknown 0 (which also pads), begin 1, end 2."""

    def __init__(self, model: bytes, origin: str = "the sentencepiece model"):
        """Take the content of a `tokenizer.model`.

        Raises:
            DataError: not a sentencepiece model, or one with other special ids.
        """
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(
                f"{origin} is not a sentencepiece model ({error}); give Llama's {FILE}"
            ) from error
        found = (self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        if found != (0, 1, 2):
            raise DataError(
                f"{origin} has the ids {found} for unknown, begin and end; Llama's are (0, 1, 2)"
            )
        self._model = model
        self.pad, self.bos, self.eos = found

    def __len__(self) -> int:
        return int(self._pieces.get_piece_size())

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special one."""
        ids: list[int] = self._pieces.encode(text)
        return ids

    def to_dict(self) -> dict[str, Any]:
        """Return the hash of the file that `save` writes."""
        return {"sha256": hashlib.sha256(self._model).hexdigest()}

    def save(self, directory: Path) -> None:
        """Write the sentencepiece model."""
        (directory / FILE).write_bytes(self._model)

    @classmethod
    def read(cls, path: Path) -> SentencePieceText:
        """Read a `tokenizer.model`.

        Raises:
            DataError: no such file, or not a sentencepiece model of Llama's kind.
        """
        if not path.is_file():
            raise DataError(f"there is no {path}; give the release's {FILE}")
        return cls(path.read_bytes(), str(path))

    @classmethod
    def load(cls, directory: Path, data: Mapping[str, Any]) -> SentencePieceText:
        """Read the file that `save` wrote and compare its hash.

        Raises:
            CheckpointError: it is missing, damaged or another one.
        """
        path = directory / FILE
        try:
            text = cls.read(path)
        except DataError as error:
            raise CheckpointError(f"{error}; copy the whole checkpoint again") from error
        if text.to_dict() != dict(data):
            raise CheckpointError(
                f"{path} is not the tokenizer that its checkpoint was saved with; copy the whole folder again"
            )
        return text

    @classmethod
    def fit(cls, texts: Iterable[str], size: int) -> SentencePieceText:
        """Train a small model of Llama's kind (byte pairs, bytes for unseen characters) on some texts.

        Args:
            texts: to learn the pieces from.
            size: most pieces; few texts make fewer.

        Raises:
            DataError: too few pieces for the 256 bytes, the special ids and the characters of the texts.
        """
        buffer = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sorted(set(texts))),
                model_writer=buffer,
                vocab_size=size,
                hard_vocab_limit=False,
                model_type="bpe",
                byte_fallback=True,
                split_digits=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(
                f"no sentencepiece model of {size} pieces can be made of these texts ({error}); raise `vocab`"
            ) from error
        return cls(buffer.getvalue())
