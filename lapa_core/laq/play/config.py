# SPDX-License-Identifier: Apache-2.0
"""Configuration of `lapa laq play`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class LaqPlayConfig:
    """Use a latent action model as a world model: choose a start frame and codes, watch what the decoder makes of them.

    Without `--export` a page is served on this machine; it ends with Ctrl-C.
    """

    checkpoint: Path
    """Directory of the trained model."""
    data: Path
    """Data set or index that the start frames come from."""
    episode: int = 0
    """Episode of the start frame."""
    frame: int = 0
    """Its frame number within the episode."""
    codes: str = ""
    """Codes to play at once, one step after the other: `3,3,5` for a model with one token per step; for several tokens
    separate the steps, `0,1,2,3 0,0,1,0`."""
    policy: Path | None = None
    """Pretrained policy (`lapa vla pretrain`) of the same latent action model, which may then choose the codes."""
    instruction: str = ""
    """What the policy shall do; empty takes the episode's own instruction."""
    policy_steps: int = 0
    """Steps that the policy chooses at once, after `codes`."""
    export: Path | None = None
    """MP4 to write instead of serving a page."""
    frame_px: int = 256
    """Least side of the exported pictures [px]; they are enlarged by a whole factor."""
    host: str = "127.0.0.1"
    """Address to serve on; the default cannot be reached from other machines."""
    port: int = 8710
    """Port to serve on; 0 takes a free one."""
    device: str = "cpu"
    """Torch device."""

    def __post_init__(self) -> None:
        for name in ("episode", "frame", "policy_steps", "port"):
            if (value := getattr(self, name)) < 0:
                raise ContractError(f"{name} is {value}; it must be 0 or more")
        if self.port > 65535:
            raise ContractError(f"port is {self.port}; allowed is 0 to 65535")
        if self.frame_px < 16:
            raise ContractError(f"frame_px is {self.frame_px}; at least 16 are needed")
        if self.policy_steps and self.policy is None:
            raise ContractError(
                f"policy_steps is {self.policy_steps}, but there is no policy; give --policy"
            )
        if self.export is not None and not (self.codes or self.policy_steps):
            raise ContractError("nothing to export: give --codes, or --policy with --policy-steps")
