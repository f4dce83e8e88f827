# SPDX-License-Identifier: Apache-2.0
"""The exact token sequence of the release (facts/lapa.md 2.3, 2.7). Imports no torch.

    begin, begin | You are ... ASSISTANT: | <vision> | 256 ids, end of vision | </vision>
    | <delta> | codes | </delta> | end

`<action>` takes the place of `<delta>` after finetuning. The tags are no special tokens: they are spelled in
ordinary pieces. The two begin marks are the release's: one is in its prompt string, one is put before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.vla.lwm.tokenizer import SentencePieceText

SYSTEM = (
    "You are a helpful assistant. USER: What action should the robot take to `{task}` ASSISTANT:"
)
TAGS = {"latent": "delta", "action": "action"}
"""Head -> the tag around its tokens."""
BUCKET = 32
"""Prompts of a training batch are padded to a multiple of this, so that few shapes occur [tokens]."""


class Prompts(NamedTuple):
    """Padded prompts of one batch."""

    ids_BT: NDArray[np.int64]
    """Padding (id 0) on the left; the last ids are `<vision>`."""
    seen_BT: NDArray[np.bool_]
    """False at padding."""


def prompt_ids(text: SentencePieceText, task: str) -> list[int]:
    """Return the ids up to and with `<vision>`, without padding."""
    spoken = text.encode(SYSTEM.format(task=task))
    return [text.bos, text.bos, *spoken, *text.encode("<vision>")]


def prompts(
    text: SentencePieceText, tasks: Sequence[str], longest: int, *, fixed: bool = False
) -> Prompts:
    """Return the prompts of a batch, padded on the left.

    Args:
        text: the tokenizer.
        tasks: instructions.
        longest: most tokens.
        fixed: pad all to `longest`, as the release's samplers do; otherwise to a multiple of `BUCKET`.

    Raises:
        DataError: an instruction that is too long; the release cuts off its beginning without a word.
    """
    rows = [prompt_ids(text, task) for task in tasks]
    for task, row in zip(tasks, rows, strict=True):
        if len(row) > longest:
            raise DataError(
                f"the prompt for {task[:60]!r} has {len(row)} tokens; this model takes {longest}: "
                "shorten the instruction"
            )
    width = longest if fixed else min(longest, -(-max(map(len, rows)) // BUCKET) * BUCKET)
    ids_BT = np.full((len(rows), width), text.pad, dtype=np.int64)
    seen_BT = np.zeros((len(rows), width), dtype=np.bool_)
    for row, ids, seen in zip(rows, ids_BT, seen_BT, strict=True):
        ids[width - len(row) :] = row
        seen[width - len(row) :] = True
    return Prompts(ids_BT, seen_BT)


def opening(text: SentencePieceText, head: Literal["latent", "action"]) -> list[int]:
    """Return the ids between the frame and the first token of the answer."""
    return [*text.encode("</vision>"), *tag(text, head)]


def tag(text: SentencePieceText, head: Literal["latent", "action"]) -> list[int]:
    """Return the ids of the tag that opens an answer."""
    return text.encode(f"<{TAGS[head]}>")


def closing(text: SentencePieceText, head: Literal["latent", "action"]) -> list[int]:
    """Return the ids behind the answer; nothing is decoded so far, only the release's text loss reads them."""
    return [*text.encode(f"</{TAGS[head]}>"), text.eos]


def corpus(tasks: Sequence[str]) -> list[str]:
    """Return all texts that a tokenizer for these tasks meets."""
    tags = [f"<{slash}{name}>" for name in ("vision", *TAGS.values()) for slash in ("", "/")]
    return [*tags, *(SYSTEM.format(task=task) for task in tasks)]
