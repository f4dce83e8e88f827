# SPDX-License-Identifier: Apache-2.0
"""The world model as a game: a film that grows by one decoded frame per code tuple.

Shapes: S image side [px], K latent tokens, N codes per token.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ActionError, ContractError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.play.policy import CodePolicy
from lapa_core.laq.play.starts import Start

Codes = tuple[int, ...]


class World:
    """One rollout. Each step feeds the decoder its own last picture, so errors add up, as in any world model."""

    def __init__(self, model: LatentActionModel, start: Start, policy: CodePolicy | None = None):
        """Begin at a start frame.

        Raises:
            ContractError: the model paints no pictures.
        """
        if not model.paints:
            raise ContractError(
                "this model reconstructs features, not pixels, so there is nothing to watch; train one with "
                "pixel targets"
            )
        self._model = model
        self._policy = policy
        self.start = start
        self.reset()

    @property
    def has_policy(self) -> bool:
        """Whether `policy_step` can be used."""
        return self._policy is not None

    def reset(self, start: Start | None = None) -> None:
        """Go back to the start frame, or to a new one."""
        self.start = start or self.start
        self.film: list[NDArray[np.uint8]] = [self.start.picture_SSC]
        self.played: list[Codes] = []

    def step(self, codes: Codes) -> None:
        """Append what these codes make of the present frame.

        Raises:
            ActionError: codes that do not exist.
        """
        self.check(codes)
        self.film.append(self._model.decode(self.film[-1][None], np.array([codes]))[0])
        self.played.append(codes)

    def policy_step(self, instruction: str = "") -> None:
        """Let the policy choose the codes of one step.

        Raises:
            ContractError: there is no policy.
        """
        if self._policy is None:
            raise ContractError("there is no policy to choose the codes; start with --policy")
        words = instruction or self.start.instruction
        self.step(self._policy.choose(self.film[-1], words, self.played))

    def undo(self) -> None:
        """Take the last step back; at the start nothing happens."""
        if self.played:
            self.film.pop()
            self.played.pop()

    def resting(self) -> Codes:
        """Return the model's name for no motion in the present frame."""
        frame_1SSC = self.film[-1][None]
        return tuple(self._model.encode(frame_1SSC, frame_1SSC).codes_BK[0].tolist())

    def choices(self, codes: Codes, position: int) -> NDArray[np.uint8]:
        """Return what each code at one position makes of the present frame, the other positions as in `codes`.

        Returns:
            (N, S, S, 3) pictures.

        Raises:
            ActionError: codes or a position that do not exist.
        """
        self.check(codes)
        if not 0 <= position < self._model.tokens:
            raise ActionError(f"position is {position}; allowed is 0 to {self._model.tokens - 1}")
        codes_NK = np.repeat(np.array([codes]), self._model.codes, axis=0)
        codes_NK[:, position] = np.arange(self._model.codes)
        return self._model.decode(np.repeat(self.film[-1][None], len(codes_NK), axis=0), codes_NK)

    def check(self, codes: Codes) -> None:
        """Refuse a code tuple that the model does not have."""
        tokens, number = self._model.tokens, self._model.codes
        if len(codes) != tokens or any(not 0 <= code < number for code in codes):
            raise ActionError(
                f"codes are {','.join(map(str, codes)) or 'empty'}; this model takes {tokens} per step, each "
                f"from 0 to {number - 1}"
            )


def parse_codes(text: str, tokens: int) -> list[Codes]:
    """Read steps from text: `3,3,5` with one token per step, else tuples between spaces, `0,1,2,3 0,0,1,0`.

    Raises:
        ActionError: something that is no whole number, or not `tokens` numbers per step.
    """
    steps = []
    for word in text.replace(";", " ").split():
        try:
            steps.append(tuple(int(part) for part in word.split(",")))
        except ValueError as error:
            raise ActionError(
                f"codes are {text!r}; allowed are whole numbers with commas, as in `3,3,5`"
            ) from error
    if tokens == 1:
        return [(code,) for step in steps for code in step]
    if bad := [step for step in steps if len(step) != tokens]:
        raise ActionError(
            f"a step is {','.join(map(str, bad[0]))}; this model takes {tokens} codes per step: separate the "
            f"steps by spaces, as in `{','.join('0' * tokens)} {','.join('1' * tokens)}`"
        )
    return steps
