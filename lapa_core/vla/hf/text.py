# SPDX-License-Identifier: Apache-2.0
"""The text side of a backbone: tokenizer, configuration and image statistics. All of it travels in the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from transformers.image_processing_base import ImageProcessingMixin

from lapa_core.errors import CheckpointError, DataError
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.families import QUESTION, family_of
from lapa_core.vla.hf.images import Normalisation
from lapa_core.vla.text import TextSide

FOLDER = "backbone"
"""Folder of a checkpoint with the backbone's configuration and tokenizer, as `transformers` writes them."""

STATE_ID, EARLIER_ID = -1, -2
"""Take the places of the state and of the codes of earlier frames in the ids; they have no text."""

_REMEMBERED = 4096
"""Instructions whose ids are kept."""


class HfText(TextSide):
    """Turns an instruction into the ids of the whole prompt, image tokens included."""

    def __init__(self, backbone: Any, tokenizer: Any, images: Normalisation):
        """Take the backbone's configuration, its tokenizer, and its processor's image statistics.

        Raises:
            CheckpointError: the backbone is of no known family.
        """
        self.backbone, self.tokenizer, self.images = backbone, tokenizer, images
        self.family = family_of(backbone)
        self._marks = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self.encode = lru_cache(maxsize=_REMEMBERED)(self._encode)

    @classmethod
    def fetch(cls, model: str) -> HfText:
        """Read a folder, or files of the hub.

        Raises:
            CheckpointError: neither is there, or files are missing or of no known family.
        """
        model = located(model)
        backbone = read_backbone_config(model)
        family_of(backbone)
        with readable(model):
            processor, _ = ImageProcessingMixin.get_image_processor_dict(model)
            tokenizer = AutoTokenizer.from_pretrained(model)
        return cls(backbone, tokenizer, Normalisation.of(processor))

    def to_dict(self) -> dict[str, Any]:
        """Return the image statistics; the rest are files."""
        return {f"image_{name}": list(part) for name, part in self.images._asdict().items()}

    def save(self, directory: Path) -> None:
        """Write the backbone's configuration and the tokenizer into `FOLDER`."""
        self.backbone.save_pretrained(directory / FOLDER)
        self.tokenizer.save_pretrained(directory / FOLDER)

    @classmethod
    def load(cls, directory: Path, data: Mapping[str, Any]) -> HfText:
        """Rebuild it from a checkpoint.

        Raises:
            CheckpointError: files are missing or damaged.
        """
        folder = str(directory / FOLDER)
        backbone = read_backbone_config(folder)
        with readable(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(backbone, tokenizer, Normalisation.of(dict(data)))

    def _encode(self, instruction: str, config: HfConfig, earlier: int = 0) -> tuple[int, ...]:
        """Return the ids of the prompt, with `earlier` places for codes; remembered per instruction.

        Raises:
            DataError: the instruction is too long, or holds one of the tokenizer's marks.
        """
        if found := [mark for mark in self._marks if mark in instruction]:
            raise DataError(
                f"the instruction {instruction!r} holds {found[0]!r}, a mark of the prompt; say it in other words"
            )
        tokens = self.family.side_tokens(config.image_px) ** 2
        image = self.family.image_token(self.tokenizer) * tokens
        prompt = self.family.prompt(
            QUESTION.format(instruction=instruction),
            [image] * len(config.cameras),
            self.tokenizer.bos_token or "",
        )
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        where = [i for i, id_ in enumerate(ids) if id_ == self.family.image_id]
        if len(where) != tokens * len(config.cameras):
            raise CheckpointError(
                f"the tokenizer makes {len(where)} image tokens of {tokens * len(config.cameras)}; "
                "it is not the one of this backbone"
            )
        if (length := len(ids) - len(where)) > config.max_text:
            raise DataError(
                f"the prompt of {instruction!r} has {length} tokens; max_text is {config.max_text}. "
                "Use fewer words, or train with a larger max_text"
            )
        behind = where[-1] + 2  # the mark that closes the last image: every family has one there
        told = [EARLIER_ID] * earlier + [STATE_ID] * config.proprioception
        return (*ids[:behind], *told, *ids[behind:])


def located(model: str) -> str:
    """Return an id or folder as it is, and of a toy (`toy-smolvlm`) the folder that it is made in.

    Raises:
        CheckpointError: no such toy.
    """
    if not model.startswith("toy-"):
        return model
    from lapa_core.vla.hf.toy import toy_backbone  # tools to make tokenizers come with it

    return str(toy_backbone(model))


@contextmanager
def readable(model: str) -> Iterator[None]:
    """Turn what `transformers` says of files that it cannot read into an error that says what to do.

    Raises:
        CheckpointError: the body could not read a file.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{model!r} cannot be read: {reason} Give a folder with config.json, tokenizer, "
            "preprocessor_config.json and safetensors, or the id of a model of the Hugging Face hub; without a "
            f"network it must have been fetched before (`hf download {model}`)"
        ) from error


def read_backbone_config(model: str) -> Any:
    """Return the configuration of a backbone.

    Raises:
        CheckpointError: it cannot be read.
    """
    model = located(model)
    with readable(model):
        return AutoConfig.from_pretrained(model)
