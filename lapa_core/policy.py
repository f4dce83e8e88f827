# SPDX-License-Identifier: Apache-2.0
"""The policy behind one call: a camera frame and an instruction in, one end-effector delta out.

Importing this module needs numpy only; torch is imported by `Policy.load`, unless the model runs in a `lapa serve`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.checkpoint import load_config
from lapa_core.errors import ActionError, CheckpointError, ContractError
from lapa_core.image import preprocess
from lapa_core.paths import CHECKPOINTS_DIR

DEFAULT_CHECKPOINT = CHECKPOINTS_DIR / "sim_policy"
"""The policy that ships with the package, trained for the simulator."""
SERVER_SCHEMES = ("ws://", "wss://")
"""How the address of a policy server begins."""


class Engine(Protocol):
    """The model half of a policy: pixels and words to bins."""

    def step(
        self, frame_SS3: NDArray[np.uint8], instruction: str
    ) -> tuple[NDArray[np.int64], tuple[int, ...] | None]:
        """Return ((7,) bin indices, latent codes or None) for one preprocessed square frame."""


@dataclass(frozen=True)
class PolicyStep:
    """One decision of a policy."""

    delta: EndEffectorDelta
    """The decoded command."""
    bins: NDArray[np.int64]
    """(7,) the bins that it was decoded from."""
    latent: tuple[int, ...] | None
    """The latent action codes behind it, where the policy predicts them."""


class Policy:
    """A finetuned policy, rebuilt from its checkpoint alone."""

    def __init__(self, engine: Engine, config: dict[str, Any]):
        """Wrap an engine; `config` is the checkpoint's."""
        self.engine = engine
        self._bins = ActionBins.from_dict(config["bins"])
        self.image_px: int = config["image_px"]
        self.contract_hash: str = config["contract_hash"]
        self.control_rate_hz: float = config["control_rate_hz"]
        self.config = config

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        device: str = "cpu",
        *,
        temperature: float | None = None,
        seed: int = 0,
    ) -> Policy:
        """Rebuild a policy from a checkpoint folder; without one, the policy that ships with the package.

        Args:
            directory: checkpoint, or `ws://host:port` of a `lapa serve`, which has chosen the rest itself.
            device: torch device.
            temperature: of the sampling of bins (or codes, with a code table); 0 takes the likeliest. None
                takes the checkpoint's own, with which it was evaluated.
            seed: of the sampling; the same calls in the same order give the same decisions.

        Raises:
            CheckpointError: missing, damaged, or not a policy.
            ContractError: a temperature that is negative or not finite, or any for a server.
            ServerError: the server cannot be reached, or refuses.
        """
        if isinstance(directory, str) and directory.startswith(SERVER_SCHEMES):
            return _load_remote(directory, temperature)
        directory = DEFAULT_CHECKPOINT if directory is None else Path(directory)
        config = load_config(directory, kind="policy")
        if missing := {"bins", "image_px", "contract_hash", "control_rate_hz"} - set(config):
            raise CheckpointError(
                f"{directory}: config.json lacks {sorted(missing)}; finetune again to make a policy"
            )
        from lapa_core.vla.engine import load_engine  # torch comes with it

        engine = load_engine(directory, device, temperature=temperature, seed=seed)
        return cls(engine, config)

    def act(self, frame_HWC: NDArray[np.uint8], instruction: str) -> PolicyStep:
        """Decide on one delta.

        Args:
            frame_HWC: the camera's RGB uint8 image, of any size; cropped and resized here.
            instruction: what to do, in words.

        Raises:
            DataError: the frame is not an RGB uint8 image.
            ActionError: the instruction is empty, or the engine named a bin that does not exist.
        """
        if not instruction.strip():
            raise ActionError("the instruction is empty; say what the robot shall do")
        bins_7, latent = self.engine.step(preprocess(frame_HWC, self.image_px), instruction)
        return PolicyStep(EndEffectorDelta.from_array(self._bins.decode(bins_7)), bins_7, latent)

    def close(self) -> None:
        """Give back what the engine holds: the connection to a server."""
        if (close := getattr(self.engine, "close", None)) is not None:
            close()


def _load_remote(address: str, temperature: float | None) -> Policy:
    if temperature is not None:
        raise ContractError(
            f"temperature is {temperature}, but {address} has its own; give it to `lapa serve`"
        )
    from lapa_core.serve.client import connect_policy  # websockets comes with it

    return connect_policy(address)
