# SPDX-License-Identifier: Apache-2.0
"""What a sequence model shows to the decoder. LWM and the `transformers` families implement it; imports torch only.

The sequence is: prefix (text, image, and the mark that opens the answer) | token 0 | token 1 | ... Token k is chosen
from the hidden state just before it: token 0 from the prefix's last position.

Shapes: B sequences, L prefix positions, K tokens of a head, N its codes or bins, D width, Q queries of one call,
S positions that they may attend to, H key-value heads, W head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from lapa_core.actions.bins import ActionBins
    from lapa_core.vla.base import Head, Inputs


class Prompt(NamedTuple):
    """The leading part of a prefix that does not change from frame to frame."""

    key: Tensor
    """What that part is made of. The same object, not an equal one, means the same prompt: comparing costs no wait
    for the device. So a model keeps the ids of an instruction and hands out the same tensor again."""
    length: int
    """How many leading positions (left padding included) depend on the key alone; below L."""


class KvStore(Protocol):
    """Keys and values of earlier positions, with the method that `transformers` attention layers call."""

    def update(
        self, key_BHQW: Tensor, value_BHQW: Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; return all of them, (B, H, S, W) each."""
        ...


class SequenceModel(Protocol):
    """A model that answers with a sequence of tokens. Only `prefix_embeddings` may wait for the device."""

    latent: tuple[int, int] | None
    """(tokens K, codes N) of the latent head."""
    bins: ActionBins | None
    """Bins of the action head."""
    full_prefix: bool
    """Whether prefix positions see each other in both directions (PaliGemma) or only backwards."""

    def prefix_embeddings(self, inputs: Inputs, head: Head) -> Tensor:
        """Return (B, L, D). Padding is on the left; the last position is the one before token 0."""
        ...

    def positions(self, inputs: Inputs, head: Head) -> Tensor:
        """Return the rotary positions of the prefix, (B, L), or (3, B, L) for several axes; tokens count on."""
        ...

    def visible(self, inputs: Inputs, head: Head) -> Tensor | None:
        """Return (B, L) bool, false where the prefix is padding; none: there is no padding."""
        ...

    def prompt(self, inputs: Inputs, head: Head) -> Prompt | None:
        """Return the part of the prefix that stays; none: nothing does."""
        ...

    def queries(self, head: Head) -> Tensor | None:
        """Return the learned embeddings (K, D) of a head that decodes in one forward; none: one token after another."""
        ...

    def backbone(
        self, embeddings_BQD: Tensor, positions: Tensor, mask: Tensor | None, cache: KvStore | None
    ) -> Tensor:
        """Return the normalised last hidden states (B, Q, D).

        Args:
            embeddings_BQD: what the first block reads.
            positions: (B, Q) or (3, B, Q).
            mask: (B, 1, Q, S), added to the attention logits: 0 or the lowest number of the embeddings' type; none:
                plain causal attention.
            cache: earlier keys and values; none: there are none, and S is Q.
        """
        ...

    def embed(self, head: Head, ids_B: Tensor, k: int) -> Tensor:
        """Return the input embeddings (B, D) of the ids chosen for token k."""
        ...

    def logits(self, head: Head, hidden_BD: Tensor, k: int) -> Tensor:
        """Return (B, N) for token k, -inf at bins that this dimension has not."""
        ...
